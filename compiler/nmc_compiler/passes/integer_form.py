"""The integer form of each op, given the numbers that quantisation planned for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Kind, Node, Ref, Use, label
from nmc_compiler.graph.analysis import pool_name
from nmc_compiler.passes.base import derived, drop_attrs
from nmc_compiler.passes.counts import CountNeuron
from nmc_compiler.passes.lasting_tables import LastingTable

GRAIN = 64  # membrane units per synaptic unit: currents and thresholds are shifted left by 6
GEOMETRY: tuple[str, ...] = ("stride", "pad", "dilation", "groups")
SITE_GEOMETRY: tuple[str, ...] = ("kernel", "stride", "pad", "inverse")


class IntegerForm:
    """Rewrites float nodes to integer ones; ``plans`` maps node id -> what its integer form needs."""

    def __init__(
        self,
        graph: Graph,
        plans: dict[str, Any],
        tensors: dict[str, np.ndarray],
        attn_order: str,
        input_codes: tuple[float, int, int] | None,
        tables: dict[str, LastingTable],
    ) -> None:
        self.tables = tables
        self.graph, self.plans, self.tensors = graph, plans, tensors
        self.attn_order, self.input_codes = attn_order, input_codes
        self.by_id = graph.by_id()

    def rewrite(self, node: Node) -> list[Node]:
        handler = getattr(self, f"_int_{node.op}", None)
        if handler is None:
            raise LoweringError(f"{node.op} '{label(node)}' has no integer form on this target")
        return handler(node)

    def _int_input(self, node: Node) -> list[Node]:
        if self.input_codes is None:
            return [node]
        real = replace(node, id=f"{node.id}.real")
        attrs = {k: derived(v) for k, v in zip(("scale", "lo", "hi"), self.input_codes, strict=True)}
        return [real, Node(node.id, "encode", (Use(real.id),), attrs, node.type, "input")]

    def _int_conv2d(self, node: Node) -> list[Node]:
        plan = self.plans[node.id]
        attrs: dict[str, Attr] = {k: node.attrs[k] for k in GEOMETRY if k in node.attrs}
        attrs |= {"weight": derived(Ref(plan["key"])), "shift": derived(plan["shift"])}
        if "frac" in plan:
            attrs |= {"frac": derived(plan["frac"]), "bias": derived(Ref(f"{plan['key']}.bias"))}
            return [replace(node, op="host_conv2d", attrs=attrs)]
        return [replace(node, attrs=attrs)]

    def _int_sparse_conv3d(self, node: Node) -> list[Node]:
        (new,) = self._int_conv2d(node)
        kept = {k: node.attrs[k] for k in SITE_GEOMETRY if k in node.attrs}
        op = {"conv2d": "sparse_conv3d", "host_conv2d": "host_sparse_conv3d"}.get(new.op, new.op)
        return [replace(new, op=op, attrs={**new.attrs, **kept})]

    def _int_mean_sites(self, node: Node) -> list[Node]:
        return [replace(node, op="sum_sites")]

    def _int_sites(self, node: Node) -> list[Node]:
        return [node]

    _int_features = _int_down_sites = _int_sites

    def _int_cloud(self, node: Node) -> list[Node]:
        key = node.attr("table").key
        self.tensors[key] = self.graph.tensors[key]
        return [node]

    def _int_sparse(self, node: Node) -> list[Node]:
        """The same synapses; where they go is in the tensors of the float graph."""
        plan = self.plans[node.id]
        for key in ("indptr", "target", "extra"):
            if key in node.attrs:
                self.tensors.setdefault(node.attr(key).key, self.graph.tensors[node.attr(key).key])
        return [node.with_attrs(weight=derived(Ref(plan["key"])), shift=derived(plan["shift"]))]

    def _int_attn(self, node: Node) -> list[Node]:
        plan: CountNeuron = self.plans[node.id]
        attrs = {"heads": node.attrs["heads"], "order": derived(self._order(node))}
        attrs |= {"shift": derived(plan.shift), "saturate": derived(plan.saturate)} | self._lasting(node)
        return [replace(node, attrs=attrs)]

    def _lasting(self, node: Node) -> dict[str, Attr]:
        """What a table needs that lives longer than a timestep."""
        if node.id not in self.tables:
            return {}
        table, key = self.tables[node.id], f"{label(node).lstrip('%')}.keep"
        self.tensors[key] = table.keep
        kept = {k: node.attrs[k] for k in ("lifetime", "block") if k in node.attrs}
        return kept | {"keep": derived(Ref(key)), "frac": derived(table.frac)}

    def _order(self, node: Node) -> str:
        """q k^T first where the table is smaller that way: N^2 < d*d_v (architecture, section 6)."""
        if node.id in self.tables:
            return "kv"
        if self.attn_order != "auto":
            return self.attn_order
        q, v = (self.by_id[node.operands[i]].type.shape for i in (0, 2))
        heads = node.attr("heads")
        return "qk" if (v[1] * v[2]) ** 2 < (q[0] // heads) * (v[0] // heads) else "kv"

    def _int_map(self, node: Node) -> list[Node]:
        plan: CountNeuron = self.plans[node.id]
        return [node.with_attrs(shift=derived(plan.shift))]

    def _int_add(self, node: Node) -> list[Node]:
        return [node]

    _int_sum_positions = _int_add

    def _int_maxpool2d(self, node: Node) -> list[Node]:
        if node.type.kind is Kind.CURRENT:
            return [node]
        window = Node(
            f"{node.id}.in",
            "map",
            node.inputs,
            {**node.attrs, "mode": derived("window"), "shift": derived(1)},
            node.type,
        )
        return [window, self._gate(node, window.id, 1, "pool", pool_name(self.graph, node))]

    def _int_mul(self, node: Node) -> list[Node]:
        """AND: two one-to-one synapses of weight 2 against a threshold of 3."""
        out = []
        for k, operand in enumerate(node.operands):
            type_ = self.by_id[operand].type
            attrs = {"mode": derived("same"), "shift": derived(1)}
            if type_.shape[1:] == node.type.shape[1:] and type_.shape[0] != node.type.shape[0]:
                attrs |= {"mode": derived("broadcast_channels"), "channels": derived(node.type.shape[0])}
            elif type_.shape != node.type.shape:
                attrs |= {"mode": derived("broadcast"), "size": derived(node.type.shape[1:])}
            out.append(Node(f"{node.id}.in{k}", "map", (Use(operand),), attrs, node.type))
        joined = Node(f"{node.id}.sum", "add", (Use(out[0].id), Use(out[1].id)), {}, node.type)
        return [*out, joined, self._gate(node, joined.id, 3, "and", label(node).lstrip("%"))]

    def _gate(self, node: Node, source: str, vth: int, role: str, name: str) -> Node:
        key = f"{name}.vth"
        self.tensors[key] = np.full(node.type.shape[0], vth, np.int32)
        attrs = {"dv": derived(4096), "vth": derived(Ref(key)), "role": derived(role)}
        return Node(node.id, "cuba_lif", (Use(source),), attrs, node.type, name)

    def _int_lif(self, node: Node) -> list[Node]:
        plan = self.plans[node.id]
        counts = isinstance(plan, CountNeuron)
        attrs = plan.cell if isinstance(plan, CountNeuron) else plan.get("cell")
        if attrs is not None:
            return self._neuron(node, "cell", dict(attrs), {} if counts else plan)
        dv, vth = (plan.dv, plan.vth) if counts else (plan["dv"], plan["vth"])
        self.tensors[f"{label(node)}.vth"] = np.full(node.type.shape[0], vth, np.int32)
        attrs = {
            "dv": derived(dv),
            "vth": derived(Ref(f"{label(node)}.vth")),
            "role": derived(node.attr("role", "neuron")),
        }
        return self._neuron(node, "cuba_lif", attrs, {} if counts else plan)

    _int_ilif = _int_neuron = _int_lif

    def _int_multilevel(self, node: Node) -> list[Node]:
        plan = self.plans[node.id]
        counts = isinstance(plan, CountNeuron)
        if isinstance(plan, dict) and "cell" in plan:
            return self._neuron(node, "cell", dict(plan["cell"]), plan)
        table = np.array([plan.thresholds], np.int32) if counts else plan["thresholds"]
        self.tensors[f"{label(node)}.thresholds"] = table
        attrs = {"thresholds": derived(Ref(f"{label(node)}.thresholds"))}
        return self._neuron(node, "levels", attrs, {} if counts else plan)

    def _int_relay(self, node: Node) -> list[Node]:
        return self._neuron(node, "relay", {}, self.plans[node.id])

    def _int_readout(self, node: Node) -> list[Node]:
        plan = self.plans[node.id]
        scale = float(node.attr("gain", 1.0)) / (GRAIN * plan["scale"] * self.graph.timesteps)
        attrs: dict[str, Attr] = {"scale": derived(scale)}
        if "offset" in plan:
            key = f"{label(node)}.offset"
            self.tensors[key] = np.rint(plan["offset"] * float(node.attr("gain", 1.0)) / scale).astype(np.int64)
            attrs["offset"] = derived(Ref(key))
        return self._neuron(node, "int_readout", attrs, plan)

    def _neuron(self, node: Node, op: str, attrs: dict, plan: dict[str, Any]) -> list[Node]:
        for key in ("record_perm", "record_shape", "part_of"):
            if key in node.attrs:
                attrs[key] = node.attrs[key]
        if "elements" in node.attrs:
            self.tensors[f"{label(node)}.elements"] = self.graph.tensors[node.attr("elements").key]
            attrs["elements"] = derived(Ref(f"{label(node)}.elements"))
        if "bias" in plan:
            self.tensors[f"{label(node)}.bias@int"] = plan["bias"]
            attrs["bias"] = derived(Ref(f"{label(node)}.bias@int"))
        neuron = replace(drop_attrs(node, *node.attrs), op=op, attrs=attrs)
        if not plan.get("rshift"):
            return [neuron]
        shifted = Node(f"{node.id}.in", "rshift", node.inputs, {"shift": derived(plan["rshift"])}, node.type)
        return [shifted, replace(neuron, inputs=(Use(shifted.id),))]
