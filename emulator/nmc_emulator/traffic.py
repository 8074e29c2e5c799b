"""Where events go: classes of source positions that share their destinations.

All somas of a population between two neighbouring borders of axon boxes and tiles have the same
destinations. They form a *class*; packets, hops and axon entries are then event counts per class
times constants of the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Program

from .counters import Counters
from .kernels import tally
from .layout import Axon, Layout
from .synapses import cut
from .timing import SPARSE


@dataclass(frozen=True)
class Classes:
    """Destination classes of one population, K in all.

    The cells (segment, position), S * H * W of them, are R runs of one class each: run r is
    ``start[r]:start[r + 1]`` and of class ``kind[r]``; core int64 [K] of the emitting soma (-1:
    host). Per class k, rows ``axon_start[k]:axon_start[k + 1]`` of ``axons`` int64 [., 4]
    (unit, receiving core, delay, lag) and entries ``link_start[k]:link_start[k + 1]`` of ``links``,
    each crossed by one packet per event; ``targets[k]`` are the receiving cores, each once.
    """

    start: np.ndarray
    kind: np.ndarray
    core: np.ndarray
    axon_start: np.ndarray
    axons: np.ndarray
    link_start: np.ndarray
    links: np.ndarray
    targets: tuple[tuple[int, ...], ...]


def _borders(size: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(sorted({0, size, *(b for pair in pairs for b in pair)}), np.int64)


def _source_boxes(program: Program, layout: Layout, population: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """(tile, core, box) of every tile that holds somas of the population; tile -1 for the host."""
    p = program.populations[population]
    if p.dendrite < 0:
        return [(-1, -1, (0, p.shape[0], 0, p.shape[1], 0, p.shape[2]))]
    return [(q.tile, q.core, q.box.as_tuple()) for q in layout.pieces[p.dendrite]]


def _holds(box: tuple[int, ...], c: int, y: int, x: int) -> bool:
    return box[0] <= c < box[1] and box[2] <= y < box[3] and box[4] <= x < box[5]


class _Builder:
    """Collects classes: cells with the same emitting core and the same axon rows are one class."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.number: dict[tuple[int, tuple[int, ...]], int] = {}
        self.core: list[int] = []
        self.axons: list[list[tuple[int, int, int, int]]] = []
        self.links: list[list[int]] = []
        self.targets: list[tuple[int, ...]] = []

    def of(self, core: int, axons: list[Axon], rows: tuple[int, ...]) -> int:
        key = (core, rows)
        if key not in self.number:
            self.number[key] = len(self.core)
            met = [axons[r] for r in rows]
            targets = tuple(sorted({a.core for a in met}))
            self.core.append(core)
            self.axons.append([(a.edge.unit, a.core, a.edge.delay, a.edge.lag) for a in met])
            remote = [t for t in targets if core not in (-1, t)]
            self.links.append([link for t in remote for link in self.layout.mesh.path(core, t)])
            self.targets.append(targets)
        return self.number[key]


def _starts(rows: list[list]) -> np.ndarray:
    return np.cumsum([0, *map(len, rows)], dtype=np.int64)


def classify(program: Program, layout: Layout, population: int, segments: np.ndarray) -> Classes:
    """Destination classes of a population over its channel segments and positions."""
    _, height, width = program.populations[population].shape
    axons, sources = list(layout.axons[population]), _source_boxes(program, layout, population)
    boxes = [a.box.as_tuple() for a in axons] + [s[2] for s in sources]
    ys, xs = _borders(height, [b[2:4] for b in boxes]), _borders(width, [b[4:6] for b in boxes])  # type: ignore[misc]
    builder = _Builder(layout)
    cell = np.empty((len(segments) - 1, height, width), np.int32)
    if any(a.edge.kind == SPARSE for a in axons):
        cell[:] = _each(program, layout, axons, sources, builder, cell.shape)
        return _classes(builder, cell)
    for s, c in enumerate(segments[:-1].tolist()):
        for y0, y1 in zip(ys[:-1].tolist(), ys[1:].tolist(), strict=True):
            for x0, x1 in zip(xs[:-1].tolist(), xs[1:].tolist(), strict=True):
                tile, core, _ = next(q for q in sources if _holds(q[2], c, y0, x0))
                rows = tuple(i for i, a in enumerate(axons) if a.src_tile == tile and _holds(boxes[i], c, y0, x0))
                cell[s, y0:y1, x0:x1] = builder.of(core, axons, rows)
    return _classes(builder, cell)


def _each(
    program: Program,
    layout: Layout,
    axons: list[Axon],
    sources: list[tuple[int, int, tuple[int, ...]]],
    builder: _Builder,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Classes of all somas, [C, H, W]: those with the same axon rows on the same core, of a Sparse where they have a
    synapse at its end."""
    tile, met = np.empty(shape, np.int64), np.zeros((len(axons), *shape), bool)
    for number, (_, _, b) in enumerate(sources):
        tile[b[0] : b[1], b[2] : b[3], b[4] : b[5]] = number
    for hit, a in zip(met, axons, strict=True):
        hit[a.box.c0 : a.box.c1, a.box.y0 : a.box.y1, a.box.x0 : a.box.x1] = True
        hit &= np.array([s[0] == a.src_tile for s in sources])[tile]
        if a.edge.kind == SPARSE:
            box = next(q.box for q in layout.pieces[a.edge.dst] if q.tile == a.tile)
            hit &= cut(program, program.sparses[a.edge.index], box).reaches().reshape(shape)
    keys, of = np.unique(np.concatenate([tile[None], met]).reshape(len(axons) + 1, -1), axis=1, return_inverse=True)
    numbers = [builder.of(sources[k[0]][1], axons, tuple(np.flatnonzero(k[1:]).tolist())) for k in keys.T.tolist()]
    return np.array(numbers)[of.reshape(shape)]


def _classes(builder: _Builder, cell: np.ndarray) -> Classes:
    axon_rows = [r for rows in builder.axons for r in rows]
    flat = cell.reshape(-1)
    start = np.flatnonzero(np.diff(flat, prepend=-1, append=-1))
    return Classes(
        start,
        flat[start[:-1]].astype(np.int64),
        np.array(builder.core, np.int64),
        _starts(builder.axons),
        np.array(axon_rows, np.int64).reshape(-1, 4),
        _starts(builder.links),
        np.array([link for links in builder.links for link in links], np.int64),
        tuple(builder.targets),
    )


class Ledger:
    """What one event of every class of every population adds to the traffic tables.

    classes, plain: by population; plain where every payload is 1.  ``events`` int64: the events of
    all classes in a run, population after population; ``of`` gives one population's part.
    """

    def __init__(self, layout: Layout, classes: dict[int, Classes], plain: dict[int, bool], counters: Counters) -> None:
        self.layout = layout
        self.start = dict(zip(classes, _starts([c.core.tolist() for c in classes.values()]).tolist(), strict=False))
        self.events = np.zeros(sum(len(c.core) for c in classes.values()), np.int64)
        self._parts = {p: self.events[n : n + len(classes[p].core)] for p, n in self.start.items()}
        entries = (
            number
            for population, of in classes.items()
            for k, core in enumerate(of.core.tolist())
            for name, column, factor in self._entries(core, of.targets[k], plain[population])
            for number in (counters.cell(name, population, column), self.start[population] + k, factor)
        )  # cell of the counters' block, class, factor
        self.cell, self.kind, self.factor = np.fromiter(entries, np.int64).reshape(-1, 3).T.copy()

    def of(self, population: int) -> np.ndarray:
        """Events per class of one population, to be filled by a run."""
        return self._parts[population]

    def _entries(self, core: int, targets: tuple[int, ...], plain: bool) -> list[tuple[str, int, int]]:
        """(table, column, factor) of an event emitted on ``core``."""
        found = [("events", core, 1), *([("payload_sum", core, 1)] if plain else [])]
        for target in targets:
            found += self._packet(core, target)
        return found

    def _packet(self, core: int, target: int) -> list[tuple[str, int, int]]:
        if core < 0:
            return [("input_messages", target, 1)]
        if target == core:
            return [("packets_local", core, 1)]
        ew, ns, crossings = self.layout.mesh.distance(core, target)
        sent = [("packets", core, 1), ("hops_ew", core, ew), ("hops_ns", core, ns), ("chip_crossings", core, crossings)]
        return [("packets_in", target, 1), *(e for e in sent if e[2])]

    def book(self, counters: Counters) -> None:
        """Add packets, hops and messages of a run to the tables; the events start again from zero."""
        tally.book(self.events, self.cell, self.kind, self.factor, counters.flat)
        self.clear()

    def clear(self) -> None:
        """Drop all events."""
        self.events[:] = 0
