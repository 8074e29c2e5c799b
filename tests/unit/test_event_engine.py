"""The event engine: parts of a run, checkpoints, packets without a table, and what it says when it cannot run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from general_nets import random_codes, random_general

from nmc_compiler.errors import ArtefactError, UsageError, VerifyError
from nmc_compiler.mapping import split_evenly
from nmc_compiler.program.model import Conv, Dendrite, HostCodes, Population, Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import Emulator, Stream, stream_plan
from nmc_emulator.engine_events import EventEngine
from nmc_emulator.layout import resolve
from nmc_emulator.timing import analyse
from nmc_emulator.trace import Events, events_of, joined


def engine_of(program: Program, strict: bool = False) -> EventEngine:
    recorded = list(range(len(program.populations)))
    return EventEngine(program, resolve(program), analyse(program), recorded, 1, strict)


def ring(neurons: int = 40, **lif: object) -> Program:
    """Random recurrent neurons that keep firing, on 6 cores."""
    rng = np.random.default_rng(5)
    net = Network("ring")
    cells = net.lif("cells", neurons, **{"dv": 41, "vth": 1000, "bias": 25 << 6, "start_v": 0, **lif})
    outside = net.input("outside", 3)
    matrix = rng.integers(-4, 5, (neurons, neurons)) * 2
    net.dense("recurrent", cells, cells, matrix, delay=rng.integers(0, 4, (neurons, neurons)))
    net.dense("drive", outside, cells, rng.integers(0, 60, (neurons, 3)) * 2)
    return split_evenly(net.program(), 6, load_target("loihi2"))


def drive(steps: int) -> Events:
    return events_of(np.random.default_rng(1).random((steps, 3)) < 0.3, with_codes=False)


def test_a_stream_in_parts_is_one_stream():
    program, steps = ring(), 300
    whole, parts = engine_of(program), engine_of(program)
    first = list(whole.advance(steps, {1: drive(steps)}))
    second = [p for size in (1, 7, 2, 290) for p in parts.advance(size, {1: drive(steps)})]
    for i in range(2):
        a, b = (joined([p[0][i] for p in found], False) for found in (first, second))
        assert len(a) > 20 and np.array_equal(a.step, b.step) and np.array_equal(a.soma, b.soma)
    assert not whole.counters().differences(parts.counters())


def test_a_snapshot_resumes_exactly():
    program, steps = ring(), 200
    straight, broken = engine_of(program), engine_of(program)
    list(straight.advance(steps, {1: drive(steps)}))
    list(broken.advance(90, {1: drive(steps)}))
    saved = broken.snapshot()
    list(broken.advance(30, {1: drive(steps)}))  # goes on after the snapshot and is forgotten
    again = engine_of(program)
    again.restore(saved)
    list(again.advance(steps - 90, {1: drive(steps)}))
    assert not straight.counters().differences(again.counters())
    assert all(np.array_equal(a, b) for a, b in zip(straight.state, again.state, strict=True))


def test_a_snapshot_of_another_network_is_refused():
    saved = engine_of(ring(40)).snapshot()
    with pytest.raises(UsageError, match="the checkpoint's 'acc' does not fit Program 'ring'; start anew"):
        engine_of(ring(41)).restore(saved)


def test_memory_does_not_grow_with_the_run():
    engine = engine_of(ring())
    sizes = {name: a.nbytes for name, a in engine.snapshot().items()}
    for events, _, _ in engine.advance(5000, {1: drive(100)}):
        assert max(map(len, events.values())) <= engine.room
    assert {name: a.nbytes for name, a in engine.snapshot().items()} == sizes


@pytest.mark.parametrize("seed", range(12))
def test_links_loaded_from_paths_or_from_a_table(seed, monkeypatch):
    program = ring() if seed == 0 else random_general(seed)
    inputs, found = random_codes(program, seed, 8), []
    for room in (stream_plan.TABLE, -1):
        monkeypatch.setattr(stream_plan, "TABLE", room)
        try:
            engine = engine_of(program)
        except UsageError:
            pytest.skip("this random network is not for the event engine")
        events = {i: events_of(c.reshape(8, -1)) for i, c in inputs.items()}
        found.append(engine.run_events(events, 8)[0])
    assert not found[0].differences(found[1])


def test_strict_names_population_and_tick():
    net = Network("hot")
    source = net.input("in", 1)
    cell = net.lif("cell", 1, du=0, dv=0, vth=131071)
    net.dense("up", source, cell, np.array([[254]]), exponent=9)
    emulator = Emulator(net.program(), engine="events", strict=True)
    text = "overflow in population 'cell', tick 2: 1 values left the range of 'u'"
    with pytest.raises(VerifyError, match=text):
        emulator.run_events({"in": np.ones((6, 1, 1, 1), int)}, 6)


def test_what_it_does_not_run_is_refused_by_name():
    from test_emulator_counters import pooled

    with pytest.raises(UsageError, match="which the engine 'events' does not run; choose 'layers'"):
        Emulator(pooled(), engine="events")


def test_events_that_do_not_fit():
    emulator = Emulator(ring())
    assert emulator.name == "events"
    wrong = {
        "has no input population 'x'; its inputs: outside": {"x": drive(4)},
        r"timesteps 0..9, somas 0..2, but the run has timesteps 0..3": {
            "outside": Events(np.array([0, 9]), np.array([0, 2]), None)
        },
        "a soma fires twice in one timestep": {"outside": Events(np.array([1, 1]), np.array([2, 2]), None)},
        r"carry codes 3..3, it takes 0..1": {"outside": Events(np.array([1]), np.array([2]), np.array([3]))},
        r"give integers \[4, 3, 1, 1\]": {"outside": np.zeros((4, 2, 1, 1), int)},
    }
    for text, inputs in wrong.items():
        with pytest.raises(UsageError, match=text):
            emulator.run_events(inputs, 4)
    with pytest.raises(UsageError, match="cannot probe somas 40..40 of 'cells': it has 0..39"):
        emulator.run_events({"outside": drive(4)}, 4, probe={"cells": np.array([40])})
    with pytest.raises(UsageError, match="cannot probe 'outside'"):
        emulator.run_events({"outside": drive(4)}, 4, probe={"outside": None})


def test_a_stream_saved_and_resumed(tmp_path):
    program, events = ring(), drive(120)
    straight = Stream(program)
    want = straight.feed({"outside": events}, 120)
    first = Stream(program)
    early, late = (events.step < 50), (events.step >= 50)
    some = first.feed({"outside": Events(events.step[early], events.soma[early], None)}, 50)
    first.save(tmp_path / "stream.safetensors")
    second = Stream.resume(tmp_path / "stream.safetensors", program)
    assert second.step == 50
    rest = second.feed({"outside": Events(events.step[late], events.soma[late], None)}, 70)
    for name in want:
        assert np.array_equal(np.concatenate([some[name].step, rest[name].step]), want[name].step)
        assert np.array_equal(np.concatenate([some[name].soma, rest[name].soma]), want[name].soma)
    assert not straight.counters().differences(second.counters())
    assert [p.name for p in tmp_path.iterdir()] == ["stream.safetensors"]


def test_streams_that_cannot_be_resumed(tmp_path):
    path = tmp_path / "stream.safetensors"
    Stream(ring()).save(path)
    with pytest.raises(UsageError, match="belongs to Program [0-9a-f]{12}, not to 'ring' [0-9a-f]{12}; start anew"):
        Stream.resume(path, ring(bias=24 << 6))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtefactError, match="give a file that Stream.save wrote"):
        Stream.resume(path, ring())
    with pytest.raises(UsageError, match=r"timesteps 7..7, somas 0..0, but the run has timesteps 4..5"):
        stream = Stream(ring())
        stream.feed({}, 4)
        stream.feed({"outside": Events(np.array([7]), np.array([0]), None)}, 2)


def test_windows_are_no_stream():
    net = Network("windows", timesteps=3)
    net.lif("cells", 2, vth=1)
    with pytest.raises(UsageError, match="has windows of 3 timesteps; run it with Emulator"):
        Stream(net.program())


def test_real_arithmetic_neither_rounds_nor_wraps_nor_saturates():
    net = Network("real")
    source = net.input("in", 1)
    cell = net.lif("cell", 1, du=1000, dv=7, vth=100_000, bias=-5, start_v=3)
    net.dense("w", source, cell, np.array([[200]]), exponent=3)
    program, codes = net.program(), np.random.default_rng(0).integers(0, 2, (60, 1, 1, 1))
    found = Emulator(program, arithmetic="float").run_events({"in": codes}, 60, probe={"cell": None})
    u, v, now = 0.0, 3.0, 0
    for t in range(60):
        u = u * (4096 - 1001) / 4096 + now * 1600 * 64
        v = v * (4096 - 7) / 4096 + u - 5
        now, v = int(codes[t, 0, 0, 0]), 0.0 if v > 100_000 * 64 else v
        assert found.potentials["cell"][0][t, 0] == u and found.potentials["cell"][1][t, 0] == v
    exact = Emulator(program).run_events({"in": codes}, 60, probe={"cell": None})
    assert np.abs(exact.potentials["cell"][0] - found.potentials["cell"][0]).max() < 4
    with pytest.raises(UsageError, match="the engine 'ticks' has no arithmetic 'float'; choose layers or events"):
        Emulator(program, engine="ticks", arithmetic="float")
    with pytest.raises(UsageError, match="no arithmetic 'fp16'; choose exact or float"):
        Emulator(program, arithmetic="fp16")


def images_net() -> Program:
    """Images through one convolution, LIFs and a readout, which both fast engines run."""
    rng = np.random.default_rng(3)
    populations = (
        Population("in", (2, 5, 5), 0, "input", "input", -1, payload_bits=3),
        Population("cells", (3, 5, 5), 1, "lif", "neuron", 0, dv=1365, vth=np.full(3, 40, np.int32)),
        Population("out", (4, 1, 1), 2, "readout", "readout", 1, bias=np.arange(4, dtype=np.int32), readout_scale=0.5),
    )
    weights = (rng.integers(-9, 10, shape).astype(np.int8) for shape in ((3, 3, 2, 3), (5, 5, 3, 4)))
    return Program(
        name="images",
        timesteps=6,
        ticks_per_step=1,
        input_shape=(2, 5, 5),
        input_time=False,
        populations=populations,
        dendrites=(Dendrite("cells", (3, 5, 5), 0), Dendrite("out", (4, 1, 1), 1)),
        convs=(
            Conv("first", 0, 0, 1, next(weights), 0, pad=(1, 1), out_hw=(5, 5)),
            Conv("second", 1, 1, 1, next(weights), 1),
        ),
        maps=(),
        dynamics=(),
        transfers=(),
        host_currents=(),
        host_codes=(HostCodes(0, 7.0, 0, 7),),
        mapping=None,
        target={},
        interval=8,
    )


@pytest.mark.parametrize("arithmetic", ["exact", "float"])
def test_images_through_both_fast_engines(arithmetic):
    program, images = images_net(), np.random.default_rng(4).random((3, 2, 5, 5))
    pipelined = dataclasses.replace(program, interval=6)
    for net in (program, pipelined):
        one, other = (
            Emulator(net, record="all", engine=e, arithmetic=arithmetic).run(images) for e in ("layers", "events")
        )
        assert one.codes["cells"].any() and one.logits.any()
        assert all(np.array_equal(one.codes[name], other.codes[name]) for name in one.codes)
        assert np.array_equal(one.logits, other.logits)
        assert not one.counters.differences(other.counters)
