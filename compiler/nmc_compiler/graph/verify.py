"""The verifier, run after every pass, and the findings that ``nmc inspect`` shows.

``verify`` checks that a graph keeps the rules of its own format; with ``event_driven`` also that
**every multiply has a spike, a graded code or a constant on one side** of it. Which op does so, and
how, is one ``Rule`` per op; a new op registers its own beside its ``OpSpec``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import LoweringError, VerifyError
from nmc_compiler.graph.analysis import CONVOLUTIONS, check_acyclic
from nmc_compiler.graph.graph import Graph, Node
from nmc_compiler.graph.ops_cell import check_rows
from nmc_compiler.graph.registry import known_ops, op_spec
from nmc_compiler.graph.types import EVIDENCE, Kind, Ref, ValueType

INPUTS = ("input",)
READOUTS = ("readout", "int_readout")

CORE, HOST, FOLDED, REFUSED = "core", "host", "folded", "refused"


@dataclass(frozen=True)
class Finding:
    """What becomes of one node.

    ``place``: "core" (events in, sums or events out), "host" (before the first event), "folded"
    (a constant factor that a pass takes away) or "refused". ``event_driven``: core or folded.
    """

    node: str
    name: str
    op: str
    event_driven: bool
    reason: str
    place: str


@dataclass(frozen=True)
class Site:
    """A node with its surroundings: what it reads and what reads it."""

    node: Node
    graph: Graph
    by_id: dict[str, Node]
    readers: dict[str, list[Node]]

    @property
    def inputs(self) -> list[Node]:
        return [self.by_id[i] for i in self.node.operands]

    @property
    def source(self) -> Node:
        return self.by_id[self.node.operands[0]]

    @property
    def users(self) -> list[Node]:
        return self.readers[self.node.id]

    @property
    def reads_events(self) -> bool:
        return self.source.type.is_event

    def alone(self, node: Node) -> bool:
        """Whether nothing but one node reads ``node``."""
        return len(self.readers[node.id]) == 1

    def convolution_before(self) -> Node | None:
        """The convolution that feeds this node through batch norms and padding alone, each read once."""
        node = self.source
        while node.op in ("batch_norm", "pad2d") and self.alone(node):
            node = self.by_id[node.operands[0]]
        return node if node.op == "conv2d" and self.alone(node) else None

    def pointwise(self, conv: Node) -> bool:
        weight = self.graph.tensor(conv, "weight")
        plain = conv.attr("stride", (1, 1)) == (1, 1) and conv.attr("pad", (0, 0)) == (0, 0)
        return plain and weight is not None and weight.shape[2:] == (1, 1)


Verdict = tuple[str, str]  # place, reason


@dataclass(frozen=True)
class Rule:
    """How an op is carried out, and in which graphs it has a meaning.

    ``float_attrs`` and ``int_attrs`` are attributes that only those graphs obey; ``int_needs`` those
    that an integer graph must give.
    """

    explain: Callable[[Site], Verdict]
    numbers: tuple[str, ...] = ("float", "int")
    float_attrs: tuple[str, ...] = ()
    int_attrs: tuple[str, ...] = ()
    int_needs: tuple[str, ...] = ()


_RULES: dict[str, Rule] = {}


def register_rule(op: str, rule: Rule) -> None:
    """Say how an op becomes events; an op without a rule is refused in event-driven graphs."""
    if op in _RULES:
        raise VerifyError(f"op '{op}' has two rules")
    _RULES[op] = rule


_NO_RULE = Rule(lambda site: (REFUSED, f"nothing says how '{site.node.op}' becomes events"))


def _on_host(site: Site) -> Verdict:
    what = site.node.attr("function") or op_spec(site.node.op).doc
    return HOST, f"real numbers, which no core computes: {what}"


def rule_of(op: str) -> Rule:
    return _RULES.get(op, _NO_RULE)


# ---- findings ----


def findings(graph: Graph) -> list[Finding]:
    """One finding per node, in graph order."""
    by_id, users = graph.by_id(), graph.users()
    found = []
    for node in graph:
        place, reason = rule_of(node.op).explain(Site(node, graph, by_id, users))
        found.append(Finding(node.id, node.name, node.op, place in (CORE, FOLDED), reason, place))
    return found


# ---- the verifier ----


def verify(graph: Graph, event_driven: bool = False) -> None:
    """Check a graph; VerifyError names the first rule it breaks.

    ``event_driven``: also refuse what neither a core nor the host (before the first event) can do.
    """
    _check_header(graph)
    _check_order(graph)
    _check_meaning(graph)
    _check_ends(graph)
    _check_names(graph)
    _check_tensors(graph)
    _check_numbers(graph)
    if event_driven:
        _check_event_driven(graph)


def _where(node: Node) -> str:
    return f"%{node.id} = {node.op}" + (f' "{node.name}"' if node.name else "")


def _check_header(graph: Graph) -> None:
    if graph.timesteps == 0 and type(graph.timesteps) is int and graph.outputs:
        if not graph.input_time:
            raise VerifyError(f"graph '{graph.name}': T = 0, a stream, but its input has no time axis (input_time)")
    elif type(graph.timesteps) is not int or graph.timesteps < 1:
        raise VerifyError(f"graph '{graph.name}': T must be a whole number >= 1, got {graph.timesteps!r}")
    if graph.numbers not in ("float", "int"):
        raise VerifyError(f"graph '{graph.name}': numbers must be float or int, not {graph.numbers!r}")
    if not graph.record_time and graph.timesteps != 1:
        raise VerifyError(
            f"graph '{graph.name}': record_time=false says that recordings have no time axis, but T = {graph.timesteps}"
        )


def _check_order(graph: Graph) -> None:
    ids = {n.id for n in graph}
    if len(ids) != len(graph.nodes):
        twice = next(n.id for i, n in enumerate(graph) if n.id in {m.id for m in graph.nodes[:i]})
        raise VerifyError(f"node '%{twice}' is defined twice")
    for node in graph:
        for use in node.inputs:
            if use.node not in ids:
                raise VerifyError(f"{_where(node)}: operand %{use.node} does not exist")
            if type(use.lag) is not int or use.lag < 0:
                raise VerifyError(f"{_where(node)}: the lag of %{use.node} must be >= 0, got {use.lag!r}")
    try:
        check_acyclic(graph)
    except LoweringError as error:
        raise VerifyError(str(error)) from None
    seen: set[str] = set()
    for node in graph:
        late = next((u.node for u in node.inputs if not u.lag and u.node not in seen), None)
        if late is not None:
            raise VerifyError(f"{_where(node)}: operand %{late} is not defined before its use")
        seen.add(node.id)


def _check_meaning(graph: Graph) -> None:
    types = {n.id: n.type for n in graph}
    for node in graph:
        where, spec = _where(node), op_spec(node.op)
        spec.check_attrs(node.attrs, where)
        spec.check_arity(len(node.inputs), where)
        for key, attr in node.attrs.items():
            if isinstance(attr.value, Ref) and attr.value.key not in graph.tensors:
                raise VerifyError(f"{where}: {key}: tensor '{attr.value.key}' does not exist")
            if isinstance(attr.value, float) and not math.isfinite(attr.value):
                raise VerifyError(f"{where}: {key} is {attr.value!r}, which is not a finite number")
            if attr.evidence not in EVIDENCE:
                raise VerifyError(f"{where}: evidence of {key} is {attr.evidence!r}, not one of {', '.join(EVIDENCE)}")
        inferred = spec.infer([types[u.node] for u in node.inputs], node.attrs, graph.tensors, where)
        check_rows(graph, node, where)
        if inferred != node.type:
            raise VerifyError(f"{where}: its type is stored as {node.type}, but the op gives {inferred}")


def _check_ends(graph: Graph) -> None:
    if graph.outputs:
        _check_open_ends(graph)
        return
    for what, ops in (("input", INPUTS), ("readout", READOUTS)):
        found = [f"%{n.id}" for n in graph if n.op in ops]
        if len(found) != 1:
            listed = f" ({', '.join(found)})" if found else ""
            raise VerifyError(f"graph '{graph.name}' must have one {what}, has {len(found)}{listed}")


def _check_open_ends(graph: Graph) -> None:
    """A network that is read at every step: any number of inputs and outputs, each with a name of its own."""
    readouts = [f"%{n.id}" for n in graph if n.op in READOUTS]
    if len(readouts) > 1:
        raise VerifyError(f"graph '{graph.name}' can have one readout, has {len(readouts)} ({', '.join(readouts)})")
    if readouts and not graph.timesteps:
        raise VerifyError(f"graph '{graph.name}' is a stream (T = 0), which has no end for the readout {readouts[0]}")
    if not graph.sources:
        raise VerifyError(f"graph '{graph.name}' has no input")
    for nodes in (graph.sources, graph.outputs):
        names = [n.name or n.id for n in nodes]
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise VerifyError(f"graph '{graph.name}' has two {nodes[0].op}s called '{twice}'")


def _check_names(graph: Graph) -> None:
    holder: dict[str, Node] = {}
    for node in graph:
        if not op_spec(node.op).neuron and not (graph.outputs and node.op in INPUTS):
            continue
        label = node.name or node.id
        if label in holder:
            raise VerifyError(
                f"%{holder[label].id} and %{node.id} are both called '{label}'; "
                f"every population needs a name of its own"
            )
        holder[label] = node


def _check_tensors(graph: Graph) -> None:
    used = {a.value.key for n in graph for a in n.attrs.values() if isinstance(a.value, Ref)}
    nodes = (n for n in graph if op_spec(n.op).host)
    of_host = {a.value.key for n in nodes for a in n.attrs.values() if isinstance(a.value, Ref)}
    for key, array in graph.tensors.items():
        if key not in used:
            raise VerifyError(f"graph '{graph.name}': tensor '{key}' is stored, but no node refers to it")
        if array.dtype.kind not in "iufb":
            raise VerifyError(f"tensor '{key}' has dtype {array.dtype}; graphs hold real numbers")
        bad = 0 if array.dtype.kind != "f" else int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise VerifyError(f"tensor '{key}' has {bad} value(s) that are not finite, of {array.size}")
        if graph.numbers == "int" and array.dtype.kind not in "iu" and key not in of_host:
            raise VerifyError(f"tensor '{key}' has dtype {array.dtype}, but graph '{graph.name}' holds integers only")


def _check_numbers(graph: Graph) -> None:
    """Ops and attributes that this kind of graph would not obey are refused, not ignored."""
    integer = graph.numbers == "int"
    for node in graph:
        rule = rule_of(node.op)
        if graph.numbers not in rule.numbers:
            raise VerifyError(f"{_where(node)}: '{node.op}' has no meaning in a graph of {graph.numbers} numbers")
        for key in rule.float_attrs if integer else rule.int_attrs:
            if key in node.attrs:
                raise VerifyError(
                    f"{_where(node)}: attribute '{key}' has no meaning in a graph of {graph.numbers} numbers"
                )
        missing = next((k for k in rule.int_needs if integer and k not in node.attrs), None)
        if missing is not None:
            raise VerifyError(f"{_where(node)}: a graph of int numbers needs attribute '{missing}'")


def _check_event_driven(graph: Graph) -> None:
    by_id = graph.by_id()
    for node in graph:
        for use in node.inputs:
            if use.lag and not by_id[use.node].type.is_event:
                raise VerifyError(
                    f"{_where(node)}: not event-driven: %{use.node} is {by_id[use.node].type}; "
                    f"only events can arrive timesteps later"
                )
    for f in findings(graph):
        if f.place not in (CORE, HOST):
            raise VerifyError(f"{_where(by_id[f.node])}: not event-driven: {f.reason}")


# ---- the rules ----


def _window(type_: ValueType) -> str:
    return {Kind.SPIKE: "OR over a window", Kind.GRADED: "largest code of a window"}[type_.kind]


def _conv(site: Site) -> Verdict:
    if site.reads_events:
        what = "spikes select weights" if site.source.type.kind is Kind.SPIKE else "codes times weights"
        return CORE, f"static synapse: {what}"
    if site.source.op in (*INPUTS, "features"):
        return HOST, "reads the real input: the host computes it, or 8-bit events carry the input"
    before = site.convolution_before()
    if before is not None and (site.pointwise(before) or site.pointwise(site.node)):
        return FOLDED, f"linear after linear: folds with {_where(before)} into one convolution"
    return FOLDED, f"convolves the real values of {_where(site.source)}: a relay hands them on as graded spikes"


def _conv_sites(site: Site) -> Verdict:
    weight = site.graph.tensor(site.node, "weight")
    if weight is None or site.source.type.kind is not Kind.CURRENT or weight.shape[2] != 1:
        return _conv(site)
    return FOLDED, "linear after linear: folds into the convolutions whose currents it reads"


def _pad(site: Site) -> Verdict:
    before, readers = site.convolution_before(), [u.op for u in site.users]
    if before is not None and site.pointwise(before) and readers == ["conv2d"]:
        return FOLDED, f"padding ring: folds with {_where(before)} into the convolution after it"
    return REFUSED, "padding that does not stand between a 1x1 convolution and one other"


def _batch_norm(site: Site) -> Verdict:
    if site.source.op in CONVOLUTIONS and site.alone(site.source):
        return FOLDED, "constant per channel: folds into the convolution before it"
    return REFUSED, f"batch norm of {_where(site.source)}, which is not a convolution that it alone reads"


def _scale(site: Site) -> Verdict:
    constant = not isinstance(site.node.attr("factor"), Ref)
    foldable = site.source.op in CONVOLUTIONS or (site.source.op == "attn" and constant)
    if foldable and site.alone(site.source):
        return FOLDED, f"constant factor: folds into {_where(site.source)}"
    if constant and site.users and all(op_spec(u.op).neuron for u in site.users):
        return FOLDED, "constant factor: folds into the threshold of the neurons that read it"
    return REFUSED, "constant factor between currents, with no weights or threshold to fold into"


def _add(site: Site) -> Verdict:
    if site.node.type.is_event:
        return CORE, "sum of codes: the events of every term go into the readers' synapses"
    return _current(site, "accumulator: currents add up, no multiply")


def _sum(site: Site) -> Verdict:
    if site.reads_events:
        return CORE, "sum over positions: the events of every position go into the readers' synapses"
    return _current(site, "accumulator: currents of all positions add up, no multiply")


def _maxpool(site: Site) -> Verdict:
    if site.reads_events:
        return CORE, f"pool on events: {_window(site.source.type)}"
    return _current(site, "current pool: the window's currents meet on one core at the end of a timestep")


def _current(site: Site, reason: str) -> Verdict:
    real = next((n for n in site.inputs if n.type.kind is Kind.REAL), None)
    if real is not None:
        return REFUSED, f"reads the real values of {_where(real)}, with no projection or neuron between"
    return CORE, reason


def _attn(site: Site) -> Verdict:
    q, _, v = site.inputs
    heads = site.node.attr("heads")
    table = f"{q.type.shape[0] // heads}x{v.type.shape[0] // heads}"
    kept = ", which lasts and decays" if site.node.attr("lifetime", "step") == "sample" else ""
    return CORE, f"dynamic synapse: k and v events write a {table} table per head{kept}, q events read it"


def _reshape(site: Site) -> Verdict:
    if site.users and all(u.op == "output" for u in site.users):
        return HOST, "the same elements: the host reads them in another shape"
    return FOLDED, "the same elements: folds into the synapses"


def _take(site: Site) -> Verdict:
    if site.users and all(u.op == "output" for u in site.users):
        return HOST, "elements in another place: the host reads them so"
    return FOLDED, "elements in another place: folds into the synapses, or events are handed on by relays"


def _time_affine(site: Site) -> Verdict:
    if site.users and all("gain_t" in op_spec(u.op).attrs for u in site.users):
        return FOLDED, "constants for every timestep: fold into the neurons that read it"
    return REFUSED, "constants for every timestep of a current that not only neurons read, which take them"


def _neuron(text: str) -> Callable[[Site], Verdict]:
    def explain(site: Site) -> Verdict:
        bits = f" ({site.node.type.bits} bits)" if site.node.type.kind is Kind.GRADED else ""
        return CORE, text + bits

    return explain


def _fixed(place: str, text: str) -> Callable[[Site], Verdict]:
    return lambda site: (place, text)


_FLOAT, _INT = ("float",), ("int",)
_SPIKING = "neuron: adds its input currents, emits a spike"
_GRADED = "neuron: emits a graded spike"
_CHANGE = "neuron: sends how much its activation changed"
_POTENTIAL = "integrator: its potential is read at every step"
_READ = "accumulates logits over the timesteps"

for _op, _rule in {
    "input": Rule(_fixed(HOST, "the host sends the samples")),
    "encode": Rule(_fixed(HOST, "the host rounds the input to graded events")),
    "host_conv2d": Rule(_fixed(HOST, "first convolution, in fixed point on the host"), _INT),
    "conv2d": Rule(_conv, float_attrs=("bias",), int_attrs=("shift",)),
    "sites": Rule(_fixed(HOST, "the host sends the sites of each sample before its values")),
    "cloud": Rule(_fixed(CORE, "a fixed cloud: every core's table of sites is compiled")),
    "features": Rule(_fixed(HOST, "the host's own: values beside coordinates")),
    "down_sites": Rule(_fixed(CORE, "sites are made where a site of the finer table reaches them")),
    "sparse_conv3d": Rule(_conv_sites, float_attrs=("bias",), int_attrs=("shift",)),
    "host_sparse_conv3d": Rule(_fixed(HOST, "first convolution, in fixed point on the host"), _INT),
    "mean_sites": Rule(_fixed(CORE, "sum over sites; the host divides by their number"), _FLOAT),
    "sum_sites": Rule(_fixed(CORE, "sum over sites: their events go into the reader's synapses"), _INT),
    "batch_norm": Rule(_batch_norm, _FLOAT),
    "pad2d": Rule(_pad, _FLOAT),
    "add": Rule(_add),
    "scale": Rule(_scale, _FLOAT),
    "rshift": Rule(_fixed(CORE, "weight exponent: shifts a current before the neuron"), _INT),
    "sum_positions": Rule(_sum),
    "maxpool2d": Rule(_maxpool),
    "reshape": Rule(_reshape),
    "take": Rule(_take),
    "gather": Rule(_fixed(HOST, "the host puts the parts of a population together")),
    "delay": Rule(_fixed(FOLDED, "whole steps: fold into the delays of synapses"), _FLOAT),
    "sumpool2d": Rule(_fixed(FOLDED, "linear: folds into the synapses"), _FLOAT),
    "sparse": Rule(_fixed(CORE, "static synapses, one by one"), int_attrs=("shift",)),
    "output": Rule(_fixed(HOST, "the host reads it at every step")),
    "map": Rule(_fixed(CORE, "static synapse: one constant weight per channel"), int_attrs=("shift",)),
    "attn": Rule(
        _attn,
        float_attrs=("scale", "decay"),
        int_attrs=("shift", "saturate", "keep", "frac"),
        int_needs=("saturate",),
    ),
    "mul": Rule(_fixed(CORE, "AND gate: a spike passes where the mask has one")),
    "lif": Rule(_neuron(_SPIKING), _FLOAT),
    "multilevel": Rule(_neuron(_GRADED), _FLOAT),
    "neuron": Rule(_neuron(_SPIKING), _FLOAT),
    "constant": Rule(_fixed(CORE, "neuron: its threshold is below its rest, so that it fires at every timestep")),
    "integrator": Rule(_neuron(_POTENTIAL), _FLOAT),
    "int_integrator": Rule(_neuron(_POTENTIAL), _INT),
    "sigma_delta": Rule(_neuron(_CHANGE), float_attrs=("theta",), int_attrs=("vth", "out_shift"), int_needs=("vth",)),
    "ilif": Rule(_neuron(_GRADED), _FLOAT),
    "psn": Rule(_neuron("neuron: adds weighted currents of several timesteps, emits a spike"), _FLOAT),
    "time_affine": Rule(_time_affine, _FLOAT),
    "cell": Rule(_neuron("neuron of microcode: adds its input currents, emits spikes"), _INT),
    "readout": Rule(_neuron(_READ), _FLOAT),
    "cuba_lif": Rule(_neuron(_SPIKING), _INT),
    "levels": Rule(_neuron(_GRADED), _INT),
    "relay": Rule(_neuron("relay: hands a current on as graded spikes")),
    "int_readout": Rule(_neuron(_READ), _INT),
}.items():
    register_rule(_op, _rule)
for _op in (spec.name for spec in known_ops() if spec.host):
    register_rule(_op, Rule(_on_host))
