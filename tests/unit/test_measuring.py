"""Operations of layers, counted product by product; what counts as an addition; codes of an emulated run."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_nets import Net, samples

import nmc
from nmc.work import Work, products_of, work_of
from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph, GraphBuilder, Use
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_sites import sites_of

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def one_layer(shape, weight: np.ndarray, **form) -> Graph:
    b = GraphBuilder("g", 1, "float", input_time=True)
    b.add("output", b.add("conv2d", b.add("input", id="x", shape=shape), weight=b.tensor("w", weight), **form))
    return b.build()


def naive(graph: Graph, x: np.ndarray) -> Work:
    """Every output element, every tap and input channel of it, one by one."""
    node = next(n for n in graph if n.op == "conv2d")
    weight, groups = graph.tensor(node, "weight"), node.attr("groups", 1)
    (sy, sx), (py, px) = node.attr("stride", (1, 1)), node.attr("pad", (0, 0))
    dy, dx = node.attr("dilation", (1, 1))
    total = Work(nonzero=int((x != 0).sum()), inputs=x.size)
    for sample in x:
        for o, oy, ox in itertools.product(*map(range, node.type.shape)):
            for i, ky, kx in itertools.product(*map(range, weight.shape[1:])):
                c = o // (len(weight) // groups) * weight.shape[1] + i
                y, z = oy * sy - py + ky * dy, ox * sx - px + kx * dx
                inside = 0 <= y < x.shape[2] and 0 <= z < x.shape[3]
                on = inside and sample[c, y, z] != 0
                total += Work(int(on and weight[o, i, ky, kx] != 0), int(on), int(inside), 1)
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.sampled_from([1, 2]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 3), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_a_convolution_product_by_product(seed, groups, kernel, stride, pad, dilation) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-1, 2, (2 * groups, 2, *kernel)).astype(np.float32)
    form = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    shape = (2 * groups, 5, 7)
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, k, d in zip(shape[1:], pad, kernel, dilation, strict=True)):
        return  # no such layer
    graph = one_layer(shape, weight, **form)
    x = rng.integers(-1, 3, (2, *shape)) * (rng.random((2, *shape)) < 0.5)
    assert work_of(graph, next(n for n in graph if n.op == "conv2d"), x) == naive(graph, x)


def test_a_linear_layer_is_a_kernel_as_large_as_its_input() -> None:
    weight = np.array([1.0, 0.0, 2.0, 3.0] * 3).reshape(3, 1, 2, 2)
    graph = one_layer((1, 2, 2), weight)
    node = next(n for n in graph if n.op == "conv2d")
    assert work_of(graph, node, np.array([[[[1, 1], [0, 1]]]])) == Work(6, 9, 12, 12, 3, 4)


def test_synapses_one_by_one() -> None:
    b = GraphBuilder("g", 1, "float", input_time=True)
    arrays = {
        "indptr": np.array([0, 2, 2, 5]), "target": np.array([0, 1, 0, 1, 1]),
        "weight": np.array([1.0, 0.0, 0.5, 2.0, -1.0]),
    }  # fmt: skip
    x = b.add("input", id="x", shape=(3, 1, 1), bits=2)
    refs = {k: b.tensor(k, v) for k, v in arrays.items()}
    b.add("output", b.add("sparse", x, shape=(2, 1, 1), **refs))
    graph = b.build()
    node = next(n for n in graph if n.op == "sparse")
    given_x = np.array([[2, 0, 1], [3, 1, 0]]).reshape(2, 3, 1, 1)
    assert work_of(graph, node, given_x) == Work(1 + 3 + 1, 2 + 3 + 2, 10, 10, 4, 6)


@pytest.mark.parametrize("inverse", [False, True])
def test_pairs_of_active_sites(inverse) -> None:
    """Every pair of sites that meet in a tap, found by their coordinates; what empty slots hold counts nowhere."""
    net = Net(3, 12)
    x = samples(5, (7, 4), 12)
    x[1, 3:, 9, 0] = 5.0  # no site is there
    before = net.sites
    net.down(4)
    if inverse:
        net.conv(3, (2, 2, 2), stride=(2, 2, 2), to=before, inverse=True)
    net.b.add("output", net.values)
    graph = net.b.build()
    node = [n for n in graph if n.op == "sparse_conv3d"][-1]
    run = interpret(graph, x, values=[*node.operands])
    value, a, b = (run.values[i][0] for i in node.operands)
    value = np.round(value).clip(-1, 1)
    weight = graph.tensor(node, "weight")
    expected = [0, 0, 0]
    for n in range(2):
        slots_a, slots_b = sites_of(a[n, ..., 0]), sites_of(b[n, ..., 0])
        for (s, p), q in itertools.product(enumerate(slots_a), slots_b):
            fine, coarse = (q, p) if inverse else (p, q)
            tap = tuple(f - 2 * c for f, c in zip(fine, coarse, strict=True))
            if not all(k in (0, 1) for k in tap):
                continue
            kept = (weight[:, :, tap[0] * 4 + tap[1] * 2 + tap[2], 0] != 0).sum(axis=0)
            on = value[n, :, s, 0] != 0
            met = (int(kept @ on), int(on.sum()) * len(weight), weight[..., 0, 0].size)
            expected = [total + more for total, more in zip(expected, met, strict=True)]
    work = work_of(graph, node, value, (a, b))
    assert [work.effective, work.synops, work.dense] == expected and work.dense > 0
    assert work.inputs == (len(sites_of(a[0, ..., 0])) + len(sites_of(a[1, ..., 0]))) * value.shape[1]


@pytest.mark.parametrize("order", ["kv", "qk"])
def test_products_of_attention_one_by_one(order) -> None:
    rng = np.random.default_rng(1)
    q, k, v = ((rng.random((2, c, 3, 2)) < 0.5) * 2 for c in (4, 4, 6))
    b = GraphBuilder("g", 1, "float", input_time=True)
    names = [b.add("input", id=n, name=n, shape=x.shape[1:], bits=2) for n, x in zip("qkv", (q, k, v), strict=True)]
    b.add("output", b.add("attn", *names, heads=2, order=order))
    node = next(n for n in b.build() if n.op == "attn")
    total = 0
    for n, head in itertools.product(range(2), range(2)):
        one, two, three = (x[n].reshape(2, x.shape[1] // 2, 6)[head] != 0 for x in (q, k, v))
        if order == "kv":
            total += sum(int(two[i, t] and three[j, t]) for i in range(2) for j in range(3) for t in range(6))
            total += int(one.sum()) * 3
        else:
            total += sum(int(one[i, s] and two[i, t]) for i in range(2) for s in range(6) for t in range(6))
            total += int(three.sum()) * 6
    assert products_of(node, q, k, v) == total


# ---- runs ----


def loop() -> Graph:
    """Two neurons that hear the input and, one timestep late, themselves."""
    from nmc_compiler.graph import Kind, ValueType

    b = GraphBuilder("loop", 0, "float", input_time=True)
    x = b.add("input", id="x", name="x", shape=(2, 1, 1))
    back = b.declare("n", ValueType(Kind.SPIKE, (2, 1, 1)))
    eye = b.tensor("w", np.array([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None])
    total = b.add("add", b.add("conv2d", x, weight=eye), b.add("conv2d", Use(back, 1), name="back", weight=eye))
    b.add("neuron", total, id="n", name="n", beta=0.5, theta=1.0, reset="hard", compare="ge")
    b.add("output", "n", name="out")
    return b.build()


def test_a_call_is_additions_where_its_input_is_spikes() -> None:
    x = np.array([[[1, 0], [0, 2], [-1, 1]], [[1, 1], [0, 0], [0, 0]]]).reshape(2, 3, 2, 1, 1).astype(float)
    (into, back) = nmc.metrics(loop(), x).layers
    assert [w.effective for w in (into.binary, into.ternary, into.real)] == [3, 2, 1]
    assert (into.work.dense, into.work.synops, into.work.effective) == (24, 12, 6)
    (into, _) = nmc.metrics(loop(), x, batch=2).layers  # both samples in one call
    assert [w.effective for w in (into.binary, into.ternary, into.real)] == [3, 2, 1]
    (into, _) = nmc.metrics(loop(), x, calls="run").layers
    assert [w.effective for w in (into.binary, into.ternary, into.real)] == [2, 0, 4]
    spikes = interpret(loop(), x, record="all").codes["n"]
    assert back.work.nonzero == spikes[:-1].sum() > 0  # of the last timestep none is read


def test_what_a_graph_holds() -> None:
    found = nmc.metrics(loop(), np.zeros((1, 1, 2, 1, 1)))
    assert (found.static.footprint, found.static.parameters) == (4 * 8, 4)  # both layers read one array
    assert found.static.connection_sparsity == 0.5 and found.activation_sparsity == 1.0
    assert found.neurobench()["MembraneUpdates"] == 2  # at the first timestep every potential is written
    assert math.isclose(found.as_json()["layers"][0]["input_rate"], 0.0)


def test_codes_of_a_run_take_the_place_of_the_neurons() -> None:
    """With the codes that the float graph itself emits nothing changes; with those of the chip, a little."""
    compiled = nmc.compile(FIXTURES / "sdt_v1" / "model.pt")
    with np.load(FIXTURES / "sdt_v1" / "vectors.npz") as file:
        images = file["images"][:2]
    run = nmc.emulate(compiled, images, record="all")
    own = interpret(compiled.float_graph, images, record="all").codes
    free = nmc.metrics(compiled, images)
    same = nmc.metrics(compiled, images, codes={k: np.moveaxis(v, 0, 1) for k, v in own.items()})
    assert same.layers == free.layers and same.active == free.active
    assert free.updates and same.updates is None
    chip = nmc.metrics(compiled, images, codes=run.codes)
    neurons = {node.name for node in compiled.float_graph if node.op == "lif"}
    assert chip.active == sum(int((c != 0).sum()) for n, c in run.codes.items() if n in neurons)
    counted = {layer["name"]: layer["synops_ac"] for layer in run.report["layers"]}
    by_name = {layer.layer: layer for layer in chip.layers}
    assert by_name["block.0.mlp.fc2_conv"].binary.synops  # what the emulator counts of the same layer
    assert by_name["patch_embed.proj_conv1"].binary.synops == counted["patch_embed.proj_lif1"]
    assert by_name["block.0.mlp.fc1_conv"].binary.synops == counted["block.0.mlp.fc2_lif"]


def test_refusals() -> None:
    x = np.zeros((0, 3, 2, 1, 1))
    with pytest.raises(UsageError, match="metrics need at least one sample"):
        nmc.metrics(loop(), x)
    with pytest.raises(UsageError, match="batch must be at least 1 and calls 'step' or 'run', got 0 and 'step'"):
        nmc.metrics(loop(), x, batch=0)
    with pytest.raises(UsageError, match="codes of n are missing: metrics of a run need all its neurons'"):
        nmc.metrics(loop(), np.zeros((1, 1, 2, 1, 1)), codes={})
    compiled = nmc.compile(FIXTURES / "sdt_v1" / "model.pt")
    with pytest.raises(UsageError, match="metrics are of a network as trained: give its float graph"):
        nmc.metrics(compiled.int_graph, x)
