"""nmc passes."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from typing import Any

from nmc.cli.output import print_json
from nmc_compiler.passes.pipeline import GENERAL_PASSES, PASSES


def run(args: argparse.Namespace) -> int:
    passes, general = ([_describe(n, kind) for n, kind in enumerate(kinds, 1)] for kinds in (PASSES, GENERAL_PASSES))
    if args.json:
        print_json({"schema": "nmc.passes/1", "passes": passes, "general": general})
        return 0
    _print(passes)
    print("\nNetworks that are read at every timestep (.nir, .net)")
    _print(general)
    return 0


def _print(passes: list[dict[str, Any]]) -> None:
    for item in passes:
        print(f"{item['order']}. {item['name']}: {item['does']}")
        for line in item["rule"].splitlines():
            print(f"     {line}")
        for option, value in item["options"].items():
            print(f"     {option} = {value}")


def _describe(number: int, kind: Any) -> dict[str, Any]:
    """Name, what the module says the pass does, the rule its class states, and options with their defaults."""
    does = (sys.modules[kind.__module__].__doc__ or kind.name).strip().splitlines()[0]
    own = inspect.getdoc(kind) or ""
    rule = "" if own.startswith(f"{kind.__name__}(") else own  # a dataclass without a docstring lists its fields
    options = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    return {"order": number, "name": kind.name, "does": does, "rule": rule, "options": options}
