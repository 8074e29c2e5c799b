"""Pads, single taps and wider kernels between two populations are one convolution, with what a ring of numbers adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.passes.join_linear import JoinLinear
from nmc_compiler.passes.linear_maps import Kernel, LinearMap, as_table, padding, then
from nmc_compiler.passes.plain_neurons import PlainNeurons
from nmc_compiler.passes.report import ConversionReport

GENERATOR = np.random.default_rng


def dense(m: LinearMap) -> np.ndarray:
    """The matrix of a map."""
    t = as_table(m)
    out = np.zeros((int(np.prod(m.target)), int(np.prod(m.source))))
    np.add.at(out, (t.dst, t.src), t.weight)
    return out


@st.composite
def kernels(draw: Any, shape: tuple[int, int, int]) -> Kernel:
    """A pointwise, depthwise or full convolution of a shape; or zeros around it."""
    if draw(st.integers(0, 4)) == 0:
        return padding(shape, (draw(st.integers(0, 2)), draw(st.integers(1, 2))))
    channels = shape[0]
    depthwise, stride, pad = draw(st.booleans()), draw(st.integers(1, 2)), draw(st.integers(0, 1))
    size = draw(st.sampled_from([n for n in (1, 1, 2, 3) if n <= min(shape[1:]) + 2 * pad]))
    out = channels if depthwise else draw(st.integers(1, 3))
    numbers = GENERATOR(draw(st.integers(0, 99))).integers(-3, 4, (out, 1 if depthwise else channels, size, size))
    h, w = ((n + 2 * pad - size) // stride + 1 for n in shape[1:])
    pads, strides = (pad, pad), (stride, stride)
    return Kernel(shape, shape, (out, h, w), numbers * 1.0, strides, pads, groups=channels if depthwise else 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_two_convolutions_are_their_product(data: st.DataObject) -> None:
    first = data.draw(kernels((data.draw(st.integers(1, 3)), 4, 3)))
    second = data.draw(kernels(first.target))
    assert np.array_equal(dense(then(first, second)), dense(second) @ dense(first))


@pytest.mark.parametrize("single", [lambda k: k, lambda k: padding(k.target, (1, 1))], ids=["point", "pad"])
def test_a_single_tap_before_another_kernel_stays_a_convolution(single: Any) -> None:
    rng = GENERATOR(0)
    point = Kernel((2, 5, 5), (2, 5, 5), (4, 5, 5), rng.normal(size=(4, 2, 1, 1)))
    first = then(point, single(point)) if single(point) is not point else point
    _, h, w = first.target
    wide = Kernel(first.target, first.target, (4, h - 2, w - 2), rng.normal(size=(4, 1, 3, 3)), groups=4)
    assert isinstance(then(first, wide), Kernel)


def ring(value: np.ndarray | None) -> Graph:
    """RepConv between two populations of a network with outputs."""
    rng = GENERATOR(1)
    b = GraphBuilder("ring", 6, "float", input_time=True)
    x = b.add("input", name="x", shape=(3, 4, 4), bits=0)
    inner = b.add("conv2d", x, weight=b.tensor("a", rng.normal(size=(2, 3, 1, 1))))
    norm = {k: b.tensor(k, rng.uniform(0.5, 1.5, 2)) for k in ("weight", "bias", "mean", "var")}
    inner = b.add("batch_norm", inner, eps=1e-5, **norm)
    offset = b.tensors["bias"] - b.tensors["mean"] * b.tensors["weight"] / np.sqrt(b.tensors["var"] + 1e-5)
    wide = b.add("pad2d", inner, pad=(1, 1), value=b.tensor("value", offset if value is None else value))
    deep = b.add("conv2d", wide, groups=2, weight=b.tensor("d", rng.normal(size=(2, 1, 3, 3))))
    current = b.add("conv2d", deep, weight=b.tensor("p", rng.normal(size=(4, 2, 1, 1)) / 2))
    lif = b.add("neuron", current, name="lif", beta=0.5, theta=1.0, reset="hard", compare="ge")
    b.add("output", lif, name="out")
    return b.build()


@pytest.mark.parametrize("value", [None, np.array([0.75, -0.5])], ids=["what the norm gives", "other numbers"])
def test_a_ring_of_numbers(value: np.ndarray | None) -> None:
    graph, report = ring(value), ConversionReport()
    joined = JoinLinear().apply(PlainNeurons().apply(graph, report), report)
    assert not any(n.op == "pad2d" for n in joined)
    uniform = [n.op for n in joined] == ["input", "conv2d", "neuron", "output"]
    assert uniform == (value is None)  # other numbers differ by position, and come from a source that always fires
    spikes = (GENERATOR(2).random((5, 6, 3, 4, 4)) < 0.4).astype(float)
    want, got = (interpret(g, spikes).outputs["out"] for g in (graph, joined))
    assert want.any() and np.array_equal(want, got)
