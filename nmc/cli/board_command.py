"""nmc board."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from nmc.cli.output import print_json, tell
from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Sizes

OK = 0


def run(args: argparse.Namespace) -> int:
    if not args.rtl:
        raise UsageError("a board of hardware needs no command; give --rtl to simulate one")
    from nmc_hw.link.simulated import CLOCK, parse_faults
    from nmc_hw.link.virtual import VirtualBoard

    sizes = _sizes(args)
    faults = parse_faults(args.faults) if args.faults else None
    tell("making the board; the first time for its sizes takes a minute")
    board = VirtualBoard(sizes, not args.byte_level, faults, args.clock or CLOCK, args.link)
    signal.signal(signal.SIGTERM, _stop)
    try:
        _announce(args, board.port, sizes)
        while not _orphaned(args):
            board.serve()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        tell(", ".join(f"{value} {name}" for name, value in board.numbers().items()))
        board.close()
    return OK


def _sizes(args: argparse.Namespace) -> Sizes:
    """Of the image that is to run, or as given."""
    if args.folder is None:
        width, _, height = args.mesh.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise UsageError(f"--mesh {args.mesh}: expected WIDTHxHEIGHT, 2x2 say")
        return Sizes(args.neurons, args.axons, args.words, x=int(width), y=int(height))
    from nmc.boards import image_of

    return image_of(Path(args.folder)).sizes


def _announce(args: argparse.Namespace, port: str, sizes: Sizes) -> None:
    if args.json:
        print_json({"schema": "nmc.board/1", "port": port, "sizes": sizes.as_dict()})
    else:
        print(port)
    sys.stdout.flush()
    tell("serial port of the virtual board; Ctrl-C ends it")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _orphaned(args: argparse.Namespace) -> bool:
    """Whether whoever started the board has closed its input, where that was asked for."""
    import select

    return bool(args.until_input_ends and select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.read(1))
