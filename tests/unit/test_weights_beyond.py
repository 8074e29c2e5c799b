"""A branch that was silent in training has weights without measure; they must not cost the others their precision."""

from __future__ import annotations

import numpy as np

from nmc_compiler.graph import GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

LIF = {"tau": 2.0, "theta": 1.0, "reset": "hard", "compare": "ge", "decay_input": True}


def network(largest: float):
    """Two branches into one neuron: one that spikes, one whose source never does, with weights of size ``largest``."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("two", 4, "float")
    x = b.add("input", id="x", shape=(3, 4, 4))

    def conv(source: str, name: str, size: float, bias: float | None = None) -> str:
        weight = b.tensor(name, rng.normal(0, size, (3, 3, 1, 1)))
        offset = None if bias is None else b.tensor(f"{name}.bias", np.full(3, bias))
        return b.add("conv2d", source, name=name, weight=weight, bias=offset)

    busy = b.add("lif", conv(x, "first", 2.0, 0.5), name="busy", **LIF)
    silent = b.add("lif", conv(busy, "shut", 0.1, -50.0), name="silent", **LIF)
    total = b.add("add", conv(busy, "good", 1.0, 0.3), conv(silent, "dead", largest))
    out = b.add("lif", b.add("sum_positions", total), name="out", **LIF)
    b.add("readout", conv(out, "head", 1.0), name="head")
    return b.build()


def test_a_silent_branch_costs_nothing_and_is_told() -> None:
    images = np.random.default_rng(1).random((6, 3, 4, 4))
    report = ConversionReport()
    graph = network(1e7)
    integers = compile_graph(graph, load_target("loihi2"), CompileOptions(), report)
    (entry,) = report.of("limit-weights")
    assert entry["layer"] == "dead" and entry["rating"] == "approximate"
    assert "thresholds become at most" in entry["reasons"][0]
    good = next(e for e in report.of("quantize") if e["layer"] == "good")
    assert good["rms_error_relative"] < 0.02
    found, wanted = (interpret(g, images, record="all").codes["out"] for g in (integers, graph))
    assert wanted.any() and np.array_equal(found, wanted)


def test_weights_of_a_trained_size_are_not_limited() -> None:
    report = ConversionReport()
    compile_graph(network(20.0), load_target("loihi2"), CompileOptions(), report)
    assert not report.of("limit-weights")
