"""OR gates are found by the inequality that makes them so, never by the shape of the graph (models.md, E1)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import Net, named, random_images

from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.passes.gates import RecogniseGates, count_step, event_norm, input_gain
from nmc_compiler.passes.report import ConversionReport


def run(graph: Graph) -> Graph:
    after = RecogniseGates().apply(graph, ConversionReport())
    verify(after)
    return after


def masked(timesteps: int = 3, **lif) -> Graph:
    """q masked by a LIF on the token sums of k*v."""
    net = Net(timesteps)
    x = net.input(2, 4, 4)
    q, k, v = (net.lif(net.conv(x, 3, 3, pad=1), n, theta=0.4) for n in "qkv")
    return net.readout(net.mask(q, k, v, "mask", **lif))


def is_or(graph: Graph, name: str = "mask.lif") -> bool:
    return named(run(graph), name).attr("role") == "or"


def plif(w: float) -> float:
    """tau of a PLIF: 1/tau = sigmoid(w)."""
    return 1.0 + math.exp(-w)


OR = [
    {"tau": 2.0, "theta": 0.5},
    {"tau": plif(0.0), "theta": 0.5},
    {"tau": plif(0.3), "theta": 0.5},
    {"tau": 1.0, "theta": 1.0},
    {"tau": 4.0, "theta": 0.5, "gain": 2.0},
    {"tau": 5.0, "theta": 1.0, "decay_input": False},  # h = v + x: one count is one unit
    {"tau": 2.0, "theta": 0.499, "compare": "gt"},
]
NOT_OR = [
    {"tau": plif(-1e-6), "theta": 0.5},  # sigmoid(w) just below 1/2: two counts in a row are needed
    {"tau": 2.0, "theta": 0.51},
    {"tau": 2.0, "theta": 0.5, "compare": "gt"},
    {"tau": 5.0, "theta": 1.01, "decay_input": False},
    {"tau": 2.0, "theta": 0.5, "gain": 0.5},
    {"tau": 2.0, "theta": 0.5, "gain": -2.0},
    {"tau": 2.0, "theta": 0.5, "reset": "soft"},
    {"tau": 2.0, "theta": 0.5, "reset": "none"},
    {"tau": 2.0, "theta": 0.5, "v_reset": -0.1},
    {"tau": 2.0, "theta": 0.0},
    {"tau": 2.0, "theta": -1.0},
]


@pytest.mark.parametrize("lif", OR, ids=str)
def test_one_count_that_reaches_the_threshold_makes_a_gate(lif: dict) -> None:
    assert is_or(masked(**lif))


@pytest.mark.parametrize("lif", NOT_OR, ids=str)
def test_what_breaks_the_inequality_is_no_gate(lif: dict) -> None:
    assert not is_or(masked(**lif))


@pytest.mark.parametrize("lif", [*OR, *NOT_OR[:6]], ids=str)
def test_a_gate_is_the_stateless_count_above_0_and_nothing_else_is(lif: dict) -> None:
    """Brute force: the float neuron against count >= 1, on every count of a long random run."""
    graph = masked(timesteps=12, **lif)
    lif_node = named(graph, "mask.lif")
    counts = lif_node.operands[0]
    images = random_images(graph, 0, 16)
    got = interpret(graph, images, record=["mask.lif"], values=[counts])
    assert {0, 1} <= set(np.unique(got.values[counts]).tolist())
    same = bool((got.codes["mask.lif"] == (got.values[counts] >= 1)).all())
    assert same == is_or(graph)


def test_a_bias_is_no_count() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(1, 3, 3), 2), "s")
    y = net.lif(net.add("map", s, mode="reduce"), "last", theta=0.5, bias=net.array([0.1, 0.1]))
    assert not is_or(net.readout(y), "last")


def test_codes_of_a_multilevel_neuron_are_fractions() -> None:
    """One code of norm 4 is a quarter: it does not reach 1/2."""
    for norm, gate in ((4, False), (2, False), (1, True)):
        net = Net(2)
        s = net.levels(net.conv(net.input(1, 3, 3), 2), "s", norm=norm)
        graph = net.readout(net.lif(net.add("map", s, mode="reduce"), "last", theta=0.5))
        assert is_or(graph, "last") is gate


def test_a_weighted_current_is_no_count() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(1, 3, 3), 2), "s")
    graph = net.readout(net.lif(net.conv(s, 2, weight=[[[[1.0]], [[1.0]]]] * 2), "last", theta=0.5))
    assert not is_or(graph, "last")


def test_steps_of_sums_pools_and_attention() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(1, 3, 4), 2), "s")
    m = net.levels(net.conv(s, 2), "m", norm=4)
    one, quarter = net.add("map", s, mode="same"), net.add("map", m, mode="same")
    product = net.attn(m, s, m, scale=0.5)
    weighted = net.conv(s, 2)
    steps = {
        one: 1.0,
        quarter: 0.25,
        product: 0.5 / 16,
        net.sum(one, one): 1.0,
        net.sum(one, quarter): None,
        net.sum(one, weighted): None,
        net.add("sum_positions", product): 0.5 / 16,
        net.pool(quarter, 2, 1, 0): 0.25,
        weighted: None,
    }
    for node, step in steps.items():
        assert count_step(None, net.nodes[node], net.nodes) == step
    assert event_norm(net.nodes[net.pool(m)], net.nodes) == 4
    assert event_norm(net.nodes[s], net.nodes) == 1


def test_the_gain_of_an_input() -> None:
    net = Net(1)
    y = net.conv(net.input(1, 2, 2), 1)
    made = {
        net.lif(y, tau=4.0): 0.25,
        net.lif(y, tau=4.0, gain=2): 0.5,
        net.lif(y, tau=4.0, gain=2, decay_input=False): 2.0,
    }
    assert {n: input_gain(net.nodes[n]) for n in made} == made


def test_gates_are_reported() -> None:
    report = ConversionReport()
    RecogniseGates().apply(masked(), report)
    assert [(e["layer"], e["change"]) for e in report.of("recognise-gates")] == [
        ("mask.lif", "OR gate: one count alone reaches the threshold")
    ]
