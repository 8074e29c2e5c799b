"""What the partitioner needs to know of a cluster: its base, what a tile holds, what may not be cut."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.mapping.intervals import constant, windows_of_outputs
from nmc_compiler.program.clusters import after_sums, base_dendrites, dendrites_of_clusters
from nmc_compiler.program.model import Program, Shape, Transfer

Spans = MappingABC[int, np.ndarray]  # dendrite -> interval held by each chunk, [n, 2]


@dataclass(frozen=True)
class Cluster:
    """Dendrites that share tiles. ``whole_maps``: a tile holds all positions of its channels."""

    index: int
    base: int
    shape: Shape  # of the base dendrite
    dendrites: tuple[int, ...]
    populations: tuple[int, ...]  # whose somas sit here
    transfers: tuple[Transfer, ...]
    summed: frozenset[int]  # dendrites at or behind a sum: a single tile row and column holds all of them
    whole_maps: bool
    level: int  # of the first soma or transfer; clusters are packed in this order


def find_clusters(program: Program) -> list[Cluster]:
    """Every cluster of the netlist, in the order of their indices."""
    bases, members = base_dendrites(program), dendrites_of_clusters(program)
    dynamic = {item.dst for item in program.dynamics}
    summed = after_sums(program)
    return [
        _cluster(program, index, bases[index], tuple(dendrites), dynamic, frozenset(summed & set(dendrites)))
        for index, dendrites in members.items()
    ]


def _cluster(
    program: Program,
    index: int,
    base: int,
    dendrites: tuple[int, ...],
    dynamic: set[int],
    summed: frozenset[int],
) -> Cluster:
    inside = set(dendrites)
    populations = tuple(i for i, p in enumerate(program.populations) if p.dendrite in inside)
    transfers = tuple(t for t in program.transfers if t.src in inside)
    levels = [program.populations[p].level for p in populations] + [t.level for t in transfers]
    return Cluster(
        index=index,
        base=base,
        shape=program.dendrites[base].shape,
        dendrites=dendrites,
        populations=populations,
        transfers=transfers,
        summed=summed,
        whole_maps=bool(inside & dynamic or summed),
        level=min(levels),
    )


def held_spans(program: Program, cluster: Cluster, axis: int, chunks: np.ndarray) -> dict[int, np.ndarray]:
    """Interval of each dendrite along `axis` (0 channel, 1 row, 2 column) for each chunk of the base."""
    if axis == 0:
        return dict.fromkeys(cluster.dendrites, chunks)
    held: dict[int, np.ndarray] = {}
    waiting = list(cluster.dendrites)
    while waiting:
        ready = [d for d in waiting if _pools_known(cluster, d, held)]
        if not ready:
            names = ", ".join(repr(program.dendrites[d].name) for d in waiting)
            raise VerifyError(f"cluster {cluster.index}: no transfer leads from {names} to its base dendrite")
        for dendrite in ready:
            held[dendrite] = _held(program, cluster, dendrite, axis, chunks, held)
        waiting = [d for d in waiting if d not in held]
    return held


def _pools(cluster: Cluster, dendrite: int) -> list[Transfer]:
    return [t for t in cluster.transfers if t.src == dendrite and t.mode == "maxpool"]


def _pools_known(cluster: Cluster, dendrite: int, held: Spans) -> bool:
    return dendrite in cluster.summed or all(t.dst in held for t in _pools(cluster, dendrite))


def _held(program: Program, cluster: Cluster, dendrite: int, axis: int, chunks: np.ndarray, held: Spans) -> np.ndarray:
    size = program.dendrites[dendrite].shape[axis]
    pools = _pools(cluster, dendrite)
    if dendrite in cluster.summed:
        return constant(chunks, 0, size)
    if not pools:
        return chunks
    spans = [
        windows_of_outputs(
            held[t.dst],
            program.dendrites[t.dst].shape[axis],
            size,
            t.kernel[axis - 1],
            t.stride[axis - 1],
            t.pad[axis - 1],
        )
        for t in pools
    ]
    low = np.min([s[:, 0] for s in spans], axis=0)
    return np.stack([low, np.max([s[:, 1] for s in spans], axis=0)], axis=1)


def somas_once(program: Program, cluster: Cluster, held: Spans) -> bool:
    """Whether the intervals of every dendrite that somas read are disjoint (no soma twice)."""
    read = {program.populations[p].dendrite for p in cluster.populations}
    return all((held[d][1:, 0] >= held[d][:-1, 1]).all() for d in read if d not in cluster.summed)
