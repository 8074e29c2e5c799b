"""A run that events drive: streams, recurrent networks, whatever the event engine runs; part by part."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmc.drive import Drive
from nmc.files import RunFiles
from nmc.hosted import HostSource
from nmc.interrupts import interruptible
from nmc.kept import Kept
from nmc.scores import Scores, output_of
from nmc.timing import check_timing
from nmc.waiting import Waiting
from nmc.wishes import Wishes
from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, EventResult, Events, RunResult
from nmc_emulator.event_log import EventCheckpoint
from nmc_emulator.event_run import STATES, EventRun, Part
from nmc_emulator.host_steps import HostedRun, settled
from nmc_emulator.probe import Probe, parse_probes
from nmc_emulator.progress import progress_bar
from nmc_emulator.recount import Chunk
from nmc_emulator.suits import engine_for
from nmc_emulator.trace import Trace

FIRST_TICKS, MOST_TICKS = 16, 4096  # of a part
PART_SECONDS = 0.2  # a part takes about as long, so that a run can be stopped and shown


@dataclass(frozen=True)
class EventOutcome:
    """``result`` of what was finished; ``units`` (samples, or timesteps of a stream) of the ``asked`` for.

    program: with the windows that were run.  events: recorded population -> its events.  labels: of the samples, where
    ``result.logits`` tell classes; else None.
    """

    program: Program
    result: RunResult
    units: int
    asked: int
    events: Mapping[str, Events]
    labels: np.ndarray | None
    timing: dict[str, Any] | None

    @property
    def partial(self) -> bool:
        """Whether the run was stopped."""
        return self.units < self.asked


@dataclass(frozen=True)
class EventJob:
    """What is run, by whom, and how: the options of ``nmc.emulate``.  digest: of the Program as it was given."""

    drive: Drive
    digest: str
    wishes: Wishes
    engine: str = "auto"
    strict: bool = False
    arithmetic: str = "exact"

    def __post_init__(self) -> None:
        """UsageError for what does not go together, before anything is run."""
        if self.engine in ("layers", "ticks", "neurocore") and self.wishes.checkpoint:
            raise UsageError(f"the engine '{self.engine}' runs in one go and keeps no checkpoint; choose events")
        if self.host is not None and self.engine == "neurocore":
            raise UsageError("the engine 'neurocore' has no host in its loop; choose events, ticks or layers")
        if self.host is not None and self.wishes.checkpoint:
            raise UsageError("a run with the host in its loop keeps no checkpoint; leave --checkpoint out")
        if self.wishes.timing:
            check_timing(self.drive.program, self.wishes.timing, self.wishes.multicast, self.wishes.rates)
        self.wishes.check_names(self.drive.program)

    @property
    def host(self) -> HostSource | None:
        """What is in the loop, where the network has a part on the host."""
        return self.drive.source if isinstance(self.drive.source, HostSource) else None

    @property
    def scored(self) -> int | None:
        """The population whose events tell classes, if any do."""
        program = self.drive.program
        if self.drive.labels is None or any(p.model == "readout" for p in program.populations):
            return None
        return output_of(program)

    @property
    def kept(self) -> list[int]:
        """Populations whose events are returned."""
        wanted, populations = self.wishes.record, self.drive.program.populations
        senders = [i for i, p in enumerate(populations) if p.model != "readout"]
        return [i for i in senders if wanted == "all" or populations[i].name in wanted]

    def emulator(self) -> Emulator:
        """The engine, recording what someone asks for."""
        program = self.drive.program
        seen = {*self.kept, *([self.scored] if self.scored is not None else [])}
        seen |= set() if self.host is None else set(self.host.reads)
        names = [program.populations[i].name for i in sorted(seen)]
        engine = engine_for(program) if self.engine == "auto" else self.engine
        record = "all" if self.wishes.events else names or None
        return Emulator(program, record=record, engine=engine, strict=self.strict, arithmetic=self.arithmetic)


def run_job(job: EventJob, folder: Path | None, *, progress: bool, catch: bool) -> EventOutcome:
    """Run; files go to ``folder`` while it goes on.

    catch: Ctrl-C ends the run behind the timestep or sample at hand; without any it is raised again.
    """
    probes = parse_probes(job.drive.program, list(job.wishes.probe))
    if job.host is not None:
        job.host.host.strict = job.strict
    emulator = job.emulator()
    taker = _Taker(job, folder, probes)
    if emulator.name in ("layers", "ticks", "neurocore"):
        return _in_one_go(job, emulator, taker, probes, progress)
    source, units = job.drive.source, job.drive.units
    run = (
        EventRun(emulator, source, units, probes) if job.host is None else HostedRun(emulator, job.host, units, probes)
    )
    what = "this sample" if job.drive.program.timesteps else "this timestep"
    with interruptible(what) if catch else contextlib.nullcontext(lambda: False) as stop:
        return _Run(job, run, taker).go(progress, stop)


class _Taker:
    """All that is made of the chunks of a run."""

    def __init__(self, job: EventJob, folder: Path | None, probes: tuple[Probe, ...]) -> None:
        drive, populations = job.drive, job.drive.program.populations
        states: dict[int, tuple[str, ...]] = {}
        states |= {p.population: STATES for p in probes if populations[p.population].model in ("lif", "cell")}
        self.job, self.steps = job, max(drive.program.timesteps, 1)
        self.files = RunFiles(drive.program, job.wishes, folder, probes, drive.units, states)
        self.kept = Kept(drive.program, job.kept, folder)
        self.scores = None if job.scored is None else Scores(drive.program, job.scored, drive.samples)

    def add(self, chunk: Chunk) -> None:
        """The next chunk."""
        self.files.add(chunk)
        self.kept.add(chunk.first * self.steps, chunk.trace.events)
        if self.scores is not None:
            self.scores.add(chunk)

    def finish(self, result: RunResult, units: int) -> EventOutcome:
        """End the files; what the run came to."""
        drive = self.job.drive
        labels = None if drive.labels is None else drive.labels[: result.samples]
        given = self.job.digest, result.counters, result.logits_int, labels, units, drive.window
        timing = self.files.finish(*given)
        if self.scores is not None:
            sums = self.scores.sums[: result.samples]
            result = replace(result, logits=sums.astype(np.float64), logits_int=sums)
        elif not any(p.model == "readout" for p in drive.program.populations):
            labels = None
        return EventOutcome(drive.program, result, units, drive.units, self.kept, labels, timing)


class _Run:
    """One run on the event engine in progress."""

    def __init__(self, job: EventJob, run: EventRun, taker: _Taker) -> None:
        self.job, self.run, self.taker = job, run, taker
        self.shown, self.ticks = 0, FIRST_TICKS

    def go(self, progress: bool, stop: Callable[[], bool]) -> EventOutcome:
        """Run to the end, or until ``stop``."""
        run = self.run
        with contextlib.ExitStack() as stack:
            show = stack.enter_context(progress_bar(run.steps, "timestep", progress))
            checkpoint = self._checkpoint()
            waiting = Waiting[Part](lambda parts: self._keep(checkpoint, parts))
            if checkpoint is not None:
                stack.callback(checkpoint.close)
                self._take_up(checkpoint, show)
            while run.engine.tick < run.length and not stop():
                part = self._part()
                if checkpoint is not None:
                    waiting.add(part, part.potentials.nbytes + sum(16 * len(e) for e in part.events.values()))
                self._take(part, show)
            waiting.flush()
            if run.engine.tick < run.length:
                self._end_early()
            return self._finish()

    def _keep(self, checkpoint: EventCheckpoint | None, parts: list[Part]) -> None:
        if checkpoint is not None:
            checkpoint.add(parts)

    def _part(self) -> Part:
        """The next part, of a length that suits the speed."""
        began = time.monotonic()
        part = self.run.step(self.ticks)
        took = time.monotonic() - began
        if took > 2 * PART_SECONDS:
            self.ticks = max(self.ticks // 2, 1)
        elif took < PART_SECONDS:
            self.ticks = min(self.ticks * 2, MOST_TICKS)
        return part

    def _take(self, part: Part, show: Callable[[int], object]) -> None:
        chunk = self.run.chunk(part)
        if chunk is not None:
            self.taker.add(chunk)
        begun = min(self.run.engine.steps_before(part.first + part.ticks, 0), self.run.steps)
        show(begun - self.shown)
        self.shown = begun

    def _end_early(self) -> None:
        """Behind what has begun; KeyboardInterrupt where nothing has."""
        if self.run.shorten() == 0:
            raise KeyboardInterrupt
        self.taker.files.shorten(self.run.units)
        while self.run.engine.tick < self.run.length:
            self._take(self.run.step(self.ticks), lambda steps: None)

    def _finish(self) -> EventOutcome:
        run, program = self.run, self.run.program
        scale = next((p.readout_scale for p in program.populations if p.model == "readout"), 1.0)
        logits = run.logits()
        mapped, samples = program.mapping is not None, run.units if program.timesteps else 1
        result = RunResult(logits * scale, logits, run.counters(), samples, "events", mapped)
        return self.taker.finish(result, run.units)

    # --- checkpoints ---

    def _checkpoint(self) -> EventCheckpoint | None:
        job = self.job
        if job.wishes.checkpoint is None:
            return None
        names = [self.run.program.populations[i].name for i in self.run.engine.recorded]
        about = {
            "program": job.digest,
            "input": job.drive.digest,
            "recorded": repr((names, self.run.rows.tolist())),
            "strict": job.strict,
            "arithmetic": job.arithmetic,
        }
        return EventCheckpoint(job.wishes.checkpoint, about, self.run)

    def _take_up(self, checkpoint: EventCheckpoint, show: Callable[[int], object]) -> None:
        """Feed what an earlier run recorded to whoever wants it, and go on behind it."""
        for part in checkpoint.parts():
            self._take(part, show)
        if checkpoint.done:
            told = f"nmc: {checkpoint.path}: going on behind {self.run.begun:,} of {self.run.steps:,} timesteps"
            print(told, file=sys.stderr, flush=True)


def _in_one_go(
    job: EventJob, emulator: Emulator, taker: _Taker, probes: tuple[Probe, ...], progress: bool
) -> EventOutcome:
    """The run by an engine that is there to be compared with."""
    program, drive = emulator.program, job.drive
    populations = program.populations
    given = {} if job.host is None else settled(emulator, job.host, drive.steps)
    inputs = {
        p.name: given[i] if given else drive.source.take(i, 0, drive.steps)
        for i, p in enumerate(populations)
        if p.model == "input"
    }
    probes = tuple(p for p in probes if populations[p.population].model in ("lif", "cell"))
    wanted = {populations[p.population].name: p.somas for p in probes}
    ran: EventResult = emulator.run_events(inputs, drive.steps, probe=wanted, progress=progress)
    recorded = {i: ran.events[p.name] for i, p in enumerate(populations) if p.name in ran.events}
    seen = {p.population: _seen(ran.potentials[populations[p.population].name], drive.samples) for p in probes}
    taker.add(Chunk(0, Trace(recorded, drive.samples, drive.steps), potentials=seen))
    logits = emulator.engine.logits[: drive.samples]  # type: ignore[union-attr]
    scale = next((p.readout_scale for p in populations if p.model == "readout"), 1.0)
    counted = ran.counters, drive.samples, emulator.name, ran.mapped
    result = RunResult(logits * scale, logits, *counted, weights=ran.weights)
    return taker.finish(result, drive.units)


def _seen(both: tuple[np.ndarray, np.ndarray], samples: int) -> np.ndarray:
    """u and v [timesteps, somas] as chunks hold them."""
    found = np.stack(both, axis=-1)
    return found.reshape(samples, -1, *found.shape[1:])
