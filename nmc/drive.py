"""What drives a network of events: codes or lists of events by input population, or a recording; memory or files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmc.encoders import MAX_STEPS as MOST_CODED
from nmc.encoders import Coding, SpikeCoded
from nmc.encoding import encoded, encodings
from nmc.events import EventWindows, holds_events
from nmc.inputs import check_classes
from nmc.npz import Npz
from nmc.scores import classes_of
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.program.model import Population, Program
from nmc_emulator.emulate import check_all_given
from nmc_emulator.event_run import Source, windowed
from nmc_emulator.host import Host, payload_range
from nmc_emulator.trace import Events, check_events, coded, events_of, joined

Input = np.ndarray | Events
COLUMNS = ("step", "soma", "code")
ONLY_INPUT = "images"  # may stand for the name of a network's only input
MOST_STEPS = 1 << 40
CODES = np.iinfo(np.int32)
BLOCK, CELLS = 64, 1 << 24  # timesteps of a stream whose recorded events are counted at once, and pixels in them


@dataclass(frozen=True)
class Drive:
    """A run to be: the Program as it runs, ``units`` samples or timesteps of a stream, and where its events come from.

    labels: int64 [samples] or None.  digest: names the input.  note: what was made of it, for the report.
    window: timesteps of samples that go through a stream, each from rest; else 0.
    """

    program: Program
    source: Source
    units: int
    labels: np.ndarray | None
    digest: str
    note: str
    window: int = 0

    @property
    def samples(self) -> int:
        """Samples; a stream is one."""
        return self.units if self.program.timesteps else 1

    @property
    def steps(self) -> int:
        """Timesteps of all samples."""
        return self.units * max(self.program.timesteps, 1)


def takes_events(program: Program) -> bool:
    """Whether events drive a Program, and not images that the host encodes."""
    encoded = {h.population for h in program.host_codes}
    given = any(p.model == "input" and i not in encoded for i, p in enumerate(program.populations))
    return program.timesteps == 0 or given or not (program.host_currents or program.host_codes)


# --- sources ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """Events that are in memory, by population index."""

    events: dict[int, Events]

    def take(self, population: int, first: int, last: int) -> Events:
        """Events of timesteps first..last - 1."""
        e = self.events[population]
        a, b = np.searchsorted(e.step, (first, last))
        return Events(e.step[a:b], e.soma[a:b], None if e.code is None else e.code[a:b])


class Counted:
    """A recording of an event camera, counted window by window as it is needed."""

    def __init__(self, windows: EventWindows, population: Population) -> None:
        self.windows, self.population, self.size = windows, population, windows.shape[1]

    def take(self, population: int, first: int, last: int) -> Events:
        """Events of timesteps first..last - 1; none behind the end of the recording."""
        a, b = first // self.size, min(-(-last // self.size), len(self.windows))
        if first >= last or a >= b:
            return Events(np.zeros(0, np.int64), np.zeros(0, np.int32), None)
        frames = self.windows[a:b].reshape((b - a) * self.size, -1)
        e = events_of(frames[first - a * self.size : last - a * self.size], coded(self.population))
        return Events(e.step + first, e.soma, e.code)


class Encoded:
    """Images, [N, C, H, W] or [N, T, C, H, W], that the host encodes as events."""

    def __init__(self, program: Program, images: Any) -> None:
        self.program, self.images, self.host = program, images, Host(program)
        self.specs = {h.population: h for h in program.host_codes}
        self.held: dict[int, tuple[int, np.ndarray]] = {}

    def take(self, population: int, first: int, last: int) -> Events:
        """Events of timesteps first..last - 1."""
        T, parts = self.program.timesteps, []
        for sample in range(first // T, -(-last // T)):
            a, b = max(first - sample * T, 0), min(last - sample * T, T)
            e = events_of(self._codes(population, sample)[a:b])
            parts.append(Events(e.step + sample * T + a, e.soma, e.code))
        return joined(parts, with_codes=True)

    def _codes(self, population: int, sample: int) -> np.ndarray:
        """int64 [T, somas] of one sample."""
        if self.held.get(population, (-1, None))[0] != sample:
            image = self.images[sample : sample + 1][0]
            image = image if self.program.input_time else image[None]
            codes = self.host.codes(self.specs[population], image, sample)
            flat = codes.reshape(len(codes), -1)
            self.held[population] = (sample, np.broadcast_to(flat, (self.program.timesteps, flat.shape[1])))
        return self.held[population][1]


# --- making a drive ---------------------------------------------------------------------------------------


def drive_of(
    program: Program,
    x: Input | Mapping[str, Input] | str | os.PathLike[str] | None,
    labels: Any = None,
    *,
    steps: int | None = None,
    limit: int | None = None,
    dt: int | None = None,
    code: Coding | None = None,
) -> Drive:
    """What ``x`` makes of a Program that events drive (docs/formats.md#inputs).

    steps: timesteps of the run (of each sample, where samples go through a stream); None: as long as the input.
    limit: the first samples only.  dt: length of a timestep of a recording.  code: how images [N, C, H, W]
    become spikes, over a window's timesteps or ``steps``.  UsageError or FrontendError for what does not fit.
    """
    _check_options(program, steps, limit)
    if isinstance(x, (str, os.PathLike)):
        if _is_recording(program, Path(x)):
            return _recorded(program, Path(x), labels, steps, limit, dt)
        x, stored = _read(program, Path(x))
        labels = stored if labels is None else labels
    if dt is not None:
        raise UsageError("--dt is for recordings of events (x, y, t, p); codes and lists of events have timesteps")
    named = _by_name(program, x)
    if code is None:
        return _given(program, named, labels, steps, limit)
    coded = {name: _spikes_of(program, name, value, code, steps) for name, value in named.items()}
    made = _given(program, {name: c[:] for name, c in coded.items()}, labels, steps, limit)
    return replace(made, note=f"{made.note}; {'; '.join(c.note for c in coded.values())}")


def _spikes_of(program: Program, name: str, x: Input, code: Coding, steps: int | None) -> SpikeCoded:
    """Images of one input as spikes of every sample."""
    p = program.populations[_inputs(program)[name]]
    if isinstance(x, Events) or np.ndim(x) != 4 or np.shape(x)[1:] != p.shape or not len(x):
        found = "a list of events" if isinstance(x, Events) else f"shape {list(np.shape(x))}"
        wanted = ", ".join(map(str, p.shape))
        raise FrontendError(f"--encode {code.kind}: input '{name}' is {found}; give images [N, {wanted}]")
    if name in encodings(program):
        raise UsageError(f"--encode {code.kind}: input '{name}' takes real values, not spikes; leave --encode out")
    timesteps = program.timesteps or steps
    if timesteps is None:
        raise UsageError(f"--encode {code.kind}: say with --steps over how many timesteps an image is shown")
    if timesteps > MOST_CODED:
        raise UsageError(f"--steps {timesteps}: images are encoded over at most {MOST_CODED} timesteps")
    return SpikeCoded(np.asarray(x), timesteps, code)


def _check_options(program: Program, steps: int | None, limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: at least 1 sample is needed")
    T = program.timesteps
    if steps is not None and steps > MOST_STEPS:
        raise UsageError(f"--steps {steps}: a run has at most {MOST_STEPS} timesteps")
    if steps is not None and (steps < 1 or (T and steps % T)):
        windows = f"; the windows of Program '{program.name}' have {T} each" if T else ""
        raise UsageError(f"--steps {steps}: a run has at least 1 timestep, and whole windows{windows}")


def _inputs(program: Program) -> dict[str, int]:
    return {p.name: i for i, p in enumerate(program.populations) if p.model == "input"}


def _by_name(program: Program, x: Any) -> dict[str, Input]:
    """Inputs by the names of their populations. UsageError where one is missing or unknown."""
    names = list(_inputs(program))
    if x is None and names:
        raise UsageError(
            f"Program '{program.name}' is driven by events of its inputs ({', '.join(names)}); give --input FILE"
        )
    x = {} if x is None else x
    if not isinstance(x, Mapping):
        if len(names) != 1:
            raise UsageError(
                f"Program '{program.name}' has {len(names)} inputs ({', '.join(names) or 'none'}); give arrays by name"
            )
        x = {names[0]: x}
    if ONLY_INPUT in x and len(names) == 1 and names[0] not in x:
        x = {names[0] if name == ONLY_INPUT else name: value for name, value in x.items()}
    unknown = [name for name in x if name not in names]
    if unknown:
        raise UsageError(
            f"Program '{program.name}' has no input population '{unknown[0]}'; its inputs: {', '.join(names) or 'none'}"
        )
    check_all_given(program, x)
    return dict(x)


def _given(program: Program, inputs: dict[str, Input], labels: Any, steps: int | None, limit: int | None) -> Drive:
    dense = {name: np.asarray(v) for name, v in inputs.items() if not isinstance(v, Events)}
    lists = {name: v for name, v in inputs.items() if isinstance(v, Events)}
    of, by = _inputs(program), encodings(program)
    real = {name for name, a in dense.items() if name in by and a.dtype.kind == "f"}
    dense |= {name: encoded(name, dense[name], by[name]) for name in real}
    shaped = {name: _checked_codes(name, a, program.populations[of[name]]) for name, a in dense.items()}
    if program.timesteps and not program.input_time:  # an image is shown for its whole window
        shaped = {name: _held(a, program.timesteps) for name, a in shaped.items()}
    frame = _frame(program, shaped, lists, labels, steps)
    if limit is not None:
        if not frame.window:
            raise UsageError(f"--limit {limit}: a stream has no samples; say with --steps how long it runs")
        frame = replace(frame, samples=min(limit, frame.samples))
    known = None if labels is None else _checked_labels(program, labels, frame.asked)[: frame.samples]
    events = {of[name]: _listed(program, of[name], a, frame) for name, a in shaped.items()}
    events |= {of[name]: _cut(program, of[name], e, frame) for name, e in lists.items()}
    run = program if program.timesteps or not frame.window else windowed(program, frame.steps)
    units = frame.samples if run.timesteps else frame.steps
    told = [f"{len(events[i]):,} of {name}" for name, i in of.items()]
    what = f"{frame.samples} samples of {frame.steps} timesteps" if frame.window else f"{frame.steps:,} timesteps"
    cut = f", the first of {frame.long:,}" if frame.long > frame.steps and not program.timesteps else ""
    note = f"input: {what}{cut}; events: {', '.join(told) or 'none, as there is no input'}"
    note += "".join(f"; {name} encoded as rint(x * {by[name].scale:.6g})" for name in sorted(real))
    window = 0 if run is program else run.timesteps
    return Drive(run, Lists(events), units, known, _digest(run, units, events), note, window)


def _held(codes: np.ndarray, timesteps: int) -> np.ndarray:
    """Images [N, C, H, W] as codes [N, T, C, H, W]; codes that have timesteps as they are."""
    return codes if codes.ndim == 5 else np.broadcast_to(codes[:, None], (len(codes), timesteps, *codes.shape[1:]))


def drive_of_images(program: Program, images: Any, labels: np.ndarray | None, digest: str, note: str) -> Drive:
    """Images that the host encodes as events."""
    return Drive(program, Encoded(program, images), len(images), labels, digest, note)


@dataclass(frozen=True)
class _Frame:
    """How long a run is: ``samples`` of ``steps`` timesteps; ``window``: they are samples, not a stream.

    asked: samples before a limit.  long: timesteps that the input has per sample.
    """

    samples: int
    steps: int
    window: bool
    asked: int
    long: int


def _frame(
    program: Program, dense: dict[str, np.ndarray], lists: dict[str, Events], labels: Any, steps: int | None
) -> _Frame:
    sizes = {name: a.shape[: a.ndim - 3] for name, a in dense.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {list(size)}" for name, size in sizes.items())
        raise UsageError(f"inputs differ in samples or timesteps: {told}; give all [T, ...], or all [N, T, ...]")
    size, T = next(iter(sizes.values()), ()), program.timesteps
    if len(size) == 2 and lists:
        raise UsageError("codes of samples [N, T, ...] and lists of events do not go together; give codes [T, ...]")
    if T:
        return _windows(program, size, lists, labels, steps)
    if len(size) == 2:
        if size[0] * (steps or size[1]) > MOST_STEPS:
            raise UsageError(f"--steps {steps}: {size[0]} samples of so many; a run has at most {MOST_STEPS} timesteps")
        return _Frame(size[0], steps or size[1], True, size[0], size[1])
    last = max(map(_end, lists.values()), default=0)
    if size and last > size[0] and steps is None:
        raise _beyond(last, f"the codes of other inputs end behind {size[0]} timesteps")
    long = max(size[0] if size else 0, last)
    if not (steps or long):
        raise UsageError(
            f"Program '{program.name}' is a stream and nothing of its input says how long it runs; say with --steps N"
        )
    return _Frame(1, steps or long, False, 1, long)


def _windows(
    program: Program, size: tuple[int, ...], lists: dict[str, Events], labels: Any, steps: int | None
) -> _Frame:
    """Samples of a Program that has windows."""
    T = program.timesteps
    total = size[0] * size[1] if len(size) == 2 else size[0] if size else 0
    if (len(size) == 2 and size[1] != T) or total % T:
        raise FrontendError(
            f"codes have {list(size)} samples or timesteps, but Program '{program.name}' takes samples of {T}: give"
            f" [N, {T}, C, H, W], or [T, C, H, W] with a multiple of {T}"
        )
    last = max(map(_end, lists.values()), default=0)
    told = len(np.asarray(labels)) * T if labels is not None else 0
    samples = (steps or total or told or -(-last // T) * T) // T
    if last > samples * T and steps is None:
        known = "labels" if not total else "the codes of other inputs"
        raise _beyond(last, f"{known} are of {samples} sample{'' if samples == 1 else 's'} of {T} timesteps")
    if samples < 1:
        raise UsageError(f"nothing says how many samples of {T} timesteps are run; say with --steps, a multiple of {T}")
    return _Frame(samples, T, True, total // T or samples, T)


def _beyond(last: int, known: str) -> UsageError:
    return UsageError(f"an event has timestep {last - 1}, but {known}; give as much of all, or say with --steps")


def _end(e: Events) -> int:
    """The timestep behind the last event; 0 where there is none, 1 for what ``check_events`` refuses later."""
    if not isinstance(e.step, np.ndarray) or e.step.dtype.kind not in "iu" or e.step.ndim != 1:
        return 1
    end = max(int(e.step.max()) + 1, 1) if len(e.step) else 0
    if end > MOST_STEPS:
        raise UsageError(f"an event has timestep {end - 1}; a run has at most {MOST_STEPS}")
    return end


def _checked_codes(name: str, codes: np.ndarray, p: Population) -> np.ndarray:
    """Codes [T, C, H, W] or [N, T, C, H, W] as integers. FrontendError for others."""
    if codes.ndim not in (4, 5) or codes.shape[codes.ndim - 3 :] != p.shape or 0 in codes.shape:
        wanted = ", ".join(map(str, p.shape))
        raise FrontendError(
            f"codes of input '{name}' have shape {list(codes.shape)}; give [T, {wanted}], or [N, T, {wanted}]"
        )
    if codes.dtype.kind == "f":
        odd = ~np.isfinite(codes) | (np.floor(codes) != codes)
        if odd.any():
            at = tuple(int(i) for i in np.argwhere(odd)[0])
            raise FrontendError(
                f"codes of input '{name}': {np.count_nonzero(odd)} are no whole numbers, the first ({codes[at]}) at"
                f" {list(at)}; events carry whole numbers"
            )
    elif codes.dtype.kind not in "iub":
        raise FrontendError(f"codes of input '{name}' have dtype {codes.dtype}; give whole numbers")
    low, high = codes.min(), codes.max()
    if low < CODES.min or high > CODES.max:
        raise FrontendError(f"codes of input '{name}' are {low}..{high}; events carry numbers of 32 bits")
    return codes.astype(np.int32) if codes.dtype.kind == "f" else codes


def _checked_labels(program: Program, labels: Any, samples: int) -> np.ndarray:
    known = np.asarray(labels)
    if known.shape != (samples,) or known.dtype.kind not in "iu":
        raise FrontendError(
            f"labels are {known.dtype} {list(known.shape)}, but there {'is' if samples == 1 else 'are'} {samples}"
            f" sample{'' if samples == 1 else 's'}; give whole numbers [{samples}]"
        )
    check_classes(known, classes_of(program), "labels")
    return known.astype(np.int64)


def _listed(program: Program, i: int, codes: np.ndarray, frame: _Frame) -> Events:
    """Events of codes, cut or followed by silence as the run is long."""
    p = program.populations[i]
    rows = codes.reshape(-1, frame.long, int(np.prod(p.shape))) if frame.window else codes.reshape(1, len(codes), -1)
    rows = rows[: frame.samples, : frame.steps]
    found = events_of(rows.reshape(-1, rows.shape[2]), with_codes=True)
    step = found.step // rows.shape[1] * frame.steps + found.step % rows.shape[1]
    plain = codes.dtype == bool
    return _cut(program, i, Events(step, found.soma, None if plain else found.code), frame)


def _cut(program: Program, i: int, e: Events, frame: _Frame) -> Events:
    """Checked events of the timesteps of a run. UsageError where they do not fit."""
    ends = next(((h.lo, h.hi) for h in program.host_codes if h.population == i), None)
    total, p = frame.samples * frame.steps, program.populations[i]
    whole = check_events(p, e, max(total, _end(e)), 0, ends)
    early = int(np.searchsorted(whole.step, total))
    return Events(whole.step[:early], whole.soma[:early], None if whole.code is None else whole.code[:early])


def _digest(program: Program, units: int, events: dict[int, Events]) -> str:
    hasher = hashlib.sha256(f"{program.timesteps} {units}".encode())
    for i, e in sorted(events.items()):
        hasher.update(f"\0{program.populations[i].name}\0{len(e)}".encode())
        for array in (e.step, e.soma, np.ones(0) if e.code is None else e.code):
            hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


# --- files ------------------------------------------------------------------------------------------------


def _is_recording(program: Program, path: Path) -> bool:
    """Whether a file is a recording of an event camera, and has no arrays by the names of all inputs."""
    if not holds_events(path):
        return False
    names = _inputs(program)
    if path.suffix == ".bin" or not names:
        return True
    with Npz(path) as file:
        return not all(name in file or f"{name}.step" in file for name in names)


def _read(program: Program, path: Path) -> tuple[dict[str, Input], np.ndarray | None]:
    """Inputs by name, and labels, of an .npz. FrontendError for an array that is no part of an input."""
    names = list(_inputs(program))
    found: dict[str, Input] = {}
    with Npz(path) as file:
        labelled = "labels" in file and "labels" not in names
        used = {"labels"} if labelled else set()
        for name in [*names, *([ONLY_INPUT] if len(names) == 1 and names[0] not in file else [])]:
            lists = [f"{name}.{c}" for c in COLUMNS if f"{name}.{c}" in file]
            if name in file and lists:
                raise FrontendError(f"{path}: has both '{name}' and '{lists[0]}'; give one of them")
            if name in file:
                found[name] = file.read(name)
                used.add(name)
            elif lists:
                found[name] = _events(file, name)
                used.update(lists)
        stray = [name for name in file.names if name not in used]
        if stray:
            raise FrontendError(
                f"{path}: its array '{stray[0]}' belongs to no input of Program '{program.name}', which are"
                f" {', '.join(names) or 'none'}; give NAME [T, C, H, W] or [N, T, C, H, W], or NAME.step, NAME.soma"
                " and, where events carry codes, NAME.code"
            )
        return found, file.read("labels") if labelled else None


def _events(file: Npz, name: str) -> Events:
    """The list of events of an input: NAME.step, NAME.soma, NAME.code."""
    for column in COLUMNS[:2]:
        if f"{name}.{column}" not in file:
            raise FrontendError(f"{file.path}: has '{name}.*' but no '{name}.{column}'; a list of events has both")
    code = file.read(f"{name}.code") if f"{name}.code" in file else None
    return Events(file.read(f"{name}.step"), file.read(f"{name}.soma"), code)


# --- recordings -------------------------------------------------------------------------------------------


def _recorded(program: Program, path: Path, labels: Any, steps: int | None, limit: int | None, dt: int | None) -> Drive:
    names, T = _inputs(program), program.timesteps
    if len(names) != 1:
        raise UsageError(
            f"{path}: holds the events of one camera, but Program '{program.name}' has {len(names)} inputs"
            f" ({', '.join(names) or 'none'}); give arrays by name"
        )
    i = next(iter(names.values()))
    p = program.populations[i]
    if limit is not None and not T:
        raise UsageError(f"--limit {limit}: a stream has no samples; say with --steps how long it runs")
    if dt is None and not T:
        raise UsageError(f"{path}: holds events by time; say with --dt how long a timestep is, in the units of t")
    block = max(min(CELLS // int(np.prod(p.shape)), BLOCK), 1)
    windows = EventWindows(path, p.shape, T or block, dt, steps // T if T and steps else limit)
    long = (windows.extent.last - windows.extent.first) // windows.dt + 1
    units = min(len(windows), limit or len(windows)) if T else steps or long
    note = windows.note if T else _stream_note(windows, long, units)
    note += _check_counts(path, windows, p, units * max(T, 1))
    known = None if labels is None else _checked_labels(program, labels, units if T else 1)
    return Drive(program, Counted(windows, p), units, known, f"{windows.digest} {units}", note)


def _stream_note(windows: EventWindows, long: int, steps: int) -> str:
    e = windows.extent
    cut = f"; the first {steps:,} are run" if steps < long else ""
    return (
        f"input: {e.events:,} events from t = {e.first} to {e.last}, counted in {long:,} timesteps of {windows.dt}{cut}"
    )


def _check_counts(path: Path, windows: EventWindows, p: Population, steps: int) -> str:
    """What becomes of several events of one pixel in one timestep. FrontendError where they are beyond the payload."""
    low, high = payload_range(p)
    most = merged = 0
    for n in range(min(len(windows), -(-steps // windows.shape[1]))):
        counts = windows[n : n + 1]
        most, merged = max(most, int(counts.max())), merged + int(np.maximum(counts - 1, 0).sum())
    if coded(p):
        if most > high:
            raise FrontendError(
                f"{path}: {most} events of one pixel in one timestep, but input '{p.name}' takes codes {low}..{high};"
                " give a shorter --dt"
            )
        return ""
    if not merged:
        return ""
    return f"; {merged:,} events fell on a pixel that had one in the same timestep, and plain spikes do not count them"
