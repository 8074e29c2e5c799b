"""Max-pools of spikes of several levels: the largest code of a window is sent again, by all that pool currents."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Kinds, Net, flips, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, Kind, Node
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.pool_codes import PoolCodes
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

KINDS = Kinds(neurons=("levels", "cell", "lif"), code_pools=True, layers=(4, 8))
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
LOIHI = load_target("loihi2")


def pools(graph: Graph) -> list[Node]:
    return [n for n in graph if n.op == "maxpool2d" and n.type.kind is Kind.GRADED]


def largest(codes: np.ndarray, pool: Node) -> np.ndarray:
    """Codes [..., C, H, W] by a loop over windows."""
    (ky, kx), (sy, sx), (py, px) = (pool.attr(k) for k in ("kernel", "stride", "pad"))
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 2) + [(py, py), (px, px)])
    _, height, width = pool.type.shape
    rows = [
        [padded[..., y * sy : y * sy + ky, x * sx : x * sx + kx].max((-2, -1)) for x in range(width)]
        for y in range(height)
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


@st.composite
def networks(draw) -> tuple[Graph, int]:
    seed = draw(st.integers(0, 10**6).filter(lambda s: pools(random_graph(s, KINDS))))
    return random_graph(seed, KINDS), seed


@given(networks())
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_the_pass_keeps_every_spike(drawn) -> None:
    graph, seed = drawn
    after = PoolCodes().apply(graph, ConversionReport())
    assert not pools(after) and flips(graph, after, random_images(graph, seed)) == 0


@given(networks(), st.sampled_from(["layers", "ticks"]))
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_integers_send_the_largest_code_of_a_window(drawn, engine: str) -> None:
    graph, seed = drawn
    by_id, images = graph.by_id(), random_images(graph, seed)
    options = CompileOptions(input_encoding="graded8")
    integers = compile_graph(graph, LOIHI, options, ConversionReport())
    meant = {name: codes.swapaxes(0, 1) for name, codes in interpret(integers, images, record="all").codes.items()}
    found = run(lower(integers, LOIHI, options), images, record="all", engine=engine).codes
    for pool in pools(graph):
        assert np.array_equal(found[pool.name], largest(found[by_id[pool.operands[0]].name], pool)), pool.name
    assert all(np.array_equal(found[name], meant[name]) for name in meant)


@pytest.mark.parametrize("levels", [1, 3, 15, 255])
def test_every_code_of_a_payload_comes_out(levels: int) -> None:
    """One-to-one from an input in eighths of the full range; the largest code and the smallest are among them."""
    net = Net(1)
    codes = net.levels(net.conv(net.input(1, 16, 16), 1, weight=float(levels)), "codes", levels, float(levels))
    graph = net.readout(net.pool(codes, 2, 2, 0, name="pool"))
    images = (np.arange(256, dtype=np.float32) / 255).reshape(1, 1, 16, 16)
    program = lower(compile_graph(graph, LOIHI, CompileOptions(), ConversionReport()), LOIHI, CompileOptions())
    found = run(program, images, record="all").codes
    assert np.array_equal(found["pool"], largest(found["codes"], next(n for n in graph if n.name == "pool")))
    assert found["codes"].min() == 0 and found["codes"].max() == levels
