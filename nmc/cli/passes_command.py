"""nmc passes."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from typing import Any

from nmc.cli.output import print_json
from nmc_compiler.passes.pipeline import PASSES


def run(args: argparse.Namespace) -> int:
    passes = [_describe(number, kind) for number, kind in enumerate(PASSES, 1)]
    if args.json:
        print_json({"schema": "nmc.passes/1", "passes": passes})
        return 0
    for item in passes:
        print(f"{item['order']}. {item['name']}: {item['does']}")
        for line in item["rule"].splitlines():
            print(f"     {line}")
        for option, value in item["options"].items():
            print(f"     {option} = {value}")
    return 0


def _describe(number: int, kind: Any) -> dict[str, Any]:
    """Name, what the module says the pass does, the rule its class states, and options with their defaults."""
    does = (sys.modules[kind.__module__].__doc__ or kind.name).strip().splitlines()[0]
    own = inspect.getdoc(kind) or ""
    rule = "" if own.startswith(f"{kind.__name__}(") else own  # a dataclass without a docstring lists its fields
    options = {f.name: f.default for f in dataclasses.fields(kind)}
    return {"order": number, "name": kind.name, "does": does, "rule": rule, "options": options}
