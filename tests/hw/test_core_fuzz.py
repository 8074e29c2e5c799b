"""The RTL against the emulator and the plain-Python twin, memory by memory, on random images."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.neurocore import Sizes, check_image
from nmc_emulator.neurocore import Machine
from nmc_hw.sim import RtlMachine
from nmc_hw.verilate import TOOL, find_verilator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "neurocore"))

from legal import legal
from naive_core import Naive
from random_images import random_events, random_image

pytestmark = pytest.mark.skipif(find_verilator() is None, reason=f"needs {TOOL}")

SIZES = Sizes(neurons=64, axons=64, words=1024, types=4, geoms=2)
MESH = dataclasses.replace(SIZES, x=2, y=2)
CLOCKS = (4, 5, 12)  # counters that only hardware has
STEP_MEMORIES = (7, 8, 9, 10, 11, 12, 13, 15)  # what a step changes, but for the weights
STEPS = 20


def assert_same(rtl, model, where, mems=range(16)):
    for core in range(rtl.sizes.cores):
        for mem in mems:
            ours, theirs = rtl.read(core, mem), np.array(model.read(core, mem), np.uint64)
            if mem == 15:
                ours[list(CLOCKS)] = theirs[list(CLOCKS)] = 0
            differ = np.flatnonzero(ours != theirs)
            assert not differ.size, (
                f"{where}, core {core}, {rtl.memories[mem].name}, item {differ[0]}: RTL {ours[differ[0]]:#x}, "
                f"{type(model).__name__} {theirs[differ[0]]:#x} ({differ.size} differ)"
            )


def run_both(model_class, seed, sizes, learn, per_step=6, steps=STEPS, every=1):
    """Counters of all cores added, after `steps` steps without a difference; memories are read back in each `every`-th.

    Spikes and counters are compared in every step.
    """
    image = random_image(seed, sizes, state=seed % 3 > 0)
    image.memories[14][:, 1] = learn
    image, instead = legal(image)
    check_image(image)
    rtl, model = RtlMachine(image), model_class(image)
    rtl.stall_log((0, 100, 250)[seed % 3], seed)
    assert_same(rtl, model, f"seed {seed}, loaded")
    for t, events in enumerate(random_events(seed, sizes, steps, per_step)):
        for core, axon in events:
            for machine in (rtl, model):
                machine.inject(core, [instead[axon]], machine.step_count % 16)
        where = f"seed {seed}, step {t}"
        logged, expected = rtl.step().tolist(), np.array(model.step()).reshape(-1, 2).tolist()
        assert sorted(logged) == sorted(expected), where
        assert_same(rtl, model, where, (15,) if t % every else STEP_MEMORIES if t % 5 else (0, *STEP_MEMORIES))
    assert_same(rtl, model, f"seed {seed}, at the end")
    counters = sum(rtl.read(core, 15).astype(np.int64) for core in range(sizes.cores))
    for machine in (rtl, model):
        machine.restart()
    assert_same(rtl, model, f"seed {seed}, restarted", STEP_MEMORIES)
    return counters


@pytest.mark.parametrize("seed", range(2))
def test_rtl_is_the_plain_python_twin(seed):
    run_both(Naive, seed, MESH, learn=seed % 2, steps=8)


def test_a_step_waits_for_what_the_host_has_begun():
    rtl = RtlMachine(random_image(3, MESH))
    for core in range(MESH.cores):
        rtl.write(core, 15, 0, [0])
    rtl.step()
    assert [rtl.read(core, 15)[3] for core in range(MESH.cores)] == [1] * MESH.cores


def test_rtl_is_the_emulator():
    total = sum(run_both(Machine, seed, MESH, learn=seed % 2) for seed in range(100, 106))
    reached = [i for i in range(14) if i not in (*CLOCKS, 1)]
    assert [i for i in reached if total[i] == 0] == []


def great_run(seed, sizes, learn, per_step=6, steps=STEPS):
    """Reading memories back takes most of the time; where something differs they are read in every step, to find it."""
    try:
        return run_both(Machine, seed, sizes, learn, per_step, steps, every=5)
    except AssertionError:
        run_both(Machine, seed, sizes, learn, per_step, steps)
        raise


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1500, 50))
@pytest.mark.parametrize(("learn", "per_step", "steps", "least"), [(0, 170, 30, 10**6), (1, 20, 20, 10**5)])
def test_rtl_is_the_emulator_in_fifty_cases(learn, per_step, steps, least, first):
    """1,000 cases in all, with 10^7 synaptic events without learning and 10^6 with it."""
    cases = range(first, first + 50)
    total = sum(great_run(seed, (SIZES, MESH)[seed % 2], learn, per_step, steps) for seed in cases)
    print(f"learning {learn}: {total[0]} synapses, {total[2]} spikes, {total[6]} events between cores, "
          f"{total[8]} weights down, {total[9]} up")  # fmt: skip
    assert total[0] >= least


@pytest.mark.slow
@pytest.mark.parametrize(("x", "y"), [(2, 1), (1, 2)])
def test_other_meshes(x, y):
    for seed in range(20):
        great_run(seed, dataclasses.replace(SIZES, x=x, y=y), learn=seed % 2)


@pytest.mark.slow
@pytest.mark.parametrize("words", [1 << 14, 1 << 15, 1 << 16])
def test_words_in_several_block_rams(words):
    """The memory of synapse words is built otherwise where it is large; rows lie all over it."""
    sizes = dataclasses.replace(SIZES, words=words)
    total = sum(great_run(seed, sizes, seed % 2, 20) for seed in range(8))
    assert total[0] > 0 and total[8] > 0 and total[9] > 0


@pytest.mark.slow
def test_a_core_of_the_largest_sizes():
    total = sum(great_run(seed, Sizes(types=64), seed % 2, 200) for seed in range(4))
    assert total[0] > 0 and total[8] > 0 and total[9] > 0
