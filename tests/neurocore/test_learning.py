"""Plastic projections in terms of Programs, against a plain reading of the rule."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.mapping import map_program
from nmc_compiler.neurocore.learned import learned_weights, with_weights
from nmc_compiler.program.model import Stdp, Traces
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nets import small_target

STEPS, N, M = 60, 24, 20


def network(rule, traces, weights, delay=0, exponent=2):
    net = Network("stdp", traces=traces)
    source, target = net.input("in", N), net.lif("out", M, du=4095, dv=400, vth=150)
    net.dense("w", source, target, weights, rule=rule, exponent=exponent, delay=delay)
    return net.program()


def simulated(weights, spikes, delays, rule, traces, exponent):
    """Dense matrices, step by step: v decays by 400 of 4096, threshold 150 synaptic units, reset to 0."""
    w, v = weights.astype(int).copy(), np.zeros(M, int)
    arrived = np.zeros((len(spikes) + 80, M, N), bool)  # an event of step t arrives in step t + 1 + delay
    for t, row in enumerate(spikes):
        for s in np.flatnonzero(row):
            arrived[t + 1 + delays[:, s], np.arange(M), s] = True
    pre, post, out = np.zeros((80, N), int), np.zeros(M, int), []  # a trace for every delay

    def change(x, a, s):
        return np.where(x > 0, a, 0) if rule.rect else (a * x) >> s

    def next_trace(x, k, spike, inc, add):
        x = np.where(x > 0, x - np.maximum(x >> k, 1), x)
        return np.where(spike, np.minimum(x + inc, 255) if add else inc, x)

    for t in range(len(spikes)):
        here = arrived[t]
        a = ((w << exponent) * here).sum(axis=1)
        dw = change(post, rule.am, rule.sm)[:, None]
        w = np.where(here & (dw > 0), np.maximum(w - dw, rule.wmin), w)
        v = np.sign(v) * ((np.abs(v) * (4096 - 400)) >> 12) + (a << 6)
        fired = v > 150 << 6
        v[fired] = 0
        post = next_trace(post, traces.k_post, fired, traces.inc_post, traces.add_post)
        for d in np.unique(delays):
            active = (here & (delays == d)).any(axis=0)
            pre[d] = next_trace(pre[d], traces.k_pre, active, traces.inc_pre, traces.add_pre)
        dw = change(pre[delays, np.arange(N)], rule.ap, rule.sp)
        w = np.where(fired[:, None] & (dw > 0), np.minimum(w + dw, rule.wmax), w)
        out.append(fired)
    return w, np.array(out)


RULES = (
    (Stdp(ap=8, am=6, sp=4, sm=4), Traces(3, 2, 100, 120)),
    (Stdp(ap=3, am=2, rect=True, wmin=-1, wmax=127), Traces(8, 8, 12, 20)),
    (Stdp(ap=255, am=255, sp=9, sm=9, wmin=-20, wmax=60), Traces(1, 5, 90, 90, add_pre=True, add_post=True)),
)


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize(("rule", "traces"), RULES)
def test_weights_change_as_the_rule_says(rule, traces, delayed):
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 60, (M, N))
    delays = rng.choice([0, 3, 20], (M, N)) if delayed else np.zeros((M, N), int)
    spikes = rng.random((STEPS, N)) < 0.15
    program, _ = map_program(network(rule, traces, weights, delays), small_target(), 1)
    emulator = Emulator(program, record="all")
    assert emulator.name == "neurocore"
    result = emulator.run_events({"in": spikes.reshape(STEPS, N, 1, 1).astype(np.int32)}, STEPS)
    want, fired = simulated(weights, spikes, delays, rule, traces, 2)
    found = result.events["out"]
    assert np.array_equal(np.argwhere(fired), np.stack([found.step, found.soma], axis=1))
    machine = emulator.engine.machine
    learned = learned_weights(program, emulator.engine.image, machine.read)["w"]
    source = np.repeat(np.arange(N), np.diff(program.sparses[0].indptr))
    assert fired.any() and (want != weights).any()
    assert np.array_equal(learned, want[program.sparses[0].target, source])


def test_learned_weights_go_back_into_the_program():
    rule, traces = RULES[0]
    program = network(rule, traces, np.ones((M, N), int))
    new = with_weights(program, {"w": np.full(M * N, 7, np.int8)})
    assert new.sparses[0].weight.tolist() == [7] * (M * N)
    for name, weight, text in (
        ("v", np.zeros(3, np.int8), "weights of 'v': Program 'stdp' has no plastic projection of that name"),
        ("w", np.zeros(3, np.int8), "weights of 'w' are int8 [3], expected int8 [480]"),
    ):
        with pytest.raises(UsageError) as error:
            with_weights(program, {name: weight})
        assert str(error.value) == text


@pytest.mark.parametrize("engine", ["layers", "events", "ticks"])
def test_other_engines_refuse_by_name(engine):
    program, _ = map_program(network(*RULES[0], np.ones((M, N), int)), small_target(), 1)
    with pytest.raises(UsageError) as error:
        Emulator(program, engine=engine)
    assert str(error.value) == (
        f"engine '{engine}' cannot run Program 'stdp': it has plastic projection 'w', which only a neurocore computes; "
        "map it for the target neurocore and run it with engine='neurocore'"
    )


def test_rules_of_the_program():
    net = Network("bad")
    source, target = net.input("in", 2), net.lif("out", 2, vth=1)
    net.dense("w", source, target, np.ones((2, 2), int), rule=Stdp(ap=1, am=1))
    with pytest.raises(VerifyError) as error:
        net.program()
    assert str(error.value) == "Program field traces: missing, but sparses/0 is plastic"
    net = Network("bad", traces=Traces())
    source, target = net.input("in", 2), net.lif("out", 2, vth=1)
    net.dense("w", source, target, np.ones((2, 2), int), rule=Stdp(ap=300, am=1))
    with pytest.raises(VerifyError) as error:
        net.program()
    assert str(error.value) == "Program field sparses/0/rule/ap: 300 is outside 0..255"
    with pytest.raises(UsageError) as error:
        net.dense("v", source, target, np.full((2, 2), 200), rule=Stdp(ap=1, am=1))
    assert str(error.value) == "network 'bad', projection 'v': plastic weights 200..200: expected values in -128..127"
