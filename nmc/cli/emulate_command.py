"""nmc emulate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nmc.cli.output import print_json, tell
from nmc.emulating import SPIKES, Run, emulate, recost
from nmc.wishes import FILES
from nmc_compiler.errors import UsageError

OK, INTERRUPTED = 0, 130
ONLY_RUNS = (
    "record",
    "metrics",
    "probe",
    "trace",
    "plot",
    "checkpoint",
    "limit",
    "strict",
    "dt",
    "steps",
    "arithmetic",
    "encode",
    "workers",
    "scheduler",
)


def run(args: argparse.Namespace) -> int:
    folder = Path(args.out or Path(args.folder) / "run")
    done = _recost(args, folder) if args.from_trace else _emulate(args, folder)
    print_json(done.report.data) if args.json else print(done.report.text(), end="")
    _tell(done, folder)
    if done.partial and args.checkpoint:
        unit = "timestep" if done.report["stream"] else "sample"
        tell(f"the same command goes on behind {unit} {done.report['partial'][f'{unit}s']}")
    return INTERRUPTED if done.partial else OK


def _names(texts: list[str]) -> list[str]:
    return [name for text in texts for name in text.split(",") if name]


def _emulate(args: argparse.Namespace, folder: Path) -> Run:
    names = _names(args.record)
    return emulate(
        args.folder,
        args.input,
        record="all" if names == ["all"] else names,
        engine=args.engine,
        strict=args.strict,
        limit=args.limit,
        dt=args.dt,
        steps=args.steps,
        batch=args.batch,
        out=folder,
        progress=sys.stderr.isatty(),
        trace=_names(args.trace),
        probe=args.probe,
        plot=args.plot,
        checkpoint=args.checkpoint,
        catch=True,
        timing=args.timing,
        multicast=args.multicast,
        arithmetic=args.arithmetic,
        encode=args.encode or "",
        seed=args.seed,
        workers=args.workers,
        scheduler=args.scheduler,
        prices=args.prices,
        metrics=args.metrics,
    )


def _recost(args: argparse.Namespace, folder: Path) -> Run:
    """Nothing is run, so nothing that a run alone can do may be asked for."""
    for name in ONLY_RUNS:
        if getattr(args, name) not in (None, False, [], "exact"):
            raise UsageError(f"--{name} needs a run: give --input in place of --from-trace")
    return recost(
        args.folder, args.from_trace, out=folder, timing=args.timing, multicast=args.multicast, prices=args.prices
    )


def _tell(done: Run, folder: Path) -> None:
    kept = len(done.codes) or len(done.events)
    files = [f"{SPIKES} ({kept} populations)"] if kept else []
    files += [name for name in FILES if (folder / name).exists()]
    tell(f"written: {folder}/report.json" + (f" and {', '.join(files)}" if files else ""))
