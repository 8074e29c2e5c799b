"""Run a Program on images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .host import check_images
from .layout import resolve
from .result import RunResult
from .timing import analyse


def _recorded(program: Program, record: str | Iterable[str] | None) -> list[int]:
    """Populations to record: "all" (every one but the readout), names, or nothing."""
    names = {p.name: i for i, p in enumerate(program.populations) if p.model != "readout"}
    if record is None:
        return []
    wanted = [record] if isinstance(record, str) else list(record)
    if wanted == ["all"]:
        return list(names.values())
    unknown = [n for n in wanted if n not in names]
    if unknown:
        raise UsageError(
            f"cannot record '{unknown[0]}': Program '{program.name}' has no such population;"
            f" it has {', '.join(list(names)[:8])}{', ...' if len(names) > 8 else ''}"
        )
    return sorted({names[n] for n in wanted})


def run(
    program: Program,
    images: np.ndarray,
    *,
    record: str | Iterable[str] | None = None,
    engine: str = "layers",
    strict: bool = False,
    progress: bool = False,
    batch: int = 1,
) -> RunResult:
    """Emulate ``program`` on images [N, C, H, W] ([N, T, C, H, W] if its input has a time axis).

    record: "all", or names of populations whose codes to return.  engine: "layers" (fast) or
    "ticks" (tick by tick from the mapping's tables); both give the same result.  strict: the first
    value out of range is a VerifyError naming population, timestep, channel and value; otherwise
    such values are counted.  progress: a bar on stderr.  batch: samples computed together by
    "layers"; memory grows with it, results do not change.

    UsageError for images, names or options that do not fit the Program; VerifyError for a Program
    that breaks its own rules.
    """
    if engine not in ("layers", "ticks"):
        raise UsageError(f"no engine '{engine}'; choose layers or ticks")
    if batch < 1:
        raise UsageError(f"batch is {batch}; choose at least 1")
    images = check_images(program, images)
    timing, layout = analyse(program), resolve(program)
    recorded = _recorded(program, record)
    if engine == "layers":
        from .engine_layers import run_layers as execute
    else:
        from .engine_ticks import run_ticks as execute
    logits, counters, codes = execute(program, layout, timing, images, recorded, batch, strict, progress)
    scale = next((p.readout_scale for p in program.populations if p.model == "readout"), 1.0)
    return RunResult(
        logits=logits * scale,
        logits_int=logits,
        counters=counters,
        samples=len(images),
        engine=engine,
        mapped=layout.mapped,
        codes={program.populations[i].name: c for i, c in codes.items()},
    )
