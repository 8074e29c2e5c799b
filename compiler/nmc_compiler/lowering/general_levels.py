"""Levels of the populations of a general network, and the ticks per timestep that its loops ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, Use, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.lowering.host import in_sending_order, sending_level

SOURCES = ("input", "encode", "constant")


@dataclass(frozen=True)
class Edge:
    """A projection node, its source some timesteps ago, and how far its sum is shifted right."""

    node: Node
    use: Use
    rshift: int = 0


class GeneralLevels:
    """``edges``: projections of each neuron; ``levels``: the longest way from a source, lagged edges left out."""

    def __init__(self, graph: Graph) -> None:
        self.by_id = graph.by_id()
        self.edges: dict[str, list[Edge]] = {}
        self.levels: dict[str, int] = {}
        for node in in_sending_order(graph):
            if node.op in SOURCES:
                self.levels[node.id] = sending_level(graph, node, self.levels)
            elif is_neuron(node):
                edges = self.edges[node.id] = self._edges(node.inputs[0])
                near = [self.levels[e.use.node] + 1 for e in edges if not e.use.lag]
                self.levels[node.id] = max(near, default=0)

    def ticks_per_step(self) -> int:
        """The least number of ticks in which every lagged edge arrives in time."""
        need = 1
        for dst, edges in self.edges.items():
            for edge in (e for e in edges if e.use.lag):
                back = 1 + self.levels[edge.use.node] - self.levels[dst]
                need = max(need, -(-back // edge.use.lag))
        return need

    def _edges(self, use: Use, rshift: int = 0) -> list[Edge]:
        """Projections whose sum a neuron reads; a lag on the way counts for what is behind it."""
        node = self.by_id[use.node]
        if node.op in ("conv2d", "sparse"):
            source = node.inputs[0]
            behind = self.by_id[source.node]
            if behind.op not in SOURCES and not (is_neuron(behind) and behind.type.is_event):
                raise LoweringError(
                    f"{node.op} '{label(node)}' reads {behind.op} '{label(behind)}', which sends no events"
                )
            return [Edge(node, Use(source.node, source.lag + use.lag), rshift)]
        if node.op == "rshift" and not rshift:
            inner = self._edges(node.inputs[0], node.attr("shift"))
            return [replace(e, use=Use(e.use.node, e.use.lag + use.lag)) for e in inner]
        if node.op == "add":
            parts = [edge for operand in node.inputs for edge in self._edges(operand, rshift)]
            return [replace(e, use=Use(e.use.node, e.use.lag + use.lag)) for e in parts]
        raise LoweringError(f"{node.op} '{label(node)}' cannot stand between projections and a neuron")
