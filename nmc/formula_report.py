"""What a report says of the network as trained: the papers' formula with the run's rates, in all its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nmc.artefact import Compiled
from nmc.effort import SOURCE, effort, residual_words
from nmc.formula import NUMBERS, VARIANTS, FormulaEnergy, FormulaRow, applies, formula
from nmc.measuring import Metrics, static_metrics
from nmc.run_rates import Rates, rates_of_run
from nmc_compiler.graph import Graph, op_spec
from nmc_compiler.program.model import Program
from nmc_emulator.counters import Counters
from nmc_emulator.energies import units_of
from nmc_emulator.energies import with_formula as with_energies
from nmc_emulator.price_profile import PriceProfile
from nmc_emulator.report import Report

VARIANT = "papers"  # the one that energies and waterfalls start from
INPUT_BITS = 8  # of an element of a real input, in the Bit Budget


def graph_of(source: Compiled | Program) -> Graph | None:
    """The float graph that a Program was made from; None of one that was made by hand.

    ArtefactError where an artefact should have it and has not.
    """
    known = isinstance(source, Compiled) and "graphs" in source.program.meta
    return source.float_graph if isinstance(source, Compiled) and (known or source.graphs) else None


def with_formula(
    report: Report,
    graph: Graph | None,
    program: Program,
    counters: Counters,
    profiles: Sequence[PriceProfile] = (),
    metrics: Metrics | None = None,
) -> Report:
    """A report with ``formula`` and ``metrics``, and with the energy of the formula among the others.

    graph: the float graph that the Program was made from, or None.  program, counters: of the run.  profiles: those of
    kind formula are taken, or where there is none the one nmc takes itself.
    """
    if graph is None:
        return report
    samples, steps = report["samples"], report["samples"] * max(report["timesteps"], 1)
    rates = rates_of_run(graph, program, counters, samples, steps)
    units = samples if graph.timesteps else steps  # of the formula: samples, or timesteps of a stream
    each = units / units_of(report.data)  # 1, but of samples that go through a stream
    kept = [name for name, kind in VARIANTS.items() if applies(graph, kind)]
    found = {name: formula(graph, rates.means, name, partial=True) for name in kept}
    papers = found[VARIANT]
    told = {
        "why": "",
        "variant": VARIANT,
        "variants": {name: _variant(name, energy, units) for name, energy in found.items()},
        "rows": [_row(row, each) for row in papers.rows],
        "effort": _effort(program, papers, rates, each),
        "residual_words": residual_words(graph) * each,
    }
    layers = _by_population(graph, papers, program, units)
    data = dict(report.data) | {"formula": told, "metrics": _metrics(graph, metrics)}
    data["layers"] = [layer | {"formula": counts} for layer, counts in zip(report["layers"], layers, strict=True)]
    return Report(with_energies(data, [p for p in profiles if p.kind == "formula"]))


def _variant(name: str, energy: FormulaEnergy, units: int) -> dict[str, Any]:
    """Totals over the run."""
    return {
        "what": VARIANTS[name].what,
        "macs": energy.macs * units,
        "acs": energy.acs * units,
        "energy_pj": {numbers: energy.priced(numbers) * units for numbers in NUMBERS},
        "missing": list(energy.missing),
    }


def _row(row: FormulaRow, each: float) -> dict[str, Any]:
    """Per sample, or timestep of a stream."""
    return asdict(row) | {"ops": row.ops * each, "acs": row.acs * each, "macs": row.macs * each}


def _effort(program: Program, papers: FormulaEnergy, rates: Rates, each: float) -> dict[str, Any]:
    """Bit Budget and S-ACE, with as many bits as the largest weight of the Program needs."""
    weights = [w for w in (*(c.weight for c in program.convs), *(s.weight for s in program.sparses)) if w.size]
    bits = 1 + max((max(abs(int(w.min())), abs(int(w.max()))).bit_length() for w in weights), default=0)
    found = effort(papers.rows, rates.events, bits, INPUT_BITS)
    complete = not papers.missing
    return {
        "source": SOURCE,
        "weight_bits": bits,
        "input_bits": INPUT_BITS,
        "bit_budget": found.bit_budget * each,
        "s_ace": found.s_ace * each if complete and found.s_ace is not None else None,
        "ns_ace": found.ns_ace * each if complete else None,
        "missing": [*found.missing, *papers.missing],
    }


def _metrics(graph: Graph, metrics: Metrics | None) -> dict[str, Any]:
    """NeuroBench's, by its names; those of a run only where they were asked for."""
    if metrics is not None:
        return metrics.as_json()
    static = static_metrics(graph)
    return {
        "Footprint": static.footprint,
        "ParameterCount": static.parameters,
        "ConnectionSparsity": static.connection_sparsity,
    }


# ---- which layer of the report a layer of the formula belongs to ----


def _by_population(graph: Graph, energy: FormulaEnergy, program: Program, units: int) -> list[dict[str, float]]:
    """MAC and AC of each population, over the run: of the layers that it is the first to hear."""
    found = [{"mac_fp32": 0.0, "ac_fp32": 0.0} for _ in program.populations]
    first = _first_to_hear(graph, program)
    for row in (*energy.rows, *energy.products):
        into = found[first[row.node]]
        into["mac_fp32"] += row.macs * units
        into["ac_fp32"] += row.acs * units
    return found


def _first_to_hear(graph: Graph, program: Program) -> dict[str, int]:
    """By node the first population that hears it, itself or behind nodes that are none; the last where none does."""
    places: dict[str, int] = {}
    for i, p in enumerate(program.populations):
        places.setdefault(p.name, i)
        places.setdefault(p.name.rsplit(".", 1)[0], i)  # parts of a neuron that became several populations
    last, found = len(program.populations) - 1, dict[str, int]()
    users = graph.users()
    for node in reversed(graph.nodes):
        own = [places[u.name] if op_spec(u.op).neuron and u.name in places else found.get(u.id, last)
               for u in users[node.id]]  # fmt: skip
        found[node.id] = min(own, default=last)
    return found
