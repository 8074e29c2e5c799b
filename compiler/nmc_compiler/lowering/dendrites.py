"""Which leaves share a dendrite.

A neuron (or an in-core transfer) reads the sum of a set of leaves at its own level. Where
sets overlap, as along a membrane residual, they can share one accumulator: a *stream*,
which later producers keep adding to. That is right exactly if, whenever a reader looks,
the leaves that have arrived are those of its set. Arrivals are set as late as their
first reader allows; a reader for which that still fails gets a dendrite of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import networkx as nx

from nmc_compiler.lowering.leaves import Leaf, Leaves


@dataclass
class Reader:
    """Who reads an expression: a neuron, or a transfer leaf of another dendrite."""

    id: str
    level: int
    node_id: str
    leaves: list[Leaf]
    private: bool = False
    neurons: set[str] = field(default_factory=set)  # what it is read for: itself, or those behind a transfer


@dataclass
class Group:
    """A dendrite to be: its leaves with their arrival levels, and its readers."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    arrivals: dict[str, int] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)


def group_dendrites(leaves: Leaves, neurons: list[tuple[str, str]], share: bool) -> list[Group]:
    """Dendrites for ``neurons`` (id, node id of the current read); ``share`` False gives each reader its own."""
    readers = {n: Reader(n, leaves.levels[n], node, leaves.of(node), not share, {n}) for n, node in neurons}
    while True:
        every = _with_transfers(leaves, list(readers.values()))
        groups = _groups(every)
        broken = set().union(*(r.neurons for g in groups for r in g.readers if _reads_too_much(r, g)))
        broken |= _ends_of_other_shape(leaves, groups)
        if not broken:
            return groups
        for name in broken:
            readers[name].private = True


def _with_transfers(leaves: Leaves, readers: list[Reader]) -> list[Reader]:
    """Add a reader for each transfer leaf; a leaf shared by several readers is one transfer, at the first's level."""
    every = {r.id: r for r in readers}
    pending = list(readers)
    while pending:
        reader = pending.pop(0)
        for leaf in (x for x in reader.leaves if x.kind == "transfer"):
            owner = transfer_id(reader, leaf)
            known = every.get(owner)
            if known is None:
                known = Reader(owner, reader.level, leaf.reads, leaves.of(leaf.reads), reader.private)
            elif reader.level >= known.level and reader.neurons <= known.neurons:
                continue
            known.level = min(known.level, reader.level)
            known.neurons |= reader.neurons
            every[owner] = known
            pending.append(known)  # what it reads must be there as early
    return list(every.values())


def _groups(readers: list[Reader]) -> list[Group]:
    """Readers that share a leaf share a group; private readers stand alone."""
    groups: list[Group] = []
    for reader in readers:
        keys = {leaf.key for leaf in reader.leaves}
        touching = [] if reader.private else [g for g in groups if keys & set(g.leaves) and not g.readers[0].private]
        merged = Group()
        for g in touching:
            merged.leaves |= g.leaves
            merged.readers += g.readers
        merged.leaves |= {leaf.key: leaf for leaf in reader.leaves}
        merged.readers.append(reader)
        groups = [g for g in groups if g not in touching] + [merged]
    for group in groups:
        for key in group.leaves:
            group.arrivals[key] = min(r.level for r in group.readers if any(x.key == key for x in r.leaves))
    return groups


def _reads_too_much(reader: Reader, group: Group) -> bool:
    mine = {leaf.key for leaf in reader.leaves}
    return any(at <= reader.level for key, at in group.arrivals.items() if key not in mine)


def transfer_id(reader: Reader, leaf: Leaf) -> str:
    """Id under which a transfer leaf of ``reader`` reads its own dendrite."""
    return f"{reader.id if reader.private else ''}<{leaf.key}"


def _ends_of_other_shape(leaves: Leaves, groups: list[Group]) -> set[str]:
    """Neurons that keep linked dendrites from being cut into tiles.

    Dendrites linked by transfers share their cores and are cut along the one that no max-pool reads and that is
    not behind a sum (``program.clusters``). Where one current is pooled in two ways there are two, and unlike.
    """
    links: nx.DiGraph = nx.DiGraph()
    links.add_nodes_from(range(len(groups)))
    source = {r.id: i for i, g in enumerate(groups) for r in g.readers}
    summed, pooled = set[int](), set[int]()
    for i, g in enumerate(groups):
        for leaf in (x for x in g.leaves.values() if x.kind == "transfer"):
            links.add_edge(source[transfer_id(g.readers[0], leaf)], i)
            if leaf.mode == "sum":
                summed.add(i)
            else:
                pooled.add(source[transfer_id(g.readers[0], leaf)])
    summed |= set().union(*(nx.descendants(links, i) for i in summed))
    neurons: set[str] = set()
    for members in nx.weakly_connected_components(links):
        ends = [groups[i].readers for i in sorted(members - summed - pooled)]
        shapes = [leaves.by_id[readers[0].node_id].type.shape for readers in ends]
        for readers in (e for e, shape in zip(ends, shapes, strict=True) if shape != shapes[0]):
            neurons |= set().union(*(r.neurons for r in readers))
    return neurons
