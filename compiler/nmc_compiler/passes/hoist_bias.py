"""Move every bias to the neurons that see it.

A bias enters a neuron's input once per timestep, whatever the number of events, unary
slots or residual branches: b(add) = sum, b(maxpool) = b, b(sum over positions) = H*W*b, b(mean over sites) = b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label, op_spec, rebuild
from nmc_compiler.graph.analysis import CONVOLUTIONS, is_neuron
from nmc_compiler.passes.base import drop_attrs, stored
from nmc_compiler.passes.fold_convs import bias_behind
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
            if node.op in CONVOLUTIONS:
                node = drop_attrs(node, "bias")
            elif is_neuron(node) and node.operands and node.op != "relay":
                node = _with_bias(graph, node, _bias(graph, by_id[node.operands[0]], by_id, memo), tensors, report)
            nodes.append(node)
        return rebuild(graph, nodes, tensors)


def _with_bias(graph: Graph, node: Node, total: np.ndarray, tensors: dict, report: ConversionReport) -> Node:
    if "bias" not in op_spec(node.op).attrs:
        return _with_leak(graph, node, total, tensors, report) if total.any() else node
    own = graph.tensor(node, "bias")
    if own is not None:
        total = total + own.astype(np.float64)
    if not total.any():
        return drop_attrs(node, "bias")  # also where its own and those before it cancel
    report.add("hoist-bias", label(node), largest=float(np.abs(total).max()))
    return node.with_attrs(bias=stored(tensors, f"{label(node)}.bias", total))


def _with_leak(graph: Graph, node: Node, total: np.ndarray, tensors: dict, report: ConversionReport) -> Node:
    """A general neuron has what it gets at every timestep in its leak, or behind its gain by timestep."""
    gains = [node.attr(key, 1.0) for key in ("gain", "gain_v")]
    plain = all(isinstance(gain, (int, float)) for gain in gains)
    if "leak" not in op_spec(node.op).attrs or "alpha" in node.attrs or not plain:
        raise LoweringError(f"{node.op} '{label(node)}' reads a bias that it has no place for; put it behind a neuron")
    report.add("hoist-bias", label(node), largest=float(np.abs(total).max()))
    gain, table = graph.tensor(node, "gain_t"), graph.tensor(node, "bias_t")
    if gain is not None:
        added = gain.astype(np.float64).reshape(len(gain), -1) * total[None]
        added = added if table is None else added + table.astype(np.float64).reshape(len(table), -1)
        return node.with_attrs(bias_t=stored(tensors, f"{label(node)}.bias_t", added))
    own = node.attr("leak", 0.0)
    own = float(own) if isinstance(own, (int, float)) else graph.tensors[own.key].astype(np.float64)
    total = total * gains[0] * gains[1]
    total = total[:, None, None] if np.ndim(own) == 3 else total
    return node.with_attrs(leak=stored(tensors, f"{label(node)}.leak", own + total))


def _bias(graph: Graph, node: Node, by_id: dict[str, Node], memo: dict[str, np.ndarray]) -> np.ndarray:
    if node.id not in memo:
        memo[node.id] = _compute(graph, node, by_id, memo)
    return memo[node.id]


def _compute(graph: Graph, node: Node, by_id: dict[str, Node], memo: dict[str, np.ndarray]) -> np.ndarray:
    zero = np.zeros(node.type.shape[0])
    if node.op == "relay":  # sends its current without the bias; the convolutions that read it know what is missing
        return _bias(graph, by_id[node.operands[0]], by_id, memo)
    if node.type.kind is not Kind.CURRENT:
        return zero
    if node.op in CONVOLUTIONS:
        source = by_id[node.operands[0]]
        if source.type.kind is Kind.CURRENT:
            raise LoweringError(f"'{label(node)}' convolves the current of '{label(source)}'; run fold-convs before")
        bias = graph.tensor(node, "bias")
        own = zero if bias is None else bias.astype(np.float64)
        if source.op == "relay":
            return own + bias_behind(graph, source, node, _bias(graph, source, by_id, memo))
        return own
    if node.op in ("attn", "map", "sparse"):
        return zero
    if node.op not in ("add", "maxpool2d", "sum_positions", "mean_sites"):
        raise LoweringError(
            f"no bias passes through {node.op} '{label(node)}'; run the folding passes before hoist-bias"
        )
    parts = [_bias(graph, by_id[i], by_id, memo) for i in node.operands]
    if node.op == "mean_sites":
        return parts[0]
    if node.op == "sum_positions":
        _, h, w = by_id[node.operands[0]].type.shape
        return parts[0] * (h * w)
    return sum(parts, start=zero)
