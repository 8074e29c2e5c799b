"""nmc compare."""

from __future__ import annotations

import argparse

from nmc.cli.output import print_json
from nmc.comparing import compare


def run(args: argparse.Namespace) -> int:
    found = compare(args.folders, args.from_trace, args.prices)
    if args.json:
        print_json(found.as_json())
    else:
        print(found.markdown() if args.markdown else found.text(), end="")
    return 0
