"""A run of the event engine part by part: what has been computed can be used, kept, and taken up again later.

Its units are samples where the Program has windows, and timesteps where it is a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .counters import Counters
from .emulate import Emulator
from .engine_events import EventEngine
from .probe import Probe
from .recount import Chunk
from .recount import part as between
from .trace import Events, Trace, joined

STATES = ("u", "v")  # what is seen of a probed soma


class Source(Protocol):
    """Where the events of input populations come from."""

    def take(self, population: int, first: int, last: int) -> Events:
        """Checked events of timesteps first..last - 1, counted over all samples; asked for in order."""


@dataclass(frozen=True)
class Part:
    """What consecutive ticks gave: recorded events by population, u and v of probed somas [somas, ticks, 2]."""

    first: int
    ticks: int
    events: dict[int, Events]
    potentials: np.ndarray


def windowed(program: Program, timesteps: int) -> Program:
    """A stream as samples of so many timesteps, each from rest."""
    return replace(program, timesteps=timesteps, interval=timesteps * program.ticks_per_step + program.depth)


class EventRun:
    """A run by an Emulator of engine "events": ``units`` samples, or timesteps of a stream, driven by ``source``.

    probes: somas to look at; u and v of lif somas are kept.  UsageError for another engine.
    """

    def __init__(self, emulator: Emulator, source: Source, units: int, probes: tuple[Probe, ...] = ()) -> None:
        if not isinstance(emulator.engine, EventEngine):
            raise UsageError(f"engine '{emulator.name}' does not run in parts; choose engine='events'")
        self.program, self.engine, self.source, self.units = emulator.program, emulator.engine, source, units
        populations = self.program.populations
        self.inputs = [i for i, p in enumerate(populations) if p.model == "input"]
        self.probed = {p.population: p.somas for p in probes if populations[p.population].model in ("lif", "cell")}
        rows = [(i, s) for i, somas in self.probed.items() for s in somas.tolist()]
        self.rows = np.array(rows, np.int64).reshape(-1, 2)
        self.stream = self.program.timesteps == 0
        self.engine.restart(1, units) if self.stream else self.engine.restart(units)
        self.given = 0  # units that chunks were made of
        self.waiting: dict[int, list[Events]] = {i: [] for i in self.engine.recorded}
        self.seen: np.ndarray = np.zeros((len(rows), 0, 2), self.engine.number)  # potentials ...
        self.since = 0  # ... from this tick on

    @property
    def length(self) -> int:
        """Ticks of the whole run."""
        return self.engine.length

    @property
    def steps(self) -> int:
        """Timesteps of the whole run, over all samples."""
        return self.units * max(self.program.timesteps, 1)

    @property
    def begun(self) -> int:
        """Timesteps that have begun."""
        return min(self.engine.steps_before(self.engine.tick, 0), self.steps)

    def step(self, ticks: int) -> Part:
        """Compute up to so many more ticks."""
        engine, first = self.engine, self.engine.tick
        last = min(first + ticks, self.length)
        parts = list(engine.advance(last - first, self._given(first, last), self.rows))
        events = {i: joined([p[0][i] for p in parts], engine.plan.coded[i]) for i in engine.recorded}
        none: np.ndarray = np.zeros((len(self.rows), 0), engine.number)
        both = [np.concatenate([none, *(p[k] for p in parts)], axis=1) for k in (1, 2)]
        return Part(first, last - first, events, np.stack(both, axis=2))

    def _given(self, first: int, last: int) -> dict[int, Events]:
        found = {}
        for i in self.inputs:
            level = self.program.populations[i].level
            a, b = (min(self.engine.steps_before(tick, level), self.steps) for tick in (first, last))
            found[i] = self.source.take(i, a, b)
        return found

    # --- chunks ---

    def chunk(self, part: Part) -> Chunk | None:
        """What is complete, and no chunk yet, after the next part; None where nothing is."""
        for i, events in part.events.items():
            self.waiting[i].append(events)
        self.seen = np.concatenate([self.seen, part.potentials], axis=1)
        done = min(self.engine.steps_before(part.first + part.ticks, self.program.depth), self.steps)
        units = done // max(self.program.timesteps, 1)
        if units == self.given:
            return None
        first, count = self.given, units - self.given
        steps = (first * self.size, units * self.size)
        found = Trace(self._cut(*steps), 1 if self.stream else count, steps[1] - steps[0])
        seen = self._seen(*steps)
        self.given = units
        return Chunk(first, found, {}, seen)

    @property
    def size(self) -> int:
        """Timesteps of a unit."""
        return max(self.program.timesteps, 1)

    def _cut(self, first: int, last: int) -> dict[int, Events]:
        found = {}
        for i, parts in self.waiting.items():
            held = joined(parts, self.engine.plan.coded[i])
            found[i] = between(held, first, last)
            at = int(np.searchsorted(held.step, last))
            code = None if held.code is None else held.code[at:].copy()
            self.waiting[i] = [Events(held.step[at:].copy(), held.soma[at:].copy(), code)]
        return found

    def _seen(self, first: int, last: int) -> dict[int, np.ndarray]:
        found, row = {}, 0
        for i, somas in self.probed.items():
            ticks = self.engine.tick_of(np.arange(first, last), self.program.populations[i].level) - self.since
            values = self.seen[row : row + len(somas), ticks].transpose(1, 0, 2)
            found[i] = values.reshape(1 if self.stream else -1, self.program.timesteps or last - first, len(somas), 2)
            row += len(somas)
        until = int(self.engine.tick_of(np.array([last]), 0)[0])  # ticks before it are not asked for again
        past = min(until - self.since, self.seen.shape[1])
        self.seen, self.since = self.seen[:, past:], self.since + past
        return found

    # --- the end, early or not ---

    def shorten(self) -> int:
        """End the run behind the samples that have begun, or the timesteps that reach no further; its units then.

        What was computed is what a run of so few units would have computed.
        """
        if self.stream:
            lag = max([e.lag for e in self.engine.timing.edges], default=0)
            self.units = min(self.begun + lag, self.units) if self.begun else 0
            self.engine.shorten(1, self.units)
        else:
            interval = self.program.interval
            self.units = min(-(-self.engine.tick // interval), self.units)
            self.engine.shorten(self.units, 0)
        return self.units

    def counters(self) -> Counters:
        """Counters of the whole run, once it is over."""
        return self.engine.counters()

    def logits(self) -> np.ndarray:
        """int64 [samples, classes] of the readout."""
        out: np.ndarray = self.engine.state.out[: 1 if self.stream else self.units].copy()
        return out

    # --- keeping and taking up ---

    def state(self) -> dict[str, np.ndarray]:
        """Everything that changes but what waits to become a chunk; parts since the start give that back."""
        return self.engine.snapshot()

    def resume(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where ``state`` was taken, all parts up to there having been given to ``chunk``.

        UsageError for the state of another run.
        """
        for name, own in (("samples", self.engine.samples), ("steps", self.engine.steps)):
            if name not in state or state[name].dtype != np.int64 or state[name].reshape(-1).tolist() != [own]:
                raise UsageError(f"the checkpoint's '{name}' does not fit Program '{self.program.name}'; start anew")
        self.engine.restore(state)


__all__ = ["STATES", "EventRun", "Part", "Source", "windowed"]
