"""Packets from events: what each event brings to each core, in the order of emission."""

from typing import NamedTuple

import numpy as np
from numba import njit


class Rows(NamedTuple):
    """Per cell c, entries ``start[c]:start[c + 1]``: what one event brings to a tile, given by its rank.

    reads: axon entries met; ops: SynOps; cost: ps of synaptic work, without the price of reception.
    """

    start: np.ndarray  # int64 [cells + 1]
    rank: np.ndarray  # int32
    reads: np.ndarray  # int32
    ops: np.ndarray  # int32
    cost: np.ndarray  # int64


class Later(NamedTuple):
    """Per cell, work that is done ``late`` ticks after emission (a table read before its time)."""

    start: np.ndarray
    rank: np.ndarray
    ops: np.ndarray
    cost: np.ndarray
    late: np.ndarray


class Writes(NamedTuple):
    """Per cell, tiles whose table an event of the population writes; and the tables, one per Dynamic."""

    start: np.ndarray
    rank: np.ndarray
    dynamic: np.ndarray
    key_of_head: np.ndarray  # bool [dynamics]: coincidence at a head and token ("kv"), not at a channel
    heads: np.ndarray
    late: np.ndarray
    cost: np.ndarray  # ps per entry written
    keys: np.ndarray  # keys per timestep


class Places(NamedTuple):
    """Per population: where its somas and cells stand in the tables; per tile, by rank: its core."""

    soma: np.ndarray  # int64 [populations]: first soma in ``core`` and ``order``
    core: np.ndarray  # int32 [somas]: core of the soma, -1 the host
    order: np.ndarray  # int32 [somas]: how many somas of the population its core updates before it
    channel: np.ndarray  # int64 [populations]: first channel in ``segment``
    segment: np.ndarray  # int32 [channels of all populations]
    channels: np.ndarray  # int64 [populations]
    area: np.ndarray  # int64 [populations]: H * W
    cell: np.ndarray  # int64 [populations]: first cell
    cells: np.ndarray  # int64 [populations]: cells of one variant
    variants: np.ndarray  # int64 [populations]: largest lag + 1; variant v is for v timesteps still to come
    rank_core: np.ndarray  # int32 [tiles]


class Synapses(NamedTuple):
    """Sparse projections, population by population: ``first[p]:first[p + 1]`` leave population p."""

    first: np.ndarray  # int64 [populations + 1]
    indptr: object  # typed list of int64 arrays
    target: object  # typed list of int32 arrays
    rank: object  # typed list of int32 [copies, accumulators]: tiles that hold it, -1 for none
    lag: np.ndarray
    cost: np.ndarray  # ps per synapse


@njit(cache=True, nogil=True)
def order_events(tick, core, cores, ticks):
    """Stable order of events by (tick, core), int64 [events]; ticks from 0, cores from -1."""
    width = cores + 1
    start = np.zeros(ticks * width + 1, np.int64)
    for e in range(len(tick)):
        start[tick[e] * width + core[e] + 2] += 1
    for b in range(1, len(start)):
        start[b] += start[b - 1]
    order = np.empty(len(tick), np.int64)
    for e in range(len(tick)):
        b = tick[e] * width + core[e] + 1
        order[start[b]] = e
        start[b] += 1
    return order


@njit(cache=True, nogil=True)
def count_keys(step, soma, first_step, area, channels, heads, key_of_head, keys, count):
    """count[(step - first) * keys + key] += 1 for events that write a table together with others."""
    for e in range(len(step)):
        channel, position = soma[e] // area, soma[e] % area
        key = channel * heads // channels * area + position if key_of_head else channel
        count[(step[e] - first_step) * keys + key] += 1


@njit(cache=True, nogil=True)
def lowest_bit(word):
    """Number of the lowest set bit of a nonzero uint64."""
    at = 0
    if word & np.uint64(0xFFFFFFFF) == 0:
        at, word = at + 32, word >> np.uint64(32)
    if word & np.uint64(0xFFFF) == 0:
        at, word = at + 16, word >> np.uint64(16)
    if word & np.uint64(0xFF) == 0:
        at, word = at + 8, word >> np.uint64(8)
    if word & np.uint64(0xF) == 0:
        at, word = at + 4, word >> np.uint64(4)
    if word & np.uint64(0x3) == 0:
        at, word = at + 2, word >> np.uint64(2)
    if word & np.uint64(0x1) == 0:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _rows(rows, cell, touched, tile_reads, tile_ops, tile_cost):
    """Add what an event of a cell brings to tiles by tables."""
    for r in range(rows.start[cell], rows.start[cell + 1]):
        rank = rows.rank[r]
        touched[rank >> 6] |= np.uint64(1) << np.uint64(rank & 63)
        tile_reads[rank] += rows.reads[r]
        tile_ops[rank] += rows.ops[r]
        tile_cost[rank] += rows.cost[r]


@njit(cache=True, nogil=True)
def _put_off(later, cell, tick, rank_core, extra_cost, extra_ops):
    """Book the work that an event causes in a later tick."""
    for r in range(later.start[cell], later.start[cell + 1]):
        at, core = tick + later.late[r], rank_core[later.rank[r]]
        extra_cost[at, core] += later.cost[r]
        extra_ops[at, core] += later.ops[r]


@njit(cache=True, nogil=True)
def _write(writes, cell, event, keys, tile_ops, tile_cost, rank_core, extra_cost, extra_ops):
    """Table entries written because an event meets others; event: (tick, step, channel, position, area, channels)."""
    tick, step, channel, position, area, channels = event
    key_start, key_step, key_count = keys
    for r in range(writes.start[cell], writes.start[cell + 1]):
        d, rank = writes.dynamic[r], writes.rank[r]
        head = channel * writes.heads[d] // channels
        key = head * area + position if writes.key_of_head[d] else channel
        done = key_count[key_start[d] + (step - key_step[d]) * writes.keys[d] + key]
        if writes.late[d] == 0:
            tile_ops[rank] += done
            tile_cost[rank] += done * writes.cost[d]
        else:
            at, core = tick + writes.late[d], rank_core[rank]
            extra_cost[at, core] += done * writes.cost[d]
            extra_ops[at, core] += done


@njit(cache=True, nogil=True)
def _synapses(targets, ranks, price, works, stamp, met, touched, tile_reads, tile_ops, tile_cost):
    """Add the synapses of one soma in one projection: an axon read per tile, a SynOp per synapse that ``works``."""
    for copy in range(len(ranks)):
        row = ranks[copy]
        for target in targets:
            rank = row[target]
            if rank < 0:
                continue
            if met[rank] != stamp:
                met[rank] = stamp
                touched[rank >> 6] |= np.uint64(1) << np.uint64(rank & 63)
                tile_reads[rank] += 1
            tile_ops[rank] += works
            tile_cost[rank] += works * price


@njit(cache=True, nogil=True)
def deliver(events, steps, places, rows, later, writes, synapses, keys, extra, out):
    """Deliveries of events, one per receiving core, cores in order of (router x, router y, number).

    events: (tick, population, soma, step) arrays in order of emission, ticks counted from the block's
    first; ``steps`` timesteps of a window (0: no end); keys: (start, first step, counts) of ``count_keys``, by
    Dynamic.  out: (first [E + 1], dst, reads, ops, cost); extra: (cost, ops) int64 [ticks + later ones, cores]
    gets work that is put off.  Returns the number of deliveries.
    """
    tick, population, soma, step = events
    first, dst, reads, ops, cost = out
    extra_cost, extra_ops = extra
    tiles = len(places.rank_core)
    tile_reads, tile_ops = np.zeros(tiles, np.int32), np.zeros(tiles, np.int32)
    tile_cost, met = np.zeros(tiles, np.int64), np.zeros(tiles, np.int64)
    touched = np.zeros((tiles + 63) >> 6, np.uint64)
    n = stamp = 0
    for e in range(len(tick)):
        first[e] = n
        p, s = population[e], np.int64(soma[e])
        area, channels = places.area[p], places.channels[p]
        channel = s // area
        position = s - channel * area
        variant = places.variants[p] - 1
        if steps > 0:
            variant = min(variant, steps - 1 - step[e] % steps)
        cell = places.segment[places.channel[p] + channel] * area + position
        cell += places.cell[p] + variant * places.cells[p]
        _rows(rows, cell, touched, tile_reads, tile_ops, tile_cost)
        _put_off(later, cell, tick[e], places.rank_core, extra_cost, extra_ops)
        event = tick[e], step[e], channel, position, area, channels
        _write(writes, cell, event, keys, tile_ops, tile_cost, places.rank_core, extra_cost, extra_ops)
        for k in range(synapses.first[p], synapses.first[p + 1]):
            indptr, stamp = synapses.indptr[k], stamp + 1
            works = steps == 0 or step[e] % steps + synapses.lag[k] < steps
            targets, form = synapses.target[k][indptr[s] : indptr[s + 1]], (synapses.cost[k], works, stamp)
            _synapses(targets, synapses.rank[k], *form, met, touched, tile_reads, tile_ops, tile_cost)
        n = _collect(touched, places.rank_core, tile_reads, tile_ops, tile_cost, n, dst, reads, ops, cost)
    first[len(tick)] = n
    return n


@njit(cache=True, nogil=True)
def _collect(touched, rank_core, tile_reads, tile_ops, tile_cost, n, dst, reads, ops, cost):
    """Write the deliveries of one event behind n, one per core, and clear the scratch arrays."""
    start = n
    for w in range(len(touched)):
        word = touched[w]
        touched[w] = 0
        while word:
            rank = (w << 6) + lowest_bit(word)
            word &= word - np.uint64(1)
            core = rank_core[rank]
            if n == start or dst[n - 1] != core:
                dst[n], reads[n], ops[n], cost[n] = core, 0, 0, 0
                n += 1
            reads[n - 1] += tile_reads[rank]
            ops[n - 1] += tile_ops[rank]
            cost[n - 1] += tile_cost[rank]
            tile_reads[rank], tile_ops[rank], tile_cost[rank] = 0, 0, 0
    return n
