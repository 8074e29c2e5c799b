"""nmc flash."""

from __future__ import annotations

import argparse
import sys

from nmc.boards import flash
from nmc.cli.output import print_json


def run(args: argparse.Namespace) -> int:
    done = flash(
        args.folder,
        args.port,
        baud=args.baud,
        first_baud=args.first_baud,
        verify=not args.no_verify,
        record=args.record_link,
        progress=sys.stderr.isatty() and not args.json,
    )
    if args.json:
        print_json(done)
        return 0
    print(f"{done['items']} items written to {done['port']} in {done['seconds']:.2f} s")
    if done["verified"]:
        print(f"read back in {done['verify_seconds']:.2f} s: equal")
    if done["frames_sent_again"] or done["replies_damaged"]:
        print(f"the line: {done['frames_sent_again']} frames sent again, {done['replies_damaged']} replies damaged")
    return 0
