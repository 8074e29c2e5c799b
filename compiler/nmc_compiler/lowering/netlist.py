"""The netlist half of a Program: populations, dendrites, projections and transfers, with levels, lags and delays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.lowering.dendrites import Group, group_dendrites, transfer_id
from nmc_compiler.lowering.ends import ends_of
from nmc_compiler.lowering.leaves import Leaf, Leaves
from nmc_compiler.lowering.sites import SiteIndex
from nmc_compiler.lowering.somas import Somas, relay_of
from nmc_compiler.options import CompileOptions
from nmc_compiler.program.arguments import stored_weights, weight_bytes
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import (
    Conv,
    Dendrite,
    Dynamic,
    HostCodes,
    HostCurrent,
    Lasting,
    Map,
    Population,
    Program,
    Sparse,
    Transfer,
)
from nmc_compiler.program.synapses import extra_delays, narrow
from nmc_compiler.program.timing import arrivals, first_writes, last_reads, ring_needed
from nmc_compiler.target import Target

GEOMETRY = ("stride", "pad", "dilation", "groups")


class Netlist:
    """Collects the parts of a Program; indices are handed out in graph order.

    With ``residual`` "stream" readers of overlapping sums share dendrites. LoweringError where the graph asks for what
    a Program or the target has not.
    """

    def __init__(self, graph: Graph, target: Target, options: CompileOptions) -> None:
        self.graph, self.target, self.options = graph, target, options
        self.by_id, self.somas, self.sites = graph.by_id(), Somas(graph), SiteIndex(graph)
        self.leaves = Leaves(graph, keep_linear=options.residual == "duplicate")
        self.populations: list[Population] = []
        self.dendrites: list[Dendrite] = []
        kinds = ("convs", "sparses", "maps", "dynamics", "transfers", "hosts", "codes")
        self.parts: dict[str, list[Any]] = {k: [] for k in kinds}
        self.index: dict[str, int] = {}  # population node id -> index
        self.relays: dict[tuple[int, int], int] = {}
        self.weights: dict[str, np.ndarray] = {}
        self.names: set[str] = set()
        self.named: dict[str, int] = {}  # dendrites
        self.ticks = 1

    def program(self) -> Program:
        """``mapping`` is left None, as ``meta`` but for what the host reads."""
        neurons = [n for n in self.graph if is_neuron(n) and n.operands]
        pairs = [(n.id, n.operands[0]) for n in neurons]
        groups = group_dendrites(self.leaves, pairs, self.options.residual == "stream")
        self.ticks = self.leaves.ticks_per_step(
            (leaf, g.arrivals[key]) for g in groups for key, leaf in g.leaves.items()
        )
        dendrite_of = {r.id: i for i, g in enumerate(groups) for r in g.readers}
        self.dendrites = [self._dendrite(g) for g in groups]
        for node in self.graph:
            if self.somas.is_population(node):
                self._add_population(node, dendrite_of.get(node.id, -1))
        for i, group in enumerate(groups):
            self._add_leaves(i, group, dendrite_of)
        self._order_transfers()
        self._number_clusters()
        return self._with_rings(self._made())

    def _made(self) -> Program:
        source = next(n for n in self.graph if n.op == "input")
        return Program(
            name=self.graph.name,
            timesteps=self.graph.timesteps,
            ticks_per_step=self.ticks,
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
            meta=ends_of(self.graph, self.somas),
            sparses=tuple(self.parts["sparses"]),
            sites=self.sites.tables(),
        )

    def _interval(self) -> int:
        window = self.graph.timesteps * self.ticks
        drained = window and not self.options.pipelined
        return window + max((p.level for p in self.populations), default=0) if drained else window

    def _with_rings(self, program: Program) -> Program:
        """Dendrites that hold as many timesteps at once as are written ahead of being read."""
        written, last, first = arrivals(program), last_reads(program), first_writes(program)
        rings = []
        for index, dendrite in enumerate(program.dendrites):
            span = (first[index], last[index]) if index in written else (0, -1)
            ring = ring_needed(*span, program.ticks_per_step, program.timesteps, program.interval)
            rings.append(replace(dendrite, ring=max(ring, 1)))
        return replace(program, dendrites=tuple(rings))

    # ---- populations ----

    def _add_population(self, node: Node, dendrite: int) -> None:
        if dendrite < 0 and is_neuron(node):  # a source of constants hears nothing
            dendrite = len(self.dendrites)
            self.dendrites.append(Dendrite(label(node), node.type.shape, cluster=0))
        self.index[node.id] = len(self.populations)
        made = self.somas.population(node, self.leaves.levels[node.id], dendrite)
        self.populations.append(
            replace(made, sites=self.sites.home(node)) if node.operands and is_neuron(node) else made
        )
        if node.op == "encode" and not self.graph.outputs:
            codes = HostCodes(self.index[node.id], float(node.attr("scale")), node.attr("lo"), node.attr("hi"))
            self.parts["codes"].append(codes)

    # ---- dendrites and what adds to them ----

    def _dendrite(self, group: Group) -> Dendrite:
        first = group.readers[0]
        name = label(self.by_id[first.id]) if first.id in self.by_id else first.id.lstrip("<").replace("<", ".")
        if self.graph.outputs and first.id not in self.by_id:
            name = f"{label(self.by_id[first.node_id]).lstrip('%')}.sum"
        self.named[name] = self.named.get(name, 0) + 1  # readers of their own sum one thing more than once
        name += f".{self.named[name]}" if self.named[name] > 1 else ""
        return Dendrite(name, self.by_id[first.node_id].type.shape, cluster=0)

    def _add_leaves(self, dst: int, group: Group, dendrite_of: dict[str, int]) -> None:
        for key, leaf in group.leaves.items():
            arrives = group.arrivals[key]
            if leaf.kind == "transfer":
                self._add_transfer(dst, leaf, arrives, group, dendrite_of)
            elif leaf.kind == "conv":
                self._add_conv(dst, leaf, arrives)
            elif leaf.kind == "sparse":
                self._add_sparse(dst, leaf.node, arrives)
            elif leaf.kind == "map":
                self._add_map(dst, leaf.node, arrives)
            elif leaf.kind == "attn":
                self._add_dynamic(dst, leaf.node, arrives)
            else:
                self._add_host(dst, leaf.node, arrives)

    def _add_conv(self, dst: int, leaf: Leaf, arrives: int) -> None:
        node = leaf.node
        key, name = node.attr("weight").key, self._free(label(node))
        src, time = self._timed(node, arrives, name)
        form = {k: node.attr(k) for k in GEOMETRY if node.attr(k) is not None}
        if node.op == "sparse_conv3d":
            form = {"sites": self.sites.window(node)}
        for suffix, values, shift in weight_bytes(f"convolution '{name}'", self._by_position(key)):
            self.parts["convs"].append(
                Conv(
                    name=name + suffix,
                    src=src,
                    dst=dst,
                    weight=values,
                    shift=node.attr("shift", 0) + shift,
                    collapse=leaf.collapse,
                    out_hw=node.type.shape[1:],
                    weight_key=key + suffix,
                    **form,
                    **time,
                )
            )

    def _by_position(self, key: str) -> np.ndarray:
        """Weights as a Program holds them, [kh, kw, in, out]; one array for every convolution that has them."""
        if key not in self.weights:
            self.weights[key] = self.graph.tensors[key].transpose(2, 3, 1, 0).copy()
        return self.weights[key]

    def _add_sparse(self, dst: int, node: Node, arrives: int) -> None:
        name = self._free(label(node))
        src, time = self._timed(node, arrives, name)
        indptr, target, weight, extra = (self.graph.tensor(node, k) for k in ("indptr", "target", "weight", "extra"))
        assert indptr is not None and target is not None and weight is not None
        where = f"synapses '{name}'"
        stored = stored_weights(where, weight, self.leaves.exponents.get(node.id, node.attr("shift", 0)))
        late = None if extra is None else extra_delays(where, extra, target.shape)
        self._check_late(name, time["delay"], 0 if late is None or not late.size else int(late.max()))
        graded = self.populations[src].payload_bits > 0 and node.attr("graded", True)
        rows, ends = narrow(indptr, np.int64), narrow(target, np.int32)
        self.parts["sparses"].append(
            Sparse(name, src, dst, time["delay"], rows, ends, stored.values, stored.shift, late, graded, time["lag"])
        )

    def _add_map(self, dst: int, node: Node, arrives: int) -> None:
        name = self._free(label(node))
        src, time = self._timed(node, arrives, name)
        form = {k: node.attr(k) for k in ("kernel", "stride", "pad") if node.attr(k) is not None}
        delay, lag = time["delay"], time["lag"]
        self.parts["maps"].append(
            Map(name, src, dst, delay, node.attr("shift", 0), mode=node.attr("mode"), lag=lag, **form)
        )

    def _add_dynamic(self, dst: int, node: Node, arrives: int) -> None:
        q, k, v = (self.index[i] for i in node.operands)
        order = node.attr("order", "kv")
        at = {"q": arrives - (order == "qk"), "k": arrives - 1, "v": arrives - (order == "kv")}
        (q, dq), (k, dk), (v, dv) = (self._reach(p, at[r]) for p, r in ((q, "q"), (k, "k"), (v, "v")))
        heads, shift, saturate = node.attr("heads"), node.attr("shift", 0), node.attr("saturate")
        self.parts["dynamics"].append(
            Dynamic(
                label(node).lstrip("%"), q, k, v, dst, dq, dk, dv, heads, shift, saturate, order, self._lasting(node)
            )
        )

    def _lasting(self, node: Node) -> Lasting | None:
        keep = self.graph.tensor(node, "keep")
        return None if keep is None else Lasting(keep, node.attr("frac", 0), node.attr("block", 0))

    def _add_host(self, dst: int, node: Node, arrives: int) -> None:
        form = {k: node.attr(k, (1, 1)) for k in ("stride", "dilation")} | {"pad": node.attr("pad", (0, 0))}
        source = self.by_id[node.operands[0]]
        if node.op == "host_sparse_conv3d":
            source = next(n for n in self.graph if n.op == "input")
            form = {"stride": (1, 1), "pad": (0, 0), "sites": self.sites.window(node)}
        self.parts["hosts"].append(
            HostCurrent(
                name=label(node),
                dst=dst,
                level=arrives,
                weight=self.graph.tensors[node.attr("weight").key],
                bias=self.graph.tensors[node.attr("bias").key],
                frac=node.attr("frac"),
                shift=node.attr("shift"),
                in_shape=source.type.shape,
                groups=node.attr("groups", 1),
                **form,
            )
        )

    def _add_transfer(self, dst: int, leaf: Leaf, arrives: int, group: Group, dendrite_of: dict[str, int]) -> None:
        owner = transfer_id(group.readers[0], leaf)
        form, name = {}, owner.lstrip("<")
        if self.graph.outputs:
            name = f"{label(self.by_id[leaf.reads]).lstrip('%')}.{'shift' if leaf.node.op == 'rshift' else 'moved'}"
        if leaf.node.op == "maxpool2d":
            form = {k: leaf.node.attr(k) for k in ("kernel", "stride", "pad") if leaf.node.attr(k) is not None}
        self.parts["transfers"].append(
            Transfer(name, dendrite_of[owner], dst, arrives, leaf.mode, rshift=leaf.rshift, **form)  # type: ignore[arg-type]
        )

    def _free(self, name: str) -> str:
        """A name for a projection that no other has, with or without what is added to it."""
        if not self.graph.outputs:
            return name
        name = name.lstrip("%")
        while {name, name.rpartition(".")[0]} & self.names:
            name += "_"
        self.names.add(name)
        return name

    # ---- delays ----

    def _timed(self, node: Node, arrives: int, name: str) -> tuple[int, dict[str, Any]]:
        """The source of a projection, its delay in ticks and its lag in timesteps."""
        use = node.inputs[0]
        src = self.index[use.node]
        if not use.lag:
            src, delay = self._reach(src, arrives)
            return src, {"delay": delay, "lag": 0}
        delay = use.lag * self.ticks + arrives - self.populations[src].level
        self._check_late(name, delay, 0, use.lag)
        return src, {"delay": delay, "lag": use.lag}

    def _check_late(self, name: str, delay: int, extra: int, lag: int = 0) -> None:
        most, last, levels = self._most, delay + extra * self.ticks, delay - lag * self.ticks
        if last > most:
            raise LoweringError(
                f"'{name}' arrives up to {last} ticks after it was sent ({lag} timesteps of {self.ticks} ticks, "
                f"{last - delay} of synapses, {levels} levels); {self.target.name} holds at most {most}"
            )

    @property
    def _most(self) -> int:
        """Ticks that an event may be under way."""
        return self.target.core.delay_max.value + 1

    def _reach(self, src: int, arrives: int) -> tuple[int, int]:
        """Source and delay for events of ``src`` to arrive at a level; relays stand in where it is too far."""
        delay = arrives - self.populations[src].level
        if delay <= self._most:
            return src, delay
        return self._reach(self._relay(src, self.populations[src].level + self._most), arrives)

    def _relay(self, src: int, level: int) -> int:
        if (src, level) in self.relays:
            return self.relays[src, level]
        source, dendrite = self.populations[src], len(self.dendrites)
        name = f"{source.name}.relay{level}"
        self.dendrites.append(Dendrite(name, source.shape, 0))
        self.relays[src, level] = len(self.populations)
        relay = relay_of(source, name, level, dendrite)
        shift = 0 if source.payload_bits else 1
        self.parts["maps"].append(Map(name, src, dendrite, level - source.level, shift))
        self.populations.append(relay)
        return self.relays[src, level]

    # ---- order and clusters ----

    def _order_transfers(self) -> None:
        """Within a level a transfer runs after those that write what it reads."""
        transfers = self.parts["transfers"]
        order: nx.DiGraph = nx.DiGraph()
        order.add_nodes_from(range(len(transfers)))
        for i, a in enumerate(transfers):
            order.add_edges_from((i, j) for j, b in enumerate(transfers) if a.dst == b.src)
        self.parts["transfers"] = [transfers[i] for i in nx.lexicographical_topological_sort(order)]

    def _number_clusters(self) -> None:
        links: nx.Graph = nx.Graph()
        links.add_nodes_from(range(len(self.dendrites)))
        links.add_edges_from((t.src, t.dst) for t in self.parts["transfers"])
        for number, members in enumerate(sorted(nx.connected_components(links), key=min)):
            for i in members:
                self.dendrites[i] = replace(self.dendrites[i], cluster=number)
