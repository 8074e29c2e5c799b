"""nmc run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nmc.boards import run as run_on_board
from nmc.cli.output import print_json, tell
from nmc.emulating import SPIKES


def run(args: argparse.Namespace) -> int:
    folder = Path(args.out or Path(args.folder) / "run")
    names = [name for text in args.record for name in text.split(",") if name]
    done = run_on_board(
        args.folder,
        args.port,
        args.input,
        baud=args.baud,
        first_baud=args.first_baud,
        record_link=args.record_link,
        record="all" if names == ["all"] else names,
        limit=args.limit,
        dt=args.dt,
        steps=args.steps,
        encode=args.encode or "",
        seed=args.seed,
        out=folder,
        progress=sys.stderr.isatty(),
    )
    print_json(done.report.data) if args.json else print(done.report.text(), end="")
    kept = len(done.codes) or len(done.events)
    tell(f"written: {folder}/report.json" + (f" and {SPIKES} ({kept} populations)" if kept else ""))
    return 0
