"""Counts times prices: energy and time of a run, with what they leave out.

A total is a lower bound wherever a term that happened has no published price, or its
count is known only from below; it then names those terms and says "at least".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from nmc_compiler.program.model import Conv, Program

from .counters import TABLES, Counters
from .price_profile import POWER_TERMS, TIME, PriceProfile, load_profile

MAPPED_PROFILES = ("loihi1-davies2018", "loihi1-sanafe-fit")
FORMULA_PROFILE = "cmos45-horowitz"
RATE_PROFILE = {  # by integer profile
    "loihi1": "loihi1-sanafe-rates",
    "loihi2": "loihi2-extrapolated-rates",
    "neurocore": "neurocore-50mhz-rates",
}

# Terms whose counts are lower bounds, and why.
BOUNDS = {
    "neuron_active": "neurons that only received events are counted as inactive: who received one is not recorded",
    "within_tile_spike": "packets between cores of one router are not told apart from others",
    "static": "the time of the run is a bound from below",
    "static_core": "the time of the run is a bound from below",
}
EMITTING = ("lif", "levels", "cell", "relay", "sigma_delta")  # models of somas whose events are spikes made
MAP_TERMS = {"or": "gate_op", "and": "gate_op", "pool": "pool_op", "relay": "relay_event"}  # by role; else a sum
CROSSING = "chip_crossing"  # no profile has such a term, nor the next
HOST_OP = "host_op"
NO_TERM = {
    CROSSING: "no profile prices a packet between chips",
    HOST_OP: "no profile prices the host's exponentials, divisions and other ops",
}
BOOKED = {  # price term: the counters that it is the sum of; a packet is received where it arrives
    "dyn_write": ("dyn_writes",),
    "dyn_read": ("dyn_reads",),
    "axon_out": ("packets",),
    "axon_in": ("packets_in", "input_messages", "current_messages"),
    "hop_ew": ("hops_ew",),
    "hop_ns": ("hops_ns",),
    "bias_event": ("bias_events",),
    "pool_compare": ("pool_compares",),
    "accumulator_add": ("accumulator_adds",),
    "host_mac": ("host_macs",),
    "host_message": ("input_messages", "current_messages"),
    CROSSING: ("chip_crossings",),
}
LAYER_TERMS = (
    *("synop_conv", "synop_dense", "synop_sparse", "neuron_active", "neuron_inactive", "spike_out"),
    *("gate_op", "pool_op", "relay_event", *BOOKED),
)
CHIP_TERMS = ("barrier", "host_message", "static", "static_core")
PAPER_TERMS = ("mac_fp32", "ac_fp32")

Counts = dict[str, int]


# --- who owns which count ---------------------------------------------------------------------------------


def owner(program: Program, dendrite: int, level: int) -> int:
    """Population that the work arriving at a dendrite at a level belongs to (docs/counters.md).

    The first that reads it then or later, directly or behind transfers.
    """
    readers = [(p.level, i) for i, p in enumerate(program.populations) if p.dendrite == dendrite and p.level >= level]
    for t in program.transfers:
        if t.src == dendrite and t.level >= level:
            found = owner(program, t.dst, t.level)
            readers.append((program.populations[found].level, found))
    return min(readers)[1]


def owners(program: Program) -> dict[str, list[int]]:
    """Population that owns each unit of the counter tables, by kind of unit."""
    p = program
    convs = [owner(p, c.dst, p.arrival(c.src, c.delay, c.lag)) for c in p.convs]
    maps = [owner(p, m.dst, p.arrival(m.src, m.delay, m.lag)) for m in p.maps]
    reads = [(d.q, d.delay_q) if d.order == "kv" else (d.v, d.delay_v) for d in p.dynamics]
    dynamics = [owner(p, d.dst, p.arrival(*read)) for d, read in zip(p.dynamics, reads, strict=True)]
    sparses = [owner(p, s.dst, p.arrival(s.src, s.delay, s.lag)) for s in p.sparses]
    return {
        "population": list(range(len(p.populations))),
        "synaptic": [*convs, *sparses],
        "map": maps,
        "dynamic": dynamics,
        "projection": [*convs, *maps, *dynamics, *sparses],
        "transfer": [owner(p, t.dst, t.level) for t in p.transfers],
        "current": [owner(p, h.dst, h.level) for h in p.host_currents],
    }


def layer_counts(program: Program, counters: Counters) -> list[Counts]:
    """Every counter summed over cores, for each population: its own, and the work that belongs to it."""
    found: list[Counts] = [dict.fromkeys(TABLES, 0) for _ in program.populations]
    whose = owners(program)
    for name, kind in TABLES.items():
        for unit, total in enumerate(counters.tables[name].sum(axis=1).tolist()):
            found[whose[kind][unit]][name] += total
    return found


# --- counts by price term ---------------------------------------------------------------------------------


def run_ticks(program: Program, samples: int) -> int:
    """Ticks from the first of the first sample to the last update of the last one."""
    latency = (program.timesteps - 1) * program.ticks_per_step + program.depth + 1
    return (samples - 1) * program.interval + latency


def is_dense(program: Program, conv: Conv) -> bool:
    """A projection between single positions is a plain weight matrix; any other is conv-addressed."""
    ends = (program.populations[conv.src].shape, program.dendrites[conv.dst].shape)
    return all(shape[1:] == (1, 1) for shape in ends)


def conv_format(program: Program, conv: Conv) -> str:
    """The price term of its SynOps."""
    return "synop_dense" if is_dense(program, conv) else "synop_conv"


def term_rows(program: Program, counters: Counters, samples: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Counts by price term (`price_profile.MAPPED_TERMS`): term, population, and int64 [cores + 1], the host last.

    Surely active neurons are those with a bias, or those that fired, whichever are more.
    """
    t, whose = counters.tables, owners(program)
    for term, names in BOOKED.items():
        for name in names:
            yield from zip([term] * len(t[name]), whose[TABLES[name]], t[name], strict=True)
    formats = chain((conv_format(program, conv) for conv in program.convs), ["synop_sparse"] * len(program.sparses))
    yield from zip(formats, whose["synaptic"], t["synops_ac"] + t["synops_mac"], strict=True)
    for into, ops in zip(whose["map"], t["map_ops"], strict=True):
        yield MAP_TERMS.get(program.populations[into].role, "accumulator_add"), into, ops
    windows, ticks = max(program.timesteps, 1) * samples, run_ticks(program, samples)
    for i, p in enumerate(program.populations):
        fired = t["events"][i] if p.model in EMITTING else np.zeros_like(t["events"][i])
        active = t["bias_events"][i] if t["bias_events"][i].sum() >= fired.sum() else fired
        yield "spike_out", i, fired
        yield "neuron_active", i, active
        yield "neuron_inactive", i, t["neuron_updates"][i] // windows * ticks - active


def layer_terms(program: Program, counters: Counters, samples: int) -> list[Counts]:
    """``term_rows`` of each population, added over cores."""
    found: list[Counts] = [dict.fromkeys(LAYER_TERMS, 0) for _ in program.populations]
    for term, into, row in term_rows(program, counters, samples):
        found[into][term] += int(row.sum())
    return found


def chip_terms(program: Program, counters: Counters, samples: int, ns: float) -> Counts:
    """Counts that belong to the whole run: barriers, host reads, and powered time (``ns``, estimated)."""
    chips = len(set(program.mapping.cores[:, 0].tolist())) if program.mapping is not None else 1
    powered = max(round(ns), 1)
    outputs = sum(p.shape[0] for p in program.populations if p.model == "readout")
    return {
        "barrier": run_ticks(program, samples) * chips,
        "host_message": outputs * samples,
        "static": powered * chips,
        "static_core": powered * counters.cores,
    }


# --- energy -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Energy:
    """Energy of a run under one profile. ``total_pj`` is a lower bound unless ``complete``.

    ``missing``: terms that happened and are not, or not all, in the total; ``reasons`` says why.
    ``layers_pj`` by population, ``layer_terms_pj`` these by term; barriers, host reads and powered time belong to none.
    """

    profile: PriceProfile
    total_pj: float
    complete: bool
    missing: tuple[str, ...]
    reasons: Mapping[str, str]
    counts: Mapping[str, int]
    terms_pj: Mapping[str, float]
    layers_pj: tuple[float, ...]
    layer_terms_pj: tuple[Mapping[str, float], ...] = ()

    def layer_missing(self, layer: Mapping[str, float]) -> list[str]:
        """Terms of a layer's counts that are not, or not all, in its energy: powered time belongs to no layer."""
        inside = [term for term, by in self.profile.inside.items() if by in POWER_TERMS]
        return sorted({term for term in (*self.missing, *inside) if layer.get(term)})


def mapped_energy(profile: PriceProfile | str, layers: list[Counts], chip: Counts) -> Energy:
    """Energy of the mapped run under a profile of kind mapped. A term without price is never taken as zero."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    counts = _add([*layers, _powered(profile, chip)])
    result = profile.energy(_known(counts))
    reasons = {term: f"no published price: {profile.prices[term].note or 'not stated'}" for term in result.missing}
    reasons |= {term: why for term, why in BOUNDS.items() if _may_be_more(term, profile, counts)}
    reasons |= {term: why for term, why in NO_TERM.items() if counts.get(term)}
    missing = tuple(sorted(reasons))
    each = [profile.energy(_known(layer)) for layer in layers]
    totals, parts = tuple(e.total_pj for e in each), tuple(e.terms for e in each)
    return Energy(profile, result.total_pj, not missing, missing, reasons, counts, result.terms, totals, parts)


def _known(counts: Mapping[str, int]) -> dict[str, int]:
    return {term: n for term, n in counts.items() if term not in NO_TERM}


def _powered(profile: PriceProfile, chip: Counts) -> Counts:
    """Counts of the chip, with the time that the ticks of a machine take whose ticks are wall-clock time."""
    if profile.tick is None:
        return chip
    cores = chip["static_core"] / chip["static"]  # per chip
    static = round(chip["barrier"] * profile.tick.value * TIME[profile.tick.unit])
    return {**chip, "static": static, "static_core": round(static * cores)}


def _may_be_more(term: str, profile: PriceProfile, counts: Mapping[str, int]) -> bool:
    """Whether a count known from below could be larger in this run, at a price that would show."""
    price = profile.price(term)
    if term == "neuron_active":
        return counts["neuron_inactive"] > 0 and price != profile.price("neuron_inactive")
    happened = counts["axon_out" if term == "within_tile_spike" else term] > 0
    return happened and price != 0 and (price is not None or term == "within_tile_spike")


def _add(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for term, count in part.items():
            total[term] = total.get(term, 0) + count
    return total


def formula_energy(profile: PriceProfile, layers: list[dict[str, float]], unknown: Sequence[str] = ()) -> Energy:
    """Energy of MAC and AC of the papers' formula under a profile of kind formula, in the type of its operations.

    unknown: layers of the network whose operations nobody knows.
    """
    layers = [{term.replace("fp32", profile.type): n for term, n in layer.items()} for layer in layers]
    counts = _add([{f"mac_{profile.type}": 0, f"ac_{profile.type}": 0}, *layers])
    result = profile.energy(counts)
    reasons = {term: f"no published price: {profile.prices[term].note or 'not stated'}" for term in result.missing}
    reasons |= {name: "the rate of what this layer hears is not among the counts of the run" for name in unknown}
    each, missing = [profile.energy(layer) for layer in layers], (*result.missing, *unknown)
    totals, parts = tuple(e.total_pj for e in each), tuple(e.terms for e in each)
    return Energy(profile, result.total_pj, not missing, missing, reasons, counts, result.terms, totals, parts)


# --- time -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Time:
    """Least time of a run in ns under the rates of a price profile, and what bounds it.

    ``bounds_ns``: each critical op count times the least it can cost, and the ticks times their
    floor.  ``missing``: counts that nobody has timed, so that they bound nothing.
    """

    profile: PriceProfile
    ns: float
    bounds_ns: Mapping[str, float]
    missing: tuple[str, ...]


def least_time(program: Program, counters: Counters, samples: int, rates: PriceProfile | None = None) -> Time:
    """Time that a run cannot beat at the rates of its chip, of Loihi 2 extrapolated, or at others: the largest bound.

    The bound op counts do not tell kinds apart, so each is charged at its cheapest kind.
    """
    profile = rates or load_profile(RATE_PROFILE[program.target.get("profile", "loihi2")])
    kinds = {
        "synops": (
            "synop_conv",
            "synop_dense",
            *(("synop_sparse",) if program.sparses else ()),
            *(("dyn_write", "dyn_read") if program.dynamics else ()),
        ),
        "neuron_updates": ("neuron_active", "neuron_inactive"),
        "link_packets": ("hop_ew", "hop_ns"),
    }
    floor = profile.price("timestep_floor")
    bounds = {} if floor is None else {"ticks": run_ticks(program, samples) * floor}
    for name, terms in kinds.items():
        times = [profile.price(term) for term in terms]
        known = [time for time in times if time is not None]
        if len(known) == len(times):
            bounds[name] = counters.bound[name] * min(known)
    missing = tuple(name for name in ("ticks", *kinds) if name not in bounds)
    return Time(profile, max(bounds.values(), default=0.0), bounds, missing)
