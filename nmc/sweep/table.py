"""A sweep for people and for other programs: table, CSV, JSON."""

from __future__ import annotations

import csv
import io
from typing import Any

from nmc.page.numbers import FORMS
from nmc.sweep.explore import Sweep
from nmc.sweep.front import Objective
from nmc.sweep.points import DEFAULTS, shown
from nmc.sweep.records import Record
from nmc_emulator.tables import text_table

SCHEMA = "nmc.explore/1"
COLUMNS = (  # head, figure, how it is written
    ("accuracy", "accuracy", "percent"),
    ("cores", "cores", "count"),
    ("chips", "chips", "count"),
    ("SynOps", "synops_effective", "count"),
    ("latency", "latency_ticks", "count"),
    ("weight error", "weight_error", "percent"),
)
ON_FRONT = "*"
MISSING = "at least: terms without a published price are missing, which need not be the same for all points"


def option(record: Record, name: str) -> str:
    """An option of a point as --vary takes it; "-" where the target or the model says it."""
    value = record.options.get(name, DEFAULTS.get(name))
    return "-" if value is None else shown(value)


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The object that `nmc explore --json` prints."""
    aims = [{"name": o.name, "better": "more" if o.more else "less"} for o in sweep.objectives]
    records = [r.model_dump(mode="json", by_alias=True) | {"front": r.key in sweep.front} for r in sweep.records]
    return {"schema": SCHEMA, "vary": sweep.vary, "objectives": aims, "points": records}


def as_csv(sweep: Sweep) -> str:
    """One line per point: options, status, whether it is on the front, every figure and energy, and the error."""
    figures = sorted({name for r in sweep.records for name in r.figures or {}})
    profiles = sorted({name for r in sweep.records for name in r.energy or {}})
    options = sorted({name for r in sweep.records for name in r.options} | set(sweep.vary))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    energies = [column for p in profiles for column in (f"energy_pj:{p}", f"at_least:{p}")]
    writer.writerow([*options, "status", "front", *figures, *energies, "error", "key"])
    for r in sweep.records:
        cells = [(r.figures or {}).get(name) for name in figures]
        for p in profiles:
            e = (r.energy or {}).get(p)
            cells += [None, None] if e is None else [e.pj, int(e.at_least)]
        given = [option(r, name) for name in options]
        writer.writerow([*given, r.status, int(r.key in sweep.front), *cells, r.error, r.key])
    return out.getvalue()


def as_text(sweep: Sweep) -> str:
    """Tables for a terminal: the points, those on the front marked, and what was refused, and why."""
    done = [r for r in sweep.records if r.status == "done"]
    lines = []
    if done:
        energies = [o for o in sweep.objectives if o.profile]
        aims = tuple((o.name, o.figure, "plain") for o in sweep.objectives if o.figure)
        wanted = [*COLUMNS, *(a for a in aims if a[1] not in [c[1] for c in COLUMNS])]
        columns = [c for c in wanted if any((r.figures or {}).get(c[1]) is not None for r in done)]
        head = ["", *sweep.vary, *(_head(o) for o in energies), *(name for name, _, _ in columns)]
        lines += text_table(head, [_row(sweep, r, energies, columns) for r in done])
        told = ", ".join(f"{o.name} ({'most' if o.more else 'least'})" for o in sweep.objectives)
        lines += ["", f"{ON_FRONT} no other point is better in one of these and as good in all: {told}"]
        if any(o.at_least(r) for o in energies for r in done):
            lines += [MISSING]
    for status, what in (("refused", "Refused"), ("lost", "Lost")):
        lines += _failures(sweep, status, what)
    return "\n".join(lines) + "\n"


def _head(objective: Objective) -> str:
    return objective.name.replace(":", ", ")


def _row(sweep: Sweep, r: Record, energies: list[Objective], columns: list[tuple[str, str, str]]) -> list[str]:
    cells = [ON_FRONT * (r.key in sweep.front), *(option(r, name) for name in sweep.vary)]
    cells += ["at least " * o.at_least(r) + _written(o.value(r), "pj") for o in energies]
    return cells + [_written((r.figures or {}).get(figure), form) for _, figure, form in columns]


def _written(value: float | None, form: str) -> str:
    return "-" if value is None else FORMS[form](value, 1)


def _failures(sweep: Sweep, status: str, what: str) -> list[str]:
    """Errors, each with the points that have it."""
    by_error: dict[str, list[str]] = {}
    for r in sweep.records:
        if r.status == status:
            point = " ".join(f"{name}={option(r, name)}" for name in sweep.vary) or "the point"
            by_error.setdefault(str(r.error), []).append(point)
    count = sum(map(len, by_error.values()))
    told = [line for error, points in by_error.items() for line in (f"  {error}", *(f"    {p}" for p in points))]
    return ["", f"{what} ({count} of {len(sweep.records)} points)", *told] if count else []
