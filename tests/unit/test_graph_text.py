"""The text form: goldens of the three families, exact round trips, and a place for every error."""

import numpy as np
import pytest
import tiny_models
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Kind, Node, OpSpec, Ref, Use, ValueType, known_ops
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.types import EVIDENCE

FAMILIES = tuple(tiny_models.CONFIGS)


def same(a: Graph, b: Graph) -> bool:
    fields = ("name", "timesteps", "nodes", "numbers", "record_time", "input_time")
    keys = [list(n.attrs) for n in a] == [list(n.attrs) for n in b]  # dicts compare equal in any order
    values = [type(x.value) for n in a for x in n.attrs.values()]
    return (
        all(getattr(a, f) == getattr(b, f) for f in fields)
        and keys
        and values == [type(x.value) for n in b for x in n.attrs.values()]
        and a.tensors.keys() == b.tensors.keys()
        and all(a.tensors[k] is b.tensors[k] for k in a.tensors)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_text_of_each_family_is_the_golden(name: str) -> None:
    golden = tiny_models.golden_text(name)
    assert to_text(tiny_models.graph(name)) == golden.read_text(encoding="utf-8"), (
        f"the text of {name} changed; if that is meant, run: python tests/tiny_models.py"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_families_round_trip(name: str) -> None:
    graph = tiny_models.graph(name)
    again = from_text(to_text(graph), graph.tensors)
    assert same(graph, again)
    assert to_text(again) == to_text(graph)


def recurrent() -> Graph:
    """%h adds its own output of one timestep ago; the text form is the only way to write it by hand."""
    weight = np.ones((2, 2, 1, 1))
    text = """graph loop T=3 float input_time=true {
      %x = input() shape=(2,1,1)~config : real[2,1,1]
      %in = conv2d(%x) weight=@w : current[2,1,1]
      %back = map(%h[-1]) mode=same : current[2,1,1]
      %sum = add(%in, %back) : current[2,1,1]
      %h = lif(%sum) tau=2.0 theta=0.5 reset=hard compare=ge decay_input=true : spike[2,1,1] "h"
      %o = map(%h) mode=reduce : current[2,1,1]
      %out = readout(%o) : real[2,1,1] "head"
    }
    """
    return from_text(text, {"w": weight})


def test_lagged_operand_reads_a_later_line() -> None:
    graph = recurrent()
    assert graph.node("back").inputs == (Use("h", 1),)
    assert graph.input_time
    assert graph.record_time
    assert "%back = map(%h[-1]) mode=same : current[2,1,1]\n" in to_text(graph)
    assert same(graph, from_text(to_text(graph), graph.tensors))


def test_own_tensors_are_short_and_others_are_whole() -> None:
    b = GraphBuilder("g", 1)
    x = b.add("input", id="x", shape=(1, 2, 2))
    w = np.ones((1, 1, 1, 1))
    weight = Attr(b.tensor("a.b.weight@int", w), "checkpoint")
    own = b.add("conv2d", x, id="own", name="a.b", weight=weight)
    b.add("conv2d", x, id="other", name="a", weight=b.tensor("z.weight", w))
    b.add("conv2d", x, id="odd", name="a", weight=b.tensor("a..w", w))
    b.add("conv2d", x, id="blank", name="a", weight=b.tensor("a. w", w))
    lines = to_text(b.build()).splitlines()
    assert lines[2] == f'  %{own} = conv2d(%x) weight=@.weight@int~checkpoint : current[1,2,2] "a.b"'
    assert lines[3] == '  %other = conv2d(%x) weight=@z.weight : current[1,2,2] "a"'
    assert lines[4] == '  %odd = conv2d(%x) weight=@a..w : current[1,2,2] "a"'
    assert lines[5] == '  %blank = conv2d(%x) weight=@"a. w" : current[1,2,2] "a"'
    assert same(b.build(), from_text(to_text(b.build()), b.build().tensors))


def test_values_without_a_spelling_are_refused() -> None:
    node = Node("x", "input", (), {"shape": Attr((1.5, 2))}, ValueType(Kind.REAL, (1, 1, 1)))
    with pytest.raises(VerifyError, match=r"cannot hold an attribute value \(1\.5, 2\)"):
        to_text(Graph("g", 1, (node,), {}))


NAMES = st.text(max_size=8) | st.sampled_from(["a.b", "block.0.attn.q_lif", "true", "inf", "{", "}", "%x", "~", '"'])
NUMBERS = st.floats(allow_nan=False) | st.integers(-(10**30), 10**30)
EVIDENCES = st.sampled_from(EVIDENCE)


@st.composite
def graphs(draw) -> Graph:
    """Random chains of ops with random ids, names, keys, numbers, evidence and flags."""
    timesteps = draw(st.integers(1, 9))
    flags = {"record_time": draw(st.booleans()), "input_time": draw(st.booleans())}
    numbers = draw(st.sampled_from(["float", "int"]))
    b = GraphBuilder(draw(NAMES.filter(bool)), timesteps, numbers, **flags)
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    ids = draw(st.lists(NAMES.filter(bool), min_size=7, max_size=7, unique=True))
    keys = draw(st.lists(st.text(max_size=8), min_size=3, max_size=3, unique=True))

    def attr(value):
        return Attr(value, draw(EVIDENCES))

    x = b.add("input", id=ids[0], name=draw(NAMES), shape=attr(shape))
    weight = np.zeros((2, shape[0], 1, 1), draw(st.sampled_from(["f4", "f8", "i8"])))
    y = b.add("conv2d", x, id=ids[1], name=draw(NAMES), weight=attr(b.tensor(keys[0], weight)))
    factor = attr(draw(NUMBERS)) if draw(st.booleans()) else attr(b.tensor(keys[1], np.zeros(2)))
    y = b.add("scale", y, id=ids[2], name=draw(NAMES), factor=factor)
    y = b.add("add", y, Use(y, draw(st.integers(0, 99))), id=ids[3])
    s = b.add(
        "lif", y, id=ids[4], name=draw(NAMES), tau=attr(draw(st.floats(1, 1e300))), theta=attr(draw(NUMBERS)),
        reset=attr("hard"), compare="gt", decay_input=attr(draw(st.booleans())),
        bias=attr(b.tensor(keys[2], np.zeros(2))), role=attr(draw(NAMES)),
    )  # fmt: skip
    m = b.add("multilevel", y, id=ids[5], name=draw(NAMES), levels=draw(st.integers(1, 9)), rounding="half_up")
    b.add("attn", s, s, Use(m, draw(st.integers(0, 3))), id=ids[6], heads=1)
    return b.build()


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_any_graph_round_trips(graph: Graph) -> None:
    text = to_text(graph)
    again = from_text(text, graph.tensors)
    assert same(graph, again)
    assert to_text(again) == text


GOOD = """graph g T=2 float {
  %x = input() shape=(2,4,4)~config : real[2,4,4]
  %c = conv2d(%x) weight=@.weight~checkpoint pad=(1,1)~family : current[3,4,4] "conv"
  %s = lif(%c) tau=2.0 theta=1.0 reset=hard compare=ge decay_input=true : spike[3,4,4] "lif"
  %m = multilevel(%c) levels=4 norm=4 rounding=half_even : graded[3,4,4]:u3 "ml"
  %r = map(%s[-1]) mode=reduce : current[3,1,1]
}
"""
TENSORS = {"conv.weight": np.zeros((3, 2, 3, 3)), "short": np.zeros(2)}


def test_the_text_of_the_error_table_is_good() -> None:
    graph = from_text(GOOD, TENSORS)
    assert to_text(graph) == GOOD
    assert from_text(GOOD.replace("\n", "  \r\n\n"), TENSORS).nodes == graph.nodes


ERRORS = [
    (GOOD, "", "graph text is empty; expected 'graph NAME T=4 float {'"),
    ("graph g", "grap g", "line 1, column 1: expected 'graph NAME T=4 float {', found 'grap g T=2 float {'"),
    ("graph g", 'graph "g', "line 1, column 7: expected a quoted string, found '\"g T=2 float {'"),
    ("T=2", "T=-1", "line 1, column 11: expected a number of timesteps, found '-1 float {'"),
    ("T=2", "T=two", "line 1, column 11: expected a number of timesteps, found 'two float {'"),
    ("T=2", f"T={'9' * 41}", f"line 1, column 11: a number may have at most 40 characters, found '{'9' * 24}'"),
    ("float {", "real {", "line 1, column 13: expected 'float' or 'int', found 'real {'"),
    ("float {", "float", "line 1, column 18: expected 'record_time=', 'input_time=' or '{', found the end of the line"),
    ("float {", "float record_time=no {", "line 1, column 31: expected 'true' or 'false', found 'no {'"),
    ("\n}\n", "\n", "line 6, column 3: expected '}' after the last node, found '%r = map(%s[-1]) mode=re'"),
    ("\n}\n", "\n} x\n", "line 7, column 3: expected the end of the line, found 'x'"),
    ("%x = input", "x = input", "line 2, column 3: expected '%', found 'x = input() shape=(2,4,4'"),
    ("%x = input", "%x input", "line 2, column 6: expected '=', found 'input() shape=(2,4,4)~co'"),
    ("= input", "= inputs", "line 2, column 8: unknown op 'inputs'; known ops: "),
    ("(%x)", "(%x", "line 3, column 18: expected ',', found 'weight=@.weight~checkpoi'"),
    ("(%x)", "(x)", "line 3, column 15: expected '%', found 'x) weight=@.weight~check'"),
    ("(%x)", "(%x, %x)", 'line 3, column 8: %c = conv2d "conv": takes 1 operand(s), got 2'),
    ("(%x)", "(%y)", 'line 3, column 15: %c = conv2d "conv": operand %y does not exist'),
    ("(%x)", "(%s)", 'line 3, column 15: %c = conv2d "conv": operand %s is not defined before its use'),
    ("%s[-1]", "%r", "line 6, column 12: %r = map: operand %r is not defined before its use"),
    ("[-1]", "[-0]", "line 6, column 12: a lag must be at least 1, found '%s[-0]) mode=reduce : cu'"),
    ("[-1]", "[-]", "line 6, column 16: expected a lag in timesteps, found ']) mode=reduce : current'"),
    ("[-1]", "[+1]", "line 6, column 14: expected ',', found '[+1]) mode=reduce : curr'"),
    ("@.weight", "@weight", "line 3, column 26: %c = conv2d \"conv\": tensor 'weight' does not exist"),
    ("@.weight", "@", "line 3, column 27: expected a tensor name, found '~checkpoint pad=(1,1)~fa'"),
    (
        ' "conv"',
        "",
        "line 3, column 26: a tensor written '@.x' needs a node with a name, found '@.weight~checkpoint pad='",
    ),
    ("~checkpoint", "~guess", "line 3, column 35: evidence must be one of checkpoint, config, family, trace, "),
    ("pad=(1,1)", "pad=(1,1", "line 3, column 54: expected ',', found '~family : current[3,4,4]'"),
    ("pad=(1,1)", "pad=(1,0.5)", "line 3, column 53: a tuple holds whole numbers, found '0.5)~family : current[3,'"),
    ("pad=(1,1)", "pad=(1,1,1)", 'line 3, column 8: %c = conv2d "conv": pad must be two numbers (y, x), got (1, 1, 1)'),
    ("pad=(1,1)", "pad=1", "line 3, column 8: %c = conv2d \"conv\": attribute 'pad' cannot be 1"),
    (
        "pad=(1,1)",
        "pad=(1,1) pad=(1,1)",
        "line 3, column 56: attribute 'pad' is given twice, found 'pad=(1,1)~family : curre'",
    ),
    (
        "pad=(1,1)",
        "par=(1,1)",
        "line 3, column 8: %c = conv2d \"conv\": op 'conv2d' has no attribute 'par' (it has: bias, ",
    ),
    ("pad=", "pad", "line 3, column 49: expected '=', found '(1,1)~family : current[3'"),
    ("theta=1.0 ", "", "line 4, column 8: %s = lif \"lif\": attribute 'theta' is missing"),
    ("theta=1.0", "theta=1e999", "line 4, column 30: number too large for a float, found '1e999 reset=hard compare'"),
    ("theta=1.0", "theta=", "line 4, column 36: expected an attribute or ': type', found '=hard compare=ge decay_i'"),
    ("theta=1.0", "theta=yes", "line 4, column 8: %s = lif \"lif\": attribute 'theta' cannot be 'yes'"),
    ("spike[3,4,4]", "spike[3,4]", "line 4, column 84: expected ',', found '] \"lif\"'"),
    (
        "spike[3,4,4]",
        "spikes[3,4,4]",
        "line 4, column 75: a type is one of real, current, spike, graded, sites, found 'spikes",
    ),
    (
        "spike[3,4,4]",
        "spike[3,4,5]",
        'line 4, column 75: %s = lif "lif": written as spike[3,4,5], but the op gives spike[3,4,4]',
    ),
    (":u3", "", "line 5, column 74: expected ':', found '\"ml\"'"),
    (":u3", ":3", "line 5, column 74: expected 'u', found '3 \"ml\"'"),
    (
        ":u3",
        ":s3",
        'line 5, column 60: %m = multilevel "ml": written as graded[3,4,4]:s3, but the op gives graded[3,4,4]:u3',
    ),
    ('"lif"', '"lif', "line 4, column 88: expected a quoted string, found '\"lif'"),
    ('"lif"', '"li\\q"', "line 4, column 88: this is not a valid JSON string, found '\"li\\\\q\"'"),
    ('"lif"', '"\\ud800"', "line 4, column 88: this is not a valid JSON string, found '\"\\\\ud800\"'"),
    ('"lif"', '"lif" x', "line 4, column 94: expected the end of the line, found 'x'"),
    ("%m = multi", "%s = multi", "line 5, column 1: node '%s' is defined twice"),
]


@pytest.mark.parametrize(("old", "new", "message"), ERRORS, ids=[f"{i}" for i in range(len(ERRORS))])
def test_malformed_text_is_placed(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(VerifyError) as error:
        from_text(GOOD.replace(old, new, 1), TENSORS)
    assert message in str(error.value)


def read_or_refuse(text: str) -> None:
    """Whatever reads must be a graph that is written and read again unchanged."""
    try:
        graph = from_text(text, TENSORS)
    except VerifyError as error:
        assert "line " in str(error) or "empty" in str(error)
        return
    written = to_text(graph)  # compared as text: a NaN is no equal of itself
    assert to_text(from_text(written, TENSORS)) == written


ODD = ["-", "@short", "[-1]", "~", "nan", "-inf", "1e5", '"', "\x00", "\u2028", "((((", "99999999999999999999"]
TOKENS = sorted({*GOOD.replace("(", " ( ").replace(",", " , ").split(), *ODD, "add(%c,%c)", "sum_positions", "int"})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_text_only_raises_verify_error(data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        drop = data.draw(st.integers(0, 6))
        put = data.draw(st.sampled_from(TOKENS) | st.text(max_size=4))
        text = text[:at] + put + text[at + drop :]
    read_or_refuse(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=30).map(" ".join) | st.text())
@example("graph a T=1 int {\n%x=input()shape=(1,1,1):real[1,1,1]\n}")
@example("graph a T=1 int {\n%x=input()shape=():real[1,1,1]\n}")
def test_any_text_only_raises_verify_error(text: str) -> None:
    read_or_refuse(text)


VALUES = ["(1)", "(1,1)", "(0,0)", "(-1,-1)", "(3,3,3)", "()", "0", "-1", "4", "nan", "-inf", "1e300", "@short"]
VALUES += ["@conv.weight", "hard", '""', "true", "99999999999999999999"]
USUAL = {
    "mode": ["same", "reduce", "broadcast", "window", "reduce_channels", "broadcast_channels"] * 2,
    "rounding": ["half_up"] * 9,
    "compare": ["ge"] * 9,
    "reset": ["soft"] * 9,
    "order": ["qk"] * 5,
    "decay_input": ["true"] * 9,
}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(known_ops()), st.data())
def test_odd_attributes_only_raise_verify_error(spec: OpSpec, data: st.DataObject) -> None:
    """Every op refuses wrong attribute values by name, on every kind of operand."""
    fewest, most = (0, 3) if spec.arity is None else (spec.arity, spec.arity)
    uses = data.draw(st.lists(st.sampled_from(["%x", "%c", "%s", "%m"]), min_size=fewest, max_size=most))
    extra = data.draw(st.lists(st.sampled_from(sorted(spec.attrs)), unique=True)) if spec.attrs else []
    keys = [*spec.required, *(k for k in extra if k not in spec.required)]
    attrs = " ".join(f"{k}={data.draw(st.sampled_from(VALUES + USUAL.get(k, [])))}" for k in keys)
    line = f"  %o = {spec.name}({', '.join(uses)}) {attrs} : current[3,4,4]\n"
    read_or_refuse(GOOD.replace("}\n", line + "}\n"))


def test_refs_need_not_be_used() -> None:
    assert from_text(GOOD, TENSORS).tensors.keys() == TENSORS.keys()
    assert Ref("short").key in from_text(GOOD, TENSORS).tensors
