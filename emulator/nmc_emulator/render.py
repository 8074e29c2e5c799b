"""A report in words and tables: for a terminal, and as Markdown.

Averages per sample, or of a stream per timestep; JSON has the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .energies import units_of
from .price_profile import KINDS
from .tables import count, markdown_table, picojoules, seconds, text_table

Data = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], list[str]]

LAYER_HEAD = ["layer", "level", "neurons", "spikes", "rate", "synops", "dense", "AC", "MAC"]
LAYER_HEAD += ["tables", "updates", "packets", "hops"]


def _unit(data: Data) -> str:
    """What averages are taken over."""
    return "timestep" if data.get("stream") else "sample"


def at_least(complete: bool) -> str:
    """What stands before every energy that is a lower bound."""
    return "" if complete else "at least "


def to_text(data: Data) -> str:
    """The report for a terminal."""
    return "\n".join(_lines(data, text_table, "", "  ")) + "\n"


def to_markdown(data: Data) -> str:
    """The report as Markdown."""
    return "\n".join(_lines(data, markdown_table, "## ", "- ")) + "\n"


def _lines(data: Data, table: Table, mark: str, item: str) -> list[str]:
    first, *parts = report_parts(data, table, item)
    lists = ("Assumptions", "Result", "Time")
    marked = [
        [f"{mark}{p[0]}", *_gap(mark), *(f"{item}{line}" if p[0] in lists else line for line in p[1:])] for p in parts
    ]
    return [line for part in ([f"{mark.replace('##', '#')}{first[0]}"], *marked) for line in (*part, "")][:-1]


def report_parts(data: Data, table: Table, item: str) -> list[list[str]]:
    """The title, then each part: its heading and its lines. ``item`` stands before lines that are beside tables."""
    unit = _unit(data)
    return [
        [_title(data)],
        ["Assumptions", *data["assumptions"]],
        ["Result", *_result(data)],
        [f"Layers, per {unit}", *table(LAYER_HEAD, _layer_rows(data))],
        [f"Energy, per {unit}", *_energy(data, table, item)],
        [f"Energy by layer, pJ per {unit}", *_energy_by_layer(data, table)],
        [f"As papers count, per {unit}", *_papers(data, table)],
        ["Time", *_time(data)],
    ]


def _gap(mark: str) -> list[str]:
    return [""] if mark else []


def _title(data: Data) -> str:
    place = f"{data['cores']} cores of {data['target']}" if data.get("mapped") else "not mapped"
    how = "re-costed" if data.get("recosted_from") else f"{data['engine']} engine"
    of = f" of {data['partial']['of']}" if data.get("partial") else ""
    return f"{data['name']}: {place}, {units_of(data)}{of} {_unit(data)}s, {how}"


def _result(data: Data) -> list[str]:
    n, unit = units_of(data), _unit(data)
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
    rows = [_layer_row(layer, units_of(data)) for layer in data["layers"]]
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
    return [*rows, _layer_row(total, units_of(data))]


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
    n = units_of(data)
    rows = [[e["profile"], at_least(e["complete"]) + picojoules(e["total_pj"] / n), e["label"]] for e in data["energy"]]
    between = [f"{item}{line}" for line in _range(data)]
    lines = [*table(("prices", "energy", "what they are"), rows), *(["", *between] if between else [])]
    for e in data["energy"]:
        lines += ["", *(f"{item}{e['profile']}: {line}" for line in _energy_lines(e, n, data))]
    return lines


def _range(data: Data) -> list[str]:
    """Between which energies the mapped profiles are, and why they differ."""
    found = data["energy_range"]
    if found["low"] == found["high"]:
        return []
    mark = at_least(found["complete"])
    low, high = picojoules(found["low_pj"]), picojoules(found["high_pj"])
    ends = ", ".join(picojoules(found[key]) for key in ("term_low_pj", "term_high_pj"))
    reason = f"{found['reason']} ({ends})" if found["reason"].endswith(found["term"]) else found["reason"]
    return [f"from {mark}{low} ({found['low']}) to {mark}{high} ({found['high']}): {reason}"]


def _energy_lines(energy: Data, units: int, data: Data) -> list[str]:
    largest = sorted(((pj, term) for term, pj in energy["terms_pj"].items() if pj), reverse=True)
    terms = ", ".join(f"{t} {picojoules(pj / units)}" for pj, t in largest)
    lines = [f"{energy['label']}; {terms}" if terms else energy["label"]]
    if energy["counts_what"]:
        lines.append(energy["counts_what"])
    for term, conditions in sorted(energy["all_in"].items()):
        inside = ", ".join(sorted(t for t, by in energy["inside"].items() if by == term))
        lines.append(
            f"{term} is all-in, at {conditions}; inside of it and not added: {inside or 'nothing that happened'}"
        )
    kinds = [f"{kind} {picojoules(pj / units)}" for kind in KINDS if (pj := energy["kinds_pj"].get(kind))]
    if kinds:
        lines.append(f"by kind of work: {', '.join(kinds)}")
    if energy["kind"] == "mapped" and not data.get("stream"):
        lines.append(f"per timestep: {at_least(energy['complete'])}{picojoules(energy['per_timestep_pj'])}")
    if energy["static_pj"]:
        told = f"{100 * energy['static_share']:.1f} % of this total"
        lines.append(f"static: at least {picojoules(energy['static_pj'] / units)}, {told}")
    if not energy["complete"]:
        lines.append(f"not, or not all, in the total: {', '.join(energy['missing'])}")
    return lines


def _energy_by_layer(data: Data, table: Table) -> list[str]:
    n, entries = units_of(data), data["energy"]
    heads = [e["profile"] for e in entries]
    rows = []
    for layer in data["layers"]:
        marks = [at_least(not layer["missing"][name]) for name in heads]
        cells = [f"{layer['energy_pj'][name] / n:,.0f}" for name in heads]
        rows.append([layer["name"], *(mark + cell for mark, cell in zip(marks, cells, strict=True))])
    sums = [sum(layer["energy_pj"][name] for layer in data["layers"]) for name in heads]
    rest = [e["total_pj"] - s for e, s in zip(entries, sums, strict=True)]
    rows.append(["of no layer", *(_marked(e, max(pj, 0.0) / n) for e, pj in zip(entries, rest, strict=True))])
    rows.append(["total", *(_marked(e, e["total_pj"] / n) for e in entries)])
    return table(("layer", *heads), rows)


def _marked(energy: Data, pj: float) -> str:
    return f"{at_least(energy['complete'])}{pj:,.0f}"


def _papers(data: Data, table: Table) -> list[str]:
    """The papers' formula in its variants, and NeuroBench's numbers, of the network as trained."""
    told: Mapping[str, Any] = data["formula"]
    if told["why"]:
        return [told["why"]]
    n = units_of(data)
    rows = [
        [
            name,
            *(at_least(not v["missing"]) + count(v[key] / n) for key in ("macs", "acs")),
            *(at_least(not v["missing"]) + picojoules(v["energy_pj"][kind] / n) for kind in ("fp32", "int8")),
        ]
        for name, v in sorted(told["variants"].items())
    ]
    effort, metrics = told["effort"], data["metrics"]
    bits = [(name, effort[key]) for name, key in (("S-ACE", "s_ace"), ("NS-ACE", "ns_ace"))]
    aces = ", ".join(f"{name} {'not known' if value is None else count(value)}" for name, value in bits)
    lines = [
        f"Bit Budget {effort['bit_budget']:.4g}, {aces} ({effort['source']})",
        f"words of the residual stream, which no paper counts: {count(told['residual_words'])}",
        f"NeuroBench: {_neurobench(metrics)}",
    ]
    return [*table(("variant", "MACs", "ACs", "fp32", "int8"), rows), "", *lines]


def _neurobench(metrics: Data) -> str:
    parts = [f"{name} {metrics[name]:.4g}" for name in ("ConnectionSparsity", "ActivationSparsity") if name in metrics]
    parts += [f"{name} {count(metrics[name])}" for name in ("Footprint", "ParameterCount")]
    operations = metrics.get("SynapticOperations", {})
    return ", ".join([*parts, *(f"{name} {count(value)}" for name, value in sorted(operations.items()))])


def _time(data: Data) -> list[str]:
    bound = ", ".join(f"{name} {count(value)}" for name, value in sorted(data["bound"].items()))
    time = data["seconds"]
    limits = ", ".join(f"{name} {seconds(value)}" for name, value in sorted(time["bounds"].items()))
    untimed = f"; nobody has timed: {', '.join(time['missing'])}" if time["missing"] else ""
    unit = _unit(data)
    each = time["run"] / units_of(data)
    return [
        f"latency {data['latency_ticks']} ticks, a {unit} every {data['interval_ticks']} ticks, "
        f"{count(data['run_ticks'])} ticks for the run",
        f"critical operations of the run, the largest load of each tick added up: {bound}",
        f"no faster than {seconds(each)} per {unit} ({time['profile']}: {time['label']})",
        *_pace(time, unit),
        f"bounds for the run at those rates: {limits}{untimed}",
        *_timing(data),
    ]


def _pace(time: Data, unit: str) -> list[str]:
    if not time.get("throughput"):
        return []
    latency, rate = seconds(time["latency"]), count(time["throughput"])
    return [f"latency of a {unit} {latency} or more; {rate} {unit}s per second or fewer"]


def _timing(data: Data) -> list[str]:
    """What the simulation of packets says, if there was one (docs/timing.md)."""
    timing: Mapping[str, Any] | None = data.get("timing")
    if not timing:
        return []
    each, unit = timing["seconds"] / units_of(data), _unit(data)
    trees = ", multicast trees" if timing["multicast"] else ""
    busiest = ", ".join(f"{b['what']} in {count(b['ticks'])}" for b in timing["busiest"][:3])
    depth = f"; deepest queue {count(timing['deepest_queue'])} packets" if timing["deepest_queue"] else ""
    lines = [
        f"{timing['fidelity']}: {seconds(each)} per {unit} ({timing['profile']}{trees}); a tick takes"
        f" {timing['tick_ns_mean']:,.0f} ns on average, {timing['tick_ns_max']:,.0f} ns at most",
        f"latency of a {unit} {seconds(timing['latency_mean'])} on average, {seconds(timing['latency_max'])} at most;"
        f" {count(timing['throughput'])} {unit}s per second",
        f"busiest: {busiest} of {count(timing['ticks'])} ticks{depth}",
        "(packets are served in the tick they are sent in; the bounds above book their work in the tick it is due)",
    ]
    if timing["link_load"]:
        lines.append(
            f"busiest link: {timing['link_load']['what']}, {100 * timing['link_load']['share']:.2g} % of the time"
        )
    if timing["missing"]:
        lines.append(f"not in these times: {', '.join(timing['missing'])}")
    return lines
