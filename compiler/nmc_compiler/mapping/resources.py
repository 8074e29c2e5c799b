"""What a core has and what a mapping takes of it: the one definition of every resource.

neurons        somas, one per population and position
neuron_groups  distinct parameter sets (model, decays, thresholds, restart), whichever populations use them
synapse_words  weight blocks, rows of synapses, constant weights, dynamic tables, tables of sites and shared
               accumulators, in words; projections with one weight_key share a block where they serve the same channels
axons_in       per projection, source tile and source position: ceil(channels / atoms)
axons_out      per population, source position and destination core: ceil(channels / atoms)

An event whose site is looked up where it arrives (``between_sites``) carries it: one entry in and out per source tile
and projection, or destination core, is enough.

A current from the host arrives like a spike of its own position: it takes axons_in, and one
word per channel. The accumulator of a dendrite that one soma reads in the tick of arrival is part of
that soma; those of residual streams and delayed synapses (rings), of several readers, and before pools and
sums are memory.

A Sparse has one row per source soma and core, padded like the row of a dense layer. Assumed, since no chip's
format is published: a synapse with an extra delay holds it in as many bits as the target's longest delay
takes; a weight wider than the target's takes two synapses (low and high part).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.mapping.between_sites import Between
from nmc_compiler.mapping.boxes import axon_entries, grouped
from nmc_compiler.mapping.neurocore import block_words, descriptors, rows_words
from nmc_compiler.mapping.reach import Reach, find_reaches, is_dense
from nmc_compiler.mapping.rows import counts, painted
from nmc_compiler.program.model import Cell, Conv, Dynamic, Mapping, Population, Program, Shape, Sparse
from nmc_compiler.program.validate_mapping import axon_ends
from nmc_compiler.target import Target

RESOURCES = ("neurons", "neuron_groups", "synapse_words", "axons_in", "axons_out")

Usage = dict[str, np.ndarray]  # resource -> int64, one number per core


def limits(target: Target) -> dict[str, int]:
    """What one core of `target` has of every resource."""
    return {name: getattr(target.core, name).value for name in RESOURCES}


def up(amount: Any, unit: int) -> Any:
    """`amount` rounded up to whole units."""
    return -(-amount // unit) * unit


# --- synapse memory: bits of one block for target channels c0..c1 -----------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The numbers of a target that memory sizes depend on, all in bits but `banks`."""

    word: int
    weight: int
    conv_synapse: int
    conv_pad: int
    dense_synapse: int
    dense_pad: int
    table_entry: int
    banks: int
    accumulator: int
    delay: int
    neurocore: bool  # rows of docs/neurocore.md, in place of those that these numbers describe


def sizes(target: Target) -> Sizes:
    """Sizes of `target`."""
    packing, weight = target.packing, target.core.weight_bits.value
    return Sizes(
        word=target.core.synapse_word_bits.value,
        weight=weight,
        conv_synapse=weight if packing.conv_synapse_bits is None else packing.conv_synapse_bits.value,
        conv_pad=packing.conv_row_pad_bits.value,
        dense_synapse=packing.dense_synapse_bits.value,
        dense_pad=packing.dense_axon_pad_bits.value,
        table_entry=packing.table_entry_bits.value,
        banks=packing.table_banks.value,
        accumulator=packing.accumulator_bits.value,
        delay=target.core.delay_max.value.bit_length(),
        neurocore=packing.rows is not None,
    )


def block_bits(reach: Reach, c0: int, c1: int, size: Sizes) -> int:
    """Synapse memory in bits that `reach` needs on a core for its target channels c0..c1.

    A dynamic table belongs to the role of v alone, so that it counts once. Rows of a Sparse are no block: they
    depend on the synapses that are there (`row_bits`).
    """
    if isinstance(reach.item, Sparse):
        return 0
    if size.neurocore:
        return block_words(reach, c0, c1) * size.word
    if isinstance(reach.item, Conv):
        return _conv_bits(reach, reach.item, c0, c1, size)
    if isinstance(reach.item, Dynamic):
        return _table_bits(reach, reach.item, c0, c1, size) if reach.role == 2 else 0
    return (c1 - c0) * size.word  # one word per source channel, which is the target channel


def _conv_bits(reach: Reach, conv: Conv, c0: int, c1: int, size: Sizes) -> int:
    """One row per kernel position and input channel; it holds the synapses of all target channels here."""
    kh, kw, inputs, outputs = conv.weight.shape
    bits, pad = (size.dense_synapse, size.dense_pad) if is_dense(reach) else (size.conv_synapse, size.conv_pad)
    per_group = outputs // conv.groups
    first, last = c0 // per_group, (c1 - 1) // per_group  # groups; only these two may be cut
    if first == last:
        row = up((c1 - c0) * bits, pad)
    else:
        ends = (first + 1) * per_group - c0, c1 - last * per_group
        row = sum(up(n * bits, pad) for n in ends) + (last - first - 1) * up(per_group * bits, pad)
    return kh * kw * inputs * row


def _table_bits(reach: Reach, item: Dynamic, c0: int, c1: int, size: Sizes) -> int:
    """Order kv: d entries per target channel. Order qk: N*N entries per head that is touched."""
    if item.order == "kv":
        entries = (c1 - c0) * reach.depth
    else:
        width = reach.dst_shape[0] // item.heads
        heads = -(-c1 // width) - c0 // width
        entries = heads * (reach.dst_shape[1] * reach.dst_shape[2]) ** 2
    return up(entries * size.table_entry * size.banks, size.word)


def site_tables(reaches: Iterable[Reach]) -> list[Between]:
    """What addresses the targets of one dendrite's convolutions between sites, those with equal windows once.

    A hash table serves all of them: it holds the sites of the target.
    """
    found: dict[object, Between] = {}
    for reach in reaches:
        if reach.between is not None and isinstance(reach.item, Conv):
            found.setdefault(reach.item.sites if reach.between.known else None, reach.between)
    return list(found.values())


def synapse_bits(item: Sparse, size: Sizes) -> int:
    """Bits of one synapse of `item` in its row."""
    low, high = (int(item.weight.min()), int(item.weight.max())) if len(item.weight) else (0, 0)
    one_sign = low >= 0 or high <= 0
    width = max(abs(low), abs(high)).bit_length() if one_sign else max(-low - 1, high).bit_length() + 1
    parts = 1 if width <= size.weight else 2
    return parts * (size.dense_synapse + (0 if item.extra is None else size.delay))


def row_bits(item: Sparse, shape: Shape, boxes: np.ndarray, parts: np.ndarray, size: Sizes) -> np.ndarray:
    """Synapse memory of the rows of `item` for each part of its dendrite of `shape`, int64 [max(parts) + 1].

    ``boxes`` [n, 6] of accumulators and the part that each belongs to: a tile, or a core.
    """
    bits, number = synapse_bits(item, size), int(parts.max()) + 1
    total = np.zeros(number, np.int64)
    held = np.bincount(parts, np.prod(boxes[:, 1::2] - boxes[:, 0::2], axis=1), number).astype(np.int64)
    for _, found in counts(item, painted(shape, boxes, parts), number):
        words = rows_words(item, found, held) * size.word if size.neurocore else up(found * bits, size.dense_pad)
        total += words.sum(axis=0)
    return total


# --- what a whole mapping takes ---------------------------------------------------------------------------


def parameter_sets(program: Program, size: Sizes) -> list[np.ndarray]:
    """Number of the parameter set of every channel of every population, int64 [C] each.

    Equal numbers are equal parameters, across populations: somas of one set can share a profile of the core, as
    the compartment configurations of Loihi are shared. Bias and starting state are each soma's own. A type of the
    neurocore holds the level besides.
    """
    numbers: dict[tuple, int] = {}
    found = []
    for population in program.populations:
        values = population.vth if population.vth is not None else population.thresholds
        if values is None:
            values = np.zeros((1, 0), np.int64)
        p = population
        level = p.level if size.neurocore else 0
        shared: tuple = (p.model, p.du, p.dv, p.restart, p.relu, p.cumulative, p.out_shift, level)
        if p.vth_low is not None:
            values = np.stack([values, p.vth_low], axis=1)
        if p.cell is not None:
            values, shared = _cell_values(p, p.cell), (*shared, p.cell.soft, p.cell.late, p.cell.db, p.cell.sums)
        rows = [tuple(row) for row in values.reshape(len(values), -1).tolist()]
        sets = [numbers.setdefault((shared, row), len(numbers)) for row in rows]
        found.append(np.broadcast_to(np.array(sets, np.int64), population.shape[:1]))
    return found


def _cell_values(p: Population, cell: Cell) -> np.ndarray:
    """What a microcoded soma's program takes as parameters, [C, n]; a table by timestep is one of each soma's own."""
    assert p.thresholds is not None  # validated
    given = [a for a in (cell.step, cell.low, cell.floor, cell.jump) if a is not None]
    tables = [np.broadcast_to(a.T, (p.shape[0], len(a))) for a in (cell.gain, cell.rise) if a is not None]
    ladder = np.broadcast_to(p.thresholds, (p.shape[0], p.thresholds.shape[1]))
    return np.concatenate([ladder, *(a[:, None] for a in given), *tables], axis=1)


def extra_accumulators(program: Program, dendrite: int, size: Sizes) -> int:
    """Accumulators per position of `dendrite` in synapse memory: none where one soma owns the only one.

    Somas of the neurocore have one each, and what comes later waits in its DELAY rows.
    """
    if size.neurocore:
        return 0
    ring = program.dendrites[dendrite].ring
    readers = sum(p.dendrite == dendrite for p in program.populations)
    return 0 if readers == 1 and ring == 1 else ring


def core_usage(program: Program, mapping: Mapping, target: Target) -> Usage:
    """What every core of `mapping` uses of each resource, counted from the tables alone."""
    size, atoms = sizes(target), target.core.axon_atoms.value
    tile_core = mapping.tiles[:, 1].astype(np.int64)
    usage = {name: np.zeros(len(mapping.cores), np.int64) for name in RESOURCES}
    piece_core = tile_core[mapping.pieces[:, 0]]
    _count_somas(program, mapping, piece_core, usage, size)
    bits = _memory_bits(program, mapping, piece_core, size)
    usage["synapse_words"] += -(-bits // size.word)
    _count_axons(program, mapping, tile_core, atoms, usage, size)
    if not size.neurocore:  # there the host writes accumulators
        _count_host_currents(program, mapping, piece_core, atoms, usage)
    return usage


def _count_somas(program: Program, mapping: Mapping, piece_core: np.ndarray, usage: Usage, size: Sizes) -> None:
    groups: set[tuple[int, int]] = set()  # core, parameter set
    for population, sets in zip(program.populations, parameter_sets(program, size), strict=True):
        for piece in np.flatnonzero(mapping.pieces[:, 1] == population.dendrite):
            core, box = int(piece_core[piece]), mapping.pieces[piece, 2:]
            usage["neurons"][core] += int(np.prod(box[1::2] - box[0::2], dtype=np.int64))
            groups.update((core, number) for number in np.unique(sets[box[0] : box[1]]).tolist())
    for core, _ in groups:
        usage["neuron_groups"][core] += 1


def _memory_bits(program: Program, mapping: Mapping, piece_core: np.ndarray, size: Sizes) -> np.ndarray:
    bits = np.zeros(len(mapping.cores), np.int64)
    blocks: dict[tuple, int] = {}
    by_dendrite: dict[int, list[Reach]] = defaultdict(list)
    for reach in find_reaches(program):
        if not isinstance(reach.item, Sparse):
            by_dendrite[reach.dst].append(reach)
    for piece, core in zip(mapping.pieces, piece_core, strict=True):
        dendrite, c0, c1 = int(piece[1]), int(piece[2]), int(piece[3])
        for reach in by_dendrite[dendrite]:
            blocks[(int(core), *block_key(reach, c0, c1))] = block_bits(reach, c0, c1, size)
        bits[core] += sum(int(b.bits(piece[None, 4:6])[0]) for b in site_tables(by_dendrite[dendrite]))
        shared = extra_accumulators(program, dendrite, size) * size.accumulator
        bits[core] += shared * int(np.prod(piece[3::2] - piece[2::2], dtype=np.int64))
        if not size.neurocore:
            bits[core] += (c1 - c0) * size.word * sum(h.dst == dendrite for h in program.host_currents)
    for key, amount in blocks.items():
        bits[key[0]] += amount
    for item in program.sparses:
        held = np.flatnonzero(mapping.pieces[:, 1] == item.dst)
        if len(held):
            shape = program.dendrites[item.dst].shape
            found = row_bits(item, shape, mapping.pieces[held, 2:], piece_core[held], size)
            bits[: len(found)] += found
    return bits


def block_key(reach: Reach, c0: int, c1: int) -> tuple:
    """Blocks of equal keys on one core are one block."""
    if isinstance(reach.item, Conv) and reach.item.weight_key:
        return ("shared", reach.item.weight_key, is_dense(reach), c0, c1)
    return ("own", reach.kind, reach.index, reach.role, c0, c1)


def _count_axons(
    program: Program, mapping: Mapping, tile_core: np.ndarray, atoms: int, usage: Usage, size: Sizes
) -> None:
    axons = mapping.axons.astype(np.int64)
    if not len(axons):
        return
    into, boxes = tile_core[axons[:, 4]], axons[:, 5:]
    reaches = find_reaches(program)
    each = {(r.kind, r.index, r.role): descriptors(r) if size.neurocore else 1 for r in reaches}
    site = {(r.kind, r.index, r.role) for r in reaches if r.carries_site}
    carried = np.array([tuple(row) in site for row in axons[:, 1:4].tolist()])
    for rows in grouped(np.column_stack([into, axons[:, 1:4], axons[:, 0]])):
        entries = axon_entries(boxes[rows], atoms) * each[tuple(axons[rows[0], 1:4].tolist())]
        usage["axons_in"][into[rows[0]]] += 1 if carried[rows[0]] else entries
    sources = axon_ends(program, axons)[0]
    for rows in grouped(np.column_stack([axons[:, 0], sources, into, carried])):
        if axons[rows[0], 0] >= 0:
            entries = 1 if carried[rows[0]] else axon_entries(boxes[rows], atoms)
            usage["axons_out"][tile_core[axons[rows[0], 0]]] += entries


def _count_host_currents(program: Program, mapping: Mapping, piece_core: np.ndarray, atoms: int, usage: Usage) -> None:
    for current in program.host_currents:
        for piece in np.flatnonzero(mapping.pieces[:, 1] == current.dst):
            box = mapping.pieces[piece : piece + 1, 2:].astype(np.int64)
            usage["axons_in"][piece_core[piece]] += axon_entries(box, atoms)
