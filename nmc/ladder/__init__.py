"""nmc.verify: climb the ladder of oracles, from the authors' recorded run to the mapped Program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc.artefact import Compiled, load
from nmc.hosted import is_hosted
from nmc.ladder.engines import fast_rung, target_of
from nmc.ladder.golden import Golden, read_golden
from nmc.ladder.graphs import graph_rung
from nmc.ladder.hosted import host_rungs
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
from nmc_compiler.neurocore.places import PROFILE
from nmc_compiler.program.learning import only_neurocore
from nmc_compiler.program.model import Program
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
    golden: str | os.PathLike[str] | None = None,
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

    A Program that was made from no graph has no golden vectors: its engines are compared on noise (``tick_images``
    windows; of a stream, pieces of 16 timesteps), and its mapping, where it has one, is checked. So are those of a
    network without a read-out (.nir, .net), and its integer graph with them, where no golden vectors are given.

    Every rung is climbed even if one below fails. FrontendError for golden vectors that do not fit
    or leave nothing to compare, ArtefactError or VerifyError for an artefact that is not sound.
    """
    if limit < 1 or tick_images < 1:
        raise UsageError(f"limit {limit} and tick images {tick_images}: each must be at least 1")
    compiled = program if isinstance(program, Compiled) else load(program)
    if "graphs" not in compiled.program.meta:
        if golden is not None:
            raise UsageError(
                f"Program '{compiled.program.name}' was made from no graph that golden vectors could be compared with;"
                " leave --golden out to compare its engines"
            )
        return Ladder(compiled.digest, tuple(_compare_engines(compiled.program, tick_images, progress)))
    if is_hosted(compiled.program):
        if golden is not None:
            raise UsageError("golden vectors of a network with a part on the host are not compared; leave --golden out")
        return Ladder(compiled.digest, tuple(_compare_hosted(compiled, tick_images, progress)))
    if golden is None and compiled.int_graph.outputs:
        return Ladder(compiled.digest, tuple(_compare_graph(compiled, tick_images, progress)))
    if compiled.int_graph.outputs:
        raise UsageError(
            "golden vectors hold the logits of a read-out, and this network has outputs of each timestep; average over "
            "timesteps in the module, or leave --golden out to compare its engines with its integer graph"
        )
    if golden is None:
        raise UsageError("nothing to compare with; give --golden FILE.npz, or --with lava")
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
    layers, ticks = (run(compiled.program, few, record="all", engine=engine) for engine in ("layers", "ticks"))
    yield engines_rung(compiled, few, layers, ticks)
    if compiled.image is not None:
        progress("layers = neurocore")
        yield engines_rung(compiled, few, layers, run(compiled.program, few, record="all", engine="neurocore"))
    progress("mapping")
    yield mapping_rung(compiled.program, compiled.target())


def _compare_hosted(compiled: Compiled, windows: int, progress: Callable[[str], None]) -> Iterator[Rung]:
    progress("int = emulator = ticks")
    yield from host_rungs(compiled, windows)
    if compiled.program.mapping is not None:
        progress("mapping")
        yield mapping_rung(compiled.program, compiled.target())


def _compare_graph(compiled: Compiled, windows: int, progress: Callable[[str], None]) -> Iterator[Rung]:
    progress("int = emulator")
    yield graph_rung(compiled, windows)
    yield from _compare_engines(compiled.program, windows, progress)


def _compare_engines(program: Program, windows: int, progress: Callable[[str], None]) -> Iterator[Rung]:
    target = None if program.mapping is None else target_of(program)
    if only_neurocore(program) is None:
        progress("the fast engine = ticks")
        yield fast_rung(program, windows)
        if program.mapping is not None and program.target.get("profile") == PROFILE:
            progress("the fast engine = neurocore")
            yield fast_rung(program, windows, "neurocore")
    if target is not None:
        progress("mapping")
        yield mapping_rung(program, target)


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
