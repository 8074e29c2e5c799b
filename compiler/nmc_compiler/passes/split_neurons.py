"""A neuron on concatenated currents, or with channels that decay differently, becomes one population for each.

Each part hears its own current, a shared pool or a convolution as it is; whoever reads the neuron reads the parts side
by side, a convolution through the weights of their channels. (In networks of general neurons alone ``split_decays``
tells decays apart behind ``join_linear``, which may take the neurons' shapes away.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.graph import Attr, Graph, Node, Ref, Use, label, op_spec, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.regions import is_general
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.split_decays import SplitDecays, Splitter


@dataclass(frozen=True)
class SplitNeurons:
    """Where the channels of a concatenation come whole from one operand each; at most 8 pairs of decays."""

    name: ClassVar[str] = "split-neurons"
    allow: tuple[str, ...] = ()

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        graph = self._by_operand(graph, report)
        return graph if is_general(graph) else self._by_decay(graph, report)

    def _by_operand(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id, tensors, nodes = graph.by_id(), dict(graph.tensors), list[Node]()
        for node in graph:
            parts = _channels(graph, node, by_id) if is_neuron(node) and "part_of" in op_spec(node.op).attrs else []
            if len(parts) < 2:
                nodes.append(node)
                continue
            report.add(self.name, label(node), parts=[len(p) for p in parts], change="one population for each current")
            nodes += _split(graph, node, by_id, parts, tensors)
        return rebuild(graph, nodes, tensors)

    def _by_decay(self, graph: Graph, report: ConversionReport) -> Graph:
        splitter, nodes = Splitter(graph, SplitDecays(self.allow), report), list[Node]()
        for node in graph:
            groups = splitter.groups(node) if _by_channel(graph, node) else []
            if len(groups) < 2:
                nodes.append(node)
                continue
            _, h, w = node.type.shape
            made = [splitter.part(node, k, channels).node for k, channels in enumerate(groups)]
            elements = [splitter.tensors[n.attr("elements").key] for n in made]
            for part, which in zip(made, elements, strict=True):
                slice_ = Use(f"{part.id}.take")
                key = {"index": stored(splitter.tensors, slice_.node, which), "shape": derived(part.type.shape)}
                current = replace(graph.node(node.inputs[0].node).type, shape=part.type.shape)
                nodes += [Node(slice_.node, "take", node.inputs, key, current), replace(part, inputs=(slice_,))]
            nodes.append(_side_by_side(node, [n.id for n in made], elements, splitter.tensors))
        return rebuild(graph, nodes, splitter.tensors)


def _by_channel(graph: Graph, node: Node) -> bool:
    """Whether decays differ by channel, and by nothing else."""
    if node.op not in ("neuron", "integrator"):
        return False
    values = [graph.tensor(node, k) for k in ("alpha", "beta") if isinstance(node.attr(k), Ref)]
    return bool(values) and all(v is not None and v.ndim == 1 for v in values)


def _channels(graph: Graph, node: Node, by_id: dict[str, Node]) -> list[np.ndarray]:
    """Channels of a neuron that come from each operand of the concatenation it reads; none where it reads no such."""
    if not node.inputs or node.inputs[0].lag:
        return []
    source = by_id[node.inputs[0].node]
    if source.op != "take" or len(source.inputs) < 2 or any(u.lag for u in source.inputs):
        return []
    index = graph.tensor(source, "index")
    assert index is not None
    sizes = [int(np.prod(by_id[i].type.shape)) for i in source.operands]
    owner = np.searchsorted(np.cumsum(sizes), index, side="right").reshape(node.type.shape[0], -1)
    if (index < 0).any() or (owner != owner[:, :1]).any():
        return []
    found = [np.flatnonzero(owner[:, 0] == k) for k in range(len(sizes))]
    return found if all(len(f) for f in found) else []


def _split(
    graph: Graph, node: Node, by_id: dict[str, Node], parts: list[np.ndarray], tensors: dict[str, np.ndarray]
) -> list[Node]:
    source, (_, h, w) = by_id[node.inputs[0].node], node.type.shape
    index = graph.tensor(source, "index")
    assert index is not None
    planes, nodes, elements, at = index.reshape(node.type.shape[0], -1), list[Node](), list[np.ndarray](), 0
    for k, (use, channels) in enumerate(zip(source.inputs, parts, strict=True)):
        shape, operand = (len(channels), h, w), by_id[use.node]
        own = (planes[channels] - at).reshape(-1)
        at += int(np.prod(operand.type.shape))
        reads = use
        if operand.type.shape != shape or not np.array_equal(own, np.arange(len(own))):
            key = {"index": stored(tensors, f"{node.id}.{k}.index", own), "shape": derived(shape)}
            reads = Use(f"{node.id}.{k}.take")
            nodes.append(Node(reads.node, "take", (use,), key, replace(operand.type, shape=shape)))
        which = (channels[:, None] * h * w + np.arange(h * w)).reshape(-1)
        elements.append(which)
        attrs = {k2: _cut(a, channels, node, tensors) for k2, a in node.attrs.items() if not k2.startswith("record_")}
        attrs |= {"part_of": derived(label(node)), "elements": stored(tensors, f"{node.id}.{k}.elements", which)}
        type_ = replace(node.type, shape=shape)
        nodes.append(Node(f"{node.id}.{k}", node.op, (reads,), attrs, type_, f"{label(node).lstrip('%')}.{k}"))
    return [*nodes, _side_by_side(node, [f"{node.id}.{k}" for k in range(len(parts))], elements, tensors)]


def _side_by_side(node: Node, parts: list[str], elements: list[np.ndarray], tensors: dict[str, np.ndarray]) -> Node:
    """The elements of the parts where those of the neuron were, under its id."""
    place = np.empty(int(np.prod(node.type.shape)), np.int64)
    place[np.concatenate(elements)] = np.arange(len(place))
    attrs = {"index": stored(tensors, f"{node.id}.parts", place), "shape": derived(node.type.shape)}
    return Node(node.id, "take", tuple(Use(i) for i in parts), attrs, node.type)


def _cut(attr: Attr, channels: np.ndarray, node: Node, tensors: dict[str, np.ndarray]) -> Attr:
    """The channels of a parameter: [C], [C, H, W], or [T, C]."""
    if not isinstance(attr.value, Ref):
        return attr
    array, many = tensors[attr.value.key], node.type.shape[0]
    if array.shape[:1] == (many,) and array.ndim in (1, 3):
        return stored(tensors, attr.value.key, array[channels])
    if array.ndim == 2 and array.shape[1] == many:
        return stored(tensors, attr.value.key, array[:, channels])
    return attr
