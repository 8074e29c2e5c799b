"""Dead nodes, biases moved to the neurons, sums of events brought behind their readers."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, flips, named, random_images

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.passes.distribute import DistributeSums
from nmc_compiler.passes.drop_dead import DropDead
from nmc_compiler.passes.fold_scale import FoldScale
from nmc_compiler.passes.hoist_bias import HoistBias
from nmc_compiler.passes.report import ConversionReport


def run(graph: Graph, *passes) -> Graph:
    for step in passes:
        graph = step.apply(graph, ConversionReport())
        verify(graph)
    return graph


def spikes(seed: int = 0, channels: int = 3) -> tuple[Net, str]:
    net = Net(2, seed)
    return net, net.lif(net.conv(net.input(2, 4, 5), channels, 3, pad=1), "first", theta=0.4)


def bias_of(graph: Graph, name: str) -> np.ndarray | None:
    return graph.tensor(named(graph, name), "bias")


# --- dead nodes ---------------------------------------------------------------------------------------------


def test_nodes_without_a_path_to_the_read_out_go_and_are_reported() -> None:
    net, s = spikes()
    net.conv(net.lif(net.conv(s, 2), "dead"), 4)
    before = net.readout(net.lif(net.conv(s, 3), "last"))
    report = ConversionReport()
    after = DropDead().apply(before, report)
    verify(after)
    assert {n.id for n in before} - {n.id for n in after} == {"conv2d3", "lif4", "conv2d5"}
    assert [(e["layer"], e["op"]) for e in report.of("drop-dead")] == [
        ("%conv2d3", "conv2d"), ("dead", "lif"), ("%conv2d5", "conv2d")
    ]  # fmt: skip
    assert "t1" not in after.tensors and flips(before, after, random_images(before, 0)) == 0


def test_a_graph_without_dead_nodes_stays_as_it_is() -> None:
    net, s = spikes()
    graph = net.readout(s)
    assert run(graph, DropDead()) == graph


# --- biases -------------------------------------------------------------------------------------------------


def test_every_way_of_a_bias_to_a_neuron() -> None:
    """b(add) = sum, b(maxpool, padded or not) = b, b(sum over positions) = H*W*b; once per timestep."""
    net, s = spikes()
    x = net.conv(s, 3, 3, pad=1, bias=[1.0, -2.0, 0.5])
    y = net.sum(x, net.conv(s, 3, bias=[0.25, 0.25, 0.25]), net.conv(s, 3))
    pooled = net.pool(y, 3, 2, 1)
    total = net.add("sum_positions", y)
    readers = {"direct": x, "sum": y, "pooled": pooled, "total": total}
    heads = [net.conv(net.lif(source, name, theta=1.5), 2, bias=0.5) for name, source in readers.items()]
    sums = [net.add("sum_positions", h) for h in heads[:3]]
    before = net.readout(net.sum(*sums, heads[3]))
    after = run(before, FoldScale(), HoistBias())
    assert all("bias" not in n.attrs for n in after if n.op == "conv2d")
    b = np.array([1.25, -1.75, 0.75])
    np.testing.assert_array_equal(bias_of(after, "direct"), [1.0, -2.0, 0.5])
    np.testing.assert_array_equal(bias_of(after, "sum"), b)
    np.testing.assert_array_equal(bias_of(after, "pooled"), b)
    np.testing.assert_array_equal(bias_of(after, "total"), 20 * b)
    np.testing.assert_array_equal(bias_of(after, "head"), [0.5 * (20 + 20 + 6 + 1)] * 2)
    assert bias_of(after, "first") is None
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_a_neurons_own_bias_is_added() -> None:
    net, s = spikes()
    before = net.readout(net.lif(net.conv(s, 2, bias=[1.0, 2.0]), "last", bias=net.array([0.5, -0.5]), gain=2.0))
    after = run(before, FoldScale(), HoistBias())
    np.testing.assert_array_equal(bias_of(after, "last"), [1.5, 1.5])
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_biases_that_cancel_leave_none() -> None:
    net, s = spikes()
    before = net.readout(net.lif(net.conv(s, 2, bias=[1.0, -0.25]), "last", bias=net.array([-1.0, 0.25])))
    after = run(before, FoldScale(), HoistBias())
    assert bias_of(after, "last") is None
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_the_bias_of_multilevel_codes_is_added_once_not_per_slot() -> None:
    """Fact E4: four unary slots would add it four times."""
    net, s = spikes()
    codes = net.levels(net.conv(s, 3), "codes", gain=4.0)
    y = net.conv(codes, 2, bias=[1.0, -1.0])
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldScale(), HoistBias())
    images = random_images(before, 1, 8)
    assert interpret(before, images, record=["codes"]).codes["codes"].max() == 4
    np.testing.assert_array_equal(bias_of(after, "last"), [1.0, -1.0])
    assert flips(before, after, images) == 0


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("scale", "no bias passes through scale '%scale4'; run the folding passes before hoist-bias"),
        ("batch_norm", "no bias passes through batch_norm '%batch_norm4'; run the folding passes before hoist-bias"),
        ("conv2d", "'%conv2d4' convolves the current of '%conv2d3'; run fold-convs before"),
    ],
)
def test_what_should_have_been_folded_is_refused(op: str, text: str) -> None:
    net, s = spikes()
    y = net.conv(s, 3, bias=1.0)
    made = {"scale": lambda: net.add("scale", y, factor=2), "batch_norm": lambda: net.norm(y)}
    y = made.get(op, lambda: net.conv(y, 3))()
    graph = net.readout(net.lif(y, "last"))
    with pytest.raises(LoweringError) as error:
        run(graph, HoistBias())
    assert str(error.value) == text


# --- sums of events -----------------------------------------------------------------------------------------


def test_the_terms_of_a_sum_become_parallel_projections() -> None:
    net, s = spikes()
    a, b = net.lif(net.conv(s, 3), "a", theta=0.3), net.levels(net.conv(s, 3), "b")
    x = net.sum(net.sum(s, a), b, a)
    y = net.conv(x, 4, 3, pad=1, stride=2)
    before = net.readout(net.lif(y, "last"))
    report = ConversionReport()
    after = DistributeSums().apply(before, report)
    verify(after)
    parts = [after.node(i) for i in after.node(y).operands]
    assert after.node(y).op == "add"
    assert [p.operands for p in parts] == [(s,), (a,), (b,), (a,)]
    assert {p.attr("weight").key for p in parts} == {before.node(y).attr("weight").key}
    assert [e["terms"] for e in report.of("distribute-sums")] == [["first", "a", "b", "a"]]
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_sums_over_positions_move_behind_the_weights() -> None:
    net, s = spikes()
    x = net.add("sum_positions", net.sum(s, net.lif(net.conv(s, 3), "a", theta=0.3)))
    before = net.readout(net.lif(net.conv(x, 4), "last", theta=5))
    after = run(before, DistributeSums())
    assert not any(n.op in ("add", "sum_positions") and n.type.is_event for n in after)
    assert sum(n.op == "sum_positions" for n in after) == 2
    assert flips(before, after, random_images(before, 1, 20)) == 0


@pytest.mark.parametrize(
    ("conv", "text"),
    [
        ({"kernel": 3, "pad": 1}, "kernel (3, 3), stride (1, 1) and pad (1, 1)"),
        ({"stride": 2}, "kernel (1, 1), stride (2, 2) and pad (0, 0)"),
        ({"pad": 1}, "kernel (1, 1), stride (1, 1) and pad (1, 1)"),
    ],
)
def test_only_a_plain_1x1_moves_in_front_of_a_sum_over_positions(conv: dict, text: str) -> None:
    net, s = spikes()
    graph = net.readout(net.lif(net.conv(net.add("sum_positions", s), 4, **conv), "last"))
    with pytest.raises(LoweringError) as error:
        run(graph, DistributeSums())
    assert str(error.value) == (
        f"convolution '%conv2d4' reads a sum over positions with {text}; "
        f"only a plain 1x1 convolution can be moved in front of the sum"
    )


def test_a_bias_in_front_of_several_terms_is_refused() -> None:
    net, s = spikes()
    graph = net.readout(net.lif(net.conv(net.sum(s, s), 4, bias=1.0), "last"))
    with pytest.raises(LoweringError) as error:
        run(graph, DistributeSums())
    assert str(error.value) == "convolution '%conv2d4' still has a bias; run hoist-bias before distribute-sums"


@pytest.mark.parametrize("reader", ["attn", "maxpool2d", "map"])
def test_what_is_not_linear_in_a_sum_of_spikes_refuses_it(reader: str) -> None:
    net, s = spikes()
    x = net.sum(s, s)
    if reader == "attn":
        y = net.attn(x, s, s)
    elif reader == "map":
        y = net.add("map", x, mode="same")
    else:
        y = net.conv(net.pool(x), 3)
    graph = net.readout(net.lif(y, "last"))
    with pytest.raises(LoweringError) as error:
        run(graph, DistributeSums())
    node = next(n for n in graph if n.op == reader)
    assert str(error.value) == (f"{reader} '%{node.id}' reads a sum of spikes ('%{x}'); only linear layers can")
