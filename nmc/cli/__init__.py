"""The command line. Parsing is light; what a command needs is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nmc.cli.parser import make_parser
from nmc_compiler.errors import NmcError, UsageError

OK, ERROR, USAGE, MISMATCH, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (docs/cli.md)."""
    args = make_parser().parse_args(argv)
    try:
        status = import_module(f"nmc.cli.{args.command}_command").run(args)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _fail(error, USAGE)
    except NmcError as error:
        return _fail(error, ERROR)
    except MemoryError:
        return _fail("not enough memory; give fewer samples with --limit N, or record fewer populations", ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left behind", INTERRUPTED, "")
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR


def _fail(error: object, status: int, kind: str = "error: ") -> int:
    print(f"nmc: {kind}{error}", file=sys.stderr)
    return status
