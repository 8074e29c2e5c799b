"""Populations of a Program from the neurons, inputs and sources of an integer graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.ops_dynamics import TOP_VTH
from nmc_compiler.lowering.cells import cell_fields
from nmc_compiler.program.model import Population, Record
from nmc_compiler.program.network import Network

SOURCES = ("input", "encode", "constant")


class Somas:
    """Checks every parameter, and every name, with the builder of networks (``program.network``)."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.by_id = graph, graph.by_id()
        self.net = Network(graph.name, graph.timesteps)

    def is_population(self, node: Node) -> bool:
        """Whether somas, or the host, send what a node is, or a read-out holds it."""
        return node.op == "encode" or (node.op == "input" and node.type.is_event) or is_neuron(node)

    def name(self, node: Node) -> str:
        """Name of a node's population; codes of an input are called as the input is."""
        if node.op == "encode" and not node.name:
            return label(self.by_id[node.inputs[0].node])
        return label(node)

    def population(self, node: Node, level: int, dendrite: int) -> Population:
        """``dendrite`` -1 for what the host sends. LoweringError for an op that no soma carries out."""
        found = self._made(node, self.name(node))
        if node.op in ("input", "encode"):
            return replace(found, level=level)
        return replace(found, level=level, dendrite=dendrite, record=record_of(node))

    def _made(self, node: Node, name: str) -> Population:
        shape, bias = node.type.shape, self.graph.tensor(node, "bias")
        if node.op in ("input", "encode"):
            return self._of(self.net.input(name, shape, payload_bits=node.type.bits, signed=node.type.signed))
        if node.op == "constant":
            return self._of(self.net.lif(name, shape, vth=-1))
        if node.op in ("cuba_lif", "int_integrator"):
            role = node.attr("role", "neuron")
            return replace(self._of(self.net.lif(name, shape, **self._dynamics(node))), role=role)
        if node.op == "sigma_delta":
            more = {"relu": node.attr("relu", False), "cumulative": node.attr("cumulative", False)}
            vth = self.graph.tensor(node, "vth")
            index = self.net.sigma_delta(name, shape, vth=vth, bias=0 if bias is None else bias, **more)
            return replace(self._of(index), out_shift=node.attr("out_shift", 0))
        common: dict[str, Any] = {"name": name, "shape": shape, "level": 0, "dendrite": -1, "bias": bias}
        if node.op == "cell":
            return Population(**common, role=node.attr("role", "neuron"), **cell_fields(self.graph, node))
        if node.op == "levels":
            table = self.graph.tensor(node, "thresholds")
            return Population(**common, model="levels", role="neuron", thresholds=table, payload_bits=node.type.bits)
        if node.op == "relay":
            return Population(**common, model="relay", role="relay", payload_bits=24, signed=True)
        if node.op == "int_readout":
            offset, scale = self.graph.tensor(node, "offset"), float(node.attr("scale"))
            return Population(**common, model="readout", role="readout", dv=0, readout_scale=scale, offset=offset)
        raise LoweringError(f"{node.op} '{name}' is not lowered: no soma of a Program carries it out")

    def _of(self, index: int) -> Population:
        return self.net.populations[index]

    def _dynamics(self, node: Node) -> dict[str, Any]:
        attrs: dict[str, Any] = {"du": node.attr("du", 4095), "dv": node.attr("dv"), "restart": node.attr("restart")}
        bias = self.graph.tensor(node, "bias")
        attrs |= {k: self.graph.tensor(node, k) for k in ("vth_low", "start_u", "start_v")}
        vth = self.graph.tensor(node, "vth") if node.op == "cuba_lif" else TOP_VTH
        return attrs | {"vth": vth, "bias": 0 if bias is None else bias}


def relay_of(source: Population, name: str, level: int, dendrite: int) -> Population:
    """A population that sends what ``source`` sent: code n where n arrives; level k starts at k synaptic units."""
    common: dict[str, Any] = {"name": name, "shape": source.shape, "level": level, "dendrite": dendrite}
    if source.signed:
        raise LoweringError(
            f"'{source.name}' sends signed codes over more than {level - source.level} ticks; not lowered"
        )
    if source.payload_bits:
        steps = np.arange(1, 1 << source.payload_bits, dtype=np.int32)[None, :] << 6
        return Population(**common, role="relay", model="levels", thresholds=steps, payload_bits=source.payload_bits)
    return Population(**common, role="relay", model="lif", vth=np.ones(source.shape[0], np.int32))


def record_of(node: Node) -> Record | None:
    """How the authors lay a population out, where it says so."""
    perm = node.attr("record_perm")
    if perm is None or node.type.kind is Kind.REAL:
        return None
    return Record(tuple(perm), tuple(node.attr("record_shape")))
