"""Counters computed by hand, the mapping's own rules, and the engine's bookkeeping parts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import map_program, random_images, random_program

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import (
    Conv,
    Dendrite,
    HostCodes,
    Map,
    Mapping,
    Population,
    Program,
    Transfer,
)
from nmc_emulator import run
from nmc_emulator.counters import Counters
from nmc_emulator.layout import Mesh, resolve
from nmc_emulator.loads import TickLoads
from nmc_emulator.memory import Ref, Step, bind

ENGINES = ("layers", "ticks")


def pooled() -> Program:
    """input (1, 4, 4) -> 3x3 conv -> current max-pool 3/2/1 -> LIF (2, 2, 2) -> readout.

    Two tiles on two chips split the pooled rows; rows 1 of the convolved currents are held by both.
    """
    grid, pool = (2, 4, 4), (2, 2, 2)
    somas = (
        Population("in", (1, 4, 4), 0, "input", "input", -1, payload_bits=4),
        Population(
            "lif", pool, 1, "lif", "neuron", 1, vth=np.array([0, 0], np.int32), bias=np.array([0, 64], np.int32)
        ),
        Population("out", (1, 1, 1), 2, "readout", "readout", 2),
    )
    tiles = [[0, 0, 0, 2, 0, 1, 0, 2], [0, 1, 0, 2, 1, 2, 0, 2], [1, 1, 0, 1, 0, 1, 0, 1]]
    pieces = [
        [0, 1, 0, 2, 0, 1, 0, 2], [0, 0, 0, 2, 0, 2, 0, 4], [1, 1, 0, 2, 1, 2, 0, 2], [1, 0, 0, 2, 1, 4, 0, 4],
        [2, 2, 0, 1, 0, 1, 0, 1],
    ]  # fmt: skip
    axons = [
        [-1, 0, 0, 0, 0, 0, 1, 0, 3, 0, 4], [-1, 0, 0, 0, 1, 0, 1, 0, 4, 0, 4],
        [0, 0, 1, 0, 2, 0, 2, 0, 1, 0, 2], [1, 0, 1, 0, 2, 0, 2, 1, 2, 0, 2],
    ]  # fmt: skip
    cores = [[0, 0, 1, 0], [1, 1, 0, 0]]
    mapping = Mapping(*(np.array(t, np.int32) for t in (tiles, pieces, axons, cores)), chips=2)
    convs = (
        Conv("conv", 0, 0, 1, np.ones((3, 3, 1, 2), np.int8), 0, pad=(1, 1), out_hw=(4, 4)),
        Conv("head", 1, 2, 1, np.ones((1, 1, 2, 1), np.int8), 0, collapse=True, out_hw=(2, 2)),
    )
    return Program(
        "pooled", 1, 1, (1, 4, 4), False, somas,
        (Dendrite("c", grid, 0), Dendrite("x", pool, 0), Dendrite("o", (1, 1, 1), 1)), convs, (), (),
        (Transfer("pool", 0, 1, 1, "maxpool", (3, 3), (2, 2), (1, 1)),), (), (HostCodes(0, 1.0, 0, 15),), mapping,
        {"mesh": {"routers": (2, 2)}}, 3,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pool_on_two_chips_counted_by_hand(engine):
    """One event of code 3 at (1, 1): 9 taps x 2 channels, rows 0..2 of the currents."""
    image = np.zeros((1, 1, 4, 4))
    image[0, 0, 1, 1] = 3
    result = run(pooled(), image, engine=engine, record="all")
    counters, tables = result.counters, result.counters.tables
    assert result.codes["lif"][0, 0].tolist() == [[[1, 1], [1, 1]]] * 2  # every window sees a 3
    assert tables["events"].tolist() == [[0, 0, 1], [4, 4, 0], [0, 0, 0]]  # last column: the host
    assert tables["payload_sum"].tolist() == [[0, 0, 3], [4, 4, 0], [0, 0, 0]]
    # tile 0 holds rows 0..1: 2 rows x 3 columns x 2 channels; tile 1 rows 1..3: rows 1..2
    assert tables["synops_mac"].tolist() == [[12, 12, 0], [0, 0, 0]]
    assert tables["synops_ac"].tolist() == [[0, 0, 0], [0, 8, 0]]
    # windows 3/2/1 at output row 0: rows 0..1 (2 in range), at row 1: rows 1..3 (3); the same along x
    assert tables["pool_compares"].tolist() == [[2 * 2 * (2 + 3), 2 * 3 * (2 + 3), 0]]
    assert tables["accumulator_adds"].tolist() == [[4, 4, 0]]
    assert tables["input_messages"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert tables["axon_reads"].tolist() == [[1, 1, 0], [0, 8, 0]]
    # from (chip 0, router 0, 1) to (chip 1, router 1, 0): x 0 -> 3 with one crossing, y 1 -> 0
    assert tables["packets"][1].tolist() == [4, 0, 0] and tables["packets_in"][1].tolist() == [0, 4, 0]
    assert tables["packets_local"][1].tolist() == [0, 4, 0]
    assert [int(tables[n][1, 0]) for n in ("hops_ew", "hops_ns", "chip_crossings")] == [8, 4, 4]
    assert tables["neuron_updates"].tolist() == [[0, 0, 0], [4, 4, 0], [0, 1, 0]]
    assert tables["bias_events"][1].tolist() == [2, 2, 0]
    # dense: 16 inputs, clipped: rows 0..1 and columns take (2 + 3) ... of the 3x3 kernel
    assert tables["synops_mac_dense"][0].tolist() == [2 * (2 + 3) * 10, 2 * (3 + 3 + 2) * 10, 0]
    assert tables["synops_ac_dense"][1].tolist() == [0, 8, 0]
    assert counters.bound == {
        "synops": 12 + 8,  # tick 1: either tile; tick 2: the readout's core
        "neuron_updates": 4 + 1,
        "memory_reads": (12 + 1) + (8 + 8),  # weights and axon entries
        "link_packets": 4,
    }
    assert result.logits_int.tolist() == [[8 * 64]]


@pytest.mark.parametrize("engine", ENGINES)
def test_lagged_events_beyond_the_window_are_waste(engine):
    """A population that always fires and feeds itself a timestep later: the last events are dropped."""
    somas = (
        Population("p", (2, 1, 1), 0, "lif", "neuron", 0, vth=np.array([-1, -1], np.int32)),
        Population("out", (2, 1, 1), 1, "readout", "readout", 1),
    )
    program = Program(
        "loop", 3, 1, (1, 1, 1), False, somas, (Dendrite("d", (2, 1, 1), 0), Dendrite("o", (2, 1, 1), 1)), (),
        (Map("back", 0, 0, 1, 0, lag=1), Map("on", 0, 1, 1, 2)), (), (), (), (), None, {"mesh": {"routers": (1, 1)}}, 3,
    )  # fmt: skip
    tables = run(program, np.zeros((2, 1, 1, 1)), engine=engine).counters.tables
    assert tables["events"][0].tolist() == [12, 0]
    assert tables["axon_reads"][:, 0].tolist() == [12, 12] and tables["waste_events"][:, 0].tolist() == [4, 0]
    assert tables["map_ops"][:, 0].tolist() == [8, 12]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_sums_that_must_agree(seed):
    program = map_program(random_program(seed, layers=6), seed, cores=6, parts=4, chips=2)
    counters = run(program, random_images(program, seed, 2)).counters
    assert counters.total("packets") == counters.total("packets_in")
    assert counters.total("payload_sum") >= counters.total("events")
    for name in ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads"):
        assert (counters.tables[name] <= counters.tables[f"{name}_dense"]).all()
    assert counters.total("waste_events") == 0
    hosts = [n for n, t in counters.tables.items() if t[:, -1].any()]
    assert set(hosts) <= {"events", "payload_sum", "host_macs"}


# -- the mapping -------------------------------------------------------------------------------


def with_rows(program: Program, table: str, rows: list) -> Program:
    assert program.mapping is not None
    return replace(program, mapping=replace(program.mapping, **{table: np.array(rows, np.int32)}))


def test_a_soma_that_two_tiles_hold():
    program = pooled()
    rows = program.mapping.pieces.tolist()  # type: ignore[union-attr]
    rows[0][5] = 2
    with pytest.raises(VerifyError) as error:
        resolve(with_rows(program, "pieces", rows))
    assert str(error.value) == (
        "mapping of Program 'pooled': positions of dendrite 'x', which 'lif' reads, are held 1 to 2 times instead"
        " of once; map it again or report the mapper"
    )


def test_a_transfer_without_its_source():
    program = pooled()
    rows = program.mapping.pieces.tolist()  # type: ignore[union-attr]
    rows[3][4] = 2
    with pytest.raises(VerifyError) as error:
        resolve(with_rows(program, "pieces", rows))
    assert str(error.value) == (
        "mapping of Program 'pooled': transfer 'pool' needs source positions that tile 1 does not hold;"
        " map it again or report the mapper"
    )


def test_an_event_brought_twice():
    program = pooled()
    rows = program.mapping.axons.tolist()  # type: ignore[union-attr]
    with pytest.raises(VerifyError) as error:
        resolve(with_rows(program, "axons", [*rows, [-1, 0, 0, 0, 1, 0, 1, 3, 4, 3, 4]]))
    assert str(error.value) == (
        "mapping of Program 'pooled': two axons of 'conv' bring the same event to tile 1 twice;"
        " map it again or report the mapper"
    )


def test_a_missing_axon_shows_as_a_wrong_spike():
    """The tick engine knows only what the tables deliver."""
    program, image = pooled(), np.zeros((1, 1, 4, 4))
    image[0, 0, 1, 1] = 3
    broken = with_rows(program, "axons", program.mapping.axons[1:].tolist())  # type: ignore[union-attr]
    good, bad = (run(p, image, engine="ticks", record="all").codes["lif"] for p in (program, broken))
    assert good[0, 0, 0, 0].tolist() == [1, 1] and bad[0, 0, 0, 0].tolist() == [0, 0]


def test_routes_go_along_x_first_and_cross_chips_apart():
    mesh = Mesh((2, 3), 3, np.array([[0, 0], [5, 2], [1, 0], [2, 0]]))
    assert mesh.distance(0, 1) == (3, 2, 2) and mesh.distance(1, 0) == (3, 2, 2)
    assert mesh.distance(2, 3) == (0, 0, 1) and mesh.distance(0, 0) == (0, 0, 0)
    assert list(mesh.path(0, 2)) == [mesh.link(0, 0, 0)]
    path = list(mesh.path(1, 0))
    assert path == [mesh.link(x, 2, 1) for x in (5, 4, 3, 2, 1)] + [mesh.link(0, y, 3) for y in (2, 1)]
    assert len(set(path)) == len(path) and max(path) < mesh.links


# -- bookkeeping -------------------------------------------------------------------------------


def test_counters_start_again_and_add():
    counters = Counters.zeros(pooled(), 2)
    counters.tables["packets"][1, 0] = 5
    counters.overflow_of(2)[:] = [1, 2, 3, 4]
    counters.bound["synops"] = 7
    taken = counters.take()
    assert taken.total("packets") == 5 and taken.bound["synops"] == 7
    assert [int(taken.overflow[n][2]) for n in taken.overflow] == [1, 2, 3, 4]
    assert counters == Counters.zeros(pooled(), 2) and taken != counters
    assert taken.differences(counters) == [
        "packets", "bound.synops", "overflow.accumulator", "overflow.u", "overflow.v", "overflow.payload",
    ]  # fmt: skip
    counters.add(taken, 3)
    assert counters.total("packets") == 15 and taken.total("packets") == 5


def test_loads_of_a_moving_window():
    counters, loads = Counters.zeros(pooled(), 2), TickLoads(3, 2, 4)
    loads.synops[:] = [[1, 2], [5, 3], [0, 9]]
    loads.axons[:] = [[4, 1], [0, 0], [0, 0]]
    loads.links[2] = [0, 0, 8, 1]
    loads.settle(2, counters)
    assert counters.bound == {"synops": 7, "neuron_updates": 0, "memory_reads": 5 + 5, "link_packets": 0}
    assert loads.synops.tolist() == [[0, 9], [0, 0], [0, 0]]
    loads.settle(9, counters)
    assert counters.bound == {"synops": 16, "neuron_updates": 0, "memory_reads": 19, "link_packets": 8}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.booleans())
def test_buffers_that_live_together_do_not_share_memory(seed, forever):
    rng = np.random.default_rng(seed)
    shapes = {k: ((int(rng.integers(1, 200)),), rng.choice([np.uint8, np.int32, np.int64])) for k in range(8)}
    steps = [Step(print, tuple(Ref(int(k)) for k in rng.integers(0, 8, 3))) for _ in range(10)]
    bound, total = bind(steps, shapes, forever)
    arrays, lives = {}, {}
    for at, (step, plain) in enumerate(zip(bound, steps, strict=True)):
        for array, ref in zip(step.args, plain.args, strict=True):
            arrays[ref.key] = array
            first, _ = lives.get(ref.key, (at, at))
            lives[ref.key] = (first, at)
            assert array.shape == shapes[ref.key][0] and array.dtype == shapes[ref.key][1]
            assert array.ctypes.data % 64 == 0
    for a in arrays:
        for b in arrays:
            together = forever or (lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1])
            if a < b and together:
                assert not np.shares_memory(arrays[a], arrays[b])
    assert total <= sum(-(-a.nbytes // 64) * 64 for a in arrays.values())


def test_memory_stays_near_one_sample_s_states():
    """A chain of layers needs two neighbours at a time, however long it is."""
    from nmc_emulator import Emulator

    def chain(depth: int) -> Program:
        shape, kernel = (4, 8, 8), np.ones((1, 1, 4, 4), np.int8)
        somas = [Population("p0", shape, 0, "input", "input", -1, payload_bits=0)]
        somas += [
            Population(f"p{i}", shape, i, "lif", "neuron", i - 1, vth=np.ones(4, np.int32)) for i in range(1, depth)
        ]
        somas.append(Population("out", shape, depth, "readout", "readout", depth - 1))
        convs = tuple(Conv(f"c{i}", i, i, 1, kernel, 0, out_hw=(8, 8)) for i in range(depth))
        dendrites = tuple(Dendrite(f"d{i}", shape, i) for i in range(depth))
        return Program(
            "chain", 2, 1, shape, False, tuple(somas), dendrites, convs, (), (), (), (), (HostCodes(0, 1.0, 0, 1),),
            None, {}, 2 + depth,
        )  # fmt: skip

    sizes = [Emulator(chain(n)).engine.memory for n in (3, 30)]  # type: ignore[union-attr]
    assert sizes[1] == sizes[0]
