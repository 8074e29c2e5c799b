"""Random recurrent networks on random small targets: every synapse reached once, counted by brute force."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapping_nets import target_with
from networks import random_network

from nmc_compiler.errors import CapacityError, UsageError
from nmc_compiler.mapping import check_mapping, find_problems, map_program, split_evenly
from nmc_compiler.mapping import rows as rows_module
from nmc_compiler.mapping.resources import core_usage, limits, synapse_bits
from nmc_compiler.mapping.resources import sizes as sizes_of
from nmc_compiler.mapping.traffic import traffic_matrix
from nmc_compiler.program import program_digest, validate_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import Target, load_target

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
LOIHI2 = load_target("loihi2")


def small_target(seed: int, base: str = "loihi2") -> Target:
    rng = np.random.default_rng(seed)
    return target_with(
        base,
        routers=(4, 4),
        neurons=int(rng.integers(3, 16)),
        neuron_groups=8,
        synapse_words=int(rng.integers(60, 900)),
        axons_in=int(rng.integers(30, 100)),
        axons_out=int(rng.integers(30, 100)),
        axon_atoms=int(rng.integers(1, 9)),
        delay_max=63,
    )


def mapped(seed: int, convs: bool = True) -> tuple[Program, Target] | None:
    target = small_target(seed)
    try:
        return map_program(random_network(seed, convs=convs).program(), target, "auto", seed=seed)[0], target
    except CapacityError:
        return None


def synapses(program: Program):
    """(projection, source soma, its coordinates, target coordinates) of every synapse."""
    for index, item in enumerate(program.sparses):
        src, dst = program.populations[item.src].shape, program.dendrites[item.dst].shape
        for s in range(len(item.indptr) - 1):
            for t in item.target[item.indptr[s] : item.indptr[s + 1]].tolist():
                yield index, s, np.unravel_index(s, src), np.unravel_index(t, dst)


def inside(box, position) -> bool:
    return all(low <= p < high for low, high, p in zip(box[0::2], box[1::2], position, strict=True))


def faults(program: Program) -> list[str]:
    """What is wrong with the axon rows of synapses one by one, looked up synapse by synapse."""
    mapping, found = program.mapping, []
    pieces = {(int(r[0]), int(r[1])): r[2:].tolist() for r in mapping.pieces}
    rows = [r.tolist() for r in mapping.axons if r[1] == 3]
    useful: set[int] = set()
    for index, _, source, target in synapses(program):
        item = program.sparses[index]
        for (tile, dendrite), box in pieces.items():
            if dendrite == item.dst and inside(box, target):
                mine = [i for i, r in enumerate(rows) if r[2] == index and r[4] == tile and inside(r[5:], source)]
                useful |= set(mine)
                if len(mine) != 1:
                    found.append(f"synapse of {index} from {source} reached {len(mine)} times")
    for number, row in enumerate(rows):
        home = program.populations[program.sparses[row[2]].src].dendrite
        box = pieces.get((row[0], home))
        if row[0] >= 0 and any(not box[i] <= row[5 + i] < row[6 + i] <= box[i + 1] for i in (0, 2, 4)):
            found.append(f"row {number} takes somas that its tile has not")
        if number not in useful:
            found.append(f"row {number} is in vain")
    return found


# --- delivery -----------------------------------------------------------------------------------------------


@SETTINGS
@given(SEEDS)
def test_every_synapse_is_reached_once(seed):
    done = mapped(seed)
    if done is None:
        return
    program, target = done
    assert faults(program) == []
    result = check_mapping(program, target)
    if not program.convs:
        assert result.synapses == sum(len(item.target) for item in program.sparses)
    rows = program.mapping.axons[program.mapping.axons[:, 1] == 3]
    pairs = Counter(map(tuple, rows[:, [0, 2, 4]].tolist()))
    assert set(pairs.values()) <= {1}  # one row per projection, source tile and destination tile


@pytest.fixture(scope="module")
def some() -> list[tuple[Program, Target]]:
    return [done for done in map(mapped, range(30)) if done is not None and (done[0].mapping.axons[:, 1] == 3).any()]


@pytest.mark.parametrize("seed", range(80))
def test_a_damaged_row_is_noticed(some, seed):
    """The checker and the brute-force twin agree on any damage."""
    program, target = some[seed % len(some)]
    rng = np.random.default_rng(seed)
    axons = program.mapping.axons.copy()
    mine = np.flatnonzero(axons[:, 1] == 3)
    row, last = int(rng.choice(mine)), mine[-1]
    kind = ("drop", "twice", "shrink", "move", "swap")[seed % 5]
    if kind == "drop":
        axons = np.delete(axons, row, axis=0)
    elif kind == "twice":
        axons = np.concatenate([axons, axons[row : row + 1]])
    elif kind == "shrink":
        axons[row, 6 + 2 * int(rng.integers(3))] -= 1
    elif kind == "move":
        axons[row, 4] = rng.integers(len(program.mapping.tiles))
    else:
        axons[row, 4], axons[last, 4] = axons[last, 4], axons[row, 4]
    broken = replace(program, mapping=replace(program.mapping, axons=axons))
    pieces = {tuple(p) for p in program.mapping.pieces[:, :2].tolist()}
    homeless = any((r[4], program.sparses[r[2]].dst) not in pieces for r in axons.tolist() if r[1] == 3)
    empty = (axons[:, 5::2] >= axons[:, 6::2]).any()
    found = "\n".join(find_problems(broken, target).problems)
    assert ("sparse 'c" in found) == bool(faults(broken) or homeless or empty)


def test_texts_of_the_checker():
    program = split_evenly(ring(12), 3, LOIHI2)
    mapping = program.mapping

    def problems(axons) -> str:
        return "\n".join(find_problems(replace(program, mapping=replace(mapping, axons=axons)), LOIHI2).problems)

    assert problems(mapping.axons) == ""
    assert "sparse 'w': the event of source [3, 0, 0] reaches tile 1 0 times instead of once (1 such)" in problems(
        mapping.axons[~((mapping.axons[:, 0] == 0) & (mapping.axons[:, 4] == 1))]
    )
    stray = mapping.axons[:1].copy()
    stray[0, :] = 1, 3, 0, 0, 0, 4, 8, 0, 1, 0, 1
    text = problems(np.concatenate([mapping.axons, stray]))
    assert f"sparse 'w': axon {len(mapping.axons)} brings [4, 8, 0, 1, 0, 1] to tile 0 without any synapse" in text
    taken = mapping.axons.copy()
    taken[0, 6] = 12
    assert "sparse 'w': axon 0 takes [0, 12, 0, 1, 0, 1] from a tile without all of these somas" in problems(taken)


def ring(n: int) -> Program:
    """Soma i drives soma i and i + 1."""
    net = Network("ring")
    net.lif("p", n, vth=1)
    target = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1).ravel()
    net.sparse("w", 0, 0, np.arange(n + 1) * 2, target, np.ones(2 * n, int))
    return net.program()


# --- resources and traffic ----------------------------------------------------------------------------------


def naive_words(program: Program, target: Target) -> list[int]:
    """Synapse memory of every core, row by row."""
    mapping, pack = program.mapping, target.packing
    core = mapping.tiles[:, 1].tolist()
    rows: Counter = Counter()
    for index, s, _, position in synapses(program):
        for tile, dendrite, *box in mapping.pieces.tolist():
            if dendrite == program.sparses[index].dst and inside(box, position):
                rows[core[tile], index, s] += 1
    bits = [0] * len(mapping.cores)
    for (here, index, _), number in rows.items():
        unit = pack.dense_axon_pad_bits.value
        bits[here] += -(-number * naive_synapse_bits(program.sparses[index], target) // unit) * unit
    for tile, dendrite, *box in mapping.pieces.tolist():
        readers = sum(p.dendrite == dendrite for p in program.populations)
        depth = program.dendrites[dendrite].ring
        if readers != 1 or depth > 1:
            size = (box[1] - box[0]) * (box[3] - box[2]) * (box[5] - box[4])
            bits[core[tile]] += size * depth * pack.accumulator_bits.value
    return [-(-b // target.core.synapse_word_bits.value) for b in bits]


def naive_synapse_bits(item, target: Target) -> int:
    """20 bits on loihi2, 6 more with delays, all of it twice where 8 bits do not hold the weight."""
    one_sign = bool((item.weight >= 0).all() or (item.weight <= 0).all())
    fits = bool((np.abs(item.weight.astype(int)) <= 255).all()) if one_sign else item.weight.dtype == np.int8
    if not one_sign and item.weight.dtype == np.int16:
        fits = bool(((item.weight >= -128) & (item.weight <= 127)).all())
    bits = target.packing.dense_synapse_bits.value + (6 if item.extra is not None else 0)
    return bits if fits else 2 * bits


@SETTINGS
@given(SEEDS)
def test_usage_equals_a_count_row_by_row(seed):
    done = mapped(seed, convs=False)
    if done is None:
        return
    program, target = done
    usage = core_usage(program, program.mapping, target)
    assert usage["synapse_words"].tolist() == naive_words(program, target)
    assert all((used <= limits(target)[name]).all() for name, used in usage.items())


@SETTINGS
@given(SEEDS)
def test_traffic_is_counted_soma_by_soma(seed):
    done = mapped(seed)
    if done is None:
        return
    program, _ = done
    mapping, core = program.mapping, program.mapping.tiles[:, 1]
    rng = np.random.default_rng(seed)
    rates = {p.name: rng.random(p.shape) for p in program.populations}
    home = {(int(d), *np.array(box)): int(core[t]) for t, d, *box in mapping.pieces.tolist()}
    packets: dict[tuple, float] = defaultdict(float)
    for index, _, source, position in synapses(program):
        item = program.sparses[index]
        sender = program.populations[item.src]
        here = [c for (d, *box), c in home.items() if d == sender.dendrite and inside(box, source)]
        for (d, *box), there in home.items():
            if here and d == item.dst and inside(box, position):
                packets[here[0], there, item.src, *source] = float(rates[sender.name][source])
    for tile, _, index, _, into, *box in (r.tolist() for r in mapping.axons if r[1] == 0 and r[0] >= 0):
        sender = program.populations[program.convs[index].src]
        for source in np.ndindex(sender.shape):
            if inside(box, source):
                key = (int(core[tile]), int(core[into]), program.convs[index].src, *source)
                packets[key] = float(rates[sender.name][source])
    expected = np.zeros((len(mapping.cores),) * 2)
    for (here, there, *_), rate in packets.items():
        expected[here, there] += rate
    assert np.allclose(traffic_matrix(program, mapping, rates), expected, rtol=1e-12, atol=0)


def test_synapse_bits():
    size = sizes_of(LOIHI2)

    def bits(*weights, **options):
        net = Network("one")
        net.lif("p", len(weights), vth=1)
        net.sparse("w", 0, 0, [0] * len(weights) + [len(weights)], range(len(weights)), weights, **options)
        return synapse_bits(net.program().sparses[0], size)

    assert bits(1, -128) == bits(255, 1) == bits(-255, 0) == bits(-256, 254) == 20
    assert bits(1, -129) == bits(256, 1) == 40
    assert bits(1, 3, delay=5) == 26 and bits(256, 1, delay=1) == 52


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_change_nothing(block, monkeypatch):
    """Small blocks of synapses: the same tables and the same counts."""
    program = random_network(4).program()
    one = map_program(program, LOIHI2)[0]
    monkeypatch.setattr(rows_module, "BLOCK", block)
    monkeypatch.setattr("nmc_compiler.mapping.check_rows.SLAB", block)
    other = map_program(program, LOIHI2)[0]
    assert program_digest(one) == program_digest(other)


def test_the_properties_are_not_vacuous(some):
    assert len(some) >= 20
    assert sum(len(p.mapping.tiles) for p, _ in some) > 4 * len(some)
    assert sum(len(p.transfers) for p, _ in some) > 10
    assert any(d.ring > 4 for p, _ in some for d in p.dendrites)


@pytest.mark.parametrize("name", ["loihi2", "generic-mesh"])
@pytest.mark.parametrize("seed", range(6))
def test_bundled_targets(name, seed):
    program = random_network(seed, timesteps=4).program()
    target = target_with(name, payload_bits=24, neuron_groups=8)
    mapped_program, report = map_program(program, target)
    validate_program(mapped_program)
    assert report.check.problems == [] and report.cores >= 1
    assert program_digest(mapped_program) == program_digest(map_program(program, target)[0])


def test_delays_that_a_target_has_not():
    net = Network("late")
    net.lif("p", 3, vth=1)
    net.dense("w", 0, 0, np.eye(3, dtype=int), delay=16)
    text = r"projection 'w' needs a delay of 17 ticks, but generic-mesh has 16 \(delay 17/16\). Insert relay"
    with pytest.raises(CapacityError, match=text):
        map_program(net.program(), load_target("generic-mesh"))


def test_a_row_that_no_core_can_hold():
    net = Network("wide")
    net.lif("p", 3, vth=1)
    net.sparse("w", 0, 0, [0, 900, 900, 900], np.zeros(900, int), np.ones(900, int))
    with pytest.raises(CapacityError, match=r"layer 'p': its smallest tile needs 282 synapse_words of one core, but a"):
        map_program(net.program(), target_with(synapse_words=281))
    assert map_program(net.program(), target_with(synapse_words=282))[1].cores == 1


def test_rows_are_packed_by_exact_count():
    """1 000 somas with 40 synapses each: the bound would pad each synapse to a word, the count does not."""
    rng = np.random.default_rng(0)
    net = Network("packed")
    net.lif("p", 1000, vth=1)
    net.sparse("w", 0, 0, np.arange(1001) * 40, rng.integers(0, 1000, 40_000), rng.integers(-9, 9, 40_000))
    _, report = map_program(net.program(), LOIHI2)
    used = [core["synapse_words"][0] for core in report.utilisation]
    assert report.cores == 2 and min(used) > 5_000


# --- a given layout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_split_evenly(seed):
    rng = np.random.default_rng(seed)
    program, cores = random_network(seed).program(), int(rng.integers(1, 40))
    spread = split_evenly(program, cores, LOIHI2)
    validate_program(spread)
    assert faults(spread) == []
    assert [p for p in find_problems(spread, LOIHI2).problems if "sparse" in p or "dendrite" in p or "tile" in p] == []
    mapping = spread.mapping
    for p in program.populations:
        if p.dendrite < 0:
            continue
        size = int(np.prod(p.shape))
        for i in range(size):
            at = np.unravel_index(i, p.shape)
            held = [t for t, d, *box in mapping.pieces.tolist() if d == p.dendrite and inside(box, at)]
            assert [int(mapping.tiles[t, 1]) for t in held] == [i * cores // size]
    assert mapping.cores[:6].tolist() == [[0, i // 4, 0, i % 4] for i in range(min(cores, 6))]
    if cores > 33:
        assert mapping.cores[33].tolist() == [0, 0, 1, 1]


def test_split_evenly_over_chips():
    spread = split_evenly(ring(300), 130, LOIHI2)
    assert spread.mapping.chips == 2 and spread.mapping.cores[128].tolist() == [1, 0, 0, 0]


def test_split_evenly_refusals():
    from mapping_nets import sdt_v1, spikformer

    with pytest.raises(UsageError, match="cores 0: expected a whole number of at least 1"):
        split_evenly(ring(4), 0, LOIHI2)
    with pytest.raises(CapacityError, match="64 cores need 2 chips, but loihi2 has 1; ask for fewer cores"):
        split_evenly(ring(4), 64, target_with(routers=(2, 4), chips_max=1))
    with pytest.raises(UsageError, match="reads more than one position; map the network with map_program"):
        split_evenly(sdt_v1(16, 16, 1, 2), 4, LOIHI2)
    with pytest.raises(UsageError, match="keeps whole heads together; map the network with map_program"):
        split_evenly(replace(spikformer(16, 16, 1, 2), transfers=()), 4, LOIHI2)
