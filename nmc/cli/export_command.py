"""nmc export."""

from __future__ import annotations

import argparse
import json

from nmc.cli.output import print_json
from nmc.exporting import export


def run(args: argparse.Namespace) -> int:
    folder = export(args.folder, args.out, format=args.format)
    became = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    if args.json:
        print_json({"schema": "nmc.export/1", "folder": str(folder), "format": args.format, **_counts(became)})
        return 0
    for part, processes in sorted(became["parts"].items()):
        kinds = [f"{p['kind']} ({p['origin']})" for p in processes]
        print(f"{part}: {', '.join(f'{kinds.count(k)} {k}' for k in dict.fromkeys(kinds))}")
    counts = _counts(became)
    print(f"\nWritten to {folder}: {counts['stock']} Processes of Lava's own, {counts['generated']} generated")
    return 0


def _counts(became: dict) -> dict[str, int]:
    return {key: int(became["processes"][key]) for key in ("stock", "generated")}
