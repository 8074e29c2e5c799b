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
        bare, first, second = drop_ring(graph, ring)
        graph = _fold_pair(bare, first, second, report, ring=True)


def drop_ring(graph: Graph, ring: Node) -> tuple[Graph, Node, Node]:
    """The graph where the convolution behind a pad pads with zeros itself, the one before it, and that one.

    The first's bias must not pass through the second's padding any more: ``bias_behind`` says what it amounts to.
    """
    first, readers = graph.node(ring.operands[0]), graph.users()[ring.id]
    if first.op != "conv2d" or not is_pointwise(graph, first) or [u.op for u in readers] != ["conv2d"]:
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
    return bare, bare.node(first.id), bare.node(second.id)


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
    geometry = first if is_pointwise(graph, second) else second
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


def is_pointwise(graph: Graph, conv: Node) -> bool:
    weight = graph.tensor(conv, "weight")
    assert weight is not None
    plain = conv.attr("stride", (1, 1)) == (1, 1) and conv.attr("pad", (0, 0)) == (0, 0)
    return weight.shape[2:] == (1, 1) and plain


def _product(graph: Graph, first: Node, second: Node, ring: bool) -> tuple[np.ndarray, np.ndarray]:
    bias_a, bias_b = graph.tensor(first, "bias"), graph.tensor(second, "bias")
    zero = np.zeros(1)
    inner = zero if bias_a is None else bias_a.astype(np.float64)
    outer = zero if bias_b is None else bias_b.astype(np.float64)
    outer = outer + bias_behind(graph, first, second, inner, ring)
    if is_pointwise(graph, second):
        return _behind(_dense(graph, second)[:, :, 0, 0], graph, first), outer
    if not is_pointwise(graph, first):
        raise LoweringError(
            f"'{label(first)}' and '{label(second)}' are both wider than 1x1 with no spikes between; not folded"
        )
    return _before(_dense(graph, first)[:, :, 0, 0], graph, second), outer


def _behind(point: np.ndarray, graph: Graph, conv: Node) -> np.ndarray:
    """W[o, i] = sum over m of point[o, m] conv[m, i]; of a depthwise one there is one m for each i."""
    if _is_depthwise(graph, conv):
        weight = graph.tensor(conv, "weight")
        assert weight is not None
        return point[:, :, None, None] * weight[None, :, 0].astype(np.float64)
    return np.tensordot(point, _dense(graph, conv), axes=(1, 0))


def _before(point: np.ndarray, graph: Graph, conv: Node) -> np.ndarray:
    """W[o, i] = sum over m of conv[o, m] point[m, i]."""
    if _is_depthwise(graph, conv):
        weight = graph.tensor(conv, "weight")
        assert weight is not None
        return weight.astype(np.float64) * point[:, :, None, None]
    return np.moveaxis(np.tensordot(_dense(graph, conv), point, axes=(1, 0)), 3, 1)


def _is_depthwise(graph: Graph, conv: Node) -> bool:
    weight = graph.tensor(conv, "weight")
    return weight is not None and weight.shape[1] == 1 and weight.shape[0] == conv.attr("groups", 1)


def bias_behind(graph: Graph, first: Node, second: Node, bias: np.ndarray, ring: bool = False) -> np.ndarray:
    """What a bias [C] (or [1]) of ``first`` adds to every output of the convolution ``second``, [O].

    With ``ring`` it stands in the padding too; else padding with zeros must not hide it.
    """
    if bias.any() and second.attr("pad", (0, 0)) != (0, 0) and not ring:
        raise LoweringError(
            f"'{label(second)}' pads the biased output of '{label(first)}' with zeros: at the border the fold would "
            f"not be exact"
        )
    weight = graph.tensor(second, "weight")
    assert weight is not None
    groups, (out, cin) = second.attr("groups", 1), weight.shape[:2]
    taps = weight.astype(np.float64).sum(axis=(2, 3)).reshape(groups, out // groups, cin)
    inner = np.broadcast_to(bias.astype(np.float64), groups * cin).reshape(groups, cin, 1)
    return (taps @ inner).reshape(out)
