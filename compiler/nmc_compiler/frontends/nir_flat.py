"""Graphs within graphs as one flat graph whose every path goes from an Input to an Output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nmc_compiler.errors import FrontendError
from nmc_compiler.nir.schema import NirGraph, NirNode

Edge = tuple[str, str]


@dataclass
class FlatGraph:
    """Nodes of all graphs by their full names, and edges between them; Inputs and Outputs within are gone."""

    nodes: dict[str, NirNode]
    edges: list[Edge]
    where: str
    notes: list[str] = field(default_factory=list)

    def sources(self) -> dict[str, list[str]]:
        """Names of the nodes that each node reads, in alphabetical order."""
        out: dict[str, list[str]] = {name: [] for name in self.nodes}
        for a, b in sorted(self.edges):
            out[b].append(a)
        return out


def flatten(graph: NirGraph) -> FlatGraph:
    """Names of nested nodes are joined with dots. FrontendError for edges that lead nowhere, or two ways."""
    flat = FlatGraph({}, [], graph.where)
    _add(graph, "", flat)
    _splice(flat, {name for name, node in flat.nodes.items() if node.type == "Pass"})
    _close(flat)
    return flat


def _add(graph: NirGraph, prefix: str, flat: FlatGraph) -> None:
    """Add a graph's nodes; a nested graph's Inputs and Outputs become nodes of type Pass, which are spliced later."""
    enter: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        if isinstance(node, NirGraph):
            _add(node, f"{full}.", flat)
            enter[name], leave[name] = _door(node, full, "Input"), _door(node, full, "Output")
            continue
        if full in flat.nodes:
            raise FrontendError(
                f"{graph.where}: two nodes are called '{full}' once nested names are joined; rename one"
            )
        inner = prefix and node.type in ("Input", "Output")
        flat.nodes[full] = NirNode(full, "Pass" if inner else node.type, node.values, _renamed(node, full))
    seen: set[Edge] = set()
    for source, target in graph.edges:
        for end in (source, target):
            if end not in graph.nodes:
                raise FrontendError(
                    f"{graph.where}: edge '{source}' -> '{target}' leads to '{end}', which is no node; "
                    "add the node or take the edge out"
                )
        if (source, target) in seen:
            raise FrontendError(f"{graph.where}: edge '{source}' -> '{target}' is there twice; NIR allows it once")
        seen.add((source, target))
        flat.edges.append((leave.get(source, prefix + source), enter.get(target, prefix + target)))


def _renamed(node: NirNode, full: str) -> str:
    return node.where.replace(f"node '{node.name}'", f"node '{full}'")


def _door(graph: NirGraph, full: str, kind: str) -> str:
    """The one node by which edges enter or leave a nested graph: its Input or Output, or else its first or last."""
    doors = [n for n, node in graph.nodes.items() if isinstance(node, NirNode) and node.type == kind]
    if not doors:
        place = 1 if kind == "Input" else 0
        taken = {edge[place] for edge in graph.edges}
        doors = [n for n, node in graph.nodes.items() if n not in taken and isinstance(node, NirNode)]
    if len(doors) != 1:
        raise FrontendError(
            f"{graph.where} has {len(doors)} nodes by which an edge can "
            f"{'enter' if kind == 'Input' else 'leave'}; give it one {kind}"
        )
    return f"{full}.{doors[0]}"


def _splice(flat: FlatGraph, passes: set[str]) -> None:
    """Take out the Inputs and Outputs of nested graphs: whatever they read goes to whoever reads them."""
    reads: dict[str, list[str]] = {}
    for a, b in flat.edges:
        reads.setdefault(b, []).append(a)
    origins: dict[str, tuple[str, ...]] = {}
    edges = dict.fromkeys((o, b) for a, b in flat.edges if b not in passes for o in _origins(a, passes, reads, origins))
    flat.edges = list(edges)
    flat.nodes = {name: node for name, node in flat.nodes.items() if name not in passes}


def _origins(
    node: str, passes: set[str], reads: dict[str, list[str]], known: dict[str, tuple[str, ...]]
) -> Iterable[str]:
    """Real nodes behind a node: itself, or through any chain of nested Inputs and Outputs."""
    if node not in passes:
        return (node,)
    if node not in known:
        found: dict[str, None] = {}
        stack, seen = [node], {node}
        while stack:
            for source in reads.get(stack.pop(), ()):
                if source not in passes:
                    found[source] = None
                elif source not in seen:
                    seen.add(source)
                    stack.append(source)
        known[node] = tuple(found)
    return known[node]


def _close(flat: FlatGraph) -> None:
    """Ends of the network: nodes without an Input or Output in front of or behind them get one, as nir does."""
    if not flat.nodes:
        raise FrontendError(f"{flat.where}: the graph has no nodes")
    for place, kind, prefix in ((1, "Input", "input"), (0, "Output", "output")):
        taken = {edge[place] for edge in flat.edges}
        for name in [n for n, node in flat.nodes.items() if n not in taken and node.type != kind]:
            if flat.nodes[name].type in ("Input", "Output"):
                side = "into" if kind == "Input" else "out of"
                raise FrontendError(f"{flat.nodes[name].where}: no edge leads {side} it; connect it or take it out")
            end = f"{prefix}_{name}"
            while end in flat.nodes:
                end += "_0"
            flat.nodes[end] = NirNode(end, kind, {}, f"{flat.where}: node '{end}' ({kind})")
            flat.edges.append((end, name) if kind == "Input" else (name, end))
            flat.notes.append(f"{flat.nodes[name].where.split(': ')[-1]} has no {kind}; '{end}' was added, as nir does")
    for kind in ("Input", "Output"):
        if kind not in {node.type for node in flat.nodes.values()}:
            raise FrontendError(f"{flat.where}: the graph has no {kind}, and every node is part of a loop; add one")
    for a, b in flat.edges:
        wrong = a if flat.nodes[a].type == "Output" else b
        if flat.nodes[wrong].type == ("Output" if wrong == a else "Input"):
            raise FrontendError(f"{flat.nodes[wrong].where}: edge '{a}' -> '{b}' goes the wrong way through it")
