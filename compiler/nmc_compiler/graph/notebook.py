"""A graph in a notebook: its operations by kind, and its nodes one by one."""

from __future__ import annotations

from collections import Counter

from nmc_compiler.graph.graph import Graph, Node, label
from nmc_compiler.graph.types import Ref
from nmc_compiler.html import Html, card, folded, table


def graph_html(graph: Graph) -> str:
    """HTML of a graph, of bounded length."""
    length = f"T = {graph.timesteps}" if graph.timesteps else "a stream"
    kinds = Counter(node.op for node in graph)
    stored = sum(array.size for array in graph.tensors.values())
    facts = f"{len(graph.nodes):,} nodes, {stored:,} stored numbers, {length}, {graph.numbers}"
    by_kind = table(("operation", "nodes"), [(op, f"{n:,}") for op, n in kinds.most_common()], (1,))
    nodes = table(("node", "operation", "reads", "gives", "arrays"), [_row(graph, node) for node in graph])
    parts = [Html(f"<div>{facts}</div>"), folded("operations", by_kind), folded("nodes", nodes, opened=True)]
    return card(f"graph {graph.name}", parts)


def _row(graph: Graph, node: Node) -> tuple[str, ...]:
    reads = ", ".join(f"%{u.node}" + (f"[-{u.lag}]" if u.lag else "") for u in node.inputs)
    arrays = [f"{k} {'x'.join(map(str, graph.tensors[a.value.key].shape))}" for k, a in node.attrs.items()
              if isinstance(a.value, Ref)]  # fmt: skip
    return label(node), node.op, reads, str(node.type), ", ".join(arrays)
