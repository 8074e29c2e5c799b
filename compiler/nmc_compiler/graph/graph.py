"""SpikeGraph: a typed dataflow graph over one timestep, plus the number of timesteps T."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.registry import op_spec
from nmc_compiler.graph.types import Attr, AttrValue, Ref, ValueType


@dataclass(frozen=True)
class Use:
    """One operand: a node id, ``lag`` timesteps ago (0: this timestep)."""

    node: str
    lag: int = 0


@dataclass(frozen=True)
class Node:
    """One operation. ``name`` is the authors' module name, for neurons and whatever a user would look up."""

    id: str
    op: str
    inputs: tuple[Use, ...]
    attrs: dict[str, Attr]
    type: ValueType
    name: str = ""

    def attr(self, key: str, default: Any = None) -> Any:
        """Value of an attribute; ``default`` where it is absent."""
        found = self.attrs.get(key)
        return default if found is None else found.value

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(use.node for use in self.inputs)

    def with_attrs(self, **values: Attr) -> Node:
        return replace(self, attrs={**self.attrs, **values})


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every unlagged operand comes first.

    ``timesteps`` 0: a stream, as many as the input has (graphs with ``output`` nodes only).
    ``numbers`` is "float" (as trained) or "int" (as the chip computes). ``tensors`` holds the
    arrays that attributes refer to. ``record_time`` is False where the authors' recordings have
    no time axis (T = 1 models).
    """

    name: str
    timesteps: int
    nodes: tuple[Node, ...]
    tensors: dict[str, np.ndarray] = field(repr=False)
    numbers: str = "float"
    record_time: bool = True
    input_time: bool = False

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from nmc_compiler.graph.notebook import graph_html

        return graph_html(self)

    def node(self, node_id: str) -> Node:
        return self.by_id()[node_id]

    def by_id(self) -> dict[str, Node]:
        return {n.id: n for n in self.nodes}

    @property
    def outputs(self) -> list[Node]:
        """Output nodes; a graph that has some is read at every step and has no read-out."""
        return [n for n in self.nodes if n.op == "output"]

    @property
    def sources(self) -> list[Node]:
        """Input nodes."""
        return [n for n in self.nodes if n.op == "input"]

    def users(self) -> dict[str, list[Node]]:
        """Nodes that read each node, in graph order (a node that reads twice appears twice)."""
        out: dict[str, list[Node]] = {n.id: [] for n in self.nodes}
        for n in self.nodes:
            for operand in n.operands:
                out[operand].append(n)
        return out

    def tensor(self, node: Node, attr: str) -> np.ndarray | None:
        """Array that an attribute refers to, or None where the attribute is absent."""
        ref = node.attr(attr)
        return None if ref is None else self.tensors[ref.key]


def label(node: Node) -> str:
    """How a report or an error names a node."""
    return node.name or f"%{node.id}"


class GraphBuilder:
    """Builds a graph node by node; types are inferred as each node is added."""

    def __init__(self, name: str, timesteps: int, numbers: str = "float", **flags: bool) -> None:
        self.name, self.timesteps, self.numbers, self.flags = name, timesteps, numbers, flags
        self.nodes: dict[str, Node] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.declared: dict[str, ValueType] = {}

    def declare(self, id: str, type: ValueType) -> str:
        """Announce a node that is added later, so that earlier ones can read it with a lag."""
        self.declared[id] = type
        return id

    def tensor(self, key: str, array: np.ndarray) -> Ref:
        """Store an array; the same key twice must hold the same array."""
        if key in self.tensors and self.tensors[key] is not array:
            raise VerifyError(f"tensor '{key}' is stored twice with different arrays")
        self.tensors[key] = array
        return Ref(key)

    def add(
        self,
        op: str,
        *inputs: str | Use,
        id: str | None = None,
        name: str = "",
        **attrs: Attr | AttrValue | None,
    ) -> str:
        """Append a node and return its id. Attributes given as plain values get evidence "derived"."""
        uses = tuple(i if isinstance(i, Use) else Use(i) for i in inputs)
        wrapped = {k: v if isinstance(v, Attr) else Attr(v) for k, v in attrs.items() if v is not None}
        node_id = id or self._fresh(op)
        if node_id in self.nodes:
            raise VerifyError(f"node '%{node_id}' is defined twice")
        spec = op_spec(op)
        where = f"%{node_id} = {op}" + (f' "{name}"' if name else "")
        spec.check_attrs(wrapped, where)
        types = []
        for use in uses:
            if use.node in self.nodes:
                types.append(self.nodes[use.node].type)
            elif use.lag and use.node in self.declared:
                types.append(self.declared[use.node])
            else:
                raise VerifyError(f"{where}: operand %{use.node} is not defined before its use")
        spec.check_arity(len(uses), where)
        type_ = spec.infer(types, wrapped, self.tensors, where)
        if self.declared.get(node_id, type_) != type_:
            raise VerifyError(f"{where}: declared as {self.declared[node_id]}, but the op gives {type_}")
        self.nodes[node_id] = Node(node_id, op, uses, wrapped, type_, name)
        return node_id

    def _fresh(self, op: str) -> str:
        k = len(self.nodes)
        while f"{op}{k}" in self.nodes:
            k += 1
        return f"{op}{k}"

    def build(self) -> Graph:
        missing = next((i for i in self.declared if i not in self.nodes), None)
        if missing is not None:
            raise VerifyError(f"graph '{self.name}': %{missing} is declared but never added")
        used = {a.value.key for n in self.nodes.values() for a in n.attrs.values() if isinstance(a.value, Ref)}
        tensors = {k: v for k, v in self.tensors.items() if k in used}
        return Graph(self.name, self.timesteps, tuple(self.nodes.values()), tensors, self.numbers, **self.flags)


def rebuild(graph: Graph, nodes: list[Node], tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Graph:
    """A graph with other nodes (and tensors): unused tensors dropped, every type inferred afresh."""
    flags = {"record_time": graph.record_time, "input_time": graph.input_time}
    builder = GraphBuilder(graph.name, graph.timesteps, changes.get("numbers", graph.numbers), **flags)
    builder.tensors = dict(tensors if tensors is not None else graph.tensors)
    lagged = {use.node for n in nodes for use in n.inputs if use.lag}
    types = {n.id: n.type for n in nodes if n.id in lagged}
    for n in nodes:
        spec = op_spec(n.op)
        where = f"%{n.id} = {n.op}" + (f' "{n.name}"' if n.name else "")
        spec.check_attrs(n.attrs, where)
        spec.check_arity(len(n.inputs), where)
        operand_types = []
        for use in n.inputs:
            known = builder.nodes.get(use.node)
            if known is None and not use.lag:
                raise VerifyError(f"{where}: operand %{use.node} is not defined before its use")
            operand_types.append(known.type if known else types[use.node])
        type_ = spec.infer(operand_types, n.attrs, builder.tensors, where)
        if n.id in builder.nodes:
            raise VerifyError(f"node '%{n.id}' is defined twice")
        builder.nodes[n.id] = replace(n, type=type_)
    return builder.build()
