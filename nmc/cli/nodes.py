"""What became of the nodes of a NIR file, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nmc_emulator.tables import text_table

PASS = "nir"
_PLAIN = ("pass", "layer", "type", "rating", "shape", "notes")


def nodes_table(entries: Iterable[dict[str, Any]]) -> list[str]:
    """One line per node: type, rating, and what there is to know about it; nothing where there are no nodes."""
    rows = [_row(entry) for entry in entries if entry["pass"] == PASS]
    return text_table(("node", "type", "rating", "shape", "what"), rows) if rows else []


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    facts = [f"{key}: {_short(value)}" for key, value in entry.items() if key not in _PLAIN]
    shape = "x".join(map(str, entry["shape"]))
    return entry["layer"], entry["type"], entry["rating"], shape, "; ".join([*entry.get("notes", ()), *facts])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
