"""Counts times prices: energy and time of a run, with what they leave out.

A total is a lower bound wherever a term that happened has no published price, or its
count is known only from below; it then names those terms and says "at least".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmc_compiler.program.model import Conv, Program, Sparse

from .counters import TABLES, Counters
from .price_profile import PriceProfile, load_profile

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
}
EMITTING = ("lif", "levels", "cell", "relay", "sigma_delta")  # models of somas whose events are spikes made
MAP_TERMS = {"or": "gate_op", "and": "gate_op", "pool": "pool_op", "relay": "relay_event"}  # by role; else a sum
CROSSING = "chip_crossing"  # no profile has such a term

PAPER_COUNTS = (
    "MAC: multiply-accumulates of the first layer on the real input, clipped at borders, once per sample if the "
    "input has no time axis. AC: synaptic events of all other weights, a code c counted as c binary spikes, "
    "and writes and reads of attention tables. As in the papers, neuron updates, biases, gates, pools, residual "
    "adds, memory and network are not counted."
)

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


def synops_by_format(program: Program, counters: Counters) -> list[Counts]:
    """SynOps of every population's static synapses, by the format they are stored in."""
    found = [dict.fromkeys(("synop_conv", "synop_dense", "synop_sparse"), 0) for _ in program.populations]
    work = (counters.tables["synops_ac"] + counters.tables["synops_mac"]).sum(axis=1).tolist()
    formats = [conv_format(program, conv) for conv in program.convs]
    formats += ["synop_sparse"] * len(program.sparses)
    for name, into, synops in zip(formats, owners(program)["synaptic"], work, strict=True):
        found[into][name] += synops
    return found


def layer_terms(program: Program, counters: Counters, samples: int) -> list[Counts]:
    """Counts of each population by price term of the mapped profiles (`price_profile.MAPPED_TERMS`)."""
    formats = synops_by_format(program, counters)
    ticks = run_ticks(program, samples)
    rows = zip(program.populations, layer_counts(program, counters), formats, strict=True)
    return [_terms(p.model, p.role, c, f, _somas(p) * ticks) for p, c, f in rows]


def _somas(population: Any) -> int:
    c, h, w = population.shape
    return 0 if population.model == "input" else c * h * w


def _terms(model: str, role: str, c: Counts, synops: Counts, neuron_ticks: int) -> Counts:
    """Price terms of one layer. Surely active: neurons with a bias, or that fired (whichever are more)."""
    emits = model in EMITTING
    active = max(c["bias_events"], c["events"] if emits else 0)
    terms = {
        **synops,
        "dyn_write": c["dyn_writes"],
        "dyn_read": c["dyn_reads"],
        "neuron_active": active,
        "neuron_inactive": neuron_ticks - active,
        "spike_out": c["events"] if emits else 0,
        "axon_out": c["packets"],
        "axon_in": c["packets"] + c["input_messages"] + c["current_messages"],
        "hop_ew": c["hops_ew"],
        "hop_ns": c["hops_ns"],
        "bias_event": c["bias_events"],
        "gate_op": 0,
        "pool_op": 0,
        "relay_event": 0,
        "pool_compare": c["pool_compares"],
        "accumulator_add": c["accumulator_adds"],
        "host_mac": c["host_macs"],
        "host_message": c["input_messages"] + c["current_messages"],
        CROSSING: c["chip_crossings"],
    }
    terms[MAP_TERMS.get(role, "accumulator_add")] += c["map_ops"]
    return terms


def chip_terms(program: Program, counters: Counters, samples: int, ns: float) -> Counts:
    """Counts that belong to the whole run: barriers, host reads, and powered time (``ns``, estimated)."""
    chips = len(set(program.mapping.cores[:, 0].tolist())) if program.mapping is not None else 1
    outputs = sum(p.shape[0] for p in program.populations if p.model == "readout")
    return {
        "barrier": run_ticks(program, samples) * chips,
        "host_message": outputs * samples,
        "static": max(round(ns), 1) * chips,
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


def mapped_energy(name: str, layers: list[Counts], chip: Counts) -> Energy:
    """Energy of the mapped run under a profile of kind mapped. A term without price is never taken as zero."""
    profile = load_profile(name)
    counts = _add([*layers, chip])
    result = profile.energy(_known(counts))
    reasons = {term: f"no published price: {profile.prices[term].note or 'not stated'}" for term in result.missing}
    reasons |= {term: why for term, why in BOUNDS.items() if _may_be_more(term, profile, counts)}
    if counts[CROSSING]:
        reasons[CROSSING] = "no profile prices a packet between chips"
    missing = tuple(sorted(reasons))
    each = [profile.energy(_known(layer)) for layer in layers]
    totals, parts = tuple(e.total_pj for e in each), tuple(e.terms for e in each)
    return Energy(profile, result.total_pj, not missing, missing, reasons, counts, result.terms, totals, parts)


def _known(counts: Mapping[str, int]) -> dict[str, int]:
    return {term: n for term, n in counts.items() if term != CROSSING}


def _may_be_more(term: str, profile: PriceProfile, counts: Mapping[str, int]) -> bool:
    """Whether a count known from below could be larger in this run, at a price that would show."""
    price = profile.price(term)
    if term == "neuron_active":
        return counts["neuron_inactive"] > 0 and price != profile.price("neuron_inactive")
    return counts["axon_out"] > 0 and price != 0


def _add(parts: list[Counts]) -> Counts:
    total: Counts = {}
    for part in parts:
        for term, count in part.items():
            total[term] = total.get(term, 0) + count
    return total


def paper_energy(program: Program, counters: Counters, samples: int) -> Energy:
    """The papers' formula 4.6 pJ * MAC(first layer) + 0.9 pJ * AC; `PAPER_COUNTS` says what is counted."""
    profile = load_profile(FORMULA_PROFILE)
    layers = paper_counts(program, counters)
    counts = _add([{"mac_fp32": 0, "ac_fp32": 0}, *layers])
    result = profile.energy(counts)
    each = [profile.energy(layer) for layer in layers]
    totals, parts = tuple(e.total_pj for e in each), tuple(e.terms for e in each)
    return Energy(profile, result.total_pj, result.complete, result.missing, {}, counts, result.terms, totals, parts)


def paper_counts(program: Program, counters: Counters) -> list[Counts]:
    """MAC and AC of the papers' formula, for each population."""
    tables, whose = {n: t.sum(axis=1).tolist() for n, t in counters.tables.items()}, owners(program)
    found: list[Counts] = [{"mac_fp32": 0, "ac_fp32": 0} for _ in program.populations]
    for into, macs in zip(whose["current"], tables["host_macs"], strict=True):
        found[into]["mac_fp32"] += macs
    synaptic: list[Conv | Sparse] = [*program.convs, *program.sparses]
    for i, (item, into) in enumerate(zip(synaptic, whose["synaptic"], strict=True)):
        source = program.populations[item.src]
        if source.model == "input":
            repeats = 1 if program.input_time else program.timesteps
            found[into]["mac_fp32"] += tables["synops_mac_dense"][i] // repeats
            continue
        events = tables["events"][item.src]
        mean_code = tables["payload_sum"][item.src] / events if events else 0.0
        found[into]["ac_fp32"] += tables["synops_ac"][i] + round(tables["synops_mac"][i] * mean_code)
    for i, into in enumerate(whose["dynamic"]):
        found[into]["ac_fp32"] += tables["dyn_writes"][i] + tables["dyn_reads"][i]
    return found


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


def least_time(program: Program, counters: Counters, samples: int) -> Time:
    """Time that a run cannot beat at the rates of its chip, of Loihi 2 extrapolated: the largest of its bounds.

    The bound op counts do not tell kinds apart, so each is charged at its cheapest kind.
    """
    profile = load_profile(RATE_PROFILE[program.target.get("profile", "loihi2")])
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
        rates = [profile.price(term) for term in terms]
        known = [rate for rate in rates if rate is not None]
        if len(known) == len(rates):
            bounds[name] = counters.bound[name] * min(known)
    missing = tuple(name for name in ("ticks", *kinds) if name not in bounds)
    return Time(profile, max(bounds.values(), default=0.0), bounds, missing)
