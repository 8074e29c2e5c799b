"""Loops of a network, each broken where something in it takes time, and an order to compute it in."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.nir_flat import Edge, FlatGraph
from nmc_compiler.nir.schema import NEURONS


@dataclass(frozen=True)
class Timing:
    """Nodes so that what acts within a timestep comes first, and the edges that act one timestep later.

    ``forced``: of these, edges that also lead to neurons which need not have waited.
    """

    order: list[str]
    late: frozenset[Edge]
    forced: frozenset[Edge]


def arrange(flat: FlatGraph, delaying: set[str]) -> Timing:
    """Break each loop: in front of a Delay of at least a timestep (``delaying``), else behind a neuron.

    What a neuron sends back, to itself or to one that is no farther from the inputs, arrives one timestep later.
    FrontendError for a loop with neither: nothing in it takes time.
    """
    part = _loops(flat, flat.edges)
    late = {(a, b) for a, b in flat.edges if b in delaying and a in part and part.get(a) == part.get(b)}
    rest = [edge for edge in flat.edges if edge not in late]
    part = _loops(flat, rest)
    inner = [(a, b) for a, b in rest if a in part and part[a] == part.get(b)]
    reach = _reach(flat, inner)
    rank = _ranks(flat)
    forced = set()
    for a, b in inner:
        if flat.nodes[a].type in NEURONS:
            first, last = reach[b]
            if first <= rank[a]:
                late.add((a, b))
                forced |= {(a, b)} if last > rank[a] else set()
    return Timing(_topological(flat, late), frozenset(late), frozenset(forced))


def _loops(flat: FlatGraph, edges: Iterable[Edge]) -> dict[str, int]:
    """Of every node on a loop, the number of its strongly connected part."""
    import networkx as nx

    graph: Any = nx.DiGraph()
    graph.add_nodes_from(flat.nodes)
    graph.add_edges_from(edges)
    out: dict[str, int] = {}
    for number, part in enumerate(nx.strongly_connected_components(graph)):
        if len(part) > 1 or graph.has_edge(*list(part) * 2):
            out |= dict.fromkeys(part, number)
    return out


def _readers(nodes: Iterable[str], edges: Iterable[Edge]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in sorted(edges):
        out[a].append(b)
    return out


def _ranks(flat: FlatGraph) -> dict[str, int]:
    """Place of every node in a breadth-first walk from the Inputs, neighbours by name."""
    readers = _readers(flat.nodes, flat.edges)
    queue = deque(sorted(name for name, node in flat.nodes.items() if node.type == "Input"))
    order = dict.fromkeys(queue)
    while queue:
        for name in readers[queue.popleft()]:
            if name not in order:
                order[name] = None
                queue.append(name)
    order |= dict.fromkeys(sorted(flat.nodes))  # those that no input reaches come last
    return {name: place for place, name in enumerate(order)}


def _reach(flat: FlatGraph, inner: list[Edge]) -> dict[str, tuple[int, int]]:
    """For every node on a loop: the first and the last rank of the neurons that it reaches without passing one."""
    rank = _ranks(flat)
    nodes = {name for edge in inner for name in edge}
    readers = _readers(nodes, inner)
    out = {name: (rank[name], rank[name]) for name in nodes if flat.nodes[name].type in NEURONS}
    for name in reversed(_without_time(flat, [n for n in nodes if n not in out], inner)):
        ends = [out[r] for r in readers[name]]
        out[name] = (min(e[0] for e in ends), max(e[1] for e in ends))
    return out


def _without_time(flat: FlatGraph, nodes: list[str], inner: list[Edge]) -> list[str]:
    """Nodes that take no time, in the order of the data. FrontendError where they form a loop."""
    among = set(nodes)
    readers = _readers(nodes, [(a, b) for a, b in inner if a in among and b in among])
    waiting = dict.fromkeys(nodes, 0)
    for targets in readers.values():
        for name in targets:
            waiting[name] += 1
    order = sorted(name for name, count in waiting.items() if not count)
    for name in order:
        for reader in readers[name]:
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    if len(order) < len(nodes):
        loop = _one_loop(readers, next(n for n in sorted(nodes) if waiting[n]), waiting)
        raise FrontendError(
            f"{flat.where}: the loop {' -> '.join(repr(n) for n in loop)} has neither a neuron nor a Delay of a "
            "timestep or more: nothing in it takes time; put one of them in, or take an edge out"
        )
    return order


def _one_loop(readers: dict[str, list[str]], start: str, waiting: dict[str, int]) -> list[str]:
    """One loop among nodes that wait for each other; at most a few of its nodes are named."""
    sources: dict[str, str] = {}
    for a, targets in readers.items():
        for b in targets:
            if waiting[a]:
                sources.setdefault(b, a)
    path, at = {start: 0}, start
    while (at := sources[at]) not in path:
        path[at] = len(path)
    names = [*path][path[at] :][::-1]
    first = names.index(min(names))
    names = [*names[first:], *names[: first + 1]]
    return names if len(names) <= 6 else [*names[:5], "..."]


def _topological(flat: FlatGraph, late: set[Edge]) -> list[str]:
    """All nodes, sources first, alphabetically where there is a choice; late edges do not count."""
    edges = [edge for edge in flat.edges if edge not in late]
    readers = _readers(flat.nodes, edges)
    waiting = dict.fromkeys(flat.nodes, 0)
    for _, b in edges:
        waiting[b] += 1
    ready = [name for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        name = heapq.heappop(ready)
        order.append(name)
        for reader in readers[name]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order
