"""Relays between linear layers: where they go, what they cost, and that the integers are those that run."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, flips, random_images

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import findings, verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.fold_batch_norm import FoldBatchNorm
from nmc_compiler.passes.fold_convs import FoldConvs
from nmc_compiler.passes.fold_scale import FoldScale
from nmc_compiler.passes.hoist_bias import HoistBias
from nmc_compiler.passes.pipeline import compile_graph, passes_for
from nmc_compiler.passes.relay_factors import RelayFactors
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

TARGET = load_target("loihi2")


def relays(graph: Graph) -> list[str]:
    return [n.name for n in graph if n.op == "relay"]


def separable(channels: int = 8, out: int = 4, kernel: int = 7, bias: float | None = None) -> Graph:
    """Spikes -> depthwise -> pointwise -> batch norm -> residual, as in SepConv."""
    net = Net(2, 1)
    x = net.conv(net.input(2, 6, 6), out, 3, pad=1)
    s = net.lif(net.conv(net.lif(x, "a", theta=0.4), channels), "b", theta=0.4)
    y = net.conv(s, channels, kernel, bias=bias, groups=channels, pad=kernel // 2)
    x = net.sum(x, net.norm(net.conv(y, out)))
    return net.readout(net.lif(net.mean(net.conv(net.lif(x, "c", theta=0.4), out)), "last", theta=0.2))


def with_ring() -> Graph:
    """A RepConv: 1x1, batch norm with its ring, depthwise 3x3, 1x1."""
    net = Net(2, 2)
    s = net.lif(net.conv(net.input(2, 6, 6), 4, 3, pad=1), "a", theta=0.4)
    return net.readout(net.lif(net.mean(net.repconv(s, 4)), "last", theta=0.2))


def real_head(positions: int = 4) -> Graph:
    """A head on the mean over tokens of a stream that a neuron reads too."""
    net = Net(2, 3)
    x = net.conv(net.input(2, positions, positions), 6, 3, bias=0.2, pad=1)
    x = net.sum(x, net.conv(net.lif(x, "a", theta=0.4), 6, bias=-0.1))
    mean = net.mean(x)
    both = net.sum(net.conv(mean, 3), net.conv(net.lif(mean, "last", theta=0.2), 3))
    net.add("readout", both, name="head")
    return net.build()


def float_steps(graph: Graph, choice: str, graded: bool = True, free: int = 0) -> tuple[Graph, ConversionReport]:
    report = ConversionReport()
    for step in (FoldBatchNorm(), FoldScale(), RelayFactors(choice, graded, free), FoldConvs(), HoistBias()):
        graph = step.apply(graph, report)
        verify(graph)
    return graph, report


@pytest.mark.parametrize(
    ("graph", "auto", "forced"),
    [(separable(8), 0, 1), (separable(40, 16), 1, 1), (with_ring(), 0, 2), (real_head(), 1, 1)],
    ids=["small", "large", "ring", "head"],
)
def test_relays_keep_the_meaning_of_the_float_graph(graph: Graph, auto: int, forced: int) -> None:
    """Folded or relayed, no spike moves and logits are those before to rounding."""
    images = random_images(graph, 0, 8)
    for choice, count in (("auto", auto), ("relay", forced)):
        after, report = float_steps(graph, choice)
        assert len(relays(after)) == len(report.of("relay-factors")) == count
        assert flips(graph, after, images) == 0
        np.testing.assert_allclose(interpret(after, images).logits, interpret(graph, images).logits, atol=1e-12)


def test_the_report_says_what_folding_would_have_cost() -> None:
    _, report = float_steps(separable(40, 16), "auto")
    (entry,) = report.of("relay-factors")
    weights = 40 * 49 + 40 * 16
    assert (entry["weights"], entry["weights_if_folded"]) == (weights, 40 * 16 * 49)
    assert entry["messages_per_timestep"] == 40 * 36
    assert 8 * weights < 40 * 16 * 49
    assert not relays(float_steps(separable(40, 16), "auto", free=40 * 16 * 49)[0])  # few enough to fold all the same


def test_a_target_without_payloads_gets_folds() -> None:
    folded, _ = float_steps(separable(40, 16), "auto", graded=False)
    assert not relays(folded)
    assert RelayFactors("fold", graded=False) in passes_for(load_target("loihi1"), CompileOptions(factors="fold"))
    with pytest.raises(UsageError) as error:
        float_steps(separable(), "relay", graded=False)
    assert str(error.value) == ("relays send graded spikes, which the target has not; compile with --factors fold")
    with pytest.raises(UsageError, match="^unknown factors 'both'; known: auto, fold, relay$"):
        float_steps(separable(), "both")


def test_padding_that_hides_a_bias_is_refused() -> None:
    """The depthwise sum has a bias of its own, and the pointwise one reads a ring of zeros."""
    net = Net(1, 4)
    s = net.lif(net.conv(net.input(2, 6, 6), 4, 3, pad=1), "a", theta=0.4)
    y = net.conv(net.conv(s, 4, bias=0.3), 4, 3, groups=4, pad=1)
    graph = net.readout(net.lif(net.mean(y), "last"))
    with pytest.raises(LoweringError, match="pads the biased output of '%conv2d3' with zeros: at the border"):
        float_steps(graph, "relay")


@pytest.mark.parametrize("graph", [separable(8), separable(40, 16), with_ring(), real_head()])
def test_what_runs_is_what_the_interpreter_says(graph: Graph) -> None:
    """Every population, codes of relays too, in the emulator; close to the float network."""
    report = ConversionReport()
    integers = compile_graph(graph, TARGET, CompileOptions(factors="relay"), report)
    verify(integers, event_driven=True)
    images = random_images(graph, 0, 8)
    want = interpret(integers, images, record="all")
    got = run(lower(integers, TARGET, CompileOptions()), images, record="all")
    np.testing.assert_array_equal(got.logits_int, want.raw_logits)
    names = relays(integers)
    assert names
    for name, codes in want.codes.items():
        np.testing.assert_array_equal(got.codes[name], codes.swapaxes(0, 1), err_msg=name)
    for entry in (e for e in report.of("quantize") if e.get("kind") == "relay"):
        codes = want.codes[entry["layer"]]
        assert np.abs(codes).max() <= entry["span"] <= 2048
        assert len(np.unique(codes)) > 8
    codes = interpret(graph, images, record="all").codes
    wrong = [float((codes[n] != want.codes[n]).mean()) for n in codes]
    assert max(wrong) < 0.1


def test_a_relayed_current_cannot_scale_itself() -> None:
    net = Net(1, 5)
    s = net.lif(net.conv(net.input(2, 4, 4), 4, 3, pad=1), "a", theta=0.4)
    y = net.conv(s, 4)
    relay = net.add("relay", y, name="r")
    graph = net.readout(net.lif(net.mean(net.sum(y, net.conv(relay, 4))), "last"))
    with pytest.raises(
        LoweringError, match="the scale of the codes would rest on itself; compile with --factors fold$"
    ):
        compile_graph(graph, TARGET, CompileOptions(), ConversionReport())


def test_inspect_says_that_a_relay_will_stand_there() -> None:
    graph = real_head()
    reasons = [f.reason for f in findings(graph) if f.op == "conv2d"]
    assert any(r.endswith("a relay hands them on as graded spikes") for r in reasons)
