"""Samples of one run spread over workers: what comes back is what one process computes, in its order."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc import _version
from nmc.sweep.cluster import Lost, Pool, check_version
from nmc_compiler.errors import NmcError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator
from nmc_emulator.chunked import ChunkedRun, Images, Piece, flatten, joined, unflatten
from nmc_emulator.probe import Probe

PER_SLOT = 4  # ranges for every piece of work that runs at a time, so that all end at about the same time
MOST_BYTES = 1 << 26  # of what a range sends back


@dataclass(frozen=True)
class Setup:
    """How ``samples`` are run: what an Emulator and a ChunkedRun are made of. ``name``: of this run alone."""

    program: Program
    options: dict[str, Any]
    probes: tuple[Probe, ...]
    samples: int
    name: str
    nmc: str

    @staticmethod
    def of(program: Program, options: dict[str, Any], probes: tuple[Probe, ...], samples: int) -> Setup:
        """With a name that no other has."""
        return Setup(program, options, probes, samples, uuid.uuid4().hex, _version())


@dataclass(frozen=True)
class Range:
    """Samples first..last - 1; ``images`` begin with sample ``start``, before them where samples overlap."""

    first: int
    last: int
    start: int
    images: np.ndarray


class SpreadRun(ChunkedRun):
    """A ChunkedRun whose samples are computed by the workers of a Pool, and counted here."""

    def __init__(self, emulator: Emulator, images: Images, setup: Setup, team: Pool) -> None:
        super().__init__(emulator, images, setup.probes)
        self.setup, self.team = setup, team
        self.results: Iterator[tuple[Range, Any]] | None = None

    def step(self, most: int | None = None) -> Piece:
        """The next samples; NmcError where their worker died again and again."""
        if self.results is None:
            self.results = self.team.in_order(_run, self._ranges(), (self.team.share(self.setup),))
        job, outcome = next(self.results)
        if isinstance(outcome, Lost):
            raise NmcError(f"samples {job.first} to {job.last - 1}: {outcome.text}")
        arrays, state = outcome
        self.follow(job.last - job.first, state)
        return unflatten(job.first, arrays, self.columns())

    def _ranges(self) -> Iterator[Range]:
        size, first = self._size(), self.done
        while first < self.samples:
            last, start = min(first + size, self.samples), max(first - self.overlap, 0)
            yield Range(first, last, start, np.asarray(self.images[start:last]))
            first = last

    def _size(self) -> int:
        """Samples of a range: whole batches, not more than may be held at a time."""
        each = sum(c.dtype.itemsize * int(np.prod(c.shape)) for c in self.columns())
        wanted = min(-(-(self.samples - self.done) // (PER_SLOT * self.team.slots)), max(MOST_BYTES // max(each, 1), 1))
        return max(wanted // self.engine.batch, 1) * self.engine.batch


# --- on a worker ------------------------------------------------------------------------------------------

_held = threading.local()  # the run of this thread, which is planned once


@dataclass(frozen=True)
class _Part:
    """Images of which only those from ``start`` on are here."""

    start: int
    images: np.ndarray
    samples: int

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, which: slice) -> np.ndarray:
        start = self.start if which.start is None else which.start
        stop = start + 1 if which.stop is None or which.stop <= start else which.stop
        return self.images[start - self.start : stop - self.start]


def _run(job: Range, setup: Setup) -> tuple[list[np.ndarray], np.ndarray]:
    """Arrays of the samples of a range, and what they add to the counters."""
    check_version(setup.nmc)
    images = _Part(job.start, job.images, setup.samples)
    if getattr(_held, "name", None) != setup.name:
        _held.run = ChunkedRun(Emulator(setup.program, **setup.options), images, setup.probes)
        _held.name = setup.name
    run: ChunkedRun = _held.run
    run.images = images
    run.begin_at(job.first)
    pieces = []
    while run.done < job.last:
        pieces.append(run.step(job.last - run.done))
    return flatten(joined(pieces)), run.state()
