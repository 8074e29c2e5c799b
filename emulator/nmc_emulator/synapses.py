"""Synapses of a Sparse projection, counted and cut per tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Box, Program, Shape, Sparse

CHUNK = 1 << 20  # synapses looked at in one go: keeps temporary arrays small beside the synapses themselves


def _chunks(s: Sparse) -> list[slice]:
    return [slice(at, min(at + CHUNK, len(s.target))) for at in range(0, len(s.target), CHUNK)]


def in_degree(program: Program, s: Sparse) -> np.ndarray:
    """Synapses per accumulator, int64 [C, H, W] of the target dendrite."""
    shape = program.dendrites[s.dst].shape
    found = np.zeros(int(np.prod(shape)), np.int64)
    for part in _chunks(s):
        found += np.bincount(s.target[part], minlength=len(found))
    return found.reshape(shape)


def largest_gain(program: Program, s: Sparse) -> int:
    """Largest sum of |weight| at one accumulator."""
    found = np.zeros(int(np.prod(program.dendrites[s.dst].shape)), np.int64)
    for part in _chunks(s):
        weight = np.abs(s.weight[part].astype(np.int64))
        found += np.bincount(s.target[part], weight, len(found)).astype(np.int64)  # exact: 2^20 * 2^15 < 2^53
    return int(found.max(initial=0))


def box_mask(shape: Shape, box: Box) -> np.ndarray:
    """bool [somas or accumulators]: whether a position, counted in C order, is inside the box."""
    mask = np.zeros(shape, bool)
    mask[box.c0 : box.c1, box.y0 : box.y1, box.x0 : box.x1] = True
    return mask.reshape(-1)


@dataclass(frozen=True)
class Synapses:
    """The synapses of one projection whose accumulators are in one box.

    Row s, entries ``indptr[s]:indptr[s + 1]``; target: accumulators within the box in C order.
    indptr, target, weight, extra: int64.
    """

    indptr: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    extra: np.ndarray

    def reaches(self) -> np.ndarray:
        """bool [somas of the source]: whether the soma has a synapse here."""
        return np.diff(self.indptr) > 0


def cut(program: Program, s: Sparse, box: Box) -> Synapses:
    """The part of a projection that a tile holding ``box`` of the target dendrite does."""
    shape = program.dendrites[s.dst].shape
    mask = box_mask(shape, box)
    local = np.cumsum(mask) - 1
    held = np.flatnonzero(mask[s.target])
    before = np.searchsorted(held, s.indptr)
    extra = np.zeros(len(held), np.int64) if s.extra is None else s.extra[held].astype(np.int64)
    return Synapses(before.astype(np.int64), local[s.target[held]], s.weight[held].astype(np.int64), extra)


def channel_last(s: Sparse, source: Shape, target: Shape) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(delay, indptr, target, weight) of the synapses of each delay; somas and accumulators counted channel last."""
    channels, area = source[0], source[1] * source[2]
    row = np.repeat(np.arange(channels * area), np.diff(s.indptr))
    from_ = row % area * channels + row // area
    into = s.target.astype(np.int64) % (target[1] * target[2]) * target[0] + s.target // (target[1] * target[2])
    extra = np.zeros(len(row), np.int64) if s.extra is None else s.extra.astype(np.int64)
    found = []
    for late in np.unique(extra).tolist():
        chosen = np.flatnonzero(extra == late)
        order = chosen[np.argsort(from_[chosen], kind="stable")]
        counts = np.bincount(from_[order], minlength=channels * area)
        found.append((late, np.concatenate([[0], np.cumsum(counts)]), into[order], s.weight[order]))
    return found
