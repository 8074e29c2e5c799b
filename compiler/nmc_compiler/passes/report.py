"""Conversion report: what each pass changed, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ConversionReport:
    """Entries in the order they happened: pass name, layer (module name), and plain facts."""

    notes: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, pass_name: str, layer: str, **facts: Any) -> None:
        self.entries.append({"pass": pass_name, "layer": layer, **facts})

    def of(self, pass_name: str) -> list[dict[str, Any]]:
        return [e for e in self.entries if e["pass"] == pass_name]

    def as_json(self) -> dict[str, Any]:
        return {"schema": "nmc.conversion/1", "notes": self.notes, "entries": self.entries}
