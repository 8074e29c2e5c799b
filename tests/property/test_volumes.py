"""Convolutions in one, two and three dimensions: every engine, the mapper and PyTorch against each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import naive
import numpy as np
import pytest
from general_nets import random_codes
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_nets import target_with
from programs import ROUTERS, random_images, random_program
from programs import map_program as tile
from volumes import flat, random_volumes, random_window

from nmc.ladder.explain import Reader, accumulate
from nmc_compiler.errors import CapacityError
from nmc_compiler.mapping import find_problems, map_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator, run
from nmc_emulator.counters import BOUND, OVERFLOW, TABLES

bounded = settings(max_examples=30, deadline=None, derandomize=True)
few = settings(bounded, max_examples=12)
SEEDS = st.integers(0, 10**6)
ENGINES = ("events", "ticks")


def tiled(program: Program, seed: int) -> Program:
    """Random tiles on random cores, and axon boxes larger than need be."""
    return tile(replace(program, target={"mesh": {"routers": ROUTERS}}), seed, cores=5, parts=4, chips=2)


def agree(program: Program, seed: int, steps: int, rate: float | None = None, engines=ENGINES) -> naive.Naive:
    """Events and every counter of the engines are those of the brute-force twin."""
    inputs = random_codes(program, seed, steps, rate)
    want, names = naive.run_events(program, inputs, steps), [p.name for p in program.populations]
    for engine in engines:
        got = Emulator(program, record="all", engine=engine).run_events({names[i]: c for i, c in inputs.items()}, steps)
        for i, name in enumerate(names):
            events, codes = got.events[name], np.zeros((steps, want.codes[i][0, 0].size), np.int64)
            codes[events.step, events.soma] = 1 if events.code is None else events.code
            assert np.array_equal(codes.reshape(want.codes[i][0].shape), want.codes[i][0]), (engine, name)
        for table in TABLES:
            counted = np.zeros_like(got.counters.tables[table])
            for (unit, core), n in want.tables[table].items():
                counted[unit, core] += n
            assert np.array_equal(got.counters.tables[table], counted), (engine, table)
        assert got.counters.bound == {name: want.bound[name] for name in BOUND}, engine
        for kind in OVERFLOW:
            assert got.counters.overflow[kind].tolist() == [want.overflow[kind][i] for i in range(len(names))]
    return want


@bounded
@given(SEEDS, st.integers(1, 4))
def test_engines_equal_the_brute_force_twin(seed, steps):
    agree(tiled(random_volumes(seed), seed), seed, steps)


@bounded
@given(SEEDS, st.integers(1, 3))
def test_windows_of_timesteps_too(seed, steps):
    agree(tiled(random_volumes(seed, timesteps=steps, axes=3), seed), seed, steps)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_silence_and_everything_firing(seed, rate):
    program = tiled(random_volumes(seed, axes=3), seed)
    want = agree(program, seed, 2, rate)
    assert (sum(want.tables["events"].values()) == 0) == (rate == 0.0)


def test_one_neuron():
    net = Network("one")
    net.input("a", 1)
    net.lif("b", 1, vth=5)
    net.conv("c", 0, 1, np.full((3, 3, 3, 1, 1), 7), pad=1, slices=1)
    agree(tiled(net.program(), 0), 0, 3, 1.0)


@pytest.mark.parametrize("weight", [-128, 127])
def test_sums_beyond_24_bits_are_counted_on_both_sides(weight):
    """u and v leave their ranges in a volume just as anywhere else."""
    net = Network("full")
    net.input("a", (9, 9, 3), payload_bits=8, signed=True)
    net.lif("b", (2, 9, 3), du=0, dv=0, vth=2**17 - 1)
    net.conv("c", 0, 1, np.full((3, 3, 3, 9, 2), weight), pad=1, slices=3)
    program = tiled(net.program(), 1)
    codes = {0: np.full((4, 9, 9, 3), -128, np.int32)}
    want = naive.run_events(program, codes, 4)
    assert sum(want.overflow["u"].values()) > 0
    for engine in ("events", "ticks"):
        got = Emulator(program, record="all", engine=engine).run_events({"a": codes[0]}, 4)
        assert got.counters.overflow["u"].tolist() == [want.overflow["u"][i] for i in (0, 1)]
        assert len(got.events["b"].step) == np.count_nonzero(want.codes[1])


# --- PyTorch ------------------------------------------------------------------------------------------------


@bounded
@given(SEEDS)
def test_potentials_are_what_conv3d_of_pytorch_adds_up(seed):
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra dev")
    rng = np.random.default_rng(seed)
    sizes = tuple(int(n) for n in rng.integers(1, 6, 3))
    groups = int(rng.integers(1, 3))
    ins, outs = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    kernel, form, out = random_window(rng, sizes)
    weight = rng.integers(-128, 128, (*kernel, ins // groups, outs))
    net = Network("torch")
    net.input("a", (ins, *flat(sizes)), payload_bits=8, signed=True)
    net.lif("b", (outs, *flat(out)), du=4095, dv=4096, vth=2**17 - 1)
    net.conv("c", 0, 1, weight, groups=groups, slices=sizes[0], **form)
    codes = rng.integers(-128, 128, (1, ins, *flat(sizes)))
    convolve = torch.nn.functional.conv3d
    operands = (
        torch.tensor(codes.reshape(1, ins, *sizes)).double(),
        torch.tensor(weight.transpose(4, 3, 0, 1, 2).copy()),
    )
    names = {"pad": "padding"}
    options = {names.get(k, k): v for k, v in form.items()}
    want = convolve(operands[0], operands[1].double(), groups=groups, **options).numpy().reshape(outs, *flat(out))
    frames = np.concatenate([codes, 0 * codes]).astype(np.int32)
    for engine in ("events", "ticks"):
        found = Emulator(net.program(), engine=engine).run_events({"a": frames}, 2, probe={"b": None})
        u = found.potentials["b"][0][1].reshape(want.shape)
        assert np.array_equal(u, want * 64), engine


def test_explanations_walk_through_volumes():
    """What `nmc verify` tells of a mismatch: the currents that the engine adds up, neuron by neuron."""
    for seed in range(6):
        program = random_program(seed, volumes=True)
        image = random_images(program, seed, 1)
        result = run(program, image, record="all")
        codes = {p.name: result.codes[p.name][0] for p in program.populations if p.model != "readout"}
        reader, twin = Reader(program, codes, image[0]), naive.run(tile(program), image)
        relays = [(p, twin.codes[i][0]) for i, p in enumerate(program.populations) if p.model == "relay"]
        for p, sums in relays:
            for at in np.ndindex(p.shape):
                assert accumulate(reader, p.dendrite, at, 0, p.level) == sums[(0, *at)], (seed, p.name)


# --- mapping ------------------------------------------------------------------------------------------------


def small_target(seed: int):
    rng = np.random.default_rng(seed)
    limits = {"neurons": (8, 90), "synapse_words": (300, 4000), "axons_in": (60, 300), "axons_out": (60, 300)}
    return target_with(routers=(5, 5), **{k: int(rng.integers(*v)) for k, v in limits.items()}, axon_atoms=4)


def mapped(seed: int) -> tuple[Program, object] | None:
    try:
        return map_program(random_volumes(seed, axes=3), small_target(seed), "auto", seed=seed)[0], small_target(seed)
    except CapacityError:
        return None


@few
@given(SEEDS)
def test_the_mapper_brings_every_event_where_it_has_work_and_hardly_elsewhere(seed):
    """Once to each tile with a target of it; else at most to where a stride or dilation leaves a gap in its slice."""
    done = mapped(seed)
    if done is None:
        return
    program, target = done
    assert find_problems(program, target).problems == []
    for index, c in enumerate(program.convs):
        rows = [r.tolist() for r in program.mapping.axons if r[1:3].tolist() == [0, index]]
        pieces = [r.tolist() for r in program.mapping.pieces if r[1] == c.dst]
        gapless = c.dilation == (1, 1) and all(k >= s for k, s in zip(kernel_of(c), c.stride, strict=True))
        shape = program.populations[c.src].shape
        for e in np.ndindex(shape):
            targets = [t[:3] for t in naive.conv_targets(c, shape[1], e)]
            for tile_, _, *box in pieces:
                due = any(naive.holds(box, t) for t in targets)
                came = sum(r[4] == tile_ and naive.holds(r[5:], e) for r in rows)
                assert came == due if due or gapless else came <= 1


def kernel_of(c) -> tuple[int, int]:
    return len(c.weight) // (c.depth.kernel if c.depth else 1), c.weight.shape[1]


@few
@given(SEEDS)
def test_running_from_the_tables_of_the_mapper(seed):
    done = mapped(seed)
    if done is not None:
        agree(done[0], seed, 2)


def test_a_sum_over_all_positions_of_a_volume():
    """The mapper brings what any output slice reads, and no more, to cores that hold some channels each."""
    net = Network("sum")
    net.input("in", (2, 20, 3), payload_bits=2)
    net.lif("out", (6, 6, 3), vth=900)
    weight = np.random.default_rng(0).integers(-128, 128, (2, 3, 3, 1, 6))
    net.conv("c", 0, 1, weight, groups=2, stride=(2, 2, 1), pad=(1, 1, 1), dilation=(2, 1, 1), slices=4)
    program, one = net.program(), {"shape": (6, 1, 1)}
    program = replace(
        program,
        populations=(program.populations[0], replace(program.populations[1], **one)),
        dendrites=(replace(program.dendrites[0], **one),),
        convs=(replace(program.convs[0], collapse=True),),
    )
    target = target_with(routers=(5, 5), neurons=2, axons_in=60)
    program = map_program(program, target, "auto")[0]
    assert find_problems(program, target).problems == [] and len(program.mapping.cores) == 3
    rows = {tuple(r[7:9]) for r in program.mapping.axons.tolist()}
    assert rows == {(5, 10), (15, 20)}  # slices 1 and 3: the others meet no tap
    assert sum(agree(program, 3, 5, engines=["ticks"]).tables["events"].values()) > 0


def test_most_random_volumes_fit_and_are_cut_within_slices():
    found = [done for done in map(mapped, range(30)) if done is not None]
    assert len(found) >= 20
    within = 0
    for (program, _), c in ((done, c) for done in found for c in done[0].convs):
        height = program.dendrites[c.dst].shape[1] // c.depth.target
        boxes = [r[4:6] for r in program.mapping.pieces.tolist() if r[1] == c.dst]
        within += any(y0 % height or y1 % height for y0, y1 in boxes)
    assert within >= 5


def test_neighbouring_slices_do_not_leak_into_each_other():
    """The last row of a slice is no neighbour of the first row of the next."""
    net = Network("leak")
    net.input("a", (1, 6, 1))
    net.lif("b", (1, 6, 1), vth=2**17 - 1)
    net.conv("c", 0, 1, np.ones((1, 3, 1, 1, 1), int), pad=(0, 1, 0), slices=2)
    (conv,) = net.program().convs
    reached = {y: [t[1] for t in naive.conv_targets(conv, 6, (0, y, 0))] for y in range(6)}
    assert reached == {0: [0, 1], 1: [0, 1, 2], 2: [1, 2], 3: [3, 4], 4: [3, 4, 5], 5: [4, 5]}
    for y, engine in product(range(6), ("events", "ticks")):
        codes = np.zeros((2, 1, 6, 1), np.int32)
        codes[0, 0, y] = 1
        found = Emulator(net.program(), engine=engine).run_events({"a": codes}, 2, probe={"b": None})
        assert np.flatnonzero(found.potentials["b"][0][1]).tolist() == reached[y]
