"""nmc.emulate: run a mapped Program on samples; counts, report and recorded spikes come back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmc.artefact import Compiled, json_text, load
from nmc.folders import replacing, write_bytes
from nmc.inputs import Samples, as_samples, shape_of_program
from nmc_compiler.errors import UsageError
from nmc_compiler.program import program_digest
from nmc_compiler.program.model import Population, Program
from nmc_emulator import RunResult
from nmc_emulator import run as run_program
from nmc_emulator.report import Report, make_report

REPORT, SPIKES = "report.json", "spikes.npz"
MAX_RECORD_BYTES = 8 << 30  # recorded codes are held in memory until they are written


@dataclass(frozen=True)
class Run:
    """A finished run. ``codes``: recorded population -> [N, T, C, H, W]."""

    report: Report
    logits: np.ndarray
    codes: dict[str, np.ndarray]
    result: RunResult
    program: Program

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
        with replacing(folder, last=REPORT, stale=(SPIKES,)) as stage:
            if self.codes:
                arrays: dict[str, Any] = {f"spikes/{name}": self.spikes(name) for name in self.codes}
                np.savez_compressed(stage / SPIKES, **arrays)
            write_bytes(stage / REPORT, json_text(self.report.data).encode())
        return Path(folder)


def emulate(
    program: Compiled | Program | str | os.PathLike[str],
    x: np.ndarray | str | os.PathLike[str],
    labels: np.ndarray | None = None,
    *,
    record: Literal["all"] | Iterable[str] = (),
    engine: Literal["layers", "ticks"] = "layers",
    strict: bool = False,
    limit: int | None = None,
    batch: int = 1,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Run:
    """Emulate a Program exactly, and count what happens.

    program: what ``nmc.compile`` or ``nmc.load`` gave, or an artefact's folder.  x: images
    [N, C, H, W] ([N, T, C, H, W] if the input has a time axis), or an .npz that holds ``images`` and
    perhaps ``labels``.  labels: int [N], for the accuracy.  record: populations whose codes to keep,
    or "all".  engine: "layers" (fast) or "ticks"; the results are the same.  strict: a value out of
    range is a VerifyError, not a count.  limit: only the first samples.  batch: samples computed
    together.  out: folder for report.json and spikes.npz.  progress: a bar on standard error.

    Raises FrontendError for samples that do not fit, UsageError for options that make no sense.
    """
    netlist, digest = _program(program)
    samples = as_samples(x, labels, shape_of_program(netlist), limit)
    wanted: str | list[str] = "all" if record == "all" else list(record)
    _check_room(netlist, samples, wanted)
    result = run_program(
        netlist,
        samples.images,
        record=wanted or None,
        engine=engine,
        strict=strict,
        progress=progress,
        batch=batch,
    )
    report = make_report(netlist, result, samples.labels, digest)
    finished = Run(report, result.logits, result.codes, result, netlist)
    if out is not None:
        finished.save(out)
    return finished


def _program(program: Compiled | Program | str | os.PathLike[str]) -> tuple[Program, str]:
    if isinstance(program, Program):
        return program, program_digest(program)
    compiled = program if isinstance(program, Compiled) else load(program)
    return compiled.program, compiled.digest


def _check_room(program: Program, samples: Samples, record: str | list[str]) -> None:
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
