"""A Program as the flat tables of the event engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Population, Program

from .bounds import INT32, Bounds
from .cells import cell_tables
from .kernels import stream_tables as tables
from .kernels.cell import FORM, PARTS
from .kernels.soma import NARROW_BIAS, UNWRAPPED
from .layout import Layout
from .memory import require
from .plan import conv_form
from .statics import updates_per_core
from .stream_synapses import (
    Reach,
    Table,
    channel_last,
    chunks,
    core_of_tile,
    cost_tables,
    home_tiles,
    inverse,
    make_pool,
)
from .suits import why_not_events
from .timing import CONV, SPARSE, Edge, Timing
from .trace import coded

FORM_NAMES = list(tables.FORM.fields or ())[:19]  # in the order of ``pack_geometry``, then of ``Window``
TABLE = 1 << 26  # bytes that the table of packets over links may take


@dataclass(frozen=True)
class StreamPlan:
    """Tables of one Program.

    orders: per population the canonical index of each channel-last soma, places: the reverse; None
    where the two agree.  rows: where the load tables' rows of each Sparse start.
    """

    program: Program
    layout: Layout
    timing: Timing
    net: tables.Net
    slots: int  # ticks that events may be under way
    accumulators: tuple[int, type]  # number and type
    sizes: tuple[int, int, int, int]  # somas with u, with sigma-delta state, with state in real numbers; state of cells
    orders: tuple[np.ndarray | None, ...]
    places: tuple[np.ndarray | None, ...]
    coded: tuple[bool, ...]  # populations whose events carry codes
    edges: tuple[Edge, ...]
    rows: tuple[int, ...]

    def targets(self, population: int, first: int, stop: int) -> np.ndarray:
        """bool [stop - first, cores]: cores that an event of each soma, channel-last, goes to."""
        return targets(self.program, self.layout, self.timing, population, self.net.synapses, self.rows, first, stop)


def targets(
    program: Program,
    layout: Layout,
    timing: Timing,
    population: int,
    synapses: np.ndarray,
    rows: tuple[int, ...],
    first: int,
    stop: int,
) -> np.ndarray:
    """See ``StreamPlan.targets``."""
    core, found = core_of_tile(layout), np.zeros((stop - first, layout.cores), bool)
    for e in timing.edges:
        if e.src != population:
            continue
        if e.kind == SPARSE:
            found |= synapses[rows[e.index] + first : rows[e.index] + stop, : layout.cores] > 0
        else:
            for tile, met in enumerate(Reach(program, layout, e).rows(first, stop).T):
                found[:, core[tile]] |= met
    return found


def _per_soma(p: Population, values: np.ndarray | None, scale: int = 1) -> np.ndarray:
    """Per-channel values for every soma, channel-last, int32."""
    c, h, w = p.shape
    found = np.zeros(c, np.int64) if values is None else np.broadcast_to(values.astype(np.int64) * scale, (c,))
    return np.tile(found, h * w).astype(np.int32)


def _start(p: Population, values: np.ndarray | None) -> np.ndarray:
    if values is None:
        return np.zeros(int(np.prod(p.shape)), np.int32)
    return values.astype(np.int32).reshape(p.shape).transpose(1, 2, 0).reshape(-1)


def _kind(p: Population, bounds: Bounds, real: bool) -> int:
    if p.model == "input":
        return tables.INPUT
    if p.model in ("relay", "readout"):
        return tables.RELAY if p.model == "relay" else tables.READOUT
    if p.model in ("sigma_delta", "cell"):
        return tables.SIGMA_DELTA if p.model == "sigma_delta" else tables.CELL
    if real:
        return tables.LIF_REAL
    bias = np.abs(p.bias.astype(np.int64)).max(initial=0) if p.bias is not None else 0
    narrow = bounds.accumulator[p.dendrite] < UNWRAPPED and bias < NARROW_BIAS
    if not narrow or p.du != 4095 or p.vth_low is not None or p.start_u is not None:
        return tables.LIF_FULL
    uniform = all(a is None or len(np.unique(a)) == 1 for a in (p.bias, p.vth))
    return tables.LIF_UNIFORM if uniform else tables.LIF


def _same_type(
    synapses: np.ndarray, entries: np.ndarray | None, crossed: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """All load tables in int8, or all in int32."""
    tables = [synapses, crossed, *([] if entries is None else [entries])]
    dtype = np.int8 if all(t.dtype == np.int8 for t in tables) else np.int32
    kept = None if entries is None else entries.astype(dtype, copy=False)
    return synapses.astype(dtype, copy=False), kept, crossed.astype(dtype, copy=False)


class Planner:
    """Builds the tables of one Program."""

    def __init__(
        self, program: Program, layout: Layout, timing: Timing, bounds: Bounds, recorded: list[int], real: bool
    ) -> None:
        reason = why_not_events(program)
        if reason is not None:
            raise UsageError(
                f"Program '{program.name}' has {reason}, which the engine 'events' does not run; choose 'layers'"
            )
        self.program, self.layout, self.timing, self.bounds = program, layout, timing, bounds
        self.slots = max([1, *(e.delay for e in timing.edges)])
        self.sizes = [int(np.prod(p.shape)) for p in program.populations]
        self._require_memory()
        self.orders = tuple(channel_last(p.shape) for p in program.populations)
        self.coded = tuple(map(coded, program.populations))
        self.wide = self.deep = self.floating = self.celled = 0
        self.real = real
        self.pops = self._populations(recorded)
        self.dends = self._dendrites()

    def _require_memory(self) -> None:
        """UsageError for more events under way than the machine can hold, soma by soma and tick by tick."""
        somas = sum(self.sizes), sum(n for n, p in zip(self.sizes, self.program.populations, strict=True) if coded(p))
        require(
            self.slots * (4 * sum(somas) + 8 * len(self.sizes)),
            f"Program '{self.program.name}': events under way, of {somas[0]} somas for up to {self.slots} ticks,",
            "shorten its longest delay, or choose the engine 'ticks'",
        )

    def plan(self) -> StreamPlan:
        """The plan."""
        program = self.program
        # few combinations of types, because each is compiled anew: a network is narrow or wide throughout
        wide = max(self.bounds.accumulator, default=0) > INT32 or any(
            s.weight.dtype != np.int8 for s in program.sparses
        )
        pool = make_pool(program, wide)
        synapses, entries, pool = cost_tables(program, self.layout, self.timing, pool)
        populations, crossed = program.populations, np.zeros((sum(self.sizes), 0), np.int8)
        routed = self._by_core() and crossed.shape[0] * self.layout.mesh.links > TABLE
        if self.layout.mapped and not routed:
            crossed = self._crossed(synapses, pool.rows)
        if routed:
            self.pops["fan"] = [next((pool.rows[e.index] for e in self._fed(i)), -1) for i in range(len(populations))]
        synapses, entries, crossed = _same_type(synapses, entries, crossed)
        path_start, paths = self._all_paths() if routed else (np.zeros(1, np.int32), np.zeros(0, np.int32))
        net = tables.Net(
            pops=self.pops,
            dends=self.dends,
            edges=self._edges(pool.starts, pool.rows),
            moves=self._moves(),
            clock=self._clock(),
            bias=np.concatenate([_per_soma(p, p.bias) for p in populations]),
            theta=np.concatenate([_per_soma(p, p.vth, 64 if p.model == "lif" else 1) for p in populations]),
            low=np.concatenate([_per_soma(p, p.vth_low, 64) for p in populations]),
            start_u=self._starts("start_u"),
            start_v=self._starts("start_v"),
            indptr=pool.indptr,
            target=pool.target,
            weight=pool.weight,
            extra=pool.extra,
            taps=np.concatenate([np.zeros(0, np.int8), *(c.weight.reshape(-1) for c in program.convs)]),
            forms=self._forms(),
            axons=self._axons(),
            synapses=synapses,
            entries=entries,
            crossed=crossed,
            home=self._home() if routed else np.zeros(0, np.int16),
            path_start=path_start,
            paths=paths,
            homes=np.array([updates_per_core(program, self.layout, i) for i in range(len(populations))], np.int32),
            **self._cells(),
        )
        accumulators = int(sum(d["length"] * d["ring"] for d in self.dends))
        return StreamPlan(
            program=program,
            layout=self.layout,
            timing=self.timing,
            net=net,
            slots=self.slots,
            accumulators=(accumulators, np.int64 if wide else np.int32),
            sizes=(self.wide, self.deep, self.floating, self.celled),
            orders=self.orders,
            places=tuple(map(inverse, self.orders)),
            coded=self.coded,
            edges=self.timing.edges,
            rows=pool.rows,
        )

    def _cells(self) -> dict[str, np.ndarray]:
        """Tables of all cells; ``pops`` learn their rows."""
        sizes: list[tuple[int, ...]] = []
        forms, pool, at = [np.zeros((0, FORM), np.int64)], [np.zeros(0, np.int64)], 0
        for i, p in enumerate(self.program.populations):
            if p.model != "cell":
                continue
            self.pops[i]["cell"] = len(sizes)
            found = cell_tables(p)
            sizes.append((p.shape[0], len(found.thresholds), len(found.values), at, at + found.values.size))
            forms.append(found.form[None])
            pool += [found.values.reshape(-1), found.thresholds.reshape(-1)]
            at += found.values.size + found.thresholds.size
        return {
            "cells": np.array(sizes, tables.CELL_SIZES),
            "forms_of_cells": np.concatenate(forms),
            "cell_pool": np.concatenate(pool),
        }

    def _clock(self) -> np.ndarray:
        p, found = self.program, np.zeros(1, tables.CLOCK)
        stream = p.timesteps == 0
        found["timesteps"] = tables.ENDLESS if stream else p.timesteps
        found["ticks"] = p.ticks_per_step
        found["interval"] = tables.ENDLESS if stream else p.interval
        found["samples"] = 1
        return found

    def _populations(self, recorded: list[int]) -> np.ndarray:
        found = np.zeros(len(self.sizes), tables.POP)
        soma = event = coded = 0
        for i, (p, size, row) in enumerate(zip(self.program.populations, self.sizes, found, strict=True)):
            row["kind"], row["size"], row["soma"], row["event"] = _kind(p, self.bounds, self.real), size, soma, event
            row["dendrite"], row["level"], row["recorded"] = p.dendrite, p.level, i in recorded
            row["coded"] = coded if self.coded[i] else tables.NOWHERE
            row["leak_v"], row["leak_u"] = 4096 - p.dv, 4096 - p.du - 1
            row["ternary"], row["relu"], row["cumulative"] = p.vth_low is not None, p.relu, p.cumulative
            row["out_shift"], row["state"] = p.out_shift, self._state_of(int(row["kind"]), size)
            row["rule"] = self.program.current_rule or 0
            if p.restart is not None:
                row["every"], row["phase"] = p.restart[0], p.restart[1] % p.restart[0]
            soma, event = soma + size, event + size * self.slots
            coded += size * self.slots if self.coded[i] else 0
        return found

    def _state_of(self, kind: int, size: int) -> int:
        """Room for u, for the state of sigma-delta somas, or for real numbers."""
        if kind == tables.LIF_FULL:
            self.wide += size
            return self.wide - size
        if kind == tables.LIF_REAL:
            self.floating += size
            return self.floating - size
        if kind == tables.CELL:
            self.celled += PARTS * size
            return self.celled - PARTS * size
        if kind == tables.SIGMA_DELTA:
            self.deep += size
            return self.deep - size
        return tables.NOWHERE

    def _dendrites(self) -> np.ndarray:
        found, first = np.zeros(len(self.program.dendrites), tables.DEND), 0
        for d, last, row in zip(self.program.dendrites, self.timing.last_read, found, strict=True):
            size = int(np.prod(d.shape))
            row["first"], row["length"], row["ring"], row["last"] = first, size, d.ring, last
            first += size * d.ring
        return found

    def _edges(self, starts: tuple[int, ...], rows: tuple[int, ...]) -> np.ndarray:
        found = np.zeros(len(self.timing.edges), tables.EDGE)
        taps = np.cumsum([0, *(c.weight.size for c in self.program.convs)])
        axons = np.cumsum([0, *(len(self._rows_of(e)) for e in self.timing.edges)])
        for n, (e, row) in enumerate(zip(self.timing.edges, found, strict=True)):
            row["source"], row["target"], row["delay"], row["lag"] = e.src, e.dst, e.delay, e.lag
            row["convolved"] = e.kind == CONV
            if e.kind == CONV:
                row["gain"], row["graded"] = 1 << self.program.convs[e.index].shift, 1
                row["taps"], row["form"], row["axons"], row["axons_end"] = (
                    taps[e.index],
                    e.index,
                    axons[n],
                    axons[n + 1],
                )
            else:
                s = self.program.sparses[e.index]
                row["gain"], row["graded"] = 1 << s.shift, s.graded
                row["row"], row["indptr"] = rows[e.index], starts[e.index]
        return found

    def _moves(self) -> np.ndarray:
        found = np.zeros(len(self.program.transfers), tables.MOVE)
        for t, row in zip(sorted(self.program.transfers, key=lambda t: t.level), found, strict=True):
            row["src"], row["dst"], row["level"], row["rshift"] = t.src, t.dst, t.level, t.rshift
        return found

    def _forms(self) -> np.ndarray:
        found = np.zeros(len(self.program.convs), tables.FORM)
        for c, row in zip(self.program.convs, found, strict=True):
            geometry, slices = conv_form(c, self.program.populations[c.src].shape, 0, 0)
            row["groups"], row["outs"] = c.groups, c.weight.shape[3]
            for name, value in zip(FORM_NAMES, (*geometry[:13].tolist(), *(slices or [0] * 6)), strict=True):
                row[name] = value
        return found

    def _rows_of(self, e: Edge) -> list:
        """Axon rows of a Conv."""
        if e.kind != CONV:
            return []
        return [a for a in self.layout.axons[e.src] if (a.edge.kind, a.edge.index) == (CONV, e.index)]

    def _axons(self) -> np.ndarray:
        rows = []
        for e in self.timing.edges:
            held = {q.tile: q for q in self.layout.pieces[e.dst]}
            rows += [(a.core, *a.box.as_tuple(), *held[a.tile].box.as_tuple()) for a in self._rows_of(e)]
        return np.array(rows, tables.AXON)

    def _starts(self, name: str) -> np.ndarray:
        """Start values of all somas; empty where no population has any."""
        populations = self.program.populations
        if all(getattr(p, name) is None for p in populations):
            return np.zeros(0, np.int32)
        return np.concatenate([_start(p, getattr(p, name)) for p in populations])

    # -- traffic ---------------------------------------------------------------------------------

    def _fed(self, population: int) -> list[Edge]:
        return [e for e in self.timing.edges if e.src == population]

    def _by_core(self) -> bool:
        """Whether the synapses table of one Sparse says where all events of a population go."""
        fed = [self._fed(i) for i, p in enumerate(self.program.populations) if p.dendrite >= 0]
        return self.layout.mapped and all(len(edges) <= 1 and all(e.kind == SPARSE for e in edges) for edges in fed)

    def _home(self) -> np.ndarray:
        """Core of every soma, int16; -1 for the host."""
        core = np.append(core_of_tile(self.layout), -1)
        tiles = [home_tiles(self.program, self.layout, i) for i in range(len(self.sizes))]
        return np.concatenate([core[t] for t in tiles]).astype(np.int16)

    def _all_paths(self) -> tuple[np.ndarray, np.ndarray]:
        """Links from every core to every core, row by row."""
        cores, mesh = range(self.layout.cores), self.layout.mesh
        lists = [list(mesh.path(c, d)) for c in cores for d in cores]
        flat = [link for links in lists for link in links]
        return np.cumsum([0, *map(len, lists)]).astype(np.int32), np.array(flat, np.int32)

    def _crossed(self, synapses: np.ndarray, rows: tuple[int, ...]) -> np.ndarray:
        """Packets of one event of each soma over each link."""
        mesh, layout = self.layout.mesh, self.layout
        table, core = Table(sum(self.sizes), mesh.links), core_of_tile(layout)
        paths: dict[int, np.ndarray] = {}
        for i, p in enumerate(self.program.populations):
            if p.dendrite < 0:
                continue
            homes, soma = core[home_tiles(self.program, layout, i)], int(self.pops[i]["soma"])
            for first, stop in chunks(np.arange(self.sizes[i] + 1), mesh.links + layout.cores):
                met = targets(self.program, layout, self.timing, i, synapses, rows, first, stop).astype(np.float32)
                part = np.zeros((stop - first, mesh.links), np.float32)
                for c in np.unique(homes[first:stop]).tolist():
                    paths.setdefault(c, self._paths(c))
                    here = homes[first:stop] == c
                    part[here] = met[here] @ paths[c]
                table.put(soma + first, part.astype(np.int32))
        return table.values

    def _paths(self, core: int) -> np.ndarray:
        """float32 [cores, links]: 1 where the packet from ``core`` crosses the link."""
        found = np.zeros((self.layout.cores, self.layout.mesh.links), np.float32)
        for c in range(self.layout.cores):
            found[c, list(self.layout.mesh.path(core, c))] = 1
        return found
