"""Lower an integer, event-driven SpikeGraph to the netlist of a Program."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import check_acyclic, is_neuron
from nmc_compiler.lowering.dendrites import Group, group_dendrites, transfer_id
from nmc_compiler.lowering.features import check_features
from nmc_compiler.lowering.leaves import Leaf, Leaves
from nmc_compiler.lowering.lower_general import lower_general, record_of
from nmc_compiler.options import CompileOptions
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import (
    Conv,
    Dendrite,
    Dynamic,
    HostCodes,
    HostCurrent,
    Map,
    Population,
    Program,
    Transfer,
)
from nmc_compiler.program.timing import ring_needed
from nmc_compiler.target import Target

DUPLICATION_PRICE = 4.0  # most synaptic work, against shared streams, that "auto" pays for documented features
TICKS_PER_STEP = 1  # P: larger only where a lagged cycle forces it; none is lowered yet


def lower(graph: Graph, target: Target, options: CompileOptions) -> Program:
    """Populations, dendrites and projections with levels and delays; ``mapping`` is left None.

    Raises LoweringError where the graph asks for what the target has not.
    """
    check_acyclic(graph)
    if graph.numbers != "int":
        raise LoweringError(f"graph '{graph.name}' is not an integer graph; run the passes first")
    if graph.outputs:
        return lower_general(graph, target, options)
    if options.residual != "auto":
        return _lower(graph, target, options)
    plain = _attempt(graph, target, replace(options, residual="duplicate"))
    shared = _attempt(graph, target, replace(options, residual="stream"))
    if isinstance(shared, LoweringError):
        if isinstance(plain, LoweringError):
            raise plain  # the error of sharing may only say: duplicate
        return plain
    if isinstance(plain, LoweringError) or not _rests_on_documents(plain) or _rests_on_documents(shared):
        return shared
    price = synaptic_work(plain) / synaptic_work(shared)
    if price > DUPLICATION_PRICE:
        return shared
    note = (
        f"residual streams are duplicated: so the network needs only what {target.name} is documented to do, at "
        f"{price:.2f} times the synaptic work of shared accumulators (--residual stream)"
    )
    return replace(plain, meta={**plain.meta, "notes": [note]})


def _attempt(graph: Graph, target: Target, options: CompileOptions) -> Program | LoweringError:
    try:
        return _lower(graph, target, options)
    except LoweringError as error:
        return error


def _rests_on_documents(program: Program) -> bool:
    return all(f["evidence"] != "assumed" for f in program.meta["features"])


def synaptic_work(program: Program) -> int:
    """Weights times source positions over all convolutions: SynOps of one timestep with every input active."""
    work = 0
    for conv in program.convs:
        _, h, w = program.populations[conv.src].shape
        work += conv.weight.size * h * w
    return work


def _lower(graph: Graph, target: Target, options: CompileOptions) -> Program:
    netlist = _Netlist(graph, target, options)
    program = netlist.program()
    features = check_features(program, target)
    return replace(program, meta={"features": features, "options": options.as_json(), "graph": graph.name})


class _Netlist:
    """Collects the parts of the Program; indices are handed out in graph order."""

    def __init__(self, graph: Graph, target: Target, options: CompileOptions) -> None:
        self.graph, self.target, self.options = graph, target, options
        self.by_id = graph.by_id()
        self.leaves = Leaves(graph, keep_linear=options.residual == "duplicate")
        self.populations: list[Population] = []
        self.dendrites: list[Dendrite] = []
        self.parts: dict[str, list[Any]] = {k: [] for k in ("convs", "maps", "dynamics", "transfers", "hosts", "codes")}
        self.index: dict[str, int] = {}  # population node id -> index
        self.relays: dict[tuple[int, int], int] = {}
        self.weights: dict[str, np.ndarray] = {}

    def program(self) -> Program:
        neurons = [n for n in self.graph if is_neuron(n)]
        pairs = [(n.id, n.operands[0]) for n in neurons]
        groups = group_dendrites(self.leaves, pairs, self.options.residual == "stream")
        dendrite_of = {r.id: i for i, g in enumerate(groups) for r in g.readers}
        for node in self.graph:
            if node.op == "encode":
                self._add_input(node)
            elif is_neuron(node):
                self.index[node.id] = len(self.populations)
                self.populations.append(self._population(node, dendrite_of[node.id]))
        self.dendrites = [self._dendrite(g) for g in groups]
        for i, group in enumerate(groups):
            self._add_leaves(i, group, dendrite_of)
        self._order_transfers()
        self._number_clusters()
        source = next(n for n in self.graph if n.op == "input")
        return Program(
            name=self.graph.name,
            timesteps=self.graph.timesteps,
            ticks_per_step=TICKS_PER_STEP,
            input_shape=source.type.shape,
            input_time=self.graph.input_time,
            populations=tuple(self.populations),
            dendrites=tuple(self.dendrites),
            convs=tuple(self.parts["convs"]),
            maps=tuple(self.parts["maps"]),
            dynamics=tuple(self.parts["dynamics"]),
            transfers=tuple(self.parts["transfers"]),
            host_currents=tuple(self.parts["hosts"]),
            host_codes=tuple(self.parts["codes"]),
            mapping=None,
            target=target_facts(self.target),
            interval=self._interval(),
            record_time=self.graph.record_time,
        )

    def _interval(self) -> int:
        window = self.graph.timesteps * TICKS_PER_STEP
        return window if self.options.pipelined else window + max(self.leaves.levels.values())

    # ---- populations ----

    def _add_input(self, node: Node) -> None:
        self.index[node.id] = len(self.populations)
        self.populations.append(
            Population(
                node.name or "input",
                node.type.shape,
                0,
                "input",
                "input",
                -1,
                payload_bits=node.type.bits,
                signed=node.type.signed,
            )  # fmt: skip
        )
        codes = HostCodes(self.index[node.id], float(node.attr("scale")), node.attr("lo"), node.attr("hi"))
        self.parts["codes"].append(codes)

    def _population(self, node: Node, dendrite: int) -> Population:
        common: dict[str, Any] = {
            "name": label(node), "shape": node.type.shape, "level": self.leaves.levels[node.id], "dendrite": dendrite,
            "bias": self.graph.tensor(node, "bias"), "record": record_of(node),
        }  # fmt: skip
        if node.op == "cuba_lif":
            role = node.attr("role", "neuron")
            return Population(**common, model="lif", role=role, dv=node.attr("dv"), vth=self.graph.tensor(node, "vth"))
        if node.op == "levels":
            table = self.graph.tensor(node, "thresholds")
            return Population(**common, model="levels", role="neuron", thresholds=table, payload_bits=node.type.bits)
        if node.op == "relay":
            return Population(**common, model="relay", role="relay", payload_bits=24, signed=True)
        return Population(**common, model="readout", role="readout", dv=0, readout_scale=float(node.attr("scale")))

    # ---- dendrites and what adds to them ----

    def _dendrite(self, group: Group) -> Dendrite:
        first = group.readers[0]
        last = max(r.level for r in group.readers)
        first_write = min(group.arrivals.values())
        ring = ring_needed(first_write, last, TICKS_PER_STEP, self.graph.timesteps, self._interval())
        name = label(self.by_id[first.id]) if first.id in self.by_id else first.id.lstrip("<").replace("<", ".")
        return Dendrite(name, self.by_id[first.node_id].type.shape, cluster=0, ring=ring)

    def _add_leaves(self, dst: int, group: Group, dendrite_of: dict[str, int]) -> None:
        for key, leaf in group.leaves.items():
            arrives = group.arrivals[key]
            if leaf.kind == "conv":
                self._add_conv(dst, leaf, arrives)
            elif leaf.kind == "map":
                self._add_map(dst, leaf.node, arrives)
            elif leaf.kind == "attn":
                self._add_dynamic(dst, leaf.node, arrives)
            elif leaf.kind == "host":
                self._add_host(dst, leaf.node, arrives)
            else:
                self._add_transfer(dst, leaf, arrives, group, dendrite_of)

    def _add_conv(self, dst: int, leaf: Leaf, arrives: int) -> None:
        node = leaf.node
        src, delay = self._reach(self.index[node.operands[0]], arrives)
        key = node.attr("weight").key
        if key not in self.weights:
            self.weights[key] = np.ascontiguousarray(self.graph.tensors[key].transpose(2, 3, 1, 0))
        self.parts["convs"].append(
            Conv(
                name=label(node),
                src=src,
                dst=dst,
                delay=delay,
                weight=self.weights[key],
                shift=node.attr("shift", 0),
                stride=node.attr("stride", (1, 1)),
                pad=node.attr("pad", (0, 0)),
                dilation=node.attr("dilation", (1, 1)),
                groups=node.attr("groups", 1),
                collapse=leaf.collapse,
                out_hw=node.type.shape[1:],
                weight_key=key,
            )  # fmt: skip
        )

    def _add_map(self, dst: int, node: Node, arrives: int) -> None:
        src, delay = self._reach(self.index[node.operands[0]], arrives)
        geometry = {k: node.attr(k) for k in ("kernel", "stride", "pad") if node.attr(k) is not None}
        self.parts["maps"].append(
            Map(label(node), src, dst, delay, node.attr("shift", 0), mode=node.attr("mode"), **geometry)
        )

    def _add_dynamic(self, dst: int, node: Node, arrives: int) -> None:
        q, k, v = (self.index[i] for i in node.operands)
        order = node.attr("order", "kv")
        at = {"q": arrives - (order == "qk"), "k": arrives - 1, "v": arrives - (order == "kv")}
        (q, dq), (k, dk), (v, dv) = (self._reach(p, at[r]) for p, r in ((q, "q"), (k, "k"), (v, "v")))
        self.parts["dynamics"].append(
            Dynamic(
                label(node).lstrip("%"),
                q,
                k,
                v,
                dst,
                dq,
                dk,
                dv,
                node.attr("heads"),
                node.attr("shift", 0),
                node.attr("saturate"),
                order,
            )  # fmt: skip
        )

    def _add_host(self, dst: int, node: Node, arrives: int) -> None:
        self.parts["hosts"].append(
            HostCurrent(
                name=label(node),
                dst=dst,
                level=arrives,
                weight=self.graph.tensors[node.attr("weight").key],
                bias=self.graph.tensors[node.attr("bias").key],
                frac=node.attr("frac"),
                shift=node.attr("shift"),
                in_shape=self.by_id[node.operands[0]].type.shape,
                stride=node.attr("stride", (1, 1)),
                pad=node.attr("pad", (0, 0)),
                dilation=node.attr("dilation", (1, 1)),
                groups=node.attr("groups", 1),
            )  # fmt: skip
        )

    def _add_transfer(self, dst: int, leaf: Leaf, arrives: int, group: Group, dendrite_of: dict[str, int]) -> None:
        owner = transfer_id(group.readers[0], leaf)
        geometry = {}
        if leaf.node.op == "maxpool2d":
            geometry = {k: leaf.node.attr(k) for k in ("kernel", "stride", "pad") if leaf.node.attr(k) is not None}
        self.parts["transfers"].append(
            Transfer(owner.lstrip("<"), dendrite_of[owner], dst, arrives, leaf.mode, rshift=leaf.rshift, **geometry)  # type: ignore[arg-type]
        )

    # ---- delays ----

    def _reach(self, src: int, arrives: int) -> tuple[int, int]:
        """Source and delay for events of ``src`` to arrive at a level; relays stand in where it is too far."""
        most = self.target.core.delay_max.value + 1
        delay = arrives - self.populations[src].level
        if delay <= most:
            return src, delay
        return self._reach(self._relay(src, self.populations[src].level + most), arrives)

    def _relay(self, src: int, level: int) -> int:
        if (src, level) in self.relays:
            return self.relays[src, level]
        source = self.populations[src]
        dendrite = len(self.dendrites)
        name = f"{source.name}.relay{level}"
        self.dendrites.append(Dendrite(name, source.shape, 0))
        self.relays[src, level] = len(self.populations)
        graded = source.payload_bits > 0
        if source.signed:
            raise LoweringError(
                f"'{source.name}' sends signed codes over more than {level - source.level} ticks; not lowered"
            )
        self.parts["maps"].append(Map(name, src, dendrite, level - source.level, 0 if graded else 1))
        common: dict[str, Any] = {
            "name": name,
            "shape": source.shape,
            "level": level,
            "role": "relay",
            "dendrite": dendrite,
        }
        if graded:  # code n where n arrives: level k starts at k synaptic units
            steps = np.arange(1, 1 << source.payload_bits, dtype=np.int32)[None, :] << 6
            relay = Population(**common, model="levels", thresholds=steps, payload_bits=source.payload_bits)
        else:
            relay = Population(**common, model="lif", vth=np.ones(source.shape[0], np.int32))
        self.populations.append(relay)
        return self.relays[src, level]

    # ---- order and clusters ----

    def _order_transfers(self) -> None:
        """Within a level a transfer runs after those that write what it reads."""
        order: nx.DiGraph = nx.DiGraph()
        order.add_nodes_from(range(len(self.parts["transfers"])))
        for i, a in enumerate(self.parts["transfers"]):
            order.add_edges_from((i, j) for j, b in enumerate(self.parts["transfers"]) if a.dst == b.src)
        ranked = {i: r for r, i in enumerate(nx.lexicographical_topological_sort(order))}
        self.parts["transfers"] = [self.parts["transfers"][i] for i in sorted(ranked, key=lambda i: ranked[i])]

    def _number_clusters(self) -> None:
        links: nx.Graph = nx.Graph()
        links.add_nodes_from(range(len(self.dendrites)))
        links.add_edges_from((t.src, t.dst) for t in self.parts["transfers"])
        for number, members in enumerate(sorted(nx.connected_components(links), key=min)):
            for i in members:
                self.dendrites[i] = replace(self.dendrites[i], cluster=number)
