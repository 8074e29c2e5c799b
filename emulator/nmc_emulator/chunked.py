"""A run of images piece by piece: what has been computed can be used, kept, and taken up again later.

Between two pieces the layer engine's state is its counters, the loads of ticks that later samples may
add to, and the events that traffic is derived from; everything else starts anew with each sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nmc_compiler.errors import UsageError

from .counters import BOUND, Counters
from .emulate import Emulator
from .engine_layers import LayerEngine
from .host import check_images
from .plan import readout_size
from .probe import Probe, Tap
from .workspace import code_type


class Images(Protocol):
    """Samples that slices are taken of: an array, or frames that are made when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Piece:
    """Consecutive samples of a run: logits_int int64 [n, classes], codes by recorded population [n, T, C, H, W],
    potentials by probed population [n, T, k, 3] (``probe.potentials``)."""

    first: int
    logits_int: np.ndarray
    codes: dict[int, np.ndarray]
    potentials: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits_int)


@dataclass(frozen=True)
class Column:
    """One array of a Piece: kind "logits", "codes" or "potentials"; dtype and shape per sample."""

    kind: str
    population: int
    dtype: np.dtype
    shape: tuple[int, ...]


class ChunkedRun:
    """The run of ``images`` by an Emulator, up to ``batch`` samples at a time; ``done`` counts the finished ones.

    The samples follow each other on the chip as in ``Emulator.run``, and all results are equal to its.
    UsageError for images that do not fit, and for engines other than "layers".
    """

    def __init__(self, emulator: Emulator, images: Images, probes: tuple[Probe, ...] = ()) -> None:
        if not isinstance(emulator.engine, LayerEngine):
            raise UsageError(
                f"engine '{emulator.name}' cannot stop between samples, which checkpoints, traces and probes need;"
                " choose engine='layers'"
            )
        self.program, self.engine = emulator.program, emulator.engine
        self.images, self.samples, self.done = images, len(images), 0
        check_images(emulator.program, images[:1])
        self.probes = probes
        self.tap = Tap(self.engine, probes, self.engine.batch) if probes else None
        self.engine._restart(0)

    def step(self, most: int | None = None) -> Piece:
        """Compute the next samples, ``most`` of them."""
        first, planner = self.done, self.engine.planner
        block = self.block(first, first + min(self.engine.batch, most or self.engine.batch))
        planner.expect(len(block), first)
        logits = self.engine._run_block(block, first).copy()
        self.done += len(block)
        return Piece(first, logits, dict(planner.codes), self.tap.take(len(block)) if self.tap else {})

    def block(self, first: int, last: int) -> np.ndarray:
        """Images first..last - 1, as the engine takes them: [n, T or 1, C, H, W]."""
        return check_images(self.program, self.images[first:last])

    def counters(self) -> Counters:
        """Counters of all finished samples, as if there had been no more; the run is over then."""
        return self.engine._counters(self.done)

    # --- keeping and taking up ---

    def _parts(self) -> list[np.ndarray]:
        """What later samples add to."""
        counters, planner = self.engine.counters, self.engine.planner
        overflow = counters.overflow_of(slice(None))  # type: ignore[arg-type]
        return [counters.flat, overflow, *planner.loads._all(), planner.counting.ledger.events]

    @property
    def state_size(self) -> int:
        """Numbers in ``state``."""
        return sum(part.size for part in self._parts()) + len(BOUND)

    def state(self) -> np.ndarray:
        """Everything that counting has to know of the finished samples, int64 [state_size]."""
        bound = np.array([self.engine.counters.bound[name] for name in BOUND], np.int64)
        return np.concatenate([*(part.reshape(-1) for part in self._parts()), bound])

    def resume(self, done: int, state: np.ndarray) -> None:
        """Go on behind ``done`` samples whose ``state`` was kept."""
        at = 0
        for part in self._parts():
            part[...] = state[at : at + part.size].reshape(part.shape)
            at += part.size
        self.engine.counters.bound.update(zip(BOUND, state[at:].tolist(), strict=True))
        self.done = done
        if self.tap is not None:
            self.tap.first = done

    # --- parts of a run, computed apart ---

    @property
    def overlap(self) -> int:
        """Samples that are still under way when the next one starts, and add to loads of the same ticks."""
        interval = self.program.interval
        return -(-max(self.engine.timing.span - interval, 0) // interval)

    def begin_at(self, first: int) -> None:
        """Start at sample ``first``, with nothing counted; those under way then are computed again, for their loads."""
        self.engine._restart(0)
        self.done = max(first - self.overlap, 0)
        if self.tap is not None:
            self.tap.first = self.done
        while self.done < first:
            self.step(first - self.done)
        self.engine.counters.clear()
        self.engine.planner.counting.ledger.clear()

    def follow(self, samples: int, state: np.ndarray) -> None:
        """Go on behind ``samples`` that another run computed from ``begin_at(done)`` on; ``state``: its own then."""
        at, loads = 0, self.engine.planner.loads._all()
        for part in self._parts():
            found = state[at : at + part.size].reshape(part.shape)
            if any(part is load for load in loads):
                part[...] = found
            else:
                part += found
            at += part.size
        for name, count in zip(BOUND, state[at:].tolist(), strict=True):
            self.engine.counters.bound[name] += count
        self.done += samples
        if self.tap is not None:
            self.tap.first = self.done

    def columns(self) -> list[Column]:
        """The arrays of a Piece, in the order that ``flatten`` has."""
        T, populations, bounds = self.program.timesteps, self.program.populations, self.engine.planner.bounds
        found = [Column("logits", -1, np.dtype(np.int64), (readout_size(self.program),))]
        for i in self.engine.planner.codes:
            dtype = np.dtype(code_type(self.program, bounds, i))
            found.append(Column("codes", i, dtype, (T, *populations[i].shape)))
        for i, probe in (self.tap.probes if self.tap is not None else {}).items():
            found.append(Column("potentials", i, np.dtype(np.int64), (T, len(probe.somas), 3)))
        return found


def flatten(piece: Piece) -> list[np.ndarray]:
    """The arrays of a Piece."""
    return [piece.logits_int, *piece.codes.values(), *piece.potentials.values()]


def unflatten(first: int, arrays: list[np.ndarray], columns: list[Column]) -> Piece:
    """The Piece that ``flatten`` took apart."""
    of: dict[str, dict[int, np.ndarray]] = {"logits": {}, "codes": {}, "potentials": {}}
    for column, array in zip(columns, arrays, strict=True):
        of[column.kind][column.population] = array
    return Piece(first, of["logits"][-1], of["codes"], of["potentials"])


def joined(pieces: list[Piece]) -> Piece:
    """Consecutive pieces as one."""
    one = pieces[0]
    if len(pieces) == 1:
        return one
    codes = {i: np.concatenate([p.codes[i] for p in pieces]) for i in one.codes}
    potentials = {i: np.concatenate([p.potentials[i] for p in pieces]) for i in one.potentials}
    return Piece(one.first, np.concatenate([p.logits_int for p in pieces]), codes, potentials)
