"""The layers of a report as CSV, for spreadsheets: totals over the run, as in its JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

FIRST = ("name", "model", "role", "level", "neurons", "rate", "mean_code")
NESTED = ("shape", "energy_pj", "terms_pj", "missing", "terms", "formula")


def layers_csv(data: Mapping[str, Any]) -> str:
    """A line for each layer; RFC 4180, lines end with LF.

    Energies by profile are columns ``energy_pj:PROFILE``, or ``energy_pj_at_least:PROFILE`` where the total of the
    profile is a lower bound.
    """
    layers = data["layers"]
    counts = sorted({k for layer in layers for k in layer} - {*FIRST, *NESTED})
    profiles = [e["profile"] for e in data["energy"]]
    heads = [f"energy_pj{'' if e['complete'] else '_at_least'}:{e['profile']}" for e in data["energy"]]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FIRST, *counts, *heads])
    for layer in layers:
        writer.writerow([*(layer[k] for k in (*FIRST, *counts)), *(layer["energy_pj"][p] for p in profiles)])
    return out.getvalue()
