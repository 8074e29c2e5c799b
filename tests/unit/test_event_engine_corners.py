"""Corners of the event engine: full slots, streams of many ticks, hostile checkpoints and Programs, odd events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from nmc_compiler.errors import ArtefactError, UsageError, VerifyError
from nmc_compiler.mapping import split_evenly
from nmc_compiler.program.model import Dendrite, HostCodes, Program, Sparse, Transfer
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import Emulator, Events, Stream


def pair(sources: int = 2, somas: int = 3, timesteps: int = 0, **source: object) -> Program:
    """Inputs that all drive all of a few LIFs."""
    net = Network("pair", timesteps)
    a, b = net.input("in", sources, **source), net.lif("p", somas, vth=0)
    net.dense("w", a, b, np.full((somas, sources), 2), graded=True)
    return net.program()


def events(*pairs: tuple[int, int], code: list[int] | None = None, dtype: type = np.int64) -> Events:
    found = np.array(pairs, dtype).reshape(-1, 2)
    return Events(found[:, 0], found[:, 1], None if code is None else np.array(code))


def both(program: Program, inputs: dict, steps: int, probe: dict | None = None) -> list:
    """Results of the event engine and of the tick engine, which agree in events and counters."""
    found = [
        Emulator(program, record="all", engine=e).run_events(inputs, steps, probe=probe) for e in ("events", "ticks")
    ]
    fast, slow = found
    for name in slow.events:
        for part in ("step", "soma", "code"):
            assert np.array_equal(getattr(fast.events[name], part), getattr(slow.events[name], part)), (name, part)
    assert not fast.counters.differences(slow.counters)
    return found


@pytest.mark.parametrize("somas", [3, 8])
def test_all_somas_firing_leave_the_events_under_way_alone(somas):
    net = Network("full")
    source, a, b = net.input("in", somas), net.lif("a", somas, vth=0), net.lif("b", somas, vth=0)
    net.dense("in_a", source, a, np.eye(somas, dtype=int) * 2)
    net.dense("a_b", a, b, np.eye(somas, dtype=int) * 2)
    program = net.program()
    late = replace(program, sparses=tuple(replace(s, delay=2, lag=2) for s in program.sparses))
    codes = np.zeros((8, somas, 1, 1), int)
    codes[1, 1] = codes[2] = 1
    fast, _ = both(late, {"in": codes}, 8)
    assert fast.events["b"].soma.tolist() == [1, *range(somas)]


def test_a_stream_of_many_ticks_per_timestep():
    both(replace(pair(), ticks_per_step=9), {"in": np.ones((4, 2, 1, 1), int)}, 4)
    stream = Stream(replace(pair(), ticks_per_step=9))
    assert stream.feed({"in": events((0, 0))}, 3)["p"].step.tolist() == [1, 1, 1]


def test_currents_far_outside_their_range_decay_exactly():
    net = Network("far")
    source = net.input("in", 1, payload_bits=24, signed=True)
    cell = net.lif("p", 1, vth=0, vth_low=-1, du=1000, dv=100)
    net.dense("w", source, cell, [[32767]], exponent=13, graded=True)
    codes = np.array([2**23 - 1, 0, 0, -(2**23), 5, 0, 0, 0]).reshape(-1, 1, 1, 1)
    fast, slow = both(net.program(), {"in": codes}, 8, {"p": None})
    assert np.abs(slow.potentials["p"][0]).max() > 2**53
    assert all(np.array_equal(a, b) for a, b in zip(fast.potentials["p"], slow.potentials["p"], strict=True))


def test_nothing_to_do():
    for steps in (0, 3):
        both(pair(), {"in": np.zeros((steps, 2, 1, 1), int)}, steps, {"p": None})


def test_no_images():
    program = pair(timesteps=3)
    somas = replace(program.populations[1], model="readout", role="readout", vth=None)
    program = replace(
        program, input_time=False, populations=(program.populations[0], somas), host_codes=(HostCodes(0, 1.0, 0, 1),)
    )
    assert Emulator(program, engine="events").run(np.zeros((0, 2, 1, 1))).logits.shape == (0, 3)
    with pytest.raises(UsageError, match="carry codes 2..2, it takes 0..1"):
        wide = replace(program, populations=(replace(program.populations[0], payload_bits=4), somas))
        Emulator(wide, engine="events").run_events({"in": np.full((3, 2, 1, 1), 2)}, 3)


def test_an_empty_tile_changes_nothing():
    net = Network("tiles")
    source, a, b = net.input("in", 2), net.lif("a", 4, vth=0), net.lif("b", 4, vth=0)
    net.dense("w", source, a, np.full((4, 2), 2))
    net.dense("x", a, b, np.eye(4, dtype=int) * 2)
    program = split_evenly(net.program(), 2, load_target("loihi2"))
    m = program.mapping

    def renumber(column: np.ndarray) -> np.ndarray:
        return np.where(column >= 1, column + 1, column).astype(np.int32)

    pieces, axons = m.pieces.copy(), m.axons.copy()
    pieces[:, 0], axons[:, 0], axons[:, 4] = renumber(pieces[:, 0]), renumber(axons[:, 0]), renumber(axons[:, 4])
    mapping = replace(m, tiles=np.insert(m.tiles, 1, m.tiles[2], axis=0), pieces=pieces, axons=axons)
    both(replace(program, mapping=mapping), {"in": np.ones((3, 2, 1, 1), int)}, 3)


# -- Programs that would lead a kernel outside its arrays ----------------------------------------


def test_a_transfer_that_crops_is_not_for_the_event_engine():
    net = Network("crop")
    source, _ = net.input("in", (1, 2, 2)), net.lif("small", 1, vth=0)
    program = net.program()
    rows = Sparse("w", source, 1, 1, np.arange(5), np.arange(4, dtype=np.int32), np.full(4, 9, np.int8), lag=1)
    program = replace(
        program, dendrites=(*program.dendrites, Dendrite("large", (1, 2, 2), 0)), sparses=(rows,),
        transfers=(Transfer("crop", 1, 0, 0, "maxpool"),),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"has pooling \(first 'crop', 1 in all\), which the engine 'events' does not"):
        Emulator(program, engine="events")


def test_two_readouts_are_refused():
    net = Network("two", 3)
    net.lif("a", 2, vth=0)
    net.lif("b", 5000, vth=0)
    program = net.program()
    somas = tuple(replace(p, model="readout", role="readout", vth=None) for p in program.populations)
    with pytest.raises(VerifyError, match="populations/1/model: a second readout, but the host reads one population"):
        Emulator(replace(program, populations=somas))


# -- events that do not fit ----------------------------------------------------------------------

ONE = np.array([0])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Events(ONE, ONE, ONE), "events of input 'in' carry a code 0, which is no event; leave them out"),
        (Events(ONE + 0.7, ONE, None), r"step is float64 \[1\]; give a one-dimensional array of integers"),
        (Events(ONE, ONE + np.nan, None), r"soma is float64 \[1\]; give a one-dimensional array of integers"),
        (Events(ONE, ONE, ONE + 0.5), r"code is float64 \[1\]; give a one-dimensional array of integers"),
        (Events([0], [0], None), "step is list; give a one-dimensional array of integers"),
        (np.full((3, 2, 1, 1), 2**32), "carry codes 4294967296..4294967296, it takes 0..1"),
        (np.full((3, 2, 1, 1), 2**32 + 1), "carry codes 4294967297..4294967297, it takes 0..1"),
    ],
)
def test_events_that_cannot_be_meant(given, text):
    for engine in ("events", "ticks"):
        with pytest.raises(UsageError, match=text):
            Emulator(pair(), engine=engine).run_events({"in": given}, 3)


def test_events_of_any_integer_type():
    program, want = pair(payload_bits=8), None
    for dtype in (np.int32, np.int64, np.uint8):
        given = Events(np.array([0, 1], dtype), np.array([1, 0], dtype), np.array([3, 200], dtype))
        found = Emulator(program, record="all").run_events({"in": given}, 3).events["in"]
        want = want or found
        assert found.code.dtype == np.int32 and np.array_equal(found.code, want.code)
    both(pair(), {"in": np.ones((3, 2, 1, 1), bool)}, 3)


def test_a_stream_only_goes_on():
    stream = Stream(pair())
    with pytest.raises(UsageError, match="-5 timesteps: a stream only goes on; give at least 0"):
        stream.feed({}, -5)
    with pytest.raises(UsageError, match="events of input 'in' are of type ndarray; give nmc_emulator.Events"):
        stream.feed({"in": np.ones((1, 2, 1, 1), int)}, 1)
    stream.feed({}, 250)
    assert len(stream.feed({"in": events((252, 0), dtype=np.uint8)}, 10)["p"]) == 3


def test_inputs_of_a_stream_live_within_their_timestep():
    program = pair()
    late = replace(
        program, populations=(replace(program.populations[0], level=1), program.populations[1]),
        sparses=(replace(program.sparses[0], lag=2),),
    )  # fmt: skip
    assert len(Emulator(late, record="all").run_events({"in": events((0, 0), (1, 0))}, 4).events["p"]) == 6
    with pytest.raises(UsageError, match="input 'in' lives at level 1, beyond the 1 ticks of its timestep"):
        Stream(late)


# -- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """Arrays and path of a checkpoint, a function that resumes it with some arrays replaced, and its Program."""
    net = Network("kept")
    source, cells = net.input("in", 2), net.lif("p", 5, vth=0, dv=100, du=30)
    net.dense("w", source, cells, np.full((5, 2), 2))
    net.dense("r", cells, cells, np.full((5, 5), -2))
    program, path = net.program(), tmp_path / "kept.safetensors"
    stream = Stream(program)
    stream.feed({"in": events(*((t, 0) for t in range(20)))}, 20)
    stream.save(path)
    with safetensors.safe_open(path, "np") as file:
        about, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def resume(**other: np.ndarray) -> Stream:
        safetensors.numpy.save_file(arrays | other, path, about)
        return Stream.resume(path, program)

    assert resume().step == 20
    return arrays, path, resume, program


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tick", [-5]),
        ("tick", [2**63 - 2]),
        ("tick", [3, 4]),
        ("tick", [3.5]),
        ("tick", [np.nan]),
        ("samples", [-1]),
        ("samples", [2**62]),
        ("steps", [-(2**62)]),
    ],
)
def test_checkpoints_with_an_impossible_time(checkpoint, name, value):
    with pytest.raises(UsageError, match=f"the checkpoint's '{name}' is no whole number in 0..[0-9]*; start anew"):
        checkpoint[2](**{name: np.array(value)})


@pytest.mark.parametrize(("count", "soma"), [(-3, 0), (100, 0), (2, 7), (2, -1), (2, 2**31 - 1)])
def test_checkpoints_that_lead_outside_the_arrays(checkpoint, count, soma):
    arrays, _, resume, _ = checkpoint
    with pytest.raises(UsageError, match="the checkpoint lists events that population 'in' cannot send; start anew"):
        resume(listed=np.full_like(arrays["listed"], count), ring=np.full_like(arrays["ring"], soma))


def test_checkpoints_with_types_that_numpy_lacks(checkpoint):
    _, path, _, program = checkpoint
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"tick":{"dtype":"I64","shape":[1]', b'"tick":{"dtype":"BF16","shape":[4]'))
    assert path.read_bytes() != raw
    with pytest.raises(ArtefactError, match="give a file that Stream.save wrote"):
        Stream.resume(path, program)


def test_strict_speaks_of_new_overflows_only(tmp_path):
    net = Network("hot")
    source, cell = net.input("in", 1), net.lif("cell", 1, vth=131071)
    net.dense("up", source, cell, [[254]], exponent=12)
    program, path = net.program(), tmp_path / "hot.safetensors"
    stream = Stream(program)
    stream.feed({"in": events((0, 0))}, 5)
    assert stream.counters().overflow["u"].tolist() == [0, 1]
    stream.save(path)
    again = Stream.resume(path, program, strict=True)
    again.feed({}, 3)
    with pytest.raises(VerifyError, match="population 'cell', tick 9: 1 values left the range of 'u'"):
        again.feed({"in": events((8, 0))}, 3)
