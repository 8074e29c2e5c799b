"""The layer engine's plan: a Program as a list of kernel calls sorted by level.

Within a level the order is that of a tick: arrivals, then transfers, then somas. Every step works
on all frames of ``Block.window``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Conv, HostCodes, HostCurrent, Map, Population, Program, Shape, Transfer
from nmc_compiler.program.shapes import conv_windows

from .bounds import INT32, Bounds, piled
from .cells import cell_start, cell_tables
from .counters import Counters
from .counting import Counting
from .host import Host
from .kernels import cell as kernel
from .kernels import conv as convs
from .kernels import conv_groups, maps, sites, soma, transfers
from .kernels import dynamic as dynamics
from .kernels import sparse as kernel_sparse
from .layout import Layout
from .loads import TickLoads
from .memory import Ref
from .sites import Rulebooks, runtime_sites
from .suits import lasts, takes_events
from .synapses import channel_last
from .timing import Edge, Timing
from .workspace import Workspace, code_type

REPEATED = 1024  # soma parameters are repeated to about this many entries
MAPS = {
    "same": maps.map_same,
    "reduce": maps.map_reduce,
    "broadcast": maps.map_broadcast,
    "reduce_channels": maps.map_reduce_channels,
    "broadcast_channels": maps.map_broadcast_channels,
}


class Planner:
    """Plans one Program for blocks of ``batch`` samples.

    ``space`` holds the steps; running them fills ``counters``, ``loads``, the ledger of
    ``counting``, ``out`` int64 [batch, classes], and ``codes`` (recorded population -> codes of all
    samples, for which ``expect`` makes room).
    """

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        bounds: Bounds,
        counters: Counters,
        batch: int,
        recorded: list[int],
        real: bool = False,
    ) -> None:
        self.real = real
        self.program, self.layout, self.timing, self.bounds = program, layout, timing, bounds
        self.rule = program.current_rule  # as the kernels take it
        self.counters, self.host = counters, Host(program)
        self.space = Workspace(program, bounds, batch)
        self.loads = TickLoads((batch - 1) * program.interval + timing.span, layout.cores, layout.mesh.links)
        self.rulebooks = Rulebooks(program)
        self.counting = Counting(program, layout, timing, counters, self.space, self.loads, self.rulebooks)
        self.out = np.zeros((batch, readout_size(program)), np.int64)
        self.codes: dict[int, np.ndarray] = dict.fromkeys(recorded, np.zeros(0))
        self._currents: dict[int, tuple[int, np.ndarray]] = {}  # host current -> sample, result
        self.origin = 0  # sample that recorded codes start with
        self.given: dict[int, np.ndarray] = {}  # codes of inputs whose events are given, [N, T, C, H, W]
        self.probes: dict[int, np.ndarray] = {}  # population -> somas, in C order, whose state to keep
        self.seen: dict[int, np.ndarray] = {}  # population -> u and v of those, [2, N * T, somas]
        for *_, job in sorted(self._jobs(), key=lambda j: j[:4]):
            job()

    def expect(self, samples: int, first: int = 0) -> None:
        """Make room for the recorded codes of samples from ``first`` on, and forget what was before."""
        self.origin = first
        for i in self.codes:
            shape = (samples, self.program.timesteps, *self.program.populations[i].shape)
            self.codes[i] = np.zeros(shape, code_type(self.program, self.bounds, i))
        self._currents.clear()

    def _jobs(self) -> list[tuple[int, int, int, int, Callable[[], None]]]:
        """(level, phase, kind, index, what to plan) of everything that happens in a timestep."""
        p = self.program
        jobs: list[tuple] = []
        for i, h in enumerate(p.host_currents):
            jobs.append((h.level, 1, 0, i, lambda i=i, h=h: self._host_current(i, h)))
        for e in self.timing.edges:
            if self.counting.adds(e):
                add = (self._conv, self._map, self._dynamic, self._sparse)[e.kind]
                jobs.append((e.arrival, 1, 1 + e.kind, e.index, lambda add=add, e=e: add(e)))
        for i, t in enumerate(p.transfers):
            jobs.append((t.level, 2, 0, i, lambda t=t: self._transfer(t)))
        for i, q in enumerate(p.populations):
            jobs.append((q.level, 3, 0, i, lambda i=i, q=q: self._population(i, q)))
        return jobs

    # -- the host --------------------------------------------------------------------------------

    def _host_current(self, i: int, h: HostCurrent) -> None:
        space, T, fresh = self.space, self.program.timesteps, self.space.fresh(h.dst)

        def add(acc: np.ndarray) -> None:
            for b in range(len(space.block.images)):
                rows = self._current(i, h, b, acc.dtype.type)
                for f in space.block.frames_of(b, T):
                    row = rows[f % T if len(rows) > 1 else 0].reshape(acc.shape[1:])
                    acc[f] = row if fresh else acc[f] + row

        space.step(add, space.acc(h.dst))

    def _current(self, i: int, h: HostCurrent, b: int, dtype: type) -> np.ndarray:
        """Host current i of sample b of the block, [T or 1, H, W, C]; counted once, kept for later timesteps."""
        index = self.space.block.first + b
        if i not in self._currents or self._currents[i][0] != index:
            y, macs = self.host.current(i, self.space.block.images[b], index)
            self._count_current(i, h, y, macs)
            self._currents[i] = (index, np.ascontiguousarray(y.astype(dtype).transpose(0, 2, 3, 1)))
        return self._currents[i][1]

    def _count_current(self, i: int, h: HostCurrent, y: np.ndarray, macs: int) -> None:
        tables, repeats = self.counters.tables, self.program.timesteps // len(y)
        tables["host_macs"][i, -1] += macs
        for piece in self.layout.pieces[h.dst]:
            b = piece.box
            part = y[:, b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1]
            tables["current_messages"][i, piece.core] += np.count_nonzero(part) * repeats

    def _input(self, i: int, spec: HostCodes | None) -> None:
        space, T = self.space, self.program.timesteps

        def write(codes: np.ndarray) -> None:
            for b, image in enumerate(space.block.images):
                n = space.block.first + b
                found = self.given[i][n] if spec is None else self.host.codes(spec, image, n)
                values = found.transpose(0, 2, 3, 1)
                for f in space.block.frames_of(b, T):
                    codes[f] = values[f % T if len(values) > 1 else 0].reshape(codes.shape[1:])

        space.step(write, space.codes(i))

    # -- arrivals and transfers ------------------------------------------------------------------

    def _geometry(self, src: Shape, grid: tuple[int, int], item: Map | Transfer, shift: int, lag: int) -> np.ndarray:
        form = item.kernel, item.stride, item.pad, (1, 1)
        return convs.pack_geometry(src, grid, *form, shift, lag, self.program.timesteps)

    def _conv(self, e: Edge) -> None:
        c, space, window = self.program.convs[e.index], self.space, self.space.block.window
        kh, kw, ins, outs = c.weight.shape
        if c.sites is not None:
            self._between_sites(e, c)
            return
        if c.groups == 1:
            self._conv_events(e, c)
            return
        acc, codes = space.acc(e.dst), space.codes(e.src)
        form = conv_form(c, self.program.populations[e.src].shape, e.lag, self.program.timesteps)
        if ins == 1 and outs == c.groups:
            weight = c.weight.reshape(kh * kw, outs).astype(space.dtype(acc)) << c.shift
            space.step(conv_groups.conv_depthwise, window, codes, weight, acc, *form, c.collapse)
        else:
            weight = np.ascontiguousarray(c.weight.reshape(kh * kw, ins, outs))
            space.step(conv_groups.conv_grouped, window, codes, weight, acc, *form, c.collapse, c.groups)

    def _conv_events(self, e: Edge, c: Conv) -> None:
        (stride_y, stride_x), (h, w), space = c.stride, c.out_hw, self.space
        count = convs.neighbours(w, c.weight, stride_x, c.collapse) if c.dilation[1] == 1 else 1
        weight = convs.widen(c.weight, count, stride_x) if count > 1 else c.weight
        kh, kw, ins, outs = weight.shape
        shape = self.program.populations[e.src].shape
        wider = replace(c, weight=weight, stride=(stride_y, stride_x * count), out_hw=(h, w // count))
        form = conv_form(wider, shape, e.lag, self.program.timesteps)
        fresh = not c.collapse and e.lag == 0 and space.fresh(e.dst)
        rows, acc = np.ascontiguousarray(weight.reshape(kh * kw * ins, outs)), space.acc(e.dst, flat=True)
        rest = *form, c.collapse, fresh, convs.span_limit(self.bounds.code[e.src]), np.zeros((kh * kw, 3), np.int64)
        space.step(convs.conv, space.block.window, *space.events(e.src), rows, acc, *rest)

    def _between_sites(self, e: Edge, c: Conv) -> None:
        space, (taps, _, ins, outs) = self.space, c.weight.shape
        assert c.sites is not None
        fresh = not c.collapse and e.lag == 0 and space.fresh(e.dst)
        rows, acc = np.ascontiguousarray(c.weight.reshape(taps * ins, outs)), space.acc(e.dst, flat=True)
        time = c.shift, e.lag, self.program.timesteps, self.program.populations[e.src].shape[1]
        limit = convs.span_limit(self.bounds.code[e.src])
        rest = self.rulebooks.near[c.sites], *time, c.collapse, fresh, limit, np.zeros((taps, 3), np.int64)
        space.step(sites.conv_sites, space.block.window, *space.events(e.src), rows, acc, *rest)

    def _map(self, e: Edge) -> None:
        m, space, window = self.program.maps[e.index], self.space, self.space.block.window
        flat = m.mode == "same"
        acc, codes = space.acc(e.dst, flat), space.codes(e.src, flat)
        if m.mode == "window":
            _, h, w = self.program.dendrites[e.dst].shape
            geometry = self._geometry(self.program.populations[e.src].shape, (h, w), m, m.shift, e.lag)
            space.step(maps.map_window, window, codes, acc, geometry)
        else:
            space.step(MAPS[m.mode], window, codes, acc, 1 << m.shift, e.lag, space.T)

    def _sparse(self, e: Edge) -> None:
        """Late synapses look back: those of one delay read the codes of so many timesteps ago."""
        s, space = self.program.sparses[e.index], self.space
        shapes = self.program.populations[e.src].shape, self.program.dendrites[e.dst].shape
        acc, codes = space.acc(e.dst, flat=True), space.codes(e.src, flat=True)
        for late, *synapses in channel_last(s, *shapes):
            form = 1 << s.shift, e.lag + late, self.program.timesteps, s.graded
            space.step(kernel_sparse.sparse, space.block.window, codes, acc, *synapses, *form)

    def _dynamic(self, e: Edge) -> None:
        d, space = self.program.dynamics[e.index], self.space
        (channels, h, w), values = self.program.populations[d.q].shape, self.program.populations[d.v].shape[0]
        size = (channels // d.heads, values // d.heads) if d.order == "kv" else (h * w, h * w)
        bound = h * w * channels * self.bounds.code[d.q] * self.bounds.code[d.k] * self.bounds.code[d.v]
        bound *= piled(self.program, d) << (12 if d.lasting else 0)  # times what is kept, before the shift
        dtype = np.int32 if bound <= INT32 else np.int64
        call = dynamics.dynamic_kv if d.order == "kv" else dynamics.dynamic_qk
        operands = space.codes(d.q), space.codes(d.k), space.codes(d.v), space.acc(e.dst)
        row, form = np.zeros(size[1], dtype), (d.heads, d.shift, d.saturate)
        if d.lasting is None:
            space.step(call, space.block.window, *operands, *form, np.zeros(size, dtype), row)
        else:
            tables, keep = np.zeros((d.heads, *size), dtype), d.lasting.keep.astype(dtype)
            rest = tables, row, keep, d.lasting.frac, d.lasting.block or space.T, space.T
            space.step(dynamics.dynamic_lasting, space.block.window, *operands, *form, *rest)
        self.counting.writes(e)

    def _transfer(self, t: Transfer) -> None:
        space, window = self.space, self.space.block.window
        src, dst = space.acc(t.src), space.acc(t.dst)
        shape, (_, h, w) = self.program.dendrites[t.src].shape, self.program.dendrites[t.dst].shape
        if t.mode == "sum":
            space.step(transfers.sum_positions, window, src, dst, np.zeros(shape[0], np.int64), t.rshift)
            return
        best: np.ndarray = np.zeros(shape[0], space.dtype(src))
        space.step(transfers.max_pool, window, src, dst, self._geometry(shape, (h, w), t, 0, 0), best, t.rshift)

    # -- somas -----------------------------------------------------------------------------------

    def _population(self, i: int, p: Population) -> None:
        if p.model == "input":
            self._input(i, next((h for h in self.program.host_codes if h.population == i), None))
        else:
            self._soma(i, p)
        if p.sites is not None and p.model != "readout" and runtime_sites(self.program):
            count = self.rulebooks.tables.tables[p.sites].count
            self.space.step(sites.silence, self.space.block.window, count, self.space.codes(i))
        if p.model != "readout":
            self._record(i, p)
            self.counting.population(i, p)

    def _soma(self, i: int, p: Population) -> None:
        space, window, over = self.space, self.space.block.window, self.counters.overflow_of(i)
        acc, n = space.acc(p.dendrite, flat=True), int(np.prod(p.shape))
        bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
        narrow = _fits(bias) and self.bounds.accumulator[p.dendrite] <= soma.NARROW
        if p.model == "relay":
            space.step(soma.relay, window, acc, space.codes(i, flat=True), over)
        elif p.model == "readout":
            v = space.buffer(("v", i), (n,), np.int64)
            rest = _repeated(bias, n, np.int64), over, self.rule
            space.step(soma.readout, window, space.T, acc, v, self.out, *rest)
        elif p.model == "cell":
            self._cells(i, p)
        elif p.model == "lif":
            self._lif(i, p, acc, n, bias, narrow)
        else:
            self._levels(i, p, acc, n, bias, narrow)

    def _lif(self, i: int, p: Population, acc: Ref, n: int, bias: np.ndarray, narrow: bool) -> None:
        theta = p.vth.astype(np.int64) << 6  # type: ignore[union-attr]
        if takes_events(self.program) or lasts(p):
            self._lasting(i, p, acc, n, bias, theta)
            return
        if self.real:
            real = acc, self.space.buffer(("v", i), (n,), np.float64), self.space.codes(i, flat=True)
            repeated = _repeated(bias, n, np.int64), _repeated(theta, n, np.int64), p.dv
            self.space.step(soma.lif_real, self.space.block.window, self.space.T, *real, *repeated)
            return
        narrow = narrow and _fits(theta)
        dtype: type = np.int32 if narrow else np.int64
        space, call = self.space, soma.lif if narrow else soma.lif_wide
        state = acc, space.buffer(("v", i), (n,), dtype), space.codes(i, flat=True)
        constants = _repeated(bias, n, dtype), _repeated(theta, n, dtype), p.dv
        choice = (_shift_of(p.dv), self._wrapping(p)) if narrow else ()
        rest = *choice, self.counters.overflow_of(i), self.rule
        space.step(call, space.block.window, space.T, *state, *constants, *rest)

    def _lasting(self, i: int, p: Population, acc: Ref, n: int, bias: np.ndarray, theta: np.ndarray) -> None:
        """A soma whose current lasts, or whose state is kept for whoever probes it."""
        if self.real:
            raise UsageError(
                f"the engine 'layers' has no real arithmetic for population '{p.name}'; choose events, or exact"
            )
        space, start = self.space, np.zeros((2, n), np.int64)
        for row, values in zip(start, (p.start_u, p.start_v), strict=True):
            if values is not None:
                row[:] = values.transpose(1, 2, 0).reshape(-1)
        low = np.full_like(theta, soma.NEVER) if p.vth_low is None else p.vth_low.astype(np.int64) << 6
        state = space.buffer(("v", i), (2, n), np.int64)
        form = bias, theta, low, p.du, p.dv, np.array(p.restart or (0, 0), np.int64), self.counters.overflow_of(i)
        space.step(
            soma.lif_lasting, space.block.window, space.T, acc, state, start, space.codes(i, True), *form, self.rule
        )
        space.step(lambda values: self._keep(i, p, values), state)

    def _keep(self, i: int, p: Population, values: np.ndarray) -> None:
        """u and v of probed somas; the window is one frame then."""
        if i not in self.probes:
            return
        frame, T = self.space.block.window[0], self.program.timesteps
        planes = values.reshape(2, -1, p.shape[0]).transpose(0, 2, 1).reshape(2, -1)
        self.seen[i][:, self.space.block.first * T + frame] = planes[:, self.probes[i]]

    def _cells(self, i: int, p: Population) -> None:
        space, tables, start = self.space, cell_tables(p), cell_start(p)
        state = space.buffer(("v", i), (kernel.PARTS, *start.shape[1:]), np.int64)
        operands = space.acc(p.dendrite), state, start, space.codes(i), tables.form, tables.values, tables.thresholds
        space.step(kernel.cells, space.block.window, space.T, *operands, self.counters.overflow_of(i), self.rule)

    def _wrapping(self, p: Population) -> bool | None:
        return None if self.bounds.accumulator[p.dendrite] < soma.UNWRAPPED else True

    def _levels(self, i: int, p: Population, acc: Ref, n: int, bias: np.ndarray, narrow: bool) -> None:
        table = np.broadcast_to(p.thresholds.T, (p.thresholds.shape[1], p.shape[0]))  # type: ignore[union-attr]
        dtype: type = np.int32 if narrow else np.int64
        rows = np.stack([_repeated(row, n, dtype) for row in table])
        args = self.space.block.window, acc, self.space.codes(i, flat=True), _repeated(bias, n, dtype), rows
        scratch: np.ndarray = np.zeros(rows.shape[1], dtype)
        call, choice = (soma.levels, (self._wrapping(p),)) if narrow else (soma.levels_wide, ())
        self.space.step(call, *args, scratch, *choice, self.counters.overflow_of(i), self.rule)

    def _record(self, i: int, p: Population) -> None:
        if i not in self.codes:
            return
        block, T = self.space.block, self.program.timesteps

        def copy(codes: np.ndarray) -> None:
            for f in range(block.window[0], block.window[1]):
                self.codes[i][block.first - self.origin + f // T, f % T] = codes[f].T.reshape(p.shape)

        self.space.step(copy, self.space.codes(i))


def conv_form(c: Conv, src: Shape, lag: int, steps: int) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Geometry of one slice and window along slices, None of a plane, of a Conv on a source of that shape."""
    slices, rows, columns = conv_windows(c, src)
    size, grid, kernel, stride, pad, dilation = zip(rows, columns, strict=True)
    geometry = convs.pack_geometry((src[0], *size), grid, kernel, stride, pad, dilation, c.shift, lag, steps)
    return geometry, None if c.depth is None else tuple(slices)


def readout_size(program: Program) -> int:
    """Somas of the readout; 0 if the Program has none."""
    return next((int(np.prod(p.shape)) for p in program.populations if p.model == "readout"), 0)


def _shift_of(dv: int) -> int | None:
    """k where 4096 - dv is 2^(12 - k); 31 forgets everything; None for any other decay."""
    leak = 4096 - dv
    return 31 if leak == 0 else 13 - leak.bit_length() if leak & (leak - 1) == 0 else None


def _fits(values: np.ndarray) -> bool:
    return bool(np.abs(values).max(initial=0) < soma.NARROW_BIAS)


def _repeated(values: np.ndarray, n: int, dtype: type) -> np.ndarray:
    """Per-channel values repeated to about REPEATED entries, never beyond the n somas."""
    channels = len(values)
    repeats = min(max(REPEATED // channels, 1), n // channels)
    return np.ascontiguousarray(np.tile(values, repeats).astype(dtype))
