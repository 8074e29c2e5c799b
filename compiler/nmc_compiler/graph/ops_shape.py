"""Delays, reshaping, sum pools, synapses one by one, and outputs: what any network has between its neurons."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.ops_linear import MAX_SHIFT, POOL_ATTRS, exact_int, pool_shape
from nmc_compiler.graph.registry import TENSOR, Call, OpSpec, check_shape, register
from nmc_compiler.graph.types import Kind, ValueType

MAX_DELAY = 1 << 16  # timesteps; a longer delay holds more history than any network needs
MAX_EXTRA = 63  # timesteps of one synapse (docs/integers.md)


# ---- output ----

register(
    OpSpec(
        "output",
        1,
        lambda types, attrs, tensors, where: types[0],
        lambda c: c.inputs[0],
        doc="what the network gives at every step: spikes, or the potential of an integrator",
    )
)


# ---- reshape ----


def _reshape_infer(types, attrs, tensors, where):
    (x,), shape = types, attrs["shape"].value
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != math.prod(x.shape):
        raise VerifyError(f"{where}: shape must be (C, H, W) with {math.prod(x.shape)} elements, got {shape}")
    return ValueType(x.kind, shape, x.bits, x.signed)


register(
    OpSpec(
        "reshape",
        1,
        _reshape_infer,
        lambda c: c.inputs[0].reshape(len(c.inputs[0]), *c.attr("shape")),
        {"shape": (tuple,)},
        ("shape",),
        doc="the same elements in C order, in another (C, H, W); a flat vector is (N, 1, 1)",
    )
)


# ---- gather ----


def _gather_infer(types, attrs, tensors, where):
    shape, index = attrs["shape"].value, tensors[attrs["index"].value.key]
    sizes = [math.prod(t.shape) for t in types]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != sum(sizes):
        raise VerifyError(f"{where}: shape must be (C, H, W) with {sum(sizes)} elements, got {shape}")
    if index.dtype.kind not in "iu" or not np.array_equal(np.sort(index, axis=None), np.arange(sum(sizes))):
        raise VerifyError(f"{where}: index must hold each of 0..{sum(sizes) - 1} once")
    if len({(t.kind, t.bits, t.signed) for t in types}) != 1:
        raise VerifyError(f"{where}: operands differ in kind: {', '.join(map(str, types))}")
    return ValueType(types[0].kind, shape, types[0].bits, types[0].signed)


def _gather_eval(c: Call) -> np.ndarray:
    """Element index[k] is element k of the operands, one behind the other in C order."""
    flat = np.concatenate([x.reshape(len(x), -1) for x in c.inputs], axis=1)
    out = np.empty_like(flat)
    out[:, c.tensor("index")] = flat
    return out.reshape(len(flat), *c.attr("shape"))


register(
    OpSpec(
        "gather",
        None,
        _gather_infer,
        _gather_eval,
        {"index": TENSOR, "shape": (tuple,)},
        ("index", "shape"),
        doc="parts of a population put together again, for an output",
    )
)


# ---- delay ----


def delays(attr, tensors: dict[str, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """Whole steps by which each element is late, [C, H, W]."""
    value = attr.value
    array = np.asarray(value) if isinstance(value, int) else tensors[value.key]
    array = array[:, None, None] if array.ndim == 1 else array
    return np.broadcast_to(array, shape).astype(np.int64)


def _delay_infer(types, attrs, tensors, where):
    (x,), value = types, attrs["steps"].value
    if isinstance(value, int):
        lowest, highest = value, value
    else:
        array = tensors[value.key]
        if array.shape not in ((x.shape[0],), tuple(x.shape)):
            raise VerifyError(
                f"{where}: steps must be a number or have shape ({x.shape[0]},) or {x.shape}, got {array.shape}"
            )
        if array.dtype.kind not in "iu":
            raise VerifyError(f"{where}: steps must be whole numbers of timesteps, got {array.dtype}")
        lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > MAX_DELAY:
        raise VerifyError(f"{where}: steps must lie in 0..{MAX_DELAY}, got {lowest}..{highest}")
    return x


def _delay_eval(c: Call) -> np.ndarray:
    """Element e at timestep t is the operand's at t - steps[e]; zero before its first."""
    steps = delays(c.attrs["steps"], c.tensors, c.inputs[0].shape[1:])
    past = [c.inputs[0], *c.state.get("past", [])][: int(steps.max()) + 1]
    c.state["past"] = past
    out = np.zeros_like(c.inputs[0])
    for late in np.unique(steps[steps < len(past)]).tolist():
        out[:, steps == late] = past[late][:, steps == late]
    return out


register(
    OpSpec(
        "delay",
        1,
        _delay_infer,
        _delay_eval,
        {"steps": (int, *TENSOR)},
        ("steps",),
        doc="each element as it was its number of steps ago",
    )
)


# ---- sum pool ----


def _sumpool_infer(types, attrs, tensors, where):
    return ValueType(Kind.CURRENT, pool_shape(types[0], attrs, where))


def _sumpool_eval(c: Call) -> np.ndarray:
    (kh, kw), (sy, sx), (py, px) = c.attr("kernel"), c.attr("stride", (1, 1)), c.attr("pad", (0, 0))
    padded = np.pad(c.inputs[0], ((0, 0), (0, 0), (py, py), (px, px)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))[:, :, ::sy, ::sx].sum(axis=(4, 5))


register(
    OpSpec(
        "sumpool2d",
        1,
        _sumpool_infer,
        _sumpool_eval,
        POOL_ATTRS,
        ("kernel",),
        doc="sum over windows, channel by channel; times 1/size (scale) it is the average with its padding counted",
    )
)


# ---- synapses one by one ----


def _sparse_infer(types, attrs, tensors, where):
    (x,), shape = types, attrs["shape"].value
    check_shape(shape, where)
    indptr, target, weight = (tensors[attrs[k].value.key] for k in ("indptr", "target", "weight"))
    rows = math.prod(x.shape)
    whole = all(a.dtype.kind in "iu" for a in (indptr, target))
    if not whole or indptr.shape != (rows + 1,) or indptr[0] != 0 or (np.diff(indptr.astype(np.int64)) < 0).any():
        raise VerifyError(f"{where}: indptr must be {rows + 1} whole numbers that rise from 0, one row per source")
    count = int(indptr[-1])
    if target.shape != (count,) or weight.shape != (count,):
        raise VerifyError(f"{where}: {count} synapses, but target {target.shape} and weight {weight.shape}")
    if count and not 0 <= target.min() <= target.max() < math.prod(shape):
        raise VerifyError(f"{where}: targets {target.min()}..{target.max()} of {math.prod(shape)} elements")
    if "extra" in attrs:
        extra = tensors[attrs["extra"].value.key]
        if extra.dtype.kind not in "iu" or extra.shape != (count,):
            raise VerifyError(f"{where}: extra must be {count} whole numbers, got {extra.dtype} {extra.shape}")
        if count and not 0 <= extra.min() <= extra.max() <= MAX_EXTRA:
            raise VerifyError(f"{where}: extra delays lie in 0..{MAX_EXTRA} steps, got {extra.min()}..{extra.max()}")
    if not 0 <= (attrs["shift"].value if "shift" in attrs else 0) <= MAX_SHIFT:
        raise VerifyError(f"{where}: shift must lie in 0..{MAX_SHIFT}, got {attrs['shift'].value}")
    return ValueType(Kind.CURRENT, shape)


def _sparse_eval(c: Call) -> np.ndarray:
    """y[t + extra] += weight * x (<< shift), synapse by synapse; without ``graded`` every event counts as 1."""
    indptr, target, weight, extra = (c.tensor(k) for k in ("indptr", "target", "weight", "extra"))
    assert indptr is not None and target is not None and weight is not None
    x = c.inputs[0].reshape(len(c.inputs[0]), -1).astype(np.float64)
    x = x if c.attr("graded", True) else (x != 0).astype(np.float64)
    size = math.prod(c.attr("shape"))
    source = np.repeat(np.arange(x.shape[1]), indptr[1:] - indptr[:-1])
    ahead = c.state.setdefault("ahead", {})
    for late in [0] if extra is None else np.unique(np.append(extra, 0)).tolist():
        chosen = np.arange(len(source)) if extra is None else np.flatnonzero(extra == late)
        values = x[:, source[chosen]] * weight[chosen]
        sums = np.stack([np.bincount(target[chosen], row, size) for row in values])
        ahead[c.timestep + late] = ahead.get(c.timestep + late, 0.0) + sums
    y = ahead.pop(c.timestep).reshape(len(x), *c.attr("shape"))
    return exact_int(y) << c.attr("shift", 0) if c.integer else y


register(
    OpSpec(
        "sparse",
        1,
        _sparse_infer,
        _sparse_eval,
        {
            "indptr": TENSOR,
            "target": TENSOR,
            "weight": TENSOR,
            "extra": TENSOR,
            "shape": (tuple,),
            "shift": (int,),
            "graded": (bool,),
        },
        ("indptr", "target", "weight", "shape"),
        doc="synapses one by one, each with a delay of its own: row s holds those of element s (C order)",
    )
)
