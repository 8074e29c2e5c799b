"""Max-pools of spikes of several levels: the codes of a window meet as currents, and what is largest is sent again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, Use, ValueType, rebuild
from nmc_compiler.graph.analysis import pool_name
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.gates import MOVED, event_norm, same_codes
from nmc_compiler.passes.report import ConversionReport

MOST_LEVELS = 1 << 16  # more than any chip's payload; thresholds are a table
PASSED_ON = (*MOVED, "maxpool2d")  # events of others


@dataclass(frozen=True)
class PoolCodes:
    """Afterwards every max-pool of events is one of plain spikes, which is an OR.

    One-to-one synapses of weight 1, the max-pool of their currents, and a population of the same levels behind it,
    whose thresholds lie half-way between codes: exact, and a level later.
    """

    name: ClassVar[str] = "pool-codes"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id, tensors = graph.by_id(), dict(graph.tensors)
        pools = [n for n in graph if n.op == "maxpool2d" and n.type.kind is Kind.GRADED]
        made = {n.id: _pooled(graph, n, by_id, tensors) for n in pools}
        for *_, last in made.values():
            report.add(self.name, last.name, neurons=math.prod(last.type.shape), levels=last.attr("levels"))
        return rebuild(graph, [new for n in graph for new in made.get(n.id, [n])], tensors) if made else graph


def _pooled(graph: Graph, node: Node, by_id: dict[str, Node], tensors: dict[str, np.ndarray]) -> list[Node]:
    source, norm, name = by_id[node.operands[0]], event_norm(node, by_id), pool_name(graph, node)
    most = _largest(source, by_id, {})
    if most > MOST_LEVELS:
        raise LoweringError(f"max-pool '{name}' reads codes up to {most}, and sends up to {MOST_LEVELS}; pool earlier")
    current = ValueType(Kind.CURRENT, source.type.shape)
    one = stored(tensors, f"{name}.one", np.ones((source.type.shape[0], 1, 1, 1)))
    attrs = {"weight": one, "groups": derived(source.type.shape[0])}
    read = Node(f"{node.id}.codes", "conv2d", node.inputs, attrs, current, f"{name}.codes")
    pooled = replace(current, shape=node.type.shape)
    largest = replace(node, id=f"{node.id}.max", name="", inputs=(Use(read.id),), type=pooled)
    return [read, largest, Node(node.id, "multilevel", (Use(largest.id),), same_codes(most, norm), node.type, name)]


def _largest(node: Node, by_id: dict[str, Node], known: dict[str, int]) -> int:
    """The largest code that events can have."""
    if node.id in known:
        return known[node.id]
    known[node.id] = most = int(node.attr("levels", (1 << max(node.type.bits, 1)) - 1))  # a loop reads that of itself
    below = [_largest(by_id[i], by_id, known) for i in node.operands] if node.op in PASSED_ON else []
    if node.op == "add":
        most = sum(below)
    elif node.op == "sum_positions":
        most = below[0] * math.prod(by_id[node.operands[0]].type.shape[1:])
    elif below:
        most = max(below)
    known[node.id] = most
    return most
