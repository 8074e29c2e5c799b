"""nmc.emulate: run a mapped Program on samples; counts, report and recorded spikes come back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmc.artefact import Compiled, json_text, load
from nmc.clouds import holds_points, samples_of
from nmc.drive import Input, drive_of, drive_of_images, takes_events
from nmc.encoders import Coding
from nmc.folders import replacing, write_bytes
from nmc.formula_report import graph_of, with_formula
from nmc.general import EventJob, EventOutcome, run_job
from nmc.host_share import with_host
from nmc.hosted import host_drive, is_hosted, need_graph, refuse_hosted
from nmc.inputs import Given, as_samples, shape_of_program
from nmc.kept import write_events
from nmc.measuring import Metrics, check_codes
from nmc.measuring import metrics as measured
from nmc.recording import as_recorded, read_recording
from nmc.reporting import report_of, under
from nmc.running import digest_of, run_images
from nmc.scores import Scores, output_of, said
from nmc.sweep.cluster import check_workers
from nmc.timing import check_timing, timed, whole
from nmc.wishes import FILES, Wishes
from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph
from nmc_compiler.program import program_digest
from nmc_compiler.program.model import Population, Program
from nmc_emulator import Events, RunResult
from nmc_emulator import event_log as event_checkpoint
from nmc_emulator.energies import choose_profiles, split_rates
from nmc_emulator.price_profile import PriceProfile
from nmc_emulator.recost import Recording
from nmc_emulator.recost import recost as count_again
from nmc_emulator.recount import Chunk
from nmc_emulator.report import Report
from nmc_emulator.suits import engine_for, why_not_layers
from nmc_emulator.trace import codes_of

REPORT, SPIKES = "report.json", "spikes.npz"
WEIGHTS = "weights.npz"  # of plastic projections
OUTPUTS = "outputs.npz"  # of the part on the host
MAX_RECORD_BYTES = 8 << 30  # recorded codes are held in memory until they are written


@dataclass(frozen=True)
class Run:
    """A finished run; ``partial``: it was stopped before its end.

    ``codes``: recorded population -> [N, T, C, H, W], of a run of images.  ``events``: recorded population -> Events,
    of a run that events drove.  ``program``: as it ran, that is with the windows of samples.  ``outputs``: of the part
    on the host, [N, T, C, H, W].
    """

    report: Report
    logits: np.ndarray
    codes: dict[str, np.ndarray]
    result: RunResult
    program: Program
    partial: bool = False
    events: Mapping[str, Events] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """What a notebook shows: the report."""
        return self.report._repr_html_()

    @property
    def accuracy(self) -> float | None:
        """Fraction classified right, None without labels."""
        return self.report["accuracy"]

    def spikes(self, name: str) -> np.ndarray:
        """Codes of a recorded population as its authors lay them out: [T, N, ...], or [N, ...] without time."""
        if name not in self.codes and name not in self.events:
            known = ", ".join([*self.codes, *self.events][:6]) or "none"
            raise UsageError(f"population {name!r} was not recorded; recorded: {known}")
        population = next(p for p in self.program.populations if p.name == name)
        codes = self.codes[name] if name in self.codes else self._dense(name, population)
        return as_authors(population, codes, self.program.record_time)

    def _dense(self, name: str, population: Population) -> np.ndarray:
        T = self.program.timesteps
        steps = T * self.result.samples if T else self.report["timesteps"]
        codes: np.ndarray = codes_of(self.events[name], steps, population.shape)
        return codes.reshape(self.result.samples, -1, *population.shape)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``report.json``, and ``spikes.npz`` if anything was recorded. ArtefactError where it cannot be."""
        with _staged(folder) as stage:
            self._write(stage)
        return Path(folder)

    def _write(self, stage: Path) -> None:
        if self.codes:
            arrays: dict[str, Any] = {f"spikes/{name}": self.spikes(name) for name in self.codes}
            np.savez_compressed(stage / SPIKES, **arrays)
        if self.result.weights:
            np.savez_compressed(stage / WEIGHTS, **self.result.weights)  # type: ignore[arg-type]
        if self.events:
            write_events(stage / SPIKES, self.events)
        if self.outputs:
            np.savez_compressed(stage / OUTPUTS, **self.outputs)  # type: ignore[arg-type]
        write_bytes(stage / REPORT, json_text(self.report.data).encode())


def _staged(folder: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Path]:
    """Where a run is written until it is whole; files of an earlier run that it does not write go."""
    return replacing(folder, last=REPORT, stale=(SPIKES, WEIGHTS, OUTPUTS, *FILES))


@contextlib.contextmanager
def _perhaps(folder: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    if folder is None:
        yield None
        return
    with _staged(folder) as stage:
        yield stage


def emulate(
    program: Compiled | Program | str | os.PathLike[str],
    x: Input | Mapping[str, Input] | str | os.PathLike[str] | None = None,
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
    steps: int | None = None,
    timing: Literal["", "queue", "cycle"] = "",
    multicast: bool | None = None,
    arithmetic: Literal["exact", "float"] = "exact",
    encode: str = "",
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    prices: Iterable[str | os.PathLike[str]] = (),
    metrics: bool = False,
) -> Run:
    """Emulate a Program exactly, and count what happens.

    program: what ``nmc.compile`` or ``nmc.load`` gave, or an artefact's folder.  x: images
    [N, C, H, W] ([N, T, C, H, W] if the input has a time axis), or an .npz that holds ``images`` and
    perhaps ``labels``.  Where events drive the Program: by input population (or alone, if there is one)
    codes [T, C, H, W], of samples [N, T, C, H, W], or ``nmc_emulator.Events``; or an .npz of these
    (docs/formats.md#inputs); None where it has no input.  labels: int [N], for the accuracy.

    record: populations whose codes to keep, or "all".  engine: "layers" (fast), "events" (fast, general
    networks), "ticks", or "auto"; the results are the same.  strict: a value out of range is a VerifyError,
    not a count.  limit: only the first samples.  batch: samples computed together.  out: folder for
    report.json, spikes.npz and traces.  progress: a bar on standard error.  steps: timesteps of a run that
    events drive (of each sample, where samples go through a stream); None: as long as its input.

    trace: files to write into ``out`` as the run goes on, of "events", "csv", "parquet", "chrome";
    probe: somas for a VCD, ``population`` or ``population:c,y,x``; plot: pictures (docs/traces.md).
    checkpoint: a file that keeps what is done, so that the same call goes on behind it.  catch:
    Ctrl-C ends the run behind the sample or timestep at hand, and its report is ``partial``.  dt: where ``x``
    names a recording of events (x, y, t, p), how long a timestep is, in the units of t (docs/traces.md).
    timing: "queue" sends the packets through queues and links, "cycle" flit by flit (docs/timing.md);
    multicast: one packet per event, copied where its way branches, instead of one per core; None: as the target
    does it.  arithmetic: "float" makes the potentials of lif somas real numbers, which neither round nor wrap nor
    saturate: not what the chip computes, but what its integers cost.  encode: images with values 0..1 become spikes,
    by "poisson" (``seed``), "rate", "ttfs" or "phase" (``nmc.encode``).

    workers: processes of this machine that samples are spread over; scheduler: "tcp://host:port" of Dask, whose workers
    take them (docs/explore.md#workers). What comes out is the same.  prices: price profiles of the energies, by name
    or file, in place of those that nmc takes itself (docs/prices.md).  metrics: count what NeuroBench counts, too, from
    the network as trained and the codes of all its neurons, which are recorded (docs/metrics.md).

    Raises FrontendError for samples that do not fit, UsageError for options that make no sense.
    """
    program = _compiled(program)
    (netlist, digest), graph = _program(program), graph_of(program)
    if metrics:
        _check_metrics(netlist, graph)
    energies, rates = split_rates(prices)
    profiles = choose_profiles(energies) if energies or rates else []
    wishes = Wishes(
        "all" if record == "all" or metrics else list(record),
        tuple(dict.fromkeys(trace)),
        tuple(probe),
        plot,
        None if checkpoint is None else Path(checkpoint),
        timing,
        multicast,
        rates,
    )
    _check_wishes(netlist, wishes, arithmetic, out)
    how: dict[str, Any] = {"strict": strict, "arithmetic": arithmetic}
    go: dict[str, Any] = {"progress": progress, "catch": catch}
    spread = _spread(netlist, engine, workers, scheduler)
    code = Coding(encode, seed) if encode else None
    if is_hosted(netlist):
        if code is not None or dt is not None:
            raise UsageError("--encode and --dt do not go with a part on the host; give the inputs as they are")
        hosted = host_drive(need_graph(_compiled(program)), x, labels, steps=steps, limit=limit)
        job = EventJob(hosted, digest, wishes, engine, **how)
        with _perhaps(out) as stage:
            finished = _saved(_of_events(job, run_job(job, stage, **go)), stage, profiles, rates, graph)
    elif takes_events(netlist):
        drive = drive_of(netlist, x, labels, steps=steps, limit=limit, dt=dt, code=code)
        job = EventJob(drive, digest, wishes, engine, **how)
        with _perhaps(out) as stage:
            finished = _saved(_of_events(job, run_job(job, stage, **go)), stage, profiles, rates, graph)
    else:
        samples = _images(netlist, x, labels, steps, limit, dt, code)
        _check_room(netlist, samples, wishes.record)
        with _perhaps(out) as stage:
            engine = "layers" if spread else engine
            done = _of_images(netlist, digest, samples, wishes, engine, batch, stage, how, go | spread)
            found = _measured(done, graph, samples) if metrics else None
            finished = _saved(done, stage, profiles, rates, graph, found)
    if checkpoint is not None and not finished.partial:
        event_checkpoint.remove(Path(checkpoint))
    return finished


def _check_wishes(program: Program, wishes: Wishes, arithmetic: str, out: str | os.PathLike[str] | None) -> None:
    """UsageError for what does not go together, before anything is read or run."""
    if arithmetic == "float" and (wishes.probe or "events" in wishes.trace):
        raise UsageError("arithmetic float is for comparison: probes and events.npz are of exact runs only")
    if wishes.files and out is None:
        raise UsageError("traces, probes and plots are files: say with `out` where they go")
    if wishes.multicast is not None and not wishes.timing:
        raise UsageError("multicast says how packets travel, which only the times show; give --timing as well")
    if wishes.timing:
        check_timing(program, wishes.timing, wishes.multicast, wishes.rates)


def _spread(program: Program, engine: str, workers: int | None, scheduler: str | None) -> dict[str, Any]:
    """Where samples are computed, if not here. UsageError where they cannot be spread."""
    check_workers(workers, scheduler)
    if not workers and scheduler is None:
        return {}
    flag = "--workers" if scheduler is None else "--scheduler"
    if engine not in ("auto", "layers"):
        raise UsageError(f"{flag}: samples are spread by the engine 'layers'; leave out --engine {engine}")
    events = "a part on the host" if is_hosted(program) else "events as its input" if takes_events(program) else None
    reason = events or why_not_layers(program)
    if reason is not None:
        raise UsageError(
            f"{flag}: samples are spread by the engine 'layers' from images, but Program '{program.name}' has {reason};"
            f" leave {flag} out"
        )
    return {"workers": workers or 0, "scheduler": scheduler}


def _saved(
    run: Run,
    stage: Path | None,
    profiles: list[PriceProfile],
    rates: PriceProfile | None,
    graph: Graph | None,
    found: Metrics | None = None,
) -> Run:
    """The run with the energies asked for and what its network as trained would need, written where it is to be."""
    if profiles:
        run = replace(run, report=under(run.report, run.program, run.result.counters, profiles, rates))
    run = replace(run, report=with_formula(run.report, graph, run.program, run.result.counters, profiles, found))
    if stage is not None:
        run._write(stage)
    return run


def _check_metrics(program: Program, graph: Graph | None) -> None:
    """UsageError where a run has not what metrics need, before anything is run."""
    if graph is None:
        raise UsageError("metrics are of the network as trained; this Program was made from no graph")
    if takes_events(program):
        raise UsageError("metrics of a run are counted where it takes images; for others see nmc.metrics")
    check_codes(graph, [p.name for p in program.populations])


def _measured(run: Run, graph: Graph | None, samples: Given) -> Metrics:
    """Metrics of the network as trained, with the codes of the run."""
    assert graph is not None  # _check_metrics
    return measured(graph, np.asarray(samples.images[: run.result.samples]), codes=run.codes)


def _images(
    program: Program, x: Any, labels: Any, steps: int | None, limit: int | None, dt: int | None, code: Coding | None
) -> Given:
    """The samples of a Program that takes images."""
    if steps is not None:
        T = program.timesteps
        raise UsageError(f"--steps {steps}: Program '{program.name}' takes images, each for {T} timesteps; use --limit")
    if x is None or isinstance(x, (Mapping, Events)):
        raise UsageError(f"Program '{program.name}' takes images; give --input FILE.npz, or an array")
    if not isinstance(x, np.ndarray) and program.sites and holds_points(x):
        images, stored = samples_of(program, x, limit)
        labels = stored if labels is None else labels
        return replace(as_samples(images, labels, shape_of_program(program), limit), note=f"{len(images)} clouds")
    return as_samples(x, labels, shape_of_program(program), limit, dt, code)


def _of_images(
    program: Program,
    digest: str,
    samples: Given,
    wishes: Wishes,
    engine: str,
    batch: int,
    stage: Path | None,
    how: dict[str, Any],
    go: dict[str, Any],
) -> Run:
    """A run of images, on the engine that suits the Program and what is wanted."""
    chosen = _engine_for(program, engine, wishes)
    if chosen == "events":
        drive = drive_of_images(program, samples.images, samples.labels, digest_of(samples.images), samples.note)
        job = EventJob(drive, digest, wishes, "events", **how)
        return _of_events(job, run_job(job, stage, **go), dense=True)
    options = {"engine": chosen, "batch": batch, **how, **go}
    done = run_images(program, digest, samples.images, samples.labels, wishes, stage, **options)
    result, known = done.result, None if samples.labels is None else samples.labels[: done.result.samples]
    partial = {"samples": result.samples, "of": done.samples} if done.partial else None
    extra = {"input": samples.note or None, "partial": partial, "timing": done.timing, "arithmetic": how["arithmetic"]}
    report = report_of(program, result, known, digest, result.samples, extra)
    return Run(report, result.logits, result.codes, result, program, done.partial)


def _engine_for(program: Program, engine: str, wishes: Wishes) -> str:
    """The engine of a run of images; what "layers" runs can be traced there, too."""
    if engine != "auto":
        return engine
    if wishes.events or wishes.checkpoint:
        return "layers" if why_not_layers(program) is None else "events"
    return engine_for(program)


def _of_events(job: EventJob, done: EventOutcome, dense: bool = False) -> Run:
    """The report of a run on events; ``dense``: with codes in place of events, as runs of images have them."""
    drive, program, result = job.drive, done.program, done.result
    readout = any(p.model == "readout" for p in program.populations)
    unit = "samples" if program.timesteps else "timesteps"
    extra = {
        "input": drive.note or None,
        "partial": {unit: done.units, "of": done.asked} if done.partial else None,
        "timing": done.timing,
        "arithmetic": job.arithmetic,
        "classes": None if drive.labels is None or readout else said(program),
    }
    report = report_of(program, result, done.labels, job.digest, done.units, extra)
    outputs: Mapping[str, np.ndarray] = {}
    if job.host is not None:
        report, outputs = with_host(report, drive.program, job.host), job.host.outputs
    run = Run(report, result.logits, {}, result, program, done.partial, done.events, outputs)
    if not dense:
        return run
    codes = {p.name: run._dense(p.name, p) for p in program.populations if p.name in done.events}
    small = {p.name: not (p.signed or p.payload_bits > 8) for p in program.populations}
    codes = {name: c.astype(np.uint8) if small[name] else c for name, c in codes.items()}
    return Run(report, result.logits, codes, result, program, done.partial)


def recost(
    program: Compiled | Program | str | os.PathLike[str],
    events: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    timing: Literal["", "queue", "cycle"] = "",
    multicast: bool | None = None,
    prices: Iterable[str | os.PathLike[str]] = (),
) -> Run:
    """Report of a Program on the samples of a recorded run of the same network, without running it.

    events: the events.npz that a run of any mapping of the network wrote (``trace=["events"]``).  All
    counters are those of emulating ``program``; logits, overflows and labels are carried over.  timing,
    multicast, prices: as for ``emulate``.

    Raises UsageError where the recorded Program computes something else, FrontendError for a damaged file.
    """
    program = _compiled(program)
    (netlist, digest), graph = _program(program), graph_of(program)
    refuse_hosted(netlist, "re-costing")
    energies, rates = split_rates(prices)
    _check_wishes(netlist, Wishes(timing=timing, multicast=multicast, rates=rates), "exact", out)
    recording = read_recording(events, netlist)
    netlist = as_recorded(netlist, recording.window)
    counters = count_again(netlist, recording)
    scale = next((p.readout_scale for p in netlist.populations if p.model == "readout"), 1.0)
    logits, mapped = recording.logits_int, netlist.mapping is not None
    result = RunResult(logits * scale, logits, counters, recording.samples, "recost", mapped)
    extra: dict[str, Any] = {"recosted_from": recording.program}
    extra["timing"] = _timed(netlist, recording, timing, multicast, rates)
    labels = recording.labels
    if labels is not None and not logits.shape[1]:
        extra["classes"] = said(netlist)
        result, labels = _scored(netlist, recording, result)
    units, profiles = recording.steps or recording.samples, choose_profiles(energies)
    report = under(report_of(netlist, result, labels, digest, units, extra), netlist, counters, profiles, rates)
    report = with_formula(report, graph, netlist, counters, profiles)
    finished = Run(report, result.logits, {}, result, netlist)
    if out is not None:
        finished.save(out)
    return finished


def _places(program: Program, recording: Recording) -> list[int | None]:
    """The population that each number in the chunks of a recording stands for."""
    names = {p.name: i for i, p in enumerate(program.populations)}
    return [names.get(name) for name in recording.populations]


def _scored(program: Program, recording: Recording, result: RunResult) -> tuple[RunResult, np.ndarray | None]:
    """The result with classes told by the output population, and the labels, if there is such a population."""
    output = output_of(program)
    if output is None:
        return result, None
    scores = Scores(program, output, recording.samples)
    scores.add(Chunk(0, whole(program, recording.chunks(), _places(program, recording))))
    told = replace(result, logits=scores.sums.astype(np.float64), logits_int=scores.sums)
    return told, recording.labels


def _timed(
    program: Program, recording: Recording, timing: str, multicast: bool | None, rates: PriceProfile | None
) -> dict[str, Any] | None:
    if not timing:
        return None
    trace = whole(program, recording.chunks(), _places(program, recording))
    return timed(program, trace, timing, multicast, rates)


def _compiled(program: Compiled | Program | str | os.PathLike[str]) -> Compiled | Program:
    return program if isinstance(program, (Program, Compiled)) else load(program)


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
