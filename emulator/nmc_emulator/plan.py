"""The layer engine's plan: a Program as a list of kernel calls sorted by level.

Within a level the order is that of a tick: arrivals, then transfers, then somas. Every step works
on all frames of ``Block.window``; counters are taken from event counts right after each population.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.program.model import Conv, HostCodes, HostCurrent, Map, Population, Program, Transfer

from .bounds import INT32, Bounds
from .counters import OVERFLOW, Counters
from .fanout import Fan, channel_segments, fan
from .host import Host
from .kernels import conv as convs
from .kernels import dynamic as dynamics
from .kernels import events, maps, soma, tally, transfers
from .layout import Layout
from .loads import TickLoads
from .memory import Ref, Step
from .timing import CONV, DYNAMIC, MAP, Edge, Timing, reading_role
from .traffic import Classes, book, classify

BLOCK = 1024  # soma parameters are repeated to about this many entries


@dataclass
class Block:
    """The samples being computed: numbers that change from block to block."""

    window: np.ndarray  # int64 [2] frames to work on
    tick: np.ndarray  # int64 [F] tick of level 0, counted from the start of the block's first sample
    images: np.ndarray = field(default_factory=lambda: np.empty(0))  # [samples, T or 1, C, H, W]
    first: int = 0  # index of the first sample

    def spread(self, target: np.ndarray, sample: int, values: np.ndarray, steps: int, add: bool) -> None:
        """Write (or add) values [T or 1, ...] into the frames of one sample that are in the window."""
        for f in range(max(sample * steps, self.window[0]), min((sample + 1) * steps, self.window[1])):
            value = values[f % steps if len(values) > 1 else 0]
            if add:
                target[f] += value
            else:
                target[f] = value


def _zero(window: np.ndarray, array: np.ndarray) -> None:
    array[window[0] : window[1]] = 0


def _positions(shape: tuple[int, int, int]) -> int:
    return shape[1] * shape[2]


class Planner:
    """Builds the steps of one Program; ``steps``, ``shapes`` and the totals are its result."""

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        bounds: Bounds,
        counters: Counters,
        batch: int,
        samples: int,
        recorded: list[int],
    ) -> None:
        self.program, self.layout, self.timing, self.bounds = program, layout, timing, bounds
        self.counters, self.host = counters, Host(program)
        self.codes = {
            i: np.zeros((samples, program.timesteps, *program.populations[i].shape), self.code_type(i))
            for i in recorded
        }
        self.steps: list[Step] = []
        self.shapes: dict[Hashable, tuple[tuple[int, ...], type]] = {}
        self.T, self.frames = program.timesteps, batch * program.timesteps
        ticks = (batch - 1) * program.interval + timing.span
        self.loads = TickLoads(ticks, layout.cores, layout.mesh.links)
        tick = np.array(
            [b * program.interval + t * program.ticks_per_step for b in range(batch) for t in range(self.T)], np.int64
        )
        self.block = Block(np.array([0, self.frames], np.int64), tick)
        self.out = np.zeros((batch, self._classes()), np.int64)
        self.work: list[tuple[str, int, np.ndarray, np.ndarray]] = []  # table, row, core [D], total [D]
        self.events: list[tuple[int, Classes, np.ndarray]] = []
        self.started: set[int] = set()  # dendrites already zeroed
        self.segments: dict[int, np.ndarray] = {}
        self.overflow = np.zeros((len(program.populations), len(OVERFLOW)), np.int64)
        self.sent: dict[int, tuple[int, np.ndarray, int]] = {}  # host current -> sample, result, MACs
        self._build()

    def _classes(self) -> int:
        found = [p.shape[0] * _positions(p.shape) for p in self.program.populations if p.model == "readout"]
        return found[0] if found else 0

    # -- buffers ---------------------------------------------------------------------------------

    def _buffer(self, key: Hashable, shape: tuple[int, ...], dtype: type) -> Ref:
        self.shapes[key] = (shape, dtype)
        return Ref(key)

    def code_type(self, population: int) -> type:
        """uint8 where codes are 0..255, else int32 or, for relays that could need it, int64."""
        bound, p = self.bounds.code[population], self.program.populations[population]
        low = [h.lo for h in self.program.host_codes if h.population == population]
        if p.model == "relay" or bound > 255 or min(low, default=0) < 0:
            return np.int32 if bound <= INT32 else np.int64
        return np.uint8

    def _codes(self, p: int) -> Ref:
        c, h, w = self.program.populations[p].shape
        return self._buffer(("codes", p), (self.frames, h * w, c), self.code_type(p))

    def _acc(self, d: int) -> Ref:
        c, h, w = self.program.dendrites[d].shape
        dtype = np.int32 if self.bounds.accumulator[d] <= INT32 else np.int64
        ref = self._buffer(("acc", d), (self.frames, h * w, c), dtype)
        if d not in self.started:
            self.started.add(d)
            self._step(_zero, self.block.window, ref)
        return ref

    def _flat(self, ref: Ref) -> Ref:
        """The same buffer as [F, P * C]."""
        return Ref(ref.key, flat=True)

    def _step(self, call: Any, *args: Any) -> None:
        self.steps.append(Step(call, args))

    # -- schedule --------------------------------------------------------------------------------

    def _build(self) -> None:
        p, jobs = self.program, []
        for i, h in enumerate(p.host_currents):
            jobs.append((h.level, 1, 0, i, lambda i=i, h=h: self._host_current(i, h)))
        for e in self.timing.edges:
            if e.kind != DYNAMIC or e.role == reading_role(p.dynamics[e.index].order):
                add = (self._conv, self._map, self._dynamic)[e.kind]
                jobs.append((e.arrival, 1, 1 + e.kind, e.index, lambda add=add, e=e: add(e)))
        for i, t in enumerate(p.transfers):
            jobs.append((t.level, 2, 0, i, lambda t=t: self._transfer(t)))
        for i, q in enumerate(p.populations):
            jobs.append((q.level, 3, 0, i, lambda i=i, q=q: self._population(i, q)))
        for *_, job in sorted(jobs, key=lambda j: j[:4]):
            job()

    def _host_current(self, i: int, h: HostCurrent) -> None:
        pieces = [(q.core, q.box) for q in self.layout.pieces[h.dst]]
        messages = self.counters.tables["current_messages"][i]
        macs = self.counters.tables["host_macs"][i]

        def add(acc: np.ndarray) -> None:
            block = self.block
            for b in range(len(block.images)):
                y, done = self._current(i, b)
                repeats = 1 if len(y) == self.T else self.T
                block.spread(acc, b, y.reshape(len(y), -1, y.shape[3]), self.T, add=True)
                if block.window[0] > b * self.T:  # a later timestep of a sample that is already counted
                    continue
                macs[-1] += done
                for core, x in pieces:
                    part = y[:, x.y0 : x.y1, x.x0 : x.x1, x.c0 : x.c1]
                    messages[core] += np.count_nonzero(part) * repeats

        self._step(add, self._acc(h.dst))

    def _current(self, i: int, b: int) -> tuple[np.ndarray, int]:
        """Host current i of sample b of the block; kept for the sample's later timesteps."""
        index = self.block.first + b
        if i not in self.sent or self.sent[i][0] != index:
            self.sent[i] = (index, *self.host.current(i, self.block.images[b], index))
        return self.sent[i][1:]

    # -- arrivals --------------------------------------------------------------------------------

    def _source(self, e: Edge) -> tuple[int, int, int]:
        return self.program.populations[e.src].shape

    def _conv(self, e: Edge) -> None:
        c, shape = self.program.convs[e.index], self._source(e)
        kh, kw, ins, outs = c.weight.shape
        mode = self._conv_mode(e.src)
        geometry = convs.pack_geometry(
            shape, c.out_hw, (kh, kw), c.stride, c.pad, c.dilation, c.shift, e.lag, self.T, mode
        )
        acc, window = self._acc(e.dst), self.block.window
        if c.groups > 1 and ins == 1 and outs == c.groups:
            weight = np.ascontiguousarray(c.weight.reshape(kh * kw, outs))
            sums = np.zeros(outs, self._sum_type(e.index))
            self._step(convs.conv_depthwise, window, self._codes(e.src), weight, acc, geometry, c.collapse, sums)
        elif c.groups > 1:
            weight = np.ascontiguousarray(c.weight.reshape(kh * kw, ins, outs))
            self._step(
                convs.conv_grouped, window, self._codes(e.src), weight, acc, geometry, c.collapse, c.groups
            )
        else:
            self._conv_events(e, c, acc, geometry)

    def _conv_events(self, e: Edge, c: Conv, acc: Ref, geometry: np.ndarray) -> None:
        kh, kw, ins, outs = c.weight.shape
        weight = np.ascontiguousarray(c.weight.reshape(kh * kw * ins, outs))
        ptr, index, value = self._event_buffers(e.src)
        rows = np.zeros(kh * kw * ins, np.int64)
        gains = np.zeros(kh * kw * ins, self.shapes[value.key][1])
        sums = np.zeros(outs, self._sum_type(e.index))
        self._step(
            convs.conv, self.block.window, ptr, index, value, weight, acc, geometry, c.collapse, rows, gains, sums
        )

    def _sum_type(self, index: int) -> type:
        return np.int32 if self.bounds.conv[index] <= INT32 else np.int64

    def _conv_mode(self, src: int) -> int:
        bound = self.bounds.code[src]
        if bound > convs.SMALL_CODE:
            return convs.WIDE
        return convs.PLAIN if self._plain(src) else convs.SMALL

    def _plain(self, src: int) -> bool:
        """Every event has code 1."""
        return self.code_type(src) is np.uint8 and self.bounds.code[src] <= 1

    def _map(self, e: Edge) -> None:
        m = self.program.maps[e.index]
        acc, codes, window = self._acc(e.dst), self._codes(e.src), self.block.window
        if m.mode == "window":
            self._step(maps.map_window, window, codes, acc, self._window_geometry(e, m))
            return
        call = {"same": maps.map_same, "reduce": maps.map_reduce, "broadcast": maps.map_broadcast}[m.mode]
        if m.mode == "same":
            acc, codes = self._flat(acc), self._flat(codes)
        self._step(call, window, codes, acc, 1 << m.shift, e.lag, self.T)

    def _window_geometry(self, e: Edge, m: Map) -> np.ndarray:
        grid = self.program.dendrites[e.dst].shape[1:]
        return convs.pack_geometry(
            self._source(e), grid, m.kernel, m.stride, m.pad, (1, 1), m.shift, e.lag, self.T, 0
        )

    def _dynamic(self, e: Edge) -> None:
        d = self.program.dynamics[e.index]
        (channels, h, w), values = self.program.populations[d.q].shape, self.program.populations[d.v].shape[0]
        size = (channels // d.heads, values // d.heads) if d.order == "kv" else (h * w, h * w)
        bound = h * w * channels * self.bounds.code[d.q] * self.bounds.code[d.k] * self.bounds.code[d.v]
        dtype = np.int32 if bound <= INT32 else np.int64
        call = dynamics.dynamic_kv if d.order == "kv" else dynamics.dynamic_qk
        codes = [self._codes(p) for p in (d.q, d.k, d.v)]
        table, row = np.zeros(size, dtype), np.zeros(size[1], dtype)
        acc = self._acc(e.dst)
        self._step(call, self.block.window, *codes, acc, d.heads, d.shift, d.saturate, table, row)
        self._count_writes(e)

    def _transfer(self, t: Transfer) -> None:
        src, dst = self._acc(t.src), self._acc(t.dst)
        shape = self.program.dendrites[t.src].shape
        if t.mode == "sum":
            total = np.zeros(shape[0], np.int64)
            self._step(transfers.sum_positions, self.block.window, src, dst, total, t.rshift)
            return
        grid = self.program.dendrites[t.dst].shape[1:]
        geometry = convs.pack_geometry(shape, grid, t.kernel, t.stride, t.pad, (1, 1), 0, 0, self.T, 0)
        best = np.zeros(shape[0], self.shapes[src.key][1])
        self._step(transfers.max_pool, self.block.window, src, dst, geometry, best, t.rshift)

    # -- somas -----------------------------------------------------------------------------------

    def _population(self, i: int, p: Population) -> None:
        if p.model == "input":
            self._input(i, next(h for h in self.program.host_codes if h.population == i))
        else:
            self._soma(i, p)
        if p.model != "readout":
            self._record(i)
            self._list_events(i)
            self._count(i, p)

    def _input(self, i: int, spec: HostCodes) -> None:
        def write(codes: np.ndarray) -> None:
            block = self.block
            for b, image in enumerate(block.images):
                values = self.host.codes(spec, image, block.first + b)
                rows = values.transpose(0, 2, 3, 1).reshape(len(values), -1, values.shape[1])
                block.spread(codes, b, rows, self.T, add=False)

        self._step(write, self._codes(i))

    def _soma(self, i: int, p: Population) -> None:
        window, over = self.block.window, self.overflow[i]
        acc = self._flat(self._acc(p.dendrite))
        n = p.shape[0] * _positions(p.shape)
        bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
        narrow = self.bounds.accumulator[p.dendrite] <= soma.NARROW and np.abs(bias).max(initial=0) < soma.NARROW_BIAS
        if p.model == "relay":
            self._step(soma.relay, window, acc, self._flat(self._codes(i)), over)
        elif p.model == "readout":
            v = self._buffer(("v", i), (n,), np.int64)
            self._step(soma.readout, window, self.T, acc, v, self.out, _tiled(bias, n, np.int64), over)
        elif p.model == "lif":
            theta = p.vth.astype(np.int64) << 6  # type: ignore[union-attr]
            narrow = narrow and np.abs(theta).max(initial=0) < soma.NARROW_BIAS
            dtype: type = np.int32 if narrow else np.int64
            call, v = (soma.lif if narrow else soma.lif_wide), self._buffer(("v", i), (n,), dtype)
            constants = _tiled(bias, n, dtype), _tiled(theta, n, dtype), p.dv
            self._step(call, window, self.T, acc, v, self._flat(self._codes(i)), *constants, over)
        else:
            self._levels(i, p, acc, bias, n, narrow, over)

    def _levels(self, i: int, p: Population, acc: Ref, bias: np.ndarray, n: int, narrow: bool, over: Any) -> None:
        table = np.broadcast_to(p.thresholds.T, (p.thresholds.shape[1], p.shape[0]))  # type: ignore[union-attr]
        dtype: type = np.int32 if narrow else np.int64
        rows = np.stack([_tiled(row, n, dtype) for row in table])
        constants = _tiled(bias, n, dtype), rows
        codes, window = self._flat(self._codes(i)), self.block.window
        if narrow:
            scratch = np.zeros(rows.shape[1], np.int32)
            self._step(soma.levels, window, acc, codes, *constants, scratch, over)
        else:
            self._step(soma.levels_wide, window, acc, codes, *constants, over)

    def _record(self, i: int) -> None:
        if i not in self.codes:
            return
        target, (c, h, w) = self.codes[i], self.program.populations[i].shape

        def copy(codes: np.ndarray) -> None:
            block = self.block
            for f in range(block.window[0], block.window[1]):
                target[block.first + f // self.T, f % self.T] = codes[f].T.reshape(c, h, w)

        self._step(copy, self._codes(i))

    # -- counters --------------------------------------------------------------------------------

    def _edges(self, i: int) -> list[Edge]:
        return [e for e in self.timing.edges if e.src == i]

    def _event_buffers(self, i: int) -> tuple[Ref, Ref, Ref]:
        c, h, w = self.program.populations[i].shape
        ptr = self._buffer(("ptr", i), (self.frames * h * w + 1,), np.int32)
        size = self.frames * h * w * c + 1
        wide: type = np.int32 if self.bounds.code[i] <= INT32 else np.int64
        index = self._buffer(("index", i), (size,), np.int32)
        return ptr, index, self._buffer(("value", i), (0 if self._plain(i) else size,), wide)

    def _list_events(self, i: int) -> None:
        c, h, w = self.program.populations[i].shape
        segments = channel_segments(self.program, self.layout, i, self._edges(i))
        self.segments[i] = segments
        count = self._buffer(("count", i), (self.frames, len(segments) - 1, h * w), np.int32)
        driven = any(e.kind == CONV and self.program.convs[e.index].groups == 1 for e in self._edges(i))
        if driven:
            buffers = self._event_buffers(i)
            self._step(_reset_pointer, self.block.window, buffers[0])
            self._step(events.list_events, self.block.window, self._codes(i), segments, w, *buffers, count)
        else:
            self._step(events.count_events, self.block.window, self._codes(i), segments, count)

    def _count(self, i: int, p: Population) -> None:
        classes = classify(self.program, self.layout, i, self.segments[i])
        total, count, loads = np.zeros(len(classes.core), np.int64), Ref(("count", i)), self.loads
        self.events.append((i, classes, total))
        self._step(
            tally.traffic,
            self.block.window,
            self.T,
            count,
            classes.cell,
            np.zeros(len(classes.core), np.int64),
            total,
            classes.axon_start,
            classes.axons,
            classes.link_start,
            classes.links,
            self.block.tick,
            p.level,
            loads.axons,
            loads.links,
            self.counters.tables["axon_reads"],
            self.counters.tables["waste_events"],
        )
        if not self._plain(i):
            sums = self._buffer(("payload", i), (self.frames, *self.shapes[count.key][0][1:]), np.int64)
            table = self.counters.tables["payload_sum"][i]
            self._step(events.sum_payloads, self.block.window, self._codes(i), self.segments[i], sums)
            self._step(tally.payloads, self.block.window, sums, classes.cell, classes.core, table)
        for e in self._edges(i):
            if e.kind != DYNAMIC or e.role == reading_role(self.program.dynamics[e.index].order):
                self._count_work(e, p)

    def _count_work(self, e: Edge, p: Population) -> None:
        table = fan(self.program, self.layout, e, self.segments[e.src])
        name = ("synops_mac" if p.payload_bits else "synops_ac", "map_ops", "dyn_reads")[e.kind]
        load = np.zeros((0, 0), np.int64) if e.kind == MAP else self.loads.synops
        total = self._total(name, e.index, table)
        self._step(
            tally.work,
            self.block.window,
            self.T,
            Ref(("count", e.src)),
            p.shape[2],
            table.channels,
            table.rows,
            table.columns,
            table.extent,
            table.core,
            p.level + e.delay,
            e.lag,
            self.block.tick,
            load,
            total,
        )

    def _total(self, name: str, row: int, table: Fan) -> np.ndarray:
        total = np.zeros(len(table.core), np.int64)
        self.work.append((name, row, table.core, total))
        return total

    def _count_writes(self, e: Edge) -> None:
        d, block = self.program.dynamics[e.index], self.block
        pieces = self.layout.pieces[d.dst]
        core = np.array([q.core for q in pieces], np.int64)
        total = np.zeros(len(pieces), np.int64)
        self.work.append(("dyn_writes", e.index, core, total))
        rest = core, block.tick, e.arrival - 1, self.loads.synops, total
        if d.order == "kv":
            sk, sv = self.segments[d.k], self.segments[d.v]
            k_head = sk[:-1] * d.heads // self.program.populations[d.k].shape[0]
            v_head = sv[:-1] * d.heads // self.program.populations[d.v].shape[0]
            held = np.array([(sv[:-1] >= q.box.c0) & (sv[:-1] < q.box.c1) for q in pieces], np.int64)
            counts = Ref(("count", d.k)), Ref(("count", d.v))
            self._step(tally.table_writes_kv, block.window, *counts, k_head, v_head, held, *rest)
        else:
            heads, tokens = self._held_qk(e, [q.box for q in pieces])
            codes = self._codes(d.q), self._codes(d.k)
            self._step(tally.table_writes_qk, block.window, *codes, d.heads, heads, tokens, *rest)

    def _held_qk(self, e: Edge, boxes: list) -> tuple[np.ndarray, np.ndarray]:
        d = self.program.dynamics[e.index]
        channels, height, width = self.program.dendrites[d.dst].shape
        heads = np.zeros((len(boxes), d.heads), np.int64)
        tokens = np.zeros((len(boxes), height, width), np.int64)
        for i, b in enumerate(boxes):
            heads[i, b.c0 * d.heads // channels : -(-b.c1 * d.heads // channels)] = 1
            tokens[i, b.y0 : b.y1, b.x0 : b.x1] = 1
        return heads, tokens.reshape(len(boxes), -1)

    # -- results ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Turn the totals of the run into counter tables."""
        for name, row, core, total in self.work:
            np.add.at(self.counters.tables[name][row], core, total)
        for i, classes, total in self.events:
            book(self.counters, self.layout, i, classes, total)
            if self._plain(i):
                self.counters.tables["payload_sum"][i] += self.counters.tables["events"][i]


def _reset_pointer(window: np.ndarray, ptr: np.ndarray) -> None:
    if window[0] == 0:
        ptr[0] = 0


def _tiled(values: np.ndarray, n: int, dtype: type) -> np.ndarray:
    """Per-channel values repeated to about BLOCK entries, never beyond the population."""
    channels = len(values)
    repeats = min(max(BLOCK // channels, 1), n // channels)
    return np.ascontiguousarray(np.tile(values, repeats).astype(dtype))
