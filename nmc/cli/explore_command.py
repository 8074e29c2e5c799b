"""nmc explore."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nmc.cli.asked import OF_MODEL
from nmc.cli.output import print_json, tell
from nmc.sweep.explore import Sweep, explore
from nmc.sweep.front import check_objectives
from nmc.sweep.plot import check_plot, draw
from nmc.sweep.points import parse_vary
from nmc.sweep.records import merge
from nmc.sweep.table import as_csv, as_json, as_text
from nmc_compiler.errors import NmcError, UsageError

OK, INTERRUPTED = 0, 130
OUT = "explore.jsonl"
OF_MODELS = ("target", *OF_MODEL, "calib", "cloud")
OF_RUNS = ("vary", "input", "samples", "steps", "prices", "workers", "scheduler", *OF_MODELS)


def run(args: argparse.Namespace) -> int:
    names = [name for text in args.objective for name in text.split(",") if name]
    check_objectives(names)
    if args.plot:
        check_plot(args.plot)
    try:
        sweep = _merged(args, names) if args.merge else _explored(args, names)
    except KeyboardInterrupt:
        tell(f"nmc: interrupted; the points that were finished are in {args.out or OUT}, and the same command goes on")
        return INTERRUPTED
    _print(args, sweep)
    if args.plot:
        draw(sweep, args.plot)
        tell(f"written: {args.plot}")
    _check_any(sweep)
    return OK


def _explored(args: argparse.Namespace, objectives: list[str]) -> Sweep:
    if args.model is None:
        raise UsageError("nmc explore MODEL --vary KEY=VALUE,VALUE: which model? Or --merge FILE FILE -o FILE")
    given: dict[str, Any] = {name: getattr(args, name) for name in OF_MODELS}
    return explore(
        args.model,
        parse_vary(args.vary),
        input=args.input,
        samples=args.samples,
        steps=args.steps,
        prices=args.prices,
        out=args.out or OUT,
        workers=args.workers,
        scheduler=args.scheduler,
        objectives=objectives,
        progress=sys.stderr.isatty(),
        **{name: value for name, value in given.items() if value is not None},
    )


def _merged(args: argparse.Namespace, objectives: list[str]) -> Sweep:
    stray = next((name for name in ("model", *OF_RUNS) if getattr(args, name) not in (None, [])), None)
    if stray is not None:
        what = "a model" if stray == "model" else f"--{stray.replace('_', '-')}"
        raise UsageError(f"--merge runs nothing, so it does not take {what}")
    if args.out is None:
        raise UsageError("--merge: say with -o which file is written")
    records = merge(args.merge, args.out)
    tell(f"written: {args.out} ({len(records)} points of {len(args.merge)} files)")
    return Sweep.of(records, objectives)


def _print(args: argparse.Namespace, sweep: Sweep) -> None:
    if args.json:
        print_json(as_json(sweep))
    else:
        print(as_csv(sweep) if args.csv else as_text(sweep), end="")


def _check_any(sweep: Sweep) -> None:
    """A sweep in which nothing came out is an error."""
    if sweep.records and not any(r.status == "done" for r in sweep.records):
        raise NmcError(f"no point came out; of the first: {sweep.records[0].error}")
