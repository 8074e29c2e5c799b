"""What each core does and costs: counts and energies of a run by core, for maps of the chip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nmc_compiler.program.model import Program

from .cost import CROSSING, EMITTING, LAYER_TERMS, term_rows
from .counters import Counters
from .price_profile import PriceProfile, load_profile

OF_NO_CORE = ("hop_ew", "hop_ns", "host_mac", "host_message", CROSSING)
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
    """``cost.term_rows`` by core, int64 [cores]. Hops, crossings and host work belong to no core and are left out."""
    found = {term: np.zeros(counters.cores, np.int64) for term in LAYER_TERMS if term not in OF_NO_CORE}
    for term, _, row in term_rows(program, counters, samples):
        if term in found:
            found[term] += row[:-1]
    return found


def core_energy(profile: PriceProfile | str, terms: Mapping[str, np.ndarray]) -> np.ndarray:
    """Energy of each core in pJ, float64 [cores], under a mapped profile; terms without a price are left out."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    prices = {term: profile.price(term) for term in terms}
    return _sum(np.asarray(counts) * float(prices[term] or 0.0) for term, counts in terms.items())
