"""Networks in which a timestep hears later ones (parallel spiking neurons with full weights), made causal.

Every node gets the least number of timesteps that it has to be late; operands that are earlier are read late. The
network runs as much longer as its last node is late, and outside its own T timesteps a neuron is held at rest by a gain
of 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.graph import Attr, Graph, Node, Use, label, rebuild
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_cell import steps_ahead
from nmc_compiler.graph.types import Ref

NEVER = 1e30  # a threshold beyond any potential
GATED = ("lif", "neuron", "ilif", "multilevel")


def causal(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph, and notes; the same graph where nothing looks ahead. FrontendError where it cannot be late."""
    ahead = {n.id: _ahead(graph, n) for n in graph if n.op == "psn"}
    if not any(ahead.values()):
        return graph, []
    late = _latencies(graph, ahead)
    most = max(late.values())
    notes = [
        f"'{label(n)}' hears up to {ahead[n.id]} timesteps ahead, and is as late" for n in graph if ahead.get(n.id, 0)
    ]
    notes.append(f"samples have {graph.timesteps} timesteps; the network runs {most} longer")
    notes += [f"output '{label(n)}' is {late[n.id]} timesteps late" for n in graph.outputs if late[n.id]]
    notes += [
        f"'{label(n)}' keeps what its codes leave: it may send more behind its last timestep; its readers do not take "
        f"that, but it is counted"
        for n in graph
        if (n.op == "ilif" or (n.op == "neuron" and "levels" in n.attrs)) and late[n.id] < most
    ]
    return _Later(graph, late, most, ahead).run(), notes


def _ahead(graph: Graph, node: Node) -> int:
    weight = graph.tensor(node, "weight")
    return 0 if weight is None else steps_ahead(weight)


def _latencies(graph: Graph, ahead: dict[str, int]) -> dict[str, int]:
    """The least that satisfy: no operand is read before it is there, and in a loop a timestep later."""
    late = {n.id: 0 for n in graph}
    place = {n.id: i for i, n in enumerate(graph)}
    for _ in range(len(late) + 1):
        before = dict(late)
        for node in graph:
            for use in node.inputs:
                back = 1 if place[use.node] >= place[node.id] else 0
                late[node.id] = max(late[node.id], late[use.node] - use.lag + back + ahead.get(node.id, 0))
        if late == before:
            return late
    looped = next(n for n in graph if late[n.id] != before[n.id])
    raise FrontendError(
        f"'{label(looped)}' is in a loop with a parallel spiking neuron that hears later timesteps, which wait for it; "
        f"use a masked or sliding one there"
    )


class _Later:
    def __init__(self, graph: Graph, late: dict[str, int], most: int, ahead: dict[str, int]) -> None:
        self.graph, self.late, self.most, self.ahead = graph, late, most, ahead
        self.tensors = dict(graph.tensors)
        self.by_id = graph.by_id()

    def run(self) -> Graph:
        nodes = []
        for node in self.graph:
            here = self.late[node.id] - self.ahead.get(node.id, 0)
            uses = tuple(Use(u.node, u.lag + here - self.late[u.node]) for u in node.inputs)
            nodes.append(replace(self._node(node), inputs=uses))
        longer = replace(self.graph, timesteps=self.graph.timesteps + self.most)
        return rebuild(longer, nodes, self.tensors)

    def _node(self, node: Node) -> Node:
        if node.op in GATED:
            return self._gated(node)
        rule = getattr(self, f"_of_{node.op}", None)
        return node if rule is None else rule(node)  # type: ignore[no-any-return]

    # ---- tables ----

    def _stored(self, node: Node, key: str, array: np.ndarray) -> Attr:
        name = f"{label(node).lstrip('%')}.{key}@late"
        self.tensors[name] = array
        return Attr(Ref(name))

    def _longer(self, node: Node, key: str, outside: float, default: Any = None) -> Attr:
        """A table by timestep, at its place among all timesteps."""
        table = self.graph.tensor(node, key) if key in node.attrs else default
        table = np.asarray(table, np.float64)
        ends = (self.late[node.id], self.most - self.late[node.id])
        pads = [ends, *[(0, 0)] * (table.ndim - 1)]
        return self._stored(node, key, np.pad(table, pads, constant_values=outside))

    def _gated(self, node: Node) -> Node:
        """At rest before its first timestep, and silent behind its last one."""
        moved = next((k for k in ("leak", "start_v", "start_u") if np.any(self._value(node, k))), None)
        if moved is not None or np.min(self._value(node, "theta", 1.0)) <= 0:
            raise FrontendError(
                f"'{label(node)}' has {moved or 'a threshold of 0 or less'}, and would not rest before its first "
                f"timestep, which comes {self.late[node.id]} late: a parallel spiking neuron hears later ones"
            )
        steps = self.graph.timesteps
        attrs = {"gain_t": self._longer(node, "gain_t", 0.0, np.ones(steps))}
        if "bias_t" in node.attrs:
            attrs["bias_t"] = self._longer(node, "bias_t", 0.0)
        if "theta_t" in node.attrs or (node.op in ("lif", "neuron") and self._lasts(node)):
            theta = np.broadcast_to(np.asarray(self._value(node, "theta")), (steps, *self._by_channel(node)))
            attrs["theta_t"] = self._longer(node, "theta_t", NEVER, theta)
        return node.with_attrs(**attrs, record_window=Attr((self.late[node.id], steps)))

    def _lasts(self, node: Node) -> bool:
        """Whether it may fire when nothing comes any more: what a code of several levels leaves is not told apart."""
        return "levels" not in node.attrs and (node.attr("reset") != "hard" or "alpha" in node.attrs)

    def _by_channel(self, node: Node) -> tuple[int, ...]:
        shape = np.shape(self._value(node, "theta"))
        if len(shape) > 1:
            raise FrontendError(f"'{label(node)}' has a threshold for each position; behind a parallel spiking neuron "
                                f"that hears later timesteps there can be one for each channel")  # fmt: skip
        return shape or (1,)

    def _value(self, node: Node, key: str, default: float = 0.0) -> Any:  # a number or an array
        value = node.attr(key, default)
        return self.graph.tensors[value.key] if isinstance(value, Ref) else value

    # ---- ops ----

    def _of_psn(self, node: Node) -> Node:
        late, ahead, steps = self.late[node.id], self.ahead[node.id], self.graph.timesteps
        window = {"begins": Attr(late - ahead), "late": Attr(ahead), "record_window": Attr((late, steps))}
        taps = self.graph.tensor(node, "taps")
        if taps is None:
            return node.with_attrs(**window)
        weight = sum(np.diag(np.full(steps - k, w), -k) for k, w in enumerate(taps[:steps].tolist()))
        kept = {k: v for k, v in node.attrs.items() if k != "taps"}
        return replace(node, attrs=kept | window | {"weight": self._stored(node, "weight", np.asarray(weight))})

    def _of_time_affine(self, node: Node) -> Node:
        keys = [k for k in ("gain", "bias") if k in node.attrs]
        attrs = {k: self._longer(node, k, 0.0) for k in keys}
        ones = np.ones(self.graph.timesteps)
        return node.with_attrs(**attrs) if "gain" in keys else node.with_attrs(
            **attrs, gain=self._longer(node, "gain", 0.0, ones))  # fmt: skip

    def _of_readout(self, node: Node) -> Node:
        """It sums over more timesteps than it should divide by; what is added at each of them is taken off."""
        longer = (self.graph.timesteps + self.most) / self.graph.timesteps
        offset, bias = self._at_rest(node), self.graph.tensor(node, "bias")
        wanted = offset + (0.0 if bias is None else bias.astype(np.float64))
        added = wanted / longer - offset
        attrs = {"gain": Attr(float(node.attr("gain", 1.0)) * longer)}
        if added.any():
            attrs["bias"] = self._stored(node, "bias", added)
        return node.with_attrs(**attrs)

    def _at_rest(self, readout: Node) -> np.ndarray:
        """[C]: the current of a read-out when nothing is sent."""
        within, stack = set[str](), [readout.inputs[0].node]
        while stack:
            node = self.by_id[stack.pop()]
            within.add(node.id)
            if node.op == "time_affine":
                raise self._refused(node, "has numbers for each timestep in front of the read-out")
            stack += [] if node.type.is_event else node.operands
        nodes, quiet = [], {}
        for node in (n for n in self.graph if n.id in within):
            if node.type.is_event and node.op != "constant":
                kind: dict[str, Any] = {
                    "shape": node.type.shape,
                    "bits": node.type.bits,
                    "signed": node.type.signed or None,
                }
                attrs = {k: Attr(v) for k, v in kind.items() if v is not None}
                nodes.append(Node(node.id, "input", (), attrs, node.type, node.id))
                quiet[node.id] = np.zeros((1, *node.type.shape))
            else:
                nodes.append(replace(node, inputs=tuple(Use(u.node) for u in node.inputs)))
        held = replace(readout, id="held", name="held", op="integrator", attrs={"beta": Attr(0.0)})
        out = replace(readout, id="out", name="out", op="output", attrs={}, inputs=(Use("held"),))
        one = rebuild(replace(self.graph, timesteps=1, input_time=True), [*nodes, held, out])
        return interpret(one, quiet).outputs["out"].reshape(-1)  # type: ignore[no-any-return]

    def _of_integrator(self, node: Node) -> Node:
        if np.any(self._value(node, "beta")):
            raise self._refused(node, "keeps a potential, which an output reads at every timestep")
        return node

    def _of_attn(self, node: Node) -> Node:
        if "block" in node.attrs:
            raise self._refused(node, "begins its table anew in blocks of timesteps")
        return node

    def _refused(self, node: Node, why: str) -> FrontendError:
        return FrontendError(
            f"'{label(node)}' {why}; in a network with a parallel spiking neuron that hears later timesteps it is not "
            f"lowered, use a masked or sliding one"
        )
