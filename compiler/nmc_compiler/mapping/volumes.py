"""Rows of volumes: which rows of the source a range of output rows reads, slice by slice.

Row r of a volume is row ``r % H`` of slice ``r // H``. A range of output rows is at most three products of
slices and rows of a slice: the rest of its first slice, whole slices, and the beginning of its last.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nmc_compiler.mapping.intervals import reached, sources_of_outputs
from nmc_compiler.program.shapes import Window


def _products(outs: np.ndarray, height: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Intervals of slices [n, 2] and of the rows of each [n, 2], of the parts of n ranges of rows; some empty."""
    low, high = outs[:, 0], np.maximum(outs[:, 1], outs[:, 0])
    first, last = low // height, high // height
    start, stop = low % height, high % height
    one = first == last  # the range ends within the slice it starts in
    whole = -(-low // height)
    yield _pairs(first, first + 1), _pairs(start, np.where(one, stop, np.where(start > 0, height, start)))
    yield _pairs(whole, last), _pairs(0 * low, 0 * low + height)
    yield _pairs(last, last + 1), _pairs(0 * low, np.where(one, 0, stop))


def _pairs(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.stack([low, high], axis=1)


def sources_of_rows(outs: np.ndarray, slices: Window, rows: Window) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint intervals of source rows that the ranges `outs` [n, 2] of output rows read, and the range of each.

    Per slice that is read, from the first row read to the last; neighbouring intervals become one.
    """
    spans, of = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for deep, tall in _products(outs, rows.out):
        number, slice_ = _slices_read(deep, slices)
        size, _, *form = rows
        inside = sources_of_outputs(tall, size, *form)[number]
        some = inside[:, 0] < inside[:, 1]
        spans.append((slice_[:, None] * rows.size + inside)[some])
        of.append(number[some])
    return _merged(np.concatenate(spans), np.concatenate(of), slices.size * rows.size)


def _slices_read(outs: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """(interval, source slice) for every source slice that each interval of output slices reads, once each."""
    size, _, *form = window
    around = sources_of_outputs(outs, size, *form)
    counts = np.where(outs[:, 0] < outs[:, 1], np.maximum(around[:, 1] - around[:, 0], 0), 0)
    number = np.repeat(np.arange(len(outs)), counts)
    place = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts) + around[number, 0]
    read = np.zeros(len(number), bool)
    for tap in range(window.kernel):
        out, rest = np.divmod(place + window.pad - tap * window.dilation, window.stride)
        read |= (rest == 0) & (out >= outs[number, 0]) & (out < outs[number, 1])
    return number[read], place[read]


def _merged(spans: np.ndarray, of: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Unions of intervals within 0..size, separately for each number in `of`; by number, then by place."""
    moved = spans + of[:, None] * (size + 1)  # intervals of different numbers never touch
    moved = moved[np.argsort(moved[:, 0], kind="stable")]
    ends = np.maximum.accumulate(moved[:, 1]) if len(moved) else moved[:, 1]
    first = np.flatnonzero(np.concatenate([[True], moved[1:, 0] > ends[:-1]])) if len(moved) else np.zeros(0, np.int64)
    low, high = moved[first, 0], np.append(ends[first[1:] - 1], ends[-1:])
    number = low // (size + 1)
    return _pairs(low, high) - number[:, None] * (size + 1), number


def useful_rows(outs: np.ndarray, slices: Window, rows: Window) -> np.ndarray:
    """Bool [source rows]: those that the range `outs` [1, 2] of output rows reads."""
    mask = np.zeros((slices.size, rows.size), bool)
    for deep, tall in _products(outs, rows.out):
        read = reached(slices, *deep[0].tolist()), reached(rows, *tall[0].tolist())
        mask |= read[0][:, None] & read[1]
    return mask.reshape(-1)
