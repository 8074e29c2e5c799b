"""From a network given soma by soma (docs/networks.md) to an artefact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nmc import _version
from nmc.artefact import Compiled
from nmc_compiler.mapping import map_program
from nmc_compiler.program.model import Program
from nmc_compiler.target import load_target


def compile_netlist(
    program: Program,
    target: str | os.PathLike[str] = "loihi2",
    *,
    out: str | os.PathLike[str] | None = None,
    chips: int = 1,
    seed: int = 0,
    notes: Sequence[str] = (),
    made_from: dict[str, Any] | None = None,
) -> Compiled:
    """Map a Program, such as ``Network.program()`` gives, onto the cores of ``target``; an earlier mapping is replaced.

    out: folder for the artefact; None keeps it in memory.  notes: sentences for its conversion report.  made_from:
    JSON values that its digest covers besides the Program.  CapacityError or LoweringError where it does not fit.
    """
    chip = load_target(target)
    mapped, report = map_program(program, chip, chips, None, seed)
    meta = {
        "nmc": _version(),
        "features": [],
        "target": chip.model_dump(mode="json", by_alias=True),
        "placement": {"chips": chips, "seed": seed},
        **(made_from or {}),
    }
    conversion = {"schema": "nmc.conversion/1", "notes": list(notes), "entries": []}
    compiled = Compiled(replace(mapped, meta=meta), conversion, None, report)
    return compiled if out is None else compiled.save(out)
