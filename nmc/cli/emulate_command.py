"""nmc emulate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nmc.cli.output import print_json, tell
from nmc.emulating import SPIKES, emulate


def run(args: argparse.Namespace) -> int:
    names = [name for text in args.record for name in text.split(",") if name]
    done = emulate(
        args.folder,
        args.input,
        record="all" if names == ["all"] else names,
        engine=args.engine,
        strict=args.strict,
        limit=args.limit,
        batch=args.batch,
        progress=sys.stderr.isatty(),
    )
    folder = done.save(args.out or Path(args.folder) / "run")
    print_json(done.report.data) if args.json else print(done.report.text(), end="")
    spikes = f" and {SPIKES} ({len(done.codes)} populations)" if done.codes else ""
    tell(f"written: {folder}/report.json{spikes}")
    return 0
