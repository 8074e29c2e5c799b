"""Convolutions between active sites: interpreter, compiler and kernels against brute force and dense PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_nets import target_with
from site_nets import EXTENT, classifier, cloud, convolve, reached, samples

from nmc_compiler.fitting import fit
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_sites import made_sites, pairs, sites_of
from nmc_compiler.lowering.lower import lower
from nmc_compiler.mapping import find_problems, split_evenly
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.fix_cloud import fix_cloud
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Sites, SiteWindow
from nmc_compiler.program.sites import down_extent, down_table, neighbours
from nmc_compiler.target import load_target
from nmc_emulator import run
from nmc_emulator.kernels import sites as kernels
from nmc_emulator.sites import Addressing, Table

bounded = settings(max_examples=40, deadline=None, derandomize=True)
few = settings(bounded, max_examples=4)
SEEDS = st.integers(0, 10**6)
AXIS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))  # kernel, stride, pad
WINDOWS = st.tuples(AXIS, AXIS, AXIS).map(lambda axes: tuple(zip(*axes, strict=True)))
LOIHI2 = load_target("loihi2")
ROOMY = target_with(neuron_groups=1000)  # cores are cut evenly, whatever they hold


def table_of(sites: np.ndarray, extent=EXTENT) -> Table:
    found = Table.blank(Sites("s", max(len(sites), 1), extent))
    found.table[: len(sites)], found.count[0] = sites, len(sites)
    found.hash()
    return found


@bounded
@given(SEEDS, st.integers(0, 60), WINDOWS)
def test_what_a_strided_convolution_makes(seed, count, window):
    """The interpreter, the compiler, and the cores that allocate, in one order; which, says brute force."""
    sites, extent = cloud(seed, count), down_extent(EXTENT, *window)
    if min(extent) < 1:
        return
    made = made_sites(sites_of(sites.T), *window, extent)
    rule = Sites("made", 1, extent, 0, *window)
    assert down_table(sites, Sites("s", max(count, 1), EXTENT), rule).tolist() == [list(s) for s in made]
    to = Table.blank(Sites("made", max(len(made), 1), extent, 0, *window))
    operands = np.array(window), to.extent, to.keys, to.slots, to.table
    assert kernels.allocate(table_of(sites).table, count, *operands) == len(made)
    assert to.table[: len(made)].tolist() == [list(s) for s in made]
    assert set(made) == reached(set(map(tuple, sites.tolist())), *window, EXTENT)


@bounded
@given(SEEDS, st.integers(0, 40), st.integers(0, 40), WINDOWS, st.booleans())
def test_pairs(seed, ins, outs, window, inverse):
    """Every synapse of the interpreter's rulebook is in the compiler's and in that of the hash table, and no other."""
    source, target = cloud(seed, ins), cloud(seed + 1, outs)
    want = set(pairs(source.T, target.T, *window, inverse))
    form = SiteWindow(0, 1, *window, inverse)
    near = neighbours(source, target, form)
    t, tap = np.nonzero(near >= 0)
    assert {(int(near[a, k]), int(k), int(a)) for a, k in zip(t, tap, strict=True)} == want and len(t) == len(want)
    a, b, found = table_of(source), table_of(target), np.zeros((max(outs, 1), near.shape[1]), np.int32)
    count = kernels.join(a.table, ins, np.array(window), inverse, b.extent, b.keys, b.slots, found)
    assert count == len(want) and np.array_equal(found[:outs], near)


@few
@given(SEEDS, WINDOWS, st.booleans())
def test_sums_are_those_of_all_pairs_of_sites(seed, window, inverse):
    from nmc_compiler.graph import GraphBuilder

    rng, source, target = np.random.default_rng(seed), cloud(seed, 12), cloud(seed + 1, 9)
    b = GraphBuilder("g", 1, "float")
    x = b.add("input", id="x", shape=(2, 12, 1))
    places = [
        b.add("cloud", id=f"c{i}", table=b.tensor(f"t{i}", t), extent=EXTENT) for i, t in enumerate((source, target))
    ]
    taps = int(np.prod(window[0]))
    weight, bias = rng.normal(size=(3, 2, taps, 1)), rng.normal(size=3)
    form = dict(zip(("kernel", "stride", "pad"), window, strict=True))
    y = b.add(
        "sparse_conv3d", x, *places, weight=b.tensor("w", weight), bias=b.tensor("b", bias), inverse=inverse, **form
    )
    ones = b.add(
        "sparse_conv3d", y, places[1], places[1], weight=b.tensor("e", np.eye(3)[:, :, None, None]), kernel=(1, 1, 1)
    )
    b.add("readout", b.add("mean_sites", ones, places[1]), name="head")
    values = rng.normal(size=(1, 2, 12, 1))
    given_ = {tuple(s): v for s, v in zip(source.tolist(), values[0, :, :, 0].T, strict=True)}
    want = convolve(given_, weight[..., 0], bias, *window, set(map(tuple, target.tolist())), inverse)
    run_ = interpret(b.build(), values, values=[y])
    got = dict(zip(map(tuple, target.tolist()), run_.values[y][0, 0, :, :, 0].T, strict=True))
    assert all(np.allclose(got[site], want[site], atol=1e-12) for site in want)
    assert np.allclose(run_.logits[0], np.mean(list(want.values()), axis=0), atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_dense_convolution_seen_through_the_mask(inverse):
    """PyTorch's conv3d and conv_transpose3d on a volume that is 0 where no site is, read at the sites; float64."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch; pip install .[torch]")
    rng, window = np.random.default_rng(5), ((3, 2, 3), (2, 2, 1), (1, 0, 1))
    fine = cloud(3, 40)
    size = down_extent(EXTENT, *window)
    coarse = down_table(fine, Sites("s", 40, EXTENT), Sites("c", 1, size, 0, *window))
    source, target, shape = (coarse, fine, size) if inverse else (fine, coarse, EXTENT)
    weight, x = rng.normal(size=(4, 3, *window[0])), rng.normal(size=(3, len(source)))
    volume = torch.zeros(1, 3, *shape, dtype=torch.float64)
    volume[0][(slice(None), *torch.tensor(source.T))] = torch.tensor(x)
    if inverse:
        rest = [n - ((m - 1) * s - 2 * p + k) for n, m, k, s, p in zip(EXTENT, size, *window, strict=True)]
        kernel = torch.tensor(weight.transpose(1, 0, 2, 3, 4).copy())
        dense = torch.nn.functional.conv_transpose3d(volume, kernel, None, window[1], window[2], output_padding=rest)
    else:
        dense = torch.nn.functional.conv3d(volume, torch.tensor(weight), None, window[1], window[2])
    want = dense[0][(slice(None), *torch.tensor(target.T))].numpy()
    got = np.zeros((4, len(target)))
    for s, tap, t in pairs(source.T, target.T, *window, inverse):
        got[:, t] += weight.reshape(4, 3, -1)[:, :, tap] @ x[:, s]
    assert np.abs(got - want).max() < 1e-12


# --- whole networks -----------------------------------------------------------------------------------------


def compiled(graph):
    return compile_graph(graph, LOIHI2, CompileOptions(input_range=(-4.0, 4.0)), ConversionReport())


def agree(program, graph, images):
    """Both engines give the interpreter's codes and logits, and each other's counters."""
    want = interpret(graph, images, record="all")
    results = [run(program, images, record="all", engine=engine) for engine in ("layers", "ticks")]
    for got in results:
        assert np.array_equal(got.logits, want.logits) and want.codes.keys() == got.codes.keys()
        for name, codes in want.codes.items():
            assert np.array_equal(np.moveaxis(got.codes[name], 1, 0), codes), (got.engine, name)
    layers, ticks = (r.counters for r in results)
    assert layers.bound == ticks.bound
    assert all(np.array_equal(layers.tables[t], ticks.tables[t]) for t in layers.tables)
    return results[0]


@few
@given(SEEDS, st.sampled_from([(1, False), (3, True)]))
def test_engines_agree_on_sites_of_each_sample(seed, kind):
    steps, lif = kind
    counts = tuple(np.random.default_rng(seed).integers(0, 31, 3).tolist())
    images, graph = samples(seed, counts, 30), compiled(classifier(seed, 30, timesteps=steps, lif=lif))
    program = split_evenly(lower(graph, LOIHI2, CompileOptions()), 5, LOIHI2)
    assert not find_problems(program, ROOMY).problems
    agree(program, graph, images)


@few
@given(SEEDS, st.integers(1, 30))
def test_a_fixed_cloud_computes_what_its_sites_at_run_time_do(seed, count):
    """Spikes, logits and SynOps are equal, slot by slot; so are they on many cores."""
    float_graph, images = classifier(seed, 30), samples(seed, (count,), 30)
    own = agree(lower(graph := compiled(float_graph), LOIHI2, CompileOptions()), graph, images)
    voxels = images[0, :3, :count, 0].T.astype(int)
    graph = compiled(fix_cloud(float_graph, voxels))
    mapped = fit(graph, LOIHI2, CompileOptions(), ConversionReport()).program
    split = split_evenly(lower(graph, LOIHI2, CompileOptions()), 6, LOIHI2)
    for program in (mapped, split):
        assert not find_problems(program, ROOMY).problems
        fixed = agree(program, graph, images[:, 3:, :count])
        assert np.array_equal(fixed.logits, own.logits)
        for name, codes in fixed.codes.items():
            slots = codes.shape[3]
            assert (
                np.array_equal(codes, own.codes[name][:, :, :, :slots]) and not own.codes[name][:, :, :, slots:].any()
            )
        for table in ("synops_mac", "events"):
            assert fixed.counters.total(table) == own.counters.total(table)


def test_synops_are_active_pairs_times_output_channels():
    images, graph = samples(4, (25,), 30), compiled(classifier(4, 30))
    program = lower(graph, LOIHI2, CompileOptions())
    result = run(program, images, record="all")
    addressing, want = Addressing(program, images[:, None]), np.zeros(len(program.convs), int)
    tables = [t.table[: int(t.count[0])] for t in addressing.tables(0).tables]
    for n, conv in enumerate(program.convs):
        codes = result.codes[program.populations[conv.src].name][0, 0, :, :, 0]
        if conv.sites is None:
            want[n] = np.count_nonzero(codes) * conv.weight.shape[3]
            continue
        w = conv.sites
        for tap, s in itertools.product(itertools.product(*map(range, w.kernel)), range(len(tables[w.source]))):
            for target in tables[w.target]:
                fine, coarse = (target, tables[w.source][s]) if w.inverse else (tables[w.source][s], target)
                if (fine == coarse * np.array(w.stride) - w.pad + tap).all():
                    want[n] += np.count_nonzero(codes[:, s]) * conv.weight.shape[3]
    assert result.counters.tables["synops_mac"].sum(axis=1).tolist() == want.tolist()
    fixed = lower(compiled(fix_cloud(classifier(4, 30), images[0, :3, :25, 0].T.astype(int))), LOIHI2, CompileOptions())
    dense = run(fixed, images[:, 3:, :25]).counters.tables["synops_mac_dense"].sum(axis=1)
    assert result.counters.tables["synops_mac_dense"].sum(axis=1).tolist() == dense.tolist()
