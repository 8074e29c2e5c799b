"""The tables of a mapping: tiles, pieces and axons from cuts and the cores that tiles stand on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nmc_compiler.mapping.boxes import intersect
from nmc_compiler.mapping.cluster import Cluster, held_spans
from nmc_compiler.mapping.demand import Cuts
from nmc_compiler.mapping.pack import Tile
from nmc_compiler.mapping.reach import Reach, find_reaches
from nmc_compiler.program.model import Program


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

    For every piece of a target dendrite, the source box that reaches it, cut along the source's tiles.
    """
    by_dendrite = {d: pieces[pieces[:, 1] == d].astype(np.int64) for d in range(len(program.dendrites))}
    blocks = [_axons_of(program, reach, by_dendrite) for reach in find_reaches(program)]
    return np.concatenate([np.zeros((0, 11), np.int32), *blocks])


def _axons_of(program: Program, reach: Reach, by_dendrite: dict[int, np.ndarray]) -> np.ndarray:
    targets = by_dendrite[reach.dst]
    wanted = np.empty((len(targets), 6), np.int64)
    for axis in (0, 1, 2):
        spans = targets[:, 2 + 2 * axis : 4 + 2 * axis]
        wanted[:, 2 * axis : 2 * axis + 2] = reach.sources(axis, spans)
    dendrite = program.populations[reach.src].dendrite
    if dendrite < 0:
        c, h, w = reach.src_shape
        source_tiles, source_boxes = np.array([-1]), np.array([[0, c, 0, h, 0, w]], np.int64)
    else:
        source_tiles, source_boxes = by_dendrite[dendrite][:, 0], by_dendrite[dendrite][:, 2:]
    blocks = []
    for target, box in zip(targets, wanted, strict=True):
        some, shared = intersect(source_boxes, box)
        kept = _trim(reach, target[2:], shared)
        head = np.array([0, reach.kind, reach.index, reach.role, target[0]])
        rows = np.column_stack([np.tile(head, (len(some), 1)), shared])
        rows[:, 0] = source_tiles[some]
        blocks.append(rows[kept])
    return np.concatenate(blocks).astype(np.int32)


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
