"""Graded relays between linear layers that have no neuron between them, where folding them would cost too much.

A depthwise 7x7 and a pointwise convolution fold into one dense 7x7 with C times their weights. Kept apart, a relay
neuron stands between them: it sends the sum of the first as signed graded events, which the second multiplies. So the
real values of the trained model become integer codes (``Quantize`` chooses their scale), one message per position,
channel and timestep. Real values that no convolution makes (a token mean) can be sent in no other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph, Kind, Node, Use, label, rebuild
from nmc_compiler.passes.base import drop_attrs, redirect, stored
from nmc_compiler.passes.fold_convs import bias_behind, drop_ring, is_pointwise
from nmc_compiler.passes.report import ConversionReport

CHOICES = ("auto", "fold", "relay")
FOLD_PRICE = 8.0  # most weights of a fold, against those of its factors, that "auto" pays to avoid relays ...
FOLD_FREE = 1 << 18  # ... where it has more weights than these, a few cores' memory


@dataclass(frozen=True)
class RelayFactors:
    """Afterwards convolutions that still read the current of another one are to be folded into it."""

    name: ClassVar[str] = "relay-factors"
    choice: str = "auto"
    graded: bool = True  # whether the target sends graded spikes
    free: int = FOLD_FREE

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        if self.choice not in CHOICES:
            raise UsageError(f"unknown factors '{self.choice}'; known: {', '.join(CHOICES)}")
        if self.choice == "relay" and not self.graded:
            raise UsageError("relays send graded spikes, which the target has not; compile with --factors fold")
        for chain in _chains(graph):
            weights, folded = sum(_size(graph, n) for n in chain), _product_size(graph, chain)
            if self._fold(graph, chain, weights, folded):
                continue
            for first, second in zip(chain, chain[1:], strict=False):
                graph = _relayed(graph, first.id, second.id, report, weights=weights, weights_if_folded=folded)
        for conv in _readers_of_sums(graph):
            graph = _relayed(graph, conv.operands[0], conv.id, report)
        return graph

    def _fold(self, graph: Graph, chain: list[Node], weights: int, folded: int) -> bool:
        possible = sum(not is_pointwise(graph, n) for n in chain) <= 1
        if not self.graded or self.choice == "fold":
            return True  # where it is impossible, FoldConvs says why
        return possible and self.choice == "auto" and folded <= max(FOLD_PRICE * weights, self.free)


def _size(graph: Graph, conv: Node) -> int:
    weight = graph.tensor(conv, "weight")
    assert weight is not None
    return int(weight.size)


def _product_size(graph: Graph, chain: list[Node]) -> int:
    """Weights of the one convolution that a chain folds into."""
    by_id, source = graph.by_id(), graph.node(chain[0].operands[0])
    kernels = [graph.tensor(n, "weight").shape[2:] for n in chain]  # type: ignore[union-attr]
    taps = [1 + sum(k[axis] - 1 for k in kernels) for axis in (0, 1)]
    return by_id[chain[-1].id].type.shape[0] * source.type.shape[0] * taps[0] * taps[1]


def _before(graph: Graph, conv: Node) -> Node:
    """What a convolution reads, its padding ring looked through."""
    source = graph.node(conv.operands[0])
    return graph.node(source.operands[0]) if source.op == "pad2d" else source


def _chains(graph: Graph) -> list[list[Node]]:
    """Convolutions one behind the other, each read by the next alone."""
    users, by_id = graph.users(), graph.by_id()
    after: dict[str, Node] = {}
    for conv in (n for n in graph if n.op == "conv2d"):
        source = _before(graph, conv)
        links = [source.id] + ([conv.operands[0]] if conv.operands[0] != source.id else [])
        if source.op == "conv2d" and all(len(users[i]) == 1 for i in links):
            after[source.id] = conv
    behind = {n.id for n in after.values()}
    chains = []
    for first in (i for i in after if i not in behind):
        chain = [by_id[first]]
        while chain[-1].id in after:
            chain.append(after[chain[-1].id])
        chains.append(chain)
    return chains


def _readers_of_sums(graph: Graph) -> list[Node]:
    """Convolutions that read a current which no single convolution makes."""
    by_id = graph.by_id()
    return [
        n for n in graph
        if n.op == "conv2d" and by_id[n.operands[0]].type.kind is Kind.CURRENT and _before(graph, n).op != "conv2d"
        and by_id[n.operands[0]].op != "pad2d"
    ]  # fmt: skip


def _relayed(graph: Graph, first_id: str, second_id: str, report: ConversionReport, **facts: int) -> Graph:
    """``second`` reads the codes of a relay; the bias of ``first`` goes past it into that of ``second``."""
    ring = graph.node(graph.node(second_id).operands[0])
    if ring.op == "pad2d":
        graph, first, second = drop_ring(graph, ring)
    else:
        first, second = graph.node(first_id), graph.node(second_id)
    tensors = dict(graph.tensors)
    bias = graph.tensor(first, "bias") if first.op == "conv2d" else None
    if bias is not None:
        own = graph.tensor(second, "bias")
        total = bias_behind(graph, first, second, bias, ring.op == "pad2d") + (0.0 if own is None else own)
        second = second.with_attrs(bias=stored(tensors, f"{label(second)}.past.bias", total))
        first = drop_attrs(first, "bias")
    relay = Node(f"{first.id}.relay", "relay", (Use(first.id),), {}, first.type, f"{label(first).lstrip('%')}.relay")
    nodes = []
    for node in graph:
        node = {first.id: first, second.id: redirect([second], {first.id: relay.id})[0]}.get(node.id, node)
        nodes += [node, relay] if node.id == first.id else [node]
    channels, height, width = first.type.shape
    report.add("relay-factors", label(relay), messages_per_timestep=channels * height * width, **facts)
    return rebuild(graph, nodes, tensors)
