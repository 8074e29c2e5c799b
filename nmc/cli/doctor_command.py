"""nmc doctor."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nmc import _version
from nmc.cli.output import heading, print_json
from nmc_emulator.tables import text_table
from nmc_hw.tools import find_tools

PACKAGES = ("numpy", "numba", "networkx", "pydantic", "pyyaml", "safetensors", "tqdm")


def run(args: argparse.Namespace) -> int:
    found = _collect()
    print_json(found) if args.json else _print(found)
    return 0


def _collect() -> dict[str, Any]:
    tools = [
        {
            "name": tool.name,
            "purpose": tool.purpose,
            "found": None if tool.found is None else str(tool.found),
            "version": tool.version,
            "how_to_get": tool.how_to_get,
        }
        for tool in find_tools()
    ]
    return {
        "schema": "nmc.doctor/1",
        "nmc": _version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _package(name) for name in PACKAGES},
        "tools": tools,
    }


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print(found: dict[str, Any]) -> None:
    print(f"nmc {found['nmc']}, Python {found['python']}, {found['machine']}")
    heading("Needed")
    rows = [(n, v or "missing", "" if v else "pip install -e .") for n, v in found["packages"].items()]
    print("\n".join(text_table(("package", "version", ""), rows)))
    heading("Optional")
    present = [t for t in found["tools"] if t["found"]]
    missing = [t for t in found["tools"] if not t["found"]]
    if present:
        there = [(t["name"], t["version"] or "?", t["purpose"], t["found"]) for t in present]
        print("\n".join(text_table(("tool", "version", "purpose", "where"), there)))
    if missing:
        heading("Not there, and how to get it")
        rows = [(t["name"], t["purpose"], t["how_to_get"]) for t in missing]
        print("\n".join(text_table(("tool", "purpose", "how to get it"), rows)))
