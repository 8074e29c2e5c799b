"""Rows of synapses under a division of their targets: how many synapses each source soma has in each part.

A part is whatever accumulators are told apart by: the tile or core that holds them, or a range of channels.
Everything here goes over the synapses in blocks, so that memory does not grow with the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nmc_compiler.program.model import Shape, Sparse

BLOCK = 2**20  # synapses, and counts of soma and part, looked at together


def painted(shape: Shape, boxes: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """Number of the box [n, 6] that holds each accumulator, flat int32, -1 where none does.

    One array where boxes are disjoint; where they overlap (a halo), as many as it takes to show them all.
    """
    layers: list[np.ndarray] = []
    for box, number in zip(boxes.tolist(), numbers.tolist(), strict=True):
        c0, c1, y0, y1, x0, x1 = box
        parts = (layer[c0:c1, y0:y1, x0:x1] for layer in layers)
        free = next((part for part in parts if (part == -1).all()), None)
        if free is None:
            layers.append(np.full(shape, -1, np.int32))
            free = layers[-1][c0:c1, y0:y1, x0:x1]
        free[:] = number
    return [layer.reshape(-1) for layer in layers]


def counts(item: Sparse, part_of: Sequence[np.ndarray], parts: int) -> Iterator[tuple[int, np.ndarray]]:
    """First source soma of a block of rows, and the synapses of each in each part: int64 [rows, parts].

    ``part_of``: part of each accumulator, -1 for none, one array or several (`painted`).
    """
    for start, stop in blocks(item.indptr, parts):
        yield start, counts_between(item, part_of, parts, start, stop)


def blocks(indptr: np.ndarray, parts: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most `BLOCK` synapses and `BLOCK` counts of `parts` parts, one row at the least."""
    start, rows = 0, len(indptr) - 1
    most = max(BLOCK // parts, 1)
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), start + most, rows)
        yield start, stop
        start = stop


def counts_between(item: Sparse, part_of: Sequence[np.ndarray], parts: int, start: int, stop: int) -> np.ndarray:
    """Synapses of source somas start..stop in each part: int64 [rows, parts]."""
    low, high = int(item.indptr[start]), int(item.indptr[stop])
    target = item.target[low:high]
    row = np.repeat(np.arange(stop - start) * parts, np.diff(item.indptr[start : stop + 1]))
    found = np.zeros((stop - start) * parts, np.int64)
    for layer in part_of:
        part = layer[target]
        held = part >= 0
        keys = row + part if held.all() else (row + part)[held]
        found += np.bincount(keys, minlength=len(found))
    return found.reshape(stop - start, parts)


def in_degrees(item: Sparse, shape: Shape) -> np.ndarray:
    """Synapses onto each accumulator of the target dendrite, flat int64."""
    total = np.zeros(math.prod(shape), np.int64)
    for start in range(0, len(item.target), BLOCK):
        total += np.bincount(item.target[start : start + BLOCK], minlength=len(total))
    return total
