"""Everything linear between two populations as one projection; biases as leaks or constant events.

After this pass a neuron of a general network reads a sum of convolutions and synapse tables, each straight from
the events of a population or an input, some timesteps ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Node, Use, ValueType, label, rebuild
from nmc_compiler.graph.ops_cell import TABLES_OF_NEURONS
from nmc_compiler.graph.ops_linear import bn_affine
from nmc_compiler.graph.ops_shape import MAX_EXTRA, delays
from nmc_compiler.graph.types import Kind, Shape
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.linear_maps import (
    Kernel,
    LinearMap,
    Table,
    as_table,
    block_sums,
    delayed,
    identity,
    joined,
    padding,
    reshaped,
    scaled,
    selection,
    settled,
    spread,
    then,
    window_sum,
)
from nmc_compiler.passes.projections import map_of, node_of, summed
from nmc_compiler.passes.regions import is_general, is_stream
from nmc_compiler.passes.report import ConversionReport

NEURONS = ("neuron", "integrator", "sigma_delta")
PARAMETERS = (  # one number per channel is all that a population has
    *("alpha", "beta", "leak", "theta"),
    *("v_min", "theta_decay", "theta_step", "step", "theta_low"),
)
SOURCES = ("input", "constant")
CONSTANT = "constant bias"  # id and name of the source of biases that a leak cannot hold


@dataclass(frozen=True)
class Term:
    """What a source adds to a current: its values of ``lag`` timesteps ago, through a linear map."""

    source: str
    lag: int
    map: LinearMap


@dataclass
class Affine:
    """A current: terms, and biases [C, H, W] that begin at a timestep."""

    shape: Shape
    terms: list[Term] = field(default_factory=list)
    bias: dict[int, np.ndarray] = field(default_factory=dict)

    def mapped(self, shape: Shape, change: Any, bias: Any) -> Affine:
        terms = [replace(t, map=change(t.map)) for t in self.terms]
        return Affine(shape, terms, {at: bias(b) for at, b in self.bias.items()})

    def later(self, steps: int) -> Affine:
        terms = [replace(t, lag=t.lag + steps) for t in self.terms]
        return Affine(self.shape, terms, {at + steps: b for at, b in self.bias.items()})

    def plus(self, other: Affine) -> Affine:
        none = np.zeros(self.shape)
        starts = sorted({*self.bias, *other.bias})
        bias = {at: self.bias.get(at, none) + other.bias.get(at, none) for at in starts}
        return Affine(self.shape, [*self.terms, *other.terms], bias)


@dataclass(frozen=True)
class JoinLinear:
    """Currents that the folding passes take (``regions``) are left to them."""

    name: ClassVar[str] = "join-linear"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        from nmc_compiler.passes.join_mixed import MixedJoiner  # it is a Joiner

        if is_general(graph):
            return Joiner(graph, report).run()
        return graph if is_stream(graph) else MixedJoiner(graph, report).run()


class Joiner:
    def __init__(self, graph: Graph, report: ConversionReport) -> None:
        self.graph, self.report, self.by_id = graph, report, graph.by_id()
        self.tensors: dict[str, np.ndarray] = {}
        self.known: dict[str, Affine | None] = {}
        self.neurons: dict[str, Node] = {}  # as they will be, by id
        self.constant = False

    def run(self) -> Graph:
        """Neurons first decide on their shapes, since projections depend on those of both ends."""
        currents: dict[str, Affine] = {}
        for node in self.graph:
            if node.op in NEURONS:
                self._settle(node, currents)
        outputs = [new for node in self.graph.outputs for new in self._output(node, currents)]
        body = [new for i, node in self.neurons.items() for new in self._projected(node, currents[i])]
        sources = [n for n in self.graph if n.op in SOURCES]
        if self.constant:
            one = ValueType(Kind.SPIKE, (1, 1, 1))
            sources.append(Node(CONSTANT, "constant", (), {"shape": derived(one.shape)}, one, CONSTANT))
        return rebuild(self.graph, [*sources, *body, *outputs], self.tensors)

    # ---- what a current is ----

    def current(self, use: Use) -> Affine:
        found = self._affine(use.node)
        return found.later(use.lag) if use.lag else found

    def _affine(self, node_id: str) -> Affine:
        if node_id in self.known:
            found = self.known[node_id]
            if found is None:
                raise LoweringError(
                    f"'{label(self.by_id[node_id])}' hears itself without a neuron between; put one into the loop"
                )
            return found
        self.known[node_id] = None
        found = self._expand(self.by_id[node_id])
        self.known[node_id] = found
        return found

    def _expand(self, node: Node) -> Affine:
        if node.op in SOURCES or node.op in NEURONS:
            if node.op == "integrator":
                raise LoweringError(
                    f"integrator '{label(node)}' is read inside the network; its real values cannot be sent as "
                    f"events; only an output may read it"
                )
            return Affine(node.type.shape, [Term(node.id, 0, identity(node.type.shape))])
        rule = getattr(self, f"_of_{node.op}", None)
        if rule is None:
            raise LoweringError(
                f"{node.op} '{label(node)}' is not linear; between two populations nothing else is lowered"
            )
        operands = [self.current(use) for use in node.inputs]
        return rule(node, *operands)

    def _of_add(self, node: Node, *parts: Affine) -> Affine:
        total = parts[0]
        for part in parts[1:]:
            total = total.plus(part)
        return total

    def _of_conv2d(self, node: Node, x: Affine) -> Affine:
        out = self._through(x, map_of(self.graph, node, x.shape))
        bias = self.graph.tensor(node, "bias")
        return out if bias is None else out.plus(_constant(out.shape, bias))

    def _through(self, x: Affine, m: LinearMap) -> Affine:
        return x.mapped(m.target, lambda first: then(first, m), lambda bias: _applied(m, bias))

    def _of_batch_norm(self, node: Node, x: Affine) -> Affine:
        scale, offset = bn_affine(lambda key: self.graph.tensor(node, key), node.attr("eps"))
        return self._times(x, scale).plus(_constant(x.shape, offset))

    def _times(self, x: Affine, factor: Any) -> Affine:
        full = np.asarray(factor, np.float64)
        full = full[:, None, None] if full.ndim == 1 else full
        return x.mapped(x.shape, lambda m: scaled(m, factor), lambda bias: bias * full)

    def _of_scale(self, node: Node, x: Affine) -> Affine:
        value = node.attr("factor")
        return self._times(x, value if isinstance(value, (int, float)) else self.graph.tensors[value.key])

    def _of_pad2d(self, node: Node, x: Affine) -> Affine:
        """Zeros around the terms; a bias of the ring's numbers goes on in the ring."""
        (py, px), ring, whole = node.attr("pad"), self.graph.tensor(node, "value"), node.type.shape
        assert ring is not None
        inside = (slice(None), slice(py, whole[1] - py), slice(px, whole[2] - px))
        bias = {}
        for at, inner in ({0: np.zeros(x.shape)} | x.bias).items():
            own = np.zeros(whole) if at else np.broadcast_to(ring.astype(np.float64)[:, None, None], whole).copy()
            close = np.allclose(inner, own[inside], rtol=1e-6, atol=1e-12)  # a ring may be of single precision
            own = np.broadcast_to(inner[:, :1, :1], whole) if close and not varies(inner) else own
            if not close:
                own[inside] = inner
            bias[at] = own
        terms = [replace(t, map=then(t.map, padding(x.shape, (py, px)))) for t in x.terms]
        return Affine(whole, terms, bias)

    def _of_sumpool2d(self, node: Node, x: Affine) -> Affine:
        window = (node.attr("kernel"), node.attr("stride", (1, 1)), node.attr("pad", (0, 0)))
        return self._through(x, window_sum(x.shape, node.type.shape, *window))

    def _of_sum_positions(self, node: Node, x: Affine) -> Affine:
        return self._through(x, window_sum(x.shape, node.type.shape, x.shape[1:], (1, 1), (0, 0)))

    def _of_map(self, node: Node, x: Affine) -> Affine:
        mode = node.attr("mode")
        if mode == "window":
            return self._of_sumpool2d(node, x)
        if mode == "reduce":
            return self._of_sum_positions(node, x)
        if mode in ("reduce_channels", "broadcast_channels"):
            return self._through(x, block_sums(x.shape, node.type.shape))
        return x if mode == "same" else self._through(x, spread(x.shape, node.type.shape))

    def _of_reshape(self, node: Node, x: Affine) -> Affine:
        shape = node.type.shape
        return x.mapped(shape, lambda m: reshaped(m, shape), lambda bias: bias.reshape(shape))

    def _of_take(self, node: Node, *parts: Affine) -> Affine:
        index, shape, at = self.graph.tensor(node, "index"), node.type.shape, 0
        assert index is not None
        total = Affine(shape)
        for part in parts:
            size = part.shape[0] * part.shape[1] * part.shape[2]
            own = np.where((index >= at) & (index < at + size), index - at, -1)
            total = total.plus(self._through(part, selection(part.shape, shape, own)))
            at += size
        return total

    def _of_delay(self, node: Node, x: Affine) -> Affine:
        steps = delays(node.attrs["steps"], self.graph.tensors, x.shape)
        if (steps == steps.flat[0]).all():
            return x.later(int(steps.flat[0]))
        late = Affine(x.shape, [replace(t, map=delayed(t.map, steps)) for t in x.terms])
        for at, bias in x.bias.items():
            for step in np.unique(steps).tolist():
                late = late.plus(Affine(x.shape, [], {at + step: np.where(steps == step, bias, 0.0)}))
        return late

    def _of_sparse(self, node: Node, x: Affine) -> Affine:
        if not node.attr("graded", True):
            raise LoweringError(
                f"sparse '{label(node)}' ignores codes (graded=false), which is not linear; not lowered"
            )
        table = map_of(self.graph, node, x.shape)
        if as_table(table).extra.any() and any(b.any() for b in x.bias.values()):
            raise LoweringError(f"sparse '{label(node)}' delays a bias; put the bias behind it")
        return self._through(x, table)

    # ---- neurons ----

    def _settle(self, node: Node, currents: dict[str, Affine]) -> None:
        """The neuron with its leak, flat where a channel's parameters differ by position."""
        self._settle_on(node, self.current(node.inputs[0]), currents)

    def _settle_on(self, node: Node, current: Affine, currents: dict[str, Affine]) -> None:
        attrs = dict(node.attrs)
        bias = {at: b for at, b in current.bias.items() if b.any()}
        if node.op != "sigma_delta" and not {"alpha", "gain_t"} & set(attrs) and 0 in bias:
            leak = _values(self.graph, node, "leak") + bias.pop(0)
            attrs.pop("leak", None)
            if leak.any():
                attrs["leak"] = self._stored(node, "leak", leak)
        current = Affine(current.shape, [*current.terms, *self._constants(bias)])
        varied = any(varies(self._value(attrs, key)) for key in PARAMETERS)
        shape = (node.type.shape[0] * node.type.shape[1] * node.type.shape[2], 1, 1) if varied else node.type.shape
        for key, attr in attrs.items():
            value = self._value(attrs, key)
            if value is not None and key in TABLES_OF_NEURONS:
                many = value.shape[1] > 1 and varied
                every = np.repeat(value, shape[0] // node.type.shape[0], axis=1) if many else value
                attrs[key] = self._stored(node, key, every)
            elif value is not None and key != "elements":
                full = value[:, None, None] if value.ndim == 1 else value
                full = np.broadcast_to(full, node.type.shape).reshape(shape)
                attrs[key] = self._stored(node, key, full if key.startswith("start_") else full[:, 0, 0])
            else:
                attrs[key] = attr
        if varied and node.op != "integrator":
            attrs["record_perm"], attrs["record_shape"] = derived((0, 1, 2)), derived(node.type.shape)
        currents[node.id] = current
        self.neurons[node.id] = replace(node, attrs=attrs, type=replace(node.type, shape=shape))

    def _value(self, attrs: dict[str, Attr], key: str) -> np.ndarray | None:
        value = attrs[key].value if key in attrs else None
        if value is None or not hasattr(value, "key"):
            return None
        return self.tensors.get(value.key, self.graph.tensors.get(value.key)).astype(np.float64)  # type: ignore[union-attr]

    def _stored(self, node: Node, key: str, value: np.ndarray) -> Attr:
        if key in PARAMETERS and (value == value.flat[0]).all():
            return derived(float(value.flat[0]))
        return stored(self.tensors, f"{label(node).lstrip('%')}.{key}@joined", value)

    def _constants(self, bias: dict[int, np.ndarray]) -> list[Term]:
        """Synapses from a source that sends at every timestep, for what no leak can hold."""
        terms = []
        for at, values in bias.items():
            self.constant = True
            dst = np.flatnonzero(values)
            none = np.zeros(len(dst), np.int64)
            table = Table((1, 1, 1), values.shape, none, dst, values.reshape(-1)[dst], none)  # type: ignore[arg-type]
            terms.append(Term(CONSTANT, at, table))
        return terms

    def _output(self, node: Node, currents: dict[str, Affine]) -> list[Node]:
        """An output reads a neuron; what is no neuron's value is held by an integrator that forgets at once."""
        use = node.inputs[0]
        source = seen = self.by_id[use.node]
        while source.op == "reshape" and not source.inputs[0].lag:
            source = self.by_id[source.inputs[0].node]
        if source.op in NEURONS and not use.lag:
            return self._in_shape(node, self.neurons[source.id], seen.type.shape)
        name = node.name or node.id
        name = name if name not in {label(n) for n in self.neurons.values()} else f"{name}.value"
        type_ = ValueType(Kind.REAL, seen.type.shape)
        held = Node(f"{node.id}.value", "integrator", (use,), {"beta": derived(0.0)}, type_, name)
        self.by_id[held.id] = held
        self._settle(held, currents)
        self.report.notes.append(f"output '{node.name or node.id}' is a current: an integrator without memory holds it")
        return self._in_shape(node, self.neurons[held.id], type_.shape)

    def _in_shape(self, node: Node, source: Node, shape: Shape) -> list[Node]:
        """An output of a neuron, in the shape that it had there."""
        if source.type.shape == shape:
            return [replace(node, inputs=(Use(source.id),))]
        type_ = replace(source.type, shape=shape)
        shaped = Node(f"{node.id}.shape", "reshape", (Use(source.id),), {"shape": derived(shape)}, type_)
        return [shaped, replace(node, inputs=(Use(shaped.id),))]

    # ---- projections ----

    def _projected(self, node: Node, current: Affine) -> list[Node]:
        """The neuron behind one projection per source and lag, and their sum."""
        groups: dict[tuple[str, int], list[LinearMap]] = {}
        for term in current.terms:
            for late, m in self._split(self._ends(node, term)):
                groups.setdefault((term.source, term.lag + late), []).append(m)
        projections: list[Node] = []
        for (source, lag), maps in groups.items():
            tables = [m for m in maps if isinstance(m, Table)]
            whole: list[LinearMap] = [m for m in maps if isinstance(m, Kernel)]
            for m in [*whole, *([joined(tables)] if tables else [])]:
                number = len(projections)
                name = f"{label(node).lstrip('%')}.in{number}"
                projections.append(node_of(m, f"{node.id}.in{number}", name, Use(source, lag), self.tensors))
        return summed(node, projections)

    def _ends(self, node: Node, term: Term) -> LinearMap:
        """The map between the shapes that its ends have; flat ends are read through tables."""
        source = self.neurons[term.source].type.shape if term.source in self.neurons else term.map.source
        m = settled(term.map)
        if isinstance(m, Kernel) and (m.source, m.target) == (source, node.type.shape):
            return m
        return replace(as_table(m), source=source, target=node.type.shape)

    def _split(self, m: LinearMap) -> list[tuple[int, LinearMap]]:
        """A delay that all synapses have goes into the lag; the rest in bands that synapses can hold."""
        if isinstance(m, Kernel) or not len(m.extra):
            return [(0, m)]
        bands = (m.extra - m.extra.min()) // (MAX_EXTRA + 1)
        found: list[tuple[int, LinearMap]] = []
        for band in np.unique(bands).tolist():
            chosen = bands == band
            least = int(m.extra[chosen].min())
            arrays = [a[chosen] for a in (m.src, m.dst, m.weight, m.extra - least)]
            found.append((least, Table(m.source, m.target, *arrays)))
        return found


def _constant(shape: Shape, bias: np.ndarray) -> Affine:
    return Affine(shape, [], {0: np.broadcast_to(bias.astype(np.float64)[:, None, None], shape)})


def _applied(m: LinearMap, bias: np.ndarray) -> np.ndarray:
    """What a map makes of a constant [C, H, W]."""
    if not bias.any():
        return np.zeros(m.target)
    if isinstance(m, Kernel) and m.pad == (0, 0) and m.view == m.source and not varies(bias):
        taps = m.weight.sum(axis=(2, 3)).reshape(m.groups, -1, m.weight.shape[1])
        each = (taps * bias[:, 0, 0].reshape(m.groups, 1, -1)).sum(axis=2)
        return np.broadcast_to(each.reshape(-1, 1, 1), m.target).copy()
    t = as_table(m)
    size = m.target[0] * m.target[1] * m.target[2]
    return np.bincount(t.dst, t.weight * bias.reshape(-1)[t.src], size).reshape(m.target)


def _values(graph: Graph, node: Node, key: str) -> np.ndarray:
    """A parameter as [C, H, W]."""
    value = node.attr(key, 0.0)
    array = np.asarray(float(value) if isinstance(value, (int, float)) else graph.tensors[value.key], np.float64)
    return np.broadcast_to(array[:, None, None] if array.ndim == 1 else array, node.type.shape)


def varies(value: np.ndarray | None) -> bool:
    """Whether a parameter differs inside a channel."""
    return value is not None and value.ndim == 3 and bool((value != value[:, :1, :1]).any())
