"""Currents of a float graph that the folding passes take as they are, and those that have to be joined first.

A *region* is what adds up to the currents of some neurons: the nodes between events that are connected with each
other, and the neurons that read them. Residual streams, attention products and counts are *streams*: the folding
passes keep them as they are. Everything else is linear algebra for ``join_linear``.
"""

from __future__ import annotations

from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.analysis import CONVOLUTIONS, is_neuron
from nmc_compiler.graph.types import Ref

SOURCES = ("input", "constant", "encode")
PLACES = ("sites", "cloud", "down_sites", "features")  # where values are, and the real ones at the host
GENERAL_NEURONS = ("neuron", "integrator", "sigma_delta")
LINEAR = (
    *("conv2d", "batch_norm", "add", "scale", "sumpool2d", "sum_positions", "map", "reshape", "take", "delay"),
    *("sparse", "pad2d"),
)
JOINED = ("sumpool2d", "reshape", "take", "delay", "sparse", "output")  # what no folding pass knows
SUMS = ("add", "sum_positions")  # of events: ``distribute_sums`` brings them behind convolutions


def is_general(graph: Graph) -> bool:
    """Whether a network has outputs, general neurons and linear ops alone: each population is joined by itself."""
    by_id = graph.by_id()
    known = (*SOURCES, *GENERAL_NEURONS, *LINEAR, "output", "gather")
    return bool(graph.outputs) and all(n.op in known or _spike_pool(n, by_id) for n in graph)


def _spike_pool(node: Node, by_id: dict[str, Node]) -> bool:
    return node.op == "maxpool2d" and by_id[node.operands[0]].type.is_event


def is_stream(graph: Graph) -> bool:
    """Whether the folding passes take a network as it is."""
    kept = streams(graph)

    def known(n: Node) -> bool:
        events = sends(n) or (n.op in SUMS and n.type.is_event)
        return n.id in kept or n.op in (*SOURCES, *PLACES) or (events and not any(u.lag for u in n.inputs))

    return not graph.outputs and all(known(n) for n in graph)


def streams(graph: Graph) -> set[str]:
    """Ids of the nodes in regions that the folding passes take, with the neurons that read them."""
    return {i for region in regions(graph) if _is_stream(graph, region) for i in region}


def regions(graph: Graph) -> list[list[str]]:
    """Nodes of each region, in graph order."""
    by_id, parent = graph.by_id(), {n.id: n.id for n in graph}

    def root(i: str) -> str:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    members = [n for n in graph if _inside(n)]
    for node in members:
        for operand in (by_id[i] for i in node.operands):
            if _current(operand):
                parent[root(operand.id)] = root(node.id)
    found: dict[str, list[str]] = {}
    for node in members:
        found.setdefault(root(node.id), []).append(node.id)
    return list(found.values())


def _current(node: Node) -> bool:
    """Whether the value of a node is summed on the way to a neuron (an integrator's value is not)."""
    return not node.type.is_event and node.op not in (*SOURCES, *PLACES) and not is_neuron(node)


def _inside(node: Node) -> bool:
    return _current(node) or (is_neuron(node) and node.op not in SOURCES)


def _is_stream(graph: Graph, region: list[str]) -> bool:
    by_id, users = graph.by_id(), graph.users()
    return all(_in_stream(graph, by_id[i], by_id, users) for i in region)


def _in_stream(graph: Graph, node: Node, by_id: dict[str, Node], users: dict[str, list[Node]]) -> bool:
    if is_neuron(node):
        return (node.op not in GENERAL_NEURONS or by_class(node)) and not node.inputs[0].lag
    if node.op in JOINED:
        return False
    for use in node.inputs:
        operand = by_id[use.node]
        if use.lag and not (sends(operand) and node.op in ("conv2d", "map")):
            return False
        if operand.type.is_event and not _plain_events(operand, by_id, node.op):
            return False
    return node.op not in _FOLDS or _FOLDS[node.op](graph, node, by_id, users)


def by_class(node: Node) -> bool:
    """Whether a general neuron can share the scale of a current with others: what it has is one number, no current."""
    one = all(isinstance(node.attr(key, 0.0), (int, float)) for key in ("beta", "theta", "leak", "start_v"))
    return node.op == "neuron" and one and "alpha" not in node.attrs


def _plain_events(node: Node, by_id: dict[str, Node], reader: str) -> bool:
    """Whether events are those of a population, or sums that go behind the convolutions that read them."""
    if node.op in SUMS:
        return reader in (*CONVOLUTIONS, *SUMS) and all(
            not u.lag and _plain_events(by_id[u.node], by_id, node.op) for u in node.inputs
        )
    return sends(node)


def sends(node: Node) -> bool:
    """Whether a node of events is a population of its own, and not linear in others."""
    return node.type.is_event and node.op not in (*LINEAR, "output")


def _behind(node: Node, by_id: dict[str, Node], users: dict[str, list[Node]], through: tuple[str, ...]) -> Node | None:
    """What a node reads through others, each of them read once."""
    found = by_id[node.operands[0]]
    while len(users[found.id]) == 1 and found.op in through:
        found = by_id[found.operands[0]]
    return found if len(users[found.id]) == 1 else None


def _norm_folds(graph: Graph, node: Node, by_id: dict[str, Node], users: dict[str, list[Node]]) -> bool:
    found = _behind(node, by_id, users, ("batch_norm", "pad2d", "scale"))
    return found is not None and found.op in CONVOLUTIONS


def _scale_folds(graph: Graph, node: Node, by_id: dict[str, Node], users: dict[str, list[Node]]) -> bool:
    number = not isinstance(node.attr("factor"), Ref)
    if by_id[node.operands[0]].type.is_event:
        return False
    found = _behind(node, by_id, users, ("batch_norm", "scale"))
    if found is not None and (found.op in CONVOLUTIONS or (found.op == "attn" and number)):
        return True
    readers = users[node.id]
    numbers = (u.op == "scale" and u.attr("factor") for u in readers)
    takes = (is_neuron(u) or u.op == "conv2d" for u in readers)
    return number and bool(readers) and all(a or b for a, b in zip(takes, numbers, strict=True))


_FOLDS = {"batch_norm": _norm_folds, "scale": _scale_folds}
