"""What an operand is, from the addresses of its elements: a value as it is, or one rearranged."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.tape import LOCAL, MASK, NOTHING, Tape, Value, constant
from nmc_compiler.graph.types import Kind, Shape

Layout = tuple[tuple[int, ...], tuple[int, ...]] | None
PERMS = ((0, 1, 2), (1, 2, 0), (0, 2, 1), (1, 0, 2), (2, 0, 1), (2, 1, 0))


def owner(tape: Tape, addr: np.ndarray) -> Value | None:
    """The one value that all of an array's elements belong to; None where they do not."""
    flat = addr.reshape(-1)
    if not flat.size:
        raise FrontendError(f"{tape.line()}: a value without elements, of shape {addr.shape}")
    number = int(flat[0]) >> LOCAL
    if number < 0 or int(flat.min()) >> LOCAL != number or int(flat.max()) >> LOCAL != number:
        return None
    return tape.values[number]


def owners(addr: np.ndarray) -> list[int]:
    """Numbers of the values that elements belong to, in the order in which they appear; zeros left out."""
    numbers = addr.reshape(-1) >> LOCAL
    change = np.flatnonzero(np.diff(numbers)) + 1
    runs = numbers[np.concatenate([[0], change])]
    return list(dict.fromkeys(int(n) for n in runs if n >= 0))


def whole(tape: Tape, addr: np.ndarray) -> tuple[Value, np.ndarray]:
    """A value that holds exactly the elements of ``addr``, and where each of them is in it (same shape)."""
    value = owner(tape, addr)
    local = addr & MASK
    if value is not None and value.size == addr.size:
        flat = local.reshape(-1)
        if _counts_up(flat) or _is_permutation(flat):
            return value, local
    shaped = rearranged(tape, addr, _natural(tape, addr))
    return shaped, np.arange(addr.size).reshape(addr.shape)


def sides(tape: Tape, value: Value, places: int) -> tuple[int, int]:
    """Height and width of so many places in a row: those of the image they were, where a value before tells."""
    while places > 1:
        if value.shape[1] * value.shape[2] == places:
            return value.shape[1], value.shape[2]
        if value.op not in ("reshape", "maxpool2d", "take", "mul") or not value.operands:
            break
        value = tape.values[value.operands[0]]
    return 1, places


def _counts_up(flat: np.ndarray) -> bool:
    return flat[0] == 0 and flat[-1] == flat.size - 1 and bool((np.diff(flat) == 1).all())


def _is_permutation(flat: np.ndarray) -> bool:
    seen = np.zeros(flat.size, bool)
    seen[flat] = True
    return bool(seen.all())


def _natural(tape: Tape, addr: np.ndarray) -> Shape:
    """(C, H, W) of an array whose axes do not say: places are the last axes that make up an image of a value before."""
    shape, source = [n for n in addr.shape if n != 1], owners(addr)
    for count in (1, 2):  # [..., N] tokens, or [..., H, W]
        places = math.prod(shape[-count:])
        if len(shape) > count and source:
            height, width = sides(tape, tape.values[source[0]], places)
            if height > 1 and (_is_row(addr, places) if count == 1 else shape[-2:] == [height, width]):
                return (math.prod(shape[:-count]), height, width)
    if len(shape) <= 1:
        return (math.prod(shape), 1, 1)
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], math.prod(shape[1:-1]), shape[-1])


def _is_row(addr: np.ndarray, places: int) -> bool:
    """Whether the last axis goes through all places of a channel, one after the other."""
    row = addr.reshape(-1, addr.shape[-1])[0]
    return row[0] != NOTHING and bool(((row & MASK) % places == np.arange(places)).all())


def rearranged(tape: Tape, addr: np.ndarray, shape: Shape) -> Value:
    """The elements of ``addr`` in C order as a value of ``shape``: the value itself, reshaped, or a `take`."""
    value, flat = owner(tape, addr), addr.reshape(-1)
    if value is not None and value.size == flat.size and _counts_up(flat & MASK):
        return value if value.shape == shape else tape.add("reshape", (value.number,), shape, value.kind)
    sources = owners(addr)
    numbers = [n for n in sources if tape.values[n].op == "const"]
    if numbers:
        return _ring(tape, addr.reshape(shape), [n for n in sources if n not in numbers])
    if not sources:
        raise FrontendError(f"{tape.line()}: reads nothing but zeros")
    kinds = {tape.values[n].kind for n in sources}
    if len(kinds) > 1 and {Kind.SPIKE, Kind.GRADED} & kinds and {Kind.CURRENT, Kind.REAL} & kinds:
        raise FrontendError(f"{tape.line()}: joins spikes and currents of {_names(tape, sources)} into one value")
    times = {tape.values[n].time for n in sources} - {None}
    if len(times) > 1:
        raise FrontendError(
            f"{tape.line()}: joins timesteps {min(times)} to {max(times)} of {_names(tape, sources)} into one value; "  # type: ignore[type-var]
            f"nmc takes the timesteps of a network apart, and sums or averages over them at the end"
        )
    start = np.zeros(max(sources) + 1, np.int64)
    offset = 0
    for n in sources:
        start[n], offset = offset, offset + tape.values[n].size
    index = np.where(flat == NOTHING, NOTHING, start[np.maximum(flat >> LOCAL, 0)] + (flat & MASK))
    kind = Kind.GRADED if kinds == {Kind.SPIKE, Kind.GRADED} else tape.values[sources[0]].kind
    return tape.add("take", tuple(sources), shape, kind, index=Index(index))


def _ring(tape: Tape, addr: np.ndarray, inner: list[int]) -> Value:
    """A current with a ring of one number per channel around it (the BN-padding of RepConv, models.md 4.5)."""
    if len(inner) == 1:
        value = tape.values[inner[0]]
        (py, odd_y), (px, odd_x) = (divmod(n - m, 2) for n, m in zip(addr.shape[1:], value.shape[1:], strict=True))
        if min(py, px) >= 0 and not odd_y and not odd_x and value.shape[0] == addr.shape[0]:
            middle = addr[:, py : addr.shape[1] - py, px : addr.shape[2] - px]
            outside = np.ones(addr.shape[1:], bool)
            outside[py : addr.shape[1] - py, px : addr.shape[2] - px] = False
            ring = _numbers(tape, addr[:, outside])
            if owner(tape, middle) is value and _counts_up((middle & MASK).reshape(-1)) and ring is not None:
                return tape.add("pad2d", (value.number,), addr.shape, value.kind, pad=(py, px), value=constant(ring))
    raise FrontendError(
        f"{tape.line()}: puts numbers between traced values; zeros, and a ring of one number per channel, are lowered"
    )


def _numbers(tape: Tape, addr: np.ndarray) -> np.ndarray | None:
    """The constants of [C, n] addresses where each channel has one; else None."""
    found = np.zeros(addr.shape)
    for n in owners(addr):
        if tape.values[n].op != "const":
            return None
        mine = addr >> LOCAL == n
        found[mine] = tape.values[n].attr("by").array[addr[mine] & MASK]
    return found[:, 0] if found.size and (found == found[:, :1]).all() else None


def _names(tape: Tape, numbers: list[int]) -> str:
    return " and ".join(dict.fromkeys(tape.values[n].module or tape.values[n].op for n in numbers[:2]))


class Index:
    """A hashable array of whole numbers."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array, np.int64)
        self.key = hash(self.array.tobytes())

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self.key == other.key and np.array_equal(self.array, other.array)

    def __lt__(self, other: Index) -> bool:
        return self.key < other.key


def channels_first(tape: Tape, addr: np.ndarray, spatial: bool = False) -> tuple[Value, np.ndarray]:
    """Addresses [K, ...places] as a value of K channels, and the place in it of each of ``addr``'s places, [...places].

    ``spatial``: the places must be the value's own (H, W), in their order; else any order of its places will do.
    """
    channels, places = addr.shape[0], addr.shape[1:]
    value = owner(tape, addr)
    if value is not None and value.shape[0] == channels and value.size == addr.size:
        count = value.size // channels
        local = (addr & MASK).reshape(channels, count)
        first = local[0]
        fits = _counts_up(first) and value.shape[1:] == places if spatial else _is_within(first, count)
        if fits and bool((local == first + np.arange(channels)[:, None] * count).all()):
            return value, first.reshape(places)
    shape = _places(tape, addr)
    return rearranged(tape, addr, (channels, *shape)), np.arange(math.prod(places)).reshape(places)


def _is_within(first: np.ndarray, count: int) -> bool:
    return int(first.max()) < count and (_counts_up(first) or _is_permutation(first))


def _places(tape: Tape, addr: np.ndarray) -> tuple[int, int]:
    places = addr.shape[1:]
    if len(places) == 2:
        return places
    if len(places) == 1:
        source = owners(addr)
        return sides(tape, tape.values[source[0]], places[0]) if source else (1, places[0])
    return (1, 1) if not places else (math.prod(places[:-1]), places[-1])


def layout(local: np.ndarray, shape: Shape, axes: tuple[int, ...]) -> Layout:
    """(perm, shape) of an authors' array of spikes: codes (C, H, W) transposed by perm, then of this shape; or None."""
    own = np.arange(math.prod(shape)).reshape(shape)
    flat = local.reshape(-1)
    if len(axes) > 1 and axes[0] == 1 != shape[0]:  # a batch of 1 behind one timestep
        axes = axes[1:]
    for perm in PERMS:
        if np.array_equal(own.transpose(perm).reshape(-1), flat):
            return perm, axes
    return None


def sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one timestep of one sample: without the axes of length 1 in front that are time and batch."""
    shape = tuple(shape)
    while len(shape) > 4 and shape[0] == 1:
        shape = shape[1:]
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
