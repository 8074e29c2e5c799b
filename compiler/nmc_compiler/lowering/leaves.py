"""What adds up to a current: the leaves below a node of the integer graph.

A leaf is one projection (conv2d, sparse, map, attn), the host's current, or an in-core transfer
(max-pool on currents, sum over positions, right shift). ``add`` nodes are looked through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.lowering.host import in_sending_order, sending_level
from nmc_compiler.lowering.somas import SOURCES
from nmc_compiler.program.arguments import stored_weights


@dataclass(frozen=True)
class Leaf:
    """One contribution. ``node`` is the graph node; ``collapse``: its positions are summed on arrival.

    ``transfer`` leaves read the sub-expression ``reads`` in the same core.
    """

    kind: Literal["conv", "sparse", "map", "attn", "host", "transfer"]
    node: Node
    collapse: bool = False
    reads: str = ""  # node id of a transfer's input expression
    mode: Literal["maxpool", "sum"] = "maxpool"
    rshift: int = 0
    copy: int = 0  # a node that a sum holds twice is two contributions

    @property
    def lag(self) -> int:
        """Timesteps by which its events are late."""
        return self.node.inputs[0].lag if self.kind in LAGGED else 0

    @property
    def key(self) -> str:
        return f"{self.node.id}{'+sum' if self.collapse else ''}{f'#{self.copy}' if self.copy else ''}"


KINDS = {
    "conv2d": "conv",
    "sparse_conv3d": "conv",
    "sparse": "sparse",
    "map": "map",
    "attn": "attn",
    "host_conv2d": "host",
    "host_sparse_conv3d": "host",
}
LAGGED = ("conv", "sparse", "map")  # kinds whose events may be of an earlier timestep
SUMS = ("sum_positions", "sum_sites")  # nothing adds to a slot without a site


class Leaves:
    """Leaves of expressions, and levels of neurons, of one graph."""

    def __init__(self, graph: Graph, keep_linear: bool) -> None:
        """``keep_linear``: bring sums over positions into the projections wherever they are linear in events."""
        self.graph, self.by_id, self.users = graph, graph.by_id(), graph.users()
        self.keep_linear = keep_linear
        self.levels: dict[str, int] = {}
        self.exponents: dict[str, int] = {}  # of synapses whose sum is shifted right
        for node in in_sending_order(graph):
            if node.op in SOURCES:
                self.levels[node.id] = sending_level(graph, node, self.levels)
            elif is_neuron(node):
                if node.inputs[0].lag:
                    raise LoweringError(f"'{label(node)}' reads a current of an earlier timestep; put a neuron between")
                self.levels[node.id] = self.first_level(node.operands[0])

    def of(self, node_id: str) -> list[Leaf]:
        """Leaves whose sum is the value of ``node_id``."""
        node = self.by_id[node_id]
        late = next((use for use in node.inputs if use.lag and not self.by_id[use.node].type.is_event), None)
        if late is not None or (node.op == "attn" and any(use.lag for use in node.inputs)):
            raise LoweringError(
                f"{node.op} '{label(node)}' reads values of an earlier timestep; only projections of events can"
            )
        if node.op == "add":
            return _numbered([leaf for operand in node.operands for leaf in self.of(operand)])
        if node.op in KINDS:
            return [Leaf(KINDS[node.op], node)]  # type: ignore[arg-type]
        if node.op == "rshift":
            return [self._shifted(node)]
        if node.op == "maxpool2d":
            return [Leaf("transfer", node, reads=node.operands[0])]
        if node.op in SUMS:
            return self._summed(node)
        raise LoweringError(f"{node.op} '{label(node)}' cannot stand between projections and a neuron")

    def _shifted(self, node: Node) -> Leaf:
        source = self.by_id[node.operands[0]]
        if source.op in SUMS and not self._collapses(source):
            return Leaf("transfer", node, reads=source.operands[0], mode="sum", rshift=node.attr("shift"))
        if source.op == "sparse" and len(self.users[source.id]) == 1:
            return self._shifted_synapses(node, source)
        return Leaf("transfer", node, reads=source.id, rshift=node.attr("shift"))

    def _shifted_synapses(self, node: Node, source: Node) -> Leaf:
        """Synapses shifted left by less, or weights that are even; a transfer where bits are lost."""
        exponent, weight = source.attr("shift", 0) - node.attr("shift"), self.graph.tensor(source, "weight")
        assert weight is not None
        self.exponents[source.id] = exponent
        rshift = stored_weights(f"synapses '{label(source)}'", weight, exponent).rshift
        if not rshift:
            return Leaf("sparse", source)
        return Leaf("transfer", node, reads=source.id, rshift=rshift)

    def _summed(self, node: Node) -> list[Leaf]:
        if not self._collapses(node):
            return [Leaf("transfer", node, reads=node.operands[0], mode="sum")]
        return [replace(leaf, collapse=True) for leaf in self.of(node.operands[0])]

    def _collapses(self, node: Node) -> bool:
        """Whether a sum over positions is best taken by the projections themselves.

        It can be where all of them are linear in events; it should be where nobody else reads them, or where
        every reader is to have its own.
        """
        inner = self.of(node.operands[0])
        linear = all(leaf.kind == "conv" and not leaf.collapse for leaf in inner)
        return linear and (self.keep_linear or self._private(node.operands[0]))

    def _private(self, node_id: str) -> bool:
        """Whether one reader alone reads an expression and everything it adds up."""
        node = self.by_id[node_id]
        alone = len(self.users[node_id]) == 1
        return alone and (node.op != "add" or all(self._private(i) for i in node.operands))

    def first_level(self, node_id: str) -> int:
        """Earliest level at which every event behind an expression has arrived."""
        return max((self.leaf_level(leaf) for leaf in self.of(node_id)), default=0)

    def leaf_level(self, leaf: Leaf) -> int:
        """Earliest level at which one leaf is complete."""
        if leaf.kind == "host":
            return 0
        if leaf.kind == "transfer":
            return self.first_level(leaf.reads)
        if leaf.kind != "attn":
            return 0 if leaf.lag else self.levels[self.source(leaf.node.operands[0])] + 1
        q, k, v = (self.levels[self.source(i)] for i in leaf.node.operands)
        written, read = ((k, v), q) if leaf.node.attr("order", "kv") == "kv" else ((k, q), v)
        return max(max(written) + 2, read + 1)

    def source(self, node_id: str) -> str:
        """The population behind an operand of a projection."""
        node = self.by_id[node_id]
        if not node.type.is_event or (node.op not in SOURCES and not is_neuron(node)):
            raise LoweringError(f"{node.op} '{label(node)}' feeds a projection but emits no events")
        return node_id

    def ticks_per_step(self, arrivals: Iterable[tuple[Leaf, int]]) -> int:
        """The least number of ticks in which every lagged leaf arrives in time, each at a level."""
        need = 1
        for leaf, level in arrivals:
            if leaf.lag:
                back = 1 + self.levels[self.source(leaf.node.operands[0])] - level
                need = max(need, -(-back // leaf.lag))
        return need


def _numbered(leaves: list[Leaf]) -> list[Leaf]:
    """The same leaves with equal ones told apart, counted in order."""
    seen: dict[str, int] = {}
    out = []
    for leaf in leaves:
        plain = replace(leaf, copy=0)
        out.append(replace(leaf, copy=seen.get(plain.key, 0)))
        seen[plain.key] = out[-1].copy + 1
    return out
