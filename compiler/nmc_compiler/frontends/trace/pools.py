"""Sums, means and pools on addresses."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.ops import Addr, add, affine, at
from nmc_compiler.frontends.trace.places import channels_first, owner, sides, whole
from nmc_compiler.frontends.trace.tape import MASK, Tape, Value
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.graph.ops_linear import window_out
from nmc_compiler.graph.types import Kind

Pair = tuple[int, int]
MOST_STACKED = 64  # values that are looked at one by one


def reduce(tape: Tape, x: Addr, dims: tuple[int, ...], keepdim: bool, mean: bool) -> Addr:
    """Sum or mean over axes: over timesteps, over all places of a channel, or over the channels of a head."""
    dims = tuple(d % x.ndim for d in dims) or tuple(range(x.ndim))
    axes = find_axes(tape, [x])
    for d in dims:
        if len(axes.parts[d]) > 1:
            raise FrontendError(
                f"{tape.line()}: sums over an axis that holds timesteps and places; sum over one of them"
            )
    timed = tuple(d for d in dims if axes.parts[d][0][1])
    local = tuple(d for d in dims if not axes.parts[d][0][1] and x.shape[d] > 1)
    for d in timed:
        x = _over_time(tape, x, d, mean)
    for d in local:
        if _is_stack(tape, x, d):
            x, local = _over_stack(tape, x, d, mean), tuple(n for n in local if n != d)
    if local:
        x = _over_places(tape, x, local, mean)
    return x if keepdim else x.reshape([n for d, n in enumerate(x.shape) if d not in dims])


def _over_time(tape: Tape, x: Addr, axis: int, mean: bool) -> Addr:
    steps = [whole(tape, step) for step in np.moveaxis(x, axis, 0)]
    values = [value for value, _ in steps]
    local = steps[0][1]
    if len({v.number for v in values}) == 1:  # the same at every timestep
        same = np.expand_dims(at(values[0], local), axis)
        return same if mean else affine(tape, "scale", same, np.array(float(len(values))))
    if any(not np.array_equal(place, local) or v.shape != values[0].shape for v, place in steps):
        raise FrontendError(f"{tape.line()}: adds up timesteps whose elements are in different order")
    weight = 1.0 / len(values) if mean else 1.0
    numbers = tuple(v.number for v in values)
    made = tape.add("over_time", numbers, values[0].shape, Kind.CURRENT, weight=weight)
    return np.expand_dims(at(made, local), axis)


def _is_stack(tape: Tape, x: Addr, axis: int) -> bool:
    """Whether an axis stacks several values, each of them whole."""
    found = [owner(tape, part) for part in np.moveaxis(x, axis, 0)] if x.shape[axis] <= MOST_STACKED else []
    return len({v.number for v in found if v is not None}) == len(found) > 1


def _over_stack(tape: Tape, x: Addr, axis: int, mean: bool) -> Addr:
    first, *rest = np.moveaxis(x, axis, 0)
    for part in rest:
        first = add(tape, first, part)
    first = affine(tape, "scale", first, np.array(1.0 / (1 + len(rest)))) if mean else first
    return np.expand_dims(first, axis)


def _over_places(tape: Tape, x: Addr, dims: tuple[int, ...], mean: bool) -> Addr:
    axes = find_axes(tape, [x], keep=dims)
    flat = axes.flat
    kept = [i for i, (_, timed) in enumerate(flat) if not timed]
    ends = np.cumsum([len(parts) for parts in axes.parts])
    reduced = [kept.index(int(ends[d]) - 1) for d in dims]
    count = math.prod(x.shape[d] for d in dims)
    results = []
    for step in axes.split(x):
        rest = [i for i in range(step.ndim) if i not in reduced]
        value, local = whole(tape, step)
        rows = local.transpose(rest + reduced).reshape(-1, count)
        sums = _sums(tape, value, rows).reshape([step.shape[i] for i in rest])
        results.append(np.expand_dims(sums, tuple(reduced)))
    total = axes.join(results)
    return affine(tape, "scale", total, np.array(1.0 / count)) if mean else total


def _sums(tape: Tape, value: Value, rows: np.ndarray) -> Addr:
    """Address of the sum of each row of places of a value; together the rows are all of it."""
    channels, places = value.shape[0], math.prod(value.shape[1:])
    channel, place = rows // places, rows % places
    kind = Kind.GRADED if value.is_event else value.kind
    if places > 1 and (channel == channel[:, :1]).all() and rows.shape[1] == places:
        made = tape.add("sum_positions", (value.number,), (channels, 1, 1), kind)
        return at(made, channel[:, 0])
    if (place == place[:, :1]).all() and channels % rows.shape[1] == 0:
        size = rows.shape[1]
        head = channel // size
        if (head == head[:, :1]).all():
            shape = (channels // size, *value.shape[1:])
            made = tape.add("sum_channels", (value.number,), shape, Kind.CURRENT, groups=shape[0])
            return at(made, head[:, 0] * places + place[:, 0])
    size = rows.shape[1]
    if value.size % size == 0 and (rows // size == rows[:, :1] // size).all():  # places behind a reshape
        shape = (value.size // size, *sides(tape, value, size))
        tokens = tape.add("reshape", (value.number,), shape, value.kind)
        made = tape.add("sum_positions", (tokens.number,), (shape[0], 1, 1), kind)
        return at(made, rows[:, 0] // size)
    if rows.shape[0] == 1:
        inner = tape.add("sum_positions", (value.number,), (channels, 1, 1), kind)
        made = tape.add("sum_channels", (inner.number,), (1, 1, 1), Kind.CURRENT, groups=1)
        return at(made, np.zeros(1, np.int64))
    raise FrontendError(
        f"{tape.line()}: sums over a part of {value.module or value.op}'s places; sums over all of them, over the "
        f"channels of a head, and average pools are lowered"
    )


def max_pool(tape: Tape, x: Addr, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, ceil: bool) -> Addr:
    """Maximum over windows of the last two axes."""
    if dilation != (1, 1):
        raise FrontendError(f"{tape.line()}: max-pool with dilation {dilation}; only 1 is lowered")
    return _windows(tape, "maxpool2d", x, kernel, stride, pad, ceil)


def _windows(tape: Tape, op: str, x: Addr, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> Addr:
    """A pool over the last two axes; all others are channels, or timesteps."""
    axes = find_axes(tape, [x], keep=(x.ndim - 2, x.ndim - 1))
    results = []
    for step in axes.split(x):
        planes = step.reshape(-1, *step.shape[-2:])
        turned = _is_turned(tape, planes)
        size, move, edge = (t[::-1] for t in (kernel, stride, pad)) if turned else (kernel, stride, pad)
        value, _ = channels_first(tape, planes.swapaxes(1, 2) if turned else planes, spatial=True)
        shape = _window(tape, value, size, move, edge, ceil)
        kind = value.kind if op == "maxpool2d" else Kind.CURRENT
        made = tape.add(op, (value.number,), shape, kind, attributes=_given(size, move, edge))
        pooled = at(made, np.arange(math.prod(shape)).reshape(shape))
        pooled = pooled.swapaxes(1, 2) if turned else pooled
        results.append(pooled.reshape(*step.shape[:-2], *pooled.shape[1:]))
    return axes.join(results)


def _is_turned(tape: Tape, addr: Addr) -> bool:
    """Whether [C, W, H] is how a value is stored, not [C, H, W]: tokens by channels, say."""
    value = owner(tape, addr)
    if value is None or value.size != addr.size or min(addr.shape[1:]) == 1:
        return False
    return np.array_equal(addr.swapaxes(1, 2).reshape(-1) & MASK, np.arange(value.size))


def average_pool(
    tape: Tape, x: Addr, kernel: Pair, stride: Pair, pad: Pair, ceil: bool = False, count_pad: bool = True,
    divisor: int | None = None,
) -> Addr:  # fmt: skip
    """Average over windows of the last two axes: a sum, then a factor (one per place where padding does not count)."""
    total, size = _windows(tape, "sumpool2d", x, kernel, stride, pad, ceil), math.prod(kernel)
    if pad == (0, 0) or count_pad or divisor:
        return affine(tape, "scale", total, np.array(1.0 / (divisor or size)))
    ones = np.pad(np.ones(x.shape[-2:]), [(p, p) for p in pad])
    windows = np.lib.stride_tricks.sliding_window_view(ones, kernel)[:: stride[0], :: stride[1]]
    return affine(tape, "scale", total, 1.0 / windows.sum(axis=(2, 3)))


def _window(tape: Tape, value: Value, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> tuple[int, int, int]:
    h, w = (window_out(n, k, s, p) for n, k, s, p in zip(value.shape[1:], kernel, stride, pad, strict=True))
    odd = [(n + 2 * p - k) % s for n, k, s, p in zip(value.shape[1:], kernel, stride, pad, strict=True)]
    if ceil and any(odd):
        raise FrontendError(
            f"{tape.line()}: ceil_mode=True makes a window that hangs over the edge; use ceil_mode=False"
        )
    return value.shape[0], h, w


def _given(kernel: Pair, stride: Pair, pad: Pair) -> dict[str, Pair | None]:
    return {"kernel": kernel, "stride": stride if stride != (1, 1) else None, "pad": pad if pad != (0, 0) else None}
