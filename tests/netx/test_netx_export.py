"""Out again as .net: the same layers, dataset for dataset; what netx has no layer for is refused by its op's name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netx_nets import random_layers

from nmc.exporting import export
from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.export.netx import layers_of
from nmc_compiler.export.netx_file import netx_bytes
from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.frontends.netx import NetxFile, read_layers
from nmc_compiler.frontends.netx_graph import build, entry_of, import_netx
from nmc_compiler.graph import GraphBuilder, Use
from nmc_compiler.netx import Cuba, Layer, Sdnn
from nmc_compiler.program.network import Network

h5py = pytest.importorskip("h5py", reason="writes HDF5 files: pip install 'nmc[nir]'")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "lava_dl"


def tree(data: bytes) -> Hdf5Group:
    """What a file holds, without a process of its own: this one was just written here."""

    def members(group) -> dict:
        found = {}
        for name, item in group.items():
            value = members(item) if isinstance(item, h5py.Group) else item[()]
            found[name] = np.asarray(value).astype(str) if np.asarray(value).dtype.kind == "S" else value
        return found

    with h5py.File(io.BytesIO(data)) as file:
        return Hdf5Group.of("x.net", members(file))


def same(a: Layer, b: Layer) -> bool:
    pairs = [(vars(a)[key], vars(b)[key]) for key in vars(a)]
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def without_zeros(layer: Layer) -> Layer:
    """Biases of nothing but zeros are left out."""
    bias = None if layer.bias is not None and not layer.bias.any() else layer.bias
    return Layer(**(vars(layer) | {"bias": bias}))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_layers_survive_graph_and_file(seed):
    layers = random_layers(seed)
    if any(x.delay is not None and not x.delay[x.weight != 0].any() for x in layers):
        return  # delays of nothing
    image = layers[0].kind == "input" and isinstance(layers[0].neuron, Cuba)
    for timesteps in (9,) if image else (0, 9):
        graph = build(NetxFile(layers, ()), "net", timesteps, "x.net")
        back = layers_of(graph, entry_of(layers[0]))
        read = read_layers(tree(netx_bytes(back))).layers
        again = build(NetxFile(read, ()), "net", timesteps, "x.net")
        assert len(read) == len(layers) and all(same(a, b) for a, b in zip(back, read, strict=True))
        assert again.nodes == graph.nodes
        assert all(np.array_equal(again.tensors[key], array) for key, array in graph.tensors.items())
        for mine, theirs in zip(layers, read, strict=True):
            if mine.delay is None:
                assert same(without_zeros(mine), theirs)


def test_same_layers_same_bytes():
    layers = random_layers(5)
    assert netx_bytes(layers) == netx_bytes(layers)


@pytest.mark.parametrize("name", ["mnist/trained_mnist_network", "oxford/network"])
def test_files_of_lava_dl_come_out_as_they_went_in(shared, tmp_path, name):
    """Every dataset equal in value, shape and type."""
    path = SHARED / f"{name}.net"
    written = netx_bytes(layers_of(import_netx(path, 20).graph))
    assert datasets(path.read_bytes()) == datasets(written)


def datasets(data: bytes) -> dict:
    found = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tolist())

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(add)
    return found


# --- refusals ---


def chain(change=None, **soma):
    """input -> conv2d -> soma -> output, as ``change`` wants it."""
    b = GraphBuilder("net", 4, "int", input_time=True)
    b.add("input", id="in", shape=(3, 1, 1), bits=0)
    b.add("conv2d", "in", id="c", weight=b.tensor("w", np.full((2, 3, 1, 1), 4, np.int16)), shift=soma.pop("shift", 0))
    vth = b.tensor("vth", np.array(soma.pop("vth", [5, 5]), np.int32))
    bias = b.tensor("bias", np.array(soma.pop("bias", [0, 64]), np.int32))
    b.add("cuba_lif", "c", id="s", name="cells", vth=vth, bias=bias, **{"dv": 100, "du": 4095, **soma})
    at = change(b) if change else "s"
    b.add("output", at, id="out", name="out")
    return b.build()


def second(b: GraphBuilder, *operands) -> str:
    current = operands[0] if len(operands) == 1 else b.add("add", *operands)
    return b.add("cuba_lif", current, name="more", dv=1, vth=b.tensor("vth2", np.array([3, 3], np.int32)))


def skip(b: GraphBuilder) -> str:
    w = b.tensor("w2", np.full((2, 2, 1, 1), 2, np.int16))
    far = b.add("conv2d", "in", id="far", weight=b.tensor("w3", np.full((2, 3, 1, 1), 2, np.int16)))
    return second(b, b.add("conv2d", "s", weight=w), far)


def lagged(b: GraphBuilder) -> str:
    return second(b, b.add("conv2d", Use("s", 3), weight=b.tensor("w2", np.full((2, 2, 1, 1), 2, np.int16))))


@pytest.mark.parametrize(
    "graph, text",
    [
        (lambda: chain(lambda b: b.add("maxpool2d", "s", kernel=(1, 1))), "for op 'maxpool2d' of %maxpool2d"),
        (lambda: chain(skip), "for op 'add' of %add5: more takes 2 currents from elsewhere; a layer has one"),
        (lambda: chain(vth=[5, 6]), "for op 'cuba_lif' of cells: its channels have 2 thresholds, and a layer of ne"),
        (lambda: chain(bias=[0, 63]), "for op 'cuba_lif' of cells: its bias 63 is no multiple of 64"),
        (lambda: chain(bias=[0, 64 << 12]), r"of cells: its bias mantissas 0\.\.4096 leave 13 bits"),
        (lambda: chain(restart=(4, 0)), "for op 'cuba_lif' of cells: netx has nothing like its restart"),
        (lambda: chain(profile="loihi1"), "for op 'cuba_lif' of cells: netx has nothing like its profile"),
        (lambda: chain(shift=7), r"for op 'conv2d' of %c: its weights 512\.\.512 leave -255\.\.255, where netx cuts"),
        (lambda: chain(lagged), "graph 'net' reads 0, 3 timesteps ago; connections of netx all take one"),
    ],
)  # fmt: skip
def test_what_netx_cannot_say_is_refused_by_name(graph, text):
    with pytest.raises(LoweringError, match=text):
        layers_of(graph())


def test_sigma_delta_with_other_exponents_is_refused():
    b = GraphBuilder("net", 0, "int", input_time=True)
    b.add("input", id="in", shape=(1, 1, 1), bits=4)
    b.add("conv2d", "in", id="c", weight=b.tensor("w", np.full((1, 1, 1, 1), 4, np.int16)))
    b.add("sigma_delta", "c", id="s", name="sd", vth=b.tensor("v", np.array([5])), relu=True, out_shift=3)
    b.add("output", "s", id="out")
    with pytest.raises(LoweringError, match="for op 'sigma_delta' of sd: its out_shift is 3, and netx has 6"):
        layers_of(b.build())


def test_float_graphs_and_programs_are_refused(tmp_path):
    with pytest.raises(
        LoweringError, match="graph 'net' has float numbers; netx files hold integers: compile it first"
    ):
        layers_of(GraphBuilder("net", 1).build())
    net = Network("loop", timesteps=2)
    net.lif("cells", 2, vth=1)
    with pytest.raises(UsageError, match="Program 'loop': netx files are made of its graph; give what nmc.compile ret"):
        export(net.program(), tmp_path / "x.net", format="netx")
    assert not (tmp_path / "x.net").exists()


def test_a_sigma_delta_input_layer_comes_back():
    layers = (
        Layer(0, "input", (1, 2, 2), Sdnn(3), transform=(64, 0)),
        Layer(1, "flatten", (4, 1, 1)),
        Layer(2, "dense", (2, 1, 1), Sdnn(0, True), np.array([[1, -2, 3, 0], [4, 5, 6, 7]])),
    )
    back = layers_of(build(NetxFile(layers, ()), "net", 0, "x.net"))
    assert all(same(a, b) for a, b in zip(layers, back, strict=True))
