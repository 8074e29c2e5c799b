"""Max-pools of spikes of several levels: the codes of a window meet as currents, and what is largest is sent again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.graph import Graph, Kind, Node, Use, label, rebuild
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.gates import event_norm
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class PoolCodes:
    """Afterwards every max-pool of events is one of plain spikes, which is an OR.

    One-to-one synapses of weight 1, the max-pool of their currents, and a population of the same levels behind it,
    whose thresholds lie half-way between codes: exact, and a level later.
    """

    name: ClassVar[str] = "pool-codes"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id, tensors = graph.by_id(), dict(graph.tensors)
        nodes: list[Node] = []
        for node in graph:
            pooled = node.op == "maxpool2d" and node.type.kind is Kind.GRADED
            nodes += _pooled(graph, node, by_id, tensors) if pooled else [node]
            if pooled:
                report.add(self.name, label(nodes[-1]), neurons=int(np.prod(node.type.shape)), levels=_levels(node))
        return rebuild(graph, nodes, tensors) if len(nodes) > len(by_id) else graph


def _pooled(graph: Graph, node: Node, by_id: dict[str, Node], tensors: dict[str, np.ndarray]) -> list[Node]:
    source, norm = by_id[node.operands[0]], event_norm(node, by_id)
    name = (node.name or pool_name(graph, node, source)).lstrip("%")
    channels, current = source.type.shape[0], replace(source.type, kind=Kind.CURRENT, bits=0)
    one = stored(tensors, f"{name}.one", np.ones((channels, 1, 1, 1)))
    read = Node(f"{node.id}.in", "conv2d", node.inputs, {"weight": one, "groups": derived(channels)}, current)
    largest = replace(
        node, id=f"{node.id}.max", name="", inputs=(Use(read.id),), type=replace(node.type, kind=Kind.CURRENT, bits=0)
    )
    levels = {"levels": derived(_levels(node)), "rounding": derived("half_even")}
    attrs = levels | {"norm": derived(norm), "gain": derived(norm)}
    return [read, largest, Node(node.id, "multilevel", (Use(largest.id),), attrs, node.type, name)]


def _levels(node: Node) -> int:
    return (1 << node.type.bits) - 1


def pool_name(graph: Graph, node: Node, source: Node) -> str:
    """After what is pooled; a second pool of it is told apart by its node."""
    first = next(n for n in graph if n.op == "maxpool2d" and not n.name and n.operands == node.operands)
    return f"{label(source)}.pool" + ("" if first is node else f".{node.id}")
