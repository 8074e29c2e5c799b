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
    passes = [_describe(n, kind) for n, kind in enumerate(PASSES, 1)]
    if args.json:
        print_json({"schema": "nmc.passes/1", "passes": passes})
        return 0
    _print(passes)
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
    return {"order": number, "name": kind.name, "does": does, "rule": rule, "options": _options(kind)}


def _options(kind: Any) -> dict[str, Any]:
    """Options with their defaults; those of a part are the pass's own."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        made = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(made):
            found |= _options(type(made))
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found
