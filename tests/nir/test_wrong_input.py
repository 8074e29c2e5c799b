"""Wrong input: one clear error each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from nir_nets import DT, chain, conv, ends, graph, lif, node, read, tree

from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.export.nir import nir_bytes
from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.frontends.nir import NirOptions, build, import_nir
from nmc_compiler.nir.rules import RULES
from nmc_compiler.nir.schema import NODES

pytest.importorskip("h5py", reason="writes and reads NIR files: pip install 'nmc[nir]'")
IN, OUT = ends((2,), (2,))
LIF = lif((2,))
MATRIX = node("Linear", weight=np.eye(2))


def refused(text: str, root, **options) -> None:
    with pytest.raises(FrontendError, match=f"^{re.escape(text)}$"):
        read(root, **options)


def without(item: dict, key: str) -> dict:
    return {k: v for k, v in item.items() if k != key}


def alone(item: dict) -> dict:
    return chain(i=IN, n=item, o=OUT)


# -- what the file says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "text"),
    [
        (
            alone(node("ALIF", tau=1.0)),
            f"net.nir: node 'n' (ALIF): unknown node type; NIR 1.0.8 has {', '.join(NODES)} and NIRGraph",
        ),
        (alone(without(LIF, "tau")), "net.nir: node 'n' (LIF): 'tau' is missing"),
        (
            alone(LIF | {"tau": np.array([5e-3, -1e-3])}),
            "net.nir: /node/nodes/n/tau has 1 of 2 values that are not positive, the least -0.001",
        ),
        (
            alone(LIF | {"r": np.array([1.0, np.nan])}),
            "net.nir: /node/nodes/n/r has 1 values that are NaN or infinite",
        ),
        (
            alone(LIF | {"tau_ref": np.zeros(2)}),
            "net.nir: /node/nodes/n/tau_ref is no field of a LIF of NIR 1.0.8, and would be lost; take it out",
        ),
        (
            alone(LIF | {"r": np.ones(3)}),
            "net.nir: node 'n' (LIF): 'r' has shape [3], another parameter [2]; give all of them one shape, or single "
            "numbers",
        ),
        (
            alone(lif((5,))),
            "net.nir: node 'n' (LIF): parameters have shape [5], but [2] is what arrives; give one value per neuron, "
            "or single numbers",
        ),
        (
            alone(node("Linear", weight=np.ones((2, 3)))),
            "net.nir: node 'n' (Linear): takes [3], but [2] is what arrives",
        ),
        (
            alone(node("Linear", weight=np.ones((1, 2, 2)))),
            "net.nir: node 'n' (Linear): weight has shape [1, 2, 2]; [outputs, inputs] was expected",
        ),
        (
            alone(node("Delay", delay=np.array([-1e-3, 0]))),
            "net.nir: node 'n' (Delay): a delay of -0.001 s is negative",
        ),
        (
            alone(node("Delay", delay=np.array([1e3, 0]))),
            "net.nir: node 'n' (Delay): a delay of 1000 s is 1000000 timesteps of --dt 0.001, more than 65536; give a "
            "longer --dt",
        ),
        (
            alone(conv(np.ones((2, 2, 3, 3)))),
            "net.nir: node 'n' (Conv2d): takes 3 axes, channels first; [2] is what arrives",
        ),
        (
            alone(node("Flatten", start_dim=2, end_dim=3)),
            "net.nir: node 'n' (Flatten): start_dim 2 and end_dim 3 are no axes of [2]",
        ),
        (
            alone(node("Flatten", start_dim=np.ones(2), end_dim=3)),
            "net.nir: /node/nodes/n/start_dim has shape [2]; one number was expected",
        ),
        (
            chain(i=node("Input", shape=np.array([2, 2, 2, 2])), o=OUT),
            "net.nir: node 'i' (Input): shape [2, 2, 2, 2]; (N,), (C, L) or (C, H, W) was expected, without batch",
        ),
        (chain(i=IN, o=ends((), (3,))[1]), "net.nir: node 'o' (Output): says shape [3], but [2] is what arrives"),
        (
            {"type": "NIRGraph", "nodes": {"i": IN}},
            "net.nir: /node/edges is missing",
        ),
        (
            {"type": "NIRGraph", "nodes": {"i": IN}, "edges": np.array([["i", "o", "x"]], object)},
            "net.nir: /node/edges has shape [1, 3]; pairs of node names were expected, at most 200000",
        ),
        (
            alone(LIF) | {"speed": 3},
            "net.nir: /node/speed is no field of a NIRGraph of NIR 1.0.8, and would be lost; take it out",
        ),
        (
            graph({"i\n": IN}),
            "net.nir: a node is called 'i\\n'; rename it to 1 to 200 printable ASCII characters, no / \\ or quotes",
        ),
    ],
    ids=lambda v: v[-40:] if isinstance(v, str) else "",
)  # fmt: skip
def test_nodes(root, text):
    refused(text, root)


def image(item: dict) -> dict:
    return chain(i=ends((2, 4, 4), ())[0], n=item, o=node("Output"))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            conv(np.ones((3, 1, 3, 3))),
            "weight [3, 1, 3, 3] with groups 1 takes 1 channels, but [2, 4, 4] is what arrives",
        ),
        (conv(np.ones((3, 2, 5, 5))), "a window of 5 (dilation 1) does not fit into 4"),
        (
            conv(np.ones((3, 2, 3, 3)), stride=[0, 1]),
            "kernel, stride and dilation must be at least 1 and padding at least 0",
        ),
        (
            conv(np.ones((3, 2, 3, 3)), padding="same", stride=[2, 2]),
            "padding 'same' with stride [2, 2] has no meaning in NIR",
        ),
        (
            conv(np.ones((3, 2, 2, 2)), padding="same", dilation=[3, 3]),
            "padding 'same' with an even kernel and dilation 3 is not even",
        ),
        (conv(np.ones((3, 2, 3, 3)), bias=np.ones(2)), "bias has shape [2], expected [3]"),
    ],
    ids=lambda v: v[:30] if isinstance(v, str) else "",
)  # fmt: skip
def test_convolutions(item, text):
    refused(f"net.nir: node 'n' (Conv2d): {text}", image(item))


def test_padding_of_another_name():
    refused(
        "net.nir: /node/nodes/n/padding is 'full'; 'same', 'valid' or numbers were expected",
        image(conv(np.ones((3, 2, 3, 3)), padding="full")),
    )


# -- edges and loops ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "text"),
    [
        (
            graph({"i": IN, "n": LIF, "o": OUT}, ("i", "n"), ("n", "out"), ("n", "o")),
            "net.nir: edge 'n' -> 'out' leads to 'out', which is no node; add the node or take the edge out",
        ),
        (
            graph({"i": IN, "n": LIF, "o": OUT}, ("i", "n"), ("n", "o"), ("n", "o")),
            "net.nir: edge 'n' -> 'o' is there twice; NIR allows it once",
        ),
        (
            graph({"i": IN, "n": LIF, "o": OUT}, ("i", "n"), ("n", "o"), ("o", "n")),
            "net.nir: node 'o' (Output): edge 'o' -> 'n' goes the wrong way through it",
        ),
        (
            graph({"i": IN, "a": MATRIX, "b": MATRIX, "o": OUT}, ("i", "a"), ("a", "b"), ("b", "a"), ("b", "o")),
            "net.nir: the loop 'a' -> 'b' -> 'a' has neither a neuron nor a Delay of a timestep or more: nothing in it "
            "takes time; put one of them in, or take an edge out",
        ),
        (
            graph(
                {"i": IN, "a": MATRIX, "d": node("Delay", delay=np.array([1e-4, 1.0])), "o": OUT},
                ("i", "a"), ("a", "d"), ("d", "a"), ("d", "o"),
            ),
            "net.nir: the loop 'a' -> 'd' -> 'a' has neither a neuron nor a Delay of a timestep or more: nothing in it "
            "takes time; put one of them in, or take an edge out",
        ),
        (
            chain(i=IN, g=chain(a=LIF, input=IN, more=IN, output=OUT), o=OUT),
            "net.nir: graph 'g' has 2 nodes by which an edge can enter; give it one Input",
        ),
        (
            graph({"i": IN, "n": LIF, "o": OUT}, ("n", "o")),
            "net.nir: node 'i' (Input): no edge leads out of it; connect it or take it out",
        ),
        (
            graph({"a": LIF, "b": LIF}, ("a", "b"), ("b", "a")),
            "net.nir: the graph has no Input, and every node is part of a loop; add one",
        ),
        (
            chain(i=IN, c=node("Scale", scale=2.0)) | {"nodes": {}, "edges": np.zeros((0, 2), object)},
            "net.nir: the graph has no nodes",
        ),
    ],
    ids=lambda v: v[-30:] if isinstance(v, str) else "",
)  # fmt: skip
def test_edges(root, text):
    refused(text, root)


def test_a_shape_that_nothing_tells():
    """A loop that no input reaches."""
    root = graph(
        {"i": IN, "n": LIF, "o": OUT, "s": node("Scale", scale=2.0), "t": lif()},
        ("i", "n"), ("n", "o"), ("s", "t"), ("t", "s"), ("t", "n"),
    )  # fmt: skip
    refused(
        "net.nir: node 's' (Scale): its shape is not known: no Input leads to it through nodes with shapes; write "
        "parameters with one value per neuron, or input_shape",
        root,
    )


def test_graphs_nested_without_end():
    root = alone(LIF)
    for _ in range(20):
        root = chain(input=IN, g=root, output=OUT)
    with pytest.raises(FrontendError, match=r"^net.nir: graph 'g': graphs are nested deeper than 16$"):
        read(root)


# -- options -----------------------------------------------------------------------------------


def test_a_timestep_longer_than_a_time_constant():
    refused(
        "net.nir: node 'n' (LIF): dt = 0.1 s is longer than its tau, 0.005 s at the least, and Euler's step would "
        "overshoot; give a shorter --dt (Norse's exporter multiplies its time constants by dt: give dt squared), or "
        "--nir-rule exponential",
        alone(LIF),
        dt=0.1,
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"dt": None},
            "NIR is in continuous time; give the timestep in seconds with --dt, as its exporter had it: 1e-4 for "
            "snnTorch and SpikingJelly, 1 for sinabs",
        ),
        ({"dt": -1.0}, "--dt -1.0: expected seconds, more than 0 and at most 1e+06"),
        ({"dt": float("nan")}, "--dt nan: expected seconds, more than 0 and at most 1e+06"),
        ({"rule": "rk4"}, f"--nir-rule rk4: no such rule; choose {', '.join(RULES)}"),
        ({"reset": "zero"}, "--nir-reset zero: no such reset; choose value, subtract, value-late, subtract-late"),
        ({"inputs": "u99"}, "--nir-input u99: expected spikes, real, u1 to u24 or s2 to s24 (bits of a code)"),
        ({"inputs": "s1"}, "--nir-input s1: expected spikes, real, u1 to u24 or s2 to s24 (bits of a code)"),
    ],
)  # fmt: skip
def test_options(options, text):
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        read(alone(LIF), **options)


# -- files -------------------------------------------------------------------------------------


def write(folder: Path, content: dict) -> Path:
    path = folder / "net.nir"
    path.write_bytes(nir_bytes(content))
    return path


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FrontendError, match=r"^.*none.nir: cannot be read: No such file or directory$"):
        import_nir(tmp_path / "none.nir", NirOptions(DT))


def test_a_damaged_file(tmp_path):
    path = write(tmp_path, {"version": "1", "node": alone(LIF)})
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(FrontendError, match=r"net.nir: damaged \(.*truncated"):
        import_nir(path, NirOptions(DT))


def test_another_hdf5_file(tmp_path):
    path = write(tmp_path, {"layer": {"0": {"type": "dense"}}})
    text = "not a NIR graph: it has layer, but no group 'node'; write it with nir.write"
    with pytest.raises(FrontendError, match=re.escape(text)):
        import_nir(path, NirOptions(DT))


def test_a_graph_of_more_nodes_than_any_network(monkeypatch):
    monkeypatch.setattr("nmc_compiler.frontends.nir_file.MAX_NODES", 2)
    refused("net.nir: more than 2 nodes", alone(LIF))


def test_a_node_alone_is_a_graph():
    """nir.write takes a node, too."""
    found, _, _ = build(Hdf5Group.of("net.nir", {"node": LIF}), NirOptions(DT), "net")
    assert [n.op for n in found] == ["input", "neuron", "output"]


def test_metadata_are_notes():
    """They change nothing, whatever they hold."""
    root = alone(LIF | {"metadata": {"author": "x", "deep": {"a": np.zeros(3)}}})
    assert build(tree(root), NirOptions(DT), "net")[0] is not None
