"""The event engine: general networks, recurrent or streaming, tick by tick in compiled code.

It runs what ``nmc_compiler.program.network`` builds: LIF and sigma-delta somas, relays, single synapses
with delays, convolutions. Time and memory per tick follow the events, memory does not grow with the
length of a run: events come in and go out in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import Program

from .bounds import find_bounds
from .counters import OVERFLOW, Counters
from .host import Host
from .kernels import stream_tables as tables
from .kernels.stream import run_ticks
from .layout import Layout
from .plan import readout_size
from .stream_counting import StreamCounting
from .stream_plan import Planner, StreamPlan
from .timing import Timing
from .trace import Events, codes_of, events_of, joined
from .workspace import code_type

TICKS = 1024  # ticks computed in one go at most
ROOM = 1 << 16  # recorded events kept before they are handed out
TOPS = {"tick": 2**59, "samples": 2**31, "steps": 2**40}  # of a checkpoint, far above any run


def fresh_state(plan: StreamPlan, samples: int) -> tables.State:
    """A network at rest, before ``samples`` windows."""
    net, (length, dtype), (wide, deep, floating, celled) = plan.net, plan.accumulators, plan.sizes
    somas, rows = int(net.pops["size"].sum()), len(net.synapses)
    coded = sum(int(p["size"]) for p in net.pops if p["coded"] != tables.NOWHERE)
    return tables.State(
        acc=np.zeros(length, dtype),
        v=np.zeros(somas, np.int32),
        u=np.zeros(wide, np.int64),
        sigma=np.zeros((4, deep), np.int32),
        real=np.zeros((2, floating)),
        cell=np.zeros(celled, np.int64),
        ring=np.zeros(somas * plan.slots + 1, np.int32),
        ring_code=np.zeros(coded * plan.slots, np.int32),
        listed=np.zeros((len(net.pops), plan.slots), np.int64),
        fired=np.zeros(somas, np.int64),
        paid=np.zeros(somas if coded else 0, np.int64),
        missed=np.zeros(rows, np.int64),
        done=np.zeros((len(net.axons), 3), np.int64),
        over=np.zeros((len(net.pops), len(OVERFLOW)), np.int64),
        out=np.zeros((samples, readout_size(plan.program)), np.int64),
        bound=np.zeros(4, np.int64),
    )


def _number(name: str, value: np.ndarray, top: int) -> int:
    """One number of a checkpoint. UsageError if it is none, or beyond 0..top."""
    if value.size != 1 or value.dtype != np.int64 or not 0 <= int(value.reshape(())) <= top:
        raise UsageError(f"the checkpoint's '{name}' is no whole number in 0..{top}; start anew")
    return int(value.reshape(()))


def _scratch(plan: StreamPlan) -> tables.Scratch:
    net, routed = plan.net, len(plan.net.paths) > 0
    cores, largest = net.synapses.shape[1], int(net.pops["size"].max(initial=0))
    return tables.Scratch(
        synops=np.zeros(cores, np.int32),
        reads=np.zeros(cores, np.int32),
        convolved=np.zeros((2, cores), np.int64),
        updates=np.zeros(cores, np.int32),
        links=np.zeros(plan.layout.mesh.links if routed else net.crossed.shape[1], np.int32),
        met=np.zeros((plan.layout.cores, cores) if routed else (0, 0), np.int32),
        spans=np.zeros((1, 3), np.int64),
        codes=np.zeros(largest, np.int32),
        spikes=np.zeros(largest + 8, np.uint8),
    )


class EventEngine:
    """One Program made ready; ``run`` and ``run_events`` start from rest, ``advance`` goes on."""

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        recorded: list[int],
        batch: int,
        strict: bool,
        real: bool = False,
    ) -> None:
        """``batch`` is taken for symmetry with the layer engine: ticks have no batches.

        real: lif somas in real arithmetic; potentials of probes are then float64.
        """
        self.program, self.timing, self.strict, self.recorded = program, timing, strict, recorded
        self.number: type = np.float64 if real else np.int64
        self.bounds = find_bounds(program, timing)
        self.plan = Planner(program, layout, timing, self.bounds, recorded, real).plan()
        self.counting = StreamCounting(self.plan)
        self.scratch, self.host = _scratch(self.plan), Host(program)
        most = int((self.plan.net.pops["size"] * self.plan.net.pops["recorded"]).sum())
        self.room = max(most, ROOM) if most else 0
        self.restart()

    # -- time ------------------------------------------------------------------------------------

    def restart(self, samples: int = 1, steps: int = 0) -> None:
        """A network at rest, before the first of ``samples`` windows; ``steps``: closes a stream after so many."""
        self.samples, self.tick = samples, 0
        self.steps = self.program.timesteps or steps
        clock = self.plan.net.clock
        clock["samples"] = samples
        if self.program.timesteps == 0:
            clock["timesteps"] = steps or tables.ENDLESS
            clock["interval"] = steps * self.program.ticks_per_step or tables.ENDLESS
        self.__dict__.pop("state", None)  # free before the next one is made: it may be large
        self.state = fresh_state(self.plan, samples)

    @property
    def length(self) -> int:
        """Ticks until nothing of the windows is left on the chip."""
        open_ended = (self.steps - self.program.timesteps) * self.program.ticks_per_step
        return (self.samples - 1) * self.program.interval + self.timing.span + open_ended

    def tick_of(self, step: np.ndarray, level: int) -> np.ndarray:
        """Tick at which a population of ``level`` lives the given timesteps (counted over all samples)."""
        P, T = self.program.ticks_per_step, self.program.timesteps
        if T == 0:
            return step * P + level
        return step // T * self.program.interval + step % T * P + level

    def steps_before(self, tick: int, level: int) -> int:
        """How many timesteps a population of ``level`` has lived when ``tick`` begins (counted over all samples)."""
        P, T, at = self.program.ticks_per_step, self.program.timesteps, max(tick - level, 0)
        if T == 0:
            return -(-at // P)
        sample, rest = divmod(at, self.program.interval)
        return sample * T + min(-(-rest // P), T)

    def shorten(self, samples: int, steps: int) -> None:
        """End behind fewer samples, or timesteps of a stream, none of which may have been computed beyond that."""
        self.samples, clock = samples, self.plan.net.clock
        clock["samples"] = samples
        if self.program.timesteps == 0:
            self.steps = steps
            clock["timesteps"], clock["interval"] = steps, steps * self.program.ticks_per_step

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that changes, as arrays: a checkpoint."""
        when = {"tick": self.tick, "samples": self.samples, "steps": self.steps}
        return {**{k: np.array(n) for k, n in when.items()}, **{k: a.copy() for k, a in self.state._asdict().items()}}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Go on where ``snapshot`` was taken. UsageError if it is of another network, or cannot be of this one."""
        if not {"tick", "samples", "steps"} <= set(saved):
            raise UsageError(f"the checkpoint says nothing of the time; it is not of Program '{self.program.name}'")
        tick, samples, steps = (_number(name, saved[name], top) for name, top in TOPS.items())
        self.restart(samples, steps)
        for name, array in self.state._asdict().items():
            if name not in saved or saved[name].shape != array.shape or saved[name].dtype != array.dtype:
                raise UsageError(f"the checkpoint's '{name}' does not fit Program '{self.program.name}'; start anew")
            array[:] = saved[name]
        for i, pop in enumerate(self.plan.net.pops):
            self._check_lists(i, int(pop["event"]), int(pop["size"]))
        self.tick = tick

    def _check_lists(self, i: int, first: int, size: int) -> None:
        """UsageError for events of population i that would lead a kernel outside its arrays; then nothing is kept."""
        listed = self.state.listed[i]
        lists = self.state.ring[first : first + size * self.plan.slots].reshape(self.plan.slots, size)
        used = lists[np.arange(size) < listed[:, None]]
        if listed.min() < 0 or listed.max() > size or used.min(initial=0) < 0 or used.max(initial=0) >= size:
            self.restart()
            name = self.program.populations[i].name
            raise UsageError(f"the checkpoint lists events that population '{name}' cannot send; start anew")

    def advance(
        self, ticks: int, inputs: Mapping[int, Events] | None = None, probes: np.ndarray | None = None
    ) -> Iterator[tuple[dict[int, Events], np.ndarray, np.ndarray]]:
        """Compute ``ticks`` more ticks; yields parts of what was recorded: events, and u and v of probes.

        inputs: events of input populations whose ticks lie in these ticks.  probes int64 [n, 2]:
        population and soma (canonical); u, v int64 [n, ticks of the part] after each update.
        """
        probes = np.zeros((0, 2), np.int64) if probes is None else probes
        end = self.tick + ticks
        while self.tick < end:
            stop = min(end, self.tick + (1 if self.strict else TICKS))
            yield self._part(stop, inputs or {}, probes)

    def _part(self, stop: int, inputs: Mapping[int, Events], probes: np.ndarray) -> tuple:
        first = self.tick
        feed, record = self._feed(first, stop, inputs), self._record(stop - first, probes)
        before = self.state.over.copy() if self.strict else self.state.over
        self.tick = run_ticks(self.plan.net, self.state, self.scratch, feed, record, first, stop)
        if self.strict:
            self._check(first, self.state.over - before)
        self._check_relays()
        ran = self.tick - first
        return self._events(record), record.u[:, :ran], record.v[:, :ran]

    def _check_relays(self) -> None:
        """VerifyError where a relay should have sent what its events here, of 32 bits, do not hold."""
        for i, p in enumerate(self.program.populations):
            if p.model == "relay" and self.state.over[i, 0]:
                raise VerifyError(
                    f"relay '{p.name}' sent codes beyond 32 bits, which the engine 'events' does not keep; lower its"
                    " input or the shift of its projections"
                )

    def _check(self, tick: int, over: np.ndarray) -> None:
        """VerifyError if a value left its range in this tick."""
        for i, name in np.argwhere(over).tolist():
            raise VerifyError(
                f"overflow in population '{self.program.populations[i].name}', tick {tick}:"
                f" {over[i, name]} values left the range of '{OVERFLOW[name]}'; lower the weight scale or"
                " the input, or run without strict to count such values"
            )

    # -- in and out ------------------------------------------------------------------------------

    def _feed(self, first: int, stop: int, inputs: Mapping[int, Events]) -> tables.Feed:
        start = np.zeros((len(self.program.populations), stop - first + 1), np.int64)
        somas, codes, total = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
        for i, events in sorted(inputs.items()):
            ticks = self.tick_of(events.step, self.program.populations[i].level)
            bounds = np.searchsorted(ticks, np.arange(first, stop + 1))
            start[i] = bounds - bounds[0] + total
            part = slice(bounds[0], bounds[-1])
            order = self.plan.places[i]
            soma = events.soma[part]
            somas.append(soma if order is None else order[soma].astype(np.int32))
            codes.append(np.ones(len(soma), np.int32) if events.code is None else events.code[part])
            total += len(soma)
        return tables.Feed(first, start, np.concatenate(somas), np.concatenate(codes).astype(np.int32, copy=False))

    def _record(self, ticks: int, probes: np.ndarray) -> tables.Record:
        placed = probes.copy()
        for row in placed:
            order = self.plan.places[row[0]]
            row[1] = row[1] if order is None else order[row[1]]
        room, potentials = self.room, (len(probes), ticks)
        return tables.Record(
            np.zeros(1, np.int64),
            np.empty(room, np.int64),
            np.empty(room, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.int32),
            placed,
            np.zeros(potentials, self.number),
            np.zeros(potentials, self.number),
        )

    def _events(self, record: tables.Record) -> dict[int, Events]:
        n, found = int(record.n[0]), {}
        for i in self.recorded:
            mine = np.flatnonzero(record.population[:n] == i)
            step, soma, code = record.step[mine], record.soma[mine], record.code[mine]
            if self.plan.orders[i] is not None:
                soma = self.plan.orders[i][soma].astype(np.int32)  # type: ignore[index]
                order = np.lexsort((soma, step))
                step, soma, code = step[order], soma[order], code[order]
            found[i] = Events(step, soma, code if self.plan.coded[i] else None)
        return found

    def counters(self) -> Counters:
        """Counters of what has been computed; of a stream, of the timesteps begun so far."""
        steps = self.steps or -(-self.tick // self.program.ticks_per_step)
        return self.counting.counters(self.state, steps, self.samples, self.tick)

    # -- whole runs ------------------------------------------------------------------------------

    def run_events(
        self,
        inputs: Mapping[int, Events],
        steps: int,
        probes: Mapping[int, np.ndarray] | None = None,
        done: Callable[[int], object] = lambda steps: None,
    ) -> tuple[Counters, dict[int, Events], dict[int, tuple[np.ndarray, np.ndarray]]]:
        """``steps`` timesteps from rest until nothing is on its way: counters, recorded events, u and v of probes.

        A stream becomes one window of that many timesteps; other Programs take whole windows.  done: told of
        timesteps that have begun.
        """
        T = self.program.timesteps
        if T and steps % T:
            raise UsageError(f"{steps} timesteps are no whole number of windows of {T} ('{self.program.name}')")
        self.restart(steps // T if T else 1, steps)
        wanted = probes or {}
        rows = np.array([(i, s) for i, somas in wanted.items() for s in somas.tolist()], np.int64).reshape(-1, 2)
        parts, begun = [], 0
        for part in self.advance(self.length if steps else 0, inputs, rows):
            parts.append(part)
            done(min(self.steps_before(self.tick, 0), steps) - begun)
            begun = min(self.steps_before(self.tick, 0), steps)
        events = {i: joined([p[0][i] for p in parts], self.plan.coded[i]) for i in self.recorded}
        both = [np.concatenate([np.zeros((len(rows), 0), self.number), *(p[k] for p in parts)], axis=1) for k in (1, 2)]
        kept, first = {}, 0
        for i, somas in wanted.items():
            ticks = self.tick_of(np.arange(steps), self.program.populations[i].level)
            kept[i] = both[0][first : first + len(somas), ticks].T, both[1][first : first + len(somas), ticks].T
            first += len(somas)
        return self.counters(), events, kept

    def run(
        self, images: np.ndarray, done: Callable[[int], object]
    ) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        """Readout int64 [N, classes], counters and recorded codes of images [N, T or 1, C, H, W]."""
        T, inputs = self.program.timesteps, {}
        for spec in self.program.host_codes:
            frames = np.zeros((len(images), T, *self.program.populations[spec.population].shape), np.int32)
            for n, image in enumerate(images):
                frames[n] = self.host.codes(spec, image, n)
            inputs[spec.population] = events_of(frames.reshape(len(images) * T, int(np.prod(frames.shape[2:]))))
        counters, events, _ = self.run_events(inputs, len(images) * T)
        done(len(images))
        codes = {i: self._dense(i, e, len(images)) for i, e in events.items()}
        return self.state.out.copy(), counters, codes

    def _dense(self, i: int, events: Events, samples: int) -> np.ndarray:
        p, T = self.program.populations[i], self.program.timesteps
        codes: np.ndarray = codes_of(events, samples * T, p.shape).astype(
            code_type(self.program, self.bounds, i), copy=False
        )
        return codes.reshape(samples, T, *p.shape)
