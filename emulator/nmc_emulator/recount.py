"""Counters and loads of a Program from recorded events, without running the network again.

The tables are those of the layer engine (``counting``, ``fanout``, ``traffic``); only where the event
counts come from differs. So the counters of a recount equal those of a run, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Population, Program
from nmc_compiler.program.validate import validate_program

from .bounds import find_bounds
from .counters import OVERFLOW, Counters
from .counting import Counting
from .fanout import channel_segments
from .host import Host
from .kernels import replay, tally
from .layout import Layout, resolve
from .loads import TickLoads
from .memory import bind
from .sites import Rulebooks, refuse_samples_sites, runtime_sites
from .soma_tables import soma_tables
from .statics import book_dense_sites, static_counters, updates_per_core
from .timing import DYNAMIC, SPARSE, Edge, Timing, analyse
from .trace import Events, Trace
from .traffic import Ledger, classify
from .workspace import Workspace

LoadSink = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], object]
CELLS = 1 << 24  # most codes of one population in a block of samples
NOTHING = Events(np.zeros(0, np.int64), np.zeros(0, np.int32), None)


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples of a run.

    first: index of the first sample.  trace: their events, with ``step`` counted from the chunk's first
    timestep.  host: by host current, which of its values are not zero: bool [samples, T or 1, C, H, W].
    potentials: what probes saw, by population: int64 [samples, T, somas, states] (``probe.STATES``).
    places: where every sample has sites of its own, their coordinates as it gave them: [samples, 1, 3, slots, 1].
    """

    first: int
    trace: Trace
    host: dict[int, np.ndarray] = field(default_factory=dict)
    potentials: dict[int, np.ndarray] = field(default_factory=dict)
    places: np.ndarray | None = None


def part(events: Events, first: int, last: int) -> Events:
    """The events of timesteps first..last - 1, counted from ``first``."""
    a, b = np.searchsorted(events.step, (first, last))
    return Events(events.step[a:b] - first, events.soma[a:b], None if events.code is None else events.code[a:b])


def split(trace: Trace, timesteps: int, samples: int) -> list[Trace]:
    """A trace of images as traces of up to ``samples`` samples each."""
    found = []
    for first in range(0, trace.samples, samples):
        count = min(samples, trace.samples - first)
        steps = first * timesteps, (first + count) * timesteps
        cut = {i: part(e, *steps) for i, e in trace.events.items()}
        found.append(Trace(cut, count, count * timesteps))
    return found


class _TraceCounting(Counting):
    """Counting steps fed from recorded events in place of computed codes.

    Populations with synapses one by one (``apart``) have their traffic booked event by event.
    """

    block: dict[int, Events]
    frames: int

    def __init__(
        self, program: Program, layout: Layout, timing: Timing, counters: Counters, space: Workspace, loads: TickLoads
    ) -> None:
        self.program, self.layout, self.timing = program, layout, timing
        self.counters, self.space, self.loads = counters, space, loads
        self.rulebooks = Rulebooks(program)
        self.left = program.timesteps  # timesteps of the window; in a stream, those that are left
        senders = [i for i, p in enumerate(program.populations) if p.model != "readout"]
        self.apart = {e.src for e in timing.edges if e.kind == SPARSE}
        self.segments = {i: channel_segments(program, layout, i, self.edges(i)) for i in senders}
        shared = [i for i in senders if i not in self.apart]
        self.classes = {i: classify(program, layout, i, self.segments[i]) for i in shared}
        self.ledger = Ledger(layout, self.classes, {i: space.plain(i) for i in shared}, counters)

    def edges(self, population: int) -> list[Edge]:
        """Everything a population feeds but single synapses."""
        return [e for e in self.timing.edges if e.src == population and e.kind != SPARSE]

    def population(self, i: int, p: Population) -> None:
        """Count the recorded events of population i; book its traffic and the work it causes."""
        c, h, w = p.shape
        segments, space = self.segments[i], self.space
        count = space.buffer(("count", i), (space.frames, len(segments) - 1, h * w), np.int32)
        member = np.repeat(np.arange(len(segments) - 1), np.diff(segments))

        def fill(counts: np.ndarray) -> None:
            events = self.block.get(i, NOTHING)
            counts[: self.frames] = 0
            replay.count_somas(events.step, events.soma, h * w, member, counts)

        if i not in self.apart or self.edges(i):
            space.step(fill, count)
        if i in self.apart:
            space.step(self._booker(i, p))
        else:
            if not space.plain(i) or self._by_code(i):
                space.step(self._placer(i, h * w), space.codes(i))
            self._traffic(i, p, count)
        for e in self.edges(i):
            if self.adds(e):
                self._work(e, p, count)

    def _by_code(self, i: int) -> bool:
        """Whether table writes of order "qk" look at the population's codes."""
        return any(d.order == "qk" and i in (d.q, d.k) for d in self.program.dynamics)

    def _placer(self, i: int, positions: int) -> Callable[[np.ndarray], None]:
        def place(codes: np.ndarray) -> None:
            events = self.block.get(i, NOTHING)
            codes[: self.frames] = 0
            replay.place_codes(events.step, events.soma, _codes(events), positions, codes)

        return place

    def _booker(self, i: int, p: Population) -> Callable[[], None]:
        t, mesh, loads, counters = (
            soma_tables(self.program, self.layout, self.counters, i),
            self.layout.mesh,
            self.loads,
            self.counters,
        )
        tables = t.home, t.first, t.entries, t.sent, t.targets, t.rows, mesh.at, np.array(mesh.routers)
        cells = counters.flat.reshape(-1, counters.cores + 1)
        to = (
            loads.axons,
            loads.synops,
            loads.links,
            cells,
            counters.tables["axon_reads"],
            counters.tables["waste_events"],
        )

        def book() -> None:
            events = self.block.get(i, NOTHING)
            when = events.step, events.soma, _codes(events), self.left, self.space.block.tick, p.level
            replay.book_somas(*when, *tables, *to)

        return book


def _codes(events: Events) -> np.ndarray:
    return np.ones(len(events), np.int32) if events.code is None else events.code


def _block_size(program: Program) -> int:
    """Samples per block: enough to make calls rare, few enough to stay in the cache's reach."""
    largest = max(int(np.prod(p.shape)) for p in program.populations) * program.timesteps
    return int(min(max(CELLS // max(largest, 1), 1), 64))


def _windowed(program: Program) -> Program:
    """A stream as samples of a block of timesteps each, which follow each other without a gap."""
    if program.timesteps:
        return program
    largest = max(int(np.prod(p.shape)) for p in program.populations)
    steps = int(min(max(CELLS // largest, 1), 256))
    return replace(program, timesteps=steps, interval=steps * program.ticks_per_step)


class Recount:
    """Counts one Program from chunks of samples in their order; ``finish`` gives the counters.

    loads: called with (first tick, synops, updates, axons [ticks, cores], links [ticks, links]) of ticks to which
    nothing more can come, in order, each tick once; the arrays are only lent.  steps: for a stream, its timesteps;
    chunks of a stream are of timesteps, and ``first`` is the first of them.

    UsageError for a stream without ``steps``; VerifyError for a Program that breaks its rules.
    """

    def __init__(self, program: Program, loads: LoadSink | None = None, steps: int = 0) -> None:
        validate_program(program)
        if not program.timesteps and steps < 1:
            raise UsageError(f"Program '{program.name}' is a stream: say how many timesteps are counted")
        self.stream = 0 if program.timesteps else steps
        self.program, self.sink = _windowed(program), loads
        self.own_sites = runtime_sites(program)  # each sample has its own
        self.size = 1 if self.stream or self.own_sites else _block_size(program)
        self.timing, self.layout = analyse(self.program), resolve(self.program)
        self.counters = Counters.zeros(program, self.layout.cores)
        self.static = self._static()
        self.updates = self._updates()
        window = (self.size - 1) * self.program.interval + max(self.timing.span, self.program.interval)
        self.loads = TickLoads(window, self.layout.cores, self.layout.mesh.links)
        self.done = self.tick = 0  # timesteps counted, ticks settled
        self._plan()

    def _static(self) -> Counters:
        """Counters of one window, or of a stream, that do not depend on events."""
        whole = replace(self.program, timesteps=self.stream or self.program.timesteps)
        return static_counters(whole, self.layout, self.timing)

    def shorten(self, steps: int) -> None:
        """End a stream behind fewer timesteps than announced, which all that was given lies well before."""
        self.stream = steps
        self.static = self._static()

    def _updates(self) -> np.ndarray:
        """Somas updated per level and core in one timestep, int64 [levels, cores]."""
        found = np.zeros((self.program.depth + 1, self.layout.cores), np.int64)
        for i, p in enumerate(self.program.populations):
            found[p.level] += updates_per_core(self.program, self.layout, i)
        return found

    def _plan(self) -> None:
        p = self.program
        self.space = Workspace(p, find_bounds(p, self.timing), self.size)
        self.counting = _TraceCounting(p, self.layout, self.timing, self.counters, self.space, self.loads)
        for i, q in enumerate(p.populations):
            if q.model != "readout":
                self.counting.population(i, q)
        for e in self.timing.edges:
            if e.kind == DYNAMIC and self.counting.adds(e):
                self.counting.writes(e)
        self.steps, _ = bind(self.space.steps, self.space.shapes, forever=False)
        blank = np.zeros((p.timesteps if p.input_time else 1, *p.input_shape))
        self.host = Host(p)
        self.macs = [0 if self.own_sites else self.host.current(k, blank, 0)[1] for k in range(len(p.host_currents))]

    def add(self, chunk: Chunk) -> None:
        """Count the next samples. UsageError if they are not the next, or lack what the host sent."""
        T = self.program.timesteps
        first = chunk.first if self.stream else chunk.first * T
        if first != self.done:
            at = self.done if self.stream else self.done // T
            raise UsageError(f"samples from {chunk.first} on were given where {at} is the next")
        if self.stream and first + chunk.trace.steps > self.stream:
            raise UsageError(f"{first + chunk.trace.steps} timesteps were given where {self.stream} were announced")
        self._add_currents(chunk)
        for start in range(0, chunk.trace.steps, T * self.size):
            end = min(start + T * self.size, chunk.trace.steps)
            if self.own_sites:
                self._load_sites(chunk, start // T)
            self._add_block({i: part(e, start, end) for i, e in chunk.trace.events.items()}, end - start)

    def _load_sites(self, chunk: Chunk, sample: int) -> None:
        """Fan-out, dense twins and work of the host as the sites of a sample have them."""
        if chunk.places is None:
            refuse_samples_sites(self.program, "a count of recorded events")
        else:
            rulebooks, places = self.counting.rulebooks, chunk.places[sample]
            rulebooks.load(places, chunk.first + sample)
            book_dense_sites(self.counters, self.program, self.layout, self.timing, rulebooks)
            for k in range(len(self.macs)):
                self.counters.tables["host_macs"][k, -1] += self.host.site_macs(k, places, chunk.first + sample)

    def _add_block(self, events: dict[int, Events], frames: int) -> None:
        p, space, counting = self.program, self.space, self.counting
        space.block.window[:] = (0, frames)
        counting.block, counting.frames = events, frames
        counting.left = self.stream - self.done if self.stream else p.timesteps
        for tick in space.block.tick[:frames].tolist():
            self.loads.updates[tick : tick + len(self.updates)] += self.updates
        for step in self.steps:
            args = step.args
            if self.stream and step.call in (tally.work, tally.traffic):
                args = args[0], counting.left, *args[2:]  # their second argument: timesteps of the window
            step.call(*args)
        self.done += frames
        self._settle(frames * p.ticks_per_step if self.stream else frames // p.timesteps * p.interval)

    def _settle(self, ticks: int) -> None:
        loads = self.loads
        if self.sink is not None and ticks > 0:
            self.sink(self.tick, loads.synops[:ticks], loads.updates[:ticks], loads.axons[:ticks], loads.links[:ticks])
        loads.settle(ticks, self.counters)
        self.tick += ticks

    def _add_currents(self, chunk: Chunk) -> None:
        tables, samples = self.counters.tables, chunk.trace.samples
        for k, h in enumerate(self.program.host_currents):
            active = chunk.host.get(k)
            if active is None or len(active) != samples:
                raise UsageError(f"the trace does not tell what host current '{h.name}' sent; record the run again")
            tables["host_macs"][k, -1] += self.macs[k] * samples
            repeats = self.program.timesteps // active.shape[1]
            for piece in self.layout.pieces[h.dst]:
                b = piece.box
                inside = active[:, :, b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1]
                tables["current_messages"][k, piece.core] += np.count_nonzero(inside) * repeats

    def _end(self) -> tuple[int, int]:
        """(windows counted, ticks until nothing is on its way). UsageError for a stream that is not complete."""
        T, P = self.program.timesteps, self.program.ticks_per_step
        if self.stream:
            if self.done != self.stream:
                raise UsageError(f"{self.done} timesteps were given where {self.stream} were announced")
            return 1, self.timing.span + (self.stream - T) * P
        samples = self.done // T
        return samples, (samples - 1) * self.program.interval + self.timing.span if samples else 0

    def finish(self, overflow: np.ndarray | None = None) -> Counters:
        """Counters of all samples so far. overflow: int64 [populations, 4] of the run, carried over."""
        windows, end = self._end()
        self._settle(max(end - self.tick, 0))
        self.counting.ledger.book(self.counters)
        self.counters.add(self.static, windows)
        for i, row in enumerate(overflow if overflow is not None else np.zeros((0, len(OVERFLOW)), np.int64)):
            self.counters.overflow_of(i)[:] = row
        return self.counters.take()


def host_activity(program: Program, images: np.ndarray, first: int = 0) -> dict[int, np.ndarray]:
    """Which values of each host current are not zero: bool [N, T or 1, C, H, W], of images [N, T or 1, C, H, W]."""
    host, found = Host(program), {}
    for k in range(len(program.host_currents)):
        rows = [host.current(k, image, first + b)[0] != 0 for b, image in enumerate(images)]
        found[k] = np.stack(rows)
    return found


__all__ = ["Chunk", "LoadSink", "Recount", "host_activity", "part", "split"]
