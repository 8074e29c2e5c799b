"""Random netlists on random small targets against brute-force twins of delivery and of resource counts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapping_nets import random_net, target_with

from nmc_compiler.errors import CapacityError
from nmc_compiler.mapping import find_problems, map_program
from nmc_compiler.mapping.resources import RESOURCES, core_usage, limits
from nmc_compiler.program.model import Conv, Dynamic, Program
from nmc_compiler.target import Target
from nmc_emulator import run

SETTINGS = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)


def small_target(seed: int) -> Target:
    rng = np.random.default_rng(seed)
    return target_with(
        routers=(4, 4),
        neurons=int(rng.integers(20, 300)),
        neuron_groups=int(rng.integers(4, 9)),
        synapse_words=int(rng.integers(100, 3000)),
        axons_in=int(rng.integers(60, 400)),
        axons_out=int(rng.integers(60, 400)),
        axon_atoms=int(rng.integers(1, 9)),
    )


def mapped(seed: int) -> tuple[Program, Target] | None:
    target = small_target(seed)
    try:
        return map_program(random_net(seed), target, "auto", seed=seed)[0], target
    except CapacityError:
        return None


# --- delivery, synapse by synapse ---------------------------------------------------------------------------


def targets_of(program: Program, item, role: str, event: tuple[int, int, int]) -> Counter:
    """Accumulators that an event adds to (of its projection), each with the number of synapses."""
    c, y, x = event
    dst = program.dendrites[item.dst].shape
    if isinstance(item, Conv):
        return conv_targets(program, item, event)
    if isinstance(item, Dynamic):
        return Counter({t: 1 for t in np.ndindex(dst) if meets(program, item, role, c, t[0])})
    if item.mode == "same":
        return Counter([event])
    if item.mode == "reduce":
        return Counter([(c, 0, 0)])
    sources = program.populations[item.src].shape[0]
    if item.mode == "reduce_channels":
        return Counter([(c // (sources // dst[0]), y, x)])
    if item.mode == "broadcast_channels":
        return Counter((c * (dst[0] // sources) + i, y, x) for i in range(dst[0] // sources))
    if item.mode == "broadcast":
        return Counter((c, i, j) for i, j in np.ndindex(dst[1:]))
    return Counter(
        (c, i, j)
        for i, j in np.ndindex(dst[1:])
        if 0 <= y + item.pad[0] - i * item.stride[0] < item.kernel[0]
        and 0 <= x + item.pad[1] - j * item.stride[1] < item.kernel[1]
    )


def conv_targets(program: Program, conv: Conv, event: tuple[int, int, int]) -> Counter:
    c, y, x = event
    found: Counter = Counter()
    kh, kw, per_group, outputs = conv.weight.shape
    group, width = c // per_group, outputs // conv.groups
    for i, j in np.ndindex(conv.out_hw):
        ky = y - (i * conv.stride[0] - conv.pad[0])
        kx = x - (j * conv.stride[1] - conv.pad[1])
        if ky % conv.dilation[0] or kx % conv.dilation[1]:
            continue
        if 0 <= ky // conv.dilation[0] < kh and 0 <= kx // conv.dilation[1] < kw:
            place = (0, 0) if conv.collapse else (i, j)
            for o in range(group * width, (group + 1) * width):
                found[(o, *place)] += 1
    return found


def meets(program: Program, item: Dynamic, role: str, source: int, target: int) -> bool:
    if role == "v":
        return source == target
    width = program.dendrites[item.dst].shape[0] // item.heads
    depth = program.populations[item.q].shape[0] // item.heads
    return source // depth == target // width


def projections(program: Program):
    """(kind, index, role number, role, item, source) of every stream of events."""
    for kind, items in enumerate((program.convs, program.maps)):
        for index, item in enumerate(items):
            yield kind, index, 0, "", item, item.src
    for index, item in enumerate(program.dynamics):
        for number, role in enumerate("qkv"):
            yield 2, index, number, role, item, getattr(item, role)


def inside(box, position) -> bool:
    return all(low <= p < high for low, high, p in zip(box[0::2], box[1::2], position, strict=True))


@SETTINGS
@given(SEEDS)
def test_every_synapse_is_delivered_once_to_every_holder(seed):
    done = mapped(seed)
    if done is None:
        return
    program, _ = done
    mapping = program.mapping
    pieces = {(int(r[0]), int(r[1])): r[2:].tolist() for r in mapping.pieces}
    for kind, index, number, role, item, source in projections(program):
        rows = [r.tolist() for r in mapping.axons if r[1:4].tolist() == [kind, index, number]]
        holders = [(tile, box) for (tile, dendrite), box in pieces.items() if dendrite == item.dst]
        home = program.populations[source].dendrite
        for event in np.ndindex(program.populations[source].shape):
            wanted = targets_of(program, item, role, event)
            arrived = Counter(r[4] for r in rows if inside(r[5:], event))
            senders = {r[0] for r in rows if inside(r[5:], event)}
            where = {t for (t, d), box in pieces.items() if d == home and inside(box, event)} or {-1}
            assert senders <= where
            for tile, box in holders:
                due = any(inside(box, target) for target in wanted)
                assert arrived[tile] == 1 if due else arrived[tile] <= 1
            assert set(arrived) <= {tile for tile, _ in holders}


@SETTINGS
@given(SEEDS)
def test_somas_once_and_pools_complete(seed):
    done = mapped(seed)
    if done is None:
        return
    program, _ = done
    for index, dendrite in enumerate(program.dendrites):
        boxes = [r[2:].tolist() for r in program.mapping.pieces if r[1] == index]
        readers = any(p.dendrite == index for p in program.populations)
        for position in np.ndindex(dendrite.shape):
            held = sum(inside(box, position) for box in boxes)
            assert held == 1 if readers else held >= 1
    pieces = {(int(r[0]), int(r[1])): r[2:].tolist() for r in program.mapping.pieces}
    for transfer in program.transfers:
        shape = program.dendrites[transfer.src].shape
        for (tile, dendrite), box in pieces.items():
            if dendrite != transfer.dst:
                continue
            for c, y, x in product(*(range(box[i], box[i + 1]) for i in (0, 2, 4))):
                for source in transfer_inputs(transfer, shape, c, y, x):
                    assert inside(pieces[tile, transfer.src], source)


def transfer_inputs(transfer, shape, c, y, x):
    if transfer.mode == "sum":
        return [(c, i, j) for i, j in np.ndindex(shape[1:])]
    window = product(range(transfer.kernel[0]), range(transfer.kernel[1]))
    places = [
        (y * transfer.stride[0] - transfer.pad[0] + i, x * transfer.stride[1] - transfer.pad[1] + j) for i, j in window
    ]
    return [(c, i, j) for i, j in places if 0 <= i < shape[1] and 0 <= j < shape[2]]


# --- resources, neuron by neuron and row by row -------------------------------------------------------------


def naive_usage(program: Program, target: Target) -> dict[str, list[int]]:
    mapping, core = program.mapping, [int(c) for c in program.mapping.tiles[:, 1]]
    atoms = target.core.axon_atoms.value
    count = {name: [0] * len(mapping.cores) for name in RESOURCES}
    groups, words = set(), defaultdict(int)
    for tile, dendrite, *box in mapping.pieces.tolist():
        for p in program.populations:
            if p.dendrite == dendrite:
                count["neurons"][core[tile]] += math.prod(b - a for a, b in zip(box[0::2], box[1::2], strict=True))
                groups |= {(core[tile], p.model, p.dv, naive_threshold(p, c)) for c in range(box[0], box[1])}
        naive_memory(program, target, core[tile], dendrite, box, words)
        for h in program.host_currents:
            if h.dst == dendrite:
                channels = -(-(box[1] - box[0]) // atoms)
                count["axons_in"][core[tile]] += channels * (box[3] - box[2]) * (box[5] - box[4])
    for here, *_ in groups:
        count["neuron_groups"][here] += 1
    bits = [0] * len(mapping.cores)
    for (here, *_), amount in words.items():
        bits[here] += amount
    count["synapse_words"] = [-(-b // target.core.synapse_word_bits.value) for b in bits]
    naive_axons(program, core, atoms, count)
    return count


def naive_threshold(p, c):
    if p.vth is not None:
        return int(p.vth[c])
    return None if p.thresholds is None else tuple(p.thresholds[c % len(p.thresholds)].tolist())


def naive_memory(program, target, core, dendrite, box, bits):
    """Add the memory of one piece, keyed so that what is shared on a core is set and not added."""
    pack, word = target.packing, target.core.synapse_word_bits.value
    c0, c1 = box[:2]
    for kind, index, _, role, item, source in projections(program):
        if item.dst != dendrite:
            continue
        src = program.populations[source].shape
        if kind == 0:
            key = item.weight_key or f"conv{index}"
            single = src[1:] == (1, 1) and program.dendrites[dendrite].shape[1:] == (1, 1)
            width = pack.dense_synapse_bits.value if single else target.core.weight_bits.value
            unit = pack.dense_axon_pad_bits.value if single else pack.conv_row_pad_bits.value
            rows = 0
            for channel in range(src[0]):
                outs = [o for o in range(c0, c1) if linked(item, channel, o)]
                rows += -(-len(outs) * width // unit) * unit
            bits[core, "conv", key, single, c0, c1] = rows * item.weight.shape[0] * item.weight.shape[1]
        elif kind == 1:
            bits[core, "map", index, c0, c1] = (c1 - c0) * word
        elif role == "v":
            bits[core, "table", index, c0, c1] = naive_table(program, target, item, c0, c1)
    readers = sum(p.dendrite == dendrite for p in program.populations)
    ring = program.dendrites[dendrite].ring
    if readers != 1 or ring > 1:
        positions = (c1 - c0) * (box[3] - box[2]) * (box[5] - box[4])
        bits[core, "ring", dendrite, *box] += positions * ring * pack.accumulator_bits.value
    bits[core, "host", dendrite, *box] += sum(h.dst == dendrite for h in program.host_currents) * (c1 - c0) * word


def linked(conv, channel, out):
    return channel // conv.weight.shape[2] == out // (conv.weight.shape[3] // conv.groups)


def naive_table(program, target, item, c0, c1):
    q, dst = program.populations[item.q].shape, program.dendrites[item.dst].shape
    tokens, width = dst[1] * dst[2], dst[0] // item.heads
    if item.order == "kv":
        cells = {(i, j) for j in range(c0, c1) for i in range(q[0] // item.heads)}
    else:
        cells = {(j // width, m, n) for j in range(c0, c1) for m in range(tokens) for n in range(tokens)}
    entry = target.packing.table_entry_bits.value * target.packing.table_banks.value
    word = target.core.synapse_word_bits.value
    return -(-len(cells) * entry // word) * word


def naive_axons(program, core, atoms, count):
    into, out = defaultdict(set), defaultdict(set)
    sources = {(kind, index, number): source for kind, index, number, _, _, source in projections(program)}
    for tile, kind, index, number, target_tile, *box in program.mapping.axons.tolist():
        for c, y, x in product(*(range(box[i], box[i + 1]) for i in (0, 2, 4))):
            into[core[target_tile], kind, index, number, tile, y, x].add(c)
            if tile >= 0:
                out[core[tile], tile, sources[kind, index, number], core[target_tile], y, x].add(c)
    for name, entries in (("axons_in", into), ("axons_out", out)):
        for (here, *_), channels in entries.items():
            count[name][here] += -(-len(channels) // atoms)


@SETTINGS
@given(SEEDS)
def test_usage_equals_a_count_neuron_by_neuron(seed):
    done = mapped(seed)
    if done is None:
        return
    program, target = done
    usage = core_usage(program, program.mapping, target)
    assert {name: used.tolist() for name, used in usage.items()} == naive_usage(program, target)
    assert all((used <= limits(target)[name]).all() for name, used in usage.items())


def test_the_properties_are_not_vacuous(thirty):
    """Most random netlists fit, layers are cut, and tiles share cores."""
    tiles = sum(len(p.mapping.tiles) for p, _ in thirty)
    assert tiles > 3 * len(thirty)
    assert sum(len(p.mapping.cores) for p, _ in thirty) < tiles


@pytest.mark.parametrize("number", range(12))
def test_running_from_the_tables_computes_the_netlist(thirty, number):
    """Tick by tick from tiles and axons, and layer by layer from the netlist: the same codes everywhere."""
    program = thirty[number][0]
    images = np.random.default_rng(number).random((2, *program.input_shape)).astype(np.float32)
    ticks, layers = (run(program, images, engine=engine, record="all") for engine in ("ticks", "layers"))
    assert np.array_equal(ticks.logits_int, layers.logits_int)
    for name, codes in layers.codes.items():
        assert np.array_equal(codes, ticks.codes[name])


# --- mutations ----------------------------------------------------------------------------------------------


def mutate(program: Program, rng: np.random.Generator) -> tuple[str, Program]:
    """One damaged row in one table; boxes stay inside their arrays so that only the checker can tell."""
    mapping = program.mapping
    kind = str(rng.choice(["drop axon", "twice axon", "shrink axon", "drop piece", "shrink piece", "grow piece"]))
    name = "axons" if kind.endswith("axon") else "pieces"
    table = getattr(mapping, name).copy()
    row = int(rng.integers(len(table)))
    first = table.shape[1] - 6
    if kind.startswith("drop"):
        table = np.delete(table, row, axis=0)
    elif kind.startswith("twice"):
        table = np.concatenate([table, table[row : row + 1]])
    elif kind.startswith("shrink"):
        axis = int(rng.integers(3))
        table[row, first + 2 * axis + 1] -= 1
    else:
        shape = program.dendrites[int(table[row, 1])].shape
        table[row, first + 1 :: 2] = np.minimum(table[row, first + 1 :: 2] + 1, shape)
        table[row, first::2] = np.maximum(table[row, first::2] - 1, 0)
    return kind, replace(program, mapping=replace(mapping, **{name: table}))


@pytest.fixture(scope="module")
def thirty() -> list[tuple[Program, Target]]:
    found = [done for done in map(mapped, range(40)) if done is not None]
    assert len(found) >= 30
    return found[:30]


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_row_is_noticed(thirty, seed):
    program, target = thirty[seed % 30]
    kind, broken = mutate(program, np.random.default_rng(seed))
    if all(np.array_equal(getattr(broken.mapping, t), getattr(program.mapping, t)) for t in ("axons", "pieces")):
        return  # a piece that is the whole dendrite already cannot grow
    assert find_problems(program, target).problems == []
    assert find_problems(broken, target).problems, kind
