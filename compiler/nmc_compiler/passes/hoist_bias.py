"""Move every bias to the neurons that see it.

A bias enters a neuron's input once per timestep, whatever the number of events, unary
slots or residual branches: b(add) = sum, b(maxpool) = b, b(sum over positions) = H*W*b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.passes.base import drop_attrs, stored
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class HoistBias:
    """Afterwards no convolution has a bias; each neuron has the sum of those before it."""

    name: ClassVar[str] = "hoist-bias"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id, tensors = graph.by_id(), dict(graph.tensors)
        memo: dict[str, np.ndarray] = {}
        nodes = []
        for node in graph:
            if node.op == "conv2d":
                node = drop_attrs(node, "bias")
            elif is_neuron(node):
                node = _with_bias(graph, node, _bias(graph, by_id[node.operands[0]], by_id, memo), tensors, report)
            nodes.append(node)
        return rebuild(graph, nodes, tensors)


def _with_bias(graph: Graph, node: Node, total: np.ndarray, tensors: dict, report: ConversionReport) -> Node:
    own = graph.tensor(node, "bias")
    if own is not None:
        total = total + own.astype(np.float64)
    if not total.any():
        return drop_attrs(node, "bias")  # also where its own and those before it cancel
    report.add("hoist-bias", label(node), largest=float(np.abs(total).max()))
    return node.with_attrs(bias=stored(tensors, f"{label(node)}.bias", total))


def _bias(graph: Graph, node: Node, by_id: dict[str, Node], memo: dict[str, np.ndarray]) -> np.ndarray:
    if node.id not in memo:
        memo[node.id] = _compute(graph, node, by_id, memo)
    return memo[node.id]


def _compute(graph: Graph, node: Node, by_id: dict[str, Node], memo: dict[str, np.ndarray]) -> np.ndarray:
    zero = np.zeros(node.type.shape[0])
    if node.type.kind is not Kind.CURRENT:
        return zero
    if node.op == "conv2d":
        source = by_id[node.operands[0]]
        if source.type.kind is Kind.CURRENT:
            raise LoweringError(f"'{label(node)}' convolves the current of '{label(source)}'; run fold-convs before")
        bias = graph.tensor(node, "bias")
        return zero if bias is None else bias.astype(np.float64)
    if node.op in ("attn", "map"):
        return zero
    if node.op not in ("add", "maxpool2d", "sum_positions"):
        raise LoweringError(
            f"no bias passes through {node.op} '{label(node)}'; run the folding passes before hoist-bias"
        )
    parts = [_bias(graph, by_id[i], by_id, memo) for i in node.operands]
    if node.op == "sum_positions":
        _, h, w = by_id[node.operands[0]].type.shape
        return parts[0] * (h * w)
    return sum(parts, start=zero)
