"""Every kernel of the emulator against its naive twin, on random and on extreme operands."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.program.model import (
    Box,
    Conv,
    Dendrite,
    Depth,
    HostCurrent,
    Map,
    Population,
    Program,
    Sparse,
    Transfer,
)
from nmc_compiler.program.shapes import conv_windows
from nmc_emulator.kernels import conv as convs
from nmc_emulator.kernels import conv_groups, dynamic, events, maps, scatter, soma, tally, transfers
from nmc_emulator.kernels.host import host_conv
from nmc_emulator.plan import conv_form
from nmc_emulator.synapses import cut

SEEDS = st.integers(0, 2**32 - 1)
EDGES = [0, 1, -1, 2**17 - 1, 2**17, 2**17 + 1, -(2**17), -(2**17) - 1, 2**23, -(2**23), 2**24, -(2**24)]
bounded = settings(max_examples=40, deadline=None, derandomize=True)


def window(frames: int) -> np.ndarray:
    return np.array([0, frames], np.int64)


def listed(codes: np.ndarray, width: int, plain: bool, bound: int):
    """Event lists of codes [F, P, C]."""
    f, p, c = codes.shape
    ptr, index = np.zeros(f * p + 1, np.int32), np.zeros(codes.size + 1, np.int32)
    value = None if plain else np.zeros(codes.size + 1, convs.value_type(bound))
    count = np.zeros((f, 1, p), np.int32)
    events.list_events(window(f), codes, np.array([0, c]), width, ptr, index, value, count)
    assert np.array_equal(count[:, 0], (codes != 0).sum(2))
    return ptr, index, value


def frames_of(dense: np.ndarray) -> np.ndarray:
    """[F, C, H, W] -> [F, P, C]."""
    return np.ascontiguousarray(dense.transpose(0, 2, 3, 1).reshape(len(dense), -1, dense.shape[1]))


# -- events ------------------------------------------------------------------------------------


@bounded
@given(SEEDS, st.sampled_from([np.uint8, np.int32, np.int64]), st.floats(0, 1))
def test_event_lists(seed, dtype, rate):
    rng = np.random.default_rng(seed)
    codes = ((rng.random((3, 6, 5)) < rate) * rng.integers(1, 99, (3, 6, 5))).astype(dtype)
    segments, ptr = np.array([0, 2, 5]), np.zeros(19, np.int32)
    index, value, count = np.zeros(91, np.int32), np.zeros(91, np.int64), np.zeros((3, 2, 6), np.int32)
    events.list_events(window(3), codes, segments, 3, ptr, index, value, count)
    want = [(f, p, c) for f in range(3) for p in range(6) for c in range(5) if codes[f, p, c]]
    assert ptr[-1] == len(want)
    for n, (f, p, c) in enumerate(want):
        assert ptr[f * 6 + p] <= n < ptr[f * 6 + p + 1]
        assert index[n] == p % 3 * 5 + c and value[n] == codes[f, p, c]
    alone = np.zeros_like(count)
    events.count_events(window(3), codes, segments, alone)
    for s, (a, b) in enumerate([(0, 2), (2, 5)]):
        assert np.array_equal(count[:, s], (codes[:, :, a:b] != 0).sum(2))
        assert np.array_equal(alone[:, s], count[:, s])


@bounded
@given(SEEDS, st.integers(1, 5), st.floats(0, 1), st.integers(0, 2))
def test_plain_event_lists_equal_the_general_ones(seed, eights, rate, first):
    rng = np.random.default_rng(seed)
    channels, width = 8 * eights, int(rng.integers(1, 4))
    codes = (rng.random((3, 2 * width, channels)) < rate).astype(np.uint8)
    segments = np.array([0, *sorted({8 * int(rng.integers(1, eights + 1)), channels})])
    frames, cells = np.array([first, 3]), codes.shape[0] * codes.shape[1]
    size = codes.size + events.LANES
    want = np.zeros(cells + 1, np.int32), np.zeros(size, np.int32), None, np.zeros((3, len(segments) - 1, 2 * width))
    events.list_events(frames, codes, segments, width, *want)
    got = np.zeros(cells + 1, np.int32), np.zeros(size, np.int32), np.zeros_like(want[3])
    events.list_plain_events(frames, codes, segments, width, *got)
    n = want[0][-1]
    assert np.array_equal(got[0], want[0]) and np.array_equal(got[2], want[3])
    assert np.array_equal(got[1][:n], want[1][:n])


def test_payload_sums_take_magnitudes():
    codes = np.array([[[-3, 4, 0], [7, 0, -1]]], np.int32)
    total = np.zeros((1, 2, 2), np.int64)
    events.sum_payloads(window(1), codes, np.array([0, 1, 3]), total)
    assert total.tolist() == [[[3, 7], [4, 1]]]


# -- convolutions ------------------------------------------------------------------------------


def naive_conv(c: Conv, codes: np.ndarray, lag: int = 0) -> np.ndarray:
    """[T, C, H, W] codes of one sample -> accumulators [T, O, Ho, Wo] ([T, O, 1, 1] when collapsed)."""
    shape = (len(codes), c.weight.shape[3], *((1, 1) if c.collapse else c.out_hw))
    acc = np.zeros(shape, np.int64)
    for t in range(lag, len(codes)):
        for e in np.argwhere(codes[t - lag]).tolist():
            for o, y, x, w in naive.conv_targets(c, codes.shape[2], e):
                at = (o, 0, 0) if c.collapse else (o, y, x)
                acc[(t, *at)] += (w * int(codes[(t - lag, *e)])) << c.shift
    return acc


def random_conv(rng, groups: int, ins: int, outs: int, rows: int, width: int) -> Conv:
    """Flat, or of as many slices as divide the rows."""
    slices = int(rng.choice([d for d in range(1, rows + 1) if rows % d == 0]))
    sizes = (slices, rows // slices, width)
    kernel, stride, dilation = (tuple(rng.integers(1, n, 3).tolist()) for n in (4, 3, 3))
    pad = tuple(rng.integers(0, 2, 3).tolist())
    form = sizes, kernel, stride, pad, dilation
    grid = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(*form, strict=True)]
    if min(grid) < 1:
        kernel, dilation, stride, pad, grid = (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), list(sizes)
    depth: Depth | None = Depth(slices, grid[0], kernel[0], stride[0], pad[0], dilation[0])
    if slices == 1 and rng.random() < 0.7:
        kernel, grid, depth = (1, *kernel[1:]), [1, *grid[1:]], None
    size = (kernel[0] * kernel[1], kernel[2], ins // groups, outs)
    weight = rng.choice([-128, -127, -1, 0, 1, 3, 127], size).astype(np.int8)
    form = stride[1:], pad[1:], dilation[1:], groups, bool(rng.random() < 0.2), (grid[0] * grid[1], grid[2])
    return Conv("c", 0, 0, 1, weight, int(rng.integers(0, 4)), *form, depth=depth)


def run_conv(c: Conv, codes: np.ndarray, bound: int, plain: bool, lag: int, dtype=np.int32) -> np.ndarray:
    """The event-driven kernel as the planner calls it, widened where the planner would."""
    t, ins, h, w = codes.shape
    count = convs.neighbours(c.out_hw[1], c.weight, c.stride[1], c.collapse) if c.dilation[1] == 1 else 1
    weight = convs.widen(c.weight, count, c.stride[1]) if count > 1 else c.weight
    kh, kw, _, outs = weight.shape
    form = {"stride": (c.stride[0], c.stride[1] * count), "out_hw": (c.out_hw[0], c.out_hw[1] // count)}
    geometry = conv_form(replace(c, weight=weight, **form), (ins, h, w), lag, t)
    positions = 1 if c.collapse else c.out_hw[0] * c.out_hw[1]
    acc = np.zeros((t, positions * c.weight.shape[3]), dtype)
    lists = listed(frames_of(codes), w, plain, bound)
    spans, rows = np.zeros((kh * kw, 3), np.int64), np.ascontiguousarray(weight.reshape(-1, outs))
    fresh = not c.collapse and lag == 0
    acc[:] = 77 if fresh else 0
    convs.conv(window(t), *lists, rows, acc, *geometry, c.collapse, fresh, convs.span_limit(bound), spans)
    grid = (1, 1) if c.collapse else c.out_hw
    return acc.reshape(t, *grid, -1).transpose(0, 3, 1, 2)


@bounded
@given(SEEDS, st.sampled_from([(1, True), (3, False), (31, False), (255, False), (2**20, False)]))
def test_conv_equals_naive(seed, kind):
    rng, (bound, plain) = np.random.default_rng(seed), kind
    height, width, ins = (int(n) for n in rng.integers(1, 7, 3))
    c = random_conv(rng, 1, ins, int(rng.choice([1, 2, 7, 8, 17, 33, 200])), height, width)
    low = 1 if plain else -bound
    codes = rng.integers(low, bound + 1, (3, ins, height, width)) * (rng.random((3, ins, height, width)) < 0.5)
    lag = int(rng.integers(0, 2))
    dtype = np.int64 if bound > 255 else np.int32
    codes = codes.astype(np.uint8 if plain else np.int32)
    assert np.array_equal(run_conv(c, codes, bound, plain, lag, dtype), naive_conv(c, codes, lag))


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize(("code", "plain"), [(1, True), (31, False), (4, False)])
def test_conv_sums_of_extreme_rows_stay_exact(weight, code, plain):
    """More equal rows than fit 16 bits: the kernel must widen in between."""
    ins = 3 * convs.rows_at_once(code) + 5
    c = Conv("c", 0, 0, 1, np.full((1, 1, ins, 130), weight, np.int8), 0, out_hw=(1, 2))
    codes = np.full((1, ins, 1, 2), code, np.uint8)
    assert (run_conv(c, codes, code, plain, 0) == weight * code * ins).all()


@bounded
@given(SEEDS, st.booleans())
def test_grouped_and_depthwise_conv_equal_naive(seed, depthwise):
    rng = np.random.default_rng(seed)
    height, width, groups = (int(n) for n in rng.integers(1, 6, 3))
    ins, outs = (groups, groups) if depthwise else (groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3)))
    c = random_conv(rng, groups, ins, outs, height, width)
    codes = (rng.integers(0, 6, (2, ins, height, width)) * (rng.random((2, ins, height, width)) < 0.6)).astype(np.uint8)
    geometry = conv_form(c, (ins, height, width), 0, 2)
    grid = (1, 1) if c.collapse else c.out_hw
    acc = np.zeros((2, grid[0] * grid[1], outs), np.int32)
    taps = c.weight.shape[0] * c.weight.shape[1]
    if depthwise:
        weight = c.weight.reshape(taps, outs).astype(np.int32) << c.shift
        conv_groups.conv_depthwise(window(2), frames_of(codes), weight, acc, *geometry, c.collapse)
    else:
        weight = c.weight.reshape(taps, ins // groups, outs)
        conv_groups.conv_grouped(window(2), frames_of(codes), weight, acc, *geometry, c.collapse, groups)
    assert np.array_equal(acc.reshape(2, *grid, outs).transpose(0, 3, 1, 2), naive_conv(c, codes))


@bounded
@given(SEEDS)
def test_conv_by_event_equals_naive_and_counts_its_work(seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 3))
    c = random_conv(rng, groups, 2 * groups, 3 * groups, 6, 4)
    codes = rng.integers(-2, 3, (1, 2 * groups, 6, 4))
    want = naive_conv(c, codes)[0]
    held = rng.integers(0, np.array(want.shape))
    box = np.array([[lo, hi] for lo, hi in zip(held, want.shape, strict=True)], np.int64).reshape(-1)
    at = np.argwhere(codes[0])
    rows = np.concatenate([at, codes[0][tuple(at.T)][:, None]], axis=1)
    acc = np.zeros(np.array(want.shape) - held, np.int64)
    weight = np.ascontiguousarray(c.weight[..., held[0] :])
    form = *map(tuple, conv_windows(c, codes.shape[1:])), 3, c.collapse, c.shift
    done = scatter.conv_event(rows, weight, int(held[0]), *form, box, acc)
    assert np.array_equal(acc, want[held[0] :, held[1] :, held[2] :])
    hits = [(o, 0, 0) if c.collapse else (o, y, x) for e in at.tolist() for o, y, x, _ in naive.conv_targets(c, 6, e)]
    assert done == sum(naive.holds(box, hit) for hit in hits)


# -- maps, transfers, dynamic synapses ---------------------------------------------------------


MAP_KERNELS = {
    "reduce": maps.map_reduce,
    "broadcast": maps.map_broadcast,
    "reduce_channels": maps.map_reduce_channels,
    "broadcast_channels": maps.map_broadcast_channels,
}


@bounded
@given(SEEDS, st.sampled_from(["same", "window", *MAP_KERNELS]))
def test_maps_equal_naive(seed, mode):
    rng = np.random.default_rng(seed)
    height, width, c = (1, 1, 3) if mode == "broadcast" else (int(n) for n in rng.integers(2, 6, 3))
    few, block = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    c, out = {"reduce_channels": (few * block, few), "broadcast_channels": (few, few * block)}.get(mode, (c, c))
    kernel, stride, pad = (2, 2), (1, 2), (1, 0)
    grids = {"reduce": (1, 1), "broadcast": (3, 2), "window": (height + 2 - 2 + 1, (width - 2) // 2 + 1)}
    grid = grids.get(mode, (height, width))
    m = Map("m", 0, 0, 1, int(rng.integers(0, 5)), mode, kernel, stride, pad)
    codes = rng.integers(-4, 5, (2, c, height, width)).astype(np.int32)
    want = np.zeros((2, out, *grid), np.int64)
    for f, *e in np.argwhere(codes).tolist():
        for at in naive.map_targets(m, c, want.shape[1:], e):
            want[(f, *at)] += int(codes[(f, *e)]) << m.shift
    acc, gain, source = np.zeros((2, grid[0] * grid[1], out), np.int32), 1 << m.shift, frames_of(codes)
    if mode == "window":
        form = grid, kernel, stride, pad, (1, 1)
        maps.map_window(window(2), source, acc, convs.pack_geometry((c, height, width), *form, m.shift, 0, 2))
    elif mode == "same":
        maps.map_same(window(2), source.reshape(2, -1), acc.reshape(2, -1), gain, 0, 2)
    else:
        MAP_KERNELS[mode](window(2), source, acc, gain, 0, 2)
    assert np.array_equal(acc.reshape(2, *grid, out).transpose(0, 3, 1, 2), want)


@bounded
@given(SEEDS, st.integers(0, 3))
def test_max_pool_leaves_padding_out_and_floors(seed, rshift):
    """All values negative: padding with zeros would win."""
    rng = np.random.default_rng(seed)
    src = rng.integers(-50, -1, (2, 3, 5, 4))
    t = Transfer("t", 0, 1, 0, "maxpool", (3, 3), (2, 2), (1, 1), rshift)
    acc = np.full((2, 3 * 2, 3), 7, np.int32)
    geometry = convs.pack_geometry((3, 5, 4), (3, 2), t.kernel, t.stride, t.pad, (1, 1), 0, 0, 2)
    transfers.max_pool(window(2), frames_of(src.astype(np.int32)), acc, geometry, np.zeros(3, np.int32), rshift)
    for f, c, y, x in np.ndindex(2, 3, 3, 2):
        best = max(int(src[f, c, a, b]) for a, b in naive.window(t, (5, 4), y, x))
        assert acc[f, y * 2 + x, c] == 7 + (best >> rshift)


def test_sum_over_positions_floors_after_summing():
    src = np.array([[[1, -1], [2, -2], [2, -2]]], np.int32)
    acc = np.array([[[10, 10]]], np.int32)
    transfers.sum_positions(window(1), src, acc, np.zeros(2, np.int64), 1)
    assert acc.tolist() == [[[12, 7]]]


@bounded
@given(SEEDS, st.sampled_from(["kv", "qk"]), st.sampled_from([2, 9, 2**31 - 1]))
def test_dynamic_synapse_equals_closed_formula(seed, order, saturate):
    rng = np.random.default_rng(seed)
    heads, d, dv, tokens = (int(n) for n in rng.integers(1, 5, 4))
    rate = rng.random()

    def random(width):
        codes = rng.integers(1, 5, (2, tokens, heads * width)) * (rng.random((2, tokens, heads * width)) < rate)
        return codes.astype(np.uint8)

    q, k, v = random(d), random(d), random(dv)
    acc = np.zeros((2, tokens, heads * dv), np.int32)
    size = (d, dv) if order == "kv" else (tokens, tokens)
    call = dynamic.dynamic_kv if order == "kv" else dynamic.dynamic_qk
    call(window(2), q, k, v, acc, heads, 2, saturate, np.zeros(size, np.int32), np.zeros(size[1], np.int32))
    split = [a.astype(np.int64).reshape(2, tokens, heads, -1).transpose(0, 2, 1, 3) for a in (q, k, v)]
    full = split[0] @ split[1].transpose(0, 1, 3, 2) @ split[2]
    want = np.minimum(full, saturate) << 2
    assert np.array_equal(acc, want.transpose(0, 2, 1, 3).reshape(2, tokens, -1))


# -- somas -------------------------------------------------------------------------------------


def accumulators(rng, frames: int, n: int, limit: int) -> np.ndarray:
    """Random values up to ``limit`` with the corners of every range among them."""
    values = rng.integers(-limit, limit + 1, (frames, n))
    corners = [e for e in EDGES if abs(e) <= limit]
    return np.where(rng.random((frames, n)) < 0.3, rng.choice(corners, (frames, n)), values)


MODULAR = {"loihi1": True, "loihi2": None}  # profile -> how the kernels are told


def naive_lif(acc, bias, vth, dv, profile):
    """Codes and overflow counts (u, v) of somas [T, n], one sample."""
    codes, over = np.zeros(acc.shape, np.int64), [0, 0]
    for i in range(acc.shape[1]):
        v = 0
        for t in range(len(acc)):
            u = int(acc[t, i]) << 6
            full = naive.decay(v, dv) + naive.wrap24(u, profile) + int(bias[i])
            v = naive.clip24(full)
            over = [over[0] + (naive.wrap24(u, profile) != u), over[1] + (v != full)]
            codes[t, i] = v > int(vth[i]) << 6
            v = 0 if codes[t, i] else v
    return codes, over


@bounded
@given(SEEDS, st.sampled_from([4096, 0, 1, 137, 2048, 3072, 4095]), st.booleans(), st.sampled_from(list(MODULAR)))
def test_lif_kernels_equal_naive(seed, dv, wrapping, profile):
    rng = np.random.default_rng(seed)
    n, samples = 6, 2
    limit = soma.NARROW if wrapping else soma.UNWRAPPED - 1
    acc = accumulators(rng, samples * 4, n, limit)
    bias = rng.choice([0, 64, -64, 2**22, -(2**22), 12345], n)
    vth = rng.choice([0, 1, -1, 1000, 131071, -131072], n)
    want = [naive_lif(acc[s : s + 4], bias, vth, dv, profile) for s in (0, 4)]
    codes, over = np.concatenate([w[0] for w in want]), np.sum([w[1] for w in want], axis=0)
    shift = {4096: 31, 2048: 1, 3072: 2, 4095: 12, 0: 0}.get(dv)
    for call, dtype in ((soma.lif, np.int32), (soma.lif_wide, np.int64)):
        got, counted = np.zeros((8, n), np.uint8), np.zeros(4, np.int64)
        args = window(8), 4, acc.astype(dtype), np.full(n, 99, dtype), got
        constants = bias.astype(dtype), (vth << 6).astype(dtype), dv
        if call is soma.lif:
            call(*args, *constants, shift, True if wrapping else None, counted, MODULAR[profile])
        else:
            call(*args, *constants, counted, MODULAR[profile])
        assert np.array_equal(got, codes)
        assert counted.tolist() == [0, *over, 0]


@bounded
@given(SEEDS, st.integers(1, 9), st.booleans(), st.sampled_from(list(MODULAR)))
def test_level_tables_equal_naive(seed, depth, wrapping, profile):
    rng = np.random.default_rng(seed)
    n = 5
    acc = accumulators(rng, 3, n, soma.NARROW if wrapping else soma.UNWRAPPED - 1)
    bias = rng.choice([0, 64, -(2**22), 777], n)
    table = np.sort(rng.choice(np.array([0, 64, -64, 2**23 - 1, -(2**23) + 1, 5000]), (depth, n)), axis=0)
    want, over = np.zeros((3, n), np.int64), [0, 0]
    for t, i in np.ndindex(3, n):
        u = int(acc[t, i]) << 6
        wrapped = naive.wrap24(u, profile)
        full = wrapped + int(bias[i])
        over = [over[0] + (wrapped != u), over[1] + (naive.clip24(full) != full)]
        want[t, i] = sum(naive.clip24(full) >= int(x) for x in table[:, i])
    got, counted = np.zeros((3, n), np.uint8), np.zeros(4, np.int64)
    scratch = np.zeros(n, np.int32)
    operands = acc.astype(np.int32), got, bias.astype(np.int32), table.astype(np.int32)
    soma.levels(window(3), *operands, scratch, True if wrapping else None, counted, MODULAR[profile])
    assert np.array_equal(got, want) and counted.tolist() == [0, *over, 0]
    wide, again = np.zeros((3, n), np.uint8), np.zeros(4, np.int64)
    soma.levels_wide(window(3), acc, wide, bias, table, np.zeros(n, np.int64), again, MODULAR[profile])
    assert np.array_equal(wide, want) and again.tolist() == [0, *over, 0]


@pytest.mark.parametrize(
    ("a", "wrapped"),
    [(2**17, 2**23), (2**17 + 1, 2**23 + 64 - 2**24), (-(2**17), 2**23), (-(2**17) + 1, -(2**23) + 64)],
)
def test_current_wraps_as_lava_does(a, wrapped):
    """The range is (-2^23, 2^23]: +2^23 is kept, -2^23 becomes +2^23."""
    assert soma.wrap24(a << 6) == wrapped == naive.wrap24(a << 6)


def test_current_wraps_once_and_may_stay_outside():
    assert soma.wrap24(3 << 24) == (3 << 24) - (1 << 24)


@given(
    st.one_of(st.integers(-(2**40), 2**40), st.sampled_from([k * 2**23 + d for k in range(-5, 6) for d in (-1, 0, 1)]))
)
def test_current_wraps_in_twos_complement_under_loihi1(u):
    bits = u & 0xFFFFFF
    assert soma.wrap24(u, True) == (bits if bits < 2**23 else bits - 2**24) == naive.wrap24(u, "loihi1")


@pytest.mark.parametrize(("x", "d", "want"), [(-3, 2048, -1), (3, 2048, 1), (-1, 1, 0), (5, 4096, 0), (-7, 0, -7)])
def test_decay_rounds_toward_zero(x, d, want):
    assert soma.decay(x, d) == want == naive.decay(x, d)


def test_threshold_is_strict_and_bias_of_the_next_channel_is_not_used():
    codes = np.zeros((1, 4), np.uint8)
    acc = np.array([[10, 11, 10, 11]], np.int32)
    bias, theta = np.zeros(2, np.int32), np.full(2, 10 << 6, np.int32)
    soma.lif(window(1), 1, acc, np.zeros(4, np.int32), codes, bias, theta, 4096, 31, None, np.zeros(4, np.int64))
    assert codes.tolist() == [[0, 1, 0, 1]]


def test_readout_integrates_and_restarts_with_the_sample():
    acc = np.array([[1, -2], [3, 4], [5, 6], [-1, 0]], np.int32)
    out, over = np.zeros((2, 2), np.int64), np.zeros(4, np.int64)
    soma.readout(window(4), 2, acc, np.full(2, 77, np.int64), out, np.array([10, 0], np.int64), over)
    assert out.tolist() == [[(1 + 3) * 64 + 20, 2 * 64], [(5 - 1) * 64 + 20, 6 * 64]]


def test_relay_passes_the_accumulator_and_counts_wide_payloads():
    acc = np.array([[2**23 - 1, 2**23, -(2**23), -(2**23) - 1, 2**40]], np.int64)
    codes, over = np.zeros_like(acc), np.zeros(4, np.int64)
    soma.relay(window(1), acc, codes, over)
    assert np.array_equal(codes, acc) and over.tolist() == [1, 0, 0, 3]


# -- the host ----------------------------------------------------------------------------------


@bounded
@given(SEEDS, st.integers(0, 9), st.integers(1, 2), st.integers(1, 2))
def test_host_conv_equals_naive(seed, shift, groups, stride):
    rng = np.random.default_rng(seed)
    ins, outs = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
    kernel, pad, dilation = rng.integers(1, 4, 2), tuple(rng.integers(0, 3, 2).tolist()), (1, int(rng.integers(1, 3)))
    weight = rng.integers(-(2**20), 2**20, (outs, ins // groups, *kernel)).astype(np.int32)
    h = HostCurrent("h", 0, 0, weight, rng.integers(-9999, 9999, outs), 0, shift, (ins, 7, 6), (stride, stride), pad,
                    dilation, groups)  # fmt: skip
    image = rng.integers(-300, 300, (ins, 7, 6))
    want, macs = naive.host_conv(h, image)
    got = np.zeros_like(want)
    form = shift, h.stride, h.pad, h.dilation, groups
    assert host_conv(image.astype(np.int32), weight, h.bias.astype(np.int64), *form, got) == macs
    assert np.array_equal(got, want)


# -- counters ----------------------------------------------------------------------------------


@bounded
@given(SEEDS)
def test_work_is_the_sum_of_products(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 5, (2, 3, 12)).astype(np.int32)
    channels, rows, columns = (rng.integers(0, 3, (2, n)) for n in (3, 4, 3))
    columns = columns.astype(np.int32)
    extent = np.array([[0, 4, 0, 3]] * 2)
    load, total = np.zeros((9, 2), np.int64), np.zeros(3, np.int64)
    core, tick = np.array([1, 0]), np.array([0, 3])
    tally.work(window(2), 2, count, 3, channels, rows, columns, extent, core, 2, 0, tick, load, total)
    want = np.einsum("fsyx,ds,dy,dx->fd", count.reshape(2, 3, 4, 3), channels, rows, columns)
    assert total.tolist() == [want[:, 1].sum(), want[:, 0].sum(), 0]
    assert load[2].tolist() == want[0, ::-1].tolist() and load[5].tolist() == want[1, ::-1].tolist()


# -- tiles of general networks -----------------------------------------------------------------


def naive_soma(p: Population, a: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict, dict]:
    """(codes, state afterwards, overflow counts) of one timestep of the brute-force twin."""
    somas = (replace(p, start_u=state.get("u"), start_v=state.get("v")),)
    out = Population("out", (1, 1, 1), 1, "readout", "readout", 1)
    shapes = (Dendrite("d", p.shape, 0), Dendrite("o", (1, 1, 1), 1))
    program = Program(
        "one", 1, 1, (1, 1, 1), False, (*somas, out), shapes, (), (), (), (), (), (), None, {"mesh": {}}, 1
    )
    machine = naive._Machine(program, np.zeros((1, 1, 1, 1)), {})
    machine.state = [{part: state.get(part, np.zeros(p.shape, np.int64)).copy() for part in naive.PARTS}, {}]
    update = machine._sigma_delta if p.model == "sigma_delta" else machine._update
    codes = np.array([update(0, p, at, int(a[at])) for at in np.ndindex(p.shape)]).reshape(p.shape)
    return codes, machine.state[0], {name: over[0] for name, over in machine.out.overflow.items()}


def same_counts(over: np.ndarray, want: dict) -> None:
    for at, name in ((soma.ACCUMULATOR, "accumulator"), (soma.CURRENT, "u"), (soma.POTENTIAL, "v")):
        assert over[at] == want.get(name, 0), name


@bounded
@given(SEEDS, st.integers(0, 4095), st.integers(0, 4096), st.booleans())
def test_lif_tiles_with_current_equal_naive(seed, du, dv, ternary):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 4, 3).tolist())
    a = accumulators(rng, 1, int(np.prod(shape)), 2**40).reshape(shape)
    state = {part: rng.integers(-(2**26), 2**26, shape) for part in "uv"}
    vth, low = rng.integers(0, 2**17, shape[0]), rng.integers(-(2**17), 0, shape[0])
    bias = rng.integers(-(2**20), 2**20, shape[0])
    p = Population(
        "p", shape, 0, "lif", "neuron", 0, dv, vth.astype(np.int32), bias.astype(np.int32), du=du,
        vth_low=low.astype(np.int32) if ternary else None,
    )  # fmt: skip
    codes, held, want = naive_soma(p, a, state)
    found, over = np.zeros(shape, np.int64), np.zeros(4, np.int64)
    below = low << 6 if ternary else np.full_like(low, soma.NEVER)
    soma.lif_tile(a, state["u"], state["v"], found, bias, vth << 6, below, du, dv, over)
    assert np.array_equal(found, codes)
    assert all(np.array_equal(state[part], held[part]) for part in "uv")
    same_counts(over, want)


@bounded
@given(SEEDS, st.booleans(), st.booleans(), st.integers(0, 12))
def test_sigma_delta_tiles_equal_naive(seed, relu, cumulative, out_shift):
    rng = np.random.default_rng(seed)
    shape, top = tuple(rng.integers(1, 4, 3).tolist()), int(rng.choice([50, 2**24, 2**31 - 1]))
    a = accumulators(rng, 1, int(np.prod(shape)), int(rng.choice([60, 2**34]))).reshape(shape)
    state = {part: rng.integers(-top, top, shape) for part in naive.SIGMA_DELTA}
    vth, bias = rng.integers(0, top, shape[0]), rng.integers(-top, top, shape[0])
    p = Population(
        "p", shape, 0, "sigma_delta", "neuron", 0, vth=vth.astype(np.int32), bias=bias.astype(np.int32), relu=relu,
        cumulative=cumulative, out_shift=out_shift,
    )  # fmt: skip
    codes, held, want = naive_soma(p, a, state)
    found, over = np.zeros(shape, np.int64), np.zeros(4, np.int64)
    soma.sigma_delta_tile(a, *state.values(), found, bias, vth, relu, cumulative, out_shift, over)
    assert np.array_equal(found, codes) and over[soma.PAYLOAD] == want["payload"]
    assert all(np.array_equal(state[part], held[part]) for part in state)
    same_counts(over, want)


@bounded
@given(SEEDS, st.booleans(), st.integers(1, 70), st.floats(0, 1))
def test_sparse_events_equal_naive(seed, graded, room, rate):
    """Rows of any length, pairs twice, delays up to the largest, a ring that just holds them; any part of a tile."""
    rng = np.random.default_rng(seed)
    src, dst = (tuple(rng.integers(1, 4, 3).tolist()) for _ in range(2))
    indptr = np.cumsum([0, *rng.integers(0, 6, int(np.prod(src)))])
    target, extra = rng.integers(0, int(np.prod(dst)), indptr[-1]), rng.integers(0, 64, indptr[-1])
    weight = rng.choice([-256, -1, 1, 255], indptr[-1]).astype(np.int16)
    s = Sparse("s", 0, 0, 1, indptr, target.astype(np.int32), weight, 3, extra.astype(np.uint8), graded)
    codes = rng.integers(-(2**23), 2**23, src) * (rng.random(src) < rate)
    held = rng.integers(0, np.array(dst))
    box = Box(held[0], dst[0], held[1], dst[1], held[2], dst[2])
    inputs = Population("in", src, 0, "input", "input", -1)
    program = Program("s", 0, 1, src, True, (inputs,), (Dendrite("d", dst, 0),), (), (), (), (), (), (), None, {}, 0)
    rows, slot = cut(program, s, box), int(rng.integers(64))
    at = np.argwhere(codes)
    listed = np.concatenate([at, codes[tuple(at.T)][:, None]], axis=1)
    ring, want, hits = np.zeros((64, box.size), np.int64), np.zeros((64, *dst), np.int64), 0
    operands = rows.indptr, rows.target, rows.weight, rows.extra, s.shift, graded
    done = scatter.sparse_event(listed, src, *operands, slot, room, ring)
    for e in at.tolist():
        for to, w, late in naive.synapses(s, (src, dst), e):
            hits += naive.holds(box.as_tuple(), to)
            if late < room:
                want[((slot + late) % 64, *to)] += (w * (int(codes[tuple(e)]) if graded else 1)) << 3
    part = want[:, box.c0 : box.c1, box.y0 : box.y1, box.x0 : box.x1]
    assert done == hits and np.array_equal(ring.reshape(64, *box.shape), part)
    assert rows.reaches().tolist() == [
        any(naive.holds(box.as_tuple(), to) for to, _, _ in naive.synapses(s, (src, dst), e)) for e in np.ndindex(src)
    ]
