"""Traffic, placement and routes against brute force; placement is never worse and never different."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mapping_nets import Net, random_net, sdt_v1, sdt_v3, spikformer, target_with

from nmc_compiler.errors import UsageError
from nmc_compiler.mapping import map_program
from nmc_compiler.mapping.place import packet_hops, place, slots_of
from nmc_compiler.mapping.route import on_mesh, route
from nmc_compiler.mapping.traffic import UNIFORM_RATE, traffic_matrix
from nmc_compiler.program.validate_mapping import axon_ends
from nmc_compiler.target import load_target

LOIHI2 = load_target("loihi2")


def random_traffic(count: int, seed: int, density: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.exponential(1, (count, count)) * (rng.random((count, count)) < density)


# --- traffic ------------------------------------------------------------------------------------------------


def rates_of(program, seed=0):
    rng = np.random.default_rng(seed)
    return {p.name: rng.random(p.shape) if i % 2 else float(rng.random()) for i, p in enumerate(program.populations)}


@pytest.mark.parametrize("seed", [0, 1, 2, 7])
def test_traffic_event_by_event(seed):
    """One packet per event and destination core, whatever waits there; host events come from outside."""
    target = target_with(routers=(4, 4), neurons=60, synapse_words=3000)
    program = map_program(random_net(seed), target, "auto")[0]
    mapping, rates = program.mapping, rates_of(program)
    core = mapping.tiles[:, 1]
    sources = axon_ends(program, mapping.axons)[0]
    reached = {}
    for row, source in zip(mapping.axons.tolist(), sources.tolist(), strict=True):
        tile, *_, into = row[:5]
        c0, c1, y0, y1, x0, x1 = row[5:]
        for position in itertools.product(range(c0, c1), range(y0, y1), range(x0, x1)):
            if tile >= 0:
                reached.setdefault((int(core[tile]), source, position), set()).add(int(core[into]))
    expected = np.zeros((len(mapping.cores),) * 2)
    for (here, source, position), cores in reached.items():
        p = program.populations[source]
        for there in cores:
            expected[here, there] += np.broadcast_to(rates[p.name], p.shape)[position]
    np.testing.assert_allclose(traffic_matrix(program, mapping, rates), expected, rtol=1e-12)


def test_uniform_rate_and_bad_rates():
    net = Net((1, 2, 2))
    net.image(net.dendrite((2, 2, 2)), 0)
    net.soma(0, 0, name="a")
    dst = net.dendrite((2, 2, 2))
    net.conv(0, dst, 1)
    net.soma(dst, 1, "readout", "readout", name="b")
    program = map_program(net.build(), LOIHI2)[0]
    assert traffic_matrix(program, program.mapping).tolist() == [[pytest.approx(8 * UNIFORM_RATE)]]
    assert traffic_matrix(program, program.mapping, {"a": np.full((2, 1, 1), 0.5)}).tolist() == [[4.0]]
    for rates, text in (
        ({"c": 1.0}, "no population is called 'c'"),
        ({"b": 1.0}, "none for population 'a'; measure all"),
        ({"a": -1.0}, "rates['a']: a rate is negative or not finite"),
        ({"a": float("nan")}, "negative or not finite"),
        ({"a": np.ones(3)}, "(3,) does not broadcast to (2, 2, 2)"),
        ({"a": "fast"}, "rates['a']"),
    ):
        with pytest.raises(UsageError) as error:
            map_program(net.build(), LOIHI2, rates=rates)
        assert text in str(error.value)


# --- placement ----------------------------------------------------------------------------------------------


def test_slots_are_row_major():
    slots = slots_of(target_with(routers=(2, 2), cores_per_router=2), 2).tolist()
    assert slots[:6] == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert slots[8] == [1, 0, 0, 0] and len(slots) == 16


@pytest.mark.parametrize("seed", range(6))
def test_small_placements_are_optimal(seed):
    """All orders of 6 cores on a 3 x 2 mesh, by brute force."""
    target = target_with(routers=(3, 2), cores_per_router=1)
    traffic = random_traffic(6, seed, 0.5)
    slots = on_mesh(slots_of(target, 1), target)
    best = min(packet_hops(traffic, slots[list(order)]) for order in itertools.permutations(range(6)))
    assert place(traffic, target, seed=seed)[1].final == pytest.approx(best)


@pytest.mark.parametrize(("count", "chips", "seed"), [(1, 1, 0), (2, 1, 1), (40, 1, 2), (128, 1, 3), (200, 2, 4)])
def test_never_worse_and_never_different(count, chips, seed):
    traffic = random_traffic(count, seed)
    cores, report = place(traffic, LOIHI2, chips, seed)
    again, _ = place(traffic, LOIHI2, chips, seed)
    assert np.array_equal(cores, again)
    assert report.final <= report.greedy and report.final <= report.row_major
    assert report.final == pytest.approx(packet_hops(traffic, on_mesh(cores, LOIHI2)))
    row_major = on_mesh(slots_of(LOIHI2, chips)[:count], LOIHI2)
    assert report.row_major == pytest.approx(packet_hops(traffic, row_major))
    assert len(np.unique(cores, axis=0)) == count
    assert (
        (cores[:, 0] < chips).all() and (cores[:, 1] < 8).all() and (cores[:, 2] < 4).all() and (cores[:, 3] < 4).all()
    )


def test_no_traffic():
    cores, report = place(np.zeros((5, 5)), LOIHI2)
    assert report.final == report.row_major == 0 and report.saving == 0
    assert cores.tolist() == slots_of(LOIHI2, 1)[:5].tolist()


@pytest.mark.parametrize("make", [sdt_v1, spikformer, sdt_v3])
@pytest.mark.parametrize("seed", [None, 1])
def test_transformers_save_a_fifth_and_more(make, seed):
    """Against row-major order of the same partition, at uniform rates and at random ones."""
    program = make()
    rates = None
    if seed is not None:
        rng = np.random.default_rng(seed)
        rates = {p.name: float(rng.uniform(0.02, 0.4)) for p in program.populations}
    report = map_program(program, LOIHI2, rates=rates)[1]
    assert report.placement.saving >= 0.2
    assert report.placement.final <= report.placement.greedy
    assert report.measured_rates == (seed is not None)


# --- routes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chips", [1, 3])
def test_routes_packet_by_packet(chips):
    target = target_with(routers=(3, 4), cores_per_router=2)
    count = 24 * chips
    rng = np.random.default_rng(chips)
    cores = slots_of(target, chips)[rng.permutation(count)]
    traffic = random_traffic(count, chips)
    report = route(traffic, cores.astype(np.int32), target, chips)
    links, totals = {}, dict.fromkeys(("packets", "local", "x", "y", "crossings"), 0.0)
    for src, dst in np.argwhere(traffic):
        load = traffic[src, dst]
        steps = list(walk(cores[src], cores[dst], 3))
        totals["packets"] += load
        totals["local"] += load * (not steps)
        for step in steps:
            links[step] = links.get(step, 0.0) + load
            totals["x" if step[2] in "ew" else "y"] += load
            totals["crossings"] += load * (
                step[2] in "ew" and (step[0] // 3 != (step[0] + (1 if step[2] == "e" else -1)) // 3)
            )
    found = (report.packets, report.local_packets, report.hops_x, report.hops_y, report.crossings)
    assert found == pytest.approx(tuple(totals.values()))
    assert report.hops == pytest.approx(packet_hops(traffic, on_mesh(cores, target)))
    assert report.max_link == pytest.approx(max(links.values()))
    for table, name, dx, dy in (
        (report.east, "e", 0, 0),
        (report.west, "w", 1, 0),
        (report.south, "s", 0, 0),
        (report.north, "n", 0, 1),
    ):
        for (y, x), load in np.ndenumerate(table):
            assert load == pytest.approx(links.get((x + dx, y + dy, name), 0.0), abs=1e-9)


def walk(src, dst, wide):
    """Routers left on the way, with the direction taken: along x first, then along y."""
    x, y = int(src[0] * wide + src[1]), int(src[2])
    goal_x, goal_y = int(dst[0] * wide + dst[1]), int(dst[2])
    while x != goal_x:
        yield x, y, "e" if goal_x > x else "w"
        x += 1 if goal_x > x else -1
    while y != goal_y:
        yield x, y, "s" if goal_y > y else "n"
        y += 1 if goal_y > y else -1
