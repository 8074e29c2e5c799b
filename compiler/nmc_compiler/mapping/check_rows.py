"""The independent checker for synapses one by one: is each reached through exactly one axon row?

Shares no code with the axon builder. Every synapse is looked up: which tiles hold its accumulator, and how
many rows bring the event of its source soma there? Rows that bring nothing any soma has work for are in vain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nmc_compiler.program.model import Mapping, Program, Sparse

SLAB = 2**22  # pairs of source soma and tile, and synapses, looked at together


def replay_rows(program: Program, mapping: Mapping, index: int) -> tuple[int, list[str]]:
    """Synapses of sparse projection `index` as the tiles hold them (halo copies included), and what is wrong."""
    item = program.sparses[index]
    label = f"sparse {item.name!r}"
    numbers = np.flatnonzero((mapping.axons[:, 1] == 3) & (mapping.axons[:, 2] == index))
    pieces = mapping.pieces[mapping.pieces[:, 1] == item.dst].astype(np.int64)
    column = {int(tile): i for i, tile in enumerate(pieces[:, 0])}
    good, problems = _sound_rows(program, mapping, item, label, numbers, column)
    boxes = mapping.axons[good, 5:].astype(np.int64)
    into = np.array([column[int(tile)] for tile in mapping.axons[good, 4]], np.int64)
    used = np.zeros(len(good), bool)
    holders = _holders(program.dendrites[item.dst].shape, pieces)
    synapses, wrong, first = 0, 0, ""
    for low, high in _slabs(item, len(pieces)):
        needed, held = _needed(item, holders, len(pieces), low, high)
        synapses += held
        brought, some = _brought(program.populations[item.src].shape, boxes, into, needed, low)
        used |= some
        bad = needed & (brought != 1)
        wrong += int(bad.sum())
        if bad.any() and not first:
            soma, at = np.argwhere(bad)[0].tolist()
            where = [int(i) for i in np.unravel_index(low + soma, program.populations[item.src].shape)]
            first = (
                f"the event of source {where} reaches tile {pieces[at, 0]} {brought[soma, at]} times instead of once"
            )
    if wrong:
        problems.append(f"{label}: {first} ({wrong} such)")
    problems += [
        f"{label}: axon {row} brings {box.tolist()} to tile {mapping.axons[row, 4]} without any synapse"
        for row, box in zip(good[~used], boxes[~used], strict=True)
    ]
    return synapses, problems


def _sound_rows(
    program: Program, mapping: Mapping, item: Sparse, label: str, numbers: np.ndarray, column: dict[int, int]
) -> tuple[np.ndarray, list[str]]:
    """Rows whose ends hold what they should, and a problem for each of the others."""
    shape, dendrite = program.populations[item.src].shape, program.populations[item.src].dendrite
    c, h, w = shape
    held = {int(row[0]): row[2:] for row in mapping.pieces if row[1] == dendrite}
    if dendrite < 0:
        held = {-1: np.array([0, c, 0, h, 0, w])}
    good, problems = [], []
    for row in numbers.tolist():
        box, home = mapping.axons[row, 5:], held.get(int(mapping.axons[row, 0]))
        if home is None or (box[0::2] < home[0::2]).any() or (box[1::2] > home[1::2]).any():
            problems.append(f"{label}: axon {row} takes {box.tolist()} from a tile without all of these somas")
        elif int(mapping.axons[row, 4]) not in column:
            problems.append(f"{label}: axon {row} goes to tile {mapping.axons[row, 4]}, which holds no target")
        else:
            good.append(row)
    return np.array(good, np.int64), problems


def _slabs(item: Sparse, tiles: int) -> Iterator[tuple[int, int]]:
    """Ranges of source somas, as many together as `SLAB` allows."""
    low, somas = 0, len(item.indptr) - 1
    while low < somas:
        by_synapses = int(np.searchsorted(item.indptr, item.indptr[low] + SLAB, side="right")) - 1
        high = min(max(by_synapses, low + 1), low + max(SLAB // max(tiles, 1), 1), somas)
        yield low, high
        low = high


def _needed(item: Sparse, holders: list[np.ndarray], tiles: int, low: int, high: int) -> tuple[np.ndarray, int]:
    """Whether each source soma low..high has a synapse on each tile [somas, tiles], and how many there are."""
    first, last = int(item.indptr[low]), int(item.indptr[high])
    source = np.repeat(np.arange(high - low), np.diff(item.indptr[low : high + 1]))
    c, y, x = np.unravel_index(item.target[first:last], holders[0].shape)
    needed, held = np.zeros((high - low, tiles), bool), 0
    for layer in holders:
        tile = layer[c, y, x]
        inside = tile >= 0
        needed[source[inside], tile[inside]] = True
        held += int(inside.sum())
    return needed, held


def _holders(shape: tuple[int, int, int], pieces: np.ndarray) -> list[np.ndarray]:
    """Piece that holds each accumulator, -1 for none; a further array for those held twice, and so on."""
    layers, waiting = [np.full(shape, -1, np.int32)], list(range(len(pieces)))
    while waiting:
        layer, later = np.full(shape, -1, np.int32), []
        for number in waiting:
            c0, c1, y0, y1, x0, x1 = pieces[number, 2:].tolist()
            if (layer[c0:c1, y0:y1, x0:x1] >= 0).any():
                later.append(number)
            else:
                layer[c0:c1, y0:y1, x0:x1] = number
        layers.append(layer)
        waiting = later
    return layers[1:] or layers


def _brought(
    shape: tuple[int, int, int], boxes: np.ndarray, into: np.ndarray, needed: np.ndarray, low: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often rows bring each soma's event to each tile [somas, tiles], and which rows bring one that is needed."""
    brought, used = np.zeros(needed.shape, np.int32), np.zeros(len(boxes), bool)
    c, y, x = np.unravel_index(np.arange(low, low + len(needed)), shape)
    near = np.flatnonzero((boxes[:, 0] <= c[-1]) & (boxes[:, 1] > c[0]))
    for row in near.tolist():
        c0, c1, y0, y1, x0, x1 = boxes[row].tolist()
        first, last = np.searchsorted(c, [c0, c1])
        inside = slice(first, last)
        if (y1 - y0, x1 - x0) != shape[1:]:
            part = slice(first, last)
            inside = first + np.flatnonzero((y[part] >= y0) & (y[part] < y1) & (x[part] >= x0) & (x[part] < x1))
        brought[inside, into[row]] += 1
        used[row] = needed[inside, into[row]].any()
    return brought, used
