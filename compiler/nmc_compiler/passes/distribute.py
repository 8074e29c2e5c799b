"""Bring sums of events behind the linear ops that read them.

W*(s1 + s2) = W*s1 + W*s2 and W*sum_n(s[n]) = sum_n(W*s[n]): the integer residual codes of
Spikformer become parallel events into one synapse memory, exact at any depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, Use, label, rebuild
from nmc_compiler.graph.analysis import CONVOLUTIONS
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class DistributeSums:
    """Afterwards every convolution reads the events of one population (or pool)."""

    name: ClassVar[str] = "distribute-sums"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id = graph.by_id()
        nodes: list[Node] = []
        for node in graph:
            if node.op in CONVOLUTIONS and by_id[node.operands[0]].type.is_event:
                nodes += _distributed(graph, node, by_id, report)
            elif node.op in ("add", "sum_positions") and node.type.is_event:
                continue  # its readers are convolutions (checked below) and have been rewritten
            else:
                nodes.append(node)
        _check_readers(graph)
        return rebuild(graph, nodes)


def _check_readers(graph: Graph) -> None:
    by_id = graph.by_id()
    for node in graph:
        for operand in (by_id[i] for i in node.operands):
            summed = operand.op in ("add", "sum_positions") and operand.type.is_event
            if summed and node.op not in (*CONVOLUTIONS, "add", "sum_positions"):
                raise LoweringError(
                    f"{node.op} '{label(node)}' reads a sum of spikes ('{label(operand)}'); only linear layers can"
                )


def _terms(node: Node, by_id: dict[str, Node]) -> list[tuple[str, bool]]:
    """Event nodes a sum is made of, and whether each is summed over positions."""
    if node.op == "add" and node.type.is_event:
        return [term for i in node.operands for term in _terms(by_id[i], by_id)]
    if node.op == "sum_positions" and node.type.is_event:
        return [(i, True) for i, _ in _terms(by_id[node.operands[0]], by_id)]
    return [(node.id, False)]


def _check_pointwise(graph: Graph, conv: Node) -> None:
    """W*sum_n(s[n]) = sum_n(W*s[n]) only where W sees one position at a time and leaves none out."""
    kernel = graph.tensors[conv.attr("weight").key].shape[2:]
    stride, pad = conv.attr("stride", (1, 1)), conv.attr("pad", (0, 0))
    if (kernel, stride, pad) != ((1, 1), (1, 1), (0, 0)):
        raise LoweringError(
            f"convolution '{label(conv)}' reads a sum over positions with kernel {kernel}, stride {stride} and pad "
            f"{pad}; only a plain 1x1 convolution can be moved in front of the sum"
        )


def _distributed(graph: Graph, conv: Node, by_id: dict[str, Node], report: ConversionReport) -> list[Node]:
    terms = _terms(by_id[conv.operands[0]], by_id)
    if terms == [(conv.operands[0], False)]:
        return [conv]
    if conv.attr("bias") is not None:
        raise LoweringError(f"convolution '{label(conv)}' still has a bias; run hoist-bias before distribute-sums")
    if any(summed for _, summed in terms):
        _check_pointwise(graph, conv)
    report.add("distribute-sums", label(conv), terms=[label(by_id[i]) for i, _ in terms])
    out: list[Node] = []
    tops = []
    for k, (source, summed) in enumerate(terms):
        part = replace(conv, id=f"{conv.id}.{k}", inputs=(Use(source), *conv.inputs[1:]))
        out.append(part)
        tops.append(part.id)
        if summed:
            out.append(Node(f"{conv.id}.{k}.sum", "sum_positions", (Use(part.id),), {}, conv.type))
            tops[-1] = out[-1].id
    if len(tops) == 1:
        out[-1] = replace(out[-1], id=conv.id)
        return out
    return [*out, Node(conv.id, "add", tuple(Use(t) for t in tops), {}, conv.type, "")]
