"""nmc export: a compiled Program as a folder that other people's software runs."""

from __future__ import annotations

import os
from pathlib import Path

from nmc.artefact import Compiled, load
from nmc.folders import replacing, write_bytes
from nmc_compiler.errors import UsageError
from nmc_compiler.export.lava import export_lava
from nmc_compiler.program.model import Program

FORMATS = ("lava",)
LAST, OPTIONAL = "network.json", ("placement.json",)


def export(
    program: Compiled | Program | str | os.PathLike[str], out: str | os.PathLike[str], *, format: str = "lava"
) -> Path:
    """Write ``program`` (or the artefact in a folder) as files of ``format`` into ``out``; docs/lava.md.

    LoweringError where a part of the Program cannot be said in that format, ArtefactError where the
    folder cannot be written; then what was there stays as it was.
    """
    if format not in FORMATS:
        raise UsageError(f"no format '{format}'; choose {' or '.join(FORMATS)}")
    if not isinstance(program, Program):
        program = (program if isinstance(program, Compiled) else load(program)).program
    files = export_lava(program)
    with replacing(out, last=LAST, stale=OPTIONAL) as stage:
        for name, data in files.items():
            write_bytes(stage / name, data)
    return Path(out)
