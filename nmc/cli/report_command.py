"""nmc report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nmc.artefact import load
from nmc.cli.output import print_json, tell
from nmc.conversion import conversion_table
from nmc.emulating import REPORT
from nmc.folders import write_file
from nmc.page.details import details_of_run
from nmc.page.table import layers_csv
from nmc.page.write import page
from nmc.recording import EVENTS
from nmc_compiler.errors import ArtefactError, UsageError
from nmc_emulator.energies import choose_profiles, priced
from nmc_emulator.report import Report, read_report

PROGRAM = "program.json"


def run(args: argparse.Namespace) -> int:
    folder = Path(args.folder)
    if args.conversion and args.prices:
        raise UsageError("--conversion tells what was rounded, which has no prices; give one of them")
    if args.conversion and (args.html or args.csv):
        raise UsageError("--conversion is a table of its own, and part of the page of --html; give one of them")
    if args.html and (args.csv or args.markdown):
        raise UsageError("--html writes a page, which --csv and --markdown do not change; give one of them")
    if args.conversion:
        return _conversion(args, folder)
    inside = folder / "run" / REPORT
    report = read_report(inside if inside.exists() or not (folder / REPORT).exists() else folder / REPORT)
    if inside.exists():
        _check_current(folder, report["program"])
    if args.prices:
        report = Report(priced(report.data, choose_profiles(args.prices)))
    if args.html:
        return _page(args, report, folder, inside if inside.exists() else folder / REPORT)
    if args.json:
        print_json(report.data)
    elif args.csv:
        print(layers_csv(report.data), end="")
    else:
        print(report.markdown() if args.markdown else report.text(), end="")
    return 0


def _page(args: argparse.Namespace, report: Report, folder: Path, path: Path) -> int:
    """The page of a run; with --json also what it was made from, on standard output."""
    artefact = folder if (folder / PROGRAM).is_file() else path.parent.parent
    details = details_of_run(report, artefact if (artefact / PROGRAM).is_file() else None, path.with_name(EVENTS))
    write_file(args.html, page(details).encode())
    if args.json:
        print_json(details)
    tell(f"written: {args.html}")
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
