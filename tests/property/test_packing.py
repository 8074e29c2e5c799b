"""Packing is first fit, whatever it skips: every tile on the first core that has room for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from nmc_compiler.mapping.demand import MEMORY
from nmc_compiler.mapping.pack import GROUPS, Tile, pack
from nmc_compiler.mapping.resources import RESOURCES

LIMITS = np.full(len(RESOURCES), 12, np.int64)


@st.composite
def tiles(draw: Any) -> list[Tile]:
    """Tiles of few different needs, as those of one layer have them; some share blocks of weights and groups."""
    kinds = draw(st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=1, max_size=4))
    made = []
    for _ in range(draw(st.integers(1, 40))):
        needs = np.array(kinds[draw(st.integers(0, len(kinds) - 1))], np.int64)
        needs[GROUPS] = 0
        blocks = {("block", key): 1 + key for key in draw(st.sets(st.integers(0, 4), max_size=2))}
        groups = frozenset(draw(st.sets(st.integers(0, 15), max_size=6)))
        made.append(Tile(0, (0, 1, 0, 1, 0, 1), needs, blocks, groups))
    return made


def first_fit(found: list[Tile]) -> list[int]:
    """The same by looking at every core from the first on."""
    cores: list[list[Tile]] = []
    places = []
    for tile in found:
        place = next((n for n, core in enumerate(cores) if _holds([*core, tile])), len(cores))
        if place == len(cores):
            cores.append([])
        cores[place].append(tile)
        places.append(place)
    return places


def _holds(core: list[Tile]) -> bool:
    needs = sum(tile.needs for tile in core)
    shared: dict[tuple, int] = {}
    for tile in core:
        shared |= tile.blocks
    needs[MEMORY] += sum(shared.values())
    groups = frozenset().union(*(tile.groups for tile in core))
    return bool((needs <= LIMITS).all()) and len(groups) <= LIMITS[GROUPS]


@given(tiles())
def test_every_tile_is_on_the_first_core_with_room(found: list[Tile]) -> None:
    net: Any = SimpleNamespace(limits=LIMITS)
    assert pack(net, found, len(found)).tolist() == first_fit(found)
