"""nmc report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nmc.artefact import load
from nmc.cli.output import print_json
from nmc.conversion import conversion_table
from nmc.emulating import REPORT
from nmc_compiler.errors import ArtefactError
from nmc_emulator.report import read_report


def run(args: argparse.Namespace) -> int:
    folder = Path(args.folder)
    if args.conversion:
        return _conversion(args, folder)
    inside = folder / "run" / REPORT
    report = read_report(inside if inside.exists() or not (folder / REPORT).exists() else folder / REPORT)
    if inside.exists():
        _check_current(folder, report["program"])
    if args.json:
        print_json(report.data)
    else:
        print(report.markdown() if args.markdown else report.text(), end="")
    return 0


def _conversion(args: argparse.Namespace, folder: Path) -> int:
    table = conversion_table(load(folder).conversion)
    if args.json:
        print_json(table.as_json())
    else:
        print(table.markdown() if args.markdown else table.text(), end="")
    return 0


def _check_current(folder: Path, digest: str) -> None:
    """The run inside an artefact must be one of the Program that is there now."""
    try:
        now = json.loads((folder / "program.json").read_text(encoding="utf-8")).get("digest")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ArtefactError(f"{folder}: its program.json cannot be read; compile again") from None
    if now != digest:
        raise ArtefactError(
            f"{folder}: the last run is of another Program ({digest[:12]}, now {str(now)[:12]}); "
            f"run: nmc emulate {folder} --input FILE.npz"
        )
