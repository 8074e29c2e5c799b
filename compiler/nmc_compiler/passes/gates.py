"""Recognise neurons that are logic gates, by the inequality that makes them so.

A LIF whose input is always a multiple n*g (n = 0, 1, 2, ...) of one positive step and
that starts from rest at 0 fires exactly when n >= 1 if one step alone reaches the
threshold: gain/tau * g >= theta (with decay_input; gain * g >= theta without). It then
resets to 0 and no charge survives a timestep: an OR gate (models.md, fact E1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Node, label, rebuild
from nmc_compiler.graph.firing import MOVING
from nmc_compiler.passes.base import derived
from nmc_compiler.passes.lasting_tables import decays
from nmc_compiler.passes.report import ConversionReport

MOVED = ("take", "reshape", "delay", "add", "sum_positions")  # events of others


@dataclass(frozen=True)
class RecogniseGates:
    """Marks such neurons with role "or"."""

    name: ClassVar[str] = "recognise-gates"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        by_id = graph.by_id()
        nodes = []
        for node in graph:
            if node.op == "lif" and is_or(graph, node, by_id):
                report.add(self.name, label(node), change="OR gate: one count alone reaches the threshold")
                node = node.with_attrs(role=derived("or"))
            nodes.append(node)
        return rebuild(graph, nodes)


def count_step(graph: Graph, node: Node, by_id: dict[str, Node]) -> float | None:
    """g where the current is always n*g with whole n >= 0; None where it need not be."""
    if node.op == "map":
        return 1.0 / event_norm(by_id[node.operands[0]], by_id)
    if node.op == "attn":
        return float(node.attr("scale", 1.0)) / (
            event_norm(by_id[node.operands[0]], by_id)
            * event_norm(by_id[node.operands[1]], by_id)
            * event_norm(by_id[node.operands[2]], by_id)
        )
    if node.op in ("add", "sum_positions", "maxpool2d") and not node.type.is_event:
        steps = {count_step(graph, by_id[i], by_id) for i in node.operands}
        return steps.pop() if len(steps) == 1 else None
    return None


def event_norm(node: Node, by_id: dict[str, Node]) -> float:
    """Codes per unit of value of an event: value = code/norm."""
    if node.op in ("multilevel", "ilif", "neuron"):
        return float(node.attr("norm", 1))
    if node.op == "maxpool2d":
        return event_norm(by_id[node.operands[0]], by_id)
    if node.op in MOVED and node.type.is_event:
        norms = {event_norm(by_id[i], by_id) for i in node.operands}
        if len(norms) > 1:
            raise LoweringError(
                f"{node.op} '{label(node)}' has codes worth 1/{' and 1/'.join(f'{n:g}' for n in sorted(norms))}; "
                f"only codes of one worth can be handed on together"
            )
        return norms.pop()
    if node.op == "encode":
        return float(node.attr("scale"))
    return 1.0


def same_codes(levels: int, norm: float) -> dict[str, Attr]:
    """Attributes of a `multilevel` that sends the codes, worth 1/norm each, that reach it as a current."""
    return {"levels": derived(levels), "rounding": derived("half_even"), "norm": derived(norm), "gain": derived(norm)}


def input_gain(node: Node) -> float:
    """kappa in h = lambda*h + kappa*(x + b)."""
    gain = float(node.attr("gain", 1.0))
    return gain / float(node.attr("tau")) if node.attr("decay_input") else gain


def is_or(graph: Graph, node: Node, by_id: dict[str, Node]) -> bool:
    source = by_id[node.operands[0]]
    step = count_step(graph, source, by_id)
    if step is None or step <= 0 or node.attr("bias") is not None or decays(graph, source, by_id):
        return False
    if node.attr("reset") != "hard" or node.attr("v_reset", 0.0) != 0.0 or set(node.attrs) & set(MOVING):
        return False
    charge, theta = input_gain(node) * step, float(node.attr("theta"))
    return theta > 0 and (charge >= theta if node.attr("compare") == "ge" else charge > theta)
