"""From files of NeuroCoreX to an artefact for a neurocore (docs/neurocorex.md)."""

from __future__ import annotations

import os

from nmc.artefact import Compiled
from nmc.compiling import file_digest
from nmc.netlists import compile_netlist
from nmc_compiler.errors import LoweringError
from nmc_compiler.neurocore.neurocorex import read_neurocorex
from nmc_compiler.neurocore.places import PROFILE
from nmc_compiler.target import load_target

File = str | os.PathLike[str]


def from_neurocorex(
    ff: File, aa: File, params: File, target: File = "neurocore", *, out: File | None = None, seed: int = 0
) -> Compiled:
    """Compile the weight matrices and parameters of a NeuroCoreX network.

    out: folder for the artefact; None keeps it in memory.  FrontendError for files that do not fit, LoweringError for
    a target that is no neurocore.
    """
    chip = load_target(target)
    if chip.profile != PROFILE:
        raise LoweringError(f"target {chip.name} has no linear leak and no learning; give --target neurocore")
    imported = read_neurocorex(ff, aa, params)
    digests = {name: file_digest(path) for name, path in (("ff", ff), ("aa", aa), ("params", params))}
    made_from = {"neurocorex": digests}
    return compile_netlist(imported.program, target, out=out, seed=seed, notes=imported.notes, made_from=made_from)
