"""``queue`` against ``cycle``: tick times within 10 % in the mean and 30 % at worst, at 10 to 80 % of saturation."""

from __future__ import annotations

import numpy as np
import pytest
from noc_traffic import digits_on_small_cores, on_mesh, prices, random_network, random_trace

from nmc_emulator.noc import NocSpec, simulate
from nmc_emulator.trace import Events, Trace

CORES, SOMAS, FAN_OUT = 16, 1024, 32
FAST = {
    "neuron_active": 1.0, "neuron_inactive": 1.0, "spike_out": 0.5, "axon_out": 0.5, "axon_in": 0.5,
    "synop_sparse": 0.1, "synop_conv": 0.1, "synop_dense": 0.1,
}  # fmt: skip
MACHINES = {
    "times of Loihi 2": (prices(), NocSpec()),
    "slow links": (prices(**FAST), NocSpec(flit_ns=1.0)),
    "packets of 4 flits": (prices(**FAST), NocSpec(flit_ns=0.5, flits=4)),
    "small buffers": (prices(**FAST | {"axon_in": 2.0}), NocSpec(flit_ns=1.0, buffer_flits=4)),
}
# Share of somas that fire: the last one saturates every one of the machines.
RATES = [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 1.0]


def throughput(times) -> np.ndarray:
    """Packets per ns, tick by tick."""
    return times.packets / times.busy


@pytest.mark.parametrize("spread", [1.0, 0.5], ids=["uniform", "hot spot"])
@pytest.mark.parametrize("machine", MACHINES)
def test_random_traffic(machine, spread):
    profile, spec = MACHINES[machine]
    program = on_mesh(random_network(SOMAS, FAN_OUT, 1, spread), (4, 4), 1, CORES)
    trace = random_trace(SOMAS, RATES, 2)
    queue, cycle = (simulate(program, trace, fidelity=f, profile=profile, spec=spec) for f in ("queue", "cycle"))
    load = throughput(cycle) / throughput(cycle).max()
    judged = (load >= 0.1) & (load <= 0.8)
    error = np.abs(queue.busy / cycle.busy - 1)
    assert judged.sum() >= 3, load
    assert error[judged].mean() < 0.10 and error[judged].max() < 0.30, error
    assert error.mean() < 0.10 and error.max() < 0.30, error  # and beyond
    assert np.allclose(queue.link, cycle.link) and np.allclose(queue.core_synapse, cycle.core_synapse)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    program, trace = digits_on_small_cores(512, 1, tmp_path_factory.mktemp("digits"))
    return program, first_steps(trace, program, 1)


def first_steps(trace: Trace, program, steps: int) -> Trace:
    """The first timesteps of the only sample; later ones are silent."""
    events = {}
    for i, e in trace.events.items():
        n = int(np.searchsorted(e.step, steps))
        events[i] = Events(e.step[:n], e.soma[:n], None if e.code is None else e.code[:n])
    return Trace(events, trace.samples, trace.steps)


@pytest.mark.parametrize("machine", ["slow links", "packets of 4 flits"])
def test_a_transformer(transformer, machine):
    """The bundled digits transformer on 59 of 64 cores: its own traffic, tick by tick through its layers.

    Saturation of a tick: the time of the same packets if all were ready when the tick opens.
    """
    program, trace = transformer
    profile, spec = MACHINES[machine]
    queue, cycle = (simulate(program, trace, fidelity=f, profile=profile, spec=spec) for f in ("queue", "cycle"))
    at_once = prices(**FAST | dict.fromkeys(("neuron_active", "neuron_inactive", "spike_out", "axon_out"), 0.0))
    least = simulate(program, trace, fidelity="cycle", profile=at_once, spec=spec).busy
    busy = cycle.packets > 0
    load, error = (least / cycle.busy)[busy], np.abs(queue.busy / cycle.busy - 1)[busy]
    judged = (load >= 0.1) & (load <= 0.8)
    assert judged.sum() >= 5 and cycle.packets.max() > 500, load
    assert error[judged].mean() < 0.10 and error[judged].max() < 0.30, error
    assert error.mean() < 0.10 and error.max() < 0.30, error
