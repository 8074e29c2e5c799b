"""The emulator's kernels against the plain-Python twin, memory by memory, on random images."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Sizes
from nmc_emulator.neurocore import Machine

sys.path.insert(0, str(Path(__file__).resolve().parent))

from naive_core import Naive
from random_images import SMALL, random_events, random_image

CLOCKS = (4, 5, 12)  # counters that only hardware has


def assert_same(machine, twin, where):
    for core in range(machine.sizes.cores):
        for memory in machine.memories:
            ours, theirs = machine.read(core, memory.id), np.array(twin.read(core, memory.id), np.uint64)
            if memory.id == 15:
                ours[list(CLOCKS)] = theirs[list(CLOCKS)] = 0
            differ = np.flatnonzero(ours != theirs)
            assert not differ.size, (
                f"{where}, core {core}, {memory.name}, item {differ[0]}: {ours[differ[0]]:#x}, "
                f"twin {theirs[differ[0]]:#x}"
            )


def run_both(image, seed, steps):
    machine, twin = Machine(image), Naive(image)
    assert_same(machine, twin, "loaded")
    for t, events in enumerate(random_events(seed, image.sizes, steps)):
        for core, axon in events:
            for m in (machine, twin):
                m.inject(core, [axon], m.step_count % 16)
        assert sorted(map(tuple, machine.step().tolist())) == sorted(twin.step())
        assert_same(machine, twin, f"seed {seed}, step {t}")
    return machine, twin


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
@settings(max_examples=40, deadline=None)
def test_random_images_run_as_the_twin_says(seed, mesh):
    sizes = dataclasses.replace(SMALL, x=mesh[0], y=mesh[1])
    run_both(random_image(seed, sizes, state=seed % 3 > 0), seed, 12)


def test_the_random_images_reach_every_counter():
    total = np.zeros(16, np.int64)
    for seed in range(12):
        machine, _ = run_both(random_image(seed, dataclasses.replace(SMALL, x=2)), seed, 20)
        total += machine.read(0, 15).astype(np.int64)
    reached = [i for i in range(16) if i not in (*CLOCKS, 1, 14, 15)]
    assert [i for i in reached if total[i] == 0] == []


def test_restart_keeps_weights_and_counters():
    machine, twin = run_both(random_image(5), 5, 8)
    for m in (machine, twin):
        m.restart()
    assert_same(machine, twin, "restarted")
    assert machine.step_count == 0 and machine.read(0, 15)[3] == 8
    for m in (machine, twin):
        m.write(0, 15, 3, [7])
    assert not machine.read(0, 15).any()
    assert_same(machine, twin, "counters written")


def test_many_steps_in_one_call_equal_single_steps():
    image = random_image(11, dataclasses.replace(SMALL, x=2))
    single, many = Machine(image), Machine(image)
    events = random_events(11, image.sizes, 10)
    rows = [(t, core, axon) for t, step in enumerate(events) for core, axon in step]
    fired = many.run(10, np.array(rows, np.int64))
    for t, step in enumerate(events):
        for core, axon in step:
            single.inject(core, [axon], single.step_count)
        single.step()
        assert (single.state.fired == fired[t]).all()
    for mem in range(16):
        assert (single.read(1, mem) == many.read(1, mem)).all()


def test_the_full_sizes():
    run_both(random_image(1, Sizes(), state=True), 1, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m.read(1, 0), "neurocore: core 1, memory 0; there are 1 cores, 16 memories"),
        (lambda m: m.write(0, 0, 250, [0] * 7), "neurocore: items 250 to 257 of synapse words, which has 256"),
        (lambda m: m.inject(2, [0], 0), "neurocore: core 2; there are 1"),
    ],
)
def test_accesses_outside(call, text):
    with pytest.raises(UsageError) as error:
        call(Machine(random_image(0)))
    assert str(error.value) == text
