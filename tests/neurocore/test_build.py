"""The image of a Program: rows, axons, limits, and what the core refuses."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import CapacityError, LoweringError
from nmc_compiler.mapping import map_program
from nmc_compiler.mapping.resources import core_usage
from nmc_compiler.neurocore import items
from nmc_compiler.neurocore.axons import Axons
from nmc_compiler.neurocore.build import Builder, build_image
from nmc_compiler.neurocore.rows import Words, encoded
from nmc_compiler.program.model import CoreSoma
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import Emulator

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nets import random_program, small_target
from test_engine import assert_same_run


def formats(image, core=0):
    kinds = (image.memories[1][core] & np.uint64(7)).astype(int)
    return {items.FORMATS[k]: int((kinds == k).sum()) for k in np.unique(kinds) if k}


def mapped(net, target=None):
    return map_program(net.program(), target or small_target(), 1)[0]


def conv_net(stride=1, dilation=1, kernel=3, groups=1):
    rng, net = np.random.default_rng(0), Network("conv", 6)
    size = (9 - dilation * (kernel - 1) - 1) // stride + 1
    a, b = net.input("in", (2, 9, 9)), net.lif("p", (2, size, size), dv=300, vth=90)
    net.conv("c", a, b, rng.integers(-30, 60, (kernel, kernel, 2 // groups, 2)), stride=stride, dilation=dilation,
             groups=groups)  # fmt: skip
    return mapped(net)


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ({}, "CONV"),
        ({"stride": 2}, "CONV"),
        ({"dilation": 2}, "CONV"),
        ({"stride": 3}, "SPARSE"),
        ({"groups": 2}, "SPARSE"),
    ],
)
def test_convolutions(form, rows):
    program = conv_net(**form)
    assert rows in formats(build_image(program).image)
    want, _ = assert_same_run(program, 5, 12)
    assert len(want.events["p"])


def test_rows_are_the_cheapest():
    rng, net = np.random.default_rng(1), Network("rows")
    source, target = net.input("in", 3), net.lif("p", 60, vth=10)
    matrix = np.zeros((60, 3), int)
    matrix[:, 0] = rng.integers(1, 100, 60)  # all targets
    matrix[[3, 20, 59], 1] = 5  # a few
    matrix[7, 2] = -9  # one
    net.dense("w", source, target, matrix)
    built = build_image(mapped(net))
    assert formats(built.image) == {"DENSE": 1, "SPARSE": 1, "ONE": 1}
    assert built.usage[0]["words"][0] == 31 + 3 and built.usage[0]["descriptors"][0] == 3


def test_rows_are_put_together_where_there_are_words():
    rng, net = np.random.default_rng(0), Network("together")
    source = net.input("in", 5)
    first, _, last = (net.lif(name, n, vth=10) for name, n in (("a", 12), ("b", 30), ("c", 3)))
    for name, target, n in (("wa", first, 12), ("wc", last, 3)):
        net.dense(name, source, target, rng.integers(1, 100, (n, 5)))
    program = mapped(net)
    for words, used in ((128, {"words": 5 * 15, "descriptors": 5}), (64, {"words": 5 * (7 + 3), "descriptors": 10})):
        limits = {**program.target["limits"], "synapse_words": words}
        built = build_image(dataclasses.replace(program, target={**program.target, "limits": limits}))
        assert {name: built.usage[0][name][0] for name in used} == used


@pytest.mark.parametrize("seed", [0, 2, 9, 11, 14])
def test_a_mapping_counts_no_less_than_the_image_takes(seed):
    target = small_target()
    program = random_program(seed, target)
    counted, cores = core_usage(program, program.mapping, target), program.mapping.cores
    apart, together = Builder(program, merged=False), Builder(program)
    for builder in (apart, together):
        builder.add_rows()
        builder.routes()
    for place, (_, x, y, _) in enumerate(cores.tolist()):
        core = 2 * y + x
        assert apart.words[core].used <= counted["synapse_words"][place]
        assert together.axons.used[core] <= apart.axons.used[core] <= counted["axons_in"][place]


def test_equal_rows_are_stored_once():
    net = Network("equal")
    source, target = net.input("in", 50), net.lif("p", 40, vth=10)
    net.dense("w", source, target, np.tile(np.arange(1, 41)[:, None], (1, 50)))
    assert build_image(mapped(net)).usage[0]["words"][0] == 21


@pytest.mark.parametrize("delay", [0, 1, 15, 16, 40, 61])
def test_delays_of_any_length(delay):
    net = Network("late")
    source, target = net.input("in", 2), net.lif("p", 2, vth=0)
    net.dense("w", source, target, np.eye(2, dtype=int), delay=delay)
    program = mapped(net)
    chain = formats(build_image(program).image)
    assert chain.get("DELAY", 0) == 2 * -(-delay // 15)
    codes = np.zeros((delay + 5, 2, 1, 1), np.int32)
    codes[2, 1] = 1
    run = Emulator(program, record="all", engine="neurocore").run_events({"in": codes}, delay + 5)
    assert (run.events["p"].step.tolist(), run.events["p"].soma.tolist()) == ([delay + 3], [1])


@pytest.mark.parametrize("scale", [(127, 0), (255, 0), (1000, 1), (1200, 0), (127, 7), (100, 11), (32000, 0)])
def test_weights_of_any_width(scale):
    """Wide weights become halves, repeated targets, or rows of low and high bits; large shifts move to the soma."""
    top, exponent = scale
    rng, net = np.random.default_rng(2), Network("wide", 8)
    source, target = net.input("in", 9), net.lif("p", 12, du=4095, dv=900, vth=min(top << exponent, 2**17 - 1))
    net.dense("w", source, target, rng.integers(-top // 2, top + 1, (12, 9)), exponent=exponent)
    program = mapped(net)
    if top == 32000:
        with pytest.raises(
            LoweringError, match="'in': weights -?[0-9]+ to [0-9]+ shifted by 0 do not fit rows of 8-bit"
        ):
            build_image(program)
        return
    assert_same_run(program, 3, 16)


def test_repeats_and_low_and_high_bits():
    words = Words(0, 64)
    target = np.arange(3)
    [row] = encoded(target, np.array([300, -130, 5]), 0, words, "x")
    assert row & 7 == items.SPARSE and items.unpack(items.DESCRIPTORS[1], np.array(row, np.uint64))["len"] == 3 + 2 + 1
    low, high = encoded(target, np.array([1001, -1001, 7]), 2, Words(0, 64), "x")
    shifts = [int(items.unpack(items.DESCRIPTORS[2], np.array(r, np.uint64))["shift"]) for r in (low, high)]
    assert shifts == [2, 5]


def test_somas_with_leak_refractory_soft_reset_and_gain():
    net = Network("more")
    source = net.input("in", 1)
    core = CoreSoma(leak=5 << 6, refractory=2, soft=True, gain=3)
    target = net.lif("p", 1, du=4095, dv=0, vth=100, core=core)
    net.dense("w", source, target, [[50]])
    codes = np.zeros((8, 1, 1, 1), np.int32)
    codes[0:3] = 1
    run = Emulator(mapped(net), record="all").run_events({"in": codes}, 8, probe={"p": None})
    # 150 - 5 = 145 fires and keeps 45; two steps of rest; then the leak brings 45 down by 5 a step
    assert (run.potentials["p"][1].ravel() / 64).tolist() == [0, 45, 45, 45, 40, 35, 30, 25]
    assert run.events["p"].step.tolist() == [1]


# --- what does not go ---


def refused(program):
    with pytest.raises(LoweringError) as error:
        build_image(program)
    return str(error.value)


def not_mapped(net):
    with pytest.raises(LoweringError) as error:
        mapped(net)
    return str(error.value)


def test_what_a_core_cannot_compute():
    plain = random_program(14)
    assert refused(dataclasses.replace(plain, mapping=None)).endswith(
        "is not mapped; compile it with --target neurocore"
    )
    other = map_program(Network_small(), load_target("loihi2"), 1)[0]
    assert refused(other) == "Program 'small' is for loihi2; compile it with --target neurocore"
    slow = dataclasses.replace(plain, ticks_per_step=2)
    assert refused(slow).startswith(
        "Program 'net14' takes 2 ticks per timestep; a step of the neurocore is one timestep"
    )
    ternary = Network("t")
    a, b = ternary.input("in", 1), ternary.lif("p", 1, vth=5, restart=(3, 0))
    ternary.dense("w", a, b, [[1]])
    assert not_mapped(ternary) == (
        "population 'p' has a restart within the window, which a neuron of the neurocore has not"
    )
    right = Network("t")
    a, b = right.input("in", 1), right.lif("p", 1, vth=5)
    right.dense("w", a, b, [[1]], exponent=-2)
    assert not_mapped(right) == "'w.shift': the neurocore has no pools, sums or right shifts of currents"


def Network_small():
    net = Network("small")
    a, b = net.input("in", 1), net.lif("p", 1, vth=5)
    net.dense("w", a, b, [[1]])
    return net.program()


def test_what_binds_is_named_with_numbers():
    net = Network("wide")
    source = net.input("in", 70)
    for i in range(3):
        target = net.lif(f"p{i}", 10, dv=i, vth=np.arange(10))
        net.dense(f"w{i}", source, target, np.arange(700).reshape(10, 70) % 100 + 1)
    program = mapped(net, small_target(neuron_groups=64))
    limits = program.target["limits"]

    def with_limit(**new):
        return dataclasses.replace(program, target={**program.target, "limits": {**limits, **new}})

    for new, text in (
        ({"neuron_groups": 16}, "core 0: neuron types 30/16. Compile with --channel-bins 1"),
        (
            {"neuron_groups": 64, "synapse_words": 256},
            r"core 0: synapse words [0-9]+/256\. Use smaller or sparser layers",
        ),
        (
            {"neuron_groups": 64, "axons_in": 64},
            r"core 0: row descriptors: 1 more for 'in' on top of 64/64\. Use fewer",
        ),
    ):
        with pytest.raises(CapacityError, match=text):
            build_image(with_limit(**new))


def test_the_same_program_gives_the_same_bytes(tmp_path):
    from nmc_compiler.neurocore import image_digest

    program = random_program(22)
    assert image_digest(build_image(program).image) == image_digest(build_image(program).image)


def test_one_number_serves_all_cores_of_a_soma():
    axons = Axons(2, 4)
    assert axons.place({0: {1: [7, 7]}}, "a") == 0
    assert axons.place({0: {1: [7]}, 1: {1: [7]}}, "b") == 2
    assert axons.place({1: {1: [7], 3: [9]}}, "c") == 0  # two descriptors at 0, the delayed row at 3
    assert axons.items.tolist() == [[15, 7, 7, 0], [15, (2 << 21) + (3 << 10) + 6, 7, 9]]
    axons.free[1, 0] = True
    with pytest.raises(CapacityError) as error:
        axons.place({0: {1: [7]}, 1: {1: [7]}}, "d")
    assert str(error.value) == (
        "cores 0, 1: no axon number is free on all of them for 'd' (3/4 descriptors of core 0 are used). Use fewer "
        "source neurons that reach several cores, or a larger mesh"
    )
