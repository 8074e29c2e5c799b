"""Run a Program on images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_compiler.program.validate import validate_program

from .host import check_images
from .layout import resolve
from .result import RunResult
from .timing import analyse

if TYPE_CHECKING:
    from .counters import Counters
    from .engine_layers import LayerEngine
    from .engine_ticks import TickEngine


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


class Emulator:
    """A Program made ready to run: checked, planned, its buffers allocated.

    engine: "layers" (fast) or "ticks" (tick by tick from the mapping's tables); both give the same
    result.  record: "all", or names of populations whose codes to return.  strict: the first value
    out of range is a VerifyError naming population, timestep, channel and value; otherwise such
    values are counted.  batch: samples computed together by "layers"; memory grows with it, results
    do not change.

    UsageError for names or options that do not fit the Program; VerifyError for a Program that
    breaks its own rules.
    """

    def __init__(
        self,
        program: Program,
        *,
        record: str | Iterable[str] | None = None,
        engine: str = "layers",
        strict: bool = False,
        batch: int = 1,
    ) -> None:
        if engine not in ("layers", "ticks"):
            raise UsageError(f"no engine '{engine}'; choose layers or ticks")
        if batch < 1:
            raise UsageError(f"batch is {batch}; choose at least 1")
        validate_program(program)
        self.program, self.name = program, engine
        timing, self.layout = analyse(program), resolve(program)
        kind: type[LayerEngine] | type[TickEngine]
        if engine == "layers":
            from .engine_layers import LayerEngine as kind
        else:
            from .engine_ticks import TickEngine as kind
        self.engine = kind(program, self.layout, timing, _recorded(program, record), batch, strict)

    def run(self, images: np.ndarray, progress: bool = False) -> RunResult:
        """Emulate images [N, C, H, W] ([N, T, C, H, W] if the Program's input has a time axis).

        The samples follow each other on the chip in this order, from rest.  progress: a bar on
        stderr.  UsageError for images that do not fit the Program.
        """
        images = check_images(self.program, images)
        logits, counters, codes = self._show(images) if progress else self.engine.run(images, lambda done: None)
        populations = self.program.populations
        scale = next((p.readout_scale for p in populations if p.model == "readout"), 1.0)
        return RunResult(
            logits=logits * scale,
            logits_int=logits,
            counters=counters,
            samples=len(images),
            engine=self.name,
            mapped=self.layout.mapped,
            codes={populations[i].name: c for i, c in codes.items()},
        )

    def _show(self, images: np.ndarray) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        from tqdm import tqdm

        with tqdm(total=len(images), unit="sample", leave=False) as bar:
            return self.engine.run(images, bar.update)


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
    """Emulate ``program`` on ``images`` once: see ``Emulator`` for the options, and for running again."""
    batch = min(batch, max(len(images), 1)) if batch >= 1 else batch
    return Emulator(program, record=record, engine=engine, strict=strict, batch=batch).run(images, progress)
