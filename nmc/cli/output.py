"""What all commands print with."""

from __future__ import annotations

import sys
from typing import Any

from nmc.artefact import json_text


def print_json(tree: Any) -> None:
    """One JSON value, and nothing else, on standard output."""
    sys.stdout.write(json_text(tree))


def tell(*lines: str) -> None:
    """Progress and messages, on standard error."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def heading(text: str) -> None:
    """A heading with an empty line before it."""
    print(f"\n{text}")
