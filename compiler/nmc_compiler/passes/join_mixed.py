"""Join what is linear in a network that holds attention, gates, pools or residual streams as well.

Regions that the folding passes take (``regions.streams``) stay as they are. In the others every neuron, every pool of
currents and every shared sum reads a sum of convolutions and synapse tables straight from events, of pools and
attention products as they are, and of shared sums. Events in another place (a concatenation, a crop) fold into
synapses too; where that would take far more of them than a population that hands the events on, or where what reads
them is not linear, there is such a population.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Kind, Node, Use, ValueType, label, op_spec, rebuild
from nmc_compiler.graph.analysis import is_neuron, reachable_from_output
from nmc_compiler.graph.types import Shape
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.gates import event_norm, same_codes
from nmc_compiler.passes.join_linear import CONSTANT, PARAMETERS, Affine, Joiner, Term, varies
from nmc_compiler.passes.linear_maps import Kernel, LinearMap, Table, identity, joined, selection
from nmc_compiler.passes.projections import node_of
from nmc_compiler.passes.regions import GENERAL_NEURONS, SOURCES, SUMS, by_class, sends, streams
from nmc_compiler.passes.report import ConversionReport

NOT_LINEAR = ("attn", "maxpool2d")  # currents that are summed as they are
DEAR = 8  # synapses per relayed event from which a relay population is the lesser evil
SMALL = 1 << 16  # synapses that are no matter


class MixedJoiner(Joiner):
    """``run`` gives the graph in normal form."""

    def __init__(self, graph: Graph, report: ConversionReport) -> None:
        super().__init__(graph, report)
        self.kept = streams(graph)
        self.users = graph.users()
        self.tensors = dict(graph.tensors)
        self.plain: dict[str, Affine | None] = {}  # of nodes, shared sums written out
        self.relayed: set[str] = set()
        self.currents: dict[str, Affine] = {}  # of neurons that are joined alone
        self.nodes: dict[str, Node] = {}  # of the graph to be, in order

    def run(self) -> Graph:
        self.relayed = {n.id for n in self.graph if n.type.is_event and not sends(n) and self._must_send(n)}
        for node in self.graph:
            if node.op in GENERAL_NEURONS:
                self._settle_alone(node)
        for node in self.graph:
            if node.op in SOURCES:
                self._emit(node)
        for node in self.graph:
            if node.op not in (*SOURCES, "output"):
                self._rewrite(node)
        for node in self.graph.outputs:
            self._read(node)
        one = ValueType(Kind.SPIKE, (1, 1, 1))
        constant = [Node(CONSTANT, "constant", (), {"shape": derived(one.shape)}, one, CONSTANT)]
        made = rebuild(self.graph, [*(constant if self.constant else []), *self.nodes.values()], self.tensors)
        live = reachable_from_output(made)  # a pool that is read channel by channel is not read as a whole
        return rebuild(made, [n for n in made if n.id in live or n.op == "input"])

    def _emit(self, *nodes: Node) -> None:
        self.nodes |= {n.id: n for n in nodes}

    # ---- nodes ----

    def _rewrite(self, node: Node) -> None:
        if node.id in self.kept or sends(node) and not is_neuron(node) or node.op == "attn":
            self._emit(self._as_it_is(node))
        elif node.id in self.relayed:
            self._relay(node)
        elif is_neuron(node):
            self._reader(node)
        elif node.op == "maxpool2d" or self._sums_stream(node):
            of = self.by_id[node.inputs[0].node].type.shape
            read = self._written(f"{node.id}.of", f"{label(node).lstrip('%')}.of", of, self.current(node.inputs[0]))
            self._emit(replace(node, inputs=(Use(read),)))
        elif self._shared(node):
            self._written(node.id, label(node).lstrip("%"), node.type.shape, self._affine(node.id, first=True))
        elif self._summed_for_streams(node):
            self._emit(node)  # a sum of events, which distribute-sums brings behind convolutions

    def _summed_for_streams(self, node: Node) -> bool:
        """Whether a sum of events, or a sum of such, is read by a convolution that stays."""
        if node.op not in SUMS or not node.type.is_event:
            return False
        return any(u.id in self.kept or self._summed_for_streams(u) for u in self.users[node.id])

    def _put_together(self, node: Node) -> bool:
        """Whether the host can read populations side by side: each element of each of them once."""
        index, parts = self.graph.tensor(node, "index"), [self.by_id[u.node] for u in node.inputs]
        assert index is not None
        whole = np.array_equal(np.sort(index), np.arange(sum(math.prod(p.type.shape) for p in parts)))
        return (
            whole and all(is_neuron(p) and p.op not in SOURCES for p in parts) and not any(u.lag for u in node.inputs)
        )

    def _as_it_is(self, node: Node) -> Node:
        """A node that stays; events of an earlier timestep are handed on where it is no convolution."""
        if node.op in ("conv2d", "map") and node.id in self.kept:
            return node
        return replace(node, inputs=tuple(Use(self._late(use)) if use.lag else use for use in node.inputs))

    def _late(self, use: Use) -> str:
        """A population that sends what another sent some timesteps ago."""
        source, held = self.by_id[use.node], f"{use.node}.late{use.lag}"
        if not source.type.is_event:
            raise LoweringError(f"'{label(source)}' is a current that is read a timestep late; put a neuron between")
        if held not in self.nodes:
            shape = source.type.shape
            copy = replace(source, id=held, name=f"{label(source).lstrip('%')}.late{use.lag}")
            self._held(copy, Affine(shape, [Term(use.node, use.lag, identity(shape))]))
        return held

    # ---- neurons ----

    def _settle_alone(self, node: Node) -> None:
        """A general neuron that hears events alone is joined as in a network of such neurons."""
        current = self._affine_of(node.inputs[0], False)
        other = next((u for u in self.users[node.id] if u.id in self.kept or sends(u) or u.op == "attn"), None)
        varied = any(varies(self._value(node.attrs, key)) for key in PARAMETERS)
        if varied and other is not None:
            raise LoweringError(
                f"'{label(node)}' has parameters that differ inside a channel, and {other.op} '{label(other)}' reads "
                f"it by channels and positions; train it with one for each channel"
            )
        flat = varied or any(varies(b) for b in current.bias.values())
        if all(self._sends(t.source) for t in current.terms) and not (flat and other is not None):
            self._settle_on(node, current, self.currents)

    def _reader(self, node: Node) -> None:
        """A neuron behind its sum, with the biases of that."""
        if node.id in self.currents:
            self._emit(*self._projected(self.neurons[node.id], self.currents[node.id]))
            return
        current, own = self._biased(node, self._affine_of(node.inputs[0], _shares(node)))
        read = self._written(f"{node.id}.sum", label(node).lstrip("%"), node.type.shape, current)
        self._emit(replace(node, attrs=own, inputs=(Use(read),)))

    def _biased(self, node: Node, current: Affine) -> tuple[Affine, dict[str, Attr]]:
        """The bias of each channel is the neuron's own; what differs by position comes from a constant source."""
        now, attrs, bias = current.bias.get(0), dict(node.attrs), dict(current.bias)
        key = _place_of_bias(node)
        if now is not None and now.any() and key and not varies(now):
            own = np.zeros(node.type.shape[0])
            if key in attrs:
                value = self._value(attrs, key)
                own = own + (float(attrs.pop(key).value) if value is None else value)  # type: ignore[arg-type]
            attrs[key] = stored(self.tensors, f"{label(node).lstrip('%')}.{key}@joined", own + now[:, 0, 0])
            bias.pop(0)
        return Affine(current.shape, current.terms, bias), attrs

    # ---- currents ----

    def current(self, use: Use) -> Affine:
        return self._affine_of(use, not use.lag)

    def _affine_of(self, use: Use, keep: bool) -> Affine:
        found = self._affine(use.node, keep and not use.lag)
        return found.later(use.lag) if use.lag else found

    def _affine(self, node_id: str, keep: bool = False, first: bool = False) -> Affine:
        """``keep``: a shared sum is a source; else it is written out (``first``: of itself, not of those inside)."""
        node = self.by_id[node_id]
        opaque = node.op in NOT_LINEAR or self._sums_stream(node)
        if sends(node) or node_id in self.relayed or node.op in SOURCES or opaque:
            return Affine(node.type.shape, [Term(node_id, 0, identity(node.type.shape))])
        if keep and self._shared(node):
            return Affine(node.type.shape, [Term(node_id, 0, identity(node.type.shape))])
        if is_neuron(node):
            raise LoweringError(
                f"{node.op} '{label(node)}' is read inside the network; its real values cannot be sent as events; "
                f"only an output may read it"
            )
        inside = node.op == "add" and (keep or first)
        memo = self.known if inside else self.plain
        if node_id not in memo:
            memo[node_id] = None
            rule = getattr(self, f"_of_{node.op}", None)
            if rule is None:
                raise LoweringError(
                    f"{node.op} '{label(node)}' is not linear; between two populations nothing else is lowered"
                )
            memo[node_id] = rule(node, *(self._affine_of(use, inside) for use in node.inputs))
        found = memo[node_id]
        if found is None:
            raise LoweringError(f"'{label(node)}' hears itself without a neuron between; put one into the loop")
        return found

    def _sums_stream(self, node: Node) -> bool:
        """A sum over the positions of what is no events alone: of a residual stream, of pools."""
        if node.op != "sum_positions" or node.type.is_event or node.id in self.kept:
            return False
        return not all(self._sends(t.source) for t in self._affine_of(node.inputs[0], True).terms)

    def _shared(self, node: Node) -> bool:
        """A sum of currents that several read as it is: a residual stream."""
        if node.op != "add" or node.type.is_event or node.id in self.kept:
            return False
        readers = [u for u in self.users[node.id] if u.op in ("add", "maxpool2d") or is_neuron(u)]
        return len(readers) > 1 and all(not is_neuron(u) or _shares(u) for u in readers)

    def _written(self, key: str, name: str, shape: Shape, current: Affine) -> str:
        """Emit projections and their sum; id of what holds the current: ``key`` where that is a node of the graph."""
        bias = {at: b for at, b in current.bias.items() if b.any()}
        own = bias.pop(0) if 0 in bias and self._carries(key, current, bias[0]) else None
        terms = [*current.terms, *self._constants(bias)]
        groups: dict[tuple[str, int], list[LinearMap]] = {}
        found: list[str] = []
        target = Node(key, "add", (), {}, ValueType(Kind.CURRENT, shape), name)
        for term in terms:
            if not self._sends(term.source):
                found.append(self._opaque(term, f"{key}.in{len(found)}"))
                continue
            for late, m in self._split(self._ends(target, term)):
                groups.setdefault((term.source, term.lag + late), []).append(m)
        for (source, lag), maps in groups.items():
            tables = [m for m in maps if isinstance(m, Table)]
            whole: list[LinearMap] = [m for m in maps if isinstance(m, Kernel)]
            for m in [*whole, *([joined(tables)] if tables else [])]:
                at = len(found)
                found.append(f"{key}.in{at}")
                node = node_of(m, found[-1], f"{name}.in{at}", Use(source, lag), self.tensors)
                if own is not None and isinstance(m, Kernel):  # hoist-bias takes it on to the neurons
                    node = node.with_attrs(bias=stored(self.tensors, f"{node.name}.bias", own[:, 0, 0]))
                    own = None
                self._emit(node)
        if not found:
            raise LoweringError(f"'{name}' hears nothing; remove it")
        if len(found) == 1 and key not in self.by_id:
            return found[0]
        self._emit(replace(target, inputs=tuple(Use(i) for i in found), name=""))
        return key

    def _carries(self, key: str, current: Affine, bias: np.ndarray) -> bool:
        """Whether a convolution of the sum can hold a bias, and every neuron behind has a place for it."""
        kernels = (self._sends(t.source) and isinstance(t.map, Kernel) and t.map.view == t.map.source
                   for t in current.terms if t.source not in self.neurons)  # fmt: skip
        return not varies(bias) and any(kernels) and self._is_taken(key.removesuffix(".of"))

    def _is_taken(self, node_id: str) -> bool:
        """Whether every neuron behind a pool or a shared sum has a place for a bias."""
        return all(
            bool(_place_of_bias(u)) if is_neuron(u) else u.op in (*SUMS, "maxpool2d", "scale") and self._is_taken(u.id)
            for u in self.users.get(node_id, [])
        )

    def _sends(self, node_id: str) -> bool:
        """Whether a term comes as events, or as values of the host."""
        node = self.by_id.get(node_id)
        return node is None or node.type.is_event or node.op in SOURCES

    def _opaque(self, term: Term, key: str) -> str:
        """A current that is no events: as it is, or times a constant."""
        source = self.by_id[term.source]
        if source.op == "maxpool2d" and isinstance(term.map, Kernel) and term.map.selects and not term.lag:
            return self._some_channels(source, term.map, key)
        if not (isinstance(term.map, Kernel) and term.map.diagonal and term.map.view == term.map.source) or term.lag:
            raise LoweringError(
                f"what reads {source.op} '{label(source)}' is more than a sum, and there are no events between; "
                f"put a neuron behind '{label(source)}'"
            )
        factor = term.map.weight[:, 0, 0, 0]
        if (factor == 1.0).all():
            return source.id
        one = (factor == factor[0]).all()
        value = derived(float(factor[0])) if one else stored(self.tensors, f"{key}.factor", factor)
        self._emit(Node(key, "scale", (Use(source.id),), {"factor": value}, source.type))
        return key

    def _some_channels(self, pool: Node, m: Kernel, key: str) -> str:
        """The pool of some channels is those channels of the pool."""
        rows, current = m.weight[:, :, 0, 0], self._affine_of(pool.inputs[0], False)
        channels, (_, h, w) = rows.argmax(axis=1), current.shape
        shape = (len(rows), h, w)
        index = (channels[:, None] * h * w + np.arange(h * w)).reshape(-1)
        index[np.repeat(rows.sum(axis=1) == 0, h * w)] = -1
        name = f"{label(pool).lstrip('%')}.{key}"
        read = self._written(f"{key}.of", name, shape, self._through(current, selection(current.shape, shape, index)))
        type_ = replace(pool.type, shape=(len(rows), *pool.type.shape[1:]))
        self._emit(replace(pool, id=key, name="", inputs=(Use(read),), type=type_))
        return key

    # ---- events in another place ----

    def _must_send(self, node: Node) -> bool:
        """Whether linear events have a reader that only a population can serve."""
        if node.op in ("add", "sum_positions"):
            return any(sends(u) or u.op == "attn" or (u.op == "map" and u.id in self.kept) for u in self.users[node.id])
        return any(
            sends(u) or u.op == "attn" or u.id in self.kept or (u.op == "conv2d" and self._dear(node, u))
            for u in self.users[node.id]
        )

    def _dear(self, node: Node, conv: Node) -> bool:
        """Whether synapses one by one cost far more than handing the events on to a convolution."""
        if node.op != "take" or self._by_channels(node):
            return False
        weight = self.graph.tensor(conv, "weight")
        assert weight is not None
        synapses = weight.size * math.prod(conv.type.shape[1:])
        return synapses > SMALL and synapses > DEAR * math.prod(node.type.shape)

    def _by_channels(self, node: Node) -> bool:
        """Whether a take moves whole channels: a convolution then reads each operand through a part of its weights."""
        shapes = [(u.node, self.by_id[u.node].type.shape) for u in node.inputs]
        found = self._of_take(node, *(Affine(shape, [Term(i, 0, identity(shape))]) for i, shape in shapes))
        return all(isinstance(t.map, Kernel) for t in found.terms)

    def _relay(self, node: Node) -> None:
        """A population that hands on the events of others, from another place."""
        if node.op in ("add", "sum_positions"):
            reader = next(u for u in self.users[node.id] if sends(u) or u.op == "attn" or u.id in self.kept)
            raise LoweringError(
                f"{node.op} '{label(node)}' is a sum of spikes that {reader.op} '{label(reader)}' reads; only linear "
                f"layers can; put a neuron between"
            )
        self.relayed.discard(node.id)
        current = self._affine(node.id)
        self.relayed.add(node.id)
        self.plain.pop(node.id, None)
        self.report.add(
            "join-linear", label(node), kind="relay", neurons=math.prod(node.type.shape), synapses_per_event=1,
            change="a population hands events on from another place",
        )  # fmt: skip
        self._held(node, current)

    def _held(self, node: Node, current: Affine) -> None:
        """A gate, or a level table, that sends what reaches it."""
        if node.type.signed:
            raise LoweringError(
                f"{node.op} '{label(node)}' moves signed codes to another place; only spikes and unsigned codes are"
            )
        name = label(node).lstrip("%") if node.name else f"{node.id}.relay"
        read = self._written(f"{node.id}.at", name, node.type.shape, current)
        attrs: dict[str, Attr] = {}
        if node.type.kind is Kind.SPIKE:
            op = "neuron"
            attrs = {"beta": derived(0.0), "theta": derived(0.5), "reset": derived("hard"), "compare": derived("gt")}
        else:
            op, attrs = "multilevel", same_codes((1 << node.type.bits) - 1, event_norm(node, self.by_id))
        self._emit(Node(node.id, op, (Use(read),), attrs, node.type, name))

    # ---- outputs ----

    def _read(self, node: Node) -> None:
        """An output of a population or an integrator; of anything else, of an integrator without memory."""
        use = node.inputs[0]
        source, shape = self.by_id[use.node], self.by_id[use.node].type.shape
        while source.op == "reshape" and not source.inputs[0].lag and source.id not in self.relayed:
            source = self.by_id[source.inputs[0].node]
        if source.op == "take" and not use.lag and source.id not in self.relayed and self._put_together(source):
            parts = replace(source, id=f"{node.id}.parts")
            self._emit(parts, *self._in_shape(node, parts, shape))
            return
        sent = self.nodes.get(source.id)
        if sent is None or use.lag or not is_neuron(sent) and not sends(sent):
            name = node.name or node.id
            name = name if name not in {label(n) for n in self.nodes.values()} else f"{name}.value"
            real = ValueType(Kind.REAL, shape)
            held = Node(f"{node.id}.value", "integrator", (use,), {"beta": derived(0.0)}, real, name)
            self.by_id[held.id], self.users[held.id] = held, [node]
            self._settle_alone(held)
            self._reader(held)
            sent = self.nodes[held.id]
            self.report.notes.append(
                f"output '{node.name or node.id}' is a current: an integrator without memory holds it"
            )
        self._emit(*self._in_shape(node, sent, shape))


def _shares(node: Node) -> bool:
    """Whether a neuron may read a current that others read too."""
    return node.op not in GENERAL_NEURONS or by_class(node)


def _place_of_bias(node: Node) -> str:
    """The parameter of a neuron that holds what it gets at every timestep; none where its current lasts."""
    key = "leak" if node.op in ("neuron", "integrator") else "bias"
    lasts = key == "leak" and {"alpha", "gain_t"} & set(node.attrs)
    return key if key in op_spec(node.op).attrs and not lasts else ""
