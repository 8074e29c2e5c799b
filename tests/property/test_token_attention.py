"""Sums and masks over the channels of a head (token-QKA, models.md A5): exact from float to the mapped engines."""

from __future__ import annotations

import numpy as np
from graphs import Net, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.fitting import fit
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

LOIHI2 = load_target("loihi2")
SHAPES = st.tuples(*(st.integers(1, 4) for _ in range(4)))  # heads, channels of a head, rows, columns
NEURONS = st.tuples(st.sampled_from([1.0, 1.5, 2.0, 4.0]), st.sampled_from([0.25, 0.5, 1.0, 2.5]))


def masked(shape: tuple[int, int, int, int], neuron: tuple[float, float], seed: int):
    """k where a LIF over the sums of q within a head fires, in a small network."""
    (heads, depth, height, width), (tau, theta) = shape, neuron
    net = Net(3, seed)
    x = net.lif(net.conv(net.input(2, height, width), 3), "x", theta=0.4)
    q, k = (net.lif(net.conv(x, heads * depth), name, theta=0.3) for name in "qk")
    mask = net.lif(net.add("map", q, mode="reduce_channels", channels=heads), "mask", tau=tau, theta=theta)
    return net.readout(net.add("mul", k, mask, name="qk"))


def wanted_mask(q: np.ndarray, heads: int, tau: float, theta: float) -> np.ndarray:
    """LIF with decayed input and hard reset on sums over each head; q [T, B, C, H, W]."""
    counts = np.stack([part.sum(axis=2) for part in np.split(q.astype(float), heads, axis=2)], axis=2)
    v, out = np.zeros(counts.shape[1:]), []
    for x in counts:
        h = v + (x - v) / tau
        out.append(h >= theta)
        v = np.where(out[-1], 0.0, h)
    return np.stack(out).astype(np.int32)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SHAPES, NEURONS, st.integers(0, 1 << 16))
def test_masks_of_heads_are_exact(shape, neuron, seed) -> None:
    graph = masked(shape, neuron, seed)
    images = random_images(graph, seed)
    options, report = CompileOptions(), ConversionReport()
    integers = compile_graph(graph, LOIHI2, options, report)
    codes = interpret(integers, images, record="all").codes
    heads, depth = shape[:2]
    exact = next(e["exact"] for e in report.of("quantize") if e["layer"] == "mask")
    if exact:
        want = wanted_mask(codes["q"], heads, *neuron)
        assert np.array_equal(codes["mask"], want)
        assert np.array_equal(codes["qk"], codes["k"] * want.repeat(depth, axis=2))
    program = lower(integers, LOIHI2, options)
    result = run(program, images, record="all", batch=2)
    assert all(np.array_equal(np.moveaxis(result.codes[k], 0, 1), codes[k]) for k in codes)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(SHAPES, NEURONS, st.integers(0, 1 << 16))
def test_engines_agree_on_them_on_cores(shape, neuron, seed) -> None:
    graph = masked(shape, neuron, seed)
    images = random_images(graph, seed, 2)
    options = CompileOptions()
    program = fit(
        compile_graph(graph, LOIHI2, options, ConversionReport()), LOIHI2, options, ConversionReport()
    ).program
    layers, ticks = (run(program, images, record="all", engine=engine) for engine in ("layers", "ticks"))
    assert all(np.array_equal(layers.codes[k], ticks.codes[k]) for k in ticks.codes)
    for name, table in layers.counters.tables.items():
        assert np.array_equal(table, ticks.counters.tables[name]), name
