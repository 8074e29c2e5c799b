"""A run of images, chunk by chunk: files written as it goes, checkpoints, and a way to stop."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc.events import EventWindows
from nmc.interrupts import interruptible
from nmc.recording import EVENTS, Recorder
from nmc.timing import Clock
from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, RunResult
from nmc_emulator.checkpoint import Checkpoint
from nmc_emulator.chunked import ChunkedRun, Piece, flatten, joined, unflatten
from nmc_emulator.counters import OVERFLOW
from nmc_emulator.probe import parse_probes
from nmc_emulator.recount import Chunk, host_activity
from nmc_emulator.trace import Trace, events_of
from nmc_emulator.trace import coded as is_coded
from nmc_emulator.tracing import plots
from nmc_emulator.tracing.sinks import ALL_FILES, FORMATS, Loads, Sink, open_sinks

TRACES = ("events", *FORMATS)
FILES = (EVENTS, *ALL_FILES)
RECORD_BYTES = 1 << 26  # a checkpoint's record is written when it holds as much, or is as old as
RECORD_SECONDS = 2.0


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run beside its counters.

    record: "all", or names of populations whose codes to return.  trace: file formats (TRACES).  probe: texts as
    ``parse_probes`` takes.  plot: pictures.  checkpoint: the file, or None.
    """

    record: str | list[str] = ""
    trace: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    plot: bool = False
    checkpoint: Path | None = None
    timing: str = ""
    multicast: bool = False

    def __post_init__(self) -> None:
        for form in self.trace:
            if form not in TRACES:
                raise UsageError(f"no trace format {form!r}; choose of {', '.join(TRACES)}")

    @property
    def files(self) -> bool:
        """Whether the run writes more files than the report and the spikes."""
        return bool(self.trace or self.probe or self.plot)

    @property
    def events(self) -> bool:
        """Whether something wants the events of all populations."""
        return self.files or bool(self.timing)


@dataclass(frozen=True)
class Outcome:
    """``samples`` asked for; ``result`` of those that were finished."""

    result: RunResult
    samples: int
    timing: dict[str, Any] | None = None

    @property
    def partial(self) -> bool:
        """Whether the run was stopped."""
        return self.result.samples < self.samples


def run_images(
    program: Program,
    digest: str,
    images: np.ndarray | EventWindows,
    labels: np.ndarray | None,
    wishes: Wishes,
    folder: Path | None,
    *,
    engine: str,
    strict: bool,
    batch: int,
    progress: bool,
    catch: bool,
    arithmetic: str = "exact",
) -> Outcome:
    """Emulate images; trace files go to ``folder`` while the run goes on.

    catch: Ctrl-C ends the run behind the sample at hand (engine "layers"); without any sample it is raised again.
    """
    everything, stops = wishes.events or wishes.record == "all", bool(wishes.events or wishes.checkpoint)
    _check_names(program, wishes.record)
    emulator = Emulator(
        program,
        record="all" if everything else wishes.record or None,
        engine="layers" if stops and engine == "auto" else engine,
        strict=strict,
        batch=min(batch, len(images)),
        arithmetic=arithmetic,
    )
    if emulator.name != "layers" and not stops:
        return Outcome(emulator.run(images[:], progress), len(images))
    run = ChunkedRun(emulator, images, parse_probes(program, list(wishes.probe)))
    given = digest_of(images) if wishes.checkpoint else ""
    with interruptible() if catch else contextlib.nullcontext(lambda: False) as stop:
        about = {"strict": strict, "arithmetic": arithmetic}
        return _Run(run, digest, labels, wishes, folder, about, given).go(progress, stop)


def _check_names(program: Program, record: str | list[str]) -> None:
    """UsageError for a name that is no population with events."""
    known = [p.name for p in program.populations if p.model != "readout"]
    if record and record != "all" and (unknown := [name for name in record if name not in known]):
        more = ", ..." if len(known) > 8 else ""
        raise UsageError(
            f"cannot record '{unknown[0]}': Program '{program.name}' has no such population;"
            f" it has {', '.join(known[:8])}{more}"
        )


def digest_of(images: np.ndarray | EventWindows) -> str:
    """sha256 (hex) of an array: type, shape and values; or what names the frames of a recording."""
    if isinstance(images, EventWindows):
        return images.digest
    images = np.ascontiguousarray(images)
    hasher = hashlib.sha256(f"{images.dtype.str}{images.shape}\0".encode())
    hasher.update(images.data)
    return hasher.hexdigest()


class _Run:
    """One run in progress."""

    def __init__(
        self,
        run: ChunkedRun,
        digest: str,
        labels: np.ndarray | None,
        wishes: Wishes,
        folder: Path | None,
        about: dict[str, Any],
        given: str,
    ) -> None:
        self.run, self.program, self.digest, self.labels = run, run.program, digest, labels
        self.input = given
        self.wishes, self.folder, self.about = wishes, folder, about
        names = [p.name for p in self.program.populations]
        self.kept = {
            c.population: np.zeros((run.samples, *c.shape), c.dtype)
            for c in run.columns()
            if c.kind == "codes" and (wishes.record == "all" or names[c.population] in wishes.record)
        }
        self.logits = np.zeros((run.samples, *run.columns()[0].shape), np.int64)
        self.clock = Clock(self.program, wishes.timing, wishes.multicast) if wishes.timing else None
        self.sinks, self.loads, self.recorder = self._open()
        self.sinks += [self.clock] if self.clock else []

    def _open(self) -> tuple[list[Sink], Loads | None, Recorder | None]:
        if self.folder is None or not self.wishes.files:
            return [], None, None
        forms = tuple(f for f in self.wishes.trace if f in FORMATS)
        picture = self.run.samples if self.wishes.plot else 0
        sinks, loads = open_sinks(self.program, self.folder, forms, self.run.probes, picture)
        recorder = Recorder(self.folder / EVENTS, self.program) if "events" in self.wishes.trace else None
        return [*sinks, *([recorder] if recorder else [])], loads, recorder

    # --- the loop ---

    def go(self, progress: bool, stop: Callable[[], bool]) -> Outcome:
        """Run to the end, or until ``stop``."""
        with contextlib.ExitStack() as stack:
            show = stack.enter_context(_bar(self.run.samples, progress))
            waiting = _Waiting(self.run, self._checkpoint())
            stack.callback(waiting.close)
            if waiting.checkpoint is not None:
                self._take_up(waiting.checkpoint, show)
            while self.run.done < self.run.samples and not stop():
                piece = self.run.step()
                waiting.add(piece)
                self._take(piece)
                show(len(piece))
            waiting.write()
            return self._finish()

    def _take(self, piece: Piece) -> None:
        at = slice(piece.first, piece.first + len(piece))
        self.logits[at] = piece.logits_int
        for i, codes in self.kept.items():
            codes[at] = piece.codes[i]
        if self.sinks:
            chunk = self._chunk(piece)
            for sink in self.sinks:
                sink.add(chunk)

    def _chunk(self, piece: Piece) -> Chunk:
        steps, populations = len(piece) * self.program.timesteps, self.program.populations
        events = {i: events_of(c.reshape(steps, -1), is_coded(populations[i])) for i, c in piece.codes.items()}
        images = self.run.block(piece.first, piece.first + len(piece))
        active = host_activity(self.program, images, piece.first)
        return Chunk(piece.first, Trace(events, len(piece), steps), active, piece.potentials)

    def _finish(self) -> Outcome:
        n, populations = self.run.done, self.program.populations
        if n == 0:
            raise KeyboardInterrupt
        counters, logits = self.run.counters(), self.logits[:n]
        scale = next((p.readout_scale for p in populations if p.model == "readout"), 1.0)
        codes = {populations[i].name: c[:n] for i, c in self.kept.items()}
        mapped = self.program.mapping is not None
        result = RunResult(logits * scale, logits, counters, n, "layers", mapped, codes)
        for sink in self.sinks:
            sink.close()
        if self.recorder is not None:
            overflow = np.stack([counters.overflow[name] for name in OVERFLOW], axis=1)
            self.recorder.finish(self.digest, logits, overflow, None if self.labels is None else self.labels[:n])
        if self.wishes.plot and self.loads is not None and self.folder is not None:
            layout = self.loads.recount.layout
            plots.draw_cores(self.folder / plots.CORES, self.program, layout, counters, self.loads.packets, n)
        return Outcome(result, self.run.samples, self.clock.report() if self.clock else None)

    # --- checkpoints ---

    def _checkpoint(self) -> Checkpoint | None:
        if self.wishes.checkpoint is None:
            return None
        probes = [[self.program.populations[p.population].name, p.somas.tolist()] for p in self.run.probes]
        columns = self.run.columns()
        names = [self.program.populations[c.population].name for c in columns if c.kind == "codes"]
        about = {
            "program": self.digest,
            "input": self.input,
            "recorded": hashlib.sha256(repr((names, probes)).encode()).hexdigest(),
            **self.about,
        }
        fields = [(c.dtype, c.shape) for c in columns]
        return Checkpoint(self.wishes.checkpoint, about, self.run.samples, fields, self.run.state_size)

    def _take_up(self, checkpoint: Checkpoint, show: Callable[[int], object]) -> None:
        """Feed what an earlier run recorded to whoever wants it, and go on behind it."""
        for first, arrays in checkpoint.records():
            piece = unflatten(first, arrays, self.run.columns())
            self._take(piece)
            show(len(piece))
        if checkpoint.dropped:
            print(f"nmc: {checkpoint.path}: an unfinished record at its end was dropped", file=sys.stderr)
        if checkpoint.state is not None:
            self.run.resume(checkpoint.done, checkpoint.state)
            told = f"nmc: {checkpoint.path}: going on behind {checkpoint.done} of {checkpoint.samples} samples"
            print(told, file=sys.stderr, flush=True)


class _Waiting:
    """Finished pieces on their way to the checkpoint, if there is one."""

    def __init__(self, run: ChunkedRun, checkpoint: Checkpoint | None) -> None:
        self.run, self.checkpoint = run, checkpoint
        self.pieces: list[Piece] = []
        self.bytes, self.since = 0, time.monotonic()

    def add(self, piece: Piece) -> None:
        """A piece just computed; written with those before it once they are many or old."""
        if self.checkpoint is None:
            return
        self.pieces.append(piece)
        self.bytes += sum(array.nbytes for array in flatten(piece))
        if self.bytes >= RECORD_BYTES or time.monotonic() - self.since >= RECORD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self.checkpoint is not None and self.pieces:
            self.checkpoint.add(flatten(joined(self.pieces)), self.run.state())
        self.pieces, self.bytes, self.since = [], 0, time.monotonic()

    def close(self) -> None:
        """Close the file; it stays until the results are written elsewhere."""
        if self.checkpoint is not None:
            self.checkpoint.close()


@contextlib.contextmanager
def _bar(samples: int, progress: bool) -> Iterator[Callable[[int], object]]:
    """A bar on standard error with the time that is left, or nothing."""
    if not progress:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=samples, unit="sample", leave=False, dynamic_ncols=True) as bar:
        yield bar.update
