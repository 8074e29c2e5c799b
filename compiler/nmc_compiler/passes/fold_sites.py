"""Fold a convolution from each site to itself into those whose currents it reads.

The head of a network with membrane residuals reads the stream, a sum of convolutions' currents, with no neuron between:
W (a + b) = W a + W b, and W times a convolution is a convolution with other weights (models.md 4.9, section 6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, Use, label, rebuild
from nmc_compiler.graph.analysis import reachable_from_output
from nmc_compiler.passes.base import stored
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class FoldSites:
    """Afterwards every convolution between sites reads events or the real input."""

    name: ClassVar[str] = "fold-sites"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        while True:
            by_id = graph.by_id()
            reads = (n for n in graph if n.op == "sparse_conv3d" and by_id[n.operands[0]].type.kind is Kind.CURRENT)
            head = next(reads, None)
            if head is None:
                return graph
            graph = _fold(graph, by_id, head, report)


def _terms(by_id: dict[str, Node], node: Node) -> list[Node]:
    """What a current is the sum of."""
    return [t for i in node.operands for t in _terms(by_id, by_id[i])] if node.op == "add" else [node]


def _fold(graph: Graph, by_id: dict[str, Node], head: Node, report: ConversionReport) -> Graph:
    terms, tensors = _terms(by_id, by_id[head.operands[0]]), dict(graph.tensors)
    weight, bias = graph.tensor(head, "weight"), graph.tensor(head, "bias")
    assert weight is not None
    if weight.shape[2] != 1 or head.operands[1] != head.operands[2]:
        raise LoweringError(
            f"'{label(head)}' reads currents of {len(terms)} convolution(s) with {weight.shape[2]} taps and no neuron "
            "between; only one tap, from each site to itself, can be folded"
        )
    wrong = next((t for t in terms if t.op != "sparse_conv3d"), None)
    if wrong is not None:
        raise LoweringError(
            f"'{label(head)}' reads the real values of {wrong.op} '{label(wrong)}' with no neuron between; only "
            "convolutions between sites can be folded"
        )
    matrix, total = weight[:, :, 0, 0].astype(np.float64), np.zeros(len(weight)) if bias is None else bias
    parts = []
    for number, term in enumerate(terms):
        inner, own = graph.tensor(term, "weight"), graph.tensor(term, "bias")
        assert inner is not None
        total = total + (0.0 if own is None else matrix @ own.astype(np.float64))
        folded = stored(tensors, f"{label(head)}.{number}.weight", np.einsum("om,mikl->oikl", matrix, inner))
        attrs = {k: v for k, v in term.attrs.items() if k != "bias"} | {"weight": folded}
        parts.append(replace(term, id=f"{head.id}.{number}", attrs=attrs, name=f"{label(head)}.{number}"))
    first = parts[0].attrs | {"bias": stored(tensors, f"{label(head)}.all.bias", total)}
    parts[0] = replace(parts[0], attrs=first)
    joined = Node(head.id, "add", tuple(Use(p.id) for p in parts), {}, head.type, "")
    if len(parts) == 1:
        parts, joined = [], replace(parts[0], id=head.id, name=head.name)
    report.add("fold-sites", label(head), into=[label(t) for t in terms], change="folded into copies of what it reads")
    nodes = [new for n in graph for new in ([*parts, joined] if n.id == head.id else [n])]
    graph = rebuild(graph, nodes, tensors)
    live = reachable_from_output(graph)
    return rebuild(graph, [n for n in graph if n.id in live])
