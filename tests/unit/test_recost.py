"""Re-costing: counters from a recorded run equal those of running, whatever the mapping; other networks are refused."""

from dataclasses import replace

import numpy as np
import pytest
from general_nets import random_codes, random_general
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import map_program, random_images, random_program

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program, Transfer
from nmc_emulator import Emulator, recount, run
from nmc_emulator.host import check_images
from nmc_emulator.recost import (
    differences,
    fingerprint,
    recording_of,
    recording_of_events,
    recost,
    trace_of_events,
)
from nmc_emulator.recount import Chunk, Recount, host_activity, part, split
from nmc_emulator.trace import Trace, trace_of

OPTIONS = st.fixed_dictionaries(
    {
        "pipelined": st.booleans(),
        "input_time": st.booleans(),
        "graded": st.booleans(),
        "lags": st.booleans(),
        "volumes": st.booleans(),
        "ticks": st.sampled_from([1, 1, 2, 3]),
    }
)


def mappings(program: Program, seed: int) -> list[Program]:
    """The same network unmapped, on few cores, on many cores, and with samples that overlap or do not."""
    other = program.timesteps * program.ticks_per_step + (program.depth if seed % 2 else 0)
    many = map_program(program, seed + 1, cores=9, parts=5, chips=3)
    return [program, map_program(program, seed, cores=4, parts=3), many, replace(many, interval=other)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS, st.integers(1, 4))
def test_counters_equal_those_of_running(seed, options, samples):
    program = random_program(seed, layers=5, **options)
    images = random_images(program, seed, samples)
    first = run(mappings(program, seed)[seed % 3], images, record="all")
    recording = recording_of(program, "digest", first, images)
    for other in mappings(program, seed):
        assert recost(other, recording).differences(run(other, images).counters) == []


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS, st.integers(1, 3))
def test_loads_add_up_to_the_counters_however_samples_are_cut(seed, options, size):
    program = map_program(random_program(seed, layers=5, **options), seed, cores=5, parts=3, chips=2)
    images = random_images(program, seed, 5)
    result = run(program, images, record="all")
    seen: list[tuple[int, list[np.ndarray]]] = []
    counting = Recount(program, lambda first, *loads: seen.append((first, [a.copy() for a in loads])))
    active = host_activity(program, check_images(program, images))
    for first, trace in zip(
        range(0, 5, size), split(trace_of(program, result.codes, 5), program.timesteps, size), strict=True
    ):
        counting.add(Chunk(first, trace, {k: a[first : first + size] for k, a in active.items()}))
    counters = counting.finish()
    ends = np.cumsum([0, *(len(loads[0]) for _, loads in seen)])
    assert [first for first, _ in seen] == ends[:-1].tolist()
    synops, updates, axons, links = (np.concatenate([loads[n] for _, loads in seen]) for n in range(4))
    assert counters.bound == {
        "synops": synops.max(axis=1).sum(),
        "neuron_updates": updates.max(axis=1).sum(),
        "memory_reads": (synops + axons).max(axis=1).sum(),
        "link_packets": links.max(axis=1).sum(),
    }
    assert counters.bound == result.counters.bound
    tables = counters.tables
    work = sum(tables[name][:, :-1].sum(axis=0) for name in ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads"))
    assert synops.sum(axis=0).tolist() == work.tolist()
    assert updates.sum(axis=0).tolist() == tables["neuron_updates"][:, :-1].sum(axis=0).tolist()
    assert axons.sum(axis=0).tolist() == tables["axon_reads"][:, :-1].sum(axis=0).tolist()
    assert links.sum() == sum(tables[name].sum() for name in ("hops_ew", "hops_ns", "chip_crossings"))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0, 0, 1, 3]), st.sampled_from([1, 50, 1 << 24]))
def test_networks_soma_by_soma_count_as_the_event_engine_does(seed, timesteps, cells):
    """Streams and windows, single synapses, lags, several ticks to a timestep, all in blocks of any size."""
    program, steps = random_general(seed, timesteps), 4 * timesteps or 17
    codes = {program.populations[i].name: c for i, c in random_codes(program, seed, steps).items()}
    result = Emulator(program, record="all", engine="events").run_events(codes, steps)
    recording = recording_of_events(program, "d", result)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recount, "CELLS", cells)
        assert recost(program, recording).differences(result.counters) == []
        other = map_program(replace(program, mapping=None), seed + 1, 7, 5, 3)
        again = Emulator(other, engine="events").run_events(codes, steps)
        assert recost(other, recording).differences(again.counters) == []


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_loads_of_streams_add_up_however_they_are_cut(seed, size):
    program, steps, seen = random_general(seed), 13, []
    codes = {program.populations[i].name: c for i, c in random_codes(program, seed, steps).items()}
    result = Emulator(program, record="all", engine="events").run_events(codes, steps)
    trace = trace_of_events(program, result)
    counting = Recount(program, lambda first, *loads: seen.append((first, [a.copy() for a in loads])), steps)
    for first in range(0, steps, size):
        last = min(first + size, steps)
        counting.add(Chunk(first, Trace({i: part(e, first, last) for i, e in trace.events.items()}, 1, last - first)))
    counters = counting.finish()
    synops, updates, axons, links = (np.concatenate([loads[n] for _, loads in seen]) for n in range(4))
    assert counters.bound == result.counters.bound
    assert (
        synops.max(axis=1).sum() == counters.bound["synops"]
        and links.max(axis=1).sum() == counters.bound["link_packets"]
    )
    assert updates.max(axis=1).sum() == counters.bound["neuron_updates"]
    assert axons.sum() == counters.total("axon_reads")


def test_a_stream_says_how_long_it_is():
    program = random_general(1)
    with pytest.raises(UsageError, match="is a stream: say how many timesteps are counted"):
        Recount(program)
    counting = Recount(program, steps=5)
    with pytest.raises(UsageError, match="6 timesteps were given where 5 were announced"):
        counting.add(Chunk(0, Trace({}, 1, 6)))
    counting.add(Chunk(0, Trace({}, 1, 4)))
    with pytest.raises(UsageError, match="4 timesteps were given where 5 were announced"):
        counting.finish()


def test_blocks_of_samples_change_nothing(monkeypatch):
    program = map_program(random_program(11, layers=6, pipelined=True), 11, cores=4, parts=3)
    images = random_images(program, 11, 7)
    result = run(program, images, record="all")
    recording = recording_of(program, "digest", result, images)
    for size in (1, 2, 5, 64):
        monkeypatch.setattr(recount, "_block_size", lambda p, size=size: size)
        assert recost(program, recording).differences(result.counters) == []


def test_overflow_is_carried_over():
    program = random_program(3, layers=6)
    images = random_images(program, 3, 2)
    result = run(program, images, record="all")
    result.counters.overflow["u"][1] = 7
    assert (
        recost(map_program(program, 3, cores=3, parts=2), recording_of(program, "d", result, images))
        .overflow["u"]
        .tolist()
        == result.counters.overflow["u"].tolist()
    )


def reader(program: Program, dendrite: int) -> str:
    """The last population that reads a dendrite, or what is moved out of it."""
    for t in program.transfers:
        if t.src == dendrite:
            return reader(program, t.dst)
    return max((p for p in program.populations if p.dendrite == dendrite), key=lambda p: p.level).name


def changed(program: Program) -> list[tuple[Program, str]]:
    """Programs that compute something else, and what is told of them."""
    conv, head = program.convs[0], program.populations[-1]
    weight = conv.weight.copy()
    weight.flat[0] += 1
    bias = np.zeros(head.shape[0], np.int32) + 64
    first, rest = f"population {reader(program, conv.dst)} (differs, or what it reads does)", program.convs[1:]
    others = program.populations[:-1]
    return [
        (replace(program, convs=(replace(conv, weight=weight), *rest)), first),
        (replace(program, convs=(replace(conv, shift=conv.shift + 1), *rest)), first),
        (replace(program, populations=(*others, replace(head, bias=bias))), f"population {head.name} (differs,"),
        (
            replace(program, populations=(*others, replace(head, name="other"))),
            "population other (not in the recorded one)",
        ),
        (replace(program, timesteps=program.timesteps + 1, interval=100), "network (differs"),
    ]


def test_other_networks_are_refused_with_what_differs():
    program = random_program(8, layers=4)
    images = random_images(program, 8, 1)
    recording = recording_of(program, "0123456789abcdef", run(program, images, record="all"), images)
    for other, told in changed(program):
        with pytest.raises(UsageError) as error:
            recost(other, recording)
        assert "does not compute what the recorded Program 0123456789ab did: " in str(error.value)
        assert told in str(error.value)
        assert str(error.value).endswith("compile both from one model, with options that only change the mapping")


def test_what_arrives_too_late_to_be_read_is_another_function():
    program = random_program(8, layers=4)
    head, conv = program.populations[-1], program.convs[-1]
    assert conv.dst == head.dendrite
    later = replace(program, populations=(*program.populations[:-1], replace(head, level=head.level + 50)))
    assert differences(later, fingerprint(program)) == []
    slow = replace(program, convs=(*program.convs[:-1], replace(conv, delay=conv.delay + 60)))
    assert differences(slow, fingerprint(program)) == [f"population {head.name}"]


def test_the_way_that_a_sum_takes_does_not_count():
    """Names of projections, dendrites and their order; a collapsing projection, or a sum moved later."""
    program = random_program(8, layers=4)
    head = next(c for c in program.convs if c.name == "head")
    size = replace(program.dendrites[head.dst], name="wide", shape=(3, *head.out_hw))
    n, level = len(program.dendrites), program.arrival(head.src, head.delay)
    moved = Transfer("sum", n, head.dst, level, "sum")
    other = replace(
        program,
        dendrites=(*program.dendrites, size),
        convs=tuple(replace(c, name="x", dst=n, collapse=False) if c is head else c for c in program.convs),
        transfers=(*program.transfers, moved),
    )
    assert fingerprint(other) == fingerprint(program)
    images = random_images(program, 8, 3)
    recording = recording_of(program, "d", run(program, images, record="all"), images)
    mapped = map_program(other, 1, cores=5, parts=3)
    assert recost(mapped, recording).differences(run(mapped, images).counters) == []
    shifted = replace(other, transfers=(*program.transfers, replace(moved, rshift=1)))
    assert differences(shifted, fingerprint(program)) == [f"population {program.populations[-1].name}"]


def test_a_trace_without_what_the_host_sent_is_refused():
    program = next(p for p in map(random_program, range(20)) if p.host_currents)
    images = random_images(program, 0, 2)
    trace = trace_of(program, run(program, images, record="all").codes, 2)
    with pytest.raises(UsageError, match="does not tell what host current 'host' sent; record the run again"):
        Recount(program).add(Chunk(0, trace))


def test_samples_come_in_their_order():
    program = random_program(2)
    images = random_images(program, 2, 1)
    trace = trace_of(program, run(program, images, record="all").codes, 1)
    with pytest.raises(UsageError, match="samples from 3 on were given where 0 is the next"):
        Recount(program).add(Chunk(3, trace, host_activity(program, check_images(program, images))))
