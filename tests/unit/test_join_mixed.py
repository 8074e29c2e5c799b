"""Elements in other places, concatenations, regions: what becomes a convolution, a part, a relay; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import LoweringError, VerifyError
from nmc_compiler.graph import Attr, Graph, Node, Use
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.join_linear import JoinLinear
from nmc_compiler.passes.linear_maps import Kernel, Table, as_table, selection, then
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.plain_neurons import PlainNeurons
from nmc_compiler.passes.regions import is_general, is_stream, streams
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.split_neurons import SplitNeurons
from nmc_compiler.target import load_target

LOIHI = load_target("loihi2")


def start(shape=(4, 4, 4), timesteps: int = 2) -> tuple[Net, str]:
    net = Net(timesteps, seed=1, dyadic=True, input_time=True)
    return net, net.add("input", id="x", name="x", shape=shape, bits=0)


def take(net: Net, at: np.ndarray, *inputs: str) -> str:
    index = Attr(net.tensor(f"i{len(net.tensors)}", np.asarray(at, np.int64).reshape(-1)))
    return net.add("take", *inputs, index=index, shape=at.shape)


def places(*shape: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + np.prod(shape)).reshape(shape)


def joined(graph: Graph) -> tuple[Graph, ConversionReport]:
    """After the passes that join; every spike is as it was."""
    report, after = ConversionReport(), graph
    for step in (PlainNeurons(), SplitNeurons(), JoinLinear()):
        after = step.apply(after, report)
        verify(after)
    shape = (2, graph.timesteps, *graph.sources[0].type.shape)
    events = np.random.default_rng(0).integers(0, 2, shape)
    first, second = (interpret(g, events, record="all") for g in (graph, after))
    for name in first.codes.keys() & second.codes.keys():
        assert np.array_equal(first.codes[name], second.codes[name]), name
    np.testing.assert_allclose(second.logits, first.logits, rtol=0, atol=1e-9)
    return after, report


def reading(graph: Graph, name: str) -> list[Node]:
    """The projections of a neuron."""
    by_id = graph.by_id()
    source = by_id[next(n for n in graph if n.name == name).operands[0]]
    return [by_id[i] for i in source.operands] if source.op == "add" else [source]


def test_a_slice_of_channels_is_a_part_of_the_weights() -> None:
    net, x = start()
    a = net.lif(net.conv(x, 4, 3, pad=1), "a")
    weight = net.drawn(0, 1, 3, 2, 3, 3)
    graph = net.readout(net.lif(net.conv(take(net, places(4, 4, 4)[1:3], a), 3, 3, weight=weight, pad=1), "b"))
    after, _ = joined(graph)
    (conv,) = reading(after, "b")
    found = after.tensors[conv.attr("weight").key]
    assert (conv.op, conv.operands[0], conv.attr("pad")) == ("conv2d", net.nodes[a].id, (1, 1))
    assert np.array_equal(found[:, 1:3], weight) and not found[:, [0, 3]].any()


def test_a_concatenation_of_spikes_is_a_convolution_of_each() -> None:
    net, x = start()
    a, b = (net.lif(net.conv(x, 2, 3, pad=1), n) for n in "ab")
    both = take(net, places(4, 4, 4), a, b)
    after, _ = joined(net.readout(net.lif(net.conv(both, 3, 3, pad=1), "c")))
    assert sorted((n.op, n.operands[0]) for n in reading(after, "c")) == [
        ("conv2d", net.nodes[a].id), ("conv2d", net.nodes[b].id),
    ]  # fmt: skip


def test_a_neuron_on_concatenated_currents_is_a_part_for_each() -> None:
    """As in a spatial pyramid: a current and its pools side by side, each read as it is."""
    net, x = start()
    a = net.conv(x, 2, 3, pad=1, bias=[0.5, -0.25])
    b = net.pool(a, 3, 1, 1)
    both = take(net, places(4, 4, 4), a, b)
    graph = net.readout(net.lif(net.conv(net.lif(both, "s"), 3, 3, pad=1), "t"))
    after, report = joined(graph)
    parts = {n.name: n.attr("part_of") for n in after if n.op == "lif" and n.attr("part_of")}
    assert parts == {"s.0": "s", "s.1": "s"}
    assert [e["parts"] for e in report.of("split-neurons")] == [[2, 2]]
    integers = compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())
    elements = [integers.tensor(n, "elements").tolist() for n in integers if n.attr("part_of") == "s"]
    assert sorted(sum(elements, [])) == list(range(64))


def test_positions_in_other_places_are_relayed_where_synapses_would_cost_far_more() -> None:
    net, x = start((8, 8, 8))
    a = net.lif(net.conv(x, 32, 3, pad=1), "a")
    cropped = take(net, places(32, 8, 8)[:, 1:, :7], a)
    graph = net.readout(net.lif(net.conv(cropped, 32, 3, pad=1), "b"))
    after, report = joined(graph)
    (relay,) = (e for e in report.of("join-linear") if e.get("kind") == "relay")
    assert relay["neurons"] == 32 * 49
    (conv,) = reading(after, "b")
    assert conv.op == "conv2d" and [n.op for n in reading(after, f"{cropped}.relay")] == ["sparse"]


def test_what_reads_no_sum_hears_a_relay() -> None:
    """q of an attention product from two populations, with rows of zeros between."""
    net, x = start((4, 2, 2))
    a, b = (net.lif(net.conv(x, 4, bias=0.5), n) for n in "ab")
    at = np.concatenate([places(4, 2, 2), np.full((4, 1, 2), -1), places(4, 2, 2, first=16)], axis=1)
    q = take(net, at, a, b)
    out = net.lif(net.attn(q, q, q, heads=2), "o", theta=0.25)
    after, _ = joined(net.readout(out))
    assert next(n for n in after if n.op == "attn").operands == (q, q, q)
    assert {n.operands[0] for n in reading(after, f"{q}.relay")} == {net.nodes[a].id, net.nodes[b].id}


def test_regions_that_need_no_joining_are_left_alone() -> None:
    net, x = start()
    a = net.lif(net.conv(x, 4, 3, pad=1), "a")
    late = net.lif(net.conv(net.add("sumpool2d", a, kernel=(2, 2), stride=(2, 2)), 3), "late")
    plain = net.lif(net.norm(net.conv(a, 3, 3, pad=1)), "plain")
    graph = net.readout(net.sum(net.mean(net.conv(late, 3)), net.mean(net.conv(plain, 3))))
    kept = {net.nodes[i].name for i in streams(graph)}
    assert {"a", "plain"} <= kept and "late" not in kept
    assert not is_stream(graph) and not is_general(graph)
    after, _ = joined(graph)
    assert any(n.op == "batch_norm" for n in after) and not any(n.op == "sumpool2d" for n in after)


def test_events_of_an_earlier_step_are_handed_on_to_gates() -> None:
    net, x = start()
    a = net.lif(net.conv(x, 4, bias=0.5), "a")
    gate = net.add("mul", a, Use(a, 1), name="gate")
    after, _ = joined(net.readout(gate))
    assert {n.name for n in after if n.op == "neuron"} == {"a.late1"}
    (late,) = reading(after, "a.late1")
    assert late.inputs == (Use(net.nodes[a].id, 1),)


def test_a_pool_between_two_linear_ops_is_refused() -> None:
    net, x = start()
    pooled = net.pool(net.conv(x, 4), 2, 2, 0)
    averaged = net.add("sumpool2d", pooled, kernel=(2, 2), stride=(2, 2))
    graph = net.readout(net.lif(averaged, "b"))
    with pytest.raises(
        LoweringError, match="^what reads maxpool2d '%maxpool2d[0-9]+' is more than a sum, and there are"
    ):
        compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())


def test_codes_of_different_worth_do_not_go_together() -> None:
    net, x = start()
    a, b = net.levels(net.conv(x, 2), "a", norm=4), net.levels(net.conv(x, 2), "b", norm=1)
    both = take(net, places(4, 4, 4), a, b)
    graph = net.readout(net.lif(net.attn(both, both, both), "o"))
    with pytest.raises(LoweringError, match="^take '%take[0-9]+' has codes worth 1/1 and 1/4; only codes of one worth"):
        compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())


TAKES = [
    ({"index": np.array([0, 1]), "shape": (3, 1, 1)}, "index must be 3 whole numbers, got int64 [2]"),
    ({"index": np.array([0, 64, 1]), "shape": (3, 1, 1)}, "index must lie in -1..63, the elements of its operands"),
    ({"index": np.array([0, -2, 1]), "shape": (3, 1, 1)}, "got -2..1"),
    ({"index": np.array([0.0, 2, 1]), "shape": (3, 1, 1)}, "index must be 3 whole numbers, got float64 [3]"),
]


@pytest.mark.parametrize(("given", "message"), TAKES, ids=range(len(TAKES)))
def test_takes_that_mean_nothing(given: dict, message: str) -> None:
    net, x = start()
    with pytest.raises(VerifyError) as error:
        net.add("take", x, index=Attr(net.tensor("at", given["index"])), shape=given["shape"])
    assert message in str(error.value)


def test_events_and_currents_are_not_taken_together() -> None:
    net, x = start()
    with pytest.raises(VerifyError, match="cannot take from events and currents; put a projection between$"):
        take(net, places(8, 4, 4), x, net.conv(x, 4))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_selections_and_convolutions_join_as_their_synapses_do(seed: int, before: bool) -> None:
    """A selection before or behind a convolution: the convolution, or table, that both are together."""
    rng = np.random.default_rng(seed)
    c, h, w, out = (int(n) for n in rng.integers(1, 5, 4))
    size, kernel = c * h * w, (int(rng.integers(1, min(h, 2) + 1)), int(rng.integers(1, min(w, 2) + 1)))
    grid = (h - kernel[0] + 1, w - kernel[1] + 1)
    if rng.random() < 0.5:  # whole channels, some silent
        planes = rng.integers(-1, c, (c, 1))
        index = np.where(planes < 0, -1, planes * h * w + np.arange(h * w)).reshape(-1)
    else:
        index = rng.integers(-1, size, size)
    conv = Kernel((c, h, w), (c, h, w), (out, *grid), rng.integers(-3, 4, (out, c, *kernel)).astype(float))
    if before:
        first, second = selection((c, h, w), (c, h, w), index), conv
    else:
        many = out * grid[0] * grid[1]
        first, second = conv, selection((out, *grid), (out, *grid), rng.integers(-1, many, many))
    found, wanted = as_table(then(first, second)), then(as_table(first), as_table(second))
    assert isinstance(wanted, Table)
    x = rng.integers(-4, 5, size).astype(float)
    many = int(np.prod(wanted.target))
    sums = [np.bincount(t.dst, t.weight * x[t.src], many) for t in (found, wanted)]
    assert np.array_equal(*sums)
