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

from .core_cost import core_counts, core_terms
from .cost import BOUNDS, Counts, Time, chip_terms, layer_counts, layer_terms, least_time, run_ticks
from .energies import choose_profiles, priced, rest_of_energies
from .energy_file import damaged_energies
from .render import to_markdown, to_text
from .result import RunResult
from .run_file import damaged_run
from .sites import runtime_sites

SCHEMA = "nmc.report/2"
MAX_BYTES = 1 << 30
SYNOPS = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
ENCODINGS = {
    True: "the host computes the first layer in fixed point; its work and messages are counted, not priced",
    False: "the input arrives as graded events and the first layer runs on cores",
}

NO_GRAPH = "the papers' formula counts the layers of a network as trained, and none is known of this Program"
SECONDS_REST = "seconds rest on"
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

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        from .notebook import report_html

        return report_html(self.data)


def make_report(program: Program, result: RunResult, labels: np.ndarray | None = None, digest: str = "") -> Report:
    """Report of a run. ``labels`` int [samples] give the accuracy; ``digest`` names the Program.

    Counts are totals over all samples. Energies stand under two mapped profiles (others: ``energies.priced``); a total
    without all its prices says so. The papers' formula is of the network as trained, which is not known here.
    """
    counters, n = result.counters, result.samples
    layers = layer_counts(program, counters)
    terms = layer_terms(program, counters, n)
    time = least_time(program, counters, n)
    chip = chip_terms(program, counters, n, time.ns)
    return Report(
        priced({
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
            "seconds": seconds_of(time, n),
            "overflow": _overflow(program, result),
            "rules": program.target.get("profile"),
            "chip_terms": chip,
            "layers": [
                _layer(program, i, counts, n) | {"terms": terms[i], "formula": {}}
                for i, counts in enumerate(layers)
            ],
            "per_core": _per_core(program, result) if result.mapped else None,
            "formula": {"why": NO_GRAPH},
            "metrics": None,
            "logits": result.logits.tolist(),
        }, choose_profiles())
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


def _layer(program: Program, index: int, counts: Counts, samples: int) -> dict[str, Any]:
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
    }


def seconds_of(time: Time, samples: int) -> dict[str, Any]:
    """What a report says of the least time of its run."""
    return {
        "profile": time.profile.name,
        "label": time.profile.scope_label,
        "run": time.ns * 1e-9,
        "per_sample": time.ns * 1e-9 / samples,
        "bounds": {name: ns * 1e-9 for name, ns in time.bounds_ns.items()},
        "missing": list(time.missing),
    }


def _per_core(program: Program, result: RunResult) -> dict[str, Any]:
    """Counts of every core, in the order of ``Mapping.cores``; ``terms`` by price term."""
    terms = core_terms(program, result.counters, result.samples)
    counts = core_counts(program, result.counters)
    return {
        "counts": {name: values.tolist() for name, values in counts.items()},
        "terms": {name: values.tolist() for name, values in terms.items()},
    }


def _overflow(program: Program, result: RunResult) -> dict[str, dict[str, int]]:
    """Values that left their range, by population; only where there are any."""
    found: dict[str, dict[str, int]] = {}
    for name, counts in result.counters.overflow.items():
        for p, value in zip(program.populations, counts.tolist(), strict=True):
            if value:
                found.setdefault(p.name, {})[name] = value
    return found


# by integer profile: what rates there are of the chip itself
TIMED = {"loihi1": "fitted to that chip", "loihi2": "extrapolated from another chip", "neurocore": "assumed by nmc"}


def _assumptions(program: Program, result: RunResult, layers: list[Counts]) -> list[str]:
    """What the numbers rest on, first of all."""
    total = {name: sum(layer[name] for layer in layers) for name in layers[0]}
    target, profile = program.target.get("name", "the target"), program.target.get("profile", "loihi2")
    said = [
        rest_of_energies(profile, choose_profiles()),
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
    said.append(f"{SECONDS_REST} rates {TIMED[profile]}; they are a bound from below")
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
    "energy_range": (dict,),
    "prices": (dict,),
    "chip_terms": (dict,),
    "formula": (dict,),
    "metrics": (dict, type(None)),
    "rules": (str, type(None)),
    "layers": (list,),
    "per_core": (dict, type(None)),
    "logits": (list,),
} | dict.fromkeys(
    (
        "cores", "spikes", "relay_events", "input_events", "synops_effective", "synops_dense", "neuron_updates",
        "bias_events", "packets", "hops", "host_macs", "host_messages", "latency_ticks", "interval_ticks", "run_ticks",
    ),
    _NUMBER,
)  # fmt: skip
_MAPS = ("energy_pj", "terms_pj", "missing", "terms", "formula")
_LAYER: dict[str, tuple[type, ...]] = {"name": _TEXT, "role": _TEXT} | dict.fromkeys(_MAPS, (dict,)) | dict.fromkeys(
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


_FORMULA: dict[str, tuple[type, ...]] = {
    "variant": _TEXT,
    "variants": (dict,),
    "rows": (list,),
    "effort": (dict,),
    "residual_words": _NUMBER,
}
_VARIANT: dict[str, tuple[type, ...]] = {
    "what": _TEXT,
    "macs": _NUMBER,
    "acs": _NUMBER,
    "energy_pj": (dict,),
    "missing": (list,),
}
_ROW: dict[str, tuple[type, ...]] = {"layer": _TEXT} | dict.fromkeys(("ops", "acs", "macs", "rate"), _NUMBER)
_EFFORT: dict[str, tuple[type, ...]] = {"source": _TEXT, "missing": (list,)} | dict.fromkeys(
    ("bit_budget", "s_ace", "ns_ace", "weight_bits", "input_bits"), (int, float, type(None))
)
_METRICS: dict[str, tuple[type, ...]] = dict.fromkeys(("Footprint", "ParameterCount", "ConnectionSparsity"), _NUMBER)
_TYPES: dict[str, tuple[type, ...]] = dict.fromkeys(("fp32", "fp16", "int32", "int8"), _NUMBER)


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
    if wrong := damaged_energies(tree):
        raise ArtefactError(f"{path}: {wrong} is missing or of a wrong type; run `nmc emulate` again")
    _check_formula(tree, str(path))
    _check_numbers(tree, str(path))
    if wrong := damaged_run(tree):
        raise ArtefactError(f"{path}: {wrong} is missing or of a wrong type; run `nmc emulate` again")
    return Report(tree)


def _check_formula(tree: dict[str, Any], path: str) -> None:
    """What is said of the network as trained is there as a whole, or not at all."""
    told = tree["formula"]
    _check(told, {"why": _TEXT}, path, "formula/")
    if any(bool(layer["formula"]) == bool(told["why"]) for layer in tree["layers"]):
        raise ArtefactError(f"{path}: formula and the counts of its layers do not go together; run `nmc emulate` again")
    if told["why"]:
        return
    _check(told, _FORMULA, path, "formula/")
    _check(told["variants"], {told["variant"]: (dict,)}, path, "formula/variants/")
    for name, variant in told["variants"].items():
        _check(variant, _VARIANT, path, f"formula/variants/{name}/")
        _check(variant["energy_pj"], _TYPES, path, f"formula/variants/{name}/energy_pj/")
    for number, row in enumerate(told["rows"]):
        _check(row, _ROW, path, f"formula/rows/{number}/")
    _check(told["effort"], _EFFORT, path, "formula/effort/")
    _check(tree["metrics"], _METRICS, path, "metrics/")
    operations = tree["metrics"].get("SynapticOperations", {})
    texts = [told["effort"]["missing"], *(v["missing"] for v in told["variants"].values())]
    good = all(isinstance(line, str) for lines in texts for line in lines)
    good &= isinstance(operations, dict) and all(isinstance(v, _NUMBER) for v in operations.values())
    if not good:
        raise ArtefactError(f"{path}: formula or metrics hold values of a wrong type; run `nmc emulate` again")


def _check(tree: Any, wanted: dict[str, tuple[type, ...]], path: str, where: str) -> None:
    if not isinstance(tree, dict):
        raise ArtefactError(f"{path}: {where.rstrip('/')} is no object; run `nmc emulate` again")
    for key, types in wanted.items():
        if key not in tree or not isinstance(tree[key], types):
            raise ArtefactError(f"{path}: {where}{key} is missing or of a wrong type; run `nmc emulate` again")


def _check_numbers(tree: dict[str, Any], path: str) -> None:
    """The maps of numbers hold numbers, lists of sentences hold text, and there was a sample."""
    maps = [tree["bound"], tree["seconds"]["bounds"], tree["chip_terms"]]
    maps += [layer[key] for layer in tree["layers"] for key in ("energy_pj", "terms", "formula")]
    maps += [e["terms_pj"] for e in tree["energy"]]
    texts = [tree["assumptions"], tree["seconds"]["missing"], *(e["missing"] for e in tree["energy"])]
    good = all(isinstance(v, _NUMBER) for m in maps for v in m.values())
    good &= all(isinstance(line, str) for lines in texts for line in lines)
    good &= all(isinstance(v, str) for e in tree["energy"] for v in e["reasons"].values())
    if not good or tree["samples"] < 1:
        raise ArtefactError(f"{path}: holds values of a wrong type; run `nmc emulate` again")
