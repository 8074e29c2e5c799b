"""Graph algorithms outside hot paths, on networkx."""

from __future__ import annotations

import networkx as nx

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph.graph import Graph, Node, label
from nmc_compiler.graph.registry import op_spec

CONVOLUTIONS = ("conv2d", "sparse_conv3d")  # weights [out, in, taps...] that positions share


def dataflow(graph: Graph) -> nx.MultiDiGraph:
    """Nodes by id; every edge carries its ``lag``."""
    g: nx.MultiDiGraph = nx.MultiDiGraph()
    g.add_nodes_from(n.id for n in graph)
    for n in graph:
        for use in n.inputs:
            g.add_edge(use.node, n.id, lag=use.lag)
    return g


def check_acyclic(graph: Graph) -> None:
    """Refuse a cycle without lag, naming its nodes."""
    unlagged: nx.DiGraph = nx.DiGraph()
    unlagged.add_edges_from((use.node, n.id) for n in graph for use in n.inputs if not use.lag)
    try:
        cycle = nx.find_cycle(unlagged)
    except nx.NetworkXNoCycle:
        return
    path = " -> ".join(f"%{a}" for a, _ in cycle)
    raise LoweringError(
        f"graph '{graph.name}': cycle without a lag: {path} -> %{cycle[0][0]}; give one edge a lag >= 1"
    )


def reachable_from_output(graph: Graph) -> set[str]:
    """Ids of nodes that a read-out or an output depends on."""
    g = dataflow(graph)
    outs = [n.id for n in graph if n.op in ("readout", "int_readout", "output")]
    return set(outs).union(*(nx.ancestors(g, o) for o in outs))


def is_neuron(node: Node) -> bool:
    return op_spec(node.op).neuron


def populations(graph: Graph) -> list[Node]:
    """Neurons that emit events, in graph order."""
    return [n for n in graph if is_neuron(n) and n.type.is_event]


def pool_name(graph: Graph, pool: Node) -> str:
    """Population that a max-pool of events becomes: after what is pooled; a second pool of it is told by its node."""
    if pool.name:
        return pool.name
    first = next(n for n in graph if n.op == "maxpool2d" and not n.name and n.operands == pool.operands)
    source = label(graph.node(pool.operands[0])).lstrip("%")
    return f"{source}.pool" + ("" if first.id == pool.id else f".{pool.id}")
