"""Counters of the layer engine: event counts times tables, taken right after each population."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import Box, Population, Program

from .counters import Counters
from .fanout import Fan, channel_segments, fan
from .kernels import events, tally
from .layout import Layout
from .loads import TickLoads
from .memory import Ref
from .sites import Rulebooks
from .synapses import cut
from .timing import CONV, DYNAMIC, MAP, SPARSE, Edge, Timing, multiplies, reading_role, synaptic_unit
from .traffic import Ledger, classify
from .workspace import Workspace


class Counting:
    """Adds counting steps to a workspace; ``ledger`` turns event counts into traffic after a run."""

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        counters: Counters,
        space: Workspace,
        loads: TickLoads,
        rulebooks: Rulebooks,
    ) -> None:
        self.program, self.layout, self.timing = program, layout, timing
        self.counters, self.space, self.loads = counters, space, loads
        self.rulebooks = rulebooks
        self.segments = {
            i: channel_segments(program, layout, i, self.edges(i))
            for i, p in enumerate(program.populations)
            if p.model != "readout"
        }
        self.classes = {i: classify(program, layout, i, s) for i, s in self.segments.items()}
        self.ledger = Ledger(layout, self.classes, {i: space.plain(i) for i in self.classes}, counters)

    def edges(self, population: int) -> list[Edge]:
        """Everything a population feeds."""
        return [e for e in self.timing.edges if e.src == population]

    def adds(self, e: Edge) -> bool:
        """Whether the edge's events add to accumulators (a Dynamic's writers do not)."""
        return e.kind != DYNAMIC or e.role == reading_role(self.program.dynamics[e.index].order)

    def population(self, i: int, p: Population) -> None:
        """List or count the events of population i; book its traffic and the work it causes."""
        _, h, w = p.shape
        segments, space, window = self.segments[i], self.space, self.space.block.window
        count = space.buffer(("count", i), (space.frames, len(segments) - 1, h * w), np.int32)
        if any(e.kind == CONV and self.program.convs[e.index].groups == 1 for e in self.edges(i)):
            ptr, index, value = space.events(i)
            form = window, space.codes(i), segments, w, ptr, index
            if value is None and not (segments % events.LANES).any():
                space.step(events.list_plain_events, *form, count)
            else:
                space.step(events.list_events, *form, value, count)
        else:
            space.step(events.count_events, window, space.codes(i), segments, count)
        self._traffic(i, p, count)
        for e in self.edges(i):
            if self.adds(e):
                self._work(e, p, count)

    def _traffic(self, i: int, p: Population, count: Ref) -> None:
        classes = self.classes[i]
        space, tables = self.space, self.counters.tables
        hist = np.zeros(len(classes.core), np.int64), self.ledger.of(i)
        runs = classes.start, classes.kind
        axons = classes.axon_start, classes.axons, classes.link_start, classes.links
        loads = space.block.tick, p.level, self.loads.axons, self.loads.links
        reads = tables["axon_reads"], tables["waste_events"]
        window = space.block.window
        space.step(tally.traffic, window, space.T, count, *runs, *hist, *axons, *loads, *reads)
        if not space.plain(i):
            sums = space.buffer(("payload", i), space.shapes[count.key][0], np.int64)
            space.step(events.sum_payloads, window, space.codes(i), self.segments[i], sums)
            space.step(tally.payloads, window, sums, *runs, classes.core, tables["payload_sum"][i])

    def _synapses(self, e: Edge, p: Population, count: Ref) -> None:
        """SynOps of synapses one by one; the segments of their source are its channels."""
        pieces, s = self.layout.pieces[e.dst], self.program.sparses[e.index]
        degree = np.stack([np.diff(cut(self.program, s, q.box).indptr) for q in pieces])
        core = np.array([q.core for q in pieces], np.int64)
        name = "synops_mac" if multiplies(self.program, e) else "synops_ac"
        total = self.counters.tables[name][synaptic_unit(self.program, e)]
        rest = core, p.level + e.delay, e.lag, self.space.block.tick, self.loads.synops, total
        self.space.step(tally.synapses, self.space.block.window, self.space.T, count, degree, *rest)

    def _work(self, e: Edge, p: Population, count: Ref) -> None:
        if e.kind == SPARSE:
            self._synapses(e, p, count)
            return
        table = fan(self.program, self.layout, e, self.segments[e.src])
        if e.kind == CONV:
            self._follow(e, table)
        name = ("synops_mac" if p.payload_bits else "synops_ac", "map_ops", "dyn_reads")[e.kind]
        load = np.zeros((0, 0), np.int64) if e.kind == MAP else self.loads.synops
        factors = table.channels, table.rows, table.columns, table.extent, table.core
        time = p.level + e.delay, e.lag, self.space.block.tick
        window, total = self.space.block.window, self.counters.tables[name][e.index]
        self.space.step(tally.work, window, self.space.T, count, p.shape[2], *factors, *time, load, total)

    def _follow(self, e: Edge, table: Fan) -> None:
        """Where every sample has sites of its own, its fan-out has to be that of the sample at hand."""
        conv = self.program.convs[e.index]
        if conv.sites is None or self.rulebooks.tables.fixed:
            return
        near = self.rulebooks.near[conv.sites]
        for d, piece in enumerate(self.layout.pieces[e.dst]):
            part = near if conv.collapse else near[piece.box.y0 : piece.box.y1]
            self.rulebooks.follow(table.rows[d], part)
            table.extent[d] = 0, table.rows.shape[1], 0, 1

    def writes(self, e: Edge) -> None:
        """Table writes of a dynamic synapse; ``e`` its reading edge."""
        d, space = self.program.dynamics[e.index], self.space
        pieces = self.layout.pieces[d.dst]
        core = np.array([q.core for q in pieces], np.int64)
        rest = core, space.block.tick, e.arrival - 1, self.loads.synops, self.counters.tables["dyn_writes"][e.index]
        boxes = [q.box for q in pieces]
        if d.order == "qk":
            codes = space.codes(d.q), space.codes(d.k)
            held = self._held(e, boxes)
            space.step(tally.table_writes_qk, space.block.window, *codes, d.heads, *held, *rest)
            return
        k, v = self.segments[d.k][:-1], self.segments[d.v][:-1]
        heads = (
            k * d.heads // self.program.populations[d.k].shape[0],
            v * d.heads // self.program.populations[d.v].shape[0],
        )
        columns = np.array([(v >= b.c0) & (v < b.c1) for b in boxes], np.int64)
        counts = Ref(("count", d.k)), Ref(("count", d.v))
        space.step(tally.table_writes_kv, space.block.window, *counts, *heads, columns, *rest)

    def _held(self, e: Edge, boxes: list[Box]) -> tuple[np.ndarray, np.ndarray]:
        """Heads [D, heads] and tokens [D, N] that each tile holds (order "qk")."""
        d = self.program.dynamics[e.index]
        channels, height, width = self.program.dendrites[d.dst].shape
        heads = np.zeros((len(boxes), d.heads), np.int64)
        tokens = np.zeros((len(boxes), height, width), np.int64)
        for i, b in enumerate(boxes):
            heads[i, b.c0 * d.heads // channels : -(-b.c1 * d.heads // channels)] = 1
            tokens[i, b.y0 : b.y1, b.x0 : b.x1] = 1
        return heads, tokens.reshape(len(boxes), -1)
