"""The tick engine on general networks: equal to the brute-force twin in spikes, states and counters."""

from __future__ import annotations

from dataclasses import replace

import naive
import numpy as np
import pytest
from general_nets import on_one_core, random_codes, random_general
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import HostCodes, Program
from nmc_compiler.program.network import Network
from nmc_emulator.counters import OVERFLOW, TABLES
from nmc_emulator.emulate import Emulator
from nmc_emulator.engine_layers import LayerEngine
from nmc_emulator.engine_ticks import TickEngine
from nmc_emulator.layout import resolve
from nmc_emulator.states import PARTS
from nmc_emulator.timing import analyse


def engine_of(program: Program, strict: bool = False) -> TickEngine:
    return TickEngine(program, resolve(program), analyse(program), list(range(len(program.populations))), 1, strict)


def probes(program: Program) -> list[tuple[int, str]]:
    return [(i, part) for i, p in enumerate(program.populations) for part in PARTS.get(p.model, ())]


def same_as_naive(program: Program, inputs: dict[int, np.ndarray], steps: int) -> None:
    engine, want = engine_of(program), naive.run_events(program, inputs, steps)
    counters, codes = engine.run_events(inputs, steps, probes(program))
    for i in range(len(program.populations)):
        assert np.array_equal(codes[i], want.codes[i]), program.populations[i].name
    for (i, part), values in engine.probed.items():
        assert np.array_equal(values, want.states[part][i][0]), (program.populations[i].name, part)
    same_counters(counters, want)


def same_counters(counters, want: naive.Naive) -> None:
    for name in TABLES:
        table = np.zeros_like(counters.tables[name])
        for (unit, core), n in want.tables[name].items():
            table[unit, core] += n
        assert np.array_equal(counters.tables[name], table), name
    for name in OVERFLOW:
        found = {i: n for i, n in enumerate(counters.overflow[name].tolist()) if n}
        assert found == {i: n for i, n in want.overflow[name].items() if n}, name
    assert counters.bound == {n: want.bound[n] for n in counters.bound}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(["loihi1", "loihi2", "neurocore"]))
def test_random_networks_equal_the_naive_twin(seed, steps, profile):
    program = random_general(seed, profile=profile)
    same_as_naive(program, random_codes(program, seed, steps), steps)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_silence_and_all_inputs_at_once(seed, rate):
    program = random_general(seed, timesteps=9)
    same_as_naive(program, random_codes(program, seed, 9, rate), 9)


def test_a_window_of_nothing():
    program = random_general(4)
    engine = engine_of(program)
    counters, codes = engine.run_events(random_codes(program, 4, 0), 0)
    assert all(counters.total(n) == 0 for n in TABLES) and all(c.shape[1] == 0 for c in codes.values())


def one_soma(weight: int, exponent: int, steps: int = 0, **soma) -> Program:
    net = Network("one", steps)
    source, target = net.input("in", 1, payload_bits=24, signed=True), net.lif("p", 1, **soma)
    net.dense("w", source, target, [[weight]], exponent=exponent, graded=True)
    return on_one_core(net.program())


def test_the_largest_delay_and_what_comes_too_late():
    """Delay 63 adds 63 timesteps to the one of every projection; beyond the window it is dropped."""
    net = Network("late")
    source, target = net.input("in", 2), net.lif("p", 2, vth=0)
    net.dense("w", source, target, np.eye(2, dtype=int), delay=[[63, 0], [0, 62]])
    program, codes = on_one_core(net.program()), np.zeros((65, 2, 1, 1), np.int32)
    codes[0] = codes[2] = 1
    _, found = engine_of(program).run_events({0: codes}, 65)
    assert [np.flatnonzero(found[1][0, :, c]).tolist() for c in (0, 1)] == [[64], [63]]
    same_as_naive(program, {0: codes}, 65)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_current_wraps_and_the_potential_saturates(sign):
    """dv = du = 0: the potential climbs to its limit and stays; the current leaves its range and wraps."""
    program = one_soma(1, 0, vth=2**17 - 1, vth_low=-(2**17), du=0, dv=0)
    codes = np.full((40, 1, 1, 1), sign * 60_000, np.int32)
    engine = engine_of(program)
    counters, _ = engine.run_events({0: codes}, 40, [(1, "u"), (1, "v")])
    u, v = engine.probed[1, "u"].ravel(), engine.probed[1, "v"].ravel()
    assert counters.overflow["u"][1] >= 3 and counters.overflow["v"][1] >= 3
    assert (np.sign(u[1:]) != sign).any() and np.abs(v).max() == 2**23 - 1
    same_as_naive(program, {0: codes}, 40)


@pytest.mark.parametrize("code", [2**23 - 1, -(2**23)])
def test_a_current_that_one_wrap_does_not_bring_back(code):
    same_as_naive(one_soma(127, 4, vth=100, du=0, dv=0), {0: np.full((5, 1, 1, 1), code, np.int32)}, 5)


@pytest.mark.parametrize("profile", ["loihi1", "loihi2", "neurocore"])
@pytest.mark.parametrize("engine", ["ticks", "events"])
def test_a_current_wraps_as_its_profile_says(engine, profile):
    """a << 6 at both ends of the 24 bits, and two turns away from them."""
    base = one_soma(1, 0, vth=131071, du=4095)
    program = replace(base, target={**base.target, "profile": profile})
    codes = np.array([2**17, -(2**17), 2**17 - 1, 3 << 17, 5 << 17, 7, 0])[:, None, None, None].astype(np.int32)
    emulator = Emulator(program, engine=engine)
    run = emulator.run_events({"in": codes}, len(codes), probe={"p": None})
    at, once, twice = 2**23, 3 * 2**23 - 2**24, 5 * 2**23 - 2**24
    top = at - 1
    want = {
        "loihi1": [-at, -at, at - 64, -at, -at, 7 << 6],
        "loihi2": [at, at, at - 64, once, twice, 7 << 6],
        "neurocore": [top, -top, at - 64, top, top, 7 << 6],
    }
    assert run.potentials["p"][0][1:, 0].tolist() == want[profile]
    assert run.counters.overflow["u"].tolist() == [0, 4 if profile == "neurocore" else 3]
    same_as_naive(program, {0: codes}, len(codes))


@pytest.mark.parametrize("cumulative", [False, True])
def test_sigma_delta_wraps_at_32_bits(cumulative):
    net = Network("wrap")
    source = net.input("in", 1, payload_bits=24, signed=True)
    target = net.sigma_delta("p", 1, vth=2**30, cumulative=cumulative, relu=not cumulative)
    net.dense("w", source, target, [[127]], exponent=1, graded=True)
    program, codes = on_one_core(net.program()), np.full((6, 1, 1, 1), 2**23 - 1, np.int32)
    counters, _ = engine_of(program).run_events({0: codes}, 6)
    assert counters.overflow["v"][1] > 0 and counters.overflow["payload"][1] > 0
    same_as_naive(program, {0: codes}, 6)


def test_samples_follow_each_other_from_rest():
    """A window of T timesteps per image: rings, start states and delays of one sample do not reach the next."""
    base = random_general(12, timesteps=6)
    host = tuple(HostCodes(i, 1.0, 0, 1) for i, p in enumerate(base.populations) if p.model == "input")
    plain = tuple(
        replace(p, payload_bits=0, signed=False, shape=base.input_shape) if p.model == "input" else p
        for p in base.populations
    )
    program = replace(base, host_codes=host, populations=plain)
    images = np.random.default_rng(0).integers(0, 2, (3, 6, *program.input_shape))
    _, counters, codes = engine_of(program).run(images, lambda done: None)
    want = naive.run(program, images)
    assert all(np.array_equal(codes[i], want.codes[i]) for i in codes)
    same_counters(counters, want)
    inputs = {h.population: images.reshape(18, *program.input_shape) for h in host}
    again, joined = engine_of(program).run_events(inputs, 18)
    assert again == counters and all(np.array_equal(joined[i][0], codes[i].reshape(joined[i][0].shape)) for i in codes)
    for n in range(3):
        alone = engine_of(program).run_events({h.population: images[n] for h in host}, 6)[1]
        assert all(np.array_equal(codes[i][n], alone[i][0]) for i in codes)


# -- refusals ----------------------------------------------------------------------------------


def test_inputs_that_do_not_fit():
    program = one_soma(1, 0, vth=1)
    engine, codes = engine_of(program), np.zeros((3, 1, 1, 1), np.int32)
    for inputs, steps, text in (
        ({}, 3, "no events for input 'in'"),
        ({0: codes, 1: codes}, 3, "population 'p' is no input"),
        ({0: codes}, 4, "events of input 'in' have shape [3, 1, 1, 1], expected [4, 1, 1, 1]"),
        ({0: codes.astype(float)}, 3, "events of input 'in' are of type float64; give integers"),
        (
            {0: codes + 2**23},
            3,
            "events of input 'in': code 8388608 at [timestep, channel, y, x] = [0, 0, 0, 0] is outside"
            " -8388608..8388607, which the input can send",
        ),
    ):
        with pytest.raises(UsageError) as error:
            engine.run_events(inputs, steps)
        assert str(error.value) == text
    with pytest.raises(UsageError, match="^7 timesteps: windows of Program 'one' have 3 each$"):
        engine_of(one_soma(1, 0, steps=3, vth=1)).run_events({0: np.zeros((7, 1, 1, 1), int)}, 7)


def test_probes_that_nothing_has():
    engine, codes = engine_of(one_soma(1, 0, vth=1)), np.zeros((3, 1, 1, 1), np.int32)
    with pytest.raises(UsageError) as error:
        engine.run_events({0: codes}, 3, [(1, "sigma")])
    assert str(error.value) == "cannot probe 'sigma' of population 'p': its model 'lif' has u, v"
    with pytest.raises(UsageError, match="cannot probe 'v' of population 'in': its model 'input' keeps none"):
        engine.run_events({0: codes}, 3, [(0, "v")])


def test_strict_names_the_first_value_out_of_range():
    codes = np.zeros((4, 1, 1, 1), np.int32)
    codes[1] = 2**17
    with pytest.raises(VerifyError, match=r"population 'p', timestep 2, channel 0, position \(0, 0\): 8388733 is"):
        start = {"start_u": 64 * 2, "du": 0}
        engine_of(one_soma(1, 0, vth=1, **start), strict=True).run_events({0: codes}, 4)
    edge = one_soma(1, 0, vth=1)  # +2^23 is within under loihi2, -2^23 under loihi1
    for sign, profile in ((1, "loihi1"), (-1, "loihi2")):
        program = replace(edge, target={**edge.target, "profile": profile})
        with pytest.raises(VerifyError, match=f"timestep 1, .*: {sign * 2**23} is outside .*24-bit current"):
            engine_of(program, strict=True).run_events({0: np.full((2, 1, 1, 1), sign * 2**17)}, 2)
        other = replace(edge, target={**edge.target, "profile": {"loihi1": "loihi2", "loihi2": "loihi1"}[profile]})
        counters, _ = engine_of(other).run_events({0: np.full((2, 1, 1, 1), sign * 2**17)}, 2)
        assert counters.overflow["u"].tolist() == [0, 0]
    net = Network("wrap")
    source, target = net.input("in", 1, payload_bits=24, signed=True), net.sigma_delta("p", 1, vth=2**10, state_exp=8)
    net.dense("w", source, target, [[127]], exponent=1, graded=True)
    with pytest.raises(VerifyError, match="timestep 2, .* is outside .* .32-bit sigma of a sigma-delta soma, which"):
        engine_of(on_one_core(net.program()), True).run_events({0: np.full((4, 1, 1, 1), 2**23 - 1)}, 4)


def test_layers_say_which_engine_can():
    program = one_soma(1, 0, vth=1)
    with pytest.raises(UsageError) as error:
        LayerEngine(program, resolve(program), analyse(program), [], 1, False)
    assert str(error.value) == (
        "engine 'layers' cannot run Program 'one': it has no last timestep (a stream); run it with engine='events'"
    )


@pytest.mark.parametrize("steps", [0, 3])
def test_images_are_not_events(steps):
    with pytest.raises(UsageError) as error:
        Emulator(one_soma(1, 0, steps=steps, vth=1), engine="ticks").run(np.zeros((1, 3, 1, 1, 1)))
    assert str(error.value) == ("Program 'one' takes events of its input 'in', not images; run it with run_events")
