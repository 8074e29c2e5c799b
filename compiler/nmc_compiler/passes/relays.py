"""Graded relays, for residual streams that do not fit where their readers are (integer graphs).

A stream lives on the cores of everything that reads it. A relay neuron sends its value, as
signed graded events, to an accumulator elsewhere: exact, at the price of one message per
position and timestep. Two uses: a sum over positions that would force all positions of a
channel onto one core, and a cut that lets a long stream continue on other cores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nmc_compiler.graph import Graph, Kind, Node, Use, label, rebuild
from nmc_compiler.passes.base import derived
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class RelaySums:
    """sum over positions of a stream = reduce-map of its relay."""

    name: ClassVar[str] = "relay-sums"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        users, nodes = graph.users(), []
        for node in graph:
            source = node.operands[0] if node.operands else ""
            if node.op != "sum_positions" or not _is_stream(graph, source, users):
                nodes.append(node)
                continue
            relay = _relay(graph.node(source), _free(users, f"{node.id}.relay"))
            nodes += [relay, replace(node, op="map", inputs=(Use(relay.id),), attrs={"mode": derived("reduce")})]
            report.add(self.name, label(relay), messages_per_timestep=_positions(relay))
        return rebuild(graph, nodes)


@dataclass(frozen=True)
class CutStreams:
    """Cut every residual stream into at most ``pieces`` segments of about equally many producers."""

    name: ClassVar[str] = "cut-streams"
    pieces: int = 2

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        cuts = {add for chain in _chains(graph) for add in _even_cuts(chain, self.pieces)}
        moved: dict[str, str] = {}  # stream value -> its relayed copy, for whatever comes after the cut
        nodes: list[Node] = []
        for node in graph:
            inputs = tuple(Use(moved.get(u.node, u.node) if _continues(node) else u.node, u.lag) for u in node.inputs)
            nodes.append(replace(node, inputs=inputs))
            if node.id in cuts:
                relay = _relay(node, f"{node.id}.cut")
                copy = Node(f"{node.id}.after", "map", (Use(relay.id),), {"mode": derived("same")}, node.type)
                nodes += [relay, copy]
                moved[node.id] = copy.id
                report.add(self.name, label(relay), messages_per_timestep=_positions(relay))
        return rebuild(graph, nodes)


def _free(taken: dict[str, list[Node]], node_id: str) -> str:
    """The id, or another where a relay of the sum itself has it."""
    return _free(taken, f"{node_id}.in") if node_id in taken else node_id


def _relay(source: Node, node_id: str) -> Node:
    return Node(node_id, "relay", (Use(source.id),), {}, source.type, f"{label(source).lstrip('%')}.relay.{node_id}")


def _positions(node: Node) -> int:
    c, h, w = node.type.shape
    return c * h * w


def _is_stream(graph: Graph, node_id: str, users: dict[str, list[Node]]) -> bool:
    """Whether an expression shares accumulators with other readers."""
    node = graph.node(node_id)
    shared = len(users[node_id]) > 1
    return shared or (node.op == "add" and any(_is_stream(graph, i, users) for i in node.operands))


def _continues(node: Node) -> bool:
    """Whether a node carries a stream on, rather than reading it where it is."""
    return node.op == "add" and node.type.kind is Kind.CURRENT


def _chains(graph: Graph) -> list[list[str]]:
    """Residual streams as lists of their add nodes, each adding to the one before."""
    by_id = graph.by_id()
    ends: dict[str, list[str]] = {}
    for node in graph:
        if not _continues(node):
            continue
        before = [i for i in node.operands if i in ends and by_id[i].type.shape == node.type.shape]
        chain = ends.pop(before[0]) if before else []
        ends[node.id] = [*chain, node.id]
    return list(ends.values())


def _even_cuts(chain: list[str], pieces: int) -> list[str]:
    """Add nodes after which to cut; the last is never one (nothing would follow)."""
    count = min(pieces, len(chain))
    return [chain[len(chain) * k // count - 1] for k in range(1, count)]
