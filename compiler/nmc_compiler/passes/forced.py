"""Every population of an integer network fed with the spikes of the float network: what each one does by itself.

Spikes that differ in one layer make later layers differ too. With the float network's spikes as their input, layers
differ for reasons of their own only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nmc_compiler.graph import Graph, Node, Use, label, rebuild
from nmc_compiler.graph.analysis import populations
from nmc_compiler.graph.types import Attr


def forced_run(
    graph: Graph, codes: Mapping[str, np.ndarray], inputs: np.ndarray | Mapping[str, np.ndarray]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph whose populations read recorded codes in place of each other, and its inputs [N, T, C, H, W].

    codes: population -> [T, N, C, H, W] of the float network; whoever has none there goes on reading what stands in
    the graph.  inputs: as for ``interpret``.
    """
    sent = {n.id: _codes_of(n, graph, codes) for n in populations(graph)}
    known = {i: c for i, c in sent.items() if c is not None}
    fed = [_source(n) for n in graph if n.id in known]
    nodes = [*fed, *(_reading(n, known.keys()) for n in graph)]
    given = dict(inputs) if isinstance(inputs, Mapping) else {_name(graph.sources[0]): inputs}
    steps, samples = next(iter(known.values())).shape[:2] if known else (graph.timesteps, 0)
    if not graph.input_time:
        given = {k: np.broadcast_to(x[:, None], (len(x), steps, *x.shape[1:])) for k, x in given.items()}
    else:
        given = {k: x[None] if x.ndim == 4 else x for k, x in given.items()}
    given |= {f"{i}@float": np.moveaxis(c, 0, 1) for i, c in known.items()}
    return replace(rebuild(graph, nodes), input_time=True), given


def _codes_of(node: Node, graph: Graph, codes: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What the float network sent in place of a population, or of its part of one (``split-decays``)."""
    found = codes.get(str(node.attr("part_of", label(node))))
    if found is None or node.attr("role") in ("pool", "and"):
        return None
    at = graph.tensor(node, "elements")
    if at is not None:
        found = found.reshape(*found.shape[:2], -1)[..., at]
    return found.reshape(*found.shape[:2], *node.type.shape) if found[0, 0].size == np.prod(node.type.shape) else None


def _source(node: Node) -> Node:
    """An input in place of a population: the same kind of event."""
    attrs = {"shape": Attr(node.type.shape), "bits": Attr(node.type.bits)}
    attrs |= {"signed": Attr(True)} if node.type.signed else {}
    return Node(f"{node.id}@float", "input", (), attrs, node.type, f"{node.id}@float")


def _reading(node: Node, known: object) -> Node:
    uses = (Use(f"{u.node}@float", u.lag) if u.node in known else u for u in node.inputs)  # type: ignore[operator]
    return replace(node, inputs=tuple(uses))


def _name(node: Node) -> str:
    return node.name or node.id
