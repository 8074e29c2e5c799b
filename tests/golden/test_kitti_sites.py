"""Convolutions on the 5,292 active voxels of a KITTI cloud: interpreter, engines, brute-force SynOps, cores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nmc.clouds import read_clouds
from nmc_compiler.fitting import fit
from nmc_compiler.graph import Graph, GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_sites import down_extent
from nmc_compiler.lowering.lower import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.fix_cloud import fix_cloud
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Program
from nmc_compiler.target import load_target
from nmc_emulator import run
from nmc_emulator.voxels import Voxels

LOIHI2, OPTIONS = load_target("loihi2"), CompileOptions(input_range=(-1.0, 1.0))
CODER = Voxels((0.2, 0.2, 0.2), (353, 401, 21), (0, -40, -3, 70.4, 40, 1), (0, 1, 2, 3))
SIZE = np.array([70.4, 40.0, 3.0, 1.0])
CUBE = {"kernel": (3, 3, 3), "pad": (1, 1, 1)}


@pytest.fixture(scope="module")
def cloud(shared):
    """Voxels, and a sample with them."""
    points = read_clouds(shared / "data" / "points" / "000008.bin")[0][0]
    voxels, features = CODER.code(points)
    assert len(voxels) == 5292
    return voxels, np.concatenate([voxels.T, (features / SIZE).T])[None, :, :, None]


def detector(slots: int) -> Graph:
    """Two submanifold convolutions, then what a voxel backbone has: k3 s2 p1, and k3 s2 along z alone."""
    rng, b = np.random.default_rng(0), GraphBuilder("kitti", 1, "float")
    x = b.add("input", id="x", shape=(7, slots, 1))
    sites, values = b.add("sites", x, id="s0", name="s0", extent=CODER.extent), b.add("features", x)
    down = {"kernel": (3, 3, 3), "stride": (2, 2, 2), "pad": (1, 1, 1)}
    low = {"kernel": (1, 1, 3), "stride": (1, 1, 2)}
    steps = [(CUBE, sites, 8), (CUBE, sites, 8), (CUBE, sites, 8), (down, None, 16), (low, None, 16)]
    extent = CODER.extent
    for n, (form, to, outs) in enumerate(steps):
        if n:
            values = b.add("multilevel", values, name=f"n{n}", levels=4, norm=1, rounding="half_up")
        if to is None:
            to = b.add("down_sites", sites, id=f"s{n}", extent=extent, slots=slots, **form)
            extent = down_extent(extent, form["kernel"], form["stride"], form.get("pad", (0, 0, 0)))
        ins = b.nodes[values].type.shape[0]
        weight = rng.normal(size=(outs, ins, int(np.prod(form["kernel"])), 1)) / np.sqrt(2 * ins)
        bias = b.tensor(f"b{n}", rng.normal(size=outs) / 3)
        values = b.add("sparse_conv3d", values, sites, to, weight=b.tensor(f"w{n}", weight), bias=bias, **form)
        sites = to
    values = b.add("multilevel", values, name="last", levels=4, norm=1, rounding="half_up")
    weight = b.tensor("head", rng.normal(size=(3, 16, 1, 1)))
    head = b.add("sparse_conv3d", values, sites, sites, weight=weight, kernel=(1, 1, 1))
    b.add("readout", b.add("mean_sites", head, sites), name="head")
    return b.build()


def compiled(graph: Graph) -> Graph:
    return compile_graph(graph, LOIHI2, OPTIONS, ConversionReport())


def brute_force(program: Program, codes: dict[str, np.ndarray]) -> int:
    """Pairs of a source event and a target site, times output channels, by dictionaries of coordinates."""
    total = 0
    for conv in program.convs:
        events = np.count_nonzero(codes[program.populations[conv.src].name][0, 0, :, :, 0], axis=0)
        if conv.sites is None:
            total += int(events.sum()) * conv.weight.shape[3]
            continue
        w, sites = conv.sites, program.sites
        targets = {tuple(s) for s in sites[w.target].table.tolist()}
        for site, n in zip(sites[w.source].table.tolist(), events.tolist(), strict=True):
            for tap in itertools.product(*map(range, w.kernel)) if n else ():
                moved = [(a + p - k, s) for a, p, k, s in zip(site, w.pad, tap, w.stride, strict=True)]
                hit = all(m % s == 0 for m, s in moved) and tuple(m // s for m, s in moved) in targets
                total += n * conv.weight.shape[3] * hit
    return total


def test_the_stack_on_the_cloud(cloud):
    """Fixed, and with the sites of the sample: the interpreter's spikes, SynOps by brute force, and each other's."""
    voxels, image = cloud
    graph = compiled(fix_cloud(detector(5292), voxels))
    program = lower(graph, LOIHI2, OPTIONS)
    fixed, want = run(program, image[:, 3:], record="all"), interpret(graph, image[:, 3:], record="all")
    for name, codes in want.codes.items():
        assert np.array_equal(np.moveaxis(fixed.codes[name], 1, 0), codes) and 0.05 < (codes != 0).mean() < 0.6, name
    assert np.array_equal(fixed.logits, want.logits)
    assert fixed.counters.total("synops_mac") == brute_force(program, fixed.codes)
    own = run(lower(compiled(detector(5292)), LOIHI2, OPTIONS), image, record="all")
    for name, codes in fixed.codes.items():  # the read-out has another scale: it could sum 5,292 slots, not 4,002
        assert np.array_equal(own.codes[name][:, :, :, : codes.shape[3]], codes), name
    assert own.counters.total("synops_mac") == fixed.counters.total("synops_mac")
    assert own.counters.total("synops_mac_dense") > fixed.counters.total("synops_mac")


@pytest.mark.slow
def test_the_stack_on_cores(cloud):
    """Placed within the limits of Loihi 2 (the checker replays every pair), and run tick by tick from its tables."""
    voxels, image = cloud
    graph = compiled(fix_cloud(detector(5292), voxels))
    program = fit(graph, LOIHI2, OPTIONS, ConversionReport(), "auto").program
    layers, ticks = (run(program, image[:, 3:], engine=engine) for engine in ("layers", "ticks"))
    assert len(program.mapping.cores) > 40 and np.array_equal(layers.logits, ticks.logits)
    assert all(np.array_equal(layers.counters.tables[t], ticks.counters.tables[t]) for t in layers.counters.tables)
    assert layers.counters.bound == ticks.counters.bound
