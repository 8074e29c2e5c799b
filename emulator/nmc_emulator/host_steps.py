"""A run with the host in its loop: after every tick it reads what it asked for, before the next it sends.

The chip's part of a network that is cut at ops of the host (docs/host.md) is an ordinary Program, whose inputs live at
the level at which the host can answer: one tick behind the last population that it reads for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from nmc_compiler.errors import VerifyError

from .emulate import Emulator
from .event_run import EventRun, Part
from .event_run import Source as Source
from .probe import Probe
from .trace import Events, coded, codes_of, joined


class Host(Source, Protocol):
    """A source that makes its events of what it reads. ``reads``: population -> whether its potential is read."""

    reads: Mapping[int, bool]

    def hear(self, population: int, step: int, values: np.ndarray) -> None:
        """Codes, or potentials, [somas] of one timestep, in order."""

    def forget(self) -> None:
        """Start again before the first timestep."""


class HostedRun(EventRun):
    """An EventRun of which ``source`` hears each tick before it is asked for the next one's events."""

    source: Host

    def __init__(self, emulator: Emulator, source: Host, units: int, probes: tuple[Probe, ...] = ()) -> None:
        super().__init__(emulator, source, units, probes)
        source.forget()
        self.own = len(self.rows)
        watched = [(i, s) for i, potential in source.reads.items() if potential for s in range(self._size(i))]
        self.rows = np.concatenate([self.rows, np.array(watched, np.int64).reshape(-1, 2)])

    def _size(self, population: int) -> int:
        return int(np.prod(self.program.populations[population].shape))

    def step(self, ticks: int) -> Part:
        """Compute up to so many more ticks, one after the other."""
        first, parts = self.engine.tick, []
        for _ in range(min(ticks, self.length - first)):
            part = super().step(1)
            self._tell(part)
            parts.append(part)
        events = {i: joined([p.events[i] for p in parts], self.engine.plan.coded[i]) for i in self.engine.recorded}
        seen: np.ndarray = np.zeros((self.own, 0, 2), self.engine.number)
        both = np.concatenate([seen, *(p.potentials[: self.own] for p in parts)], axis=1)
        return Part(first, len(parts), events, both)

    def _tell(self, part: Part) -> None:
        row = self.own
        for i, potential in self.source.reads.items():
            size, level = self._size(i), self.program.populations[i].level
            step, after = (min(self.engine.steps_before(part.first + k, level), self.steps) for k in (0, 1))
            if after > step and potential:
                self.source.hear(i, step, part.potentials[row : row + size, 0, 1].copy())
            elif after > step:
                self.source.hear(i, step, _dense(part.events[i], size))
            row += size if potential else 0


def _dense(events: Events, size: int) -> np.ndarray:
    found = np.zeros(size, np.int64)
    found[events.soma] = 1 if events.code is None else events.code
    return found


def settled(emulator: Emulator, source: Host, steps: int) -> dict[int, Events]:
    """Inputs of ``steps`` timesteps that the host would send in reply to what they themselves lead to.

    For engines that take all inputs at once: run, let the host answer, and again until the answers stay as they are;
    each run settles what is sent next. VerifyError where they never do, which only a wrong level can cause.
    """
    program = emulator.program
    inputs = [i for i, p in enumerate(program.populations) if p.model == "input"]
    given = {i: Events(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32)) for i in inputs}
    names = [p.name for p in program.populations]
    probe = {names[i]: None for i, potential in source.reads.items() if potential}
    for _ in range(steps * len(inputs) + 2):
        ran = emulator.run_events({names[i]: e for i, e in given.items()}, steps, probe=probe)
        heard = {}
        for i, potential in source.reads.items():
            dense = (
                ran.potentials[names[i]][1]
                if potential
                else codes_of(ran.events[names[i]], steps, program.populations[i].shape)
            )
            heard[i] = dense.reshape(steps, -1)
        source.forget()
        parts: dict[int, list[Events]] = {i: [] for i in inputs}
        for step in range(steps):
            for i, values in heard.items():
                source.hear(i, step, values[step])
            for i in inputs:
                parts[i].append(source.take(i, step, step + 1))
        again = {i: joined(found, coded(program.populations[i])) for i, found in parts.items()}
        if all(_same(given[i], again[i]) for i in inputs):
            return given
        given = again
    raise VerifyError(f"Program '{program.name}': what its host sends depends on itself")


def _same(a: Events, b: Events) -> bool:
    codes = [np.ones(len(e)) if e.code is None else e.code for e in (a, b)]
    pairs = ((a.step, b.step), (a.soma, b.soma), tuple(codes))
    return all(np.array_equal(x, y) for x, y in pairs)
