"""Sites of a graph as tables of a Program."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.ops_sites import home
from nmc_compiler.program.model import Sites, SiteWindow
from nmc_compiler.program.sites import Triple, down_extent, down_table

POINT: Triple = (1, 1, 1)
NO_PAD: Triple = (0, 0, 0)


def _window(node: Node) -> tuple[Triple, Triple, Triple]:
    return node.attr("kernel", POINT), node.attr("stride", POINT), node.attr("pad", NO_PAD)


class SiteIndex:
    """Numbers the values of kind ``sites`` of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.by_id = graph, graph.by_id()
        self.nodes = [n for n in graph if n.type.kind is Kind.SITES]
        self.number = {n.id: i for i, n in enumerate(self.nodes)}

    def tables(self) -> tuple[Sites, ...] | None:
        """Entries of ``Program.sites``, None without any. LoweringError where a fixed cloud makes more or fewer."""
        found: list[Sites] = []
        for node in self.nodes:
            found.append(self._made(node, found) if node.op == "down_sites" else self._root(node))
        return tuple(found) or None

    def _root(self, node: Node) -> Sites:
        table = self.graph.tensor(node, "table")
        fixed = None if table is None else np.ascontiguousarray(table.astype(np.int32))
        return Sites(label(node).lstrip("%"), node.type.shape[1], node.attr("extent"), table=fixed)

    def _made(self, node: Node, found: list[Sites]) -> Sites:
        number, window = self.number[node.operands[0]], _window(node)
        parent = found[number]
        if node.attr("extent") != parent.extent:
            raise LoweringError(
                f"'{label(node)}' says that its operand has the extent {node.attr('extent')}; it has {parent.extent}"
            )
        made = Sites(label(node).lstrip("%"), node.attr("slots"), down_extent(parent.extent, *window), number, *window)
        if parent.table is None:
            return made
        table = down_table(parent.table, parent, made)
        if len(table) != made.slots:
            raise LoweringError(
                f"'{label(node)}' has {made.slots} slots, but the fixed cloud makes {len(table)} sites; give as many"
            )
        return Sites(made.name, made.slots, made.extent, number, *window, table=table)

    def home(self, node: Node) -> int | None:
        """Sites that a neuron is on; those that a read-out takes the mean over; None for plain grids."""
        source = self.by_id[node.operands[0]]
        if source.op == "rshift":
            source = self.by_id[source.operands[0]]
        found = source.operands[1] if source.op == "sum_sites" else home(self.by_id, node)
        return None if found is None else self.number[found]

    def window(self, node: Node) -> SiteWindow | None:
        """What a convolution reads; None of one from each slot to itself, which needs no addresses."""
        (source, target), (kernel, stride, pad) = node.operands[1:], _window(node)
        if (kernel, stride, pad) == (POINT, POINT, NO_PAD) and source == target and node.op == "sparse_conv3d":
            return None
        return SiteWindow(
            self.number[source], self.number[target], kernel, stride, pad, bool(node.attr("inverse", False))
        )
