"""nmc.verify: climb the ladder of oracles, from the authors' recorded run to the mapped Program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc.artefact import Compiled, load
from nmc.ladder.golden import Golden, read_golden
from nmc.ladder.lava import lava_python, lava_rung, noise
from nmc.ladder.rungs import (
    Rung,
    accuracy_rung,
    all_logits,
    emulator_rung,
    engines_rung,
    golden_rung,
    mapping_rung,
)
from nmc_compiler.errors import ArtefactError, UsageError
from nmc_emulator import run

__all__ = ["Ladder", "Rung", "verify", "verify_lava"]

SCHEMA = "nmc.verify/1"
ACCURACY_IMAGES = 200  # interpreted twice, in float and in integers: half a minute for the example models
TICK_IMAGES = 2
LAVA_IMAGES = 2  # Lava takes seconds for each


@dataclass(frozen=True)
class Ladder:
    """All rungs, in the order they were climbed."""

    digest: str
    rungs: tuple[Rung, ...]

    @property
    def ok(self) -> bool:
        """Whether every rung holds."""
        return all(rung.ok for rung in self.rungs)

    def as_json(self) -> dict[str, Any]:
        rungs = [rung.as_json() for rung in self.rungs]
        return {"schema": SCHEMA, "ok": self.ok, "program": self.digest, "rungs": rungs}


def verify(
    program: Compiled | str | os.PathLike[str],
    golden: str | os.PathLike[str],
    *,
    limit: int = ACCURACY_IMAGES,
    tick_images: int = TICK_IMAGES,
    progress: Callable[[str], None] = lambda rung: None,
) -> Ladder:
    """Compare golden vectors, float and integer interpreter, both engines and the mapping.

    program: an artefact, or its folder.  golden: an .npz of images, labels, logits and
    ``spikes/<module>`` (docs/formats.md).  limit: images whose accuracy is compared; all recorded
    spikes are compared whatever it is.  tick_images: images run tick by tick.  progress: called
    with the name of each rung before it is climbed.

    Every rung is climbed even if one below fails. FrontendError for golden vectors that do not fit
    or leave nothing to compare, ArtefactError or VerifyError for an artefact that is not sound.
    """
    if limit < 1 or tick_images < 1:
        raise UsageError(f"limit {limit} and tick images {tick_images}: each must be at least 1")
    compiled = program if isinstance(program, Compiled) else load(program)
    if compiled.program.mapping is None:
        raise ArtefactError(f"Program '{compiled.program.name}' has no mapping to verify; compile it again")
    vectors = read_golden(golden, compiled.float_graph, limit)
    return Ladder(compiled.digest, tuple(_climb(compiled, vectors, tick_images, progress)))


def _climb(compiled: Compiled, golden: Golden, tick_images: int, progress: Callable[[str], None]) -> Iterator[Rung]:
    images = golden.samples.images
    progress("golden = float")
    float_logits = all_logits(compiled.float_graph, images)
    yield golden_rung(compiled.float_graph, golden, float_logits)
    progress("float ~ int")
    yield accuracy_rung(golden, float_logits, all_logits(compiled.int_graph, images))
    progress("int = emulator")
    recorded = images[: golden.recorded]
    yield emulator_rung(compiled, recorded, run(compiled.program, recorded, record="all"))
    progress("layers = ticks")
    few = images[: min(tick_images, golden.recorded)]
    engines = [run(compiled.program, few, record="all", engine=engine) for engine in ("layers", "ticks")]
    yield engines_rung(compiled, few, *engines)
    progress("mapping")
    yield mapping_rung(compiled)


def verify_lava(
    program: Compiled | str | os.PathLike[str],
    golden: str | os.PathLike[str] | None = None,
    *,
    images: int = LAVA_IMAGES,
    unroll: bool = False,
    progress: Callable[[str], None] = lambda rung: None,
) -> Ladder:
    """Compare the emulator with Lava, running what ``nmc export --format lava`` writes; one rung.

    golden: an .npz whose images are taken; without one, inputs are drawn at random from what the Program
    takes.  images: how many of them.  unroll: let Lava run Convs as Sparse, which is faster.

    ToolNotFound, which says how to get it, where there is no Lava; LoweringError where the Program has
    something that cannot be exported.
    """
    if images < 1:
        raise UsageError(f"images {images}: at least 1 is needed")
    compiled = program if isinstance(program, Compiled) else load(program)
    python = lava_python()
    given: dict[str, np.ndarray] = noise(compiled.program, images)
    if golden is not None:
        given = {"images": read_golden(golden, compiled.float_graph, images).samples.images[:images]}
    progress("emulator = lava")
    return Ladder(compiled.digest, (lava_rung(compiled.program, given, unroll=unroll, python=python),))
