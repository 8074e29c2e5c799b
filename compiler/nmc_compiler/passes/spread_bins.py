"""The most parameter sets that channel bins can make of an integer graph whose weights are stand-ins."""

from __future__ import annotations

import numpy as np

from nmc_compiler.graph import Graph, Node, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.passes.base import stored
from nmc_compiler.passes.scales import PROJECTIONS, joined_currents

TABLES = {"cuba_lif": "vth", "levels": "thresholds", "cell": "thresholds"}


def spread_bins(graph: Graph, bins: int) -> Graph:
    """Every neuron whose channels `Quantize` may put into bins has ``bins`` sets of thresholds, channel after channel.

    Neurons that read the same sum with equal thresholds share them, as they do where weights are trained. What trained
    weights give lies between this and the graph as it is, whose channels share one set.
    """
    numbers: dict[tuple[str, bytes], int] = {}
    class_of, tensors, nodes = _binned(graph), dict(graph.tensors), []
    for node in graph:
        key = TABLES.get(node.op, "")
        table = graph.tensor(node, key) if key in node.attrs and node.id in class_of else None
        if table is None:
            nodes.append(node)
            continue
        number = numbers.setdefault((class_of[node.id], np.unique(table).tobytes()), len(numbers))
        steps = 1 + number * bins + np.arange(node.type.shape[0]) % bins
        raised = np.broadcast_to(table, (len(steps), *table.shape[1:])) + _along(steps, table)
        nodes.append(node.with_attrs(**{key: stored(tensors, f"{node.id}.spread", raised)}))
    return rebuild(graph, nodes, tensors)


def _along(steps: np.ndarray, table: np.ndarray) -> np.ndarray:
    return steps.astype(table.dtype).reshape(-1, *[1] * (table.ndim - 1))


def _binned(graph: Graph) -> dict[str, str]:
    """Class of every neuron that reads convolutions of events, in classes that nothing else but such neurons reads."""
    root, by_id = joined_currents(graph), graph.by_id()
    readers: dict[str, list[Node]] = {}
    weighted: set[str] = set()
    barred: set[str] = set()
    for node in graph:
        if is_neuron(node) and node.operands:
            source = by_id[node.operands[0]]
            source = by_id[source.operands[0]] if source.op == "rshift" else source
            readers.setdefault(root(source.id), []).append(node)
        elif node.op in PROJECTIONS and by_id[node.operands[0]].type.is_event:
            (barred if node.op == "sparse" else weighted).add(root(node.id))
    barred |= {c for c, nodes in readers.items() if any(n.op in ("int_readout", "relay") for n in nodes)}
    return {n.id: c for c, nodes in readers.items() if c in weighted - barred for n in nodes}
