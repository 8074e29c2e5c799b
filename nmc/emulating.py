"""nmc.emulate: run a mapped Program on samples; counts, report and recorded spikes come back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmc.artefact import Compiled, json_text, load
from nmc.folders import replacing, write_bytes
from nmc.inputs import Given, as_samples, shape_of_program
from nmc.recording import read_recording
from nmc.running import FILES, Wishes, run_images
from nmc.timing import timed, whole
from nmc_compiler.errors import UsageError
from nmc_compiler.program import program_digest
from nmc_compiler.program.model import Population, Program
from nmc_emulator import RunResult
from nmc_emulator.recost import Recording
from nmc_emulator.recost import recost as count_again
from nmc_emulator.report import Report, make_report

REPORT, SPIKES = "report.json", "spikes.npz"
MAX_RECORD_BYTES = 8 << 30  # recorded codes are held in memory until they are written


@dataclass(frozen=True)
class Run:
    """A finished run. ``codes``: recorded population -> [N, T, C, H, W]; ``partial``: it was stopped before its end."""

    report: Report
    logits: np.ndarray
    codes: dict[str, np.ndarray]
    result: RunResult
    program: Program
    partial: bool = False

    @property
    def accuracy(self) -> float | None:
        """Fraction classified right, None without labels."""
        return self.report["accuracy"]

    def spikes(self, name: str) -> np.ndarray:
        """Codes of a recorded population as its authors lay them out: [T, N, ...], or [N, ...] without time."""
        if name not in self.codes:
            known = ", ".join(list(self.codes)[:6]) or "none"
            raise UsageError(f"population {name!r} was not recorded; recorded: {known}")
        population = next(p for p in self.program.populations if p.name == name)
        return as_authors(population, self.codes[name], self.program.record_time)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``report.json``, and ``spikes.npz`` if anything was recorded. ArtefactError where it cannot be."""
        with _staged(folder) as stage:
            self._write(stage)
        return Path(folder)

    def _write(self, stage: Path) -> None:
        if self.codes:
            arrays: dict[str, Any] = {f"spikes/{name}": self.spikes(name) for name in self.codes}
            np.savez_compressed(stage / SPIKES, **arrays)
        write_bytes(stage / REPORT, json_text(self.report.data).encode())


def _staged(folder: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Path]:
    """Where a run is written until it is whole; files of an earlier run that it does not write go."""
    return replacing(folder, last=REPORT, stale=(SPIKES, *FILES))


@contextlib.contextmanager
def _perhaps(folder: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    if folder is None:
        yield None
        return
    with _staged(folder) as stage:
        yield stage


def emulate(
    program: Compiled | Program | str | os.PathLike[str],
    x: np.ndarray | str | os.PathLike[str],
    labels: np.ndarray | None = None,
    *,
    record: Literal["all"] | Iterable[str] = (),
    engine: str = "auto",
    strict: bool = False,
    limit: int | None = None,
    batch: int = 1,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    trace: Iterable[str] = (),
    probe: Iterable[str] = (),
    plot: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    catch: bool = False,
    dt: int | None = None,
    timing: Literal["", "queue", "cycle"] = "",
    multicast: bool = False,
    arithmetic: Literal["exact", "float"] = "exact",
) -> Run:
    """Emulate a Program exactly, and count what happens.

    program: what ``nmc.compile`` or ``nmc.load`` gave, or an artefact's folder.  x: images
    [N, C, H, W] ([N, T, C, H, W] if the input has a time axis), or an .npz that holds ``images`` and
    perhaps ``labels``.  labels: int [N], for the accuracy.  record: populations whose codes to keep,
    or "all".  engine: "layers" (fast), "events" (fast, general networks), "ticks", or "auto"; the
    results are the same.  strict: a value out of range is a VerifyError, not a count.  limit: only
    the first samples.  batch: samples computed together.  out: folder for report.json, spikes.npz
    and traces.  progress: a bar on standard error.

    trace: files to write into ``out`` as the run goes on, of "events", "csv", "parquet", "chrome";
    probe: somas for a VCD, ``population`` or ``population:c,y,x``; plot: pictures (docs/traces.md).
    checkpoint: a file that keeps what is done, so that the same call goes on behind it.  catch:
    Ctrl-C ends the run behind the sample at hand, and its report is ``partial``.  dt: where ``x``
    names a recording of events (x, y, t, p), how long a timestep is, in the units of t (docs/traces.md).
    timing: "queue" sends the packets through queues and links, "cycle" flit by flit (docs/timing.md);
    multicast: one packet per event, copied where its way branches, instead of one per core.
    arithmetic: "float" makes the potentials of lif somas real numbers, which neither round nor wrap nor
    saturate: not what the chip computes, but what its integers cost.

    Raises FrontendError for samples that do not fit, UsageError for options that make no sense.
    """
    netlist, digest = _program(program)
    samples = as_samples(x, labels, shape_of_program(netlist), limit, dt)
    wanted: str | list[str] = "all" if record == "all" else list(record)
    _check_room(netlist, samples, wanted)
    wishes = Wishes(
        wanted,
        tuple(dict.fromkeys(trace)),
        tuple(probe),
        plot,
        None if checkpoint is None else Path(checkpoint),
        timing,
        multicast,
    )
    if arithmetic == "float" and (wishes.probe or "events" in wishes.trace):
        raise UsageError("arithmetic float is for comparison: probes and events.npz are of exact runs only")
    if wishes.files and out is None:
        raise UsageError("traces, probes and plots are files: say with `out` where they go")
    with _perhaps(out) as stage:
        options: Any = {"engine": engine, "strict": strict, "batch": batch, "progress": progress, "catch": catch}
        options["arithmetic"] = arithmetic
        done = run_images(netlist, digest, samples.images, samples.labels, wishes, stage, **options)
        result, known = done.result, None if samples.labels is None else samples.labels[: done.result.samples]
        extra: dict[str, Any] = {"input": samples.note} if samples.note else {}
        extra |= {"partial": {"samples": result.samples, "of": done.samples}} if done.partial else {}
        extra |= {"timing": done.timing, "arithmetic": arithmetic}
        report = _report(netlist, result, known, digest, extra)
        finished = Run(report, result.logits, result.codes, result, netlist, done.partial)
        if stage is not None:
            finished._write(stage)
    if checkpoint is not None and not done.partial:
        Path(checkpoint).unlink(missing_ok=True)
    return finished


def recost(
    program: Compiled | Program | str | os.PathLike[str],
    events: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    timing: Literal["", "queue", "cycle"] = "",
    multicast: bool = False,
) -> Run:
    """Report of a Program on the samples of a recorded run of the same network, without running it.

    events: the events.npz that a run of any mapping of the network wrote (``trace=["events"]``).  All
    counters are those of emulating ``program``; logits, overflows and labels are carried over.  timing,
    multicast: as for ``emulate``.

    Raises UsageError where the recorded Program computes something else, FrontendError for a damaged file.
    """
    netlist, digest = _program(program)
    recording = read_recording(events, netlist)
    counters = count_again(netlist, recording)
    scale = next((p.readout_scale for p in netlist.populations if p.model == "readout"), 1.0)
    logits, mapped = recording.logits_int, netlist.mapping is not None
    result = RunResult(logits * scale, logits, counters, recording.samples, "recost", mapped)
    extra = {"recosted_from": recording.program, "timing": _timed(netlist, recording, timing, multicast)}
    report = _report(netlist, result, recording.labels, digest, extra)
    finished = Run(report, result.logits, {}, result, netlist)
    if out is not None:
        finished.save(out)
    return finished


def _timed(program: Program, recording: Recording, timing: str, multicast: bool) -> dict[str, Any] | None:
    if not timing:
        return None
    names = {p.name: i for i, p in enumerate(program.populations)}
    trace = whole(program, recording.chunks(), [names.get(name) for name in recording.populations])
    return timed(program, trace, timing, multicast)


def _report(
    program: Program, result: RunResult, labels: np.ndarray | None, digest: str, extra: dict[str, Any]
) -> Report:
    """The report, with what is special about the run said first."""
    special = {"input": None, "partial": None, "recosted_from": None, "timing": None, "arithmetic": "exact"} | extra
    data = dict(make_report(program, result, labels, digest).data) | special
    said = []
    if data["partial"]:
        said.append(f"PARTIAL: the run was stopped behind {result.samples} of {data['partial']['of']} samples")
    if data["recosted_from"]:
        said.append(
            f"re-costed from the events of a run of Program {data['recosted_from'][:12]}, which computes the same;"
            " this Program was not run"
        )
    if data["arithmetic"] == "float":
        said.append("potentials of lif somas are real numbers in this run: not what the chip computes")
    said += [data["input"]] if data["input"] else []
    return Report(data | {"assumptions": [*said, *data["assumptions"]]})


def _program(program: Compiled | Program | str | os.PathLike[str]) -> tuple[Program, str]:
    if isinstance(program, Program):
        return program, program_digest(program)
    compiled = program if isinstance(program, Compiled) else load(program)
    return compiled.program, compiled.digest


def _check_room(program: Program, samples: Given, record: str | list[str]) -> None:
    """Refuse to record more than memory should be asked for."""
    size = sum(
        int(np.prod(p.shape)) * (4 if p.signed or p.payload_bits > 8 else 1)
        for p in program.populations
        if p.model != "readout" and (record == "all" or p.name in record)
    )
    size *= program.timesteps * len(samples.images)
    if size > MAX_RECORD_BYTES:
        raise UsageError(
            f"recording this takes {size} bytes, more than {MAX_RECORD_BYTES}; "
            "record fewer populations, or fewer samples with --limit N"
        )


def as_authors(population: Population, codes: np.ndarray, with_time: bool) -> np.ndarray:
    """Codes [N, T, C, H, W] as the authors of the model lay them out, time first: [T, N, ...] or [N, ...]."""
    codes = np.moveaxis(codes, 0, 1)
    if population.record is not None:
        perm = [2 + axis for axis in population.record.perm]
        codes = codes.transpose(0, 1, *perm).reshape(*codes.shape[:2], *population.record.shape)
    return np.ascontiguousarray(codes if with_time else codes[0])
