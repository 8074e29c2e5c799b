"""SpikeGraph: ops, values, text form, verifier, reference interpreter."""

from nmc_compiler.graph import (
    ops_attention,
    ops_cell,
    ops_dynamics,
    ops_host,
    ops_linear,
    ops_neuron,
    ops_shape,
    ops_sites,
    ops_take,
)
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
    "ops_attention",
    "ops_cell",
    "ops_dynamics",
    "ops_host",
    "ops_linear",
    "ops_neuron",
    "ops_shape",
    "ops_sites",
    "ops_take",
    "op_spec",
    "rebuild",
    "register",
]
