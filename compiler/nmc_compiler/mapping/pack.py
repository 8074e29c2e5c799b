"""Pack: put tiles on cores, first fit, several clusters per core where they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nmc_compiler.mapping.cluster import Cluster
from nmc_compiler.mapping.demand import MEMORY, Cut, Cuts, Netlist, exact_needs
from nmc_compiler.mapping.resources import RESOURCES, block_bits, block_key
from nmc_compiler.program.model import Sparse

GROUPS = RESOURCES.index("neuron_groups")


@dataclass(frozen=True)
class Tile:
    """A box of a cluster's base dendrite, with what it needs of a core.

    ``needs`` [resources] leaves out what tiles may share: weight ``blocks`` (key -> bits) and ``groups``.
    """

    cluster: int
    box: tuple[int, int, int, int, int, int]
    needs: np.ndarray
    blocks: dict[tuple, int]
    groups: frozenset[int]


@dataclass
class _Core:
    blocks: dict[tuple, int] = field(default_factory=dict)
    groups: set[int] = field(default_factory=set)


def tiles_of(net: Netlist, clusters: Sequence[Cluster], cuts: Cuts) -> list[Tile]:
    """Every tile, clusters in level order, channels outermost."""
    found = []
    for cluster in sorted(clusters, key=lambda c: (c.level, c.index)):
        found += _cluster_tiles(net, cluster, cuts[cluster.index], cuts)
    return found


def _cluster_tiles(net: Netlist, cluster: Cluster, cut: Cut, cuts: Cuts) -> list[Tile]:
    needs = exact_needs(net, cluster, cut, cuts)
    found = []
    for i, (c0, c1) in enumerate(cut[0].tolist()):
        blocks, groups = _blocks(net, cluster, c0, c1), _groups(net, cluster, c0, c1)
        for j, rows in enumerate(cut[1].tolist()):
            for k, columns in enumerate(cut[2].tolist()):
                mine = needs[:, i, j, k].copy()
                mine[MEMORY] -= sum(blocks.values())
                mine[GROUPS] = 0
                found.append(Tile(cluster.index, (c0, c1, *rows, *columns), mine, blocks, groups))
    return found


def _blocks(net: Netlist, cluster: Cluster, c0: int, c1: int) -> dict[tuple, int]:
    reaches = [r for dendrite in cluster.dendrites for r in net.into[dendrite] if not isinstance(r.item, Sparse)]
    return {block_key(reach, c0, c1): block_bits(reach, c0, c1, net.sizes) for reach in reaches}


def _groups(net: Netlist, cluster: Cluster, c0: int, c1: int) -> frozenset[int]:
    return frozenset(number for p in cluster.populations for number in np.unique(net.sets[p][c0:c1]).tolist())


def pack(net: Netlist, tiles: Sequence[Tile], enough: int) -> np.ndarray:
    """Core of every tile, int64 [tiles]; cores are numbered in the order in which they are opened.

    In level order; where that takes more than ``enough`` cores, the largest tiles first, if that takes fewer.
    """
    place = _first_fit(net, tiles, list(range(len(tiles))))
    if place.max(initial=-1) < enough:
        return place
    share = [float((tile.needs / net.limits).max()) for tile in tiles]
    tight = _first_fit(net, tiles, sorted(range(len(tiles)), key=lambda i: (-share[i], i)))
    return tight if tight.max() < place.max() else place


def _first_fit(net: Netlist, tiles: Sequence[Tile], order: Sequence[int]) -> np.ndarray:
    used = np.zeros((len(tiles), len(RESOURCES)), np.int64)  # one row per core, at most one core per tile
    cores: list[_Core] = []
    place = np.zeros(len(tiles), np.int64)
    full: dict[bytes, int] = {}  # needs -> cores, from the first on, that have no room for them any more
    for number in order:
        tile = tiles[number]
        start = full.get(tile.needs.tobytes(), 0)
        roomy = np.flatnonzero((used[start : len(cores)] + tile.needs <= net.limits).all(axis=1)) + start
        full[tile.needs.tobytes()] = int(roomy[0]) if len(roomy) else len(cores)
        fitting = (c for c in roomy.tolist() if _fits(net, cores[c], used[c], tile))
        core = next(fitting, len(cores))
        if core == len(cores):
            cores.append(_Core())
        used[core] += tile.needs
        cores[core].blocks |= tile.blocks
        cores[core].groups |= tile.groups
        place[number] = core
    return place


def _fits(net: Netlist, core: _Core, used: np.ndarray, tile: Tile) -> bool:
    if len(core.groups | tile.groups) > net.limits[GROUPS]:
        return False
    bits = sum((core.blocks | tile.blocks).values())
    return bool(used[MEMORY] + tile.needs[MEMORY] + bits <= net.limits[MEMORY])
