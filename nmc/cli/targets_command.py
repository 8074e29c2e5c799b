"""nmc targets."""

from __future__ import annotations

import argparse

from nmc.cli.output import print_json
from nmc_compiler.errors import UsageError
from nmc_compiler.target import list_targets, load_target
from nmc_compiler.target.spec import describe
from nmc_emulator.tables import text_table


def run(args: argparse.Namespace) -> int:
    if args.action == "show":
        return _show(args)
    if args.name is not None:
        raise UsageError(f"nmc targets list takes no name; for {args.name!r} use: nmc targets show {args.name}")
    targets = [load_target(name) for name in list_targets()]
    if args.json:
        print_json({"schema": "nmc.targets/1", "targets": [{"name": t.name, "title": t.title} for t in targets]})
        return 0
    rows = [(t.name, t.title, str(t.mesh.cores), str(t.core.neurons.value)) for t in targets]
    print("\n".join(text_table(("name", "chip", "cores", "neurons per core"), rows, indent="")))
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.name is None:
        raise UsageError(f"nmc targets show NAME: which? known: {', '.join(list_targets())}")
    target = load_target(args.name)
    if args.json:
        print_json(target.model_dump(mode="json", by_alias=True))
        return 0
    print(f"{target.name}: {target.title}\n{target.description.strip()}\n")
    rows = [(row.field, _value(row.value), row.unit or "", row.evidence, row.source) for row in describe(target)]
    print("\n".join(text_table(("what", "value", "unit", "evidence", "source"), rows, indent="")))
    return 0


def _value(value: object) -> str:
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
