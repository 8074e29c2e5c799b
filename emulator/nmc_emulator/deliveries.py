"""Tables of what one event of each population brings to each tile: axon reads, SynOps and their time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.program.model import Dynamic, Program

from .fanout import channel_segments, fan
from .kernels.packets import Later, Places, Rows, Synapses, Writes
from .layout import Layout, one_core
from .rates import Rates
from .sites import refuse_samples_sites
from .timing import DYNAMIC, MAP, SPARSE, Edge, Timing, reading_role


@dataclass(frozen=True)
class Deliveries:
    """All tables of a mapped Program; ``widest`` [populations]: most deliveries of one event."""

    places: Places
    rows: Rows
    later: Later
    writes: Writes
    synapses: Synapses
    widest: np.ndarray
    late: int  # most ticks that work is put off


def tile_ranks(program: Program, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """(rank of every tile, core by rank): tiles in order of router x, router y, core, tile."""
    mapping = program.mapping or one_core(program)
    core = mapping.tiles[:, 1].astype(np.int64)
    x, y = layout.mesh.at[core].T
    order = np.lexsort((np.arange(len(core)), core, y, x))
    rank = np.empty(len(core), np.int64)
    rank[order] = np.arange(len(core))
    return rank, core[order].astype(np.int32)


def _concat(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _starts(counts: np.ndarray | list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


class _Cells:
    """Collects (cell, rank, numbers...) entries and turns them into a table in order of (cell, rank)."""

    def __init__(self, fields: int) -> None:
        self.parts: list[np.ndarray] = []
        self.fields = fields

    def add(self, cells: np.ndarray, *fields: np.ndarray | int) -> None:
        if len(cells):
            self.parts.append(np.stack([cells, *(np.broadcast_to(f, cells.shape) for f in fields)]).astype(np.int64))

    def table(self, cells: int) -> list[np.ndarray]:
        """[start, field, ...] over ``cells`` cells; the first field is the rank."""
        rows = np.concatenate(self.parts, axis=1) if self.parts else np.zeros((1 + self.fields, 0), np.int64)
        rows = rows[:, np.lexsort((rows[1], rows[0]))]
        return [_starts(np.bincount(rows[0], minlength=cells)), *rows[1:]]


class _Population:
    """Cells of one population: (segment of channels, y, x); all somas of a cell have equal deliveries."""

    def __init__(self, program: Program, layout: Layout, timing: Timing, index: int) -> None:
        self.program, self.layout, self.index = program, layout, index
        self.edges = [e for e in timing.edges if e.src == index]
        self.plain = [e for e in self.edges if e.kind != SPARSE]
        self.segments = channel_segments(program, layout, index, self.plain)
        _, self.height, self.width = program.populations[index].shape
        self.grid = (len(self.segments) - 1, self.height, self.width)
        self.lags = max((e.lag for e in self.edges), default=0)

    @property
    def cells(self) -> int:
        return int(np.prod(self.grid))

    def part(self, box: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """A box of the population in units of cells; its channels are borders of segments."""
        c0, c1 = np.searchsorted(self.segments, box[:2]).tolist()
        return slice(c0, c1), slice(box[2], box[3]), slice(box[4], box[5])

    def homes(self) -> tuple[np.ndarray, np.ndarray]:
        """(core of every soma, how many of the population its core updates before it), int32 [C*H*W]."""
        q = self.program.populations[self.index]
        core = np.full(q.shape, -1, np.int32)
        for piece in self.layout.pieces[q.dendrite] if q.dendrite >= 0 else ():
            b = piece.box
            core[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = piece.core
        flat = core.reshape(-1)
        order = np.argsort(flat, kind="stable")
        start = _starts(np.bincount(flat + 1))
        before = np.empty(len(flat), np.int32)
        before[order] = np.arange(len(flat)) - start[flat[order] + 1]
        return flat, before

    def source_tiles(self) -> np.ndarray:
        """Tile that holds the somas of each cell, int64 ``grid``; -1 the host."""
        q = self.program.populations[self.index]
        tile = np.full(self.grid, -1, np.int64)
        for piece in self.layout.pieces[q.dendrite] if q.dendrite >= 0 else ():
            tile[self.part(piece.box.as_tuple())] = piece.tile
        return tile

    def works(self, e: Edge) -> bool:
        """Whether the edge's events add to accumulators (a Dynamic's writers do not)."""
        return e.kind != DYNAMIC or e.role == reading_role(self.program.dynamics[e.index].order)


def _price(rates: Rates, e: Edge) -> int:
    if e.kind == DYNAMIC:
        return rates.dyn_read
    return (rates.conv, rates.map)[e.kind][e.index]


def _late(e: Edge) -> int:
    """Ticks that table work is put off: it cannot be done when the packet arrives if that is too early."""
    return e.delay - 1 if e.kind == DYNAMIC else 0


class _Builder:
    def __init__(self, program: Program, layout: Layout, timing: Timing, rates: Rates) -> None:
        self.program, self.layout, self.timing, self.rates = program, layout, timing, rates
        self.rank, self.rank_core = tile_ranks(program, layout)
        self.populations = [_Population(program, layout, timing, i) for i in range(len(program.populations))]
        self.variants = np.array([p.lags + 1 for p in self.populations], np.int64)
        self.cells = np.array([p.cells for p in self.populations], np.int64)
        self.base = _starts(self.cells * self.variants)
        self.rows, self.later, self.writes = _Cells(4), _Cells(4), _Cells(2)
        self.widest = np.zeros(len(self.populations), np.int64)

    # --- Conv, Map, Dynamic ---------------------------------------------------------------------------------

    def population(self, i: int) -> None:
        p, tiles = self.populations[i], self.populations[i].source_tiles()
        axons = [a for a in self.layout.axons[i] if a.edge.kind != SPARSE]
        works = [(e, fan(self.program, self.layout, e, p.segments)) for e in p.plain if p.works(e)]
        reach = {a.tile for a in axons} | {q.tile for e, _ in works for q in self.layout.pieces[e.dst]}
        for tile in sorted(reach):
            reads = np.zeros(p.grid, np.int64)
            for a in axons:
                if a.tile == tile:
                    part = p.part(a.box.as_tuple())
                    reads[part] += tiles[part] == a.src_tile
            for variant in range(p.lags + 1):
                at = int(self.base[i]) + variant * p.cells
                self._tile(p, tile, at, reads, [w for w in works if w[0].lag <= variant])
        for e in p.plain:
            if e.kind == DYNAMIC and e.role == (2 if self.program.dynamics[e.index].order == "kv" else 0):
                self._writer(p, e, int(self.base[i]))
        self.widest[i] = len({int(self.rank_core[self.rank[t]]) for t in reach})

    def _tile(self, p: _Population, tile: int, base: int, reads: np.ndarray, works: list) -> None:
        """Entries of one population at one tile, cells from ``base``."""
        rank, ops, cost = int(self.rank[tile]), np.zeros(p.grid, np.int64), np.zeros(p.grid, np.int64)
        for e, table in works:
            for d, piece in enumerate(self.layout.pieces[e.dst]):
                if piece.tile != tile:
                    continue
                done = table.channels[d][:, None, None] * table.rows[d][:, None] * table.columns[d].astype(np.int64)
                if _late(e):
                    cells = np.flatnonzero(done)
                    n = done.reshape(-1)[cells]
                    self.later.add(base + cells, rank, n, n * _price(self.rates, e), _late(e))
                    continue
                ops += done if e.kind != MAP else 0
                cost += done * _price(self.rates, e)
        cells = np.flatnonzero(reads + ops + cost)
        self.rows.add(base + cells, rank, *(f.reshape(-1)[cells] for f in (reads, ops, cost)))

    def _writer(self, p: _Population, e: Edge, base: int) -> None:
        """Tiles whose table the population's events write; windows with lag play no part here."""
        d = self.program.dynamics[e.index]
        for piece in self.layout.pieces[e.dst]:
            b, held = piece.box, np.zeros(p.grid, bool)
            if d.order == "kv":
                held[np.searchsorted(p.segments, b.c0) : np.searchsorted(p.segments, b.c1)] = True
            else:
                width = self.program.populations[d.v].shape[0] // d.heads
                depth = self.program.populations[d.q].shape[0] // d.heads
                heads = p.segments[:-1] // depth
                inside = (heads >= b.c0 // width) & (heads < -(-b.c1 // width))
                held[inside, b.y0 : b.y1, b.x0 : b.x1] = True
            for variant in range(p.lags + 1):
                self.writes.add(base + variant * p.cells + np.flatnonzero(held), int(self.rank[piece.tile]), e.index)

    # --- Sparse ---------------------------------------------------------------------------------------------

    def synapses(self) -> Synapses:
        """The Sparse projections as they are, with the tile of every accumulator."""
        from numba import types
        from numba.typed import List

        def column(kind: Any, rank: int) -> Any:
            return List.empty_list(types.Array(kind, rank, "C", readonly=True))

        lists = column(types.int64, 1), column(types.int32, 1), column(types.int32, 2)
        edges = sorted((e for e in self.timing.edges if e.kind == SPARSE), key=lambda e: e.src)
        for e in edges:
            s = self.program.sparses[e.index]
            ranks = self._copies(e.dst)
            for to, array in zip(lists, (s.indptr, s.target, ranks), strict=True):
                to.append(_readonly(array))
            most = int(np.diff(s.indptr).max(initial=0)) * len(ranks)
            cores = len({int(self.rank_core[r]) for r in np.unique(ranks) if r >= 0})
            self.widest[e.src] = self.widest[e.src] + min(most, cores)
        self.widest = np.minimum(self.widest, self.layout.cores)
        counts = np.bincount([e.src for e in edges], minlength=len(self.populations)).astype(np.int64)
        lag = np.array([e.lag for e in edges], np.int64)
        return Synapses(_starts(counts), *lists, lag, np.array([self.rates.sparse[e.index] for e in edges], np.int64))

    def _copies(self, dendrite: int) -> np.ndarray:
        """Ranks of the tiles that hold each accumulator, int32 [copies, accumulators]; -1: no more."""
        shape = self.program.dendrites[dendrite].shape
        found = [np.full(shape, -1, np.int32)]
        for piece in self.layout.pieces[dendrite]:
            b = piece.box
            part = np.s_[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1]
            level = next((f for f in found if (f[part] < 0).all()), None)
            if level is None:
                level = np.full(shape, -1, np.int32)
                found.append(level)
            level[part] = self.rank[piece.tile]
        return np.stack([f.reshape(-1) for f in found])

    # --- all together ---------------------------------------------------------------------------------------

    def places(self) -> Places:
        homes = [p.homes() for p in self.populations]
        channels = np.array([q.shape[0] for q in self.program.populations], np.int64)
        segment = [np.repeat(np.arange(len(p.segments) - 1), np.diff(p.segments)) for p in self.populations]
        return Places(
            soma=_starts([len(h[0]) for h in homes]),
            core=_concat([h[0] for h in homes], np.int32),
            order=_concat([h[1] for h in homes], np.int32),
            channel=_starts(channels),
            segment=_concat(segment, np.int32),
            channels=channels,
            area=np.array([p.height * p.width for p in self.populations], np.int64),
            cell=self.base,
            cells=self.cells,
            variants=self.variants,
            rank_core=self.rank_core,
        )

    def write_table(self) -> Writes:
        start, rank, dynamic = self.writes.table(int(self.base[-1]))
        ds: tuple[Dynamic, ...] = self.program.dynamics
        area = [int(np.prod(self.program.dendrites[d.dst].shape[1:])) for d in ds]
        kv = np.array([d.order == "kv" for d in ds], bool)
        heads = np.array([d.heads for d in ds], np.int64)
        keys = [
            d.heads * n if d.order == "kv" else self.program.populations[d.k].shape[0]
            for d, n in zip(ds, area, strict=True)
        ]
        late = np.array([(d.delay_v if d.order == "kv" else d.delay_q) - 1 for d in ds], np.int64)
        cost = np.full(len(ds), self.rates.dyn_write, np.int64)
        return Writes(start, rank, dynamic, kv, heads, late, cost, np.array(keys, np.int64))

    def build(self) -> Deliveries:
        for i, q in enumerate(self.program.populations):
            if q.model != "readout":
                self.population(i)
        synapses, cells = self.synapses(), int(self.base[-1])
        start, rank, reads, ops, cost = self.rows.table(cells)
        rows = Rows(start, rank.astype(np.int32), reads.astype(np.int32), ops.astype(np.int32), cost)
        later, writes = Later(*self.later.table(cells)), self.write_table()
        late = max(int(later.late.max(initial=0)), int(writes.late.max(initial=0)))
        return Deliveries(self.places(), rows, later, writes, synapses, self.widest, late)


def _readonly(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def deliveries(program: Program, layout: Layout, timing: Timing, rates: Rates) -> Deliveries:
    """Tables of what one event brings to each core, priced."""
    refuse_samples_sites(program, "timing packets")
    return _Builder(program, layout, timing, rates).build()
