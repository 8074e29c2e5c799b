"""A folded trace as a float SpikeGraph: kinds made to fit, factors put where they fold, names for populations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError, VerifyError
from nmc_compiler.frontends.trace.fold import Node, Ref
from nmc_compiler.frontends.trace.host_values import HOST_OPS
from nmc_compiler.frontends.trace.places import Index
from nmc_compiler.frontends.trace.tape import Const
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Use, ValueType, rebuild
from nmc_compiler.graph.registry import op_spec
from nmc_compiler.graph.types import AttrValue, Kind

TRACE = "trace"  # evidence
PLAIN_NORM = {"weight": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}  # what a batch norm has not
GRAPH_OPS = ("conv2d", "reshape", "take", "maxpool2d", "sumpool2d", "attn", "pad2d")  # as they are
NEURONS = ("stateful", "stateless")


@dataclass
class Emitter:
    """State of an emission. ``readout``: logits are a mean over timesteps, so leaky neurons are `lif`."""

    nodes: list[Node]
    parameters: set[str]
    graph: GraphBuilder
    readout: bool
    ids: dict[int, str] = field(default_factory=dict)
    currents: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    def run(self, outputs: list[tuple[str, Ref]], time: bool) -> Graph:
        """``outputs``: name and node of each; of a readout there is one. ``time``: recordings have a time axis."""
        order = in_order(self.nodes, [r.node for _, r in outputs])
        self.names = population_names(self.nodes, order)
        for node in self._late(order):
            self._declare(node)
        for node in order:
            self._emit(node)
        for name, ref in outputs:
            self._readout(name, ref) if self.readout else self._output(name, ref)
        return without_dead(self.graph.build())

    def _late(self, order: list[int]) -> list[int]:
        return sorted({r.node for n in order for r in self.nodes[n].operands if r.lag})

    def _declare(self, index: int) -> None:
        node = self.nodes[index]
        if node.op in HOST_OPS and not node.is_event:
            self.ids[index] = f"late{len(self.ids)}"
            self.graph.declare(self.ids[index], ValueType(Kind.REAL, node.shape))
            return
        if not node.is_event:
            raise FrontendError(f"{node.line}: a current is read a timestep late; only spikes can be")
        ternary = "theta_low" in dict(node.attr("attrs", ()))
        bits = 2 if ternary else self._levels(node).bit_length() if node.kind is Kind.GRADED else 0
        self.ids[index] = f"late{len(self.ids)}"
        self.graph.declare(self.ids[index], ValueType(node.kind, node.shape, bits, ternary))

    def _levels(self, node: Node) -> int:
        return int(dict(node.attr("attrs", ())).get("levels", 1))

    # ---- adding nodes ----

    def add(
        self, node: Node, op: str, *operands: Use | str, id: str | None = None, name: str = "", **attrs: Any
    ) -> str:
        given = {k: self._attr(v) for k, v in attrs.items() if v is not None}
        try:
            made = self.graph.add(op, *operands, id=id, name=name, **given)
        except VerifyError as error:
            raise FrontendError(f"{node.line}: {error}") from None
        self.lines[made] = node.line
        return made

    def _attr(self, value: Any) -> Attr:
        if isinstance(value, Attr):
            return value
        if isinstance(value, Const):
            return Attr(self._tensor(value), "checkpoint" if value.name in self.parameters else TRACE)
        if isinstance(value, Index):
            return Attr(self._tensor_of(value.array, "take.index"), TRACE)
        return Attr(value, TRACE)

    def _tensor(self, const: Const) -> AttrValue:
        array = const.array if const.array.dtype in (np.float32, np.float64) else const.array.astype(np.float64)
        return self._tensor_of(array, const.name or "constant")

    def _tensor_of(self, array: np.ndarray, name: str) -> AttrValue:
        """Stored under its name; other arrays of that name (parts, one after the other) get a number."""
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise FrontendError(
                f"'{name}' has {bad} values of {array.size} that are not finite: such a network computes nothing; "
                f"use weights from before training diverged"
            )
        key, count = name, 1
        while key in self.graph.tensors:
            known = self.graph.tensors[key]
            if known.dtype == array.dtype and np.array_equal(known, array):
                return self.graph.tensor(key, known)
            count += 1
            key = f"{name}@{count}"
        return self.graph.tensor(key, array)

    def use(self, ref: Ref) -> Use:
        return Use(self.ids[ref.node], ref.lag)

    def current(self, ref: Ref) -> Use | str:
        """What a neuron or a sum reads: events as a current."""
        node = self.nodes[ref.node]
        if not node.is_event:
            return self.use(ref)
        if ref.lag:
            return self.add(node, "map", self.use(ref), mode="same")
        if ref.node not in self.currents:
            counted = node.op == "sum_positions" and self.nodes[node.operands[0].node].is_event
            read = self.use(node.operands[0] if counted else ref)
            self.currents[ref.node] = self.add(node, "map", read, mode="reduce" if counted else "same")
        return self.currents[ref.node]

    def _emit(self, index: int) -> None:
        node = self.nodes[index]
        made = self._neuron(index, node) if node.op in NEURONS else self._value(node, self.names.get(index, ""), index)
        self.ids[index] = made

    def _value(self, node: Node, name: str, index: int) -> str:
        attrs = dict(node.attrs)
        if node.op == "input":
            shape = Attr(node.shape, "config")
            return self.add(
                node, "input", id="x", name="" if self.readout else "x", shape=shape, bits=attrs.get("bits")
            )
        operands: list[Use | str] = [self.use(r) for r in node.operands]
        if node.op in HOST_OPS:
            return self._host(index, node, operands)
        if node.op == "add" and not node.is_event:
            operands = [self.current(r) for r in node.operands]
        pad = self._ring_of_zeros(node) if node.op == "take" else None
        if pad is not None:
            zeros = self._attr(self._tensor_of(np.zeros(node.shape[0]), "zeros"))
            return self.add(node, "pad2d", *operands, pad=pad, value=zeros)
        if node.op in GRAPH_OPS or node.op == "add":
            attrs |= {"shape": node.shape} if node.op in ("take", "reshape") else {}
            return self.add(node, node.op, *operands, name=node.module if node.op == "conv2d" else "", **attrs)
        return {
            "scale": self._scale,
            "bias": self._bias,
            "batch_norm": self._batch_norm,
            "sum_positions": lambda n, _: self.add(n, "sum_positions", *operands),
            "sum_channels": self._sum_channels,
            "mul": self._mul,
            "const": self._const,
        }[node.op](node, name)

    def _host(self, index: int, node: Node, operands: list[Use | str]) -> str:
        """An op of the host; the events that it makes have a name of their own."""
        name, number = node.module, 2
        if node.is_event:
            name = f"{node.module}.codes".lstrip(".")
            while any(n.name == name for n in self.graph.nodes.values()) or name in self.names.values():
                name, number = f"{node.module}.codes.{number}".lstrip("."), number + 1
        attrs = dict(node.attrs)
        return self.add(node, node.op, *operands, id=self.ids.get(index), name=name, **attrs)

    def _ring_of_zeros(self, node: Node) -> tuple[int, int] | None:
        """Padding of a batch norm that gives 0 for 0: the ring of a RepConv whose numbers happen to be zeros."""
        inner = self.nodes[node.operands[0].node]
        if len(node.operands) != 1 or node.operands[0].lag or inner.op != "batch_norm":
            return None
        (py, odd_y), (px, odd_x) = (divmod(n - m, 2) for n, m in zip(node.shape[1:], inner.shape[1:], strict=True))
        if odd_y or odd_x or min(py, px) < 0 or py + px == 0 or node.shape[0] != inner.shape[0]:
            return None
        padded = np.full(node.shape, -1, np.int64)
        inside = (slice(py, node.shape[1] - py), slice(px, node.shape[2] - px))
        padded[:, *inside] = np.arange(np.prod(inner.shape)).reshape(inner.shape)
        known = {k: inner.attr(k).array if inner.attr(k) is not None else d for k, d in PLAIN_NORM.items()}
        zero = known["bias"] - known["mean"] * known["weight"] / np.sqrt(known["var"] + inner.attr("eps"))
        same = np.array_equal(padded.reshape(-1), node.attr("index").array)
        return (py, px) if same and not np.any(zero) else None

    def _scale(self, node: Node, name: str) -> str:
        return self.add(node, "scale", self.use(node.operands[0]), factor=node.attr("by"))

    def _batch_norm(self, node: Node, name: str) -> str:
        return self.add(node, "batch_norm", self.current(node.operands[0]), name=node.module, **dict(node.attrs))

    def _bias(self, node: Node, name: str) -> str:
        """Numbers added to a current: a batch norm that only adds where there is one per channel, else a constant."""
        by, channels = node.attr("by"), node.shape[0]
        array = np.asarray(by.array if isinstance(by, Const) else by, np.float64)
        read = self.current(node.operands[0])
        if array.ndim <= 1:
            mean = self._attr(self._tensor_of(np.zeros(channels), "zeros"))
            var = self._attr(self._tensor_of(np.ones(channels), "ones"))
            label = by.name if isinstance(by, Const) and by.name else f"{node.module}.offset"
            bias = self._attr(self._tensor_of(np.broadcast_to(array, (channels,)).copy(), label))
            return self.add(node, "batch_norm", read, mean=mean, var=var, bias=bias, eps=0.0)
        return self.add(node, "add", read, self._const(node, name))

    def _const(self, node: Node, name: str) -> str:
        """Numbers as a current: spikes of a source that always fires, times the numbers."""
        by = node.attr("by")
        ones = self.add(node, "constant", name=f"{node.module or 'net'}.ones{len(self.ids)}", shape=node.shape)
        full = np.broadcast_to(by.array.reshape(node.shape), node.shape)
        label = by.name or f"{node.module}.numbers"
        return self.add(node, "scale", ones, factor=self._attr(self._tensor_of(np.ascontiguousarray(full), label)))

    def _sum_channels(self, node: Node, name: str) -> str:
        source = self.nodes[node.operands[0].node]
        if not source.is_event:
            raise FrontendError(f"{node.line}: sums the channels of currents; of spikes it is lowered")
        return self.add(node, "map", self.use(node.operands[0]), mode="reduce_channels", channels=node.shape[0])

    def _mul(self, node: Node, name: str) -> str:
        return self.add(node, "mul", *(self.use(r) for r in node.operands), name=name)

    # ---- neurons ----

    def _neuron(self, index: int, node: Node) -> str:
        op, values = node.attr("neuron"), dict(node.attr("attrs"))
        if op == "lif" and not self.readout:
            op, values = "neuron", as_neuron(values)
        if node.attr("layout") is not None and "record_perm" in op_spec(op).attrs:
            values["record_perm"], values["record_shape"] = node.attr("layout")
        values = {k: v for k, v in values.items() if v is not None}
        read = self.current(node.operands[0])
        return self.add(node, op, read, id=self.ids.get(index), name=self.names[index], **values)

    # ---- ends ----

    def _output(self, name: str, ref: Ref) -> None:
        node = self.nodes[ref.node]
        read = self.use(ref)
        hosted = node.kind is Kind.REAL and node.op in (*HOST_OPS, "take", "reshape")
        if not node.is_event and not hosted and not (node.op == "stateful" and node.attr("neuron") == "integrator"):
            own = node.module or "out"
            own = own if own not in self.names.values() else f"{own}.current"
            read = Use(self.add(node, "integrator", read, name=own, beta=0.0))  # its potential is the current
        self.add(node, "output", read, name=name)

    def _readout(self, name: str, ref: Ref) -> None:
        """Mean over timesteps; a bias in front of it is the readout's own, a factor its gain."""
        node, gain = self.nodes[ref.node], ref.over if ref.over not in (None, 1.0) else None
        if (rates := self._rates(name, ref)) is not None:
            self.add(node, "readout", rates, name=name, gain=gain)
            return
        bias, read = None, self.current(ref)
        if node.op == "bias" and not isinstance(node.attr("by"), float):
            bias, read = node.attr("by"), self.current(node.operands[0])
            if bias.array.ndim != 1:
                bias = replace(bias, array=bias.array.reshape(-1))
        self.add(node, "readout", read, name=name, bias=bias, gain=gain)

    def _rates(self, name: str, ref: Ref) -> str | None:
        """Events in front of a readout, and a number that they are multiplied by, as a layer that hands them on."""
        node, factor, events = self.nodes[ref.node], 1.0, ref
        if node.op == "scale" and isinstance(node.attr("by"), float):
            factor, (events,) = node.attr("by"), node.operands
        source = self.graph.nodes[self.ids[events.node]].type
        if not source.is_event or source.shape[1:] != (1, 1):
            return None
        weight = self._tensor_of(np.eye(source.shape[0])[:, :, None, None] * factor, f"{name}.rates")
        return self.add(node, "conv2d", self.use(events), weight=weight)


def without_dead(graph: Graph) -> Graph:
    """Only what an output or the readout needs, and the input."""
    by_id = graph.by_id()
    seen: set[str] = set()
    stack = [n.id for n in graph if n.op in ("output", "readout", "input")]
    while stack:
        found = stack.pop()
        if found not in seen:
            seen.add(found)
            stack += by_id[found].operands
    return rebuild(graph, [n for n in graph if n.id in seen])


def as_neuron(values: dict[str, Any]) -> dict[str, Any]:
    """A `lif` (models.md N1, N1a) as the general neuron: h = (1 - 1/tau) v + v_reset/tau + x (or x/tau)."""
    tau, rest = float(values["tau"]), float(values.get("v_reset", 0.0) or 0.0)
    out: dict[str, Any] = {k: values[k] for k in ("theta", "reset", "compare") if k in values}
    out["beta"] = 1.0 - 1.0 / tau
    gain = float(values.get("gain", 1.0)) * (1.0 / tau if values["decay_input"] else 1.0)
    if gain != 1.0:
        out["gain"] = gain
    if rest:
        out |= {"leak": rest / tau, "start_v": rest} | ({"v_reset": rest} if out["reset"] == "hard" else {})
    return out


def in_order(nodes: list[Node], ends: list[int]) -> list[int]:
    """Nodes that the ends need, operands first; what is read a timestep late may come behind its reader."""
    order: list[int] = []
    state: dict[int, int] = {}
    stack = [(n, False) for n in reversed(ends)]
    late: list[int] = []
    while stack or late:
        if not stack:
            stack = [(late.pop(), False)]
        index, done = stack.pop()
        if done:
            state[index] = 2
            order.append(index)
            continue
        if state.get(index) == 2:
            continue
        if state.get(index) == 1:
            raise FrontendError(f"{nodes[index].line}: a loop within one timestep; a value that depends on itself")
        state[index] = 1
        stack.append((index, True))
        for ref in reversed(nodes[index].operands):
            if ref.lag:
                late.append(ref.node)
            elif state.get(ref.node) != 2:
                stack.append((ref.node, False))
        late = [n for n in late if state.get(n) is None]
    return order


def population_names(nodes: list[Node], order: list[int]) -> dict[int, str]:
    """Names of neurons: of modules that are one, the module's; of functions and masks, the module they are in."""
    names = {i: nodes[i].attr("name") for i in order if nodes[i].op == "stateful"}
    taken = Counter(names.values())
    for index in order:
        node = nodes[index]
        if node.op not in ("stateless", "mul"):
            continue
        base = node.module or "net"
        if node.op == "mul" or not node.module:
            base = f"{base}.{'mul' if node.op == 'mul' else 'spike'}"
        taken[base] += 1
        names[index] = base if taken[base] == 1 else f"{base}.{taken[base]}"
    return names
