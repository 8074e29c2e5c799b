"""Weights and delays of single synapses as a Program stores them: integers of few bits and one shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Shape
from nmc_compiler.program.validate_edges import MAX_EXTRA

CHUNK = 2**22  # synapses looked at together: no temporary array grows with the network


@dataclass(frozen=True)
class Stored:
    """``values << shift`` are the weights times 2^exponent; ``rshift`` is what a sum is shifted right by."""

    values: np.ndarray  # int8 or int16, shaped as given
    shift: int
    rshift: int


def store_weights(where: str, weight: np.ndarray, exponent: int = 0) -> Stored:
    """Smallest storage of integer weights of any shape: halves of 8 bits if all are even, 8 bits, or 16 bits.

    A negative exponent is a shift right of the sum; one bit of it goes into the halves exactly, because
    floor(2 S / 2^k) = floor(S / 2^(k - 1)). UsageError where 16 bits do not hold a weight.
    """
    low, high = bounds(weight)
    halved = low >= -256 and high <= 254 and all_even(weight)
    if halved:
        values = narrow(weight, np.int8, rshift=1)
    elif low >= -128 and high <= 127:
        values = narrow(weight, np.int8)
    elif low >= -(2**15) and high < 2**15:
        values = narrow(weight, np.int16)
    else:
        raise UsageError(
            f"{where}: weights {low}..{high} leave 16 bits ({-(2**15)}..{2**15 - 1}); "
            "give smaller weights and a larger exponent"
        )
    total = exponent + halved
    return Stored(values, max(total, 0), max(-total, 0))


def bounds(array: np.ndarray) -> tuple[int, int]:
    """Least and greatest value, 0 and 0 of an empty array."""
    return (int(array.min()), int(array.max())) if array.size else (0, 0)


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The values of a contiguous array, `CHUNK` at a time."""
    flat = array.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def all_even(array: np.ndarray) -> bool:
    """Whether every value of an integer array is even."""
    return not any((part & 1).any() for part in chunks(array))


def narrow(array: np.ndarray, dtype: type, rshift: int = 0) -> np.ndarray:
    """`array` shifted right, in a dtype that is known to hold it; `array` itself where nothing changes."""
    if array.dtype == np.dtype(dtype) and rshift == 0:
        return array
    out: np.ndarray = np.empty(array.shape, dtype)
    for part, source in zip(chunks(out), chunks(array), strict=True):
        np.copyto(part, source >> rshift, casting="unsafe")
    return out


def integers(where: str, array: object) -> np.ndarray:
    """A contiguous array of native integers; UsageError for anything else (floats are never rounded)."""
    found = np.asarray(array)
    if found.size == 0 and found.dtype == np.float64:  # what NumPy makes of an empty list
        found = found.astype(np.int64)
    if found.dtype.kind not in "iu" or found.dtype.itemsize > 8 or found.dtype == np.uint64:
        raise UsageError(f"{where}: expected integers, got {found.dtype}; quantise and round them first")
    if not found.dtype.isnative:
        found = found.astype(found.dtype.newbyteorder("="))
    return np.asarray(found, order="C")


def check_rows(where: str, indptr: np.ndarray, target: np.ndarray, weight: np.ndarray, ends: tuple[int, int]) -> None:
    """UsageError where rows, targets and weights do not fit each other and the ends (source, target somas)."""
    sources, targets = ends
    if indptr.shape != (sources + 1,):
        raise UsageError(
            f"{where}: indptr has shape {list(indptr.shape)}, expected [{sources + 1}]: the {sources} somas of the "
            "source, and one more"
        )
    if target.ndim != 1 or target.shape != weight.shape:
        raise UsageError(
            f"{where}: target {list(target.shape)} and weight {list(weight.shape)}: give one of each per synapse"
        )
    if indptr[0] != 0 or indptr[-1] != len(target) or (indptr[1:] < indptr[:-1]).any():
        raise UsageError(
            f"{where}: indptr goes from {indptr[0]} to {indptr[-1]}; it must rise from 0 to the {len(target)} "
            "synapses, and never fall"
        )
    low, high = bounds(target)
    if low < 0 or (target.size and high >= targets):
        raise UsageError(f"{where}: targets {low}..{high}, but the {targets} somas of the target count from 0")


def extra_delays(where: str, delay: object, shape: tuple[int, ...]) -> np.ndarray | None:
    """Delays of the synapses beyond one timestep, uint8 of `shape`; None where all are 0."""
    given = integers(f"{where}: delay", delay)
    low, high = bounds(given)
    if low < 0 or high > MAX_EXTRA:
        raise UsageError(f"{where}: delays {low}..{high} leave 0..{MAX_EXTRA} timesteps; put relays in between")
    if given.shape not in ((), shape):
        raise UsageError(f"{where}: delay has shape {list(given.shape)}, expected one number or {list(shape)}")
    if high == 0:
        return None
    return np.full(shape, high, np.uint8) if given.shape == () else narrow(given, np.uint8)


def rows_where(indptr: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`indptr` of the synapses that a bool array [synapses] chooses, int64."""
    rows = len(indptr) - 1
    source = np.repeat(np.arange(rows), np.diff(indptr))[chosen]
    return np.concatenate([[0], np.cumsum(np.bincount(source, minlength=rows))]).astype(np.int64)


def rows_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indptr, target, source) of the non-zero entries of a matrix [targets, sources], source by source."""
    source, target = np.nonzero(matrix.T)
    counts = np.bincount(source, minlength=matrix.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return indptr, target.astype(np.int32), source


def canonical_shape(where: str, shape: int | tuple[int, ...]) -> Shape:
    """(C, H, W) of a shape or of a number of somas; UsageError where it is neither."""
    full = (shape, 1, 1) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if len(full) != 3 or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in full):
        raise UsageError(f"{where}: shape {shape!r}; give (channels, height, width), or a number of somas")
    return int(full[0]), int(full[1]), int(full[2])
