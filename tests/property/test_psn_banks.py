"""Parallel spiking neurons of any weights: the plain sum, the float op, its banks in integers, and the emulator.

Weights of 8 bits and gains of 12 put a sum off by less than a hundredth of what its terms add up to; nearer to the
threshold than that the integers may decide otherwise.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

LOIHI = load_target("loihi2")


@st.composite
def networks(draw) -> tuple[Graph, np.ndarray, np.ndarray, np.ndarray]:
    """Codes of quarters through +-1/4 into a PSN of dyadic weights, before and behind whose window codes come too."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, channels, side = (draw(st.integers(1, n)) for n in (6, 3, 2))
    ahead, begins, behind = draw(st.integers(0, steps - 1)), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    weight = np.tril(rng.integers(-8, 9, (steps, steps)) / 8.0, ahead)
    weight[rng.random(weight.shape) < draw(st.sampled_from([0.0, 0.5]))] = 0.0
    weight[0, 0] = 1.0
    theta = rng.integers(-3, 9, steps) / 4.0
    b = GraphBuilder("psn", steps + begins + ahead + behind, "float", input_time=True)
    x = b.add("input", id="x", name="x", shape=(channels, side, 1), bits=5, signed=True)
    sign = np.diag(rng.choice([-0.25, 0.25], channels))[:, :, None, None]
    current = b.add("conv2d", x, weight=b.tensor("sign", sign))
    tables = {"weight": b.tensor("weight", weight), "theta": b.tensor("theta", theta)}
    compare = draw(st.sampled_from(["ge", "gt"]))
    spikes = b.add("psn", current, name="n", begins=begins, late=ahead, compare=compare, **tables)
    b.add("output", spikes, name="o")
    codes = rng.integers(-16, 16, (b.timesteps, channels, side, 1))
    drive = codes * np.diag(sign[:, :, 0, 0])[None, :, None, None]
    h = np.einsum("tj,jchw->tchw", weight, drive[begins : begins + steps]) - theta[:, None, None, None]
    near = np.abs(h) < 0.01 * np.einsum("tj,jchw->tchw", np.abs(weight), np.abs(drive[begins : begins + steps])) + 1e-3
    want, sure = np.zeros(codes.shape), np.ones(codes.shape, bool)
    want[begins + ahead : begins + ahead + steps] = h >= 0 if compare == "ge" else h > 0
    sure[begins + ahead : begins + ahead + steps] = ~near
    return b.build(), codes, want, sure


@given(networks())
@settings(deadline=None, max_examples=30)
def test_banks_are_the_sum_and_the_emulator_is_the_banks(drawn) -> None:
    graph, codes, want, sure = drawn
    verify(graph)
    assert np.array_equal(interpret(graph, codes[None], record=["n"]).codes["n"][:, 0], want)
    integers = compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())
    banks = interpret(integers, codes[None], record=["n"])
    got = banks.codes["n"][:, 0]
    assert np.array_equal(got[sure], want[sure]) and not banks.overflows
    program = lower(integers, LOIHI, CompileOptions())
    found = Emulator(program, record=["n"]).run_events({"x": codes}, len(codes)).events["n"]
    assert np.array_equal(codes_of(found, len(codes), codes.shape[1:]), got)
