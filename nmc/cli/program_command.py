"""nmc program."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from nmc.cli.output import tell
from nmc_hw.program import bitstream_of, command_for, load
from nmc_hw.synth_boards import board_named


def run(args: argparse.Namespace) -> int:
    board = board_named(args.board)
    command = command_for(board, bitstream_of(board, args.bitstream, Path("build") / board.name), args.flash)
    if args.dry_run:
        print(shlex.join(command))
        return 0
    tell(shlex.join(command))
    load(board, command)
    print(f"{board.title}: loaded")
    return 0
