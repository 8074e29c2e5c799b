"""The verifier's rules, each broken once, and the findings behind ``nmc inspect``."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny_models

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Node, Use, known_ops, rebuild
from nmc_compiler.graph.text import from_text
from nmc_compiler.graph.verify import Rule, findings, register_rule, rule_of, verify

LIF = {"tau": 2.0, "theta": 1.0, "reset": "hard", "compare": "ge", "decay_input": True}
FAMILIES = tuple(tiny_models.CONFIGS)


def net(**extra: np.ndarray) -> Graph:
    """real -> conv -> lif -> conv -> sum -> lif -> conv -> readout: event-driven as it is."""
    b = GraphBuilder("net", 2)
    b.add("input", id="x", shape=(1, 4, 4))
    b.add("conv2d", "x", id="c1", name="stem", weight=b.tensor("w1", np.ones((3, 1, 3, 3))), pad=(1, 1))
    b.add("lif", "c1", id="s1", name="lif1", **LIF)
    b.add("conv2d", "s1", id="c2", name="mix", weight=b.tensor("w2", np.ones((3, 3, 1, 1))))
    b.add("sum_positions", "c2", id="n")
    b.add("lif", "n", id="s2", name="lif2", **LIF)
    b.add("conv2d", "s2", id="c3", name="head", weight=b.tensor("w3", np.ones((2, 3, 1, 1))))
    b.add("readout", "c3", id="out", name="logits")
    return b.build()


def changed(graph: Graph, node_id: str, **fields) -> Graph:
    return replace(graph, nodes=tuple(replace(n, **fields) if n.id == node_id else n for n in graph))


def with_attr(graph: Graph, node_id: str, **attrs: Attr) -> Graph:
    return changed(graph, node_id, attrs={**graph.node(node_id).attrs, **attrs})


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_valid(name: str) -> None:
    verify(tiny_models.graph(name))


def test_the_net_is_valid_and_event_driven() -> None:
    verify(net())
    verify(net(), event_driven=True)


GOOD = net()
BROKEN = [
    (replace(GOOD, timesteps=0), "graph 'net': T must be a whole number >= 1, got 0"),
    (replace(GOOD, timesteps=2.0), "graph 'net': T must be a whole number >= 1, got 2.0"),
    (replace(GOOD, numbers="half"), "graph 'net': numbers must be float or int, not 'half'"),
    (
        replace(GOOD, record_time=False),
        "graph 'net': record_time=false says that recordings have no time axis, but T = 2",
    ),
    (changed(GOOD, "s2", id="s1"), "node '%s1' is defined twice"),
    (changed(GOOD, "c2", inputs=(Use("nope"),)), '%c2 = conv2d "mix": operand %nope does not exist'),
    (changed(GOOD, "c2", inputs=(Use("s1", -1),)), '%c2 = conv2d "mix": the lag of %s1 must be >= 0, got -1'),
    (changed(GOOD, "c2", inputs=(Use("s1", 1.0),)), '%c2 = conv2d "mix": the lag of %s1 must be >= 0, got 1.0'),
    (
        changed(GOOD, "c1", inputs=(Use("n"),)),
        "graph 'net': cycle without a lag: %n -> %c1 -> %s1 -> %c2 -> %n; give one edge a lag >= 1",
    ),
    (
        replace(GOOD, nodes=(*GOOD.nodes[1:], GOOD.nodes[0])),
        '%c1 = conv2d "stem": operand %x is not defined before its use',
    ),
    (changed(GOOD, "n", op="softmax"), "unknown op 'softmax'; known ops: add, attn, "),
    (changed(GOOD, "n", inputs=()), "%n = sum_positions: takes 1 operand(s), got 0"),
    (
        with_attr(GOOD, "n", axis=Attr(1)),
        "%n = sum_positions: op 'sum_positions' has no attribute 'axis' (it has: none)",
    ),
    (replace(GOOD, tensors={}), "%c1 = conv2d \"stem\": weight: tensor 'w1' does not exist"),
    (with_attr(GOOD, "s1", theta=Attr(float("inf"))), '%s1 = lif "lif1": theta is inf, which is not a finite number'),
    (
        with_attr(GOOD, "s1", theta=Attr(1.0, "guess")),
        "%s1 = lif \"lif1\": evidence of theta is 'guess', not one of checkpoint, config, family, trace, default, "
        "derived, target",
    ),
    (with_attr(GOOD, "s1", tau=Attr(0.5)), '%s1 = lif "lif1": tau must be >= 1 timestep, got 0.5'),
    (
        changed(GOOD, "s1", type=GOOD.node("c1").type),
        '%s1 = lif "lif1": its type is stored as current[3,4,4], but the op gives spike[3,4,4]',
    ),
    (replace(GOOD, nodes=GOOD.nodes[:-1], tensors=GOOD.tensors), "graph 'net' must have one readout, has 0"),
    (
        replace(GOOD, nodes=(*GOOD.nodes, replace(GOOD.node("out"), id="out2"))),
        "graph 'net' must have one readout, has 2 (%out, %out2)",
    ),
    (
        replace(GOOD, nodes=(replace(GOOD.nodes[0], id="y"), *GOOD.nodes)),
        "graph 'net' must have one input, has 2 (%y, %x)",
    ),
    (
        changed(GOOD, "s2", name="lif1"),
        "%s1 and %s2 are both called 'lif1'; every population needs a name of its own",
    ),
    (
        changed(changed(GOOD, "s1", name=""), "s2", name="s1"),
        "%s1 and %s2 are both called 's1'; every population needs a name of its own",
    ),
    (
        replace(GOOD, tensors={**GOOD.tensors, "spare": np.zeros(1)}),
        "graph 'net': tensor 'spare' is stored, but no node refers to it",
    ),
    (
        replace(GOOD, tensors={**GOOD.tensors, "w2": np.ones((3, 3, 1, 1), complex)}),
        "tensor 'w2' has dtype complex128; graphs hold real numbers",
    ),
    (
        replace(GOOD, tensors={**GOOD.tensors, "w2": np.full((3, 3, 1, 1), np.nan, np.float16)}),
        "tensor 'w2' has 9 value(s) that are not finite, of 9",
    ),
    (
        with_attr(GOOD, "c2", shift=Attr(1)),
        "%c2 = conv2d \"mix\": attribute 'shift' has no meaning in a graph of float numbers",
    ),
]


@pytest.mark.parametrize(("graph", "message"), BROKEN, ids=[str(i) for i in range(len(BROKEN))])
def test_broken_rules(graph: Graph, message: str) -> None:
    with pytest.raises(VerifyError, match=f"^{re.escape(message)}"):
        verify(graph)


def integer_net() -> Graph:
    b = GraphBuilder("inet", 2, "int")
    b.add("input", id="x", shape=(2, 1, 1))
    one, zero = b.tensor("one", np.ones((2, 2, 1, 1), np.int64)), b.tensor("zero", np.zeros(2, np.int64))
    b.add("host_conv2d", "x", id="h", weight=one, bias=zero, frac=8, shift=4)
    b.add("cuba_lif", "h", id="s", name="s", dv=2048, vth=zero)
    b.add("attn", "s", "s", "s", id="a", heads=1, saturate=8, shift=1)
    b.add("rshift", "a", id="r", shift=1)
    b.add("levels", "r", id="m", name="m", thresholds=b.tensor("th", np.ones((1, 4), np.int64)))
    b.add("conv2d", "m", id="c", weight=one, shift=2)
    b.add("int_readout", "c", id="out", name="out", scale=0.5)
    return b.build()


INTEGER = integer_net()
FLOAT_TENSORS = {**INTEGER.tensors, "zero": np.zeros(2)}
BROKEN_INTEGERS = [
    (replace(INTEGER, numbers="float"), "%h = host_conv2d: 'host_conv2d' has no meaning in a graph of float numbers"),
    (replace(INTEGER, tensors=FLOAT_TENSORS), "tensor 'zero' has dtype float64, but graph 'inet' holds integers only"),
    (
        with_attr(INTEGER, "c", bias=INTEGER.node("h").attrs["bias"]),
        "%c = conv2d: attribute 'bias' has no meaning in a graph of int numbers",
    ),
    (with_attr(INTEGER, "a", scale=Attr(0.5)), "%a = attn: attribute 'scale' has no meaning in a graph of int numbers"),
    (
        changed(INTEGER, "a", attrs={"heads": Attr(1)}),
        "%a = attn: a graph of int numbers needs attribute 'saturate'",
    ),
]


def test_the_integer_net_is_valid_and_event_driven() -> None:
    verify(INTEGER, event_driven=True)


@pytest.mark.parametrize(("graph", "message"), BROKEN_INTEGERS, ids=[str(i) for i in range(len(BROKEN_INTEGERS))])
def test_broken_rules_of_integers(graph: Graph, message: str) -> None:
    with pytest.raises(VerifyError, match=f"^{re.escape(message)}"):
        verify(graph)


@pytest.mark.parametrize("op", ["lif", "multilevel", "scale", "batch_norm", "pad2d", "readout"])
def test_float_ops_are_no_integer_ops(op: str) -> None:
    assert rule_of(op).numbers == ("float",)


def inserted(graph: Graph, before: str, *nodes: Node, tensors: dict | None = None) -> Graph:
    """``nodes`` put in front of node ``before``, which reads the last of them."""
    at = next(i for i, n in enumerate(graph.nodes) if n.id == before)
    reader = replace(graph.nodes[at], inputs=(Use(nodes[-1].id),))
    return rebuild(
        graph, [*graph.nodes[:at], *nodes, reader, *graph.nodes[at + 1 :]], {**graph.tensors, **(tensors or {})}
    )


def node(op: str, id: str, source: str, **attrs) -> Node:
    return Node(id, op, (Use(source),), {k: Attr(v) for k, v in attrs.items()}, GOOD.node(source).type)


def ref(key: str):
    return GOOD.node("c1").attr("weight").__class__(key)


BN = {"mean": ref("zeros"), "var": ref("ones"), "eps": 1e-5}
STATS = {"zeros": np.zeros(3), "ones": np.ones(3)}
NOT_EVENTS = [
    (
        inserted(GOOD, "s2", node("conv2d", "w", "n", weight=ref("w2"))),
        "folded",
        "%w = conv2d: not event-driven: convolves the real values of %n = sum_positions: a relay hands them on as "
        "graded spikes",
    ),
    (
        inserted(GOOD, "n", node("conv2d", "w", "c2", weight=ref("w2"))),
        "folded",
        '%w = conv2d: not event-driven: linear after linear: folds with %c2 = conv2d "mix" into one convolution',
    ),
    (
        inserted(GOOD, "n", node("batch_norm", "bn", "c2", **BN), tensors=STATS),
        "folded",
        "%bn = batch_norm: not event-driven: constant per channel: folds into the convolution before it",
    ),
    (
        inserted(GOOD, "s2", node("batch_norm", "bn", "n", **BN), tensors=STATS),
        "refused",
        "%bn = batch_norm: not event-driven: batch norm of %n = sum_positions, which is not a convolution that it "
        "alone reads",
    ),
    (
        inserted(GOOD, "s2", node("scale", "k", "n", factor=0.5)),
        "folded",
        "%k = scale: not event-driven: constant factor: folds into the threshold of the neurons that read it",
    ),
    (
        inserted(GOOD, "n", node("scale", "k", "c2", factor=ref("ones")), tensors=STATS),
        "folded",
        '%k = scale: not event-driven: constant factor: folds into %c2 = conv2d "mix"',
    ),
    (
        inserted(GOOD, "s2", node("scale", "k", "n", factor=ref("ones")), tensors=STATS),
        "refused",
        "%k = scale: not event-driven: constant factor between currents, with no weights or threshold to fold into",
    ),
    (
        inserted(GOOD, "n", node("pad2d", "p", "c2", pad=(1, 1), value=ref("zeros")), tensors=STATS),
        "refused",
        "%p = pad2d: not event-driven: padding that does not stand between a 1x1 convolution and one other",
    ),
    (
        inserted(GOOD, "c1", node("maxpool2d", "p", "x", kernel=(1, 1))),
        "refused",
        "%p = maxpool2d: not event-driven: reads the real values of %x = input, with no projection or neuron between",
    ),
    (
        inserted(GOOD, "c1", node("add", "p", "x")),
        "refused",
        "%p = add: not event-driven: reads the real values of %x = input, with no projection or neuron between",
    ),
    (
        changed(GOOD, "n", inputs=(Use("c2", 1),)),
        "core",
        "%n = sum_positions: not event-driven: %c2 is current[3,4,4]; only events can arrive timesteps later",
    ),
]


def test_a_batch_norm_without_a_scale_is_refused() -> None:
    stats = {"zeros": np.zeros(3), "ones": np.array([1.0, -2.0, 1.0])}
    message = "%bn = batch_norm: variances must be above -eps = -1e-05, got -2: the norm has no scale"
    with pytest.raises(VerifyError, match=f"^{re.escape(message)}$"):
        verify(inserted(GOOD, "s2", node("batch_norm", "bn", "c2", **BN), tensors=stats))


@pytest.mark.parametrize(("graph", "place", "message"), NOT_EVENTS, ids=[str(i) for i in range(len(NOT_EVENTS))])
def test_what_is_not_event_driven_is_refused_by_name(graph: Graph, place: str, message: str) -> None:
    verify(graph)
    with pytest.raises(VerifyError, match=f"^{re.escape(message)}$"):
        verify(graph, event_driven=True)
    assert {f.node: f.place for f in findings(graph)}[message[1:].split(" ")[0]] == place


def test_repconv_folds_whole() -> None:
    """1x1, batch norm, padding ring, depthwise 3x3, 1x1: every link of the chain is linear and pointwise."""
    text = """graph rep T=1 float {
      %x = input() shape=(2,6,6) : real[2,6,6]
      %s = lif(%x) tau=2.0 theta=1.0 reset=hard compare=ge decay_input=true : spike[2,6,6] "s"
      %a = conv2d(%s) weight=@one : current[2,6,6] "a"
      %bn = batch_norm(%a) mean=@zeros var=@ones eps=1e-05 : current[2,6,6]
      %ring = pad2d(%bn) pad=(1,1) value=@zeros : current[2,8,8]
      %dw = conv2d(%ring) weight=@dw groups=2 : current[2,6,6] "dw"
      %b = conv2d(%dw) weight=@one : current[2,6,6] "b"
      %n = sum_positions(%b) : current[2,1,1]
      %out = readout(%n) : real[2,1,1] "out"
    }"""
    one = np.eye(2).reshape(2, 2, 1, 1)
    graph = from_text(text, {"one": one, "zeros": np.zeros(2), "ones": np.ones(2), "dw": np.ones((2, 1, 3, 3))})
    verify(graph)
    found = {f.node: (f.place, f.reason) for f in findings(graph)}
    assert found["bn"] == ("folded", "constant per channel: folds into the convolution before it")
    assert found["ring"] == ("folded", 'padding ring: folds with %a = conv2d "a" into the convolution after it')
    assert found["dw"] == ("folded", 'linear after linear: folds with %a = conv2d "a" into one convolution')
    assert found["b"] == ("folded", 'linear after linear: folds with %dw = conv2d "dw" into one convolution')


def by_name(name: str) -> dict[str, tuple[str, str]]:
    return {f.name or f.node: (f.place, f.reason) for f in findings(tiny_models.graph(name))}


def test_findings_of_sdt_v1() -> None:
    found = by_name("sdt_v1")
    assert found["x"] == ("host", "the host sends the samples")
    assert found["patch_embed.proj_conv"] == (
        "host",
        "reads the real input: the host computes it, or 8-bit events carry the input",
    )
    assert found["patch_embed.proj_conv1"] == ("core", "static synapse: spikes select weights")
    assert found["patch_embed.proj_bn"] == ("folded", "constant per channel: folds into the convolution before it")
    assert found["patch_embed.proj_lif"] == ("core", "neuron: adds its input currents, emits a spike")
    assert found["block.0.attn.kv"] == ("core", "AND gate: a spike passes where the mask has one")
    pools = [v for k, v in found.items() if k.startswith("maxpool2d")]
    current = "current pool: the window's currents meet on one core at the end of a timestep"
    assert pools == [("core", "pool on events: OR over a window")] * 2 + [("core", current)]
    assert found["head"] == ("core", "accumulates logits over the timesteps")
    reasons = {reason for _, reason in found.values()}
    assert "accumulator: currents add up, no multiply" in reasons
    assert "static synapse: one constant weight per channel" in reasons
    assert "constant factor: folds into the threshold of the neurons that read it" in reasons


def test_findings_of_the_other_families() -> None:
    found = by_name("spikformer")
    assert found["block.0.attn.q_linear"] == ("core", "static synapse: codes times weights")
    reasons = {reason for _, reason in found.values()}
    assert "sum of codes: the events of every term go into the readers' synapses" in reasons
    assert "sum over positions: the events of every position go into the readers' synapses" in reasons
    assert "dynamic synapse: k and v events write a 8x8 table per head, q events read it" in reasons
    found = by_name("sdt_v3")
    assert found["block3.0.attn.q_spike"] == ("core", "neuron: emits a graded spike (3 bits)")
    assert "dynamic synapse: k and v events write a 6x24 table per head, q events read it" in {
        r for _, r in found.values()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_families_have_no_refused_layer(name: str) -> None:
    found = findings(tiny_models.graph(name))
    assert [f.node for f in found] == [n.id for n in tiny_models.graph(name)]
    assert {f.place for f in found} == {"core", "host", "folded"}
    assert [f.op for f in found if f.place == "host"] == ["input", "conv2d"]
    assert all(f.event_driven == (f.place != "host") for f in found)


def test_every_op_has_a_rule() -> None:
    assert [spec.name for spec in known_ops() if rule_of(spec.name).explain is rule_of("no such op").explain] == []


def test_an_op_without_a_rule_is_refused_and_rules_are_given_once() -> None:
    graph = changed(net(), "n", op="softmax")
    place, reason = rule_of("softmax").explain(_site(graph, "n"))
    assert (place, reason) == ("refused", "nothing says how 'softmax' becomes events")
    with pytest.raises(VerifyError, match="^op 'add' has two rules$"):
        register_rule("add", Rule(lambda site: ("core", "")))


def _site(graph: Graph, node_id: str):
    from nmc_compiler.graph.verify import Site

    return Site(graph.node(node_id), graph, graph.by_id(), graph.users())
