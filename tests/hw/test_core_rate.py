"""Synapses a clock of one core of full size: 1,024 rows of 64 synapses, 256 of them fire in a step."""

import numpy as np
import pytest

from nmc_compiler.neurocore import Image, Sizes
from nmc_compiler.neurocore.items import RULE, SPARSE, SPARSE_WORD, TRACES, TYPE, descriptor, group_items, pack
from nmc_emulator.neurocore import Machine
from nmc_hw.sim import RtlMachine
from nmc_hw.verilate import TOOL, find_verilator

pytestmark = [
    pytest.mark.skipif(find_verilator() is None, reason=f"needs {TOOL}"),
    pytest.mark.slow,
]

ROWS, LENGTH, FIRING = 1024, 64, 256


def benchmark_image(learn):
    sizes, rng = Sizes(), np.random.default_rng(7)
    targets = np.array([rng.permutation(sizes.neurons)[:LENGTH] for _ in range(ROWS)])
    words = pack(SPARSE_WORD, weight=rng.integers(-128, 128, targets.shape), target=targets)
    rows = np.zeros((1, sizes.axons), np.uint64)
    rows[0, :ROWS] = descriptor(SPARSE, rule=int(learn), len=LENGTH, base=np.arange(ROWS) * LENGTH)
    kind = {"du": 4096, "dv": 128, "vth": 3000 << 6, "gain": 1, "ishift": 6}
    rule = {"ap": 64, "am": 40, "sp": 10, "sm": 11, "wmin": -128, "wmax": 127}
    registers = np.zeros((1, 16), np.uint64)
    registers[0, 1] = learn
    registers[0, 2] = int(pack(TRACES, k_pre=3, k_post=3, inc_pre=100, inc_post=100, add_pre=1, add_post=1))
    types, rules = np.zeros((1, 64), np.uint64), np.zeros((1, 16), np.uint64)
    types[0, :4] = group_items(TYPE, [kind])
    rules[0, 2:4] = group_items(RULE, [rule])
    return Image(sizes, {0: words.reshape(1, -1), 1: rows, 4: types, 6: rules, 14: registers})


@pytest.mark.parametrize(("learn", "steps", "least"), [(0, 640, 0.85), (1, 70, 0.4)])
def test_synapses_per_clock(learn, steps, least):
    """Ten million synapses without learning, one with, and all that they leave behind as the emulator has it."""
    image, rng = benchmark_image(learn), np.random.default_rng(11)
    rtl, model = RtlMachine(image), Machine(image)
    for machine in (rtl, model):  # all axons have traces
        machine.write(0, 11, 0, np.r_[np.full(ROWS, 255), np.zeros(image.sizes.axons - ROWS)])
    order = rng.permutation(ROWS).reshape(-1, FIRING)  # every axon fires in one of four steps, so no trace ends
    for t in range(steps):
        axons = order[t % len(order)]
        for machine in (rtl, model):
            machine.inject(0, axons, machine.step_count % 16)
            machine.step()
        if learn:
            assert (rtl.read(0, 11)[:ROWS] > 0).all()
    for mem in (0, 7, 8, 10, 11, 13):
        assert np.array_equal(rtl.read(0, mem), model.read(0, mem))
    counters = rtl.read(0, 15).astype(np.int64)
    assert counters[0] == steps * FIRING * LENGTH
    rate = counters[0] / counters[4]
    print(f"{counters[0]} synapses, {counters[2]} spikes, {counters[4]} clocks: {rate:.3f} a clock, learning {learn}")
    assert rate >= least
