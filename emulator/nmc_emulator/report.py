"""The report of a run: every number that is said about it, as one JSON object (docs/formats.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import ArtefactError
from nmc_compiler.json_file import read_json
from nmc_compiler.program.model import Population, Program

from .core_cost import core_counts, core_energy, core_terms
from .cost import (
    BOUNDS,
    MAPPED_PROFILES,
    PAPER_COUNTS,
    Counts,
    Energy,
    chip_terms,
    layer_counts,
    layer_terms,
    least_time,
    mapped_energy,
    paper_energy,
    run_ticks,
)
from .render import to_markdown, to_text
from .result import RunResult
from .sites import runtime_sites

SCHEMA = "nmc.report/1"
MAX_BYTES = 1 << 30
SYNOPS = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
ENCODINGS = {
    True: "the host computes the first layer in fixed point; its work and messages are counted, not priced",
    False: "the input arrives as graded events and the first layer runs on cores",
}

GIVEN = "events are the input; what makes them is not counted"


@dataclass(frozen=True)
class Report:
    """A report; ``data`` is the JSON object, `str()` the text for a terminal."""

    data: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Tables for a terminal."""
        return to_text(self.data)

    def markdown(self) -> str:
        """The same as Markdown."""
        return to_markdown(self.data)


def make_report(program: Program, result: RunResult, labels: np.ndarray | None = None, digest: str = "") -> Report:
    """Report of a run. ``labels`` int [samples] give the accuracy; ``digest`` names the Program.

    Counts are totals over all samples. Energies stand under two mapped profiles and the papers'
    formula; a total without all its prices says so.
    """
    counters, n = result.counters, result.samples
    layers = layer_counts(program, counters)
    terms = layer_terms(program, counters, n)
    time = least_time(program, counters, n)
    chip = chip_terms(program, counters, n, time.ns)
    energies = [mapped_energy(name, terms, chip) for name in MAPPED_PROFILES]
    energies.append(paper_energy(program, counters, n))
    return Report(
        {
            "schema": SCHEMA,
            "program": digest,
            "name": program.name,
            "target": program.target.get("name"),
            "cores": counters.cores,
            "mapped": result.mapped,
            "engine": result.engine,
            "assumptions": _assumptions(program, result, layers),
            "samples": n,
            "timesteps": program.timesteps,
            "accuracy": None if labels is None else float((result.logits.argmax(axis=1) == labels).mean()),
            **_totals(program, layers, n),
            "latency_ticks": run_ticks(program, 1),
            "interval_ticks": program.interval,
            "run_ticks": run_ticks(program, n),
            "bound": {name: int(value) for name, value in counters.bound.items()},
            "seconds": {
                "profile": time.profile.name,
                "label": time.profile.scope_label,
                "run": time.ns * 1e-9,
                "per_sample": time.ns * 1e-9 / n,
                "bounds": {name: ns * 1e-9 for name, ns in time.bounds_ns.items()},
                "missing": list(time.missing),
            },
            "overflow": _overflow(program, result),
            "energy": [_energy(energy, n, program) for energy in energies],
            "layers": [
                _layer(program, i, counts, energies, n) for i, counts in enumerate(layers)
            ],
            "per_core": _per_core(program, result) if result.mapped else None,
            "logits": result.logits.tolist(),
        }
    )  # fmt: skip


# --- parts ------------------------------------------------------------------------------------------------


def _events(p: Population, counts: Counts) -> tuple[int, int, int]:
    """(spikes, relay events, input events): every event is in one of the three."""
    kinds = [p.model in ("lif", "levels", "cell", "sigma_delta"), p.model == "relay", p.model == "input"]
    spikes, relays, inputs = (counts["events"] if kind else 0 for kind in kinds)
    return spikes, relays, inputs


def _work(counts: Counts) -> dict[str, int]:
    """The counts that totals and layers share."""
    dense = {f"{name}_dense": counts[f"{name}_dense"] for name in SYNOPS}
    return {
        "synops_effective": sum(counts[name] for name in SYNOPS),
        "synops_dense": sum(dense.values()),
        **{name: counts[name] for name in SYNOPS},
        **dense,
        "neuron_updates": counts["neuron_updates"],
        "bias_events": counts["bias_events"],
        "packets": counts["packets"],
        "packets_local": counts["packets_local"],
        "hops": counts["hops_ew"] + counts["hops_ns"],
        "hops_ew": counts["hops_ew"],
        "hops_ns": counts["hops_ns"],
        "chip_crossings": counts["chip_crossings"],
        "pool_compares": counts["pool_compares"],
        "accumulator_adds": counts["accumulator_adds"],
        "axon_reads": counts["axon_reads"],
        "waste_events": counts["waste_events"],
        "host_macs": counts["host_macs"],
        "host_messages": counts["input_messages"] + counts["current_messages"],
    }


def _maps(role: str, counts: Counts) -> dict[str, int]:
    """Map operations by the role of the layer they belong to."""
    gate, pool = role in ("or", "and"), role == "pool"
    ops = counts["map_ops"]
    return {
        "gate_ops": ops if gate else 0,
        "pool_ops": ops if pool else 0,
        "map_ops": 0 if gate or pool else ops,
    }


def _totals(program: Program, layers: list[Counts], samples: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for p, counts in zip(program.populations, layers, strict=True):
        for name, value in _row(p, counts).items():
            found[name] = found.get(name, 0) + value
    outputs = sum(p.shape[0] for p in program.populations if p.model == "readout")
    return found | {"host_reads": outputs * samples}


def _row(p: Population, counts: Counts) -> dict[str, int]:
    spikes, relays, inputs = _events(p, counts)
    events = {"spikes": spikes, "relay_events": relays, "input_events": inputs}
    return events | _work(counts) | _maps(p.role, counts)


def _layer(program: Program, index: int, counts: Counts, energies: list[Energy], samples: int) -> dict[str, Any]:
    p = program.populations[index]
    c, h, w = p.shape
    chances = c * h * w * program.timesteps * samples
    return {
        "name": p.name,
        "model": p.model,
        "role": p.role,
        "level": p.level,
        "shape": list(p.shape),
        "neurons": c * h * w,
        "rate": counts["events"] / chances,
        "mean_code": counts["payload_sum"] / counts["events"] if counts["events"] else 0.0,
        **_row(p, counts),
        "energy_pj": {energy.profile.name: energy.layers_pj[index] for energy in energies},
        "terms_pj": {e.profile.name: {k: v for k, v in e.layer_terms_pj[index].items() if v} for e in energies},
    }


def _per_core(program: Program, result: RunResult) -> dict[str, Any]:
    """Counts and energies of every core, in the order of ``Mapping.cores``."""
    terms = core_terms(program, result.counters, result.samples)
    counts = core_counts(program, result.counters)
    return {
        "counts": {name: values.tolist() for name, values in counts.items()},
        "energy_pj": {name: core_energy(name, terms).tolist() for name in MAPPED_PROFILES},
    }


def _overflow(program: Program, result: RunResult) -> dict[str, dict[str, int]]:
    """Values that left their range, by population; only where there are any."""
    found: dict[str, dict[str, int]] = {}
    for name, counts in result.counters.overflow.items():
        for p, value in zip(program.populations, counts.tolist(), strict=True):
            if value:
                found.setdefault(p.name, {})[name] = value
    return found


def _energy(energy: Energy, samples: int, program: Program) -> dict[str, Any]:
    profile = energy.profile
    on_loihi1 = program.target.get("profile") == "loihi1"  # whose own prices they are
    return {
        "profile": profile.name,
        "title": profile.title,
        "label": profile.scope_label.removesuffix(" on a Loihi 2 mapping") if on_loihi1 else profile.scope_label,
        "kind": profile.kind,
        "counts_what": PAPER_COUNTS if profile.kind == "formula" else "",
        "total_pj": energy.total_pj,
        "per_sample_pj": energy.total_pj / samples,
        "complete": energy.complete,
        "missing": list(energy.missing),
        "reasons": dict(energy.reasons),
        "counts": dict(energy.counts),
        "terms_pj": dict(energy.terms_pj),
    }


# by integer profile: what prices and rates there are of the chip itself
PRICED = {
    "loihi1": "simulated or fitted, not measured",
    "loihi2": "most of them of another chip",
    "neurocore": "all of them of other chips",
}
TIMED = {"loihi1": "fitted to that chip", "loihi2": "extrapolated from another chip", "neurocore": "assumed by nmc"}


def _assumptions(program: Program, result: RunResult, layers: list[Counts]) -> list[str]:
    """What the numbers rest on, first of all."""
    total = {name: sum(layer[name] for layer in layers) for name in layers[0]}
    target, profile = program.target.get("name", "the target"), program.target.get("profile", "loihi2")
    said = [
        f"spikes and counts are exact; energies are counts times published prices, {PRICED[profile]}",
        ENCODINGS[bool(program.host_currents)] if program.host_currents or program.host_codes else GIVEN,
    ]
    if runtime_sites(program):
        said.append("sites are announced before a sample begins, which is neither counted nor priced")
    for feature in _assumed_features(program):
        first = f"first used by {feature.get('first_use')}"
        said.append(f"{target} is assumed, not documented, to do {feature.get('feature')} ({first})")
    if total["bias_events"] and profile != "neurocore":  # there it is part of the update
        said.append("a bias comes from a gated source, one event per neuron and timestep; it is no SynOp")
    if total["synops_mac"]:
        said.append("an event with a payload is multiplied, and priced like one that is only added")
    said.append(f"on the way to energy, {BOUNDS['neuron_active']}; a mapped neuron is updated in every tick")
    if not result.mapped:
        said.append("the Program is not mapped: all work is on one core and there is no traffic")
    said.append(f"seconds rest on rates {TIMED[profile]}; they are a bound from below")
    return said


def _assumed_features(program: Program) -> list[dict[str, Any]]:
    features = program.meta.get("features", [])
    known = features if isinstance(features, list) else []
    return [f for f in known if isinstance(f, dict) and f.get("evidence") == "assumed"]


# --- reading a report back --------------------------------------------------------------------------------

_NUMBER = (int, float)
_TEXT = (str,)
_REQUIRED: dict[str, tuple[type, ...]] = {
    "program": _TEXT,
    "name": _TEXT,
    "engine": _TEXT,
    "target": (str, type(None)),
    "samples": (int,),
    "accuracy": (int, float, type(None)),
    "assumptions": (list,),
    "bound": (dict,),
    "seconds": (dict,),
    "overflow": (dict,),
    "energy": (list,),
    "layers": (list,),
    "logits": (list,),
} | dict.fromkeys(
    (
        "cores", "spikes", "relay_events", "input_events", "synops_effective", "synops_dense", "neuron_updates",
        "bias_events", "packets", "hops", "host_macs", "host_messages", "latency_ticks", "interval_ticks", "run_ticks",
    ),
    _NUMBER,
)  # fmt: skip
_LAYER: dict[str, tuple[type, ...]] = {"name": _TEXT, "role": _TEXT, "energy_pj": (dict,)} | dict.fromkeys(
    (
        "level", "neurons", "rate", "spikes", "relay_events", "input_events", "synops_effective", "synops_dense",
        "synops_ac", "synops_mac", "dyn_writes", "dyn_reads", "neuron_updates", "packets", "hops",
    ),
    _NUMBER,
)  # fmt: skip
_ENERGY: dict[str, tuple[type, ...]] = {
    "profile": _TEXT,
    "label": _TEXT,
    "kind": _TEXT,
    "counts_what": _TEXT,
    "total_pj": _NUMBER,
    "per_sample_pj": _NUMBER,
    "complete": (bool,),
    "missing": (list,),
    "reasons": (dict,),
    "terms_pj": (dict,),
}
_SECONDS: dict[str, tuple[type, ...]] = {
    "profile": _TEXT,
    "label": _TEXT,
    "run": _NUMBER,
    "per_sample": _NUMBER,
    "bounds": (dict,),
    "missing": (list,),
}


def read_report(path: str | os.PathLike[str]) -> Report:
    """The report that a run wrote. ArtefactError for a file that is missing, damaged or of another version."""
    path = Path(path)
    large = f"larger than {MAX_BYTES} bytes; is it a report?"
    absent, damaged = "run `nmc emulate` first", "not valid JSON; run `nmc emulate` again"
    tree = read_json(path, MAX_BYTES, ArtefactError, large, absent, damaged)
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
        raise ArtefactError(f"{path}: not a report of this version of nmc ({SCHEMA}); run `nmc emulate` again")
    _check(tree, _REQUIRED, str(path), "")
    _check(tree["seconds"], _SECONDS, str(path), "seconds/")
    for key, wanted in (("layers", _LAYER), ("energy", _ENERGY)):
        for number, item in enumerate(tree[key]):
            _check(item, wanted, str(path), f"{key}/{number}/")
    _check_numbers(tree, str(path))
    return Report(tree)


def _check(tree: Any, wanted: dict[str, tuple[type, ...]], path: str, where: str) -> None:
    if not isinstance(tree, dict):
        raise ArtefactError(f"{path}: {where.rstrip('/')} is no object; run `nmc emulate` again")
    for key, types in wanted.items():
        if key not in tree or not isinstance(tree[key], types):
            raise ArtefactError(f"{path}: {where}{key} is missing or of a wrong type; run `nmc emulate` again")


def _check_numbers(tree: dict[str, Any], path: str) -> None:
    """The maps of numbers hold numbers, lists of sentences hold text, and there was a sample."""
    maps = [tree["bound"], tree["seconds"]["bounds"], *(layer["energy_pj"] for layer in tree["layers"])]
    maps += [e["terms_pj"] for e in tree["energy"]]
    texts = [tree["assumptions"], tree["seconds"]["missing"], *(e["missing"] for e in tree["energy"])]
    good = all(isinstance(v, _NUMBER) for m in maps for v in m.values())
    good &= all(isinstance(line, str) for lines in texts for line in lines)
    good &= all(isinstance(v, str) for e in tree["energy"] for v in e["reasons"].values())
    if not good or tree["samples"] < 1:
        raise ArtefactError(f"{path}: holds values of a wrong type; run `nmc emulate` again")
