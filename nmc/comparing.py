"""Runs of several artefacts side by side: targets, mappings, timesteps, bit widths, ways of lowering."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmc.artefact import Compiled, load
from nmc.emulating import REPORT, recost
from nmc.page.numbers import FORMS
from nmc.recording import EVENTS
from nmc_compiler.errors import UsageError
from nmc_emulator.energies import choose_profiles, priced
from nmc_emulator.energies import units_of as _per
from nmc_emulator.render import at_least
from nmc_emulator.report import read_report
from nmc_emulator.tables import markdown_table, text_table

SCHEMA = "nmc.comparison/1"
MOST_LAYERS = 8  # told one by one
METRICS = {  # row of the table: key of the report, how it is written
    "accuracy": ("accuracy", "percent"),
    "samples": ("samples", "count"),
    "cores": ("cores", "count"),
    "SynOps": ("synops_effective", "count_per"),
    "SynOps, dense": ("synops_dense", "count_per"),
    "spikes": ("spikes", "count_per"),
    "neuron updates": ("neuron_updates", "count_per"),
    "bias events": ("bias_events", "count_per"),
    "packets": ("packets", "count_per"),
    "hops": ("hops", "count_per"),
    "chip crossings": ("chip_crossings", "count_per"),
    "host MACs": ("host_macs", "count_per"),
    "latency, ticks": ("latency_ticks", "count"),
    "interval, ticks": ("interval_ticks", "count"),
}
WHOLE = ("accuracy", "samples", "cores", "latency, ticks", "interval, ticks")  # not per sample


@dataclass(frozen=True)
class Row:
    """One figure of all artefacts. ``values`` are per sample where ``per`` says so; None: nobody knows."""

    name: str
    values: list[float | None]
    form: str
    at_least: list[bool]

    @property
    def ratios(self) -> list[float | None]:
        """To the first."""
        first = self.values[0]
        return [None if v is None or not first else v / first for v in self.values]


@dataclass(frozen=True)
class Comparison:
    """``names`` of artefacts; ``how``: by artefact whether its run was re-costed; ``differ``: settings that differ."""

    names: list[str]
    how: list[str]
    differ: dict[str, list[Any]]
    rows: list[Row]
    layers: list[dict[str, Any]]
    notes: list[str]
    unit: str = "sample"  # or "timestep"; what averages are taken over

    def as_json(self) -> dict[str, Any]:
        """The object that `nmc compare --json` prints."""
        rows = [{"name": r.name, "values": r.values, "ratios": r.ratios, "at_least": r.at_least} for r in self.rows]
        return {
            "schema": SCHEMA, "artefacts": self.names, "how": self.how, "differ": self.differ, "rows": rows,
            "layers": self.layers, "notes": self.notes, "unit": self.unit,
        }  # fmt: skip

    def text(self) -> str:
        """Tables for a terminal."""
        return self._told(text_table, "", "")

    def markdown(self) -> str:
        """The same as Markdown."""
        return self._told(markdown_table, "## ", "\n")

    def _told(self, table: Any, mark: str, gap: str) -> str:
        others = [f"{name} / {self.names[0]}" for name in self.names[1:]]
        settings = [[key, *map(str, values)] for key, values in self.differ.items()]
        parts = [f"{mark}What differs{gap}", *table(["setting", *self.names], settings or [["nothing", *self.names]])]
        parts += ["", f"{mark}Per {self.unit}{gap}", *table(["", *self.names, *others], [_cells(r) for r in self.rows])]
        if self.layers:
            head = ["layer", *(f"{name}, pJ" for name in self.names)]
            cells = [[x["layer"], *map(_layer_cell, x["pj"], x["at_least"])] for x in self.layers]
            profile = self.layers[0]["profile"]
            parts += ["", f"{mark}Layers whose energy differs most ({profile}){gap}", *table(head, cells)]
        return "\n".join([*parts, *([""] if self.notes else []), *self.notes]) + "\n"


def _layer_cell(pj: float | None, least: bool) -> str:
    return "-" if pj is None else f"{at_least(not least)}{pj:,.0f}"


def _cells(row: Row) -> list[str]:
    told = ["-" if v is None else FORMS[row.form](v, 1) for v in row.values]
    bounds = [at_least(not least) for least in row.at_least]
    ratios = ["-" if r is None else f"{r:.3f}" for r in row.ratios[1:]]
    return [row.name, *(b + t for b, t in zip(bounds, told, strict=True)), *ratios]


def compare(
    folders: Sequence[str | os.PathLike[str]],
    events: str | os.PathLike[str] | None = None,
    prices: Iterable[str | os.PathLike[str]] = (),
) -> Comparison:
    """Compare the last runs of artefacts.

    Where an artefact has no run of its own, the events of a run of the same network are counted for it: those of
    ``events``, else the ``events.npz`` of another of them (`nmc emulate --trace events`).  prices: profiles, by name or
    file, in place of those that nmc takes itself.  UsageError where there is neither run nor events, or where a folder
    is given twice; ArtefactError for damaged files.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2:
        raise UsageError("give two artefacts or more to compare")
    twice = next((p for i, p in enumerate(paths) if p.resolve() in [q.resolve() for q in paths[:i]]), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; give each artefact once")
    compiled = [load(path) for path in paths]
    given = [Path(events)] if events is not None else [p / "run" / EVENTS for p in paths]
    found = [_report(c, p, [g for g in given if g.is_file()]) for c, p in zip(compiled, paths, strict=True)]
    profiles = choose_profiles(prices)
    reports = [priced(report, profiles) for report, _ in found]
    streams = {report["stream"] for report in reports}
    if len(streams) > 1:
        raise UsageError("streams and runs of samples have averages over different things; compare one kind")
    return Comparison(
        [str(path) for path in paths],
        [how for _, how in found],
        _differ(compiled),
        _rows(reports),
        _layers(reports),
        [*_notes(reports, paths), *_not_run([how for _, how in found], paths)],
        "timestep" if reports[0]["stream"] else "sample",
    )


def _report(compiled: Compiled, path: Path, events: list[Path]) -> tuple[Mapping[str, Any], str]:
    """The report of an artefact's own run, or of another's events."""
    own = path / "run" / REPORT
    if own.is_file():
        report = read_report(own)
        if report["program"] == compiled.digest:
            return report.data, "re-costed" if report["recosted_from"] else "run"
    refusals = []
    for file in events:
        try:
            return recost(compiled, file).report.data, f"re-costed from {file}"
        except UsageError as error:
            refusals.append(str(error))
    why = f" ({refusals[0]})" if refusals else ""
    raise UsageError(
        f"{path}: has no run of what is compiled there, nor is there one of the same network to count{why}; "
        f"run: nmc emulate {path} --input FILE.npz"
    )


def _differ(compiled: list[Compiled]) -> dict[str, list[Any]]:
    """Settings that are not the same everywhere."""
    settings = []
    for c in compiled:
        program = c.program
        options = program.meta.get("options", {})
        chips = None if program.mapping is None else program.mapping.chips
        settings.append(
            {"network": program.name, "target": program.target.get("name"), "timesteps": program.timesteps}
            | {"chips": chips, "populations": len(program.populations)}
            | ({str(k): v for k, v in options.items()} if isinstance(options, dict) else {})
        )
    keys = dict.fromkeys(key for s in settings for key in s)
    return {k: [s.get(k) for s in settings] for k in keys if len({str(s.get(k)) for s in settings}) > 1}


def _rows(reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows, none = [], [False] * len(reports)
    for name, (key, form) in METRICS.items():
        values = [r[key] if name in WHOLE or r[key] is None else r[key] / _per(r) for r in reports]
        if any(v is not None for v in values):
            rows.append(Row(name, values, form.removesuffix("_per"), none))
    times = [r["seconds"]["run"] / _per(r) for r in reports]
    rows.append(Row("time", times, "seconds", [True] * len(reports)))
    for profile in dict.fromkeys(e["profile"] for r in reports for e in r["energy"]):
        energies = [next((e for e in r["energy"] if e["profile"] == profile), None) for r in reports]
        values = [None if e is None else e["total_pj"] / _per(r) for e, r in zip(energies, reports, strict=True)]
        bounds = [e is not None and not e["complete"] for e in energies]
        rows.append(Row(f"energy, {profile}", values, "pj", bounds))
    return rows


def _layers(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The layers that differ most in energy, under the mapped profile with the largest total of the first."""
    mapped = [e for e in reports[0]["energy"] if e["kind"] == "mapped"]
    profile = max(mapped, key=lambda e: (e["total_pj"], e["profile"]))["profile"]
    tables = [{x["name"]: x["energy_pj"][profile] / _per(r) for x in r["layers"]} for r in reports]
    bounds = [{x["name"]: bool(x["missing"][profile]) for x in r["layers"]} for r in reports]
    names = dict.fromkeys(name for t in tables for name in t)
    found = [
        {"layer": name, "profile": profile, "pj": [t.get(name) for t in tables]}
        | {"at_least": [b.get(name, False) for b in bounds]}
        for name in names
    ]

    def apart(layer: dict[str, Any]) -> float:
        values = [v or 0.0 for v in layer["pj"]]
        return float(max(values) - min(values))

    return [x for x in sorted(found, key=lambda x: -apart(x))[:MOST_LAYERS] if apart(x) > 0]


def _notes(reports: Sequence[Mapping[str, Any]], paths: list[Path]) -> list[str]:
    notes = []
    if any(not e["complete"] for r in reports for e in r["energy"]):
        notes.append('Ratios of energies compare what has prices, and say nothing about what "at least" leaves out.')
    if len({_per(r) for r in reports}) > 1:
        told = ", ".join(f"{path} {_per(r)}" for path, r in zip(paths, reports, strict=True))
        unit = "timesteps" if reports[0]["stream"] else "samples"
        notes.append(f"The runs are of different numbers of {unit} ({told}): averages of different inputs.")
    partial = [str(path) for path, r in zip(paths, reports, strict=True) if r["partial"]]
    if partial:
        notes.append(f"Stopped before its end: {', '.join(partial)}.")
    return notes


def _not_run(how: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Whose figures were counted from the events of another mapping."""
    return [f"{path} was not run: {told}." for path, told in zip(paths, how, strict=True) if told != "run"]
