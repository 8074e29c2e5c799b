"""What each core does and costs: counts and energies of a run by core, for maps of the chip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nmc_compiler.program.model import Program

from .cost import EMITTING, MAP_TERMS, conv_format, owners, run_ticks
from .counters import Counters
from .price_profile import load_profile

WORK = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
SHOWN = ("neuron_updates", "bias_events", "packets", "packets_in", "axon_reads")


def core_counts(program: Program, counters: Counters) -> dict[str, np.ndarray]:
    """Totals over the run by core, each int64 [cores]: synops, spikes, and the counters of the same names."""
    tables = {name: table[:, :-1] for name, table in counters.tables.items()}
    senders = [p.model in EMITTING and p.model != "relay" for p in program.populations]
    found = {"synops": _sum(tables[name].sum(axis=0) for name in WORK), "spikes": tables["events"][senders].sum(axis=0)}
    return found | {name: tables[name].sum(axis=0) for name in SHOWN}


def _sum(arrays: object) -> np.ndarray:
    return np.sum(list(arrays), axis=0)  # type: ignore[call-overload, no-any-return]


def core_terms(program: Program, counters: Counters, samples: int) -> dict[str, np.ndarray]:
    """Counts by price term and core, int64 [cores]: summed over cores they are those of ``cost.layer_terms``.

    A packet is received where it arrives. Hops, crossings and host work belong to no core and are left out.
    """
    t, whose = {name: table[:, :-1] for name, table in counters.tables.items()}, owners(program)
    cores, ticks = counters.cores, run_ticks(program, samples)
    found: dict[str, np.ndarray] = {}

    def book(term: str, counts: np.ndarray) -> None:
        found[term] = found.get(term, np.zeros(cores, np.int64)) + counts

    for name, counts in zip(_formats(program), t["synops_ac"] + t["synops_mac"], strict=True):
        book(name, counts)
    for unit, into in enumerate(whose["map"]):
        book(MAP_TERMS.get(program.populations[into].role, "accumulator_add"), t["map_ops"][unit])
    for term, name in (("dyn_write", "dyn_writes"), ("dyn_read", "dyn_reads"), ("pool_compare", "pool_compares")):
        book(term, t[name].sum(axis=0))
    book("accumulator_add", t["accumulator_adds"].sum(axis=0))
    book("axon_out", t["packets"].sum(axis=0))
    book("axon_in", _sum(t[name].sum(axis=0) for name in ("packets_in", "input_messages", "current_messages")))
    book("bias_event", t["bias_events"].sum(axis=0))
    windows = max(program.timesteps, 1) * samples
    for i, p in enumerate(program.populations):
        events = t["events"][i] if p.model in EMITTING else np.zeros(cores, np.int64)
        book("spike_out", events)
        active = t["bias_events"][i] if t["bias_events"][i].sum() >= events.sum() else events
        book("neuron_active", active)
        book("neuron_inactive", t["neuron_updates"][i] // windows * ticks - active)
    return found


def _formats(program: Program) -> list[str]:
    return [*(conv_format(program, conv) for conv in program.convs), *("synop_sparse" for _ in program.sparses)]


def core_energy(name: str, terms: Mapping[str, np.ndarray]) -> np.ndarray:
    """Energy of each core in pJ, float64 [cores], under a mapped profile; terms without a price are left out."""
    prices = {term: load_profile(name).price(term) for term in terms}
    return _sum(counts * float(prices[term] or 0.0) for term, counts in terms.items())
