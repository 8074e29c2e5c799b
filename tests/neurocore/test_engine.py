"""The engine ``neurocore``: what the image of a Program does is what its other engines do."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import CapacityError, VerifyError
from nmc_compiler.mapping import map_program
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nets import random_codes, random_program, small_target


def assert_same_run(program, seed, steps, other="events"):
    probe = {p.name: None for p in program.populations if p.model == "lif"}
    inputs = random_codes(program, seed, steps)
    want, got = (
        Emulator(program, record="all", engine=engine).run_events(inputs, steps, probe=probe)
        for engine in (other, "neurocore")
    )
    for name, events in want.events.items():
        assert np.array_equal(events.step, got.events[name].step), name
        assert np.array_equal(events.soma, got.events[name].soma), name
    for name, (u, v) in want.potentials.items():
        assert np.array_equal(u, got.potentials[name][0]) and np.array_equal(v, got.potentials[name][1]), name
    assert not got.counters.differences(want.counters)
    return want, got


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_random_networks_give_spikes_potentials_and_counters(seed, windows):
    try:
        program = random_program(seed)
    except CapacityError:
        assume(False)
    assert_same_run(program, seed, windows * (program.timesteps or 30))


def test_a_current_that_saturates_is_the_same_and_counted():
    net = Network("full", 6)
    source, target = net.input("in", 40), net.lif("p", 3, du=100, dv=50, vth=2**17 - 1, bias=[0, 500, -500])
    net.dense("w", source, target, np.repeat([[127], [-128], [90]], 40, axis=1), exponent=5)
    program = map_program(net.program(), small_target(), 1)[0]
    codes = {"in": np.ones((12, 40, 1, 1), np.int32)}
    want, got = (
        Emulator(program, engine=e, record="all").run_events(codes, 12, probe={"p": None})
        for e in ("ticks", "neurocore")
    )
    assert np.array_equal(want.potentials["p"], got.potentials["p"])
    assert got.counters.overflow["u"].tolist() == want.counters.overflow["u"].tolist() != [0, 0]
    assert got.counters.overflow["v"].tolist() == want.counters.overflow["v"].tolist()
    with pytest.raises(VerifyError, match="overflow in population 'p': .* values left the range of 'u'"):
        Emulator(program, engine="neurocore", strict=True).run_events(codes, 12)


def test_samples_start_from_rest():
    program = random_program(11, timesteps=5)
    inputs = random_codes(program, 1, 5)
    twice = {name: np.concatenate([codes, codes]) for name, codes in inputs.items()}
    run = Emulator(program, record="all", engine="neurocore").run_events(twice, 10)
    for events in run.events.values():
        first, second = events.step < 5, events.step >= 5
        assert np.array_equal(events.step[first], events.step[second] - 5)
        assert np.array_equal(events.soma[first], events.soma[second])
