"""Projection nodes of a general network as linear maps, and back."""

from __future__ import annotations

import numpy as np

from nmc_compiler.graph import Attr, Graph, Node, Use, ValueType
from nmc_compiler.graph.types import Kind, Shape
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.linear_maps import Kernel, LinearMap, Table


def map_of(graph: Graph, node: Node, source: Shape) -> LinearMap:
    """The linear map of a float conv2d or sparse, whose operand has the shape ``source``."""
    weight = graph.tensor(node, "weight")
    assert weight is not None
    if node.op == "conv2d":
        geometry = (node.attr("stride", (1, 1)), node.attr("pad", (0, 0)), node.attr("dilation", (1, 1)))
        groups = node.attr("groups", 1)
        return Kernel(source, source, node.type.shape, weight.astype(np.float64), *geometry, groups)
    indptr, target, extra = (graph.tensor(node, k) for k in ("indptr", "target", "extra"))
    assert indptr is not None and target is not None
    rows = np.repeat(np.arange(len(indptr) - 1), indptr[1:] - indptr[:-1])
    late = np.zeros(len(rows), np.int64) if extra is None else extra.astype(np.int64)
    return Table(source, node.type.shape, rows, target.astype(np.int64), weight.astype(np.float64), late)


def node_of(m: LinearMap, key: str, name: str, use: Use, tensors: dict[str, np.ndarray]) -> Node:
    """The map as a node; its arrays go into ``tensors``."""
    type_ = ValueType(Kind.CURRENT, m.target)
    if isinstance(m, Kernel):
        attrs: dict[str, Attr] = {"weight": stored(tensors, f"{name}.weight", m.weight)}
        attrs |= {k: derived(getattr(m, k)) for k in ("stride", "pad", "dilation", "groups")}
        return Node(key, "conv2d", (use,), attrs, type_, name)
    order, indptr = m.rows()
    arrays = {"indptr": indptr, "target": m.dst[order].astype(np.int32), "weight": m.weight[order]}
    if m.extra.any():
        arrays["extra"] = m.extra[order].astype(np.uint8)
    attrs = {k: stored(tensors, f"{name}.{k}", v) for k, v in arrays.items()}
    return Node(key, "sparse", (use,), attrs | {"shape": derived(m.target)}, type_, name)


def summed(node: Node, projections: list[Node]) -> list[Node]:
    """The neuron behind its projections, and their sum where there are several."""
    if len(projections) == 1:
        return [*projections, _reading(node, projections[0].id)]
    total = Node(
        f"{node.id}.sum", "add", tuple(Use(p.id) for p in projections), {}, ValueType(Kind.CURRENT, node.type.shape)
    )
    return [*projections, total, _reading(node, total.id)]


def _reading(node: Node, operand: str) -> Node:
    return Node(node.id, node.op, (Use(operand),), node.attrs, node.type, node.name)


def projections_of(node: Node, by_id: dict[str, Node]) -> list[Node]:
    """The projections that a neuron sums."""
    first = by_id[node.inputs[0].node]
    return [by_id[use.node] for use in first.inputs] if first.op == "add" else [first]
