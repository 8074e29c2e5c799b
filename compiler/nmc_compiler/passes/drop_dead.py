"""Remove nodes that no read-out depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nmc_compiler.graph import Graph, label, rebuild
from nmc_compiler.graph.analysis import reachable_from_output
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class DropDead:
    """Nodes without a path to the read-out go; each is reported."""

    name: ClassVar[str] = "drop-dead"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        live = reachable_from_output(graph)
        live |= {n.id for n in graph.sources if graph.outputs}  # whoever runs the network feeds every input
        for node in graph:
            if node.id not in live:
                report.add(self.name, label(node), op=node.op, change="removed: no path to the read-out")
        return rebuild(graph, [n for n in graph if n.id in live])
