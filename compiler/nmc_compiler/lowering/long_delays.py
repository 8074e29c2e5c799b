"""Delays longer than a core holds: populations that hand spikes on, and synapses told apart by their delays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Node, Ref, Use, label, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.types import Kind, ValueType
from nmc_compiler.lowering.general_levels import Edge, GeneralLevels
from nmc_compiler.target import Target


def relay_delays(graph: Graph, target: Target) -> Graph:
    """The same network with no event underway for more ticks than the target holds, where relays can do that.

    LoweringError where codes would have to be handed on. The graph itself where nothing is too late, and where
    attention, gates, pools or streams stand between populations (``netlist`` then refuses what is too late).
    """
    return _Relays(graph, target).run() if all(n.op in PLAIN or is_neuron(n) for n in graph) else graph


PLAIN = ("input", "encode", "constant", "conv2d", "sparse", "add", "rshift", "reshape", "gather", "take", "output")


class _Relays:
    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.layout = GeneralLevels(graph)
        self.ticks, self.most = self.layout.ticks_per_step(), target.core.delay_max.value + 1
        self.tensors = dict(graph.tensors)
        self.relays: dict[tuple[str, int], Node] = {}
        self.first: list[Node] = []  # relays and what they read, in order
        self.instead: dict[str, list[Node]] = {}  # projections -> those that take their place

    def run(self) -> Graph:
        for dst, edges in self.layout.edges.items():
            for edge in edges:
                if self._last(edge, dst) > self.most and not edge.rshift and edge.node.id not in self.instead:
                    self._mend(edge, dst)
        if not self.instead:
            return self.graph
        sources = [n for n in self.graph if n.op in ("input", "encode", "constant")]
        body = [new for n in self.graph if n not in sources for new in self._rewired(n)]
        return rebuild(self.graph, [*sources, *self.first, *body], self.tensors)

    def _extra(self, node: Node) -> np.ndarray:
        extra = self.graph.tensor(node, "extra")
        return np.zeros(1, np.int64) if extra is None or not extra.size else extra.astype(np.int64)

    def _last(self, edge: Edge, dst: str) -> int:
        """Ticks after which the last synapse of an edge acts."""
        levels = self.layout.levels
        steps = edge.use.lag + int(self._extra(edge.node).max())
        return steps * self.ticks + levels[dst] - levels[edge.use.node]

    def _mend(self, edge: Edge, dst: str) -> None:
        """Synapses in bands of delays that fit behind a relay; each band reads the relay that is late enough."""
        level, node = self.layout.levels[dst], edge.node
        least = 0 if level else 1  # timesteps from a relay, which has level 0, to the target
        width = (self.most - level - least * self.ticks) // self.ticks
        if width < 0:
            return
        use, extra = node.inputs[0], self._extra(node)
        path = edge.use.lag - use.lag  # what later nodes are late
        found = self.instead.setdefault(node.id, [])
        for band in np.unique(extra // (width + 1)).tolist():
            chosen = extra // (width + 1) == band
            low = band * (width + 1)
            room = (self.most - level) // self.ticks - int(extra[chosen].max() - low) - path
            lag = use.lag + low
            cover = lag - max(room, 0)
            cover = max(cover, self._soonest(use.node)) if cover > 0 else 0
            source = self._relay(use.node, cover) if cover else use.node
            piece = self._piece(node, chosen, low, len(found))
            found.append(replace(piece, inputs=(Use(source, lag - cover),)))

    def _soonest(self, source: str) -> int:
        """The least number of timesteps after which a relay, of level 0, can hear a population."""
        return -(-(1 + self.layout.levels[source]) // self.ticks)

    def _piece(self, node: Node, chosen: np.ndarray, low: int, number: int) -> Node:
        """Some of the synapses of a projection, ``low`` timesteps less late; all of a convolution."""
        extra = self.graph.tensor(node, "extra")
        if extra is None or (chosen.all() and not low):
            return node
        indptr, target, weight = (self.graph.tensor(node, k) for k in ("indptr", "target", "weight"))
        assert indptr is not None and target is not None and weight is not None
        source = np.repeat(np.arange(len(indptr) - 1), indptr[1:] - indptr[:-1])[chosen]
        counts = np.bincount(source, minlength=len(indptr) - 1)
        arrays = {"indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), "target": target[chosen]}
        arrays |= {"weight": weight[chosen], "extra": (extra[chosen] - low).astype(np.uint8)}
        stem = f"{label(node).lstrip('%')}.band{number}"
        return replace(node.with_attrs(**{k: self._stored(f"{stem}.{k}", v) for k, v in arrays.items()}),
                       id=f"{node.id}.band{number}", name=stem)  # fmt: skip

    def _stored(self, key: str, array: np.ndarray) -> Attr:
        self.tensors[key] = array
        return Attr(Ref(key))

    def _relay(self, source: str, late: int) -> str:
        """A population that fires ``late`` timesteps after ``source``."""
        if (source, late) in self.relays:
            return self.relays[source, late].id
        node = self.layout.by_id[source]
        if node.type.kind is not Kind.SPIKE:
            raise LoweringError(
                f"'{label(node)}' sends codes over more than the {self.most} ticks that {self.target.name} holds; "
                f"only plain spikes can be handed on"
            )
        at_once = (self.most + self.layout.levels[source]) // self.ticks
        hop = min(late, at_once)
        reads = Use(source, hop)
        if late > hop:
            before = max(late - self.most // self.ticks, self._soonest(source))
            reads = Use(self._relay(source, before), late - before)
        name, n = f"{label(node).lstrip('%')}.late{late}", math.prod(node.type.shape)
        each, one_each = np.arange(n + 1), np.ones(n, np.int8)
        arrays: dict[str, np.ndarray] = {"indptr": each, "target": each[:n].astype(np.int32), "weight": one_each}
        attrs = {k: self._stored(f"one{n}.{k}", v) for k, v in arrays.items()} | {"shape": Attr(node.type.shape)}
        current = ValueType(Kind.CURRENT, node.type.shape)
        one = Node(f"{source}.late{late}.in", "sparse", (reads,), attrs, current, f"{name}.in")
        soma = {"dv": Attr(4096), "vth": self._stored(f"{name}.vth", np.zeros(node.type.shape[0], np.int32))}
        relay = Node(f"{source}.late{late}", "cuba_lif", (Use(one.id),), soma, node.type, name)
        self.relays[source, late] = relay
        self.first += [one, relay]
        return relay.id

    def _rewired(self, node: Node) -> list[Node]:
        """A node, its mended projections in place of those that were late."""
        if node.id in self.instead:
            return self.instead[node.id]
        late = [use for use in node.inputs if use.node in self.instead]
        if not late:
            return [node]
        uses = tuple(
            Use(n.id, u.lag) for u in node.inputs for n in self.instead.get(u.node, [self.layout.by_id[u.node]])
        )
        if node.op == "add" or len(uses) == 1:
            return [replace(node, inputs=uses)]
        current = ValueType(Kind.CURRENT, self.layout.by_id[node.inputs[0].node].type.shape)
        total = Node(f"{node.id}.bands", "add", uses, {}, current)
        return [total, replace(node, inputs=(Use(total.id),))]
