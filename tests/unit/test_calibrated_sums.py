"""Calibration data bound the sums of a deep network, so that its weights become finer; overflow stays counted."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net

from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.limits import MEASURED
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

LOIHI = load_target("loihi2")
CHANNELS, SIDE, BLOCKS = 64, 16, 10


def deep() -> Graph:
    """A membrane residual through many blocks, a head on the mean of its tokens; weights whose sums never meet."""
    net = Net(3, seed=4)
    rng = np.random.default_rng(5)

    def weights(out: int, cin: int, size: float) -> np.ndarray:
        return rng.normal(0.0, size / np.sqrt(cin), (out, cin, 1, 1))

    first = net.lif(net.conv(net.input(2, SIDE, SIDE), CHANNELS, weight=weights(CHANNELS, 2, 2.0)), "first")
    stream = net.conv(first, CHANNELS, weight=weights(CHANNELS, CHANNELS, 1.0))
    for i in range(BLOCKS):
        inner = net.conv(net.lif(stream, f"in{i}"), CHANNELS, weight=weights(CHANNELS, CHANNELS, 1.0))
        hidden = net.lif(inner, f"mid{i}")
        small = weights(CHANNELS, CHANNELS, 2.0 if i else 0.05)  # beside which the others are large
        stream = net.sum(stream, net.conv(hidden, CHANNELS, weight=small))
    return net.readout(net.lif(net.mean(stream), "last", theta=0.5))


def images(count: int, seed: int, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.0, high, (count, 2, SIDE, SIDE))


def quantised(graph: Graph, calibration: np.ndarray | None) -> tuple[Graph, ConversionReport]:
    report = ConversionReport()
    return compile_graph(graph, LOIHI, CompileOptions(), report, calibration=calibration), report


def worst(report: ConversionReport) -> float:
    found = [e for e in report.of("quantize") if e.get("kind") == "weights"]
    return max(e["worst_error"] / e["largest"] for e in found)


def test_weights_become_finer_and_the_report_says_by_what() -> None:
    graph, data = deep(), images(4, 0)
    (plain, without), (measured, report) = quantised(graph, None), quantised(graph, data)
    assert worst(report) < worst(without) / 4
    entries = {e["layer"]: e for e in report.of("quantize")}
    stream = entries[f"in{BLOCKS - 1}"]
    run = interpret(measured, data, values=[n.operands[0] for n in measured if n.name == stream["layer"]])
    (currents,) = run.values.values()
    assert stream["room_above_measured"] == MEASURED and stream["measured_current"] * MEASURED <= stream["current_max"]
    assert np.abs(currents).max() == pytest.approx(stream["measured_current"], rel=0.1)
    assert not any("measured_current" in e for e in without.of("quantize"))
    assert not run.overflows and not interpret(plain, data).overflows


def test_without_data_nothing_changes() -> None:
    """The same integers as bounds alone give, and as data of no use give."""
    graph = deep()
    plain, _ = quantised(graph, None)
    again, _ = quantised(graph, None)
    assert all(np.array_equal(plain.tensors[k], again.tensors[k]) for k in plain.tensors)
    assert plain.tensors.keys() == again.tensors.keys()


def test_what_goes_beyond_the_data_is_counted() -> None:
    """Data of hardly any current let the scale grow until real inputs leave the registers, which is seen."""
    graph = deep()
    silent, report = quantised(graph, images(2, 0, high=1e-6))
    found = interpret(silent, images(4, 1, high=3.0))
    assert found.overflows and all(k.split(": ")[1] in ("current u", "membrane potential v") for k in found.overflows)


def test_a_sum_that_is_handed_on_always_fits_its_accumulators() -> None:
    """Of a sum over positions nothing tells that what it adds up overflowed."""
    after, report = quantised(deep(), images(2, 0, high=1e-6))
    scales = {e["layer"]: e for e in report.of("quantize")}
    top = (1 << LOIHI.packing.accumulator_bits.value - 1) - 1
    assert scales[f"in{BLOCKS - 1}"]["static_bound"] <= top
    assert scales["last"]["rshift"] <= 6
