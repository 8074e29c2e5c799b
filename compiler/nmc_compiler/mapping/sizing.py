"""What a layout takes of its cores: per core, per layer, and which resource decides how many cores there are.

Numbers are those that packing goes by: axons that several tiles of one core share are counted for each, so a mapping's
own table of axons (`resources.core_usage`) may be a little below; everything else is equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.demand import MEMORY
from nmc_compiler.mapping.map import Layout
from nmc_compiler.mapping.pack import GROUPS, Tile
from nmc_compiler.mapping.partition import layer_name
from nmc_compiler.mapping.resources import RESOURCES, limits
from nmc_compiler.target import Target


@dataclass(frozen=True)
class LayerSize:
    """One layer: how it is cut (channels, rows, columns), the cores it is on, and what its tiles need.

    ``need``: of all tiles together, ``fullest``: most of one tile; [resources], memory in words.
    """

    name: str
    cut: tuple[int, int, int]
    cores: int
    need: np.ndarray
    fullest: np.ndarray

    @property
    def tiles(self) -> int:
        return self.cut[0] * self.cut[1] * self.cut[2]


@dataclass(frozen=True)
class Sizing:
    """A layout in numbers. ``used`` int64 [cores, resources] and ``limits`` [resources], memory in words."""

    cores: int
    chips: int
    layers: tuple[LayerSize, ...]
    used: np.ndarray
    limits: np.ndarray

    @property
    def alone(self) -> np.ndarray:
        """Cores that each resource would take if it were the only one and could be filled, [resources]."""
        return -(-self.used.sum(axis=0) // self.limits)

    @property
    def binds(self) -> str:
        """The resource that takes the most cores by itself."""
        return RESOURCES[int(np.argmax(self.used.sum(axis=0) / self.limits))]


def sizing_of(layout: Layout, target: Target) -> Sizing:
    """Usage and layers of a layout."""
    top, word = limits(target), layout.net.sizes.word
    used = np.zeros((layout.cores, len(RESOURCES)), np.int64)
    blocks: list[dict[tuple, int]] = [{} for _ in range(layout.cores)]
    groups: list[set[int]] = [set() for _ in range(layout.cores)]
    for tile, core in zip(layout.tiles, layout.on_core.tolist(), strict=True):
        used[core] += tile.needs
        blocks[core] |= tile.blocks
        groups[core] |= tile.groups
    used[:, MEMORY] = -(-(used[:, MEMORY] + [sum(b.values()) for b in blocks]) // word)
    used[:, GROUPS] = [len(g) for g in groups]
    return Sizing(layout.cores, layout.chips, _layers(layout, word), used, np.array([top[r] for r in RESOURCES]))


def _layers(layout: Layout, word: int) -> tuple[LayerSize, ...]:
    mine: dict[int, list[int]] = {}
    for number, tile in enumerate(layout.tiles):
        mine.setdefault(tile.cluster, []).append(number)
    found = []
    for cluster in sorted(layout.clusters, key=lambda c: (c.level, c.index)):
        numbers = mine[cluster.index]
        needs = np.array([_need(layout.tiles[n], word) for n in numbers])
        c, y, x = (len(chunks) for chunks in layout.cuts[cluster.index])
        cores = len(np.unique(layout.on_core[numbers]))
        name = layer_name(layout.net, cluster).replace("'", "")
        found.append(LayerSize(name, (c, y, x), cores, needs.sum(axis=0), needs.max(axis=0)))
    return tuple(found)


def _need(tile: Tile, word: int) -> np.ndarray:
    """Everything that one tile needs, what it may share included."""
    need = tile.needs.copy()
    need[MEMORY] = -(-(need[MEMORY] + sum(tile.blocks.values())) // word)
    need[GROUPS] = len(tile.groups)
    return need
