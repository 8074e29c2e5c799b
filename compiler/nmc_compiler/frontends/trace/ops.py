"""What the linear ops of PyTorch are on addresses: convolution, linear layers, batch norm, sums, factors, offsets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.places import channels_first, owner, rearranged, whole
from nmc_compiler.frontends.trace.tape import LOCAL, MASK, NOTHING, Const, Tape, Value, addresses, constant
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.graph.ops_linear import window_out
from nmc_compiler.graph.types import Kind

Addr = np.ndarray  # int64 addresses of an operand's elements, in the shape the user sees


def at(value: Value, local: np.ndarray) -> Addr:
    """Addresses of places within a value."""
    return (np.int64(value.number) << LOCAL) + local


def linear(tape: Tape, x: Addr, weight: Const, bias: Const | None) -> Addr:
    """y[..., m] = sum_k w[m, k] x[..., k] + b[m]: a 1x1 convolution over whatever other axes there are."""
    axes = find_axes(tape, [x], keep=(x.ndim - 1,))
    out = weight.array.shape[0]
    kernel = Const(weight.array.reshape(*weight.array.shape, 1, 1), weight.name, weight.digest)
    results = []
    for step in axes.split(x):
        value, place = channels_first(tape, np.moveaxis(step, -1, 0))
        shape = (out, *value.shape[1:])
        made = tape.add("conv2d", (value.number,), shape, Kind.CURRENT, weight=kernel, bias=bias)
        local = np.arange(out) * math.prod(shape[1:]) + place[..., None]
        results.append(at(made, local))
    return axes.join(results)


def convolution(tape: Tape, x: Addr, weight: Const, bias: Const | None, **geometry: Any) -> Addr:
    """aten.convolution with a batch axis; ``geometry``: stride, pad, dilation (one number per spatial axis), groups."""
    spatial = x.ndim - 2
    if spatial not in (1, 2):
        raise FrontendError(f"{tape.line()}: convolutions over {spatial} axes are not lowered; over 1 and 2 they are")
    kernel, pairs = weight.array, {k: tuple(geometry[k]) for k in ("stride", "pad", "dilation")}
    if spatial == 1:
        kernel = kernel[:, :, None, :]
        pairs = {k: (int(k != "pad"), v[0]) for k, v in pairs.items()}
    pointwise = kernel.shape[2:] == (1, 1) and pairs["stride"] == (1, 1) and pairs["pad"] == (0, 0)
    results = []
    for step in x:
        step = step[:, None, :] if spatial == 1 and not pointwise else step
        value, place = channels_first(tape, step, spatial=not pointwise)
        height, width = (
            window_out(n, k, s, p, d)
            for n, k, s, p, d in zip(value.shape[1:], kernel.shape[2:], *pairs.values(), strict=True)
        )
        shape = (len(kernel), height, width)
        made = tape.add(
            "conv2d",
            (value.number,),
            shape,
            Kind.CURRENT,
            weight=Const(kernel, weight.name, weight.digest),
            bias=bias,
            groups=geometry["groups"] if geometry["groups"] != 1 else None,
            attributes={k: v for k, v in pairs.items() if v != ((0, 0) if k == "pad" else (1, 1))},
        )
        flat = np.arange(len(kernel))[:, None] * (height * width)
        local = flat + (place.reshape(1, -1) if pointwise else np.arange(height * width))
        user = place.shape if pointwise else ((width,) if spatial == 1 else (height, width))
        results.append(at(made, local.reshape(len(kernel), *user)))
    return np.stack(results)


def batch_norm(tape: Tape, x: Addr, eps: float, **arrays: Const | None) -> Addr:
    """An evaluated batch norm over axis 1; ``arrays``: mean, var, weight, bias."""
    axes = find_axes(tape, [x], keep=(1,))
    channel = sum(1 for parts in axes.parts[:1] for _, timed in parts if not timed)
    results = []
    for step in axes.split(x):
        value, place = channels_first(tape, np.moveaxis(step, channel, 0))
        made = tape.add("batch_norm", (value.number,), value.shape, _current(value), attributes=arrays, eps=eps)
        count = math.prod(value.shape[1:])
        local = np.arange(value.shape[0]).reshape(-1, *[1] * place.ndim) * count + place
        results.append(np.moveaxis(at(made, local), 0, channel))
    return axes.join(results)


def _current(value: Value) -> Kind:
    return Kind.CURRENT if value.is_event else value.kind


def affine(tape: Tape, op: str, x: Addr, numbers: np.ndarray, name: str = "") -> Addr:
    """x times (``scale``) or plus (``bias``) numbers that broadcast over it."""
    shape = np.broadcast_shapes(x.shape, numbers.shape)
    x, full = np.broadcast_to(x, shape), np.broadcast_to(numbers, shape)
    if op == "scale" and (full == 1).all() or op == "bias" and not full.any():
        return x
    axes = find_axes(tape, [x], plain=(full,))
    results = []
    for step, values in zip(axes.split(x), axes.split(full), strict=True):
        if (step == NOTHING).all() and op == "scale":
            results.append(step)
            continue
        value, local = whole(tape, step)
        ordered = np.empty(value.size, numbers.dtype)
        ordered[local.reshape(-1)] = values.reshape(-1)
        given = compact(ordered.reshape(value.shape))
        if op == "scale" and isinstance(given, float) and _is_codes(tape, value) and given > 0:
            made = _normed(tape, value, given)
            results.append(at(made, local))
            continue
        ring = _ring(tape, value, given) if op == "bias" and not isinstance(given, float) and given.ndim == 3 else None
        if ring is not None:
            results.append(at(ring, local))
            continue
        factor = given if isinstance(given, float) else constant(given, name)
        made = tape.add(op, (value.number,), value.shape, _current(value), by=factor)
        results.append(at(made, local))
    return axes.join(results)


def _ring(tape: Tape, value: Value, numbers: np.ndarray) -> Value | None:
    """Zeros around a current, plus numbers that are one per channel there and 0 inside: `pad2d`."""
    if value.op != "take" or len(value.operands) != 1:
        return None
    inner = tape.values[value.operands[0]]
    (py, odd_y), (px, odd_x) = (divmod(n - m, 2) for n, m in zip(value.shape[1:], inner.shape[1:], strict=True))
    if odd_y or odd_x or min(py, px) < 0 or max(py, px) == 0 or value.shape[0] != inner.shape[0]:
        return None
    padded = np.full(value.shape, NOTHING)
    outside = np.ones(value.shape[1:], bool)
    inside = (slice(py, value.shape[1] - py), slice(px, value.shape[2] - px))
    padded[:, *inside] = np.arange(inner.size).reshape(inner.shape)
    outside[inside] = False
    ring = numbers[:, outside]
    same = np.array_equal(padded.reshape(-1), value.attr("index").array) and (ring == ring[:, :1]).all()
    if not same or numbers[:, *inside].any():
        return None
    return tape.add("pad2d", (inner.number,), value.shape, value.kind, pad=(py, px), value=constant(ring[:, 0]))


def _is_codes(tape: Tape, value: Value) -> bool:
    """Codes of a multi-level neuron, in the module that made them: a factor there is their norm."""
    levels = value.op == "stateless" and value.attr("neuron") == "multilevel"
    return levels and value.module == tape.module


def _normed(tape: Tape, value: Value, factor: float) -> Value:
    """round(clamp(x, 0, D)) times 1/norm; rounding to a whole number is what a division by one needs."""
    attrs = dict(value.attr("attrs"))
    norm = attrs.get("norm", 1) / factor
    attrs["norm"] = round(norm) if abs(norm - round(norm)) < 1e-12 * norm else norm
    return tape.add(
        "stateless",
        value.operands,
        value.shape,
        value.kind,
        neuron="multilevel",
        attrs=tuple(sorted(attrs.items())),
        layout=value.attr("layout"),
    )


def compact(array: np.ndarray) -> float | np.ndarray:
    """One number where all are equal, [C] where channels are, else [C, H, W]."""
    if (array == array.flat[0]).all():
        return float(array.flat[0])
    return np.ascontiguousarray(array[:, 0, 0]) if (array == array[:, :1, :1]).all() else array


def elementwise(tape: Tape, op: str, x: Addr, kind: Kind | None = None, **attrs: Any) -> Addr:
    """A function of each element."""
    axes = find_axes(tape, [x])
    results = []
    for step in axes.split(x):
        value, local = whole(tape, step)
        made = tape.add(op, (value.number,), value.shape, kind or value.kind, **attrs)
        results.append(at(made, local))
    return axes.join(results)


def add(tape: Tape, a: Addr, b: Addr) -> Addr:
    """Sum of two operands, element by element."""
    a, b = np.broadcast_arrays(a, b)
    axes = find_axes(tape, [a, b])
    results = []
    for one, two in zip(axes.split(a), axes.split(b), strict=True):
        if (one == NOTHING).all() or (two == NOTHING).all():
            results.append(two if (one == NOTHING).all() else one)
            continue
        first, second, local = _aligned(tape, one, two)
        kinds = {first.kind, second.kind}
        events = first.is_event and second.is_event
        kind = Kind.GRADED if events else (Kind.REAL if kinds == {Kind.REAL} else Kind.CURRENT)
        results.append(at(tape.add("add", (first.number, second.number), first.shape, kind), local))
    return axes.join(results)


def _aligned(tape: Tape, one: Addr, two: Addr) -> tuple[Value, Value, np.ndarray]:
    """Two operands as values of one shape and order; the order is that of the first that is a value as it stands."""
    owned = owner(tape, two)
    swap = owner(tape, one) is None and owned is not None and owned.size == two.size
    base, local = whole(tape, two if swap else one)
    other = rearranged(tape, _ordered(base, local, one if swap else two), base.shape)
    return (other, base, local) if swap else (base, other, local)


def _ordered(base: Value, local: np.ndarray, addr: Addr) -> Addr:
    """Addresses in the order in which ``base`` holds its elements."""
    ordered = np.empty(base.size, np.int64)
    ordered[local.reshape(-1)] = addr.reshape(-1)
    return ordered.reshape(base.shape)


def multiply(tape: Tape, a: Addr, b: Addr) -> Addr:
    """Mask of spikes: a spike passes where the other operand has one. The mask may be one per channel or per head."""
    a, b = np.broadcast_arrays(a, b)
    axes = find_axes(tape, [a, b])
    results = []
    for one, two in zip(axes.split(a), axes.split(b), strict=True):
        if (one == NOTHING).all() or (two == NOTHING).all():
            results.append(np.full(one.shape, NOTHING))
            continue
        mask_first = _is_mask(tape, one) and not _is_mask(tape, two)
        base, local = whole(tape, two if mask_first else one)
        mask = _mask(tape, base, _ordered(base, local, one if mask_first else two))
        if not (base.is_event and mask.is_event) and tape.products:
            made = tape.add("gate", (base.number, mask.number), base.shape, Kind.CURRENT)
            results.append(at(made, local))
            continue
        if not (base.is_event and mask.is_event):
            raise FrontendError(
                f"{tape.line()}: multiplies {base.kind} by {mask.kind} values; only spikes can be multiplied, as a mask"
            )
        kind = Kind.SPIKE if base.kind is mask.kind is Kind.SPIKE else Kind.GRADED
        results.append(at(tape.add("mul", (base.number, mask.number), base.shape, kind), local))
    return axes.join(results)


def _is_mask(tape: Tape, addr: Addr) -> bool:
    value = owner(tape, addr)
    return value is not None and value.size < addr.size


def _mask(tape: Tape, base: Value, ordered: Addr) -> Value:
    """The mask as it is where it is one per channel (C, 1, 1) or per head (h, H, W), else at full size."""
    value = owner(tape, ordered)
    if value is not None:
        channels, (c, h, w) = base.shape[0], value.shape
        own = addresses(value) & MASK
        fits = (c, h, w) == (channels, 1, 1) or (channels % c == 0 and (h, w) == base.shape[1:])
        if fits and np.array_equal(np.broadcast_to(np.repeat(own, channels // c, 0), base.shape), ordered & MASK):
            return value
    return rearranged(tape, ordered, base.shape)
