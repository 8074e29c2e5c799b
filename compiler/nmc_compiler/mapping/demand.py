"""What tiles of a cluster would need of a core, for any way to cut it.

Every need is a sum of terms, and every term a product of one factor per axis, because
channels, rows and columns are cut independently. The largest tile of a cut is therefore
known from the largest factor along each axis, and thousands of cuts are weighed at once.
Numbers are upper bounds of `resources.core_usage`: axons that several tiles of one core
share are counted for each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.between_sites import Between
from nmc_compiler.mapping.cluster import Cluster, held_spans, somas_once
from nmc_compiler.mapping.intervals import length, overlap
from nmc_compiler.mapping.neurocore import descriptors
from nmc_compiler.mapping.reach import Reach, find_reaches
from nmc_compiler.mapping.resources import (
    RESOURCES,
    Sizes,
    block_bits,
    block_key,
    extra_accumulators,
    limits,
    parameter_sets,
    row_bits,
    site_tables,
    sizes,
    synapse_bits,
)
from nmc_compiler.mapping.rows import in_degrees
from nmc_compiler.program.model import Program, Sparse
from nmc_compiler.target import Target

Cut = tuple[np.ndarray, np.ndarray, np.ndarray]  # intervals of channels, rows, columns
Cuts = dict[int, Cut]  # by cluster
Held = dict[int, np.ndarray]
Factor = Callable[[Held], np.ndarray]  # intervals held of each dendrite -> int64 [chunks]

MEMORY = RESOURCES.index("synapse_words")
AXONS_IN = RESOURCES.index("axons_in")


@dataclass(frozen=True)
class Term:
    """A need that grows as the product of one factor per axis; memory is in bits."""

    resource: int
    factors: tuple[Factor, Factor, Factor]


class Netlist:
    """The parts of a Program that demands are made of, looked up once."""

    def __init__(self, program: Program, target: Target, clusters: Sequence[Cluster]) -> None:
        self.program, self.clusters = program, clusters
        self.sizes: Sizes = sizes(target)
        self.atoms: int = target.core.axon_atoms.value
        self.limits = np.array([limits(target)[name] for name in RESOURCES], np.int64)
        self.limits[MEMORY] *= self.sizes.word
        self.into: dict[int, list[Reach]] = defaultdict(list)  # dendrite -> reaches
        self.out_of: dict[int, list[Reach]] = defaultdict(list)  # population -> reaches
        for reach in find_reaches(program):
            self.into[reach.dst].append(reach)
            self.out_of[reach.src].append(reach)
        self.sets = parameter_sets(program, self.sizes)
        self._row_needs: dict[tuple, np.ndarray] = {}  # cuts are weighed again and again

    def cluster_of(self, dendrite: int) -> int:
        return self.program.dendrites[dendrite].cluster

    def source_channels(self, population: int, cuts: Cuts) -> np.ndarray:
        """Channel intervals of the tiles that hold a population; one interval while they are not known."""
        p = self.program.populations[population]
        known = cuts.get(self.cluster_of(p.dendrite)) if p.dendrite >= 0 else None
        return np.array([[0, p.shape[0]]], np.int64) if known is None else known[0]

    def target_spans(self, reach: Reach, axis: int, cuts: Cuts) -> np.ndarray:
        """Source intervals along `axis` that each tile of the target takes in; all while not known."""
        index = self.cluster_of(reach.dst)
        if index not in cuts:
            return np.array([[0, reach.src_shape[axis]]], np.int64)
        cluster = next(c for c in self.clusters if c.index == index)
        held = held_spans(self.program, cluster, axis, cuts[index][axis])
        return reach.sources(axis, held[reach.dst])[0]

    def row_needs(self, cluster: Cluster, cut: Cut) -> np.ndarray:
        """Bits of the rows of synapses of every tile of a cut: int64 [channel, row, column chunks]."""
        key = (cluster.index, *(chunks.tobytes() for chunks in cut))
        if key not in self._row_needs:
            self._row_needs[key] = _row_needs(self, cluster, cut)
        return self._row_needs[key]

    def has_rows(self, cluster: Cluster) -> bool:
        """Whether synapses one by one lead into `cluster`."""
        return any(isinstance(r.item, Sparse) for dendrite in cluster.dendrites for r in self.into[dendrite])


def _row_needs(net: Netlist, cluster: Cluster, cut: Cut) -> np.ndarray:
    counts = tuple(len(chunks) for chunks in cut)
    total, at = np.zeros(counts, np.int64), np.indices(counts).reshape(3, -1)
    spans = [held_spans(net.program, cluster, axis, cut[axis]) for axis in (0, 1, 2)]
    for reach in (reach for dendrite in cluster.dendrites for reach in net.into[dendrite]):
        if isinstance(reach.item, Sparse):
            boxes = np.concatenate([spans[axis][reach.dst][at[axis]] for axis in (0, 1, 2)], axis=1)
            total += row_bits(reach.item, reach.dst_shape, boxes, np.arange(len(boxes)), net.sizes).reshape(counts)
    return total


def terms_of(net: Netlist, cluster: Cluster, cuts: Cuts, rows: bool = True) -> list[Term]:
    """Every need of `cluster`, given how the clusters that it talks to are cut.

    ``rows`` False leaves out the memory of rows of synapses, for those who count it exactly.
    """
    found = [*_somas(net, cluster), *_memory(net, cluster), *(_rows(net, cluster) if rows else [])]
    for dendrite in cluster.dendrites:
        for reach in net.into[dendrite]:
            found.append(_axons_in(net, reach, cuts))
    for population in cluster.populations:
        for reach in net.out_of[population]:
            found.append(_axons_out(net, reach, net.program.populations[population].dendrite, cuts))
    return found


def _one(held: Held) -> np.ndarray:
    return np.ones(len(next(iter(held.values()))), np.int64)


def _length(dendrite: int, scale: int = 1) -> Factor:
    return lambda held: scale * length(held[dendrite])


def _per_chunk(dendrite: int, value: Callable[[int, int], int]) -> Factor:
    return lambda held: np.array([value(a, b) for a, b in held[dendrite].tolist()], np.int64)


def _table_bits(dendrite: int, between: Between) -> Factor:
    return lambda held: between.bits(held[dendrite])


def _somas(net: Netlist, cluster: Cluster) -> list[Term]:
    neurons, groups = RESOURCES.index("neurons"), RESOURCES.index("neuron_groups")
    found = []
    for index in cluster.populations:
        dendrite = net.program.populations[index].dendrite
        found.append(Term(neurons, (_length(dendrite), _length(dendrite), _length(dendrite))))
    if cluster.populations:
        together = [net.sets[index] for index in cluster.populations]

        def distinct(a: int, b: int) -> int:
            return len(np.unique(np.concatenate([sets[a:b] for sets in together])))

        alike = distinct(0, cluster.shape[0]) == 1  # the usual case, known without looking at every chunk
        found.append(Term(groups, (_one if alike else _per_chunk(cluster.base, distinct), _one, _one)))
    return found


def _memory(net: Netlist, cluster: Cluster) -> list[Term]:
    found, seen = [], set()
    for dendrite in cluster.dendrites:
        for reach in net.into[dendrite]:
            key = block_key(reach, 0, 0)
            if key not in seen and not isinstance(reach.item, Sparse):
                found.append(Term(MEMORY, (_per_chunk(dendrite, _bits_of(reach, net.sizes)), _one, _one)))
            seen.add(key)
        for between in site_tables(net.into[dendrite]):
            found.append(Term(MEMORY, (_one, _table_bits(dendrite, between), _one)))
        shared = extra_accumulators(net.program, dendrite, net.sizes) * net.sizes.accumulator
        if shared:
            found.append(Term(MEMORY, (_length(dendrite, shared), _length(dendrite), _length(dendrite))))
        for current in net.program.host_currents:
            if current.dst == dendrite and not net.sizes.neurocore:
                found.append(Term(MEMORY, (_length(dendrite, net.sizes.word), _one, _one)))
                channels = _per_chunk(dendrite, lambda a, b: -(-(b - a) // net.atoms))
                found.append(Term(AXONS_IN, (channels, _length(dendrite), _length(dendrite))))
    return found


def _rows(net: Netlist, cluster: Cluster) -> list[Term]:
    """Rows of synapses: n synapses of b bits fill at most n*b bits and the padding of min(n, sources) rows.

    Between single positions n is counted for each range of channels; elsewhere it is the largest fan-in times
    the positions, and every synapse may have a row to itself.
    """
    found = []
    for dendrite in cluster.dendrites:
        for reach in net.into[dendrite]:
            if not isinstance(reach.item, Sparse):
                continue
            bits = synapse_bits(reach.item, net.sizes)
            waste = net.sizes.dense_pad - math.gcd(bits, net.sizes.dense_pad)
            degrees = in_degrees(reach.item, reach.dst_shape)
            if math.prod(reach.dst_shape[1:]) == 1:
                before = np.concatenate([[0], np.cumsum(degrees)])
                found.append(Term(MEMORY, (_row_bound(dendrite, before, bits, waste, reach), _one, _one)))
            else:
                most = int(degrees.max()) * (bits + waste)
                found.append(Term(MEMORY, (_length(dendrite, most), _length(dendrite), _length(dendrite))))
    return found


def _row_bound(dendrite: int, before: np.ndarray, bits: int, waste: int, reach: Reach) -> Factor:
    sources = math.prod(reach.src_shape)

    def bound(held: Held) -> np.ndarray:
        synapses = before[held[dendrite][:, 1]] - before[held[dendrite][:, 0]]
        return synapses * bits + np.minimum(synapses, sources) * waste

    return bound


def _bits_of(reach: Reach, size: Sizes) -> Callable[[int, int], int]:
    return lambda a, b: block_bits(reach, a, b, size)


def _axons_in(net: Netlist, reach: Reach, cuts: Cuts) -> Term:
    if reach.carries_site:
        return _tiles_in(net, reach, cuts)
    tiles, each = net.source_channels(reach.src, cuts), descriptors(reach) if net.sizes.neurocore else 1

    def channels(held: Held) -> np.ndarray:
        return each * np.sum(-(-overlap(reach.channels(held[reach.dst]), tiles) // net.atoms), axis=1)

    def along(axis: int) -> Factor:
        def positions(held: Held) -> np.ndarray:
            spans, of = reach.sources(axis, held[reach.dst])
            return np.bincount(of, length(spans), len(held[reach.dst])).astype(np.int64)

        return positions

    return Term(AXONS_IN, (channels, along(1), along(2)))


def _tiles_in(net: Netlist, reach: Reach, cuts: Cuts) -> Term:
    """One entry per tile of the source, whose events carry their sites."""
    tiles, dendrite = net.source_channels(reach.src, cuts), net.program.populations[reach.src].dendrite
    known = cuts.get(net.cluster_of(dendrite)) if dendrite >= 0 else None
    rows = 1 if known is None else len(known[1]) * len(known[2])

    def channels(held: Held) -> np.ndarray:
        return rows * np.sum(overlap(reach.channels(held[reach.dst]), tiles) > 0, axis=1)

    return Term(AXONS_IN, (channels, _one, _one))


def _axons_out(net: Netlist, reach: Reach, dendrite: int, cuts: Cuts) -> Term:
    """One entry per position of the tile and tile of the target that the position reaches."""
    wanted = [net.target_spans(reach, axis, cuts) for axis in (0, 1, 2)]
    if reach.carries_site:  # one per tile of the target
        tiles = int(np.prod([len(spans) for spans in wanted]))
        return Term(RESOURCES.index("axons_out"), (lambda held: tiles * _one(held), _one, _one))

    def channels(held: Held) -> np.ndarray:
        return np.sum(-(-overlap(held[dendrite], wanted[0]) // net.atoms), axis=1)

    def along(axis: int) -> Factor:
        return lambda held: np.sum(overlap(held[dendrite], wanted[axis]), axis=1)

    return Term(RESOURCES.index("axons_out"), (channels, along(1), along(2)))


def factors_along(net: Netlist, cluster: Cluster, axis: int, chunks: np.ndarray, terms: list[Term]) -> np.ndarray:
    """Factor of every term for every chunk, int64 [terms, chunks]."""
    held = held_spans(net.program, cluster, axis, chunks)
    return np.array([term.factors[axis](held) for term in terms], np.int64).reshape(len(terms), len(chunks))


def may_cut(net: Netlist, cluster: Cluster, axis: int, chunks: np.ndarray) -> bool:
    """Whether no soma would sit in two of the chunks."""
    return axis == 0 or somas_once(net.program, cluster, held_spans(net.program, cluster, axis, chunks))


def tile_needs(net: Netlist, cluster: Cluster, cut: Cut, terms: list[Term]) -> np.ndarray:
    """Need of every tile of a cut, int64 [resources, channel chunks, row chunks, column chunks]."""
    factors = [factors_along(net, cluster, axis, cut[axis], terms) for axis in (0, 1, 2)]
    needs = np.zeros((len(RESOURCES), *(len(chunks) for chunks in cut)), np.int64)
    for number, term in enumerate(terms):
        needs[term.resource] += np.einsum("c,y,x->cyx", *(f[number] for f in factors))
    return needs


def exact_needs(net: Netlist, cluster: Cluster, cut: Cut, cuts: Cuts) -> np.ndarray:
    """Like `tile_needs`, with the rows of synapses counted one by one."""
    needs = tile_needs(net, cluster, cut, terms_of(net, cluster, cuts, rows=False))
    if net.has_rows(cluster):
        needs[MEMORY] += net.row_needs(cluster, cut)
    return needs
