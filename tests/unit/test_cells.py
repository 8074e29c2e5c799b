"""Somas of the model cell: every engine against the brute-force twin, the file, and what is refused."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from cells import celled
from general_nets import random_codes, random_general
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import map_program, random_images, random_program
from test_emulator_engines import OPTIONS, same_as_naive
from test_emulator_general import same_as_naive as same_events_as_naive
from test_emulator_general import same_counters

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.io import load_program, save_program
from nmc_compiler.program.model import Cell, Population, Program
from nmc_compiler.program.network import Network
from nmc_compiler.program.validate import validate_program
from nmc_emulator import Emulator, run
from nmc_emulator.trace import codes_of

PROFILES = st.sampled_from(["loihi1", "loihi2", "neurocore"])


def one(timesteps: int = 8, bias: int = 0, **given) -> Program:
    """An input, and a cell that reads it through a weight of 1."""
    net = Network("one", timesteps)
    source = net.input("in", 1, payload_bits=8, signed=True)
    numbers = {"thresholds": [[100 << 6]], "dv": 0, "bias": bias, "cell": Cell()} | given
    cell = net.cell("cell", 1, **numbers)
    net.dense("synapse", source, cell, np.array([[1]]))
    program = net.program()  # whose events take a timestep; here they take a level
    populations = (program.populations[0], replace(program.populations[1], level=1))
    sparses = tuple(replace(s, lag=0) for s in program.sparses)
    return replace(program, populations=populations, sparses=sparses, interval=timesteps + 1 if timesteps else 0)


def codes(program: Program, drive: list[int], engine: str = "events") -> list[int]:
    found = Emulator(program, engine=engine, record=["cell"]).run_events(
        {"in": np.array(drive).reshape(-1, 1, 1, 1)}, len(drive)
    )
    return codes_of(found.events["cell"], len(drive), (1, 1, 1)).reshape(-1).tolist()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS, st.integers(1, 2), PROFILES)
def test_layers_and_ticks_equal_the_brute_force_twin(seed, options, samples, profile):
    program = celled(random_program(seed, **options), seed)
    program = map_program(program, seed, cores=5, parts=3, chips=2)
    program = replace(program, target={**program.target, "profile": profile})
    validate_program(program)
    images = random_images(program, seed, samples)
    want = naive.run(program, images)
    same_as_naive(program, images, run(program, images, record="all"), want)
    same_as_naive(program, images, run(program, images, record="all", engine="ticks"), want)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 9), PROFILES)
def test_ticks_and_events_equal_the_brute_force_twin(seed, steps, profile):
    program = celled(random_general(seed, timesteps=steps if seed % 2 else 0, profile=profile), seed, signed=True)
    validate_program(program)
    inputs = random_codes(program, seed, steps)
    same_events_as_naive(program, inputs, steps)
    try:
        emulator = Emulator(program, engine="events", record="all")
    except UsageError:
        return  # pooling, or a relay: another engine's
    want, names = naive.run_events(program, inputs, steps), {p.name: i for i, p in enumerate(program.populations)}
    probed = [p.name for p in program.populations if p.model == "cell"]
    given = {p.name: inputs[i] for i, p in enumerate(program.populations) if p.model == "input"}
    found = emulator.run_events(given, steps, probe=dict.fromkeys(probed))
    same_counters(found.counters, want)
    for name, events in found.events.items():
        shape = program.populations[names[name]].shape
        assert np.array_equal(codes_of(events, steps, shape), want.codes[names[name]][0]), name
    for name in probed:
        for part, values in zip("uv", found.potentials[name], strict=True):
            assert np.array_equal(values.reshape(-1), want.states[part][names[name]][0].reshape(-1)), (name, part)


def test_windows_begin_at_rest():
    program = one(4, dv=0, cell=Cell(soft=True, step=np.array([100 << 6], np.int32)), start_v=50 << 6)
    assert codes(program, [50, 0, 30, 0] * 3) == [1, 0, 0, 0] * 3


def test_soft_reset_keeps_what_is_above_the_threshold():
    soft = one(cell=Cell(soft=True, step=np.array([100 << 6], np.int32)))
    assert codes(soft, [90, 90, 90, 30, 0, 0, 0, 0]) == [0, 1, 1, 1, 0, 0, 0, 0]
    assert codes(one(cell=Cell()), [90, 90, 90, 30, 0, 0, 0, 0]) == [0, 1, 0, 1, 0, 0, 0, 0]
    never = one(cell=Cell(soft=True))
    assert codes(never, [90, 90, 0, 0, 0, 0, 0, 0]) == [0, 1, 1, 1, 1, 1, 1, 1]


def test_a_late_reset_is_that_of_the_next_update():
    late = one(cell=Cell(late=True))
    assert codes(late, [120, 90, 90, 90, 0, 0, 0, 0]) == [1, 0, 0, 1, 0, 0, 0, 0]


def test_the_sum_of_what_is_sent_stays_in_its_bounds():
    steps = {"soft": True, "step": np.array([100 << 6], np.int32), "low": np.zeros(1, np.int32)}
    drive = [120, 120, 120, -120, -120, -120, -120, 0]
    assert codes(one(cell=Cell(**steps)), drive) == [1, 1, 1, -1, -1, -1, -1, -1]
    assert codes(one(cell=Cell(**steps, sums=(0, 2))), drive) == [1, 1, 0, 0, -1, -1, 0, 0]


def test_an_adaptive_threshold_rises_and_decays():
    cell = Cell(jump=np.array([100 << 6], np.int32), db=2048)
    assert codes(one(dv=4096, cell=cell), [110] * 8) == [1, 0, 0, 0, 0, 1, 0, 0]


def test_tables_by_timestep():
    gain, rise = np.array([[4096], [8192], [-4096], [2048]], np.int32), np.array([[0], [0], [0], [-3200]], np.int32)
    assert codes(one(4, dv=4096, cell=Cell(gain=gain)), [60, 60, -120, 120]) == [0, 1, 1, 0]
    assert codes(one(4, dv=4096, cell=Cell(gain=gain, rise=rise)), [60, 60, -120, 120]) == [0, 1, 1, 1]
    bias = np.array([[6400], [0], [-64], [0]], np.int32)
    assert codes(one(4, dv=4096, cell=Cell(bias=bias)), [0, 99, 100, 100]) == [1, 0, 0, 1]


def test_a_program_of_cells_is_read_as_it_was_written(tmp_path):
    program = replace(celled(random_general(7, timesteps=3), 7, signed=True), target={}, mapping=None)
    assert any(p.model == "cell" for p in program.populations)
    digest = save_program(program, tmp_path)
    again = load_program(tmp_path)
    assert save_program(again, tmp_path / "again") == digest
    found = next(p.cell for p in again.populations if p.cell is not None)
    assert isinstance(found, Cell)


WRONG = {
    "cell/gain: a table by timestep, but the Program is a stream": (0, Cell(gain=np.ones((1, 1), np.int32))),
    r"cell/gain: shape \[3, 1\], expected \[4, 1\]": (4, Cell(gain=np.ones((3, 1), np.int32))),
    r"cell/gain: values 131073..131073 leave -131072..131072": (4, Cell(gain=np.full((4, 1), 131073, np.int32))),
    r"cell/rise: dtype float64, expected int32": (4, Cell(rise=np.ones((4, 1)))),
    "cell/step: given, but without soft a code resets v to 0": (4, Cell(step=np.ones(1, np.int32))),
    "cell/low: not below the first threshold": (4, Cell(low=np.full(1, 6400, np.int32))),
    "cell/db: 4097 is outside 0..4096": (4, Cell(db=4097)),
    r"cell/sums: 1 is outside": (4, Cell(sums=(1, 2))),
    "cell/bias: given besides the population's": (4, Cell(bias=np.ones((4, 1), np.int32))),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_cell_that_breaks_a_rule(text):
    timesteps, cell = WRONG[text]
    with pytest.raises(VerifyError, match=f"Program field populations/1/{text}"):
        validate_program(one(timesteps, bias=3, cell=cell))


def test_strict_says_where_a_cell_left_its_range():
    program = map_program(celled(random_program(11, layers=5), 3))
    wild = {"start_v": 2**23 - 1, "bias": 2**22}

    def broken(p: Population) -> Population:
        if p.cell is None:
            return p
        start, bias = np.full(p.shape, wild["start_v"], np.int32), np.full(p.shape[0], wild["bias"], np.int32)
        return replace(p, start_v=start, bias=bias, dv=0, cell=replace(p.cell, bias=None))

    program = replace(program, populations=tuple(map(broken, program.populations)))
    texts = []
    for engine in ("layers", "ticks"):
        with pytest.raises(VerifyError, match="24-bit membrane potential, which saturates") as error:
            run(program, random_images(program, 1, 1), engine=engine, strict=True)
        texts.append(str(error.value))
    assert texts[0] == texts[1]
