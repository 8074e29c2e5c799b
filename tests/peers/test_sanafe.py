"""The same network, mapping and prices in SANA-FE and here: counts equal, energy to 1e-9, time compared.

What SANA-FE said is recorded in sanafe.json. Where NMC_SANAFE_PYTHON names a Python that has it, it is asked
again, in its own process.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sanafe_net
from sanafe_net import CASES, STEPS, Case

from nmc_emulator import Emulator
from nmc_emulator.cost import CROSSING, layer_terms
from nmc_emulator.energies import by_kind
from nmc_emulator.event_run import windowed
from nmc_emulator.noc import NocSpec, simulate
from nmc_emulator.noc.schedule import Schedule
from nmc_emulator.price_profile import load_profile
from nmc_emulator.rates import rates_of
from nmc_emulator.trace import Trace

RATES = "loihi1-sanafe-rates"
RECORD = json.loads(sanafe_net.RECORD.read_text())
PYTHON = os.environ.get("NMC_SANAFE_PYTHON", "")
BY_NAME = {case.name: case for case in CASES}


# Time of the barrier by tiles in use: the table of its architecture file, which it reads without interpolation.
BARRIER = {1: 600.0, 2: 1000.0, 4: 1400.0, 29: 1800.0}


@functools.cache
def ours(neurons: int, cores: int):
    """(Program, its trace, counters) of a case, from the event engine."""
    program = sanafe_net.mapped(Case(neurons, cores))
    result = Emulator(program, engine="events", record="all").run_events({}, STEPS)
    return program, Trace({0: result.events["pop"]}, 1, STEPS), result.counters


def synops(program, trace) -> int:
    """SynOps of all packets. The counters leave out those of the last step: they would come after the window."""
    schedule = Schedule(program, trace, rates_of(program, load_profile(RATES)), NocSpec())
    return sum(int(block.ops.sum()) for block in schedule.stream.blocks())


def energy(program, counters, synaptic: int) -> dict[str, float]:
    """J by part of SANA-FE's report, at the prices of its fit, split as our reports are.

    Four counts differ by definition: a message to a neuron of the same core is a packet there, every neuron that is
    updated is active, its bias has no price of its own, and the SynOps of the last step are ours no more. Powered
    time has no price in the fit.
    """
    profile, local = load_profile("loihi1-sanafe-fit"), counters.total("packets_local")
    terms = layer_terms(windowed(program, STEPS), counters, 1)[0]
    theirs = {
        "synop_sparse": synaptic,
        "neuron_active": terms["neuron_active"] + terms["neuron_inactive"],
        "neuron_inactive": 0,
        "axon_out": terms["axon_out"] + local,
        "axon_in": terms["axon_in"] + local,
        "bias_event": 0,
    }
    assert set(theirs) <= set(terms) and terms[CROSSING] == 0
    result = profile.energy({term: n for term, n in (terms | theirs).items() if term != CROSSING})
    assert result.complete
    kinds = by_kind(result.terms)
    assert not kinds.pop("chip") and not kinds.pop("host")
    return {part: pj * 1e-12 for part, pj in (kinds | {"total": result.total_pj}).items()}


def check(case: Case, said: dict) -> None:
    assert said["network"] == sanafe_net.digest(sanafe_net.network(case)), "the random numbers changed: record again"
    program, trace, counters = ours(case.neurons, case.cores)
    events, synaptic = trace.events[0], synops(program, trace)
    raster = [sorted(events.soma[events.step == t].tolist()) for t in range(STEPS)]
    assert sum(map(len, raster)) > 0.01 * case.neurons * STEPS
    assert raster == said["spikes"]
    assert synaptic == sum(said["synapses"])
    assert counters.total("synops_ac") == synaptic - sanafe_net.FAN_OUT * len(raster[-1])
    assert counters.total("neuron_updates") == sum(said["updates"])
    assert counters.total("packets") + counters.total("packets_local") == said["packets"]
    assert counters.total("hops_ew") + counters.total("hops_ns") == sum(said["hops"])
    parts = energy(program, counters, synaptic)
    assert parts.keys() == said["energy"].keys()  # synapse, dendrite, soma, network, total
    for part, joules in parts.items():
        assert said["energy"][part] == pytest.approx(joules, rel=1e-9), part


@pytest.mark.parametrize("name", RECORD)
def test_counts_and_energy_equal_the_record(name):
    check(BY_NAME[name], RECORD[name])


@pytest.mark.parametrize("name", [c.name for c in CASES if c.timing == "simple"])
def test_counts_and_energy_equal_a_live_run(name):
    if not PYTHON:
        pytest.skip("NMC_SANAFE_PYTHON names no Python that has sanafe (pip install sanafe, GPL-3)")
    said = sanafe_net.ask(PYTHON, BY_NAME[name])
    check(BY_NAME[name], said)
    for key in ("spikes", "packets", "hops", "seconds"):
        assert said[key] == RECORD[name][key], f"{key}: version {said['sanafe']}, recorded {RECORD[name]['sanafe']}"


# --- time -------------------------------------------------------------------------------------------------------


def barrier(case: Case) -> float:
    """ns of the barrier, by tiles of four cores."""
    tiles = -(-case.cores // 4)
    return BARRIER[max(t for t in BARRIER if t <= tiles)]


def their_ns(name: str) -> np.ndarray:
    """ns of every step, without the barrier."""
    return np.array(RECORD[name]["seconds"]) * 1e9 - barrier(BY_NAME[name])


def our_times(case: Case, fidelity: str):
    """(ns of every tick without the barrier, loads) at the rates of the same fit."""
    program, trace, _ = ours(case.neurons, case.cores)
    loads: list = []
    times = simulate(program, trace, fidelity=fidelity, profile=RATES, observe=loads.append)
    return times.busy, loads


@pytest.mark.parametrize("name", [c.name for c in CASES if c.timing == "simple"])
def test_the_busiest_core_of_every_tick_is_theirs(name):
    """SANA-FE's ``simple`` is the most that a core spends on its somas, or on what it receives, and the barrier."""
    _, loads = our_times(BY_NAME[name], "queue")
    most = np.concatenate([np.maximum(b.soma.max(axis=1), b.synapse.max(axis=1)) for b in loads])
    assert their_ns(name) == pytest.approx(most, rel=1e-9)


@pytest.mark.parametrize("fidelity", ["queue", "cycle"])
@pytest.mark.parametrize("name", [c.name for c in CASES if c.timing in ("detailed", "cycle")])
def test_their_models_of_the_mesh_are_near_ours(name, fidelity):
    """Near, not equal: see "SANA-FE" in docs/timing.md. Theirs are above ours in the mean."""
    busy, _ = our_times(BY_NAME[name], fidelity)
    error = np.abs(their_ns(name) / busy - 1)
    assert error.mean() < {"cycle": 0.10, "detailed": 0.15}[BY_NAME[name].timing] and error.max() < 0.30
