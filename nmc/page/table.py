"""The layers of a report as CSV, for spreadsheets: totals over the run, as in its JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

FIRST = ("name", "model", "role", "level", "neurons", "rate", "mean_code")
NESTED = ("shape", "energy_pj", "terms_pj")


def layers_csv(data: Mapping[str, Any]) -> str:
    """A line for each layer; energies by profile are columns ``energy_pj:PROFILE``. RFC 4180, lines end with LF."""
    layers = data["layers"]
    counts = sorted({k for layer in layers for k in layer} - {*FIRST, *NESTED})
    profiles = [e["profile"] for e in data["energy"]]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FIRST, *counts, *(f"energy_pj:{p}" for p in profiles)])
    for layer in layers:
        writer.writerow([*(layer[k] for k in (*FIRST, *counts)), *(layer["energy_pj"][p] for p in profiles)])
    return out.getvalue()
