"""The host's nodes back between the integers of the chip's part: the graph that the interpreter runs, and whose host
nodes whoever drives the mapped Program computes (docs/host.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.graph import Graph, Node, Use, label, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.types import Kind, Ref, ValueType
from nmc_compiler.graph.verify import verify
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.gates import event_norm
from nmc_compiler.passes.host_partition import UNREAD, Parted, ordered


def joined(parted: Parted, chip: Graph, outputs: list[dict[str, Any]]) -> Graph:
    """The integer graph of the chip with the host's nodes between: what ``interpret`` runs.

    ``outputs``: of the chip's graph, as ``lowering.ends`` has them.  LoweringError where a name is taken twice.
    """
    whole, tensors = parted.whole, dict(chip.tensors)
    mine, by_name = whole.by_id(), {o["name"]: o for o in outputs}
    raw = {n.id: n.operands[0] for n in chip if n.op == "encode"}  # which keeps the input's id
    own = {n.id: raw.get(n.id, n.id) for n in whole.sources}
    populations = {label(n): n for n in chip if is_neuron(n)}
    nodes = [
        n
        for n in chip
        if n.id not in parted.sent and not (n.op == "output" and n.name in by_name and _is_read(n, parted))
    ]
    nodes += [n for n in whole.sources if own[n.id] not in {m.id for m in nodes}]
    for node_id in (n.id for n in whole if n.id in parted.host):
        node = mine[node_id]
        if node_id in parted.reads:
            norm = event_norm(mine[node.operands[0]], mine) if mine[node.operands[0]].type.is_event else 1.0
            nodes += _reading(node, by_name[parted.reads[node_id]], populations, norm, tensors)
            continue
        inputs = tuple(Use(own.get(u.node, u.node), u.lag) for u in node.inputs)
        nodes.append(_with_tensors(replace(node, inputs=inputs), whole, tensors))
    nodes += [n for n in whole.outputs if n.operands[0] in parted.host]
    graph = rebuild(chip, ordered(nodes), tensors)
    graph = replace(graph, input_time=whole.input_time)
    verify(graph)
    return graph


def _is_read(node: Node, parted: Parted) -> bool:
    return node.id.removesuffix(".out") in parted.reads or node.name == UNREAD


def _reading(
    node: Node, output: dict[str, Any], populations: dict[str, Node], norm: float, tensors: dict[str, np.ndarray]
) -> list[Node]:
    """What the host reads of each part of a population, and all of it in order."""
    parts, index = [], np.zeros(math.prod(node.type.shape), np.int64)
    at, whole = 0, len(output["parts"]) == 1 and output["parts"][0]["elements"] is None
    for number, part_ in enumerate(output["parts"]):
        source = populations[part_["population"]]
        made = node.id if whole else f"{node.id}.{number}"
        scale = part_["scale"] / norm if part_["what"] == "spikes" else part_["scale"]
        type_ = ValueType(Kind.REAL, source.type.shape)
        parts.append(Node(made, "host_read", (Use(source.id),), {"scale": derived(float(scale))}, type_))
        size = math.prod(source.type.shape)
        index[np.arange(size) if part_["elements"] is None else part_["elements"]] = at + np.arange(size)
        at += size
    if whole:
        return parts
    attrs = {"index": stored(tensors, f"{node.id}.index", index), "shape": derived(node.type.shape)}
    return [*parts, Node(node.id, "take", tuple(Use(p.id) for p in parts), attrs, node.type)]


def _with_tensors(node: Node, graph: Graph, tensors: dict[str, np.ndarray]) -> Node:
    """A node whose arrays are beside those of the chip."""
    attrs = dict(node.attrs)
    for key, attr in node.attrs.items():
        if isinstance(attr.value, Ref):
            attrs[key] = replace(
                stored(tensors, f"host/{attr.value.key}", graph.tensors[attr.value.key]), evidence=attr.evidence
            )
    return replace(node, attrs=attrs)
