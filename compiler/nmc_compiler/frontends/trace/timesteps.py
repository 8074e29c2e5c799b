"""Which axes of an operand are timesteps: along them its values change with time, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.tape import LOCAL, NOTHING, Tape


@dataclass(frozen=True)
class Axes:
    """The axes of ``shape``, each in parts: ``parts[k]`` lists (size, whether it is timesteps) of axis k."""

    shape: tuple[int, ...]
    parts: tuple[tuple[tuple[int, bool], ...], ...]

    @property
    def flat(self) -> list[tuple[int, bool]]:
        return [part for parts in self.parts for part in parts]

    def split(self, array: np.ndarray) -> np.ndarray:
        """An array of this shape as [timesteps, *other axes]."""
        flat = self.flat
        late = [i for i, (_, timed) in enumerate(flat) if timed]
        rest = [i for i, (_, timed) in enumerate(flat) if not timed]
        cut = array.reshape([n for n, _ in flat]).transpose(late + rest)
        steps = math.prod(flat[i][0] for i in late)
        return cut.reshape(steps, *(flat[i][0] for i in rest))

    def join(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The inverse, for one array per timestep; sizes of the other axes may have changed, not their number."""
        flat = self.flat
        late = [i for i, (_, timed) in enumerate(flat) if timed]
        rest = [i for i, (_, timed) in enumerate(flat) if not timed]
        sizes = {i: flat[i][0] for i in late} | dict(zip(rest, arrays[0].shape, strict=True))
        whole = np.stack(arrays).reshape([sizes[i] for i in late + rest])
        whole = whole.transpose(np.argsort(late + rest)) if flat else whole.reshape(())
        shape, at = [], 0
        for parts in self.parts:
            shape.append(math.prod(sizes[at + i] for i in range(len(parts))))
            at += len(parts)
        return whole.reshape(shape)


def find_axes(
    tape: Tape, arrays: list[np.ndarray], keep: tuple[int, ...] = (), plain: tuple[np.ndarray, ...] = ()
) -> Axes:
    """The axes of operands of one shape; those of ``keep`` are no timesteps.

    ``plain``: numbers, which must be equal too along an axis along which nothing changes.
    """
    if not arrays[0].size:
        raise FrontendError(f"{tape.line()}: a value without elements, of shape {arrays[0].shape}")
    shape, starts = arrays[0].shape, [_first(a) for a in arrays]
    parts: list[tuple[tuple[int, bool], ...]] = []
    for axis, size in enumerate(shape):
        if size == 1 or axis % max(len(shape), 1) in keep:
            parts.append(((size, False),))
            continue
        lines = [_line(a, axis, start) for a, start in zip(arrays, starts, strict=True)]
        times = [tuple(_time(tape, line[i]) for line in lines) for i in range(size)]
        there = [t for i, t in enumerate(times) if any(line[i] != NOTHING for line in lines)]
        if len(set(there)) > 1:
            parts.append(_runs(tape, times, axis))
        else:
            equal = all((a == a.take([0], axis)).all() for a in (*arrays, *plain))
            parts.append(((size, bool(equal)),))
    return Axes(shape, tuple(parts))


def _first(array: np.ndarray) -> tuple[int, ...]:
    """Where the first element is that is no zero: a corner may be padding."""
    if not array.size or array.flat[0] != NOTHING:
        return (0,) * array.ndim
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(array.reshape(-1) != NOTHING)), array.shape))


def _line(array: np.ndarray, axis: int, start: tuple[int, ...]) -> np.ndarray:
    """The elements along one axis, through ``start``."""
    index: list[int | slice] = [*start]
    index[axis] = slice(None)
    return array[tuple(index)]


def _time(tape: Tape, address: int) -> int | None:
    return None if address < 0 else tape.values[int(address) >> LOCAL].time


def _runs(tape: Tape, times: list[tuple[int | None, ...]], axis: int) -> tuple[tuple[int, bool], ...]:
    """Timesteps one by one, or several places of each (an axis that was flattened)."""
    starts = [i for i in range(len(times)) if i == 0 or times[i] != times[i - 1]]
    lengths = {b - a for a, b in zip(starts, [*starts[1:], len(times)], strict=True)}
    if len(lengths) != 1:
        raise FrontendError(f"{tape.line()}: axis {axis} holds parts of several timesteps, of different lengths")
    (length,) = lengths
    return ((len(times), True),) if length == 1 else ((len(starts), True), (length, False))
