"""Synapses of all Sparse projections in one pool, and what one event costs each core and link.

Only synapses that an axon row of the mapping reaches get into the pool: what is not mapped does not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nmc_compiler.program.model import Box, Program, Shape, Sparse

from .layout import HOST_TILE, Axon, Layout
from .synapses import box_mask
from .timing import SPARSE, Edge, Timing

CELLS = 1 << 22  # entries of a temporary array at most, whatever the size of the network
SMALL = 127  # largest entry of an int8 table
LARGE = 1 << 26  # entries of a table that is spared where it can be
LANES = 16  # columns of load tables come in so many: few wide additions beat many narrow ones


def channel_last(shape: Shape) -> np.ndarray | None:
    """Canonical index of every position in channel-last order (y, x, c); None where the two orders agree."""
    c, h, w = shape
    if c == 1 or h * w == 1:
        return None
    return np.arange(c * h * w, dtype=np.int64).reshape(shape).transpose(1, 2, 0).reshape(-1)


def inverse(order: np.ndarray | None) -> np.ndarray | None:
    """Channel-last index of every canonical position."""
    return None if order is None else np.argsort(order)


@dataclass(frozen=True)
class Rows:
    """One Sparse, channel-last."""

    indptr: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    extra: np.ndarray | None


@dataclass(frozen=True)
class Pool:
    """Synapses of all Sparses, rows channel-last by source soma, targets channel-last within the dendrite.

    indptr int64 [sum of rows + 1 each], target uint32, weight int8 or int16, extra uint8 or None;
    starts: where each Sparse's rows begin in ``indptr``, ``rows``: in tables of one row per source soma.
    """

    indptr: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    extra: np.ndarray | None
    starts: tuple[int, ...]
    rows: tuple[int, ...]


def _reordered(program: Program, s: Sparse) -> Rows:
    indptr, target, weight, extra = s.indptr, s.target, s.weight, s.extra
    order = channel_last(program.populations[s.src].shape)
    if order is not None:
        counts = np.diff(indptr)[order]
        pick = np.repeat(indptr[:-1][order] - np.cumsum(counts) + counts, counts) + np.arange(len(target))
        indptr = np.concatenate([[0], np.cumsum(counts)])
        target, weight, extra = target[pick], weight[pick], None if extra is None else extra[pick]
    place = inverse(channel_last(program.dendrites[s.dst].shape))
    if place is not None:
        target = place[target]
    if target.dtype == np.int32:
        return Rows(indptr, target.view(np.uint32), weight, extra)  # no copy: targets are not negative
    return Rows(indptr, target.astype(np.uint32), weight, extra)


def make_pool(program: Program, wide: bool) -> Pool:
    """All Sparses behind one another; ``wide``: weights of 16 bits, whether needed or not."""
    parts = [_reordered(program, s) for s in program.sparses]
    late, weight = any(p.extra is not None for p in parts), np.int16 if wide else np.int8
    if len(parts) == 1 and not late:
        only = parts[0]
        return Pool(only.indptr, only.target, only.weight.astype(weight, copy=False), None, (0,), (0,))
    synapses = np.cumsum([0, *(len(p.target) for p in parts)])
    somas = np.cumsum([0, *(len(p.indptr) - 1 for p in parts)]).tolist()
    extras = [np.zeros(len(p.target), np.uint8) if p.extra is None else p.extra for p in parts]
    return Pool(
        _behind(np.int64, [p.indptr + n for p, n in zip(parts, synapses, strict=False)]),
        _behind(np.uint32, [p.target for p in parts]),
        _behind(weight, [p.weight for p in parts]),
        _behind(np.uint8, extras) if late else None,
        tuple(n + i for i, n in enumerate(somas[:-1])),
        tuple(somas[:-1]),
    )


def _behind(dtype: type, parts: list[np.ndarray]) -> np.ndarray:
    """Arrays behind one another."""
    return np.concatenate([np.zeros(0, dtype), *(p.astype(dtype, copy=False) for p in parts)])


def tile_of(program: Program, layout: Layout, dendrite: int, order: np.ndarray | None) -> np.ndarray:
    """Tile that holds each accumulator of a dendrite, int32, channel-last."""
    shape = program.dendrites[dendrite].shape
    found = np.full(shape, -1, np.int32)
    for q in layout.pieces[dendrite]:
        b = q.box
        found[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = q.tile
    flat = found.reshape(-1)
    return flat if order is None else flat[order]


def home_tiles(program: Program, layout: Layout, population: int) -> np.ndarray:
    """Tile of each soma, int32, channel-last; HOST_TILE for an input."""
    p = program.populations[population]
    order = channel_last(p.shape)
    if p.dendrite < 0:
        return np.full(int(np.prod(p.shape)), HOST_TILE, np.int32)
    return tile_of(program, layout, p.dendrite, order)


def core_of_tile(layout: Layout) -> np.ndarray:
    """Core of each tile, int64; 0 for one that holds nothing."""
    held = {q.tile: q.core for pieces in layout.pieces for q in pieces}
    found = np.zeros(max(held, default=-1) + 1, np.int64)
    found[list(held)] = list(held.values())
    return found


class Reach:
    """Which tiles the axon rows of one projection bring the events of each source soma to."""

    def __init__(self, program: Program, layout: Layout, edge: Edge) -> None:
        self.shape = program.populations[edge.src].shape
        self.order = channel_last(self.shape)
        self.homes = home_tiles(program, layout, edge.src)
        self.tiles = len(core_of_tile(layout))
        self.axons: dict[int, list[Axon]] = {}
        for a in layout.axons[edge.src]:
            if (a.edge.kind, a.edge.index) == (edge.kind, edge.index):
                self.axons.setdefault(a.src_tile, []).append(a)

    def rows(self, first: int, stop: int) -> np.ndarray:
        """bool [stop - first, tiles] of source somas ``first`` to ``stop``."""
        found, homes = np.zeros((stop - first, self.tiles), bool), self.homes[first:stop]
        for home in np.unique(homes).tolist():
            at_home = homes == home
            for a in self.axons.get(home, []):
                part = self._part(a.box, first, stop)
                found[part, a.tile] |= at_home[part]
        return found

    def _part(self, box: Box, first: int, stop: int) -> slice | np.ndarray:
        """Rows of ``first`` to ``stop`` inside the box."""
        if self.shape[1:] == (1, 1):
            return slice(max(box.c0 - first, 0), max(min(box.c1, stop) - first, 0))
        mask = box_mask(self.shape, box)
        return np.flatnonzero((mask if self.order is None else mask[self.order])[first:stop])


class Table:
    """int8 [rows, columns and zeros up to a whole number of LANES], or int32 as soon as an entry needs it."""

    def __init__(self, rows: int, columns: int) -> None:
        self.values: np.ndarray = np.zeros((rows, -(-columns // LANES) * LANES), np.int8)

    def put(self, first: int, part: np.ndarray) -> None:
        """Set rows from ``first`` on."""
        if part.max(initial=0) > SMALL and self.values.dtype == np.int8:
            self.values = self.values.astype(np.int32)
        self.values[first : first + len(part), : part.shape[1]] = part


def chunks(indptr: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most about CELLS synapses, and CELLS entries of ``width`` columns."""
    first, rows = 0, len(indptr) - 1
    while first < rows:
        stop = int(np.searchsorted(indptr, indptr[first] + CELLS, side="right")) - 1
        stop = min(max(stop, first + 1), first + max(CELLS // max(width, 1), 1), rows)
        yield first, stop
        first = stop


def by_core(counts: np.ndarray, core: np.ndarray, cores: int) -> np.ndarray:
    """Columns of tiles [rows, tiles] added up by core, int64 [rows, cores]."""
    found = np.zeros((len(counts), cores), np.int64)
    for tile in np.flatnonzero(counts.any(axis=0)).tolist():
        found[:, core[tile]] += counts[:, tile]
    return found


def _one_tile_per_core(layout: Layout, dendrite: int) -> bool:
    cores = [q.core for q in layout.pieces[dendrite]]
    return len(cores) == len(set(cores))


def cost_tables(
    program: Program, layout: Layout, timing: Timing, pool: Pool
) -> tuple[np.ndarray, np.ndarray | None, Pool]:
    """(synapses, entries, pool): what one event of each source soma of each Sparse costs every core.

    int8 or int32 [rows, cores, padded]; entries None: one wherever there are synapses, because no core
    holds two tiles of a target.  Weights of synapses that no axon row reaches are 0 in the pool given
    back: their events never arrive.
    """
    edges, core = [e for e in timing.edges if e.kind == SPARSE], core_of_tile(layout)
    rows = sum(len(s.indptr) - 1 for s in program.sparses)
    # a table less where it would be large; everywhere else one form, because each form is compiled anew
    single = rows * layout.cores > LARGE and all(_one_tile_per_core(layout, e.dst) for e in edges)
    synapses, entries = Table(rows, layout.cores), Table(0 if single else rows, layout.cores)
    weight = pool.weight
    for e, start, row in zip(edges, pool.starts, pool.rows, strict=True):
        indptr, reach = pool.indptr[start : start + len(program.sparses[e.index].indptr)], Reach(program, layout, e)
        held = tile_of(program, layout, e.dst, channel_last(program.dendrites[e.dst].shape))
        for first, stop in chunks(indptr, reach.tiles):
            part, met = slice(indptr[first], indptr[stop]), reach.rows(first, stop)
            source = np.repeat(np.arange(stop - first, dtype=np.int32), np.diff(indptr[first : stop + 1]))
            tile = held[pool.target[part]]
            lost = ~met[source, tile]
            if lost.any():
                weight = weight.copy() if weight is pool.weight else weight
                weight[part][lost] = 0
                source, tile = source[~lost], tile[~lost]
            counts = np.bincount(source * np.int64(reach.tiles) + tile, minlength=met.size).reshape(met.shape)
            synapses.put(row + first, by_core(counts, core, layout.cores))
            if not single:
                entries.put(row + first, by_core(counts > 0, core, layout.cores))
    return synapses.values, None if single else entries.values, replace(pool, weight=weight)
