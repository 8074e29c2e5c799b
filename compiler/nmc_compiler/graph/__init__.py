"""SpikeGraph: ops, values, text form, verifier, reference interpreter."""

from nmc_compiler.graph import ops_linear, ops_neuron
from nmc_compiler.graph.graph import Graph, GraphBuilder, Node, Use, label, rebuild
from nmc_compiler.graph.registry import OpSpec, known_ops, op_spec, register
from nmc_compiler.graph.types import Attr, Kind, Ref, ValueType

__all__ = [
    "Attr",
    "Graph",
    "GraphBuilder",
    "Kind",
    "Node",
    "OpSpec",
    "Ref",
    "Use",
    "ValueType",
    "known_ops",
    "label",
    "ops_linear",
    "ops_neuron",
    "op_spec",
    "rebuild",
    "register",
]
