"""Fold constant scales into weights, attention scales, or a neuron's input gain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, Ref, label, rebuild
from nmc_compiler.graph.analysis import CONVOLUTIONS, is_neuron
from nmc_compiler.passes.base import derived, redirect, stored
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class FoldScale:
    """LayerScale, 1/N of a token mean, attention scales: none is left as a multiplication on the chip."""

    name: ClassVar[str] = "fold-scale"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        while True:
            scale = next((n for n in graph if n.op == "scale"), None)
            if scale is None:
                return graph
            graph = _fold_one(graph, scale, report)


def _fold_one(graph: Graph, scale: Node, report: ConversionReport) -> Graph:
    by_id, users = graph.by_id(), graph.users()
    source, factor = by_id[scale.operands[0]], factor_of(graph, scale)
    tensors = dict(graph.tensors)
    alone = len(users[source.id]) == 1
    changed: dict[str, Node] = {}
    if source.op in CONVOLUTIONS and alone:
        changed[source.id] = _scaled_conv(graph, source, factor, tensors)
    elif source.op == "attn" and alone and factor.size == 1:
        changed[source.id] = source.with_attrs(scale=derived(source.attr("scale", 1.0) * float(factor[0])))
    elif factor.size == 1 and users[scale.id] and all(_takes(u) for u in users[scale.id]):
        for user in users[scale.id]:
            fold = _with_gain if is_neuron(user) else _times_scale if user.op == "scale" else _times_input
            changed[user.id] = fold(graph, user, float(factor[0]), tensors)
    else:
        readers = ", ".join(f"{u.op} '{label(u)}'" for u in users[scale.id])
        raise LoweringError(
            f"scale '{label(scale)}' after {source.op} '{label(source)}' feeds {readers}: cannot be folded"
        )
    report.add("fold-scale", label(scale), into=[label(n) for n in changed.values()], factor=factor.tolist()[:4])
    nodes = [changed.get(n.id, n) for n in graph if n.id != scale.id]
    return rebuild(graph, redirect(nodes, {scale.id: source.id}), tensors)


def _takes(user: Node) -> bool:
    return is_neuron(user) or user.op in ("conv2d", "scale")


def _times_scale(graph: Graph, scale: Node, factor: float, tensors: dict[str, np.ndarray]) -> Node:
    product = factor_of(graph, scale) * factor
    if product.size == 1:
        return scale.with_attrs(factor=derived(float(product[0])))
    return scale.with_attrs(factor=stored(tensors, f"{label(scale).lstrip('%')}.product", product))


def factor_of(graph: Graph, scale: Node) -> np.ndarray:
    """[1], or [C] of a LayerScale."""
    value = scale.attr("factor")
    return graph.tensors[value.key].astype(np.float64) if isinstance(value, Ref) else np.array([float(value)])


def _scaled_conv(graph: Graph, conv: Node, factor: np.ndarray, tensors: dict[str, np.ndarray]) -> Node:
    out = {}
    for key in ("weight", "bias"):
        array = graph.tensor(conv, key)
        if array is not None:
            scaled = array.astype(np.float64) * factor.reshape(-1, *([1] * (array.ndim - 1)))
            out[key] = stored(tensors, f"{label(conv)}.scaled.{key}", scaled)
    return replace(conv, attrs={**conv.attrs, **out})


def _times_input(graph: Graph, conv: Node, factor: float, tensors: dict[str, np.ndarray]) -> Node:
    """W (f x) + b = (f W) x + b."""
    weight = graph.tensor(conv, "weight")
    assert weight is not None
    return conv.with_attrs(weight=stored(tensors, f"{label(conv)}.scaled.weight", weight.astype(np.float64) * factor))


def _with_gain(graph: Graph, neuron: Node, factor: float, tensors: dict[str, np.ndarray]) -> Node:
    """(x*f + b)*g = (x + b/f)*(f*g): biases of the neuron are kept in units of its new input."""
    if factor == 0.0:
        raise LoweringError(f"neuron '{label(neuron)}' reads a current times 0: it hears nothing; remove it")
    node = neuron.with_attrs(gain=derived(neuron.attr("gain", 1.0) * factor))
    table = graph.tensor(neuron, "bias_t")
    if table is not None:
        node = node.with_attrs(bias_t=stored(tensors, f"{label(neuron)}.rescaled.bias_t", table / factor))
    bias = graph.tensor(neuron, "bias")
    if bias is None:
        return node
    return node.with_attrs(bias=stored(tensors, f"{label(neuron)}.rescaled.bias", bias.astype(np.float64) / factor))
