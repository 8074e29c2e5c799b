"""Time on the mesh: cases written out by hand, what must hold for any traffic, and how it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noc_traffic import on_mesh, prices, random_network, random_trace
from programs import map_program, random_images, random_program

from nmc_compiler.errors import CapacityError, UsageError
from nmc_compiler.program.network import Network
from nmc_emulator import run
from nmc_emulator.layout import resolve
from nmc_emulator.noc import NocSpec, simulate
from nmc_emulator.noc.schedule import Schedule
from nmc_emulator.price_profile import load_profile
from nmc_emulator.rates import rates_of
from nmc_emulator.trace import Events, Trace, trace_of

FREE = {
    "neuron_active": 0.0, "neuron_inactive": 0.0, "spike_out": 0.0, "axon_out": 0.0, "axon_in": 0.0,
    "synop_sparse": 0.0, "hop_ew": 3.0, "hop_ns": 3.0,
}  # fmt: skip


def wired(pairs: list[tuple[int, int]], cores: int):
    """One soma per core, a synapse from soma to soma for each pair."""
    net = Network("wired")
    p = net.lif("pop", cores, vth=100)
    rows = [[b for a, b in pairs if a == soma] for soma in range(cores)]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    target = np.array([t for r in rows for t in r], np.int64)
    net.sparse("s", p, p, indptr, target, np.ones(len(target), np.int64))
    return net.program()


def fires(*somas: int) -> Trace:
    """All these somas fire in the only timestep."""
    at = np.array(sorted(somas), np.int32)
    return Trace({0: Events(np.zeros(len(at), np.int64), at, None)}, 1, 1)


# --- by hand --------------------------------------------------------------------------------------------------
#
# Cores 0 and 1 stand at router (0,0), core 2 at (1,0). Somas 0 and 1 fire at once, each for core 2: both packets
# want the link (0,0)->(1,0). A flit takes a cycle of 1 ns on a link, and 3 cycles to the next router.
#
# cycle              0      1      2      3      4      5      6      7      8      9  ...  14
# link               A      B
# router (1,0)                            A->    B->                                          (arrive and leave)
# axon input                                     A      B
# core 2, 5 cycles                               A----------------------------------B-------|
CONTENTION = wired([(0, 2), (1, 2)], 3)


@pytest.mark.parametrize("fidelity", ["queue", "cycle"])
@pytest.mark.parametrize(
    ("service", "spec", "busy"),
    [
        (5.0, NocSpec(flit_ns=1.0), 14.0),  # the table above
        (0.0, NocSpec(flit_ns=1.0), 5.0),  # B is in the axon input in cycle 5 and served at once
        # One flit fits behind the link: A leaves that buffer in cycle 3, so B is sent in cycle 4 and
        # arrives in 7, is in the axon input in 8.
        (0.0, NocSpec(flit_ns=1.0, buffer_flits=1), 8.0),
        # Two flits a packet: A in cycles 0 and 1, B in 2 and 3; B's tail arrives in 6 and is in the axon input in 7.
        (0.0, NocSpec(flit_ns=1.0, flits=2), 7.0),
        # The same with 9 cycles of service: A from 5 to 14, B until 23.
        (9.0, NocSpec(flit_ns=1.0, flits=2), 23.0),
    ],
)
def test_two_packets_for_one_link(fidelity, service, spec, busy):
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    times = simulate(program, fires(0, 1), fidelity=fidelity, profile=prices(**FREE | {"axon_in": service}), spec=spec)
    assert times.busy.tolist() == [busy]
    assert times.link[0] == 2 * spec.flits * spec.flit_ns and times.link[1:].sum() == 0
    assert times.packets.tolist() == [2]
    assert times.core_synapse.tolist() == [0, 0, 2 * service]


@pytest.mark.parametrize("fidelity", ["queue", "cycle"])
def test_a_packet_waits_behind_one_that_is_stuck(fidelity):
    """Head of line: core 0 sends to core 2, then to core 1 next to it, which is idle.

    Row of routers, a core each: 0 - 1 - 2. Core 2 serves 100 cycles a packet and takes one flit into its axon
    input; core 1 too sends to core 2. Buffers of one flit. Soma updates take 1 cycle: packets of core 0
    are ready in cycles 1 (to 2), 2 (to 2), 3 (to 1), those of core 1 in cycles 1 and 2 (to 2).
    """
    net = Network("line")
    a = net.lif("a", 9, vth=100)
    indptr = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5])
    net.sparse("s", a, a, indptr, np.array([6, 6, 3, 6, 6]), np.ones(5, np.int64))
    program = on_mesh(net.program(), (3, 1), 1, 3)
    profile = prices(**FREE | {"axon_in": 100.0, "neuron_active": 1.0})
    spec = NocSpec(flit_ns=1.0, buffer_flits=1)
    busy = simulate(program, fires(0, 1, 2, 3, 4), fidelity=fidelity, profile=profile, spec=spec).busy[0]
    # Core 1's first is sent in cycle 1, waits in router 2 from 4, is served 5..105. Its second takes the link
    # in 5 and is served 105..205. Core 0's first is sent in cycle 1, arrives in 4, and gets the link to
    # router 2 when that buffer is free again, in 106: served 205..305; the second until 405; the third gets
    # into core 1 when the second has left router 1, long before 305, and is served in 100.
    assert busy == 405.0
    free = simulate(program, fires(2), fidelity=fidelity, profile=profile, spec=spec).busy[0]
    assert free == 3 + 3 + 1 + 100  # ready, hop, into the axon input, service


def test_somas_emit_one_after_another():
    """Two somas of core 0 fire: updates take 2 ns, spikes 5 ns, packets 1 ns; core 1 takes 3 ns and 2 a SynOp."""
    net = Network("pair")
    p = net.lif("pop", 8, vth=100)
    rows = [[4, 5, 6, 7], [], [4, 4], [3, 4], [], [], [], []]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    target = np.array([t for r in rows for t in r])
    net.sparse("s", p, p, indptr, target, np.ones(len(target), np.int64))
    program = on_mesh(net.program(), (2, 1), 1, 2)
    changed = {"neuron_active": 2.0, "spike_out": 5.0, "axon_out": 1.0, "axon_in": 3.0, "synop_sparse": 2.0}
    times = simulate(program, fires(0, 3), profile=prices(**FREE | changed), spec=NocSpec(flit_ns=1.0))
    # Soma 0: ready 2 + 5 + 1 = 8, at core 1 in 8 + 3 + 1 = 12, served 3 + 8 until 23.
    # Soma 3: four updates, two spikes, one packet before: local ready 8 + 10 + 2 = 20; packet 21, 25..30.
    assert times.core_soma.tolist() == [4 * 2 + 2 * 5 + 3 * 1, 4 * 2]
    assert times.core_synapse.tolist() == [3 + 2, 3 + 8 + 3 + 2]
    assert times.busy.tolist() == [30.0]
    both = simulate(program, fires(0, 3), multicast=True, profile=prices(**FREE | changed), spec=NocSpec(flit_ns=1.0))
    assert both.core_soma.tolist() == [4 * 2 + 2 * 5 + 2 * 1, 4 * 2]  # one packet per event


# --- whatever the traffic ---------------------------------------------------------------------------------------


def random_run(seed: int):
    program = map_program(random_program(seed), seed, cores=5, parts=3, chips=2)
    result = run(program, random_images(program, seed, 2), record="all")
    return program, trace_of(program, result.codes, 2), result.counters


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3))
def test_loads_are_the_counters_and_bound_the_time(seed, multicast, slots):
    program, trace, counters = random_run(seed)
    spec, seen = NocSpec(crossing_ns=9.0, buffer_flits=slots, flit_ns=2.0), []
    times = simulate(program, trace, profile=prices(), spec=spec, multicast=multicast, observe=seen.append)
    crossed = sum(int(s.crossed.sum()) for s in seen)
    hops = counters.total("hops_ew") + counters.total("hops_ns") + counters.total("chip_crossings")
    assert times.packets.sum() == counters.total("packets")
    assert crossed == hops if not multicast else crossed <= hops
    if not multicast:
        assert sum(int(s.crossed.max(axis=1).sum()) for s in seen) == counters.bound["link_packets"]
    assert np.allclose(times.link.sum(), crossed * spec.flit_ns)
    for s in seen:
        for load in (s.soma, s.synapse, s.link):
            assert (load.max(axis=1, initial=0) <= s.last + 1e-9).all()
        assert s.depth[:, : times.mesh.links].max(initial=0) <= slots
    assert (times.per_tick >= times.busy).all() and times.seconds == pytest.approx(times.per_tick.sum() * 1e-9)
    assert len(times.per_tick) == (2 - 1) * program.interval + (program.timesteps - 1) + program.depth + 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_a_tree_crosses_every_link_of_its_paths_once(seed):
    program = on_mesh(random_network(48, 6, seed), (4, 3), 1, 12)
    trace = random_trace(48, [0.2, 0.0, 1.0], seed)
    seen = []
    one, many = (simulate(program, trace, profile=prices(), multicast=m, observe=seen.append) for m in (False, True))
    assert np.allclose(one.core_synapse, many.core_synapse)
    layout, crossed = resolve(program), np.zeros(one.mesh.links, int)
    stream = Schedule(program, trace, rates_of(program, prices()), NocSpec()).stream
    for block in stream.blocks():
        for e, (a, z) in enumerate(zip(block.start[:-1], block.start[1:], strict=True)):
            paths = [layout.mesh.path(int(block.event_core[e]), int(d)) for d in block.dst[a:z]]
            for link in {link for path in paths for link in path}:
                crossed[link] += 1
    assert seen[1].crossed.sum(axis=0).tolist() == crossed.tolist()
    assert seen[0].crossed.sum() > crossed.sum()


def test_the_same_run_gives_the_same_times_in_blocks_of_any_size(monkeypatch):
    program = on_mesh(random_network(256, 16, 5), (4, 4), 1, 16)
    trace = random_trace(256, [0.1] * 12, 5)
    one = simulate(program, trace, profile=prices())
    monkeypatch.setattr("nmc_emulator.packets.BLOCK", 100)
    other = simulate(program, trace, profile=prices())
    for name in ("per_tick", "core_synapse", "link", "depth", "critical_number"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_queue_is_near_cycle_on_any_program(seed, buffer_flits):
    """Local deliveries, host messages, biases, transfers and attention included; small cases, so an allowance in ns.

    Half of what docs/timing.md promises; of 600 programs the worst was 2.3 % in the sum, and 8.2 % in a tick.
    """
    program = map_program(random_program(seed), seed, cores=6, parts=4)
    result = run(program, random_images(program, seed, 2), record="all")
    trace, spec = trace_of(program, result.codes, 2), NocSpec(flit_ns=1.0, buffer_flits=buffer_flits)
    queue, cycle = (simulate(program, trace, fidelity=f, profile=prices(), spec=spec) for f in ("queue", "cycle"))
    assert abs(queue.busy.sum() - cycle.busy.sum()) <= 0.05 * cycle.busy.sum() + 10
    assert (np.abs(queue.busy - cycle.busy) <= 0.15 * cycle.busy + 10).all()
    assert np.allclose(queue.link, cycle.link) and np.allclose(queue.core_synapse, cycle.core_synapse)
    assert np.array_equal(queue.packets, cycle.packets) and np.allclose(queue.core_soma, cycle.core_soma)


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_to_one_core_is_a_packet(seed):
    rng = np.random.default_rng(seed)
    program = on_mesh(wired(list(enumerate(rng.permutation(24).tolist())), 24), (4, 3), 2, 24)
    trace = random_trace(24, [0.3, 0.6, 1.0], seed)
    one, tree = (simulate(program, trace, profile=prices(), multicast=m) for m in (False, True))
    assert np.array_equal(one.busy, tree.busy) and np.array_equal(one.link, tree.link)


def test_without_a_mapping_one_core_does_it_all():
    program = wired([(0, 1), (1, 2)], 3)
    times = simulate(program, fires(0, 1), profile=prices(**FREE | {"axon_in": 7.0}))
    assert times.busy.tolist() == [14.0] and times.packets.tolist() == [0]


def test_nothing_happened():
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    empty = Trace({0: Events(np.zeros(0, np.int64), np.zeros(0, np.int32), None)}, 1, 0)
    times = simulate(program, empty, profile=prices())
    assert times.seconds == 0 and len(times.per_tick) == 0 and times.critical == []
    silent = simulate(program, replace(empty, steps=3), profile=prices(**FREE | {"neuron_active": 2.0}))
    assert silent.busy.tolist() == [2.0, 2.0, 2.0]


def test_barrier_and_floor():
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    times = simulate(program, fires(0, 1), profile=prices(**FREE | {"barrier": 50.0}), spec=NocSpec(flit_ns=1.0))
    assert times.per_tick.tolist() == [55.0] and times.seconds == pytest.approx(55e-9)
    times = simulate(program, fires(0, 1), profile=prices(**FREE | {"barrier": 50.0, "timestep_floor": 1000.0}))
    assert times.per_tick.tolist() == [1000.0]
    assert times.critical == [("synapses of core 0", 1)] or times.critical[0][0].startswith("link (0,0)->(1,0)")


# --- refusals -----------------------------------------------------------------------------------------------------


def test_missing_times_are_named():
    program, trace, _ = random_run(1)
    known = load_profile("loihi1-sanafe-rates")
    needy = replace(program, transfers=())
    if not needy.dynamics:
        pytest.fail("choose a seed whose Program has attention")
    with pytest.raises(UsageError, match=r"no time for 'dyn_read', which Program 'random-1' needs: .*-assumed-rates"):
        rates_of(needy, known)
    with pytest.raises(UsageError, match="loihi1-sanafe-fit holds energies, not times"):
        simulate(program, trace, profile="loihi1-sanafe-fit")


def test_a_chip_crossing_has_no_published_time():
    program, trace, counters = random_run(1)
    assert counters.total("chip_crossings") > 0
    with pytest.raises(UsageError, match=r"sends packets between chips \(core \d on chip \d to core \d on chip \d\)"):
        simulate(program, trace, profile=prices())


def test_overload_names_what_chokes():
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    slow = prices(**FREE | {"axon_in": 500.0})
    with pytest.raises(
        CapacityError,
        match=r"overload: tick 0 of Program 'wired' takes 1004 ns, over the limit of 900 ns; synapses of core 2 chokes:"
        r" it is busy for 1000 ns of it, 2 packets on the mesh; spread its work",
    ):
        simulate(program, fires(0, 1), profile=slow, spec=NocSpec(flit_ns=1.0, tick_limit_ns=900.0))
    narrow = NocSpec(flit_ns=1000.0, tick_limit_ns=100.0)
    with pytest.raises(CapacityError, match=r"link \(0,0\)->\(1,0\) chokes: it is busy for 2000 ns"):
        simulate(program, fires(0, 1), profile=prices(**FREE), spec=narrow)


def test_a_tick_of_a_second_is_refused():
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    with pytest.raises(CapacityError, match="overload: tick 0 of Program 'wired' has 2 packets that could take more"):
        simulate(program, fires(0, 1), profile=prices(**FREE | {"axon_in": 1e9}))


def test_a_standstill_is_a_deadlock_that_names_the_link(monkeypatch):
    """XY routes cannot lock up, so it takes a mesh without any buffer slot."""
    monkeypatch.setattr(NocSpec, "slots", 0)
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    with pytest.raises(
        CapacityError,
        match=r"deadlock: tick 0 of Program 'wired' stands still with 2 packets, 1 buffers full, first link"
        r" \(0,0\)->\(1,0\) with 0 slots; give larger buffers",
    ):
        simulate(program, fires(0, 1), profile=prices(**FREE))


def test_cycle_gives_up_by_name(monkeypatch):
    program, spec = on_mesh(CONTENTION, (2, 1), 2, 3), NocSpec(flit_ns=1.0)
    with monkeypatch.context() as patch:
        patch.setattr("nmc_emulator.noc.cycle.MOST_CYCLES", 3)
        with pytest.raises(
            CapacityError,
            match=r"overload: tick 0 of Program 'wired' is not over after 4 cycles of 1000 ps, link \(0,0\)->\(1,0\)"
            r" holds 2 flits in 16; use fidelity queue",
        ):
            simulate(program, fires(0, 1), fidelity="cycle", profile=prices(**FREE), spec=spec)
    object.__setattr__(spec, "buffer_flits", 0)
    with pytest.raises(CapacityError, match=r"deadlock: tick 0 of Program 'wired' stands still, link \(0,0\)->\(1,0\)"):
        simulate(program, fires(0, 1), fidelity="cycle", profile=prices(**FREE), spec=spec)


def test_options_that_cannot_be_meant():
    program = on_mesh(CONTENTION, (2, 1), 2, 3)
    with pytest.raises(UsageError, match="no fidelity 'exact'; choose queue or cycle"):
        simulate(program, fires(0), fidelity="exact", profile=prices())
    with pytest.raises(UsageError, match="fidelity cycle sends one packet per destination"):
        simulate(program, fires(0), fidelity="cycle", multicast=True, profile=prices())
    big = on_mesh(random_network(70, 2, 0), (70, 1), 1, 70)
    with pytest.raises(UsageError, match="uses 70 cores; fidelity cycle takes up to 64"):
        simulate(big, random_trace(70, [0.5], 0), fidelity="cycle", profile=prices())
    with pytest.raises(UsageError, match="a buffer holds at least one whole packet"):
        NocSpec(flits=4, buffer_flits=3)
    with pytest.raises(UsageError, match=r"flit_ns is 0.0: a flit takes 0.001 to 1e6 ns"):
        NocSpec(flit_ns=0.0)
    with pytest.raises(UsageError, match="crossing_ns is -1: a time from 0 to 1e9 ns, or None"):
        NocSpec(crossing_ns=-1)
