"""Products of spikes with spikes: (q k^T) v in either order and any layout becomes one attention op."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.ops import Addr, at
from nmc_compiler.frontends.trace.places import Index, channels_first, owner, rearranged
from nmc_compiler.frontends.trace.tape import MASK, Tape, Value
from nmc_compiler.frontends.trace.timesteps import Axes, find_axes
from nmc_compiler.graph.types import Kind


def matmul(tape: Tape, a: Addr, b: Addr) -> Addr:
    """[..., M, K] @ [..., K, P], both of traced values."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
    b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    first = [x[..., 0, 0].reshape(batch or (1,)) for x in (a, b)]
    axes = find_axes(tape, first)
    steps = []
    for one, two in zip(_split(axes, a), _split(axes, b), strict=True):
        heads = one.shape[:-2]
        result = _product(tape, one.reshape(-1, *one.shape[-2:]), two.reshape(-1, *two.shape[-2:]))
        steps.append(result.reshape(*heads, *result.shape[-2:]))
    widened = Axes((*axes.shape, *a.shape[-2:]), (*axes.parts, ((1, False),), ((1, False),)))
    return widened.join(steps).reshape(*batch, a.shape[-2], b.shape[-1])


def _split(axes: Axes, x: Addr) -> np.ndarray:
    wide = Axes((*axes.shape, *x.shape[-2:]), (*axes.parts, ((x.shape[-2], False),), ((x.shape[-1], False),)))
    return wide.split(x.reshape(wide.shape))


def _product(tape: Tape, a: Addr, b: Addr) -> Addr:
    """[h, M, K] @ [h, K, P] of one timestep: the first product waits for the second."""
    left, right = _pending(tape, a), _pending(tape, b)
    if left is not None and right is None:
        (x, y), z, scale = left[0], b, left[1]
    elif right is not None and left is None:
        x, (y, z), scale = a, right[0], right[1]
    elif left is None and right is None:
        shape = (a.shape[0], a.shape[1], b.shape[2])
        numbers = _owners(tape, a) + _owners(tape, b)
        made = tape.add("product", numbers, shape, Kind.CURRENT, a=Operand(a), b=Operand(b))
        return at(made, np.arange(math.prod(shape)).reshape(shape))
    else:
        raise FrontendError(f"{tape.line()}: multiplies two products of spikes; (q k^T) v and q (k^T v) are lowered")
    return _attention(tape, x, y, z, scale)


class Operand(Index):
    """Addresses of a factor of a product, with their shape."""

    def __init__(self, addr: Addr) -> None:
        super().__init__(addr)


def _owners(tape: Tape, addr: Addr) -> tuple[int, ...]:
    value = owner(tape, addr)
    return () if value is None else (value.number,)


def _pending(tape: Tape, addr: Addr) -> tuple[tuple[Addr, Addr], float] | None:
    """The factors of a product that waits, and what it was scaled by; transposed where the user transposed it."""
    value, scale = owner(tape, addr), 1.0
    while value is not None and value.op == "scale" and isinstance(value.attr("by"), float):
        scale *= value.attr("by")
        value = tape.values[value.operands[0]]
    if value is None or value.op != "product" or value.size != addr.size:
        return None
    a, b = value.attr("a").array, value.attr("b").array
    own, local = np.arange(value.size).reshape(value.shape), addr & MASK
    if np.array_equal(own, local):
        return (a, b), scale
    if np.array_equal(own.swapaxes(1, 2), local):
        return (b.swapaxes(1, 2), a.swapaxes(1, 2)), scale
    raise FrontendError(f"{tape.line()}: reads a product of spikes with its elements rearranged")


def _attention(tape: Tape, x: Addr, y: Addr, z: Addr, scale: float) -> Addr:
    """X Y Z, [h, M, K] [h, K, P] [h, P, Q] -> [h, M, Q]. Y is k; q is the one it shares channels with.

    Either K are channels (q = X, v = Z), or P are (q = Z, v = X): whichever the operands' own order says.
    """
    (x, by_x), (y, by_y), (z, by_z) = (_unscaled(tape, t) for t in (x, y, z))
    scale *= by_x * by_y * by_z
    heads, m, _ = x.shape
    q = z.shape[2]
    turned = [t.swapaxes(1, 2) for t in (x, y, z)]
    ways = ((turned[0], y, turned[2]), (z, turned[1], x))  # q, k, v as [h, channels, places]
    way = max((0, 1), key=lambda i: (sum(_stands(tape, t) for t in ways[i]), -i))
    parts = [channels_first(tape, t.reshape(-1, t.shape[2])) for t in ways[way]]
    (query, place), (key, at_key), (value, at_value) = parts
    if not np.array_equal(at_key, at_value):
        key, value = (_in_order(tape, t) for t in ways[way][1:])
    key, value = (_like(tape, query, v) for v in (key, value))
    for what, found in (("q", query), ("k", key), ("v", value)):
        if not found.is_event:
            raise FrontendError(f"{tape.line()}: {what} of an attention is {found.kind} values, not spikes")
    numbers = (query.number, key.number, value.number)
    made = tape.add("attn", numbers, value.shape, Kind.CURRENT, heads=heads, scale=scale if scale != 1.0 else None)
    count = math.prod(value.shape[1:])
    wide = value.shape[0] // heads
    local = np.arange(value.shape[0]).reshape(heads, wide, 1) * count + place
    return at(made, local.swapaxes(1, 2) if way == 0 else local).reshape(heads, m, q)


def _unscaled(tape: Tape, addr: Addr) -> tuple[Addr, float]:
    """Spikes without the number they were multiplied by, and that number."""
    value = owner(tape, addr)
    if value is not None and value.op == "scale" and isinstance(value.attr("by"), float):
        source = tape.values[value.operands[0]]
        if source.is_event:
            return at(source, addr & MASK), value.attr("by")
    return addr, 1.0


def _in_order(tape: Tape, t: Addr) -> Value:
    flat = t.reshape(-1, t.shape[2])
    return rearranged(tape, flat, (flat.shape[0], 1, flat.shape[1]))


def _stands(tape: Tape, t: Addr) -> bool:
    """Whether [h, channels, places] is how a value is stored: channels are further apart than places."""
    value = owner(tape, t)
    if value is None:
        return False
    places, local = math.prod(value.shape[1:]), t & MASK
    channel = local // places
    return bool((channel == channel[:, :, :1]).all())


def _like(tape: Tape, query: Value, value: Value) -> Value:
    """k and v have as many places as q, in the same height and width."""
    if value.shape[1:] == query.shape[1:]:
        return value
    if math.prod(value.shape[1:]) != math.prod(query.shape[1:]):
        raise FrontendError(
            f"{tape.line()}: attention of {math.prod(query.shape[1:])} queries to {math.prod(value.shape[1:])} keys; "
            f"as many keys as queries are lowered"
        )
    return tape.add("reshape", (value.number,), (value.shape[0], *query.shape[1:]), value.kind)
