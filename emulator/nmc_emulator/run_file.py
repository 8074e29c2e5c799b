"""Whether what a report that was read from a file says of its run is all there: counts, times, what was left undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Types = tuple[type, ...]
_NUMBER, _TEXT, _NONE = (int, float), (str,), type(None)
_RUN: dict[str, Types] = {
    "stream": (bool,),
    "mapped": (bool,),
    "timesteps": (int,),
    "partial": (dict, _NONE),
    "timing": (dict, _NONE),
    "recosted_from": (str, _NONE),
}
_TIMING: dict[str, Types] = {
    "fidelity": _TEXT,
    "profile": _TEXT,
    "multicast": (bool,),
    "busiest": (list,),
    "missing": (list,),
    "link_load": (dict, _NONE),
    "seconds": _NUMBER,
    "tick_ns_mean": _NUMBER,
    "tick_ns_max": _NUMBER,
    "latency_mean": _NUMBER,
    "latency_max": _NUMBER,
    "throughput": _NUMBER,
    "ticks": _NUMBER,
    "deepest_queue": _NUMBER,
}


def damaged_run(data: Mapping[str, Any]) -> str:
    """What is missing, of a wrong type, or does not go with the rest; "" if nothing is.

    data: what `read_report` has checked already, energies too.
    """
    for what, tree, wanted in _parts(data):
        if not isinstance(tree, dict):
            return what
        for key, types in wanted.items():
            if key not in tree or not isinstance(tree[key], types):
                return f"{what}/{key}".lstrip("/")
    return next(_apart(data), "")


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Types]]]:
    """Objects, where they are, and what they should hold."""
    yield "", data, _RUN
    yield "seconds", data["seconds"], {"latency": _NUMBER, "throughput": _NUMBER}
    if data["partial"] is not None:
        yield "partial", data["partial"], {"of": _NUMBER, "timesteps" if data["stream"] else "samples": _NUMBER}
    if data["timing"] is not None:
        yield "timing", data["timing"], _TIMING
        for i, entry in enumerate(data["timing"]["busiest"]):
            yield f"timing/busiest/{i}", entry, {"what": _TEXT, "ticks": _NUMBER}
        if data["timing"]["link_load"] is not None:
            yield "timing/link_load", data["timing"]["link_load"], {"what": _TEXT, "share": _NUMBER}
    for i, layer in enumerate(data["layers"]):
        yield f"layers/{i}", layer, {"model": _TEXT, "mean_code": _NUMBER}
    if not data["formula"]["why"]:
        effort = dict.fromkeys(("bit_budget", "weight_bits", "input_bits"), _NUMBER)
        yield "formula/effort", data["formula"]["effort"], effort
        metrics = ("ActivationSparsity",) if "ActivationSparsity" in data["metrics"] else ()
        yield "metrics", data["metrics"], dict.fromkeys(metrics, _NUMBER)
    for key in ("counts", "terms", "energy_pj") if data["per_core"] is not None else ():
        rows = data["per_core"][key]
        yield f"per_core/{key}", rows, dict.fromkeys(rows, (list,))


def _apart(data: Mapping[str, Any]) -> Iterator[str]:
    """Where parts do not go together."""
    layers = data["layers"]
    if not layers:
        yield "layers"
    yield from (f"layers/{i}" for i, layer in enumerate(layers) if set(layer) != set(layers[0]))
    if data["timing"] is not None and not all(isinstance(name, str) for name in data["timing"]["missing"]):
        yield "timing/missing"
    for i, energy in enumerate(data["energy"]):
        if not set(energy["missing"]) <= set(energy["reasons"]):
            yield f"energy/{i}/reasons"
        if energy["static_pj"] and energy["static_share"] is None:
            yield f"energy/{i}/static_share"
        prices = data["prices"][energy["profile"]]["prices"]
        priced = {t for t, n in energy["counts"].items() if n and t in prices and prices[t]["value"] is not None}
        if not priced - set(energy["inside"]) <= set(energy["terms_pj"]):
            yield f"energy/{i}/terms_pj"
    for key in ("counts", "terms", "energy_pj") if data["per_core"] is not None else ():
        for name, row in data["per_core"][key].items():
            if len(row) != data["cores"] or not all(isinstance(value, _NUMBER) for value in row):
                yield f"per_core/{key}/{name}"
