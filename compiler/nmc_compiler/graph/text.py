"""Text form of a graph: one line per node, round-trips exactly, short enough to paste into an issue.

    graph sdt_v1 T=4 float {
      %x = input() shape=(1,32,32)~config : real[1,32,32]
      %c0 = conv2d(%x) weight=@.weight~checkpoint pad=(1,1)~family : current[8,32,32] "patch_embed.proj_conv"
      %g = add(%c0, %h[-1]) : current[8,32,32]
    }

``%h[-1]`` is the value of %h one timestep ago. ``~family`` says where a value came from; "derived"
is left out. ``@key`` is a tensor, ``@.weight`` stands for the node's name + ".weight". What is not
a plain word is quoted as in JSON. The header line may add ``record_time=false`` and ``input_time=true``.
Arrays are not part of the text (see ``store``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.graph import Graph, Node, Use
from nmc_compiler.graph.registry import op_spec
from nmc_compiler.graph.types import EVIDENCE, Attr, AttrValue, Kind, Ref, ValueType

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?(?:inf\b|nan\b|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_WHOLE = re.compile(r"[0-9]+")
_SPACE = re.compile(r"[ \t\r]*")
_RESERVED = ("true", "false", "inf", "nan")
_MAX_DIGITS = 40  # longest number; Python refuses to read very long ones, and no attribute needs them
_FLAGS = {"record_time": True, "input_time": False}


# ---- writing ----


def to_text(graph: Graph) -> str:
    """Text of a graph, the same for equal graphs.

    VerifyError: a value that the text form has no spelling for (no registered op has such).
    """
    words = ["graph", _bare(graph.name), f"T={graph.timesteps}", graph.numbers]
    words += [f"{k}={_value(getattr(graph, k))}" for k, usual in _FLAGS.items() if getattr(graph, k) != usual]
    return "\n".join([" ".join([*words, "{"]), *(f"  {_node_text(n)}" for n in graph), "}", ""])


def _node_text(node: Node) -> str:
    uses = ", ".join(f"%{_bare(u.node)}" + (f"[-{u.lag}]" if u.lag else "") for u in node.inputs)
    attrs = [f"{key}={_attr_text(attr, node.name)}" for key, attr in node.attrs.items()]
    name = [_quote(node.name)] if node.name else []
    return " ".join([f"%{_bare(node.id)} = {node.op}({uses})", *attrs, ":", str(node.type), *name])


def _attr_text(attr: Attr, name: str) -> str:
    value = attr.value
    text = _value(value)
    if isinstance(value, Ref) and name and value.key.startswith(name + "."):
        rest = value.key[len(name) + 1 :]
        text = f"@.{rest}" if _BARE.fullmatch(rest) else text
    return text if attr.evidence == "derived" else f"{text}~{attr.evidence}"


def _value(value: AttrValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, Ref):
        return "@" + _bare(value.key)
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) and value not in _RESERVED else _quote(value)
    if isinstance(value, tuple) and all(type(v) is int for v in value):
        return "(" + ",".join(map(str, value)) + ")"
    raise VerifyError(f"the text form of a graph cannot hold an attribute value {value!r}")


def _bare(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quote(name)


def _quote(text: str) -> str:
    return json.dumps(text)


# ---- reading ----


def from_text(text: str, tensors: Mapping[str, np.ndarray]) -> Graph:
    """The graph that ``to_text`` wrote; ``tensors`` are the arrays its attributes refer to.

    Every node's operands, attributes, tensors and type are checked against its op. VerifyError on
    anything malformed, with line and column.
    """
    lines = [_Line(body, i + 1) for i, body in enumerate(text.split("\n")) if body.strip(" \t\r")]
    if not lines:
        raise VerifyError("graph text is empty; expected 'graph NAME T=4 float {'")
    name, timesteps, numbers, flags = _header(lines[0])
    if len(lines) < 2 or not lines[-1].accept("}"):
        raise lines[-1].error("expected '}' after the last node")
    lines[-1].end()
    parsed = [_node(line) for line in lines[1:-1]]
    nodes = _checked(parsed, dict(tensors))
    return Graph(name, timesteps, nodes, dict(tensors), numbers, **flags)


class _Line:
    """One line and a read position in it."""

    def __init__(self, body: str, number: int) -> None:
        self.body, self.number, self.pos = body, number, 0
        self.skip()

    def skip(self) -> None:
        match = _SPACE.match(self.body, self.pos)
        self.pos = match.end() if match else self.pos

    def where(self, at: int) -> str:
        return f"graph text, line {self.number}, column {at + 1}"

    def error(self, what: str, at: int | None = None) -> VerifyError:
        at = self.pos if at is None else at
        found = self.body[at : at + 24].rstrip()
        shown = ascii(found) if found else "the end of the line"
        return VerifyError(f"{self.where(at)}: {what}, found {shown}")

    def accept(self, literal: str) -> bool:
        if not self.body.startswith(literal, self.pos):
            return False
        self.pos += len(literal)
        self.skip()
        return True

    def expect(self, literal: str) -> None:
        if not self.accept(literal):
            raise self.error(f"expected '{literal}'")

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self.body, self.pos)
        if match is None:
            raise self.error(f"expected {what}")
        self.pos = match.end()
        self.skip()
        return match.group()

    def whole(self, what: str) -> int:
        at = self.pos
        return int(self._short(self.take(_WHOLE, what), at))

    def number_value(self) -> int | float:
        at = self.pos
        token = self._short(self.take(_NUMBER, "a number"), at)
        if not set(token) & set(".eEn"):
            return int(token)
        value = float(token)
        if math.isinf(value) and "inf" not in token:
            raise self.error("number too large for a float", at)
        return value

    def _short(self, token: str, at: int) -> str:
        if len(token) > _MAX_DIGITS:
            raise self.error(f"a number may have at most {_MAX_DIGITS} characters", at)
        return token

    def quoted(self) -> str:
        at = self.pos
        token = self.take(_QUOTED, "a quoted string")
        try:
            value = json.loads(token)
            value.encode("utf-8")
        except ValueError:  # a bad escape, a control character, half of a surrogate pair
            raise self.error("this is not a valid JSON string", at) from None
        return value

    def name(self, what: str) -> str:
        return self.quoted() if self.body.startswith('"', self.pos) else self.take(_BARE, what)

    def end(self) -> None:
        if self.pos < len(self.body):
            raise self.error("expected the end of the line")


def _header(line: _Line) -> tuple[str, int, str, dict[str, bool]]:
    at = line.pos
    if line.take(_WORD, "'graph'") != "graph":
        raise line.error("expected 'graph NAME T=4 float {'", at)
    name = line.name("the graph's name")
    line.expect("T=")
    timesteps = line.whole("a number of timesteps")
    at = line.pos
    numbers = line.take(_WORD, "'float' or 'int'")
    if numbers not in ("float", "int"):
        raise line.error("expected 'float' or 'int'", at)
    flags: dict[str, bool] = {}
    while not line.accept("{"):
        key = next((k for k in _FLAGS if k not in flags and line.accept(f"{k}=")), None)
        if key is None:
            raise line.error("expected 'record_time=', 'input_time=' or '{'")
        flags[key] = _boolean(line)
    line.end()
    return name, timesteps, numbers, flags


def _boolean(line: _Line) -> bool:
    at = line.pos
    word = line.take(_WORD, "'true' or 'false'")
    if word not in ("true", "false"):
        raise line.error("expected 'true' or 'false'", at)
    return word == "true"


class _Own(str):
    """A tensor key as in ``@.weight``, until the node's name is read."""


@dataclass(frozen=True)
class _Parsed:
    """A node as written, and the columns that errors point at."""

    node: Node
    line: _Line
    op_at: int
    use_at: tuple[int, ...]
    ref_at: dict[str, int]
    type_at: int

    def where(self, at: int) -> str:
        label = f' "{self.node.name}"' if self.node.name else ""
        return f"{self.line.where(at)}: %{self.node.id} = {self.node.op}{label}"


def _node(line: _Line) -> _Parsed:
    line.expect("%")
    node_id = line.name("a node id")
    line.expect("=")
    op_at = line.pos
    op = line.take(_WORD, "the name of an op")
    uses, use_at = _uses(line)
    values: dict[str, tuple[AttrValue, str, int]] = {}
    while not line.accept(":"):
        at = line.pos
        key = line.take(_WORD, "an attribute or ': type'")
        if key in values:
            raise line.error(f"attribute '{key}' is given twice", at)
        line.expect("=")
        at = line.pos
        values[key] = (_attr_value(line), _evidence(line), at)
    type_at = line.pos
    type_ = _type(line)
    name = line.quoted() if line.pos < len(line.body) else ""
    line.end()
    attrs = {k: Attr(_full_key(v, name, line, at), evidence) for k, (v, evidence, at) in values.items()}
    node = Node(node_id, op, uses, attrs, type_, name)
    return _Parsed(node, line, op_at, use_at, {k: at for k, (_, _, at) in values.items()}, type_at)


def _uses(line: _Line) -> tuple[tuple[Use, ...], tuple[int, ...]]:
    line.expect("(")
    uses: list[Use] = []
    places: list[int] = []
    while not line.accept(")"):
        if uses:
            line.expect(",")
        places.append(line.pos)
        line.expect("%")
        node_id = line.name("a node id")
        lag = 0
        if line.accept("[-"):
            lag = line.whole("a lag in timesteps")
            line.expect("]")
            if not lag:
                raise line.error("a lag must be at least 1", places[-1])
        uses.append(Use(node_id, lag))
    return tuple(uses), tuple(places)


def _attr_value(line: _Line) -> AttrValue:
    if line.accept("@."):
        return _Own(line.take(_BARE, "a tensor name"))
    if line.accept("@"):
        return Ref(line.name("a tensor name"))
    if line.body.startswith('"', line.pos):
        return line.quoted()
    if line.accept("("):
        return _tuple(line)
    if _NUMBER.match(line.body, line.pos):
        return line.number_value()
    word = line.take(_WORD, "a value")
    return word == "true" if word in ("true", "false") else word


def _tuple(line: _Line) -> tuple[int, ...]:
    items: list[int] = []
    while not line.accept(")"):
        if items:
            line.expect(",")
        at = line.pos
        item = line.number_value()
        if not isinstance(item, int):
            raise line.error("a tuple holds whole numbers", at)
        items.append(item)
    return tuple(items)


def _full_key(value: AttrValue, name: str, line: _Line, at: int) -> AttrValue:
    """``@.weight`` written out."""
    if not isinstance(value, _Own):
        return value
    if not name:
        raise line.error("a tensor written '@.x' needs a node with a name", at)
    return Ref(f"{name}.{value}")


def _evidence(line: _Line) -> str:
    if not line.accept("~"):
        return "derived"
    at = line.pos
    word = line.take(_WORD, "where the value came from")
    if word not in EVIDENCE:
        raise line.error(f"evidence must be one of {', '.join(EVIDENCE)}", at)
    return word


def _type(line: _Line) -> ValueType:
    at = line.pos
    word = line.take(_WORD, "a type")
    if word not in list(Kind):
        raise line.error(f"a type is one of {', '.join(Kind)}", at)
    line.expect("[")
    c = line.whole("a size")
    line.expect(",")
    h = line.whole("a size")
    line.expect(",")
    w = line.whole("a size")
    line.expect("]")
    if word != Kind.GRADED:
        return ValueType(Kind(word), (c, h, w))
    line.expect(":")
    signed = line.accept("s")
    if not signed:
        line.expect("u")
    return ValueType(Kind.GRADED, (c, h, w), line.whole("a number of bits"), signed)


# ---- meaning: what is written must be a graph ----


def _checked(parsed: list[_Parsed], tensors: dict[str, np.ndarray]) -> tuple[Node, ...]:
    written: dict[str, ValueType] = {}
    for p in parsed:
        if p.node.id in written:
            raise VerifyError(f"{p.line.where(0)}: node '%{p.node.id}' is defined twice")
        written[p.node.id] = p.node.type
    seen: set[str] = set()
    for p in parsed:
        _check_operands(p, seen, written)
        _check_meaning(p, written, tensors)
        seen.add(p.node.id)
    return tuple(p.node for p in parsed)


def _check_operands(p: _Parsed, seen: set[str], written: dict[str, ValueType]) -> None:
    for use, at in zip(p.node.inputs, p.use_at, strict=True):
        if use.node not in written:
            raise VerifyError(f"{p.where(at)}: operand %{use.node} does not exist")
        if not use.lag and use.node not in seen:
            raise VerifyError(f"{p.where(at)}: operand %{use.node} is not defined before its use")


def _check_meaning(p: _Parsed, written: dict[str, ValueType], tensors: dict[str, np.ndarray]) -> None:
    where = p.where(p.op_at)
    try:
        spec = op_spec(p.node.op)
    except VerifyError as error:
        raise VerifyError(f"{p.line.where(p.op_at)}: {error}") from None
    spec.check_attrs(p.node.attrs, where)
    spec.check_arity(len(p.node.inputs), where)
    for key, attr in p.node.attrs.items():
        if isinstance(attr.value, Ref) and attr.value.key not in tensors:
            raise VerifyError(f"{p.where(p.ref_at[key])}: tensor '{attr.value.key}' does not exist")
    type_ = spec.infer([written[u.node] for u in p.node.inputs], p.node.attrs, tensors, where)
    if type_ != p.node.type:
        raise VerifyError(f"{p.where(p.type_at)}: written as {p.node.type}, but the op gives {type_}")
