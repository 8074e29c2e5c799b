"""A report in words and tables: for a terminal, and as Markdown.

Averages per sample, or of a stream per timestep; JSON has the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tables import count, markdown_table, picojoules, seconds, text_table

Data = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], list[str]]

LAYER_HEAD = ["layer", "level", "neurons", "spikes", "rate", "synops", "dense", "AC", "MAC"]
LAYER_HEAD += ["tables", "updates", "packets", "hops"]


def _unit(data: Data) -> str:
    """What averages are taken over."""
    return "timestep" if data.get("stream") else "sample"


def _units(data: Data) -> int:
    """How many there were."""
    return int(data["timesteps"] if data.get("stream") else data["samples"])


def to_text(data: Data) -> str:
    """The report for a terminal."""
    return "\n".join(_lines(data, text_table, "", "  ")) + "\n"


def to_markdown(data: Data) -> str:
    """The report as Markdown."""
    return "\n".join(_lines(data, markdown_table, "## ", "- ")) + "\n"


def _lines(data: Data, table: Table, mark: str, item: str) -> list[str]:
    unit = _unit(data)
    parts = [
        [f"{mark.replace('##', '#')}{_title(data)}"],
        [f"{mark}Assumptions", *_gap(mark), *(f"{item}{line}" for line in data["assumptions"])],
        [f"{mark}Result", *_gap(mark), *(f"{item}{line}" for line in _result(data))],
        [f"{mark}Layers, per {unit}", *_gap(mark), *table(LAYER_HEAD, _layer_rows(data))],
        [f"{mark}Energy, per {unit}", *_gap(mark), *_energy(data, table, item)],
        [f"{mark}Energy by layer, pJ per {unit}", *_gap(mark), *_energy_by_layer(data, table)],
        [f"{mark}Time", *_gap(mark), *(f"{item}{line}" for line in _time(data))],
    ]
    return [line for part in parts for line in (*part, "")][:-1]


def _gap(mark: str) -> list[str]:
    return [""] if mark else []


def _title(data: Data) -> str:
    place = f"{data['cores']} cores of {data['target']}" if data.get("mapped") else "not mapped"
    how = "re-costed" if data.get("recosted_from") else f"{data['engine']} engine"
    of = f" of {data['partial']['of']}" if data.get("partial") else ""
    return f"{data['name']}: {place}, {_units(data)}{of} {_unit(data)}s, {how}"


def _result(data: Data) -> list[str]:
    n, unit = _units(data), _unit(data)
    lines = []
    if data["accuracy"] is None:
        why = "the network tells no classes" if data.get("classes") else "the input has no labels"
        lines.append(f"accuracy: not known, {why}")
    else:
        right = round(data["accuracy"] * data["samples"])
        lines.append(f"accuracy: {100 * data['accuracy']:.2f} % ({right} of {data['samples']})")
    lines.append(
        f"SynOps per {unit}: {count(data['synops_effective'] / n)} of {count(data['synops_dense'] / n)} dense "
        f"({_percent(data['synops_effective'], data['synops_dense'])})"
    )
    lines.append(
        f"per {unit}: {count(data['spikes'] / n)} spikes, {count(data['packets'] / n)} packets, "
        f"{count(data['hops'] / n)} hops, {count(data['neuron_updates'] / n)} neuron updates, "
        f"{count(data['bias_events'] / n)} bias events"
    )
    lines.append(f"host per {unit}: {count(data['host_macs'] / n)} MACs, {count(data['host_messages'] / n)} messages")
    for name, what in sorted(data["overflow"].items()):
        told = ", ".join(f"{value} of {register}" for register, value in sorted(what.items()))
        lines.append(f"WARNING, values out of range in {name}: {told}")
    return lines


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _layer_rows(data: Data) -> list[list[str]]:
    rows = [_layer_row(layer, _units(data)) for layer in data["layers"]]
    keys = (
        "spikes",
        "synops_effective",
        "synops_dense",
        "synops_ac",
        "synops_mac",
        "neuron_updates",
        "packets",
        "hops",
    )
    total: dict[str, Any] = {key: sum(layer[key] for layer in data["layers"]) for key in keys}
    total |= {"name": "total", "level": "", "rate": None, "relay_events": 0, "input_events": 0}
    total["neurons"] = sum(layer["neurons"] for layer in data["layers"])
    total |= {key: sum(layer[key] for layer in data["layers"]) for key in ("dyn_writes", "dyn_reads")}
    return [*rows, _layer_row(total, _units(data))]


def _layer_row(layer: Mapping[str, Any], samples: int) -> list[str]:
    """A relay or an input shows its own events where others show spikes; the total has spikes alone."""

    def each(*keys: str) -> str:
        return count(sum(layer[key] for key in keys) / samples)

    return [
        layer["name"],
        str(layer["level"]),
        f"{layer['neurons']:,}",
        each("spikes", "relay_events", "input_events"),
        "" if layer["rate"] is None else f"{100 * layer['rate']:.1f}%",
        each("synops_effective"),
        each("synops_dense"),
        each("synops_ac"),
        each("synops_mac"),
        each("dyn_writes", "dyn_reads"),
        each("neuron_updates"),
        each("packets"),
        each("hops"),
    ]


def _energy(data: Data, table: Table, item: str) -> list[str]:
    n = _units(data)
    rows = [
        [e["profile"], ("" if e["complete"] else "at least ") + picojoules(e["total_pj"] / n), e["label"]]
        for e in data["energy"]
    ]
    lines = table(("prices", "energy", "what they are"), rows)
    for e in data["energy"]:
        lines.append("")
        lines += [f"{item}{e['profile']}: {line}" for line in _energy_lines(e, n)]
    return lines


def _energy_lines(energy: Mapping[str, Any], samples: int) -> list[str]:
    largest = sorted(((pj, term) for term, pj in energy["terms_pj"].items() if pj), reverse=True)
    lines = [f"{energy['label']}; " + ", ".join(f"{t} {picojoules(pj / samples)}" for pj, t in largest)]
    if energy["counts_what"]:
        lines.append(energy["counts_what"])
    if not energy["complete"]:
        lines.append(f"not, or not all, in the total: {', '.join(energy['missing'])}")
    return lines


def _energy_by_layer(data: Data, table: Table) -> list[str]:
    n = _units(data)
    names = [e["profile"] for e in data["energy"]]
    rows = [
        [layer["name"], *(f"{layer['energy_pj'].get(name, 0.0) / n:,.0f}" for name in names)]
        for layer in data["layers"]
    ]
    sums = [sum(layer["energy_pj"].get(name, 0.0) for layer in data["layers"]) for name in names]
    rest = [e["total_pj"] - s for e, s in zip(data["energy"], sums, strict=True)]
    rows.append(["of no layer", *(f"{max(value, 0.0) / n:,.0f}" for value in rest)])
    rows.append(["total", *(f"{e['total_pj'] / n:,.0f}" for e in data["energy"])])
    return table(("layer", *names), rows)


def _time(data: Data) -> list[str]:
    bound = ", ".join(f"{name} {count(value)}" for name, value in sorted(data["bound"].items()))
    time = data["seconds"]
    limits = ", ".join(f"{name} {seconds(value)}" for name, value in sorted(time["bounds"].items()))
    untimed = f"; nobody has timed: {', '.join(time['missing'])}" if time["missing"] else ""
    unit = _unit(data)
    each = time["run"] / _units(data)
    return [
        f"latency {data['latency_ticks']} ticks, a {unit} every {data['interval_ticks']} ticks, "
        f"{count(data['run_ticks'])} ticks for the run",
        f"critical operations of the run, the largest load of each tick added up: {bound}",
        f"no faster than {seconds(each)} per {unit} ({time['profile']}: {time['label']})",
        f"bounds for the run at those rates: {limits}{untimed}",
        *_timing(data),
    ]


def _timing(data: Data) -> list[str]:
    """What the simulation of packets says, if there was one (docs/timing.md)."""
    timing: Mapping[str, Any] | None = data.get("timing")
    if not timing:
        return []
    each = timing["seconds"] / _units(data)
    trees = ", multicast trees" if timing["multicast"] else ""
    busiest = ", ".join(f"{b['what']} in {count(b['ticks'])}" for b in timing["busiest"][:3])
    depth = f"; deepest queue {count(timing['deepest_queue'])} packets" if timing["deepest_queue"] else ""
    lines = [
        f"{timing['fidelity']}: {seconds(each)} per {_unit(data)} ({timing['profile']}{trees}); a tick takes"
        f" {timing['tick_ns_mean']:,.0f} ns on average, {timing['tick_ns_max']:,.0f} ns at most",
        f"busiest: {busiest} of {count(timing['ticks'])} ticks{depth}",
        "(packets are served in the tick they are sent in; the bounds above book their work in the tick it is due)",
    ]
    if timing["missing"]:
        lines.append(f"not in these times: {', '.join(timing['missing'])}")
    return lines
