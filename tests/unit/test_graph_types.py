"""The type rules: what an op makes of its operands, and what each op refuses, word by word."""

import re

import numpy as np
import pytest

from nmc_compiler.errors import LoweringError, VerifyError
from nmc_compiler.graph import Attr, GraphBuilder, Kind, Node, OpSpec, Ref, Use, ValueType, rebuild, register
from nmc_compiler.graph.analysis import check_acyclic, populations, reachable_from_output
from nmc_compiler.graph.graph import Graph


def builder() -> GraphBuilder:
    """%x real[4,6,6], %c current, %s spike, %m graded u3, %r graded s24, %v spike vector."""
    b = GraphBuilder("g", 2)
    b.add("input", id="x", shape=(4, 6, 6))
    b.add("conv2d", "x", id="c", weight=b.tensor("w", np.zeros((4, 4, 1, 1))))
    b.add("lif", "c", id="s", tau=2.0, theta=1.0, reset="hard", compare="ge", decay_input=True)
    b.add("multilevel", "c", id="m", levels=4, rounding="half_even")
    b.add("relay", "c", id="r")
    b.add("sum_positions", "c", id="cv")
    b.add("lif", "cv", id="v", tau=2.0, theta=1.0, reset="hard", compare="ge", decay_input=True)
    return b


LIF = {"tau": 2.0, "theta": 1.0, "reset": "hard", "compare": "ge", "decay_input": True}

GIVES = [
    ("conv2d", ["s"], {"weight": np.zeros((5, 4, 3, 3)), "stride": (2, 1), "pad": (1, 0)}, "current[5,3,4]"),
    ("conv2d", ["m"], {"weight": np.zeros((8, 1, 3, 3)), "groups": 4, "dilation": (2, 1)}, "current[8,2,4]"),
    (
        "host_conv2d",
        ["x"],
        {"weight": np.zeros((5, 4, 1, 1)), "bias": np.zeros(5), "frac": 8, "shift": 2},
        "current[5,6,6]",
    ),
    ("batch_norm", ["c"], {"mean": np.zeros(4), "var": np.ones(4), "eps": 1e-5}, "current[4,6,6]"),
    ("batch_norm", ["x"], {"mean": np.zeros(4), "var": np.ones(4), "eps": 1e-5}, "real[4,6,6]"),
    ("pad2d", ["c"], {"pad": (1, 2), "value": np.zeros(4)}, "current[4,8,10]"),
    ("add", ["c", "c"], {}, "current[4,6,6]"),
    ("add", ["c", "x"], {}, "current[4,6,6]"),
    ("add", ["s", "s"], {}, "graded[4,6,6]:u2"),
    ("add", ["s", "m", "m"], {}, "graded[4,6,6]:u4"),  # up to 1 + 7 + 7
    ("scale", ["c"], {"factor": 0.5}, "current[4,6,6]"),
    ("rshift", ["c"], {"shift": 1}, "current[4,6,6]"),
    ("sum_positions", ["c"], {}, "current[4,1,1]"),
    ("sum_positions", ["x"], {}, "real[4,1,1]"),
    ("sum_positions", ["s"], {}, "graded[4,1,1]:u6"),  # up to 36
    ("sum_positions", ["m"], {}, "graded[4,1,1]:u8"),  # up to 7*36 = 252
    ("maxpool2d", ["s"], {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}, "spike[4,3,3]"),
    ("maxpool2d", ["m"], {"kernel": (3, 3)}, "graded[4,4,4]:u3"),
    ("maxpool2d", ["c"], {"kernel": (2, 1), "stride": (2, 2)}, "current[4,3,3]"),
    ("map", ["s"], {"mode": "same"}, "current[4,6,6]"),
    ("map", ["r"], {"mode": "reduce"}, "current[4,1,1]"),
    ("map", ["v"], {"mode": "broadcast", "size": (6, 6)}, "current[4,6,6]"),
    ("map", ["m"], {"mode": "window", "kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}, "current[4,3,3]"),
    ("map", ["s"], {"mode": "reduce_channels", "channels": 2}, "current[2,6,6]"),
    ("map", ["s"], {"mode": "broadcast_channels", "channels": 8}, "current[8,6,6]"),
    ("attn", ["s", "s", "m"], {"heads": 2}, "current[4,6,6]"),
    ("mul", ["s", "v"], {}, "spike[4,6,6]"),
    ("encode", ["x"], {"scale": 255.0, "lo": 0, "hi": 255}, "graded[4,6,6]:u8"),
    ("encode", ["x"], {"scale": 127.0, "lo": -127, "hi": 127}, "graded[4,6,6]:s8"),
    ("lif", ["x"], LIF, "spike[4,6,6]"),
    ("multilevel", ["c"], {"levels": 8, "rounding": "half_up"}, "graded[4,6,6]:u4"),
    ("cuba_lif", ["c"], {"dv": 2048, "vth": np.zeros(4)}, "spike[4,6,6]"),
    ("levels", ["c"], {"thresholds": np.zeros((1, 7))}, "graded[4,6,6]:u3"),
    ("relay", ["c"], {}, "graded[4,6,6]:s24"),
    ("readout", ["cv"], {}, "real[4,1,1]"),
    ("int_readout", ["cv"], {"scale": 1.0}, "real[4,1,1]"),
]


def add(b: GraphBuilder, op: str, operands: list[str], attrs: dict) -> str:
    refs = {k: b.tensor(f"t.{k}", v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    return b.add(op, *operands, id="new", **refs)


@pytest.mark.parametrize(("op", "operands", "attrs", "type_"), GIVES, ids=[f"{g[0]}-{g[3]}" for g in GIVES])
def test_types(op, operands, attrs, type_) -> None:
    b = builder()
    assert str(b.nodes[add(b, op, operands, attrs)].type) == type_


W = np.zeros((4, 4, 3, 3))
REFUSES = [
    ("conv2d", ["s"], {}, "attribute 'weight' is missing"),
    ("conv2d", ["s", "s"], {"weight": W}, "takes 1 operand(s), got 2"),
    ("conv2d", ["s"], {"weight": 3}, "attribute 'weight' cannot be 3"),
    ("conv2d", ["s"], {"weight": W, "groups": True}, "attribute 'groups' cannot be True"),
    ("conv2d", ["s"], {"weight": W, "pad": (0.5, 1)}, "attribute 'pad' must hold whole numbers, got (0.5, 1)"),
    ("conv2d", ["s"], {"weight": W, "pad": (1, 1, 1)}, "pad must be two numbers (y, x), got (1, 1, 1)"),
    (
        "conv2d",
        ["s"],
        {"weight": W, "pads": (1, 1)},
        "op 'conv2d' has no attribute 'pads' (it has: bias, dilation, groups, pad, ",
    ),
    ("conv2d", ["s"], {"weight": np.zeros(4)}, "weight must be [out, in/groups, kh, kw], got shape (4,)"),
    (
        "conv2d",
        ["s"],
        {"weight": W, "groups": 2},
        "weight (4, 4, 3, 3) with groups=2 wants 8 input channels, the input spike[4,6,6] has 4",
    ),
    ("conv2d", ["s"], {"weight": np.zeros((0, 4, 1, 1))}, "weight (0, 4, 1, 1) with groups=1 wants 4 input channels"),
    ("conv2d", ["s"], {"weight": W, "bias": np.zeros(3)}, "bias must have shape (4,), got (3,)"),
    ("conv2d", ["s"], {"weight": W, "stride": (0, 1)}, "kernel, stride and dilation must be >= 1 and pad >= 0"),
    ("conv2d", ["s"], {"weight": W, "pad": (-1, 0)}, "kernel, stride and dilation must be >= 1 and pad >= 0"),
    ("conv2d", ["s"], {"weight": W, "dilation": (3, 1)}, "a 3x3 window does not fit input 6x6"),
    ("conv2d", ["s"], {"weight": W, "shift": 32}, "shift must lie in 0..31, got 32"),
    (
        "host_conv2d",
        ["x"],
        {"weight": W, "bias": np.zeros(4), "frac": -1, "shift": 0},
        "frac must lie in 0..31, got -1",
    ),
    ("batch_norm", ["c"], {"mean": np.zeros(3), "var": np.ones(4), "eps": 0.1}, "mean must have shape (4,), got (3,)"),
    (
        "pad2d",
        ["s"],
        {"pad": (1, 1), "value": np.zeros(4)},
        "pad2d takes a current, pads >= 0 and one value per channel",
    ),
    ("add", ["c", "cv"], {}, "operands differ in shape: current[4,6,6], current[4,1,1]"),
    ("add", ["c", "s"], {}, "cannot add events and currents; put a projection between"),
    ("add", ["s", "r"], {}, "signed graded spikes cannot be added as codes"),
    ("add", [], {}, "takes one or more operand(s), got 0"),
    ("scale", ["c"], {"factor": np.zeros(3)}, "factor must be a number or have shape (4,) or (4, 6, 6)"),
    ("rshift", ["s"], {"shift": 1}, "rshift takes a current, not spike[4,6,6]"),
    ("rshift", ["c"], {"shift": -1}, "shift must lie in 0..31, got -1"),
    ("sum_positions", ["r"], {}, "signed graded spikes cannot be added as codes"),
    ("maxpool2d", ["r"], {"kernel": (2, 2)}, "cannot pool signed graded spikes"),
    ("maxpool2d", ["c"], {"kernel": (3, 3), "pad": (2, 1)}, "pad (2, 1) is more than half of the window (3, 3)"),
    ("maxpool2d", ["c"], {"kernel": (0, 3)}, "kernel, stride and dilation must be >= 1 and pad >= 0"),
    ("maxpool2d", ["c"], {"kernel": (7, 7)}, "a 7x7 window does not fit input 6x6"),
    ("map", ["c"], {"mode": "same"}, "a map takes events, not current[4,6,6]"),
    (
        "map",
        ["s"],
        {"mode": "sum"},
        "mode must be one of same, reduce, broadcast, window, reduce_channels, broadcast_channels, not 'sum'",
    ),
    (
        "map",
        ["s"],
        {"mode": "broadcast", "size": (6, 6)},
        "broadcast wants a (C, 1, 1) input and a size, got spike[4,6,6]",
    ),
    ("map", ["v"], {"mode": "broadcast"}, "broadcast wants a (C, 1, 1) input and a size, got spike[4,1,1]"),
    ("map", ["v"], {"mode": "broadcast", "size": (0, 6)}, "size must be >= 1, got (0, 6)"),
    ("map", ["s"], {"mode": "window"}, "a window map wants a kernel"),
    ("map", ["s"], {"mode": "reduce_channels"}, "reduce_channels wants a number of channels"),
    (
        "map",
        ["s"],
        {"mode": "reduce_channels", "channels": 3},
        "3 channels do not divide 4: reduce_channels has blocks",
    ),
    (
        "map",
        ["s"],
        {"mode": "reduce_channels", "channels": 8},
        "8 channels do not divide 4: reduce_channels has blocks",
    ),
    ("map", ["s"], {"mode": "broadcast_channels", "channels": 6}, "4 channels do not divide 6: broadcast_channels has"),
    ("map", ["s"], {"mode": "broadcast_channels", "channels": 0}, "4 channels do not divide 0: broadcast_channels has"),
    (
        "map",
        ["s"],
        {"mode": "broadcast_channels", "channels": 1 << 40},
        "shape must be (C, H, W), each >= 1 and at most",
    ),
    (
        "attn",
        ["s", "s", "r"],
        {"heads": 1},
        "q, k and v must be unsigned events, got spike[4,6,6], spike[4,6,6], graded[4,6,6]:s24",
    ),
    ("attn", ["s", "v", "s"], {"heads": 1}, "q spike[4,6,6], k spike[4,1,1] and v spike[4,6,6] do not agree in shape"),
    ("attn", ["s", "s", "s"], {"heads": 3}, "3 heads do not divide q's 4 and v's 4 channels"),
    ("attn", ["s", "s", "s"], {"heads": 2, "order": "vk"}, "order must be 'kv' or 'qk'"),
    ("mul", ["s", "m"], {}, "mul takes plain spikes (a mask), got spike[4,6,6] and graded[4,6,6]:u3"),
    (
        "mul",
        ["v", "s"],
        {},
        "shapes spike[4,1,1] and spike[4,6,6] do not match (the mask may be (4,1,1), or (G,1,1) where G divides 4)",
    ),
    ("input", [], {"shape": (4, 6)}, "shape must be (C, H, W), each >= 1, got (4, 6)"),
    (
        "encode",
        ["x"],
        {"scale": 1.0, "lo": 1, "hi": 0},
        "encode wants real values and lo <= hi, got real[4,6,6] and 1..0",
    ),
    ("lif", ["s"], LIF, "a neuron takes a current, not spike[4,6,6]"),
    ("lif", ["c"], LIF | {"tau": 0.5}, "tau must be >= 1 timestep, got 0.5"),
    ("lif", ["c"], LIF | {"tau": float("nan")}, "tau must be >= 1 timestep, got nan"),
    ("lif", ["c"], LIF | {"reset": "off"}, "reset must be hard, soft or none"),
    ("lif", ["c"], LIF | {"compare": ">="}, "compare must be ge or gt"),
    ("lif", ["c"], LIF | {"bias": np.zeros(3)}, "bias must have shape (4,), got (3,)"),
    ("lif", ["c"], LIF | {"record_perm": (0, 1)}, "record_perm must reorder (0, 1, 2), got (0, 1)"),
    ("lif", ["c"], LIF | {"record_shape": (36, 5)}, "record_shape (36, 5) does not hold 144 codes of (4, 6, 6)"),
    ("multilevel", ["c"], {"levels": 0, "rounding": "half_up"}, "levels must be >= 1 and norm > 0"),
    ("multilevel", ["c"], {"levels": 4, "norm": 0, "rounding": "half_up"}, "levels must be >= 1 and norm > 0"),
    ("multilevel", ["c"], {"levels": 4, "rounding": "up"}, "rounding must be half_even or half_up"),
    ("cuba_lif", ["c"], {"dv": 4097, "vth": np.zeros(4)}, "dv must lie in 0..4096, got 4097"),
    ("cuba_lif", ["c"], {"dv": 0, "vth": np.zeros(5)}, "vth must have shape (4,), got (5,)"),
    ("levels", ["c"], {"thresholds": np.zeros((2, 4))}, "thresholds must be [1 or 4, D], got (2, 4)"),
    ("levels", ["c"], {"thresholds": np.zeros((4, 0))}, "thresholds must be [1 or 4, D], got (4, 0)"),
    ("relay", ["s"], {}, "a neuron takes a current, not spike[4,6,6]"),
    ("readout", ["c"], {}, "a readout takes a vector (C, 1, 1), got current[4,6,6]"),
]


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"), REFUSES, ids=[f"{r[0]}-{i}" for i, r in enumerate(REFUSES)]
)
def test_refusals(op, operands, attrs, message) -> None:
    with pytest.raises(VerifyError, match=f"^{re.escape(f'%new = {op}: {message}')}"):
        add(builder(), op, operands, attrs)


def test_the_builder_names_what_it_refuses() -> None:
    b = builder()
    with pytest.raises(VerifyError, match="^node '%s' is defined twice$"):
        b.add("add", "c", id="s")
    with pytest.raises(VerifyError, match='^%a = add "stream": operand %nope is not defined before its use$'):
        b.add("add", "nope", id="a", name="stream")
    with pytest.raises(VerifyError, match="^tensor 'w' is stored twice with different arrays$"):
        b.tensor("w", np.zeros((4, 4, 1, 1)))
    with pytest.raises(VerifyError, match="^unknown op 'softmax'; known ops: add, attn, "):
        b.add("softmax", "c")


def test_an_op_is_registered_once() -> None:
    with pytest.raises(VerifyError, match="^op 'add' is registered twice$"):
        register(OpSpec("add", None, lambda *_: None, lambda call: call.inputs[0]))


def test_build_keeps_only_used_tensors() -> None:
    b = builder()
    b.tensor("spare", np.zeros(1))
    assert set(b.build().tensors) == {"w"}


def test_rebuild_infers_every_type_afresh() -> None:
    graph = builder().build()
    wider = {**graph.tensors, "w": np.zeros((7, 4, 1, 1))}
    again = rebuild(graph, list(graph), wider)
    assert str(again.node("s").type) == "spike[7,6,6]"
    assert str(again.node("v").type) == "spike[7,1,1]"
    with pytest.raises(VerifyError, match="^%s = lif: operand %c is not defined before its use$"):
        rebuild(graph, [n for n in graph if n.id != "c"])
    with pytest.raises(VerifyError, match="^node '%v' is defined twice$"):
        rebuild(graph, [*graph, graph.node("v")])


def test_users_and_populations() -> None:
    graph = builder().build()
    assert [n.id for n in graph.users()["c"]] == ["s", "m", "r", "cv"]
    assert [n.id for n in populations(graph)] == ["s", "m", "r", "v"]
    assert reachable_from_output(graph) == set()


def test_a_cycle_without_lag_is_named() -> None:
    b = builder()
    kept = b.build()
    loop = [
        Node("p", "add", (Use("c"), Use("q")), {}, kept.node("c").type),
        Node("q", "scale", (Use("p"),), {"factor": Attr(0.5)}, kept.node("c").type),
    ]
    graph = Graph("loopy", 2, (*kept.nodes, *loop), kept.tensors)
    with pytest.raises(
        LoweringError, match="^graph 'loopy': cycle without a lag: %p -> %q -> %p; give one edge a lag >= 1$"
    ):
        check_acyclic(graph)
    lagged = Node("p", "add", (Use("c"), Use("q", 1)), {}, kept.node("c").type)
    check_acyclic(Graph("fine", 2, (*kept.nodes, lagged, loop[1]), kept.tensors))


def test_type_texts() -> None:
    assert str(ValueType(Kind.GRADED, (1, 2, 3), 4)) == "graded[1,2,3]:u4"
    assert str(ValueType(Kind.SPIKE, (1, 2, 3))) == "spike[1,2,3]"
    assert ValueType(Kind.GRADED, (1, 1, 1), 1).is_event
    assert not ValueType(Kind.CURRENT, (1, 1, 1)).is_event
    assert Ref("a").key == "a"
