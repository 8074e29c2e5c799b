"""Recordings of event cameras as samples: events x, y, t, p, counted in frames of a stated length.

The file is read twice, in parts: once to check all of it, once as the frames are asked for. Memory does
not grow with its length.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmc.npz import Npz
from nmc_compiler.errors import FrontendError, UsageError
from nmc_emulator.trace import Events, events_of

FIELDS = ("x", "y", "t", "p")
PART = 1 << 18  # events read at once
LATEST = 1 << 60  # times beyond it, either way, are no times
RECORD = 5  # bytes of an event of the N-MNIST format
CARRY, CARRY_TIME = 240, 1 << 13  # its y value that tells of a time overflow, and the time that adds

Part = dict[str, np.ndarray]  # x, y, t, p: int64 [n]


def holds_events(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a recording: a .bin, or an .npz without images that has x, y, t, p or ``events``."""
    if Path(path).suffix == ".bin":
        return True
    if not zipfile.is_zipfile(path):
        return False
    with Npz(path) as file:
        return "images" not in file and ("events" in file or all(name in file for name in FIELDS))


def _npz_parts(path: Path) -> Iterator[Part]:
    with Npz(path) as file:
        if "events" in file:
            for rows in file.rows("events", PART, FIELDS):
                yield {name: rows[name].astype(np.int64) for name in FIELDS}
            return
        for name in FIELDS:
            header = file.header(name)
            if header.dtype.kind not in "biu" or header.shape != file.header("x").shape:
                raise FrontendError(
                    f"{path}: array {name!r} is {header.dtype} {list(header.shape)}; x, y, t and p are lists of whole"
                    " numbers of one length (t in microseconds, say)"
                )
        for parts in zip(*(file.rows(name, PART) for name in FIELDS), strict=True):
            yield {name: part.astype(np.int64) for name, part in zip(FIELDS, parts, strict=True)}


def _bin_parts(path: Path) -> Iterator[Part]:
    """Events of 40 bits: x, y, polarity, 23 bits of time in microseconds (Orchard et al. 2015, N-MNIST)."""
    carried = 0
    with path.open("rb") as stream:
        while data := stream.read(PART * RECORD):
            if len(data) % RECORD:
                raise FrontendError(f"{path}: {path.stat().st_size} bytes are no whole number of {RECORD}-byte events")
            raw = np.frombuffer(data, np.uint8).reshape(-1, RECORD).astype(np.int64)
            carry = raw[:, 1] == CARRY
            later = carried + np.cumsum(carry) * CARRY_TIME
            carried = int(later[-1])
            t = ((raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]) + later
            part = {"x": raw[:, 0], "y": raw[:, 1], "t": t, "p": raw[:, 2] >> 7}
            yield {name: values[~carry] for name, values in part.items()}


def read_parts(path: str | os.PathLike[str]) -> Iterator[Part]:
    """Events of a recording in parts. FrontendError for a file that is damaged or is none."""
    path = Path(path)
    try:
        yield from _bin_parts(path) if path.suffix == ".bin" else _npz_parts(path)
    except OSError as error:
        raise FrontendError(f"{path}: cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True)
class Extent:
    """What a first look at a recording found. ``first``, ``last``: times of the first and last event."""

    events: int
    first: int
    last: int
    digest: str


def look(path: str | os.PathLike[str], height: int, width: int) -> Extent:
    """Check every event of a recording against the size of the input.

    FrontendError for events out of order or place, and for none at all.
    """
    events, first, last, hasher = 0, 0, -LATEST, hashlib.sha256()
    for part in read_parts(path):
        if not len(part["t"]):
            continue
        _check_part(path, part, events, last, height, width)
        first = int(part["t"][0]) if events == 0 else first
        events, last = events + len(part["t"]), int(part["t"][-1])
        for name in FIELDS:
            hasher.update(np.ascontiguousarray(part[name]).data)
    if events == 0:
        raise FrontendError(f"{path}: holds no events; give a recording")
    return Extent(events, first, last, hasher.hexdigest())


def _check_part(path: str | os.PathLike[str], part: Part, at: int, last: int, height: int, width: int) -> None:
    if ((part["t"] >= LATEST) | (part["t"] <= -LATEST)).any():
        raise FrontendError(f"{path}: events have times beyond {LATEST}; is t in another unit, or damaged?")
    back = np.diff(part["t"], prepend=last) < 0
    if back.any():
        raise FrontendError(f"{path}: event {at + int(np.argmax(back))} is earlier than the one before; sort by t")
    for name, size in (("x", width), ("y", height), ("p", 2)):
        wrong = (part[name] < 0) | (part[name] >= size)
        if wrong.any():
            n = int(np.argmax(wrong))
            step = "0 is off, 1 is on" if name == "p" else "crop or scale the recording as in training"
            raise FrontendError(
                f"{path}: event {at + n} has {name} = {part[name][n]}, but the network takes 0 to {size - 1}; {step}"
            )


class EventWindows:
    """A recording as samples [N, T, 2, H, W]: counts of off and on events per pixel and timestep, int32.

    Time counts from the first event; timestep s has the events of s * dt <= t - first < (s + 1) * dt. The last
    sample ends with empty timesteps where the recording does. Slices of samples are counted when they are asked for,
    fastest in their order.
    """

    dtype = np.dtype(np.int32)

    def __init__(
        self,
        path: str | os.PathLike[str],
        image: tuple[int, int, int],
        timesteps: int,
        dt: int | None,
        limit: int | None,
    ) -> None:
        """UsageError without ``dt``, or where the input has other channels than two polarities."""
        self.path, (channels, height, width) = Path(path), image
        if channels != 2:
            raise UsageError(f"{path}: events have 2 polarities, but the network's input has {channels} channels")
        self.extent = look(path, height, width)
        self.dt = _checked_dt(path, dt, self.extent, timesteps)
        steps = (self.extent.last - self.extent.first) // self.dt + 1
        count = -(-steps // timesteps)
        self.shape = (min(count, limit or count), timesteps, *image)
        self.digest = f"{self.extent.digest} dt {self.dt}"
        self._held: tuple[int, int, np.ndarray] = (0, 0, np.zeros((0, *self.shape[1:]), np.int32))
        self._restart()

    @property
    def note(self) -> str:
        """What was made of the recording."""
        n, T = self.shape[:2]
        return (
            f"input: {self.extent.events:,} events from t = {self.extent.first} to {self.extent.last}, counted in"
            f" timesteps of {self.dt}, {T} to a sample; {n} sample{'s' if n != 1 else ''}"
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice) -> np.ndarray:
        first, last, _ = which.indices(len(self))
        if self._held[:2] != (first, last):
            self._held = (first, last, self._count(first, max(last, first)))
        return self._held[2]

    def _restart(self) -> None:
        self._parts, self._rest = read_parts(self.path), {name: np.zeros(0, np.int64) for name in FIELDS}
        self._at = 0  # events of earlier samples are gone

    def _count(self, first: int, last: int) -> np.ndarray:
        if first < self._at:
            self._restart()
        for _ in self._take(first):
            pass
        _, T, _, height, width = self.shape
        counts = np.zeros((last - first) * T * 2 * height * width, np.int32)
        for part in self._take(last):
            step = (part["t"] - self.extent.first) // self.dt - first * T
            place = ((step * 2 + part["p"]) * height + part["y"]) * width + part["x"]
            np.add.at(counts, place, 1)
        return counts.reshape(last - first, *self.shape[1:])

    def _take(self, sample: int) -> Iterator[Part]:
        """All events before a sample that were not taken yet, in parts."""
        end = min(self.extent.first + sample * self.shape[1] * self.dt, LATEST)
        more: Part | None = self._rest
        while more is not None:
            cut = int(np.searchsorted(more["t"], end))
            yield {name: values[:cut] for name, values in more.items()}
            self._rest = {name: values[cut:] for name, values in more.items()}
            more = next(self._parts, None) if cut == len(more["t"]) else None
        self._at = sample


def stream_events(
    path: str | os.PathLike[str], image: tuple[int, int, int], dt: int, *, counts: bool, part: int = 64
) -> Iterator[tuple[Events, int]]:
    """A recording for ``nmc_emulator.Stream.feed``: (events of an input population, timesteps), part by part.

    image: shape (2, H, W) of the population.  counts: events carry how many there were; else that there were any.
    part: timesteps to a part.  Timesteps count from the first event of the recording, as in ``EventWindows``.
    """
    windows = EventWindows(path, image, part, dt, None)
    for n in range(len(windows)):
        events = events_of(windows[n : n + 1].reshape(part, -1), with_codes=counts)
        yield Events(events.step + n * part, events.soma, events.code), part


def _checked_dt(path: str | os.PathLike[str], dt: int | None, extent: Extent, timesteps: int) -> int:
    length = extent.last - extent.first
    if dt is None:
        whole = length // timesteps + 1
        raise UsageError(
            f"{path}: holds {extent.events:,} events over {length:,} units of time, and the network takes {timesteps}"
            f" timesteps to a sample; say with --dt how long one is, in the units of t (--dt {whole} makes it one"
            " sample)"
        )
    if dt < 1:
        raise UsageError(f"--dt {dt}: a timestep lasts at least 1 unit of t")
    return dt
