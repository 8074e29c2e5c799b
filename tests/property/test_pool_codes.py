"""Max-pools of spikes of several levels: the largest code of a window is sent again, by all that pool currents."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Kinds, Net, flips, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc.run_rates import rates_of_run
from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node
from nmc_compiler.graph.analysis import pool_name
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


@pytest.mark.parametrize("levels", [1, 3, 15, 255, 1023])
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


def test_sums_are_pooled_with_as_many_levels_as_they_can_have() -> None:
    """Each sum of the type is a bit wider; 12 sums of codes up to 4 are 52 at most, not 65,535."""
    net = Net(1)
    total = net.levels(net.conv(net.input(1, 4, 4), 2, 3, pad=1), "first")
    for _ in range(12):
        total = net.sum(total, net.levels(net.conv(total, 2, weight=0.1)))
    graph = net.readout(net.pool(total, 2, 2, 0))
    report = ConversionReport()
    after = PoolCodes().apply(graph, report)
    (told,) = report.of("pool-codes")
    assert (told["layer"], told["levels"]) == (f"{total}.pool", 52)
    assert flips(graph, after, random_images(graph, 1)) == 0
    program = lower(compile_graph(graph, LOIHI, CompileOptions(), ConversionReport()), LOIHI, CompileOptions())
    assert run(program, random_images(graph, 1), record="all").codes[f"{total}.pool"].any()


def test_codes_without_end_are_refused() -> None:
    net = Net(1)
    total = net.levels(net.conv(net.input(1, 4, 4), 2, 3, pad=1), "first", 1023, 1023.0)
    for _ in range(7):
        total = net.sum(total, total)
    graph = net.readout(net.pool(total, 2, 2, 0, name="pool"))
    with pytest.raises(
        LoweringError, match="^max-pool 'pool' reads codes up to 130944, and sends up to 65536; pool earlier$"
    ):
        PoolCodes().apply(graph, ConversionReport())


@pytest.mark.parametrize("of", ["neuron", "sum", "pool", "pool of spikes"])
def test_what_pools_send_is_known_to_the_formula(of: str) -> None:
    """Their populations are found by the same names, whatever is pooled."""
    net = Net(2)
    drive = net.conv(net.input(1, 6, 6), 2, 3, pad=1, weight=0.5)
    first = net.lif(drive, "first", theta=0.4) if of == "pool of spikes" else net.levels(drive, "first")
    source = first if of == "neuron" else net.pool(first, 2, 1, 0)
    source = net.sum(first, net.levels(net.conv(first, 2, weight=0.5))) if of == "sum" else source
    pool = net.pool(source, 2, 2, 0)
    behind = net.conv(pool, 3, weight=0.5)
    graph = net.readout(net.levels(behind, "last"))
    images, options = random_images(graph, 4), CompileOptions()
    program = lower(compile_graph(graph, LOIHI, options, ConversionReport()), LOIHI, options)
    result = run(program, images, record="all")
    rates = rates_of_run(graph, program, result.counters, len(images), 2 * len(images))
    name = pool_name(graph, graph.node(pool))
    assert name.endswith(".pool") and "%" not in name and result.codes[name].any()
    assert rates.means[f"%{behind}"] == pytest.approx(result.codes[name].mean())
