"""The tables of a mapping: tiles, pieces and axons from cuts and the cores that tiles stand on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nmc_compiler.mapping.boxes import intersect
from nmc_compiler.mapping.cluster import Cluster, held_spans
from nmc_compiler.mapping.demand import Cuts
from nmc_compiler.mapping.pack import Tile
from nmc_compiler.mapping.reach import Reach, find_reaches
from nmc_compiler.mapping.rows import counts, painted
from nmc_compiler.program.model import Program, Sparse


def tile_table(tiles: Sequence[Tile], place: np.ndarray) -> np.ndarray:
    """Rows cluster, core, box; int32 [tiles, 8]."""
    rows = [(tile.cluster, core, *tile.box) for tile, core in zip(tiles, place.tolist(), strict=True)]
    return np.array(rows, np.int32)


def piece_table(program: Program, clusters: Sequence[Cluster], cuts: Cuts, tiles: Sequence[Tile]) -> np.ndarray:
    """Rows tile, dendrite, box held; int32 [pieces, 8], tile by tile."""
    spans = {
        cluster.index: [held_spans(program, cluster, axis, cuts[cluster.index][axis]) for axis in (0, 1, 2)]
        for cluster in clusters
    }
    members = {cluster.index: cluster.dendrites for cluster in clusters}
    rows = []
    for number, tile in enumerate(tiles):
        chunk = [_chunk(cuts[tile.cluster][axis], tile.box[2 * axis]) for axis in (0, 1, 2)]
        for dendrite in members[tile.cluster]:
            box = [spans[tile.cluster][axis][dendrite][chunk[axis]].tolist() for axis in (0, 1, 2)]
            rows.append((number, dendrite, *box[0], *box[1], *box[2]))
    return np.array(rows, np.int32)


def _chunk(chunks: np.ndarray, low: int) -> int:
    return int(np.searchsorted(chunks[:, 0], low))


def axon_table(program: Program, pieces: np.ndarray) -> np.ndarray:
    """Rows source tile, kind, projection, role, destination tile, box of source; int32 [axons, 11].

    For every piece of a target dendrite, the source box that reaches it, cut along the source's tiles; for a
    Sparse, the channels of each source tile from the first to the last that have a synapse in the piece.
    """
    by_dendrite = {d: pieces[pieces[:, 1] == d].astype(np.int64) for d in range(len(program.dendrites))}
    blocks = [
        (_sparse_axons if isinstance(reach.item, Sparse) else _axons_of)(program, reach, by_dendrite)
        for reach in find_reaches(program)
    ]
    return np.concatenate([np.zeros((0, 11), np.int32), *blocks])


def _axons_of(program: Program, reach: Reach, by_dendrite: dict[int, np.ndarray]) -> np.ndarray:
    targets = by_dendrite[reach.dst]
    rows, of = reach.sources(1, targets[:, 4:6])
    targets = targets[of]  # one of each for every interval of rows
    wanted = np.column_stack([reach.channels(targets[:, 2:4]), rows, reach.sources(2, targets[:, 6:8])[0]])
    source_tiles, source_boxes = _sources(program, reach, by_dendrite)
    blocks = []
    for target, box in zip(targets, wanted, strict=True):
        some, shared = intersect(source_boxes, box)
        kept = _trim(reach, target[2:], shared)
        head = np.array([0, reach.kind, reach.index, reach.role, target[0]])
        rows = np.column_stack([np.tile(head, (len(some), 1)), shared])
        rows[:, 0] = source_tiles[some]
        blocks.append(rows[kept])
    return np.concatenate([np.zeros((0, 11), np.int64), *blocks]).astype(np.int32)


def _sources(program: Program, reach: Reach, by_dendrite: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Tiles [n] that hold the source's somas, and their boxes [n, 6]; tile -1, the host, for an input."""
    dendrite = program.populations[reach.src].dendrite
    if dendrite < 0:
        c, h, w = reach.src_shape
        return np.array([-1]), np.array([[0, c, 0, h, 0, w]], np.int64)
    return by_dendrite[dendrite][:, 0], by_dendrite[dendrite][:, 2:]


def _sparse_axons(program: Program, reach: Reach, by_dendrite: dict[int, np.ndarray]) -> np.ndarray:
    assert isinstance(reach.item, Sparse)
    targets = by_dendrite[reach.dst]
    source_tiles, source_boxes = _sources(program, reach, by_dendrite)
    home = painted(reach.src_shape, source_boxes, np.arange(len(source_boxes)))[0]
    part_of = painted(reach.dst_shape, targets[:, 2:], np.arange(len(targets)))
    first = np.full((len(source_boxes), len(targets)), np.iinfo(np.int64).max)
    last = np.full(first.shape, -1, np.int64)
    for start, found in counts(reach.item, part_of, len(targets)):
        homes = home[start : start + len(found)]
        for source in np.unique(homes).tolist():
            somas = np.flatnonzero(homes == source)
            joined = found[somas] > 0
            low, high = somas[joined.argmax(axis=0)], somas[len(somas) - 1 - joined[::-1].argmax(axis=0)]
            some = joined.any(axis=0)
            first[source, some] = np.minimum(first[source, some], start + low[some])
            last[source, some] = np.maximum(last[source, some], start + high[some])
    target, source = np.nonzero(last.T >= 0)
    positions = reach.src_shape[1] * reach.src_shape[2]
    rows = np.zeros((len(target), 11), np.int32)
    rows[:, 0], rows[:, 4], rows[:, 5:] = source_tiles[source], targets[target, 0], source_boxes[source]
    rows[:, 1:4] = reach.kind, reach.index, reach.role
    rows[:, 5] = first[source, target] // positions
    rows[:, 6] = last[source, target] // positions + 1
    return rows


def _trim(reach: Reach, target: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Shrink source boxes (in place) to their outermost useful positions; which of them have any."""
    kept = np.ones(len(boxes), bool)
    for axis in (1, 2):
        mask = reach.useful(axis, int(target[2 * axis]), int(target[2 * axis + 1]))
        if mask is None:
            continue
        low, high = boxes[:, 2 * axis], boxes[:, 2 * axis + 1]
        places = np.flatnonzero(mask)
        first, last = np.searchsorted(places, low), np.searchsorted(places, high) - 1
        some = first <= last
        boxes[some, 2 * axis] = places[first[some]]
        boxes[some, 2 * axis + 1] = places[last[some]] + 1
        kept &= some
    return kept
