"""nmc export: a compiled Program as something that other people's software runs."""

from __future__ import annotations

import os
from pathlib import Path

from nmc.artefact import Compiled, load
from nmc.folders import replacing, write_bytes, write_file
from nmc.hosted import refuse_hosted
from nmc.nir_out import NirExport, export_nir
from nmc_compiler.errors import UsageError
from nmc_compiler.export.lava import export_lava
from nmc_compiler.export.netx import layers_of
from nmc_compiler.export.netx_file import netx_bytes
from nmc_compiler.netx import ENTRY
from nmc_compiler.program.model import Program

FORMATS = ("lava", "netx", "nir")
LAST, OPTIONAL = "network.json", ("placement.json",)


def export(
    program: Compiled | Program | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "lava",
    dt: float | None = None,
    nir_rule: str | None = None,
    nir_reset: str | None = None,
    nir_extension: bool = False,
) -> Path:
    """Write ``program`` (or the artefact in a folder) into ``out``: a folder for "lava", a file for "netx" and "nir".

    docs/lava.md, docs/netx.md, docs/nir.md.  dt (seconds), nir_rule, nir_reset: of "nir"; None: those that the network
    was read with.  nir_extension: write what NIR cannot say, for nmc alone.

    LoweringError where a part of it cannot be said in that format, ArtefactError where ``out`` cannot be written; then
    what was there stays as it was.
    """
    if format not in FORMATS:
        raise UsageError(f"no format '{format}'; choose {', '.join(FORMATS)}")
    if format != "nir" and (nir_extension or (dt, nir_rule, nir_reset) != (None, None, None)):
        raise UsageError(f"--dt, --nir-rule, --nir-reset and --nir-extension do not go with --format {format}")
    refuse_hosted(program if isinstance(program, Program) else _compiled(program, "files are").program, "export")
    if format == "netx":
        return _netx(program, out)
    if format == "nir":
        return export_nir(_compiled(program, "NIR files are"), out, NirExport(dt, nir_rule, nir_reset, nir_extension))
    if not isinstance(program, Program):
        program = (program if isinstance(program, Compiled) else load(program)).program
    files = export_lava(program)
    with replacing(out, last=LAST, stale=OPTIONAL) as stage:
        for name, data in files.items():
            write_bytes(stage / name, data)
    return Path(out)


def _netx(program: Compiled | Program | str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """The integer graph as a .net file: layers are there, and no longer in the Program."""
    compiled = _compiled(program, "netx files are")
    config = compiled.program.meta.get("config")
    known = config.get("input_layer", {}).get("value") if isinstance(config, dict) else None
    entry = tuple(map(int, known)) if known else ENTRY
    return write_file(out, netx_bytes(layers_of(compiled.int_graph, entry)))  # type: ignore[arg-type]


def _compiled(program: Compiled | Program | str | os.PathLike[str], what: str) -> Compiled:
    if isinstance(program, Program):
        raise UsageError(f"Program '{program.name}': {what} made of its graph; give what nmc.compile returned")
    return program if isinstance(program, Compiled) else load(program)
