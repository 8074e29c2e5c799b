"""What NIR can say is written in its words; the rest is refused by name, or written for nmc alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from nir_nets import DT, chain, conv, ends, lif, node, read, tree

from nmc.nir_out import check_round_trip, difference
from nmc_compiler.errors import FrontendError, LoweringError, UsageError
from nmc_compiler.export.nir import nir_bytes, nir_tree
from nmc_compiler.frontends.nir import NirOptions, build, import_nir
from nmc_compiler.graph import Graph, GraphBuilder, Use
from nmc_compiler.graph.text import to_text
from nmc_compiler.nir.rules import rule_of

EULER = rule_of("euler")
FULL = {"beta": 0.5, "gain": 0.5, "theta": 1.0, "reset": "hard", "compare": "gt"}


def built(*ops: tuple, shape: tuple[int, int, int] = (4, 1, 1), **flags) -> Graph:
    """A graph of ops one after the other: (op, attributes) between an input and an output."""
    b = GraphBuilder("hand", 0, input_time=True)
    at = b.add("input", id="i", name="i", shape=shape, bits=0)
    for n, (op, attrs) in enumerate(ops):
        attrs = {k: b.tensor(f"n{n}.{k}", v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
        at = b.add(op, Use(at, flags.get("lag", 0)), id=f"n{n}", name=f"n{n}", **attrs)
    b.add("output", at, id="o", name="o")
    return b.build()


def types(root) -> list[str]:
    return [item["type"] for item in nir_tree(read(root), EULER, DT)[0]["node"]["nodes"].values()]


def test_nodes_keep_their_kinds():
    rng = np.random.default_rng(0)
    kinds = {
        "w": node("Linear", weight=rng.normal(size=(4, 4))),
        "a": node("Affine", weight=rng.normal(size=(4, 4)), bias=np.ones(4)),
        "n": lif((4,)),
        "s": node("Scale", scale=np.arange(4.0)),
        "t": node("Threshold", threshold=np.full(4, 0.5)),
        "c": node("CubaLIF", tau_mem=5e-3, tau_syn=2e-3, r=1.0, v_leak=0.0, v_threshold=0.1),
        "d": node("Delay", delay=np.full(4, DT)),
        "j": node("IF", r=3.0, v_threshold=0.5),
        "v": node("CubaLI", tau_mem=5e-3, tau_syn=2e-3, r=1.0, v_leak=0.0),
        "x": node("I", r=3.0),
        "y": node("LI", tau=5e-3, r=3.0, v_leak=0.0),
    }
    first, last = ends((4,), (4,))
    expected = [item["type"] for item in kinds.values()]
    assert types(chain(i=first, **kinds, o=last)) == ["Input", *expected, "Output"]


def test_images_and_signals_keep_theirs():
    rng = np.random.default_rng(0)
    first, last = ends((2, 6, 6), (8,))
    image = {
        "c": conv(rng.normal(size=(2, 2, 3, 3))),
        "s": node("SumPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]),
        "a": node("AvgPool2d", kernel_size=[1, 2], stride=[1, 1], padding=[0, 0]),
        "f": node("Flatten", start_dim=0, end_dim=-1),
    }
    want = ["Input", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten", "Output"]
    assert types(chain(i=first, **image, o=node("Output"))) == want
    first, last = ends((2, 9), (3, 7))
    signal = chain(i=first, c=conv(rng.normal(size=(3, 2, 3))), n=lif(), o=last)
    assert types(signal) == ["Input", "Conv1d", "LIF", "Output"]


def test_nir_reads_what_is_written(tmp_path):
    """The reference reader, with its type check, and the numbers it finds."""
    nir = pytest.importorskip("nir.serialization", reason="the reference reader: pip install 'nmc[nir]'")
    first, last = ends((2, 6, 6), (3,))
    root = chain(
        i=first,
        c=conv(np.ones((2, 2, 3, 3))),
        n=lif((2, 4, 4), tau=4e-3),
        f=node("Flatten", start_dim=0, end_dim=-1),
        w=node("Affine", weight=np.ones((3, 32)), bias=np.ones(3)),
        o=last,
    )
    path = tmp_path / "net.nir"
    path.write_bytes(nir_bytes(nir_tree(read(root), EULER, DT)[0]))
    found = nir.read(path)
    assert found.nodes["n"].tau.shape == (2, 4, 4) and np.allclose(found.nodes["n"].tau, 4e-3)
    assert nir.read_version(path) == "1.0.8" and found.metadata["nmc_rule"] == "euler"
    assert sorted(found.edges) == [("c", "n"), ("f", "w"), ("i", "c"), ("n", "f"), ("w", "o")]


def test_equal_graphs_are_equal_bytes():
    graph = read(chain(i=ends((4,), ())[0], n=lif((4,)), o=ends((), (4,))[1]))
    first, second = (nir_bytes(nir_tree(graph, EULER, DT)[0]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("op", "attrs", "why"),
    [
        (
            "neuron",
            FULL | {"reset": "soft", "reset_at": "next_end"},
            "resets by 'subtract-late', which NIR cannot say: under the rule euler it means 'value' (--nir-reset "
            "subtract-late writes it for readers that do so)",
        ),
        (
            "neuron",
            FULL | {"compare": "ge"},
            "fires at its threshold, too; the rule euler reads it otherwise (--nir-rule)",
        ),
        ("neuron", FULL | {"v_min": -1.0}, "has v_min, for which NIR has no field"),
        ("neuron", FULL | {"fire": "old"}, "fires on its potential before the update, for which NIR has no field"),
        (
            "neuron",
            FULL | {"alpha": 0.5, "current": "old"},
            "uses the current of the timestep before, for which NIR has no field",
        ),
        (
            "neuron",
            FULL | {"start_v": 0.25},
            "starts at another potential (start_v) than it rests at, for which NIR has no field",
        ),
        (
            "neuron",
            FULL | {"beta": np.array([1.0, 0.5, 0.5, 0.5])},
            "keeps 0.5..1 of a state per timestep; the rule euler has no time constants for that",
        ),
        ("neuron", FULL | {"reset": "none"}, "keeps its potential when it fires (reset none)"),
        ("sigma_delta", {"theta": 1.0}, "is a 'sigma_delta', which NIR has no node for"),
        ("sumpool2d", {"kernel": (1, 1)}, ""),
        ("reshape", {"shape": (2, 2, 1)}, "reshapes [4] to [2, 2, 1]; NIR can only flatten"),
        (
            "sparse",
            {
                "indptr": np.arange(5), "target": np.arange(4), "weight": np.ones(4), "shape": (4, 1, 1),
                "extra": np.arange(4),
            },
            "is a 'sparse', which NIR has no node for",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_refused_by_name(op, attrs, why):
    """Soft resets, delays per synapse, changes instead of spikes: a reader would not hear of them."""
    graph = built((op, attrs))
    if not why:
        nir_tree(graph, EULER, DT)
        return
    text = f"'n0' {why}; --nir-extension writes a file that other readers refuse"
    with pytest.raises(LoweringError, match=f"^{re.escape(text)}$"):
        nir_tree(graph, EULER, DT)


def test_a_late_edge_that_no_loop_explains_is_refused():
    graph = built(("neuron", FULL), lag=1)
    tree_, _ = nir_tree(graph, EULER, DT)
    with pytest.raises(
        LoweringError, match=r"node 'n0' would have other operands: 'i', 1 timesteps late, is not among"
    ):
        check_round_trip(graph, tree_, EULER, DT)


def test_a_network_built_by_hand_is_compared_by_names():
    """Ids and origins differ once it is read back; numbers are rounded to single precision."""
    graph = built(("neuron", FULL | {"beta": 0.9, "gain": 1 / 3}))
    tree_, _ = nir_tree(graph, EULER, DT)
    check_round_trip(graph, tree_, EULER, DT)
    other = built(("neuron", FULL | {"beta": 0.9, "gain": 0.34}))
    assert difference(graph, other) == "node 'n0' would have another gain"
    assert difference(graph, built()) == "node 'n0' would be lost"


# -- the extension -----------------------------------------------------------------------------


def everything() -> Graph:
    """Ops that NIR has no words for, beside some that it has."""
    b = GraphBuilder("hand", 3, input_time=True)
    x = b.add("input", id="x", name="in", shape=(4, 1, 1), bits=0)
    w = b.add("conv2d", x, name="w", weight=b.tensor("w.weight", np.arange(16, dtype=np.float32).reshape(4, 4, 1, 1)))
    s = b.add("neuron", w, id="s", name="lif", **FULL | {"reset": "soft", "reset_at": "next_end"})
    attrs = {"indptr": np.arange(5), "target": np.arange(4)[::-1].copy(), "weight": np.ones(4), "extra": np.arange(4)}
    late = b.add("sparse", Use(s, 1), name="late", shape=(4, 1, 1), **{k: b.tensor(k, v) for k, v in attrs.items()})
    b.add("output", b.add("sigma_delta", late, id="d", name="d", theta=0.5), name="out")
    return b.build()


def extended(graph: Graph) -> dict:
    return nir_tree(graph, rule_of("spikingjelly"), DT, extension=True)[0]


def test_the_extension_says_everything(tmp_path):
    path = tmp_path / "net.nir"
    path.write_bytes(nir_bytes(extended(everything())))
    found = import_nir(path, NirOptions(DT)).graph
    assert to_text(found) == to_text(everything())
    for key, array in everything().tensors.items():
        assert array.dtype == found.tensors[key].dtype and np.array_equal(array, found.tensors[key]), key


def test_the_reference_reader_refuses_it(tmp_path):
    nir = pytest.importorskip("nir.serialization", reason="the reference reader: pip install 'nmc[nir]'")
    path = tmp_path / "net.nir"
    path.write_bytes(nir_bytes(extended(everything())))
    with pytest.raises((AssertionError, TypeError)):
        nir.read(path)


def test_what_nir_can_say_needs_no_extension():
    graph = read(chain(i=ends((4,), ())[0], n=lif((4,)), o=ends((), (4,))[1]))
    assert nir_tree(graph, EULER, DT, extension=True)[0].keys() == {"version", "node"}
    assert "nmc:graph@1" not in nir_tree(graph, EULER, DT, extension=True)[0]["node"]


def test_a_node_changed_alone_is_noticed():
    content = extended(everything())
    content["node"]["nodes"]["w"]["weight"] = np.zeros((4, 5), np.float32)
    with pytest.raises(FrontendError, match="net.nir: /node/nmc:graph@1: .*4 input channels|5 input channels"):
        build(tree(content["node"]), NirOptions(DT), "net")
    content = extended(everything())
    content["node"]["nodes"]["lif"] = lif((4,))
    with pytest.raises(
        FrontendError, match=r"net.nir: 'lags' of node 'lif' is not what nmc:graph@1 says; write the file"
    ):
        build(tree(content["node"]), NirOptions(DT), "net")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"nmc:graph@2": {}},
            "/node/nmc:graph@2 is an extension that this version of nmc does not know (it knows nmc:graph@1)",
        ),
        (
            {"nmc:graph@1": {"text": ""}},
            "/node/nmc:graph@1 has text; text, dt, rule, reset, keys, at, arrays were expected",
        ),
    ],
)  # fmt: skip
def test_other_extensions_are_refused(change, text):
    root = extended(everything())["node"]
    root = {k: v for k, v in root.items() if not k.startswith("nmc:")} | change
    with pytest.raises(FrontendError, match=re.escape(text)):
        build(tree(root), NirOptions(DT), "net")


def test_the_extension_keeps_its_timestep():
    root = extended(everything())["node"]
    with pytest.raises(UsageError, match=r"^net.nir: --dt 1: its numbers are those of dt = 0.001; give that$"):
        build(tree(root), NirOptions(1.0), "net")
    assert build(tree(root), NirOptions(DT, timesteps=7), "net")[0].timesteps == 7


def test_files_are_the_same_through_the_disk(tmp_path: Path):
    """The tree that tests use is what a file holds."""
    root = chain(i=ends((4,), ())[0], n=lif((4,)), o=ends((), (4,))[1])
    path = tmp_path / "net.nir"
    path.write_bytes(nir_bytes({"version": "1.0.8", "node": root}))
    assert to_text(import_nir(path, NirOptions(DT)).graph) == to_text(read(root))
