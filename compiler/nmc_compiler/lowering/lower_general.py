"""Lower an integer graph of any spiking network: one dendrite per neuron, loops by lags, several ticks per timestep.

The populations and projections are laid out with the builder of networks (``program.network``), which knows what
weights, exponents and delays a Program can hold; then levels and delays in ticks are given to them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.analysis import check_acyclic, is_neuron
from nmc_compiler.graph.ops_dynamics import TOP_VTH
from nmc_compiler.lowering.features import check_features
from nmc_compiler.lowering.general_levels import Edge, GeneralLevels
from nmc_compiler.options import CompileOptions
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import Conv, Program, Record, Sparse, Transfer
from nmc_compiler.program.network import Network
from nmc_compiler.program.timing import arrivals, first_writes, largest_extra, last_reads, ring_needed
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target


def lower_general(graph: Graph, target: Target, options: CompileOptions) -> Program:
    """Populations, dendrites and projections with levels, lags and delays; ``mapping`` is left None.

    LoweringError where the graph asks for what a Program or the target has not. ``meta["outputs"]`` says what the
    host reads: name, shape and parts, of each part the population, "spikes" or "potential", the scale that makes a
    potential the trained model's, and where its elements go. ``meta["inputs"]``: how the host encodes real inputs.
    """
    check_acyclic(graph)
    netlist = _Netlist(graph, target, options)
    program = netlist.program()
    features = check_features(program, target)
    meta = {"features": features, "options": options.as_json(), "graph": graph.name} | netlist.ends()
    return replace(program, meta=meta)


class _Netlist:
    def __init__(self, graph: Graph, target: Target, options: CompileOptions) -> None:
        self.graph, self.target, self.options, self.by_id = graph, target, options, graph.by_id()
        self.net = Network(graph.name, graph.timesteps)
        self.index: dict[str, int] = {}
        layout = GeneralLevels(graph)
        self.edges, self.levels, self.ticks = layout.edges, layout.levels, layout.ticks_per_step()
        self.lags: dict[str, int] = {}  # of each projection, by name
        self.shifts: dict[str, tuple[int, int]] = {}  # of convolutions: left, and right behind the sum
        self.stems: set[str] = set()

    def program(self) -> Program:
        for node in self.graph:
            self._population(node)
        for node_id, edges in self.edges.items():
            for edge in edges:
                self._project(edge, node_id)
        return self._timed(self._shifted(self.net.program()), self.ticks)

    # ---- populations ----

    def _population(self, node: Node) -> None:
        name = label(node)
        if node.op == "input" and node.type.is_event:
            self.index[node.id] = self.net.input(
                name, node.type.shape, payload_bits=node.type.bits, signed=node.type.signed
            )
        elif node.op == "encode":
            name = label(self.by_id[node.inputs[0].node])
            self.index[node.id] = self.net.input(
                name, node.type.shape, payload_bits=node.type.bits, signed=node.type.signed
            )
        elif node.op == "constant":
            self.index[node.id] = self.net.lif(name, node.type.shape, vth=-1)
        elif node.op in ("cuba_lif", "int_integrator"):
            self.index[node.id] = self.net.lif(name, node.type.shape, **self._soma(node))
        elif node.op == "sigma_delta":
            more = {"relu": node.attr("relu", False), "cumulative": node.attr("cumulative", False)}
            bias = self.graph.tensor(node, "bias")
            vth = self.graph.tensor(node, "vth")
            self.index[node.id] = self.net.sigma_delta(
                name, node.type.shape, vth=vth, bias=0 if bias is None else bias, **more
            )
        elif is_neuron(node):
            raise LoweringError(f"{node.op} '{name}' is not lowered in a network with outputs")

    def _soma(self, node: Node) -> dict[str, Any]:
        attrs: dict[str, Any] = {"du": node.attr("du", 4095), "dv": node.attr("dv"), "restart": node.attr("restart")}
        bias = self.graph.tensor(node, "bias")
        attrs |= {k: self.graph.tensor(node, k) for k in ("vth_low", "start_u", "start_v")}
        vth = self.graph.tensor(node, "vth") if node.op == "cuba_lif" else TOP_VTH
        return attrs | {"vth": vth, "bias": 0 if bias is None else bias}

    # ---- projections ----

    def _project(self, edge: Edge, dst: str) -> None:
        node, graph, name = edge.node, self.graph, self._free(label(edge.node).lstrip("%"))
        ends = (self.index[edge.use.node], self.index[dst])
        shift, weight = node.attr("shift", 0), graph.tensor(node, "weight")
        assert weight is not None
        self.lags[name] = edge.use.lag
        if node.op == "conv2d":
            geometry = {k: node.attr(k) for k in ("stride", "pad", "dilation", "groups") if node.attr(k) is not None}
            self.net.conv(name, *ends, weight.transpose(2, 3, 1, 0), **geometry)
            self.shifts[name] = (shift, edge.rshift)
            return
        indptr, target, extra = (graph.tensor(node, k) for k in ("indptr", "target", "extra"))
        if edge.rshift and extra is not None and len(np.unique(extra)) > 1:
            raise LoweringError(
                f"rshift of sparse '{name}', whose synapses have different delays, is not lowered; "
                f"write one sparse and one rshift for each delay"
            )
        more = {"delay": 0 if extra is None else extra, "graded": node.attr("graded", True)}
        self.net.sparse(name, *ends, indptr, target, weight, exponent=shift - edge.rshift, **more)

    def _free(self, name: str) -> str:
        """A name for a projection. The builder adds a suffix to some, which must not make it another's."""
        while {name, name.rpartition(".")[0]} & set(self.lags) or name in self.stems:
            name += "_"
        self.stems.add(name.rpartition(".")[0])
        return name

    def _shifted(self, program: Program) -> Program:
        """Convolutions whose sums are shifted right add into a dendrite of their own, moved on by a transfer."""
        dendrites, transfers, convs = [*program.dendrites], [*program.transfers], []
        own: dict[str, int] = {}
        for conv in program.convs:
            name = self._named(conv)
            rshift, home = self.shifts[name][1], dendrites[conv.dst]
            if rshift and name not in own:
                own[name] = len(dendrites)
                dendrites.append(replace(home, name=f"{name}.sum"))
                transfers.append(Transfer(f"{name}.shift", own[name], conv.dst, 0, "maxpool", rshift=rshift))
            convs.append(replace(conv, dst=own.get(name, conv.dst)))
        return replace(program, dendrites=tuple(dendrites), transfers=tuple(transfers), convs=tuple(convs))

    def _named(self, item: Conv | Sparse) -> str:
        """The name a projection was given; the builder adds a suffix to some."""
        return item.name if item.name in self.lags else item.name.rpartition(".")[0]

    # ---- time ----

    def _timed(self, program: Program, ticks: int) -> Program:
        """The Program with its levels, delays and rings, and with what the builder has no word for."""
        nodes = {self._population_name(i): n for i, n in self.by_id.items() if i in self.index}
        at = {self._population_name(i): self.levels[i] for i in self.index}
        populations = tuple(
            replace(p, level=at[p.name], record=record_of(nodes[p.name]), out_shift=nodes[p.name].attr("out_shift", 0))
            for p in program.populations
        )
        levels = {p.dendrite: p.level for p in populations if p.dendrite >= 0}
        levels |= {t.src: levels[t.dst] for t in program.transfers}
        items: dict[str, Any] = {
            kind: tuple(
                self._due(item, populations[item.src].level, levels[item.dst], ticks) for item in getattr(program, kind)
            )
            for kind in ("convs", "sparses")
        }
        transfers = tuple(replace(t, level=levels[t.dst]) for t in program.transfers)
        window = self.graph.timesteps * ticks
        drained = max(levels.values(), default=0) if window and not self.options.pipelined else 0
        first = next(n for n in self.graph if n.op == "input")
        items |= {"input_time": self.graph.input_time, "record_time": self.graph.record_time}
        timed = replace(
            program, populations=populations, transfers=transfers, ticks_per_step=ticks, interval=window + drained,
            input_shape=first.type.shape, target=target_facts(self.target), **items,
        )  # fmt: skip
        timed = replace(timed, dendrites=_with_rings(timed))
        validate_program(timed)
        return timed

    def _population_name(self, node_id: str) -> str:
        node = self.by_id[node_id]
        return label(self.by_id[node.inputs[0].node] if node.op == "encode" else node)

    def _due(self, item: Conv | Sparse, src: int, dst: int, ticks: int) -> Conv | Sparse:
        name = self._named(item)
        lag = self.lags[name]
        delay, most = lag * ticks + dst - src, self.target.core.delay_max.value + 1
        last = delay + (largest_extra(item) * ticks if isinstance(item, Sparse) else 0)
        if last > most:
            raise LoweringError(
                f"'{name}' arrives up to {last} ticks after it was sent ({lag} timesteps of {ticks} ticks, "
                f"{last - delay} of synapses, {dst - src} levels); {self.target.name} holds at most {most}"
            )
        if isinstance(item, Conv):
            return replace(item, lag=lag, delay=delay, shift=item.shift + self.shifts[name][0])
        return replace(item, lag=lag, delay=delay)

    # ---- what the host sees ----

    def ends(self) -> dict[str, Any]:
        """Outputs, and the inputs that the host encodes."""
        inputs = []
        for node in (n for n in self.graph if n.op == "encode"):
            numbers = {"scale": float(node.attr("scale")), "lo": node.attr("lo"), "hi": node.attr("hi")}
            inputs.append({"population": self._population_name(node.id), **numbers})
        return {"inputs": inputs, "outputs": [self._read(n) for n in self.graph.outputs]}

    def _read(self, node: Node) -> dict[str, Any]:
        """An output and its parts; ``elements``: which of the output's a part holds, None for all in order."""
        use, elements = node.inputs[0], None
        source, lag = self.by_id[use.node], use.lag
        while source.op == "reshape":
            source, lag = self.by_id[source.inputs[0].node], lag + source.inputs[0].lag
        sources = [source]
        if source.op == "gather":
            lag += sum(u.lag for u in source.inputs)
            elements, sources = self.graph.tensor(source, "index"), [self.by_id[u.node] for u in source.inputs]
        parts, at = [], 0
        for part in sources:
            if part.id not in self.edges or lag:
                raise LoweringError(
                    f"output '{label(node)}' must read a neuron of the same timestep, not '{label(part)}'"
                )
            potential, size = part.op == "int_integrator", math.prod(part.type.shape)
            parts.append(
                {
                    "population": label(part),
                    "what": "potential" if potential else "spikes",
                    "scale": float(part.attr("scale", 1.0)) if potential else 1.0,
                    "elements": None if elements is None else elements[at : at + size].tolist(),
                }
            )
            at += size
        return {"name": label(node).lstrip("%"), "shape": list(node.type.shape), "parts": parts}


def _with_rings(program: Program) -> tuple[Any, ...]:
    """Dendrites that hold as many timesteps at once as are written ahead of being read."""
    written, last, first = arrivals(program), last_reads(program), first_writes(program)
    rings = []
    for index, dendrite in enumerate(program.dendrites):
        ring = 1
        if index in written:
            span = (first[index], last[index], program.ticks_per_step, program.timesteps, program.interval)
            ring = max(ring_needed(*span), 1)
        rings.append(replace(dendrite, ring=ring))
    return tuple(rings)


def record_of(node: Node) -> Record | None:
    """How the authors lay a population out, where it says so."""
    perm = node.attr("record_perm")
    if perm is None or node.type.kind is Kind.REAL:
        return None
    return Record(tuple(perm), tuple(node.attr("record_shape")))
