"""events.npz: the events of a run, and what else re-costing needs; written and read piece by piece."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from nmc.npz import Header, Npz
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.program.model import Program
from nmc_emulator.counters import OVERFLOW
from nmc_emulator.event_run import windowed
from nmc_emulator.recost import Recording, check_same, fingerprint, host_parts
from nmc_emulator.recount import Chunk, part
from nmc_emulator.trace import Events, Trace, coded

EVENTS, SCHEMA = "events.npz", "nmc.events/1"
MAX_ABOUT = 1 << 26
GROUP_EVENTS = 1 << 22  # codes of a group of samples at most, so that a group fits into memory anywhere
GROUP_STREAM = 1 << 24  # the same of a stream, whose timesteps are so many that larger groups are needed
MOST_UNITS = {True: 1 << 16, False: 64}  # of a group: timesteps of a stream, samples
NUMBERS = {"step": np.int64, "soma": np.int32, "code": np.int32, "count": np.int64}


def group_size(program: Program) -> int:
    """Samples, or timesteps of a stream, written together: the same for every run, so that runs give equal bytes."""
    somas, stream = sum(int(np.prod(p.shape)) for p in program.populations), program.timesteps == 0
    room = GROUP_STREAM if stream else GROUP_EVENTS
    return int(min(max(room // max(somas * max(program.timesteps, 1), 1), 1), MOST_UNITS[stream]))


class Recorder:
    """Writes the chunks of a run; ``about`` is what ``finish`` adds."""

    def __init__(self, path: str | os.PathLike[str], program: Program) -> None:
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.program, self.size, self.steps = program, group_size(program), max(program.timesteps, 1)
        self.senders = [i for i, p in enumerate(program.populations) if p.model != "readout"]
        self.waiting: list[Chunk] = []
        self.groups = self.units = 0  # units: samples, or timesteps of a stream

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk; whole groups are written."""
        units, a = chunk.trace.steps // self.steps, 0
        while a < units:
            b = min(a + self.size - self.units % self.size, units)
            steps = a * self.steps, b * self.steps
            events = {i: part(e, *steps) for i, e in chunk.trace.events.items()}
            host = {k: rows[a:b] for k, rows in chunk.host.items()}
            self.waiting.append(Chunk(chunk.first + a, Trace(events, b - a, steps[1] - steps[0]), host))
            self.units += b - a
            a = b
            if self.units % self.size == 0:
                self._write()

    def close(self) -> None:
        """Write the last group."""
        if self.waiting:
            self._write()

    def finish(
        self, digest: str, logits_int: np.ndarray, overflow: np.ndarray, labels: np.ndarray | None, window: int = 0
    ) -> None:
        """Add what is known when the run is over, and end the file.

        window: timesteps of samples that went through a stream one by one, from rest.
        """
        about = {
            "schema": SCHEMA,
            "program": digest,
            "parts": fingerprint(self.program),
            "populations": [p.name for p in self.program.populations],
            "hosts": list(host_parts(self.program)),
            "samples": self.units,
            "window": window,
            "group": self.size,
        }
        text = json.dumps(about, sort_keys=True).encode()
        self._array("about", np.frombuffer(text, np.uint8))
        self._array("logits_int", logits_int)
        self._array("overflow", overflow)
        if labels is not None:
            self._array("labels", labels)
        self.zip.close()

    def _array(self, name: str, array: np.ndarray) -> None:
        with self.zip.open(f"{name}.npy", "w", force_zip64=True) as stream:
            npy.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)

    def _write(self) -> None:
        name, group = f"{self.groups:06d}", self.waiting
        starts = [(c.first - group[0].first) * self.steps for c in group]
        columns: dict[str, list[np.ndarray]] = {"step": [], "soma": [], "code": []}
        count = []
        for i in self.senders:
            parts = [c.trace.events[i] for c in group if i in c.trace.events]
            shifted = [c.trace.events[i].step + at for at, c in zip(starts, group, strict=True) if i in c.trace.events]
            columns["step"] += shifted
            columns["soma"] += [e.soma for e in parts]
            if coded(self.program.populations[i]):
                columns["code"] += [np.ones(len(e), np.int32) if e.code is None else e.code for e in parts]
            count.append(sum(map(len, parts)))
        self._array(f"{name}/count", np.array(count, np.int64))
        for column, arrays in columns.items():
            self._array(f"{name}/{column}", np.concatenate([np.zeros(0, NUMBERS[column]), *arrays]))
        for k in range(len(self.program.host_currents)):
            self._array(f"{name}/host{k}", np.packbits(np.concatenate([c.host[k] for c in group]).reshape(-1)))
        self.groups, self.waiting = self.groups + 1, []


# --- reading ----------------------------------------------------------------------------------------------


def read_recording(path: str | os.PathLike[str], program: Program) -> Recording:
    """The recorded run of a Program that computes what ``program`` does, for ``recost``.

    Events are read and checked group by group as they are asked for. UsageError where it is the run of another
    network, with what differs; FrontendError for a file that is damaged or hostile.
    """
    with Npz(path) as file:
        about = _about(file)
        stream = program.timesteps == 0 and about["window"] == 0
        _check_network(path, as_recorded(program, about["window"]), about)
        samples = 1 if stream else about["samples"]
        logits = _whole(file, "logits_int", np.int64, (samples, _classes(program)))
        overflow = _whole(file, "overflow", np.int64, (len(program.populations), len(OVERFLOW)))
        labels = _whole(file, "labels", np.int64, (samples,)) if "labels" in file else None
    reader = _Reader(Path(path), as_recorded(program, about["window"]), about)
    names, hosts = tuple(about["populations"]), tuple(about["hosts"])
    return Recording(
        about["program"],
        about["parts"],
        names,
        hosts,
        samples,
        logits,
        overflow,
        reader.chunks,
        labels,
        about["samples"] if stream else 0,
        about["window"],
    )


def as_recorded(program: Program, window: int) -> Program:
    """The Program as it ran: a stream through which samples of ``window`` timesteps went has such windows."""
    return windowed(program, window) if window and not program.timesteps else program


def _classes(program: Program) -> int:
    return next((int(np.prod(p.shape)) for p in program.populations if p.model == "readout"), 0)


def _about(file: Npz) -> dict[str, Any]:
    header = file.header("about")
    if header.dtype != np.uint8 or len(header.shape) != 1 or header.shape[0] > MAX_ABOUT:
        raise FrontendError(f"{file.path}: its array 'about' is no text; give the {EVENTS} of a run")
    try:
        about = json.loads(bytes(file.read("about")))
    except (ValueError, RecursionError):
        raise FrontendError(f"{file.path}: its array 'about' is not valid JSON; record the run again") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise FrontendError(f"{file.path}: not a recording of this version of nmc ({SCHEMA}); record the run again")
    about.setdefault("window", 0)
    good = isinstance(about.get("program"), str) and isinstance(about.get("parts"), dict)
    good = good and all(isinstance(v, str) for v in about["parts"].values())
    good = good and all(isinstance(about.get(k), list) and _texts(about[k]) for k in ("populations", "hosts"))
    good = good and all(isinstance(about.get(k), int) and 0 < about[k] < 2**40 for k in ("samples", "group"))
    good = good and isinstance(about.get("window"), int) and 0 <= about["window"] < 2**40
    if not good:
        raise FrontendError(f"{file.path}: its array 'about' does not hold what it should; record the run again")
    return about


def _texts(values: list[Any]) -> bool:
    return all(isinstance(v, str) for v in values) and len(set(values)) == len(values)


def _check_network(path: str | os.PathLike[str], program: Program, about: dict[str, Any]) -> None:
    """UsageError for the run of another network; FrontendError where the file contradicts itself."""
    try:
        check_same(program, about["program"], about["parts"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if sorted(about["populations"]) != sorted(p.name for p in program.populations):
        raise FrontendError(f"{path}: its populations are not those it has parts of; record the run again")
    if set(host_parts(program)) - set(about["hosts"]):
        raise FrontendError(f"{path}: it does not tell all that the host sent; record the run again")


def _whole(file: Npz, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    _check_header(file, name, file.header(name), dtype, shape)
    return file.read(name)


def _check_header(file: Npz, name: str, header: Header, dtype: type, shape: tuple[int, ...]) -> None:
    if header.shape != shape or header.dtype != dtype or header.fortran and len(shape) > 1:
        raise FrontendError(
            f"{file.path}: array {name!r} is {header.dtype} {list(header.shape)} instead of"
            f" {np.dtype(dtype)} {list(shape)}; record the run again"
        )


@dataclass(frozen=True)
class _Reader:
    path: Path
    program: Program
    about: dict[str, Any]

    def chunks(self) -> Iterator[Chunk]:
        """All groups of the file, checked."""
        of = {p.name: p for p in self.program.populations}
        order = [(i, of[name]) for i, name in enumerate(self.about["populations"]) if of[name].model != "readout"]
        samples, group, T = self.about["samples"], self.about["group"], max(self.program.timesteps, 1)
        known = set(host_parts(self.program))
        hosts = [k for k, part in enumerate(self.about["hosts"]) if part in known]
        with Npz(self.path) as file:
            for n, first in enumerate(range(0, samples, group)):
                size = min(group, samples - first)
                events, at = {}, {"step": 0, "code": 0}
                count = _whole(file, f"{n:06d}/count", np.int64, (len(order),))
                data = self._columns(file, f"{n:06d}", count, [coded(p) for _, p in order])
                for (i, p), events_here in zip(order, count.tolist(), strict=True):
                    a, b = at["step"], at["step"] + events_here
                    code = None
                    if coded(p):
                        code = data["code"][at["code"] : at["code"] + events_here]
                        at["code"] += events_here
                    events[i] = Events(data["step"][a:b], data["soma"][a:b], code)
                    at["step"] = b
                    self._check(p.name, events[i], size * T, int(np.prod(p.shape)))
                host = {k: self._host(file, f"{n:06d}/host{k}", k, size) for k in hosts}
                yield Chunk(first, Trace(events, size if self.program.timesteps else 1, size * T), host)

    def _columns(self, file: Npz, name: str, count: np.ndarray, coded: list[bool]) -> dict[str, np.ndarray]:
        if (count < 0).any() or (count > 2**40).any():
            raise FrontendError(f"{self.path}: '{name}/count' holds numbers out of range; record the run again")
        sizes = {"step": int(count.sum()), "soma": int(count.sum()), "code": int(count[np.array(coded, bool)].sum())}
        return {c: _whole(file, f"{name}/{c}", NUMBERS[c], (size,)) for c, size in sizes.items()}

    def _check(self, name: str, e: Events, steps: int, somas: int) -> None:
        """Every event in range, sorted by timestep and soma, none twice, none without a code."""
        place = e.step * somas + e.soma
        good = (e.step >= 0).all() and (e.step < steps).all() and (e.soma >= 0).all() and (e.soma < somas).all()
        if not good or (np.diff(place) <= 0).any() or (e.code is not None and (e.code == 0).any()):
            raise FrontendError(f"{self.path}: events of {name!r} are out of range or order; record the run again")

    def _host(self, file: Npz, name: str, k: int, samples: int) -> np.ndarray:
        of = dict(zip(host_parts(self.program), self.program.host_currents, strict=True))
        current = of[self.about["hosts"][k]]
        frames = self.program.timesteps if self.program.input_time else 1
        shape = samples, frames, *self.program.dendrites[current.dst].shape
        size = int(np.prod(shape))
        packed = _whole(file, name, np.uint8, (-(-size // 8),))
        return np.unpackbits(packed, count=size).view(bool).reshape(shape)
