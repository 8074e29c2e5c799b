"""The files of a run, and its times, made of its chunks while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nmc.recording import EVENTS, Recorder
from nmc.timing import Clock
from nmc.wishes import Wishes
from nmc_compiler.program.model import Program
from nmc_emulator.counters import OVERFLOW, Counters
from nmc_emulator.probe import Probe
from nmc_emulator.recount import Chunk
from nmc_emulator.tracing import plots
from nmc_emulator.tracing.sinks import FORMATS, Loads, Sink, open_sinks


class RunFiles:
    """Takes the chunks of a run of ``units`` samples, or timesteps of a stream; files go to ``folder``.

    states: what chunks hold of probed populations (default: all that ``probe.Tap`` gives).
    """

    def __init__(
        self,
        program: Program,
        wishes: Wishes,
        folder: Path | None,
        probes: tuple[Probe, ...],
        units: int,
        states: dict[int, tuple[str, ...]] | None = None,
    ) -> None:
        self.program, self.wishes, self.folder = program, wishes, folder
        self.stream = program.timesteps == 0
        self.sinks: list[Sink] = []
        self.loads: Loads | None = None
        self.recorder: Recorder | None = None
        self.clock = Clock(program, wishes.timing, wishes.multicast, wishes.rates) if wishes.timing else None
        if folder is not None and wishes.files:
            forms, steps = tuple(f for f in wishes.trace if f in FORMATS), units if self.stream else 0
            self.sinks, self.loads = open_sinks(
                program, folder, forms, probes, units if wishes.plot else 0, steps, states
            )
            if "events" in wishes.trace:
                self.recorder = Recorder(folder / EVENTS, program)
        self.takers = [*self.sinks, *(t for t in (self.recorder, self.clock) if t is not None)]

    @property
    def wanted(self) -> bool:
        """Whether anybody takes chunks."""
        return bool(self.takers)

    def add(self, chunk: Chunk) -> None:
        """The next samples, or timesteps of a stream."""
        for taker in self.takers:
            taker.add(chunk)

    def shorten(self, units: int) -> None:
        """The run ends behind fewer units than it was opened for."""
        if self.loads is not None and self.stream:
            self.loads.recount.shorten(units)

    def finish(
        self,
        digest: str,
        counters: Counters,
        logits: np.ndarray,
        labels: np.ndarray | None,
        units: int,
        window: int = 0,
    ) -> dict[str, Any] | None:
        """End all files; what a report says of the time, if it was asked for.

        window: timesteps of the samples that go through a stream.
        """
        for taker in self.takers:
            taker.close()
        if self.recorder is not None:
            overflow = np.stack([counters.overflow[name] for name in OVERFLOW], axis=1)
            self.recorder.finish(digest, logits, overflow, labels, window)
        if self.wishes.plot and self.loads is not None and self.folder is not None:
            layout, unit = self.loads.recount.layout, "timestep" if self.stream else "sample"
            path = self.folder / plots.CORES
            plots.draw_cores(path, self.program, layout, counters, self.loads.packets, units, unit)
        return self.clock.report() if self.clock else None
