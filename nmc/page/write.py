"""Draw the page of a run from its details."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nmc.page import charts
from nmc.page.numbers import Numbers, key
from nmc.page.waterfall import GROUPS, SYNAPSES
from nmc_emulator.render import at_least

HERE = Path(__file__).parent
KINDS = {"synapses": SYNAPSES, **GROUPS}
SECTIONS = {
    "summary": "Summary", "energy": "Energy", "waterfall": "From formula to chip", "papers": "As papers count",
    "hints": "Cheaper",
    "layers": "Layers", "activity": "Activity", "chip": "Cores and links",
    "time": "Time", "conversion": "Quantisation", "sources": "Sources",
}  # fmt: skip
COLUMNS = ("neurons", "rate", "spikes", "SynOps", "dense", "updates", "packets", "hops")
MAPS = {"SynOps": "synops", "neuron updates": "neuron_updates", "packets sent": "packets"}


def page(details: dict[str, Any]) -> str:
    """The page, one self-contained file, from what ``details_of`` gave. The same details give the same bytes."""
    details = json.loads(json.dumps(details, sort_keys=True, allow_nan=False))  # whatever order its keys came in
    numbers, report = Numbers(details), details["report"]
    traffic = details["traffic"]
    return _template().render(
        d=details,
        n=_safe(numbers.html),
        cell=_safe(numbers.cell),
        key=key,
        unit="timestep" if report["stream"] else "sample",
        sections=SECTIONS.items(),
        groups=list(KINDS),
        formula=next((e["counts_what"] for e in report["energy"] if e["kind"] == "formula"), report["formula"]["why"]),
        columns=[("layer", ""), ("role", ""), *((name, "n") for name in (*COLUMNS, *_profiles(report)))],
        complete={e["profile"]: e["complete"] for e in report["energy"]},
        priced={e["profile"]: {*e["terms_pj"], *e["inside"]} for e in report["energy"]},
        bounds=sorted({*report["bound"], *report["seconds"]["bounds"]}),
        pictures=_marked(_pictures(numbers)),
        fullest=_fullest(details["cores"]),
        busiest=int(np.argmax(traffic["links"])) if traffic and traffic["links"] else 0,
        style=_safe_text((HERE / "style.css").read_text(encoding="utf-8")),
        script=_safe_text((HERE / "sort.js").read_text(encoding="utf-8")),
        json=_safe_text(embedded(details)),
    )


def embedded(details: dict[str, Any]) -> str:
    """JSON that no name in it can end the script element of."""
    text = json.dumps(details, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")


def _safe_text(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _safe(function: Any) -> Any:
    return lambda *arguments: _safe_text(function(*arguments))


def _marked(pictures: Any) -> Any:
    """All pictures as markup that is not escaped again."""
    if isinstance(pictures, dict):
        return {name: _marked(value) for name, value in pictures.items()}
    if isinstance(pictures, list):
        return [(name, _marked(value)) for name, value in pictures]
    return pictures if pictures is None else _safe_text(pictures)


def _profiles(report: dict[str, Any]) -> list[str]:
    return [e["profile"] + ("" if e["complete"] else ", at least") for e in report["energy"]]


def _fullest(cores: dict[str, Any] | None) -> dict[str, int]:
    """By resource, the core that has least of it left."""
    return {} if cores is None else {name: int(np.argmax(used)) for name, used in cores["used"].items()}


# --- pictures ---


def _pictures(numbers: Numbers) -> dict[str, Any]:
    details = numbers.details
    return {
        "energy": _energy(numbers),
        "waterfalls": {profile: _fall(numbers, profile) for profile in details["waterfalls"]},
        "rates": _rates(numbers),
        "raster": _raster(details["traffic"]),
        "load": _load(numbers),
        "cores": _core_maps(numbers),
        "links": _links(details["traffic"]),
    }


def _energy(numbers: Numbers) -> str:
    bars = []
    for i, e in enumerate(numbers.details["report"]["energy"]):
        terms = e["terms_pj"]
        if e["kind"] == "formula":
            parts = [(0, e["total_pj"] / numbers.units, "multiplications and additions")]
        else:
            sums = [sum(terms.get(t, 0.0) for t in among) / numbers.units for among in KINDS.values()]
            parts = [(k, pj, name) for k, (name, pj) in enumerate(zip(KINDS, sums, strict=True))]
        told = at_least(e["complete"]) + numbers.svg(f"report/energy/{i}/total_pj", "pj_per")
        bars.append(charts.Stack(e["title"], parts, told))
    return charts.stacks("Energy by kind of work and profile", bars)


def _fall(numbers: Numbers, profile: str) -> str:
    steps, energies = numbers.details["waterfalls"][profile], numbers.details["report"]["energy"]
    first = next(e["complete"] for e in energies if e["kind"] == "formula")
    bounds = {0: first, len(steps) - 1: next(e["complete"] for e in energies if e["profile"] == profile)}
    rows = []
    for i, step in enumerate(steps):
        whole = i in bounds
        sign = "" if whole or step["pj"] <= 0 else "+ "
        sign += at_least(bounds[i] if whole else not step["unpriced"])
        rows.append((step["name"], step["pj"], whole, sign + numbers.svg(f"waterfalls/{profile}/{i}/pj", "pj")))
    return charts.falls(f"From the papers' formula to {steps[-1]['name']}", rows)


def _rates(numbers: Numbers) -> str:
    layers = numbers.details["report"]["layers"]
    rows = [
        (layer["name"], layer["rate"], numbers.svg(f"report/layers/{i}/rate", "percent"))
        for i, layer in enumerate(layers)
        if layer["model"] != "readout"
    ]
    return charts.rates("Firing rate of each layer", rows)


def _raster(traffic: dict[str, Any] | None) -> str | None:
    if traffic is None:
        return None
    rows = [(p["name"], p["somas"], p["step"], p["soma"]) for p in traffic["raster"]["populations"]]
    return charts.raster("Spikes by population and timestep", rows, traffic["raster"]["steps"])


def _load(numbers: Numbers) -> str | None:
    traffic = numbers.details["traffic"]
    if traffic is None:
        return None
    rows = []
    for name, values in traffic["ticks"].items():
        at = int(np.argmax(values)) if values else 0
        told = numbers.svg(f"traffic/ticks/{name}/{at}") + " at most" if values else ""
        rows.append((name, values, told))
    return charts.lines("Load over time", rows)


def _core_maps(numbers: Numbers) -> list[tuple[str, str]] | None:
    details = numbers.details
    cores, work = details["cores"], details["report"]["per_core"]
    if cores is None or work is None or len(cores["at"]) != details["report"]["cores"]:
        return None
    grid = charts.Grid(
        np.array(cores["at"], np.int64),
        (int(cores["mesh"]["routers"][0]), int(cores["mesh"]["routers"][1])),
        cores["chips"],
        int(cores["mesh"]["cores_per_router"]),
    )
    shown = [(name, f"counts/{counter}", "count_per") for name, counter in MAPS.items()]
    energy = details["energy"]
    part = "" if energy["complete"] else " as far as it has prices"
    shown += [(f"energy{part}, {energy['high']}", f"energy_pj/{energy['high']}", "pj_per")]
    maps = []
    for name, path, form in shown:
        values = numbers.value(f"report/per_core/{path}")
        most = numbers.html(f"report/per_core/{path}/{int(np.argmax(values))}", form)
        caption = f"<figcaption>A square for each core in use; the strongest colour is {most}.</figcaption>"
        maps.append((name, charts.cores(name, grid, values) + caption))
    return maps


def _links(traffic: dict[str, Any] | None) -> str | None:
    if traffic is None or not any(traffic["links"]):
        return None
    return charts.links("Packets over links", traffic["links"], tuple(traffic["routers"]))  # type: ignore[arg-type]
