"""The network builder: what it stores computes what Lava computes, and what it refuses it explains."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from networks import random_network

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program import load_program, loihi_weights, network, program_digest, save_program, validate_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target


@pytest.mark.parametrize("module", [network, loihi_weights])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted


def two(src: int = 3, dst: int = 4, bits: int = 0, signed: bool = False) -> Network:
    """An input (0) and a lif (1)."""
    net = Network("two")
    net.input("in", src, payload_bits=bits, signed=signed)
    net.lif("out", dst, vth=10)
    return net


# --- function ---------------------------------------------------------------------------------------------


def lava_dense(matrix, delay, exponent, events, graded):
    """a_out [t] of Lava's Dense or DelayDense: sums of each delay are shifted, then added, one timestep later."""
    steps, total = len(events), np.zeros((len(events) + 80, matrix.shape[0]), np.int64)
    codes = events if graded else (events != 0).astype(np.int64)
    for t in range(steps):
        for d in np.unique(delay):
            sums = np.where(delay == d, matrix, 0).astype(np.int64) @ codes[t]
            total[t + 1 + d] += sums << exponent if exponent > 0 else sums >> -exponent
    return total


def stored_dense(program: Program, events):
    """The same from the stored synapses and transfers, by the Program's own definitions."""
    steps = len(events)
    values = [np.zeros((steps + 80, int(np.prod(d.shape))), np.int64) for d in program.dendrites]
    for item in program.sparses:
        assert item.delay == item.lag == program.ticks_per_step == 1
        codes = events if item.graded else (events != 0).astype(np.int64)
        for s in range(len(item.indptr) - 1):
            for j in range(item.indptr[s], item.indptr[s + 1]):
                extra = 0 if item.extra is None else int(item.extra[j])
                assert extra < program.dendrites[item.dst].ring
                at = np.arange(steps) + item.lag + extra
                values[item.dst][at, item.target[j]] += (int(item.weight[j]) * codes[:, s]) << item.shift
    for move in program.transfers:
        values[move.dst] += values[move.src] >> move.rshift
    return values[program.populations[1].dendrite]


@pytest.mark.parametrize("seed", range(60))
def test_dense_computes_what_lava_does(seed):
    rng = np.random.default_rng(seed)
    bits = int(rng.choice([0, 5]))
    net = two(int(rng.integers(1, 6)), int(rng.integers(1, 6)), bits, signed=bits > 0)
    n, m = (int(np.prod(p.shape)) for p in net.program().populations)
    top = (1, 127, 256, 32000)[rng.integers(4)]
    matrix = rng.integers(-top, top, (m, n)) * (rng.random((m, n)) < 0.7)
    if rng.random() < 0.4:
        matrix = matrix // 2 * 2
    delay = rng.integers(0, 64, (m, n)) if rng.random() < 0.6 else np.full((m, n), rng.integers(3))
    exponent, graded = int(rng.integers(-6, 7)), bool(rng.integers(2))
    net.dense("w", 0, 1, matrix, exponent=exponent, delay=delay, graded=graded)
    program = net.program()
    events = rng.integers(-16 if bits else 0, 16 if bits else 2, (5, n))
    expected = lava_dense(matrix, delay, exponent, events, graded or bits == 0)
    assert np.array_equal(stored_dense(program, events), expected)
    used = delay[matrix != 0]
    rings = {program.sparses[i].dst for i in range(len(program.sparses))}
    assert max(program.dendrites[d].ring for d in rings) == (int(used.max()) + 1 if used.size else 1)


def test_sparse_and_dense_agree():
    matrix = np.array([[0, 5, -3], [2, 0, 0], [0, 0, 0], [7, 7, 0]])
    net = two()
    net.dense("d", 0, 1, matrix)
    net.sparse("s", 0, 1, [0, 2, 4, 5], [1, 3, 0, 3, 0], [2, 7, 5, 7, -3])
    one, other = net.program().sparses
    for name in ("indptr", "target", "weight"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


@pytest.mark.parametrize(
    ("weights", "exponent", "dtype", "stored", "shift", "rshift"),
    [
        ([-256, 254, 0], 0, np.int8, [-128, 127, 0], 1, 0),
        ([-256, 254, 2], 3, np.int8, [-128, 127, 1], 4, 0),
        ([-128, 127, 1], 2, np.int8, [-128, 127, 1], 2, 0),
        ([255, 3, 0], 0, np.int16, [255, 3, 0], 0, 0),
        ([256, 2, 0], 0, np.int16, [256, 2, 0], 0, 0),
        ([4, 2, 0], -1, np.int8, [2, 1, 0], 0, 0),  # one bit of the shift right goes into the halves
        ([4, 2, 0], -3, np.int8, [2, 1, 0], 0, 2),
        ([5, 2, 0], -3, np.int8, [5, 2, 0], 0, 3),
    ],
)
def test_storage_of_weights(weights, exponent, dtype, stored, shift, rshift):
    net = two(1, 3)
    net.sparse("w", 0, 1, [0, 3], [0, 1, 2], weights, exponent=exponent)
    program = net.program()
    (item,) = program.sparses
    assert item.weight.dtype == dtype and item.weight.tolist() == stored and item.shift == shift
    assert [t.rshift for t in program.transfers] == ([rshift] if rshift else [])
    assert (item.dst == program.populations[1].dendrite) == (rshift == 0)


def test_negative_exponent_has_accumulators_of_its_own():
    """On the soma's cores, one dendrite per delay: Lava shifts before it adds up."""
    net = two(2, 2)
    net.dense("w", 0, 1, [[3, 5], [7, 9]], exponent=-2, delay=[[0, 3], [3, 0]])
    program = net.program()
    assert [(d.name, d.cluster, d.ring) for d in program.dendrites] == [
        ("out", 0, 1), ("w.0.sum", 0, 1), ("w.3.sum", 0, 4),
    ]  # fmt: skip
    assert [(t.src, t.dst, t.level, t.mode, t.kernel, t.rshift) for t in program.transfers] == [
        (1, 0, 0, "maxpool", (1, 1), 2), (2, 0, 0, "maxpool", (1, 1), 2),
    ]  # fmt: skip


def test_graded_only_where_codes_are_sent():
    net = two(2, 2, bits=4)
    plain = net.lif("plain", 2, vth=1)
    net.dense("codes", 0, 1, np.eye(2, dtype=int), graded=True)
    net.dense("as they come", 0, 1, np.eye(2, dtype=int))
    net.dense("count", 0, 1, np.eye(2, dtype=int), graded=False)
    net.dense("spikes", plain, 1, np.eye(2, dtype=int), graded=True)
    assert [s.graded for s in net.program().sparses] == [True, True, False, False]


def test_given_arrays_of_stored_types_are_not_copied():
    indptr, target, weight = np.array([0, 1]), np.array([0], np.int32), np.array([7], np.int8)
    net = two(1, 1)
    net.sparse("w", 0, 1, indptr, target, weight)
    (item,) = net.program().sparses
    assert item.indptr is indptr and item.target is target and item.weight is weight


# --- populations ------------------------------------------------------------------------------------------


def test_populations_and_time():
    net = Network("all", timesteps=5)
    a = net.input("a", (2, 3, 4), payload_bits=8, signed=True)
    b = net.lif("b", (2, 3, 4), du=1, dv=2, vth=[3, 4], bias=-64, vth_low=-3, restart=(4, 6), start_v=9)
    c = net.sigma_delta("c", 6, vth=3, bias=2, relu=True, cumulative=True, spike_exp=1, state_exp=2)
    program = net.program(load_target("loihi2"))
    assert (a, b, c) == (0, 1, 2)
    assert program.timesteps == program.interval == 5 and program.ticks_per_step == 1 and program.depth == 0
    assert program.input_shape == (2, 3, 4) and program.target["name"] == "loihi2"
    lif, delta = program.populations[1:]
    assert (lif.du, lif.dv, lif.restart, lif.signed, lif.payload_bits) == (1, 2, (4, 6), True, 2)
    assert lif.vth.tolist() == [3, 4] and lif.vth_low.tolist() == [-3, -3] and lif.bias.tolist() == [-64, -64]
    assert lif.start_u is None and lif.start_v.shape == (2, 3, 4) and (lif.start_v == 9).all()
    assert delta.shape == (6, 1, 1) and delta.vth.tolist() == [24] * 6 and delta.bias.tolist() == [16] * 6
    assert (delta.relu, delta.cumulative, delta.out_shift, delta.payload_bits, delta.signed) == (
        True,
        True,
        2,
        24,
        True,
    )
    assert all(p.level == 0 for p in program.populations)


def test_start_per_soma_and_plain_lif():
    net = Network("start")
    net.lif("a", (2, 1, 2), vth=1, start_u=[1, 2, 3, 4], start_v=np.array([[[5, 6]], [[7, 8]]]))
    (lif,) = net.program().populations
    assert lif.start_u.tolist() == [[[1, 2]], [[3, 4]]] and lif.start_v.tolist() == [[[5, 6]], [[7, 8]]]
    assert (lif.du, lif.dv, lif.bias, lif.signed, lif.payload_bits) == (4095, 4096, None, False, 0)


def test_a_stream_has_no_end():
    program = two().program()
    assert program.timesteps == program.interval == 0


# --- convolutions -----------------------------------------------------------------------------------------


def convolved(low: int, high: int, even: bool = False, **options) -> list:
    rng = np.random.default_rng(high)
    weight = rng.integers(low, high + 1, (3, 2, 2, 6)) // (2 if even else 1) * (2 if even else 1)
    weight.flat[:2] = low, high
    net = Network("conv")
    net.input("a", (4, 9, 8), payload_bits=4)
    net.lif("b", (6, 5, 4), vth=1)
    net.conv("c", 0, 1, weight, stride=2, pad=(1, 0), groups=2, **options)
    convs = list(net.program().convs)
    total = sum(c.weight.astype(np.int64) << c.shift for c in convs)
    assert np.array_equal(total, weight)
    assert all(
        (c.delay, c.lag, c.stride, c.pad, c.groups, c.out_hw) == (1, 1, (2, 2), (1, 0), 2, (5, 4)) for c in convs
    )
    return [(c.name, c.shift) for c in convs]


def test_conv_weights():
    assert convolved(-128, 127) == [("c", 0)]
    assert convolved(-256, 254, even=True) == [("c", 1)]
    assert convolved(-256, 255) == [("c", 0), ("c.high", 8)]
    assert convolved(-(2**15), 127 * 256 + 127) == [("c", 0), ("c.high", 8)]
    with pytest.raises(UsageError, match=r"projection 'c': weights up to 32640, at most 32639; give smaller ones"):
        convolved(-3, 127 * 256 + 128)


def test_one_dimension_is_height_one():
    net = Network("conv1d")
    net.input("a", (2, 1, 10))
    net.lif("b", (3, 1, 3), vth=1)
    net.conv("c", 0, 1, np.ones((1, 3, 2, 3), int), stride=(1, 2), dilation=(1, 2))
    (conv,) = net.program().convs
    assert (conv.out_hw, conv.stride, conv.dilation) == ((1, 3), (1, 2), (1, 2))


# --- errors -----------------------------------------------------------------------------------------------

ERRORS = {
    "timesteps": (lambda n: Network("x", -1), "timesteps -1: expected 0 (a stream) to 1048576"),
    "name": (lambda n: n.lif("a/b", 1, vth=1), "network 'two': 'a/b' is no name for a population"),
    "name of no text": (lambda n: n.lif(3, 1, vth=1), "network 'two': 3 is no name for a population"),
    "name twice": (lambda n: n.input("out", 1), "population 'out': there is one of that name already"),
    "projection twice": (
        lambda n: [n.dense("w", 0, 1, np.ones((4, 3), int)) for _ in "12"],
        "projection 'w': there is one of that name already",
    ),
    "shape": (lambda n: n.lif("a", (1, 2), vth=1), "population 'a': shape (1, 2); give (channels, height, width)"),
    "no somas": (lambda n: n.lif("a", 0, vth=1), "population 'a': shape 0"),
    "du": (lambda n: n.lif("a", 1, du=4096, vth=1), "population 'a': du 4096: expected a whole number in 0..4095"),
    "dv": (lambda n: n.lif("a", 1, dv=0.5, vth=1), "population 'a': dv 0.5: expected a whole number in 0..4096"),
    "vth": (lambda n: n.lif("a", 1, vth=2**17), "'a': vth 131072..131072: expected values in -131072..131071"),
    "vth float": (lambda n: n.lif("a", 1, vth=1.5), "'a': vth: expected integers, got float64; quantise and round"),
    "vth shape": (
        lambda n: n.lif("a", 3, vth=[1, 2]),
        "'a': vth has shape [2], expected one number or one per channel",
    ),
    "vth_low": (lambda n: n.lif("a", 2, vth=[5, 1], vth_low=1), "vth_low 1 of channel 1 is not below its vth 1"),
    "bias": (lambda n: n.lif("a", 1, vth=1, bias=2**23), "bias 8388608..8388608: expected values in -8388607..8388607"),
    "restart": (lambda n: n.lif("a", 1, vth=1, restart=3), "restart 3: expected (interval, offset) in timesteps"),
    "restart 0": (lambda n: n.lif("a", 1, vth=1, restart=(0, 1)), "restart interval 0: expected a whole number in 1.."),
    "start": (lambda n: n.lif("a", 1, vth=1, start_u=2**23), "start_u 8388608..8388608: expected values in -8388607"),
    "start shape": (lambda n: n.lif("a", 2, vth=1, start_v=[1, 2, 3]), "start_v has shape [3], expected one number"),
    "signed bits": (
        lambda n: n.input("a", 1, payload_bits=1, signed=True),
        "payload_bits 1: expected a whole number in 2",
    ),
    "delta vth": (lambda n: n.sigma_delta("a", 1, vth=2**29, spike_exp=3), "vth 536870912..536870912: expected values"),
    "delta exp": (
        lambda n: n.sigma_delta("a", 1, vth=1, state_exp=31),
        "state_exp 31: expected a whole number in 0..30",
    ),
    "src": (lambda n: n.dense("w", 5, 1, [[1]]), "projection 'w': src 5, but there are 2 populations"),
    "dst": (lambda n: n.dense("w", 1, 0, [[1]]), "projection 'w': dst 'in' is an input; project to other populations"),
    "matrix": (
        lambda n: n.dense("w", 0, 1, np.ones((3, 4), int)),
        "projection 'w': matrix [3, 4], expected [targets, sources] = [4, 3]",
    ),
    "float weights": (lambda n: n.dense("w", 0, 1, np.ones((4, 3))), "'w': matrix: expected integers, got float64"),
    "wide": (
        lambda n: n.dense("w", 0, 1, np.full((4, 3), 2**15)),
        "'w': weights 32768..32768 leave 16 bits (-32768..32767); give smaller weights and a larger exponent",
    ),
    "exponent": (
        lambda n: n.dense("w", 0, 1, np.ones((4, 3), int), exponent=24),
        "'w': exponent 24: expected a whole number in -31..23",
    ),
    "delay": (
        lambda n: n.dense("w", 0, 1, np.ones((4, 3), int), delay=64),
        "'w': delays 64..64 leave 0..63 timesteps; put relays in between",
    ),
    "delay shape": (
        lambda n: n.dense("w", 0, 1, np.ones((4, 3), int), delay=[1, 2]),
        "delay has shape [2], expected one number or [4, 3]",
    ),
    "indptr shape": (
        lambda n: n.sparse("w", 0, 1, [0, 1], [0], [1]),
        "'w': indptr has shape [2], expected [4]: the 3 somas of the source, and one more",
    ),
    "indptr falls": (
        lambda n: n.sparse("w", 0, 1, [0, 2, 1, 2], [0, 1], [1, 1]),
        "'w': indptr goes from 0 to 2; it must rise from 0 to the 2 synapses, and never fall",
    ),
    "indptr end": (
        lambda n: n.sparse("w", 0, 1, [0, 0, 0, 1], [], []),
        "indptr goes from 0 to 1; it must rise from 0 to",
    ),
    "target": (
        lambda n: n.sparse("w", 0, 1, [0, 1, 1, 1], [4], [1]),
        "'w': targets 4..4, but the 4 somas of the target count from 0",
    ),
    "lengths": (
        lambda n: n.sparse("w", 0, 1, [0, 1, 1, 1], [1, 2], [1]),
        "'w': target [2] and weight [1]: give one of each per synapse",
    ),
    "conv weight": (
        lambda n: n.conv("w", 0, 1, np.ones((1, 1, 3, 3), int)),
        "'w': weight [1, 1, 3, 3] in 1 group, from 3 to 4 channels; expected [rows, columns, C_in / groups, C_out]",
    ),
    "conv grid": (
        lambda n: n.conv("w", 0, 1, np.ones((1, 1, 3, 4), int), pad=1),
        "kernel [1, 1], stride [1, 1], pad [1, 1], dilation [1, 1] on [1, 1] positions give [3, 3], but the target has",
    ),
    "conv stride": (
        lambda n: n.conv("w", 0, 1, np.ones((1, 1, 3, 4), int), stride=0),
        "'w': stride 0: expected a whole number in 1..",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    attempt, text = ERRORS[case]
    net = two()
    with pytest.raises(UsageError) as error:
        attempt(net)
    assert text in str(error.value)
    assert case == "timesteps" or str(error.value).startswith("network 'two'")


def test_conv_of_codes_that_count_as_one():
    net = two(bits=4)
    with pytest.raises(UsageError, match="multiplies by the codes that 'in' sends; write it as a sparse projection"):
        net.conv("w", 0, 1, np.ones((1, 1, 3, 4), int), graded=False)


def test_a_refused_projection_leaves_its_name_free():
    net = two()
    with pytest.raises(UsageError):
        net.dense("w", 0, 1, [[1]])
    net.dense("w", 0, 1, np.ones((4, 3), int))


def test_delays_beyond_the_target():
    net = two()
    net.dense("w", 0, 1, np.ones((4, 3), int), delay=16)
    net.program(load_target("loihi2"))
    with pytest.raises(VerifyError, match=r"sparses/0/extra: up to 16 timesteps after 1 ticks, 17 in all of 16"):
        net.program(load_target("generic-mesh"))


# --- the artefact -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_are_valid_and_come_back_from_disk(seed, tmp_path):
    program = random_network(seed).program()
    validate_program(program)
    digest = save_program(program, tmp_path)
    loaded = load_program(tmp_path)
    assert program_digest(loaded) == digest == program_digest(random_network(seed).program())
    save_program(loaded, tmp_path / "again")
    for name in ("program.json", "arrays.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
