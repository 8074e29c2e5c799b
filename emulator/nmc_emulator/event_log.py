"""Checkpoints of a run that events drive: a log of what was recorded, and beside it the state behind the log.

The log grows with the events that are wanted, the state (FILE.state) is written anew each time, whole or not at all.
It says how far the log belongs to it: what a killed process wrote behind that is dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import ArtefactError

from .checkpoint import Log
from .event_run import EventRun, Part
from .state_file import read_about, read_state, write_state
from .trace import Events, joined

KIND = "nmc.run-state/1"
MOST_DIGITS = 18  # of a place in the log
COLUMNS = ("step", "soma", "code")
NUMBERS: dict[str, np.dtype] = {"step": np.dtype("<i8"), "soma": np.dtype("<i4"), "code": np.dtype("<i4")}


def state_path(path: Path) -> Path:
    """Where the state of a log is."""
    return path.with_name(f"{path.name}.state")


def _sha256(state: dict[str, np.ndarray]) -> str:
    hasher = hashlib.sha256()
    for name, array in sorted(state.items()):
        hasher.update(f"{name} {array.dtype.str} {array.size}\0".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def joined_parts(parts: list[Part]) -> Part:
    """Consecutive parts as one."""
    if len(parts) == 1:
        return parts[0]
    codes = {i: e.code is not None for i, e in parts[0].events.items()}
    events = {i: joined([p.events[i] for p in parts], with_codes) for i, with_codes in codes.items()}
    potentials = np.concatenate([p.potentials for p in parts], axis=1)
    return Part(parts[0].first, sum(p.ticks for p in parts), events, potentials)


class EventCheckpoint(Log):
    """The checkpoint of an EventRun; records count ticks.

    about: JSON values that name the run.  Errors: as for Log.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any], run: EventRun) -> None:
        populations, coded = run.program.populations, run.engine.plan.coded
        self.run, self.sizes = run, {i: int(np.prod(populations[i].shape)) for i in run.engine.recorded}
        self.columns = {i: COLUMNS if coded[i] else COLUMNS[:2] for i in self.sizes}
        super().__init__(path, about | {"units": run.units}, run.length)
        self.name = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()
        self.state = state_path(self.path)

    def most(self, count: int) -> int:
        """Bytes of a record of ``count`` ticks in which everything fires."""
        events = sum(size * sum(NUMBERS[c].itemsize for c in self.columns[i]) for i, size in self.sizes.items())
        return 8 * len(self.sizes) + count * (events + 16 * len(self.run.rows))

    # --- reading ---

    def parts(self) -> Iterator[Part]:
        """What was recorded up to the state; the run goes on behind it once all of it was taken.

        ArtefactError for records or a state that are damaged.
        """
        if not self.state.exists():
            list(self.read(self.start))  # none of its records has a state
            return
        end, digest = self._whole()
        for count, data in self.read(end):
            yield self._unpack(count, data)
        state = read_state(self.state, self._step)
        if _sha256(state) != digest:
            raise ArtefactError(f"{self.state}: does not hold what was written; {self._step}")
        tick = state.get("tick", np.zeros(0, np.int64))
        if tick.dtype != np.int64 or tick.reshape(-1).tolist() != [self.done]:
            raise ArtefactError(f"{self.path}: its records end where its state does not; remove both and run again")
        self.run.resume(state)

    def _whole(self) -> tuple[int, str]:
        """Where the records of the state end, and its digest. ArtefactError for the state of another run."""
        about = read_about(self.state, self._step)
        end = about.get("log", "")
        if about.get("kind") != KIND or about.get("run") != self.name or not end.isdecimal() or len(end) > MOST_DIGITS:
            raise ArtefactError(f"{self.state}: is not the state of {self.path.name}; remove both and run again")
        return int(end), about.get("sha256", "")

    @property
    def _step(self) -> str:
        return f"remove it and {self.path.name}, and run again"

    def _unpack(self, count: int, data: bytes) -> Part:
        first, at = self.done, 8 * len(self.sizes)
        counts = np.frombuffer(data[:at], "<i8")
        seen = (len(self.run.rows), count, 2)
        if len(counts) != len(self.sizes) or (counts < 0).any():
            raise self._damaged()
        bytes_each = [sum(NUMBERS[c].itemsize for c in columns) for columns in self.columns.values()]
        if at + int(counts @ np.array(bytes_each, np.int64)) + 8 * int(np.prod(seen)) != len(data):
            raise self._damaged()
        events = {}
        for i, n in zip(self.sizes, counts.tolist(), strict=True):
            arrays = {}
            for c in self.columns[i]:
                arrays[c] = np.frombuffer(data, NUMBERS[c], n, at)
                at += arrays[c].nbytes
            events[i] = self._checked(i, Events(arrays["step"], arrays["soma"], arrays.get("code")))
        return Part(first, count, events, np.frombuffer(data, self.run.engine.number, -1, at).reshape(seen))

    def _checked(self, i: int, e: Events) -> Events:
        """ArtefactError for events that would lead their readers astray."""
        size, place = self.sizes[i], e.step * self.sizes[i] + e.soma
        inside = (e.step >= 0) & (e.step < self.run.steps) & (e.soma >= 0) & (e.soma < size)
        if not inside.all() or (np.diff(place) <= 0).any():
            raise self._damaged()
        return e

    def _damaged(self) -> ArtefactError:
        return ArtefactError(f"{self.path}: a record does not hold what it should; {self._step}")

    # --- writing ---

    def add(self, parts: list[Part]) -> None:
        """Append the next parts, and write the state behind them, which is the run's now."""
        part = joined_parts(parts)
        counts = np.array([len(e) for e in part.events.values()], "<i8")
        arrays = [counts]
        for i, e in part.events.items():
            arrays += [np.asarray(getattr(e, c), NUMBERS[c]) for c in self.columns[i]]
        self.append(part.ticks, [*arrays, part.potentials])
        try:
            self.sync()
        except OSError as error:
            self._fail(error)
        state = self.run.state()
        about = {"kind": KIND, "run": self.name, "log": str(self.file.tell()), "sha256": _sha256(state)}
        write_state(self.state, state, about)


def remove(path: Path) -> None:
    """Take away the checkpoint of a run that is finished; a stranger with the name of its state stays."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(ArtefactError):
        if read_about(state_path(path), "").get("kind") == KIND:
            state_path(path).unlink()
