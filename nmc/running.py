"""A run of images, chunk by chunk: files written as it goes, checkpoints, and a way to stop."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc.encoders import SpikeCoded
from nmc.events import EventWindows
from nmc.files import RunFiles
from nmc.interrupts import interruptible
from nmc.sweep.cluster import pool
from nmc.sweep.samples import Setup, SpreadRun
from nmc.waiting import Waiting
from nmc.wishes import Wishes
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, RunResult
from nmc_emulator.checkpoint import Checkpoint
from nmc_emulator.chunked import ChunkedRun, Piece, flatten, joined, unflatten
from nmc_emulator.probe import parse_probes
from nmc_emulator.progress import progress_bar
from nmc_emulator.recount import Chunk, host_activity
from nmc_emulator.sites import logits_of, runtime_sites
from nmc_emulator.trace import Trace, events_of
from nmc_emulator.trace import coded as is_coded


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
    images: np.ndarray | EventWindows | SpikeCoded,
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
    workers: int = 0,
    scheduler: str | None = None,
) -> Outcome:
    """Emulate images; trace files go to ``folder`` while the run goes on.

    catch: Ctrl-C ends the run behind the sample at hand (engine "layers"); without any sample it is raised again.
    workers, scheduler: samples are computed elsewhere (``nmc.sweep``, engine "layers").
    """
    everything, stops = wishes.events or wishes.record == "all", bool(wishes.events or wishes.checkpoint)
    wishes.check_names(program)
    how: dict[str, Any] = {
        "record": "all" if everything else wishes.record or None,
        "engine": "layers" if stops and engine == "auto" else engine,
        "strict": strict,
        "batch": min(batch, len(images)),
        "arithmetic": arithmetic,
    }
    emulator = Emulator(program, **how)
    if emulator.name in ("ticks", "neurocore") and not stops:
        return Outcome(emulator.run(images[:], progress), len(images))
    probes = parse_probes(program, list(wishes.probe))
    given = digest_of(images) if wishes.checkpoint else ""
    with contextlib.ExitStack() as stack:
        if workers or scheduler:
            team = stack.enter_context(pool(workers, scheduler))
            run: ChunkedRun = SpreadRun(emulator, images, Setup.of(program, how, probes, len(images)), team)
        else:
            run = ChunkedRun(emulator, images, probes)
        stop = stack.enter_context(interruptible("this sample")) if catch else lambda: False
        about = {"strict": strict, "arithmetic": arithmetic}
        return _Run(run, digest, labels, wishes, folder, about, given).go(progress, stop)


def digest_of(images: np.ndarray | EventWindows | SpikeCoded) -> str:
    """sha256 (hex) of an array: type, shape and values; or what names frames and spikes made of something else."""
    if not isinstance(images, np.ndarray):
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
        self.files = RunFiles(self.program, wishes, folder, run.probes, run.samples)

    # --- the loop ---

    def go(self, progress: bool, stop: Callable[[], bool]) -> Outcome:
        """Run to the end, or until ``stop``."""
        with contextlib.ExitStack() as stack:
            show = stack.enter_context(progress_bar(self.run.samples, "sample", progress))
            checkpoint = self._checkpoint()
            waiting = Waiting[Piece](lambda pieces: self._keep(checkpoint, pieces))
            if checkpoint is not None:
                stack.callback(checkpoint.close)
                self._take_up(checkpoint, show)
            while self.run.done < self.run.samples and not stop():
                piece = self.run.step()
                if checkpoint is not None:
                    waiting.add(piece, sum(array.nbytes for array in flatten(piece)))
                self._take(piece)
                show(len(piece))
            waiting.flush()
            return self._finish()

    def _keep(self, checkpoint: Checkpoint | None, pieces: list[Piece]) -> None:
        if checkpoint is not None:
            checkpoint.add(flatten(joined(pieces)), self.run.state())

    def _take(self, piece: Piece) -> None:
        at = slice(piece.first, piece.first + len(piece))
        self.logits[at] = piece.logits_int
        for i, codes in self.kept.items():
            codes[at] = piece.codes[i]
        if self.files.wanted:
            self.files.add(self._chunk(piece))

    def _chunk(self, piece: Piece) -> Chunk:
        steps, populations = len(piece) * self.program.timesteps, self.program.populations
        events = {i: events_of(c.reshape(steps, -1), is_coded(populations[i])) for i, c in piece.codes.items()}
        images = self.run.block(piece.first, piece.first + len(piece))
        active = host_activity(self.program, images, piece.first)
        places = images[:, :, :3] if runtime_sites(self.program) else None
        return Chunk(piece.first, Trace(events, len(piece), steps), active, piece.potentials, places)

    def _finish(self) -> Outcome:
        n, populations = self.run.done, self.program.populations
        if n == 0:
            raise KeyboardInterrupt
        counters, logits = self.run.counters(), self.logits[:n]
        codes = {populations[i].name: c[:n] for i, c in self.kept.items()}
        mapped = self.program.mapping is not None
        shown = logits_of(self.program, logits, self.run.block(0, n))
        result = RunResult(shown, logits, counters, n, "layers", mapped, codes)
        labels = None if self.labels is None else self.labels[:n]
        timing = self.files.finish(self.digest, counters, logits, labels, n)
        return Outcome(result, self.run.samples, timing)

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
