"""Fold chains of convolutions without a neuron between them (RepConv, re-parameterised branches).

A 1x1 convolution before a k x k one, or behind it, is one k x k convolution. The padding
ring of a RepConv holds what its inner batch norm gives for zero input, which is the folded
1x1's own bias: then padding the input with plain zeros is exact (models.md section 6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label, rebuild
from nmc_compiler.passes.base import derived, redirect, stored
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class FoldConvs:
    """Afterwards every convolution reads events or the real input."""

    name: ClassVar[str] = "fold-convs"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        graph = _fold_rings(graph, report)
        while True:
            pair = _next_pair(graph)
            if pair is None:
                return graph
            graph = _fold_pair(graph, *pair, report)


def _fold_rings(graph: Graph, report: ConversionReport) -> Graph:
    """conv1x1 -> pad2d -> conv without pad becomes one convolution with zero padding."""
    while True:
        ring = next((n for n in graph if n.op == "pad2d"), None)
        if ring is None:
            return graph
        first, readers = graph.node(ring.operands[0]), graph.users()[ring.id]
        if first.op != "conv2d" or not _is_pointwise(graph, first) or [u.op for u in readers] != ["conv2d"]:
            raise LoweringError(f"pad '{label(ring)}' must stand between a 1x1 convolution and one other convolution")
        value, bias = graph.tensor(ring, "value"), graph.tensor(first, "bias")
        if not np.allclose(value, 0.0 if bias is None else bias, rtol=1e-6, atol=1e-12):  # type: ignore[arg-type]
            raise LoweringError(f"pad '{label(ring)}' is not what '{label(first)}' gives for zero input; not folded")
        if readers[0].attr("pad", (0, 0)) != (0, 0):
            raise LoweringError(
                f"'{label(readers[0])}' pads '{label(ring)}', which is a pad itself, with zeros; not folded"
            )
        second = readers[0].with_attrs(pad=ring.attrs["pad"])
        nodes = [second if n.id == second.id else n for n in graph if n.id != ring.id]
        bare = rebuild(graph, redirect(nodes, {ring.id: first.id}))
        graph = _fold_pair(bare, bare.node(first.id), bare.node(second.id), report, ring=True)


def _next_pair(graph: Graph) -> tuple[Node, Node] | None:
    by_id = graph.by_id()
    for node in graph:
        if node.op == "conv2d" and by_id[node.operands[0]].type.kind is Kind.CURRENT:
            return by_id[node.operands[0]], node
    return None


def _fold_pair(graph: Graph, first: Node, second: Node, report: ConversionReport, ring: bool = False) -> Graph:
    if first.op != "conv2d" or len(graph.users()[first.id]) != 1:
        raise LoweringError(
            f"convolution '{label(second)}' reads the real-valued output of {first.op} '{label(first)}': "
            f"not event-driven, and only a convolution read by nothing else can be folded"
        )
    weight, bias = _product(graph, first, second, ring)
    key, tensors = f"{label(second)}.joined", dict(graph.tensors)
    geometry = first if _is_pointwise(graph, second) else second
    attrs = {k: v for k, v in geometry.attrs.items() if k in ("stride", "pad", "dilation")}
    attrs |= {
        "weight": stored(tensors, f"{key}.weight", weight),
        "bias": stored(tensors, f"{key}.bias", bias),
        "groups": derived(1),
    }
    joined = replace(second, inputs=first.inputs, attrs=attrs)
    report.add("fold-convs", label(second), first=label(first), weights=int(weight.size))
    nodes = [joined if n.id == second.id else n for n in graph if n.id != first.id]
    return rebuild(graph, nodes, tensors)


def _dense(graph: Graph, conv: Node) -> np.ndarray:
    """Weights [O, I, kh, kw] with groups written out as zeros."""
    weight, groups = graph.tensor(conv, "weight"), conv.attr("groups", 1)
    assert weight is not None
    if groups == 1:
        return weight.astype(np.float64)
    out, cin = weight.shape[0], weight.shape[1]
    full = np.zeros((out, cin * groups, *weight.shape[2:]))
    for o in range(out):
        g = o // (out // groups)
        full[o, g * cin : (g + 1) * cin] = weight[o]
    return full


def _is_pointwise(graph: Graph, conv: Node) -> bool:
    weight = graph.tensor(conv, "weight")
    assert weight is not None
    plain = conv.attr("stride", (1, 1)) == (1, 1) and conv.attr("pad", (0, 0)) == (0, 0)
    return weight.shape[2:] == (1, 1) and plain


def _product(graph: Graph, first: Node, second: Node, ring: bool) -> tuple[np.ndarray, np.ndarray]:
    a, b = _dense(graph, first), _dense(graph, second)
    bias_a, bias_b = graph.tensor(first, "bias"), graph.tensor(second, "bias")
    zero = np.zeros(1)
    inner = zero if bias_a is None else bias_a.astype(np.float64)
    outer = zero if bias_b is None else bias_b.astype(np.float64)
    if _is_pointwise(graph, second):
        weight = np.einsum("om,mikl->oikl", b[:, :, 0, 0], a)
        return weight, outer + b[:, :, 0, 0] @ np.broadcast_to(inner, b.shape[1:2])
    if not _is_pointwise(graph, first):
        raise LoweringError(
            f"'{label(first)}' and '{label(second)}' are both wider than 1x1 with no spikes between; not folded"
        )
    if inner.any() and second.attr("pad", (0, 0)) != (0, 0) and not ring:
        raise LoweringError(
            f"'{label(second)}' pads the biased output of '{label(first)}' with zeros: at the border the fold would "
            f"not be exact"
        )
    weight = np.einsum("omkl,mi->oikl", b, a[:, :, 0, 0])
    return weight, outer + np.einsum("omkl,m->o", b, np.broadcast_to(inner, b.shape[1:2]))
