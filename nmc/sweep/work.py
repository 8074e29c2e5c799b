"""One point: compile the model, run it on the input, and note what came out. Runs on workers, or here."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmc import _version
from nmc.artefact import Compiled
from nmc.comparing import METRICS, WHOLE
from nmc.compiling import compile, file_digest
from nmc.emulating import emulate
from nmc.sweep.cluster import check_version
from nmc.sweep.points import FILES
from nmc.sweep.records import SCHEMA, Energy, Record, key_of
from nmc_compiler.errors import NmcError, UsageError
from nmc_emulator.energies import units_of
from nmc_emulator.report import Report

MODEL, BESIDE, INPUT, PRICES = "model", "config beside it", "input", "prices"


@dataclass(frozen=True)
class Source:
    """A file that a sweep reads: where it is, and its sha256 (hex)."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Task:
    """A point to be computed.

    ``sources``: files by what they are to nmc (MODEL, BESIDE, INPUT, PRICES and a name, or the name of an option).
    ``options``: those that are not files.  ``shown``: all of them, as records have them.  ``samples``, ``steps``,
    ``prices`` (names): of the run.  ``call``: of a model that is code, what follows the name of its file, ":callable".
    ``graph``: digest of the network that code makes.
    """

    sources: dict[str, Source]
    options: dict[str, Any]
    shown: dict[str, Any]
    samples: int | None = None
    steps: int | None = None
    prices: tuple[str, ...] = ()
    call: str = ""
    graph: str = ""
    nmc: str = field(default_factory=_version)

    @property
    def about(self) -> dict[str, Any]:
        """What names the point."""
        files = {name: source.sha256 for name, source in sorted(self.sources.items())}
        files |= {"callable": self.call, "network": self.graph} if self.call else {}
        run = {"samples": self.samples, "steps": self.steps, "prices": list(self.prices)}
        return {"nmc": self.nmc, "files": files, "options": self.shown} | run

    @functools.cached_property
    def key(self) -> str:
        """sha256 (hex) of that."""
        return key_of(self.about)


def evaluate(task: Task, contents: Mapping[str, bytes] | None = None) -> Record:
    """Compile and run one point. What nmc refuses is a result; other errors are raised.

    contents: of the files, by their sha256, where this machine does not have them.  UsageError where a file is not
    the one that the sweep began with, or this is another nmc.
    """
    check_version(task.nmc)
    with _placed(task, contents) as paths:
        try:
            return _record(task, *_outcome(task, paths))
        except NmcError as error:
            return _new(task, "refused", error=_without_folders(str(error), paths))
        except MemoryError:
            return lost(task, "its worker had not enough memory")


def _record(task: Task, compiled: Compiled, report: Report | None) -> Record:
    return _new(
        task,
        "done",
        program=compiled.digest,
        figures=_figures(compiled, report),
        energy=_energy(report),
        assumed=sorted(f["feature"] for f in compiled.program.meta["features"] if f["evidence"] == "assumed"),
    )


def lost(task: Task, text: str) -> Record:
    """The record of a point whose workers died."""
    return _new(task, "lost", error=text)


def _new(task: Task, status: str, **found: Any) -> Record:
    return Record(schema=SCHEMA, key=task.key, **task.about, status=status, **found)  # type: ignore[arg-type]


# --- files ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _placed(task: Task, contents: Mapping[str, bytes] | None) -> Iterator[dict[str, Path]]:
    """Where the files are on this machine."""
    if contents is None:
        for name, source in task.sources.items():
            if _digest(source.path) != source.sha256:
                raise UsageError(f"{source.path}: the {name} changed while the sweep ran; run it again")
        yield {name: source.path for name, source in task.sources.items()}
        return
    with tempfile.TemporaryDirectory(prefix="nmc-explore-") as folder:
        paths = {}
        for number, (name, source) in enumerate(task.sources.items()):
            place = Path(folder) / (MODEL if name == BESIDE else f"{number}" if name != MODEL else MODEL)
            place.mkdir(exist_ok=True)
            paths[name] = place / source.path.name
            paths[name].write_bytes(contents[source.sha256])
        yield paths


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


def _without_folders(text: str, paths: Mapping[str, Path]) -> str:
    """An error that does not depend on where the files lay: records must not either."""
    for folder in sorted({str(path.parent) for path in paths.values()}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return text


# --- what comes out ---------------------------------------------------------------------------------------


def _outcome(task: Task, paths: Mapping[str, Path]) -> tuple[Compiled, Report | None]:
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in task.options.items()}
    options |= {name: path for name, path in paths.items() if name in FILES}
    compiled = compile(f"{paths[MODEL]}{task.call}", **options)
    if INPUT not in paths:
        return compiled, None
    prices = [paths.get(f"{PRICES} {name}", name) for name in task.prices]
    return compiled, emulate(compiled, paths[INPUT], limit=task.samples, steps=task.steps, prices=prices).report


def _figures(compiled: Compiled, report: Report | None) -> dict[str, int | float | None]:
    """What of a point is one number: of its mapping, and of its run."""
    assert compiled.mapping is not None
    mapping, program = compiled.mapping, compiled.program
    found: dict[str, int | float | None] = {
        "cores": mapping.cores,
        "chips": mapping.chips,
        "synapse_words": sum(int(core["synapse_words"][0]) for core in mapping.utilisation),
        "neurons": sum(int(core["neurons"][0]) for core in mapping.utilisation),
        "weight_error": _weight_error(compiled),
        "latency_ticks": (program.timesteps - 1) * program.ticks_per_step + program.depth + 1,
        "interval_ticks": program.interval,
    }
    if report is None:
        return found
    per = units_of(report.data)
    for name, (key, _) in METRICS.items():
        value = report[key]
        found[key] = value if name in WHOLE or value is None else value / per
    return found | {"seconds": report["seconds"]["per_sample"]}


def _weight_error(compiled: Compiled) -> float | None:
    """The largest relative rms error of a layer's weights."""
    errors = [e["rms_error_relative"] for e in compiled.conversion["entries"] if "rms_error_relative" in e]
    return max((float(e) for e in errors if math.isfinite(e)), default=None)


def _energy(report: Report | None) -> dict[str, Energy] | None:
    if report is None:
        return None
    per = units_of(report.data)
    return {
        e["profile"]: Energy(kind=e["kind"], pj=e["total_pj"] / per, at_least=not e["complete"])
        for e in report["energy"]
    }
