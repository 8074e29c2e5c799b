"""Packets from the trace add up to the counters of the engines, whatever the network and the mapping."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ROUTERS, map_program, random_images, random_program

from nmc_compiler.errors import UsageError
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator, packets, run
from nmc_emulator.layout import Layout, resolve
from nmc_emulator.packets import PacketStream
from nmc_emulator.rates import Rates
from nmc_emulator.trace import Events, Trace, trace_of


def unit_rates(program) -> Rates:
    """Distinct prices by kind, so that a SynOp booked as another kind shows in the cost."""
    return Rates(
        *[0] * 10, dyn_read=3, dyn_write=5, barrier=0, floor=0,
        conv=tuple(7 for _ in program.convs), map=tuple(11 for _ in program.maps),
        sparse=tuple(13 for _ in program.sparses),
    )  # fmt: skip


def blocks_of(program, trace) -> tuple[Layout, list[packets.Block]]:
    layout = resolve(program)
    return layout, list(PacketStream(program, layout, unit_rates(program), trace).blocks())


def counted(layout: Layout, blocks) -> Counter:
    """The counters' totals, recounted from packets."""
    found: Counter = Counter()
    for b in blocks:
        src, net, routers = b.src, b.network, layout.mesh.routers[0]
        found["packets"] += int(net.sum())
        found["packets_local"] += int((src == b.dst).sum())
        found["input_messages"] += int((src < 0).sum())
        a, z = layout.mesh.at[src[net]], layout.mesh.at[b.dst[net]]
        crossings = int(np.abs(a[:, 0] // routers - z[:, 0] // routers).sum())
        found["chip_crossings"] += crossings
        found["hops_ew"] += int(np.abs(a[:, 0] - z[:, 0]).sum()) - crossings
        found["hops_ns"] += int(np.abs(a[:, 1] - z[:, 1]).sum())
        found["axon_reads"] += int(b.reads.sum())
        found["synops"] += int(b.ops.sum()) + int(b.extra_ops.sum())
        found["cost"] += int(b.cost.sum()) + int(b.extra_cost.sum())
        found["events"] += len(b.event_tick)
    return found


def expected(counters) -> Counter:
    total = counters.total
    names = ("packets", "packets_local", "input_messages", "chip_crossings", "hops_ew", "hops_ns", "axon_reads")
    found = Counter({name: total(name) for name in (*names, "events")})
    static, reads, writes = total("synops_ac") + total("synops_mac"), total("dyn_reads"), total("dyn_writes")
    found["synops"] = static + reads + writes
    found["cost"] = 7 * static + 3 * reads + 5 * writes + 11 * total("map_ops")
    return found


def check_against_engine(program, images) -> None:
    result = run(program, images, record="all")
    layout, blocks = blocks_of(program, trace_of(program, result.codes, len(images)))
    assert counted(layout, blocks) == expected(result.counters)
    tables = result.counters.tables
    into = sum((np.bincount(b.dst[b.network], minlength=layout.cores) for b in blocks), np.zeros(layout.cores, int))
    assert into.tolist() == tables["packets_in"].sum(0)[:-1].tolist()
    out = sum((np.bincount(b.src[b.network], minlength=layout.cores) for b in blocks), np.zeros(layout.cores, int))
    assert out.tolist() == tables["packets"].sum(0)[:-1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([1, 2]), st.booleans())
def test_totals_equal_the_counters_of_the_engine(seed, pipelined, graded, lags, ticks, volumes):
    program = random_program(seed, pipelined=pipelined, graded=graded, lags=lags, ticks=ticks, volumes=volumes)
    program = map_program(program, seed, cores=5, parts=3, chips=2)
    check_against_engine(program, random_images(program, seed, 2))


def small() -> tuple:
    program = map_program(random_program(3), 3, cores=5, parts=3)
    result = run(program, random_images(program, 3, 4), record="all")
    return program, trace_of(program, result.codes, 4)


def test_blocks_of_any_size_are_the_same_packets(monkeypatch):
    program, trace = small()
    _, one = blocks_of(program, trace)
    monkeypatch.setattr(packets, "BLOCK", 1)
    monkeypatch.setattr(packets, "CELLS", 100)
    _, many = blocks_of(program, trace)
    assert len(one) == 1 < len(many) and all(b.ticks == 1 for b in many if len(b) > 1)
    for name in ("tick", "src", "dst", "reads", "ops", "cost"):
        assert np.array_equal(getattr(one[0], name), np.concatenate([getattr(b, name) for b in many])), name
    assert np.array_equal(one[0].extra_ops, np.concatenate([b.extra_ops for b in many]))
    assert (np.diff(one[0].tick) >= 0).all()


def test_a_trace_of_another_program_is_refused():
    program, trace = small()
    some = next(iter(trace.events))
    with pytest.raises(UsageError, match="the trace has no events of population"):
        blocks_of(program, Trace({i: e for i, e in trace.events.items() if i != some}, 4, trace.steps))
    with pytest.raises(UsageError, match=r"outside its \d+ somas and 1 timesteps: it belongs to another Program"):
        blocks_of(program, Trace(trace.events, 1, 1))


# --- synapses one by one --------------------------------------------------------------------------------------


def sparse_network(seed: int, timesteps: int):
    """Two inputs and two LIFs under random sparse projections, some pairs doubled, some rows empty."""
    rng = np.random.default_rng(seed)
    net = Network(f"sparse-{seed}", timesteps)
    sizes = rng.integers(1, 12, 3).tolist()
    somas = [net.input("in", sizes[0]), net.lif("a", sizes[1], vth=5), net.lif("b", sizes[2], vth=5)]
    for k in range(int(rng.integers(1, 6))):
        src, dst = int(rng.integers(3)), int(rng.integers(1, 3))
        counts = rng.integers(0, 2 * sizes[dst] + 1, sizes[src])
        n = int(counts.sum())
        target, weight = rng.integers(0, sizes[dst], n), rng.integers(-8, 9, n)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        net.sparse(f"s{k}", somas[src], somas[dst], indptr, target, weight, delay=int(rng.integers(0, 3)))
    program = replace(net.program(), target={"name": "test", "mesh": {"routers": ROUTERS}})
    return map_program(program, seed, cores=6, parts=4, chips=2)


def sparse_trace(program, seed: int, samples: int, steps: int) -> Trace:
    rng, events = np.random.default_rng(seed), {}
    for i, p in enumerate(program.populations):
        step, soma = np.nonzero(rng.random((steps, int(np.prod(p.shape)))) < 0.3)
        events[i] = Events(step.astype(np.int64), soma.astype(np.int32), None)
    return Trace(events, samples, steps)


def recounted(program, trace) -> dict[tuple[int, int, int], list[int]]:
    """(tick, emitting core, receiving core) -> [deliveries, axon reads, SynOps], synapse by synapse."""
    m, found = program.mapping, {}

    def holders(dendrite, position):
        at = np.unravel_index(position, program.dendrites[dendrite].shape)
        for tile, d, *box in m.pieces.tolist():
            if d == dendrite and all(box[2 * i] <= at[i] < box[2 * i + 1] for i in range(3)):
                yield tile

    for i, events in trace.events.items():
        dendrite = program.populations[i].dendrite
        for step, soma in zip(events.step.tolist(), events.soma.tolist(), strict=True):
            home = -1 if dendrite < 0 else int(m.tiles[next(holders(dendrite, soma)), 1])
            sample, t = divmod(step, program.timesteps) if program.timesteps else (0, step)
            tick, brought = sample * program.interval + t * program.ticks_per_step, {}
            for s in program.sparses:
                if s.src != i:
                    continue
                targets = s.target[s.indptr[soma] : s.indptr[soma + 1]].tolist()
                tiles = [tile for target in targets for tile in holders(s.dst, target)]
                for tile in set(tiles):
                    brought.setdefault(int(m.tiles[tile, 1]), [0, 0])[0] += 1
                if not program.timesteps or t + s.lag < program.timesteps:
                    for tile in tiles:
                        brought[int(m.tiles[tile, 1])][1] += 1
            for core, (reads, ops) in brought.items():
                entry = found.setdefault((tick, home, core), [0, 0, 0])
                entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + reads, entry[2] + ops
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3]))
def test_sparse_deliveries_recounted_synapse_by_synapse(seed, timesteps):
    program = sparse_network(seed, timesteps)
    samples = 2 if timesteps else 1
    trace = sparse_trace(program, seed, samples, samples * timesteps or 4)
    found: dict[tuple[int, int, int], list[int]] = {}
    for b in blocks_of(program, trace)[1]:
        for tick, src, dst, reads, ops in zip(b.tick, b.src, b.dst, b.reads, b.ops, strict=True):
            entry = found.setdefault((int(tick), int(src), int(dst)), [0, 0, 0])
            entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + int(reads), entry[2] + int(ops)
        assert b.cost.sum() == 13 * b.ops.sum()
    assert found == recounted(program, trace)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3]))
def test_sparse_totals_equal_the_counters_of_the_event_engine(seed, timesteps):
    program, steps = sparse_network(seed, timesteps), 4 * timesteps
    driven = sparse_trace(program, seed, 4, steps).events[0]
    result = Emulator(program, engine="events", record="all").run_events({"in": driven}, steps)
    events = {i: result.events.get(p.name, driven) for i, p in enumerate(program.populations)}
    layout, blocks = blocks_of(program, Trace(events, 4, steps))
    found, wanted = counted(layout, blocks), expected(result.counters)
    assert found["cost"] == 13 * found["synops"]
    del found["cost"], wanted["cost"]
    assert found == wanted
