"""The cut between what cores compute and what the host does: one graph becomes the chip's, the host's stays beside it.

The chip's graph is an ordinary network with inputs that the host sends and outputs that it reads, so every pass, the
lowering and the mapper take it as any other. ``host_join`` puts the host's nodes back between its integers.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Kind, Node, Use, label, op_spec, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.types import Ref, ValueType
from nmc_compiler.graph.verify import verify
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import Target

NAME = "host-partition"
ALLOW = "host"  # the word of --allow
MOVED = ("take", "reshape", "scale")  # what the host does as well where it reads nothing of the chip
GRAIN = 8  # bits below the threshold of a neuron in which it gets real values
PAYLOAD = 16  # bits of their codes
UNREAD = "host.none"  # an output of the chip that nobody reads


def is_hosted(graph: Graph) -> bool:
    """Whether a graph has ops that only the host computes."""
    return any(op_spec(n.op).host for n in graph)


def host_ops(graph: Graph) -> str:
    """The host's ops and how many there are of each, the most frequent first."""
    counts = Counter(str(n.attr("function", n.op)) for n in graph if op_spec(n.op).host)
    return ", ".join(f"{op} ({n})" if n > 1 else op for op, n in counts.most_common())


def refuse(graph: Graph) -> None:
    """LoweringError that names the ops of the host, where there are any."""
    first = next((n for n in graph if op_spec(n.op).host), None)
    if first is not None:
        raise LoweringError(
            f"'{label(first)}' and others of '{graph.name}' are of real numbers, which no core computes: "
            f"{host_ops(graph)}; --allow {ALLOW} leaves them to the host, at every timestep, and states its share "
            f"(docs/host.md)"
        )


@dataclass(frozen=True)
class Parted:
    """``whole``: the float graph with a node for every crossing.  ``chip``: what cores compute of it, float.

    ``host``: ids of the host's nodes in ``whole``.  ``reads``: read node -> what the chip's output is called.
    ``sent``: ids of the host's nodes that send.
    """

    whole: Graph
    chip: Graph
    host: frozenset[str]
    reads: dict[str, str]
    sent: tuple[str, ...]


def part(graph: Graph, target: Target, allow: tuple[str, ...], report: ConversionReport) -> Parted | None:
    """Cut a float graph; None where nothing in it is the host's.

    LoweringError where the host is not allowed, where nothing is left for the chip, or where a core would need real
    values whose range nobody knows.
    """
    if not is_hosted(graph):
        return None
    if ALLOW not in allow:
        refuse(graph)
    return _Cut(graph, target, report).run()


@dataclass
class _Cut:
    graph: Graph
    target: Target
    report: ConversionReport
    nodes: list[Node] = field(default_factory=list)  # of the whole
    reads: dict[str, str] = field(default_factory=dict)
    sends: dict[str, str] = field(default_factory=dict)  # real value -> its codes as a current

    def __post_init__(self) -> None:
        self.by_id, self.users = self.graph.by_id(), self.graph.users()
        self.tensors = dict(self.graph.tensors)
        self.names = {label(n) for n in self.graph if is_neuron(n)}
        self.free: dict[str, bool] = {}
        self.host = {n.id for n in self.graph if op_spec(n.op).host}
        for node in self.graph:
            if node.op in MOVED and node.type.kind is Kind.REAL and any(i in self.host for i in node.operands):
                self.host |= {node.id} if self._hostable(node.id) else set()
        for node in reversed(self.graph.nodes):  # what the host needs of what it can do itself
            if node.op in MOVED and self._hostable(node.id) and any(u.id in self.host for u in self.users[node.id]):
                self.host.add(node.id)

    def run(self) -> Parted:
        for node in self.graph:
            inputs = tuple(self._operand(node, use) for use in node.inputs)
            times = node.op == "scale" and node.id in self.host
            self.nodes.append(replace(node, inputs=inputs, op="real_affine" if times else node.op))
        whole = rebuild(self.graph, ordered(self.nodes), self.tensors)
        return self._parted(whole)

    def _hostable(self, node_id: str) -> bool:
        """Whether the host has a value before the chip does anything, or by its own ops."""
        if node_id not in self.free:
            node = self.by_id[node_id]
            moved = node.op in MOVED and all(self._hostable(i) for i in node.operands)
            self.free[node_id] = op_spec(node.op).host or node.op == "input" or moved
        return self.free[node_id]

    def _operand(self, node: Node, use: Use) -> Use:
        """An operand as it is, or across the cut."""
        source = self.by_id[use.node]
        of_host = source.id in self.host
        if node.id in self.host:
            return use if of_host or source.op == "input" else Use(self._read(source, node), use.lag)
        if of_host and source.type.kind is Kind.REAL and node.op != "output":
            return Use(self._send(source), use.lag)
        return use

    # ---- chip -> host ----

    def _read(self, source: Node, reader: Node) -> str:
        """The node that stands for what the host reads of ``source`` for ``reader``."""
        if source.op == "map" and source.attr("mode") == "same" and not source.inputs[0].lag:
            return self._read(self.by_id[source.operands[0]], reader)
        made = f"{source.id}.read"
        if made in self.reads or made in self.host:
            return made
        if source.op in ("take", "reshape") or (source.op == "add" and source.type.is_event):
            return self._again(source, made, reader)
        whence, what = source, "spikes" if source.type.is_event else "potential"
        if not is_neuron(source):
            if source.type.is_event:
                raise LoweringError(
                    f"'{label(source)}' ({source.op}) joins events for an op of the host; let that read each population"
                )
            whence = self._integrator(source)
        self.reads[made] = f"host.{label(whence).lstrip('%')}"
        self._add("host_read", made, (Use(whence.id),), {"scale": derived(1.0)}, whence.type.shape)
        self._tell(label(whence), "read", what, whence.type, reader)
        return made

    def _again(self, source: Node, made: str, reader: Node) -> str:
        """What puts values in other places, or adds codes up, done by the host on what it reads."""
        type_ = ValueType(Kind.REAL, source.type.shape)
        inputs = [
            u if u.node in self.host else Use(self._read(self.by_id[u.node], reader), u.lag) for u in source.inputs
        ]
        if source.op == "add":
            total, function = inputs[0], {"function": derived("add")}
            for number, use in enumerate(inputs[1:], 2):
                part_ = made if number == len(inputs) else f"{made}.{number}"
                self.nodes.append(Node(part_, "binary", (total, use), function, type_))
                self.host.add(part_)
                total = Use(part_)
        else:
            self.nodes.append(Node(made, source.op, tuple(inputs), source.attrs, type_))
            self.host.add(made)
        return made

    def _integrator(self, source: Node) -> Node:
        """A current as the potential of an integrator that keeps nothing."""
        name = self._name(f"{label(source).lstrip('%')}.sum")
        type_ = ValueType(Kind.REAL, source.type.shape)
        made = Node(f"{source.id}.sum", "integrator", (Use(source.id),), {"beta": derived(0.0)}, type_, name)
        self.nodes.append(made)
        return made

    # ---- host -> chip ----

    def _send(self, source: Node) -> str:
        """Real values as codes and a synapse each, whose weight is the unit of the codes."""
        if source.id in self.sends:
            return self.sends[source.id]
        bits = min(PAYLOAD, self.target.core.payload_bits.value)
        if bits < 2:
            raise LoweringError(
                f"'{label(source)}' of the host goes to neurons as codes, and {self.target.name} has plain spikes only"
            )
        unit = self._unit(source)
        code, current = f"{source.id}.send", f"{source.id}.sent"
        name = self._name(f"{label(source).lstrip('%')}.codes")
        attrs = {"unit": derived(unit), "bits": derived(bits)}
        type_ = ValueType(Kind.GRADED, source.type.shape, bits, True)
        self.nodes.append(Node(code, "codes", (Use(source.id),), attrs, type_, name))
        self.host.add(code)
        channels = source.type.shape[0]
        weight = stored(self.tensors, f"{name}.unit", np.full((channels, 1, 1, 1), unit))
        given = {"weight": weight} | ({"groups": derived(channels)} if channels > 1 else {})
        self.nodes.append(
            Node(current, "conv2d", (Use(code),), given, ValueType(Kind.CURRENT, source.type.shape), f"{name}.in")
        )
        self.sends[source.id] = current
        reader = next(u for u in self.users[source.id] if u.id not in self.host)
        self._tell(name, "send", f"codes of {unit:g}, up to {unit * ((1 << bits - 1) - 1):g}", type_, reader)
        return current

    def _unit(self, source: Node) -> float:
        """A power of two, 2^-GRAIN of the least threshold that the value is compared with."""
        found = [self._height(n) for n in self._behind(source)]
        return 2.0 ** (math.floor(math.log2(min(found))) - GRAIN)

    def _behind(self, source: Node) -> list[Node]:
        """Neurons that read a value, alone or in a sum."""
        found = []
        for user in self.users[source.id]:
            if user.id in self.host or user.op == "output":
                continue
            if is_neuron(user):
                found.append(user)
            elif user.op in ("add", "scale", "batch_norm", "reshape", "take"):
                found += self._behind(user)
            else:
                raise LoweringError(
                    f"{user.op} '{label(user)}' reads real values of the host ('{label(source)}'), whose range nobody "
                    f"knows: code them (`codes`), or leave it to the host as well (`real_linear`)"
                )
        return found

    def _height(self, neuron: Node) -> float:
        """The least threshold, in units of what the neuron reads."""
        theta = neuron.attr("theta", 1.0)
        values = np.abs(self.graph.tensors[theta.key]) if isinstance(theta, Ref) else np.array([abs(float(theta))])
        gain = 1.0 / float(neuron.attr("tau")) if neuron.attr("decay_input") else 1.0
        for key in ("gain", "gain_v"):
            given = neuron.attr(key, 1.0)
            gain *= float(np.abs(self.graph.tensors[given.key]).max()) if isinstance(given, Ref) else abs(float(given))
        least = float(values[values > 0].min()) if (values > 0).any() else 1.0
        return least / (gain or 1.0)

    # ---- the parts ----

    def _add(self, op: str, id: str, inputs: tuple[Use, ...], attrs: dict[str, Attr], shape: Any) -> None:
        self.nodes.append(Node(id, op, inputs, attrs, ValueType(Kind.REAL, shape)))
        self.host.add(id)

    def _name(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.names:
            name, number = f"{wanted}.{number}", number + 1
        self.names.add(name)
        return name

    def _tell(self, layer: str, crosses: str, how: str, type_: ValueType, reader: Node) -> None:
        c, h, w = type_.shape
        self.report.add(NAME, layer.lstrip("%"), crosses=crosses, how=how, values=c * h * w, reader=label(reader))

    def _parted(self, whole: Graph) -> Parted:
        by_id = whole.by_id()
        readers = (n for n in whole if n.id not in self.host and n.op != "output")
        sent = {u.node for n in readers for u in n.inputs if u.node in self.host}
        needed = self._needed(whole, by_id)
        own = [n.name or n.id for n in whole.outputs if n.id in needed]
        outputs = [*own, *self.reads.values()]
        nodes: list[Node] = []
        for node in whole:
            if node.id in self.host and node.id in needed:
                nodes.append(self._input(whole, node, outputs))
            elif node.id in needed:
                nodes.append(node)
        for read, name in self.reads.items():
            source = by_id[read].operands[0]
            nodes.append(Node(f"{read}.out", "output", (Use(source),), {}, by_id[source].type, name))
        first = next((n for n in nodes if is_neuron(n) and n.op != "readout"), None)
        if first is None:
            raise LoweringError(f"'{whole.name}' is the host's altogether: no neuron or layer of it reads spikes")
        if not any(n.op == "output" for n in nodes):  # a network with several inputs has outputs
            nodes.append(Node(UNREAD, "output", (Use(first.id),), {}, first.type, UNREAD))
        chip = replace(rebuild(whole, nodes, dict(whole.tensors)), input_time=True)
        verify(chip)
        for node in (n for n in whole if n.id in self.host and op_spec(n.op).host and n.op != "host_read"):
            self.report.add(NAME, label(node).lstrip("%"), op=node.op, place="host", why=op_spec(node.op).doc)
        return Parted(whole, chip, frozenset(self.host), self.reads, tuple(n.id for n in whole if n.id in sent))

    def _needed(self, whole: Graph, by_id: dict[str, Node]) -> set[str]:
        """Nodes of the chip: behind what the host reads and what the network gives, up to the host's codes."""
        stack = [by_id[r].operands[0] for r in self.reads]
        ends = (n for n in whole if n.op in ("output", "readout"))
        stack += [n.id for n in ends if n.operands[0] not in self.host]
        found: set[str] = set()
        while stack:
            at = stack.pop()
            if at not in found:
                found.add(at)
                stack += [] if at in self.host else by_id[at].operands
        return found

    def _input(self, whole: Graph, node: Node, outputs: list[str]) -> Node:
        found = reads_of(whole, node.id, self.host)
        after = tuple(
            n for pair in sorted((outputs.index(self.reads[r]), lag) for r, lag in found.items()) for n in pair
        )
        attrs: dict[str, Any] = {"shape": derived(node.type.shape), "bits": derived(node.type.bits)}
        attrs |= {"signed": derived(True)} if node.type.signed else {}
        attrs |= {"after": derived(after)} if after else {}
        return Node(node.id, "input", (), attrs, node.type, node.name or self._name(f"{node.id}.codes"))


def reads_of(graph: Graph, node_id: str, host: set[str] | frozenset[str]) -> dict[str, int]:
    """What the host reads before it has a value, and at least how many timesteps before."""
    by_id, least, stack = graph.by_id(), {node_id: 0}, [node_id]
    while stack:
        node = by_id[stack.pop()]
        for use in node.inputs if node.id in host and node.op != "host_read" else ():
            lag = least[node.id] + use.lag
            if lag < least.get(use.node, lag + 1):
                least[use.node] = lag
                stack.append(use.node)
    return {i: lag for i, lag in least.items() if by_id[i].op == "host_read"}


def ordered(nodes: list[Node]) -> list[Node]:
    """Operands first; as they come otherwise."""
    by_id = {n.id: n for n in nodes}
    done: dict[str, Node] = {}
    for first in nodes:
        stack = [first.id]
        while stack:
            at = by_id[stack[-1]]
            late = [u.node for u in at.inputs if not u.lag and u.node not in done]
            if late:
                stack += reversed(late)
            else:
                done.setdefault(stack.pop(), at)
    return list(done.values())
