"""Every op against a naive formula, one output number at a time, written from its definition."""

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Attr, Kind, Ref, ValueType, known_ops, op_spec
from nmc_compiler.graph.interpret import OverflowInGraph
from nmc_compiler.graph.registry import Call

RNG = np.random.default_rng(0)


def call(op: str, inputs: list[np.ndarray], integer: bool = False, state: dict | None = None, **given) -> np.ndarray:
    """One timestep of an op; arrays given as attributes become tensors. The type rule must agree in shape."""
    tensors = {k: v for k, v in given.items() if isinstance(v, np.ndarray)}
    attrs = {k: Attr(Ref(k) if k in tensors else v) for k, v in given.items() if k not in ("t", "timesteps")}

    def overflow(where: str, register: str, mask: np.ndarray) -> None:
        if mask.any():
            raise OverflowInGraph(f"{register} at {int(mask.sum())}")

    spec = op_spec(op)
    spec.check_attrs(attrs, op)
    out = spec.evaluate(
        Call(inputs, attrs, tensors, {} if state is None else state, given.get("t", 0), given.get("timesteps", 1),
             integer, op, overflow)
    )  # fmt: skip
    kinds = (Kind.SPIKE, Kind.CURRENT) if op in EVENTS else (Kind.CURRENT, Kind.SPIKE)
    for kind in kinds:
        try:
            types = [ValueType(kind, x.shape[1:]) for x in inputs]
            shape = spec.infer(types, attrs, tensors, op).shape
            break
        except VerifyError:
            continue
    assert out.shape[1:] == shape
    return out


EVENTS = {"map", "attn", "mul"}


def currents(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def whole(*shape: int, low: int = -9, high: int = 10) -> np.ndarray:
    return RNG.integers(low, high, shape)


def conv(x, w, stride, pad, dilation, groups):
    """Cross-correlation, by the definition of torch.nn.Conv2d."""
    batch, _, height, width = x.shape
    out, per, kh, kw = w.shape
    oh = (height + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((batch, out, oh, ow), x.dtype if x.dtype.kind == "i" else np.float64)
    for b, o, i, j in np.ndindex(*y.shape):
        first = o // (out // groups) * per
        for c, ky, kx in itertools.product(range(per), range(kh), range(kw)):
            yy, xx = i * stride[0] + ky * dilation[0] - pad[0], j * stride[1] + kx * dilation[1] - pad[1]
            if 0 <= yy < height and 0 <= xx < width:
                y[b, o, i, j] += x[b, first + c, yy, xx] * w[o, c, ky, kx]
    return y


GEOMETRIES = [
    ((4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((4, 3, 2, 3), (2, 1), (0, 2), (1, 2), 1),
    ((6, 2, 3, 1), (1, 2), (1, 0), (2, 1), 2),
    ((4, 1, 3, 3), (1, 1), (1, 1), (1, 1), 4),  # depthwise
    ((4, 1, 7, 7), (2, 2), (3, 3), (1, 1), 4),
    ((8, 1, 2, 2), (1, 1), (0, 0), (1, 1), 4),  # two outputs per channel: grouped, not depthwise
    ((5, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
]


@pytest.mark.parametrize(("shape", "stride", "pad", "dilation", "groups"), GEOMETRIES)
def test_conv2d(shape, stride, pad, dilation, groups) -> None:
    x, w, bias = currents(2, shape[1] * groups, 6, 7), currents(*shape), currents(shape[0])
    geometry = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    want = conv(x, w, stride, pad, dilation, groups)
    np.testing.assert_allclose(call("conv2d", [x], weight=w, **geometry), want, rtol=0, atol=1e-12)
    got = call("conv2d", [x], weight=w, bias=bias, **geometry)
    np.testing.assert_allclose(got, want + bias[None, :, None, None], rtol=0, atol=1e-12)
    xi, wi = whole(2, shape[1] * groups, 6, 7), whole(*shape, low=-128, high=128)
    got = call("conv2d", [xi], integer=True, weight=wi, shift=3, **geometry)
    assert np.array_equal(got, conv(xi, wi, stride, pad, dilation, groups) * 8)
    assert got.dtype == np.int64


@pytest.mark.parametrize(("shape", "stride", "pad", "dilation", "groups"), GEOMETRIES)
def test_host_conv2d(shape, stride, pad, dilation, groups) -> None:
    x, w, bias = currents(2, shape[1] * groups, 6, 7), whole(*shape), whole(shape[0], low=-999, high=999)
    geometry = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    scaled = np.array([[round(v * 16) for v in row] for row in x.reshape(-1, x.shape[-1])]).reshape(x.shape)
    sums = conv(scaled, w, stride, pad, dilation, groups) + bias[None, :, None, None]
    for shift in (0, 5):
        got = call("host_conv2d", [x], integer=True, weight=w, bias=bias, frac=4, shift=shift, **geometry)
        assert np.array_equal(got, np.floor(sums / 2**shift + (0.5 if shift else 0.0)))


def test_integer_sums_beyond_float64_are_refused() -> None:
    x, w = np.full((1, 1, 1, 1), 2**30), np.full((1, 1, 1, 1), 2**24)
    with pytest.raises(VerifyError, match=r"left the range in which float64 is exact \(2\^53\)"):
        call("conv2d", [x], integer=True, weight=w)


def test_batch_norm() -> None:
    x, var, mean, gamma, beta = currents(2, 3, 2, 2), RNG.uniform(0.1, 2, 3), *(currents(3) for _ in range(3))
    got = call("batch_norm", [x], mean=mean, var=var, weight=gamma, bias=beta, eps=1e-3)
    plain = call("batch_norm", [x], mean=mean, var=var, eps=1e-3)
    for b, c, i, j in np.ndindex(*x.shape):
        normal = (x[b, c, i, j] - mean[c]) / math.sqrt(var[c] + 1e-3)
        assert plain[b, c, i, j] == pytest.approx(normal, abs=1e-12)
        assert got[b, c, i, j] == pytest.approx(normal * gamma[c] + beta[c], abs=1e-12)


def test_pad2d() -> None:
    x, ring = currents(2, 3, 2, 4), currents(3)
    got = call("pad2d", [x], pad=(2, 1), value=ring)
    assert got.shape == (2, 3, 6, 6)
    for b, c, i, j in np.ndindex(*got.shape):
        inside = 0 <= i - 2 < 2 and 0 <= j - 1 < 4
        assert got[b, c, i, j] == (x[b, c, i - 2, j - 1] if inside else ring[c])


def test_add_and_scale() -> None:
    x, y, z, factor = currents(2, 3, 2, 2), currents(2, 3, 2, 2), currents(2, 3, 2, 2), currents(3)
    assert np.array_equal(call("add", [x]), x)
    assert np.array_equal(call("add", [x, y, z]), (x + y) + z)
    assert np.array_equal(call("scale", [x], factor=0.25), x / 4)
    got = call("scale", [x], factor=factor)
    assert all(got[i] == x[i] * factor[i[1]] for i in np.ndindex(*x.shape))


def test_rshift_floors() -> None:
    x = whole(2, 3, 4, 4, low=-70, high=70)
    got = call("rshift", [x], integer=True, shift=3)
    assert all(got[i] == math.floor(Fraction(int(x[i]), 8)) for i in np.ndindex(*x.shape))


def test_sum_positions() -> None:
    x = whole(2, 3, 4, 5)
    want = [[sum(x[b, c, i, j] for i in range(4) for j in range(5)) for c in range(3)] for b in range(2)]
    assert np.array_equal(call("sum_positions", [x], integer=True)[:, :, 0, 0], want)


@pytest.mark.parametrize("kind", ["currents", "integers", "spikes"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (0, 1))])
def test_maxpool2d(kind, kernel, stride, pad) -> None:
    """The padding never wins: windows of negative currents keep their own maximum."""
    x = {
        "currents": currents(2, 2, 5, 6) - 3,
        "integers": whole(2, 2, 5, 6) - 20,
        "spikes": whole(2, 2, 5, 6, low=0) // 9,
    }
    x = x[kind]
    got = call("maxpool2d", [x], integer=x.dtype.kind == "i", kernel=kernel, stride=stride, pad=pad)
    for b, c, i, j in np.ndindex(*got.shape):
        window = [
            x[b, c, y, z]
            for y in range(i * stride[0] - pad[0], i * stride[0] - pad[0] + kernel[0])
            for z in range(j * stride[1] - pad[1], j * stride[1] - pad[1] + kernel[1])
            if 0 <= y < 5 and 0 <= z < 6
        ]
        assert got[b, c, i, j] == max(window)


def test_map_modes() -> None:
    x = whole(2, 3, 4, 5, low=0)
    for integer, factor in ((False, 1), (True, 8)):
        shift = {"shift": 3} if integer else {}
        assert np.array_equal(call("map", [x], integer, mode="same", **shift), x * factor)
        reduced = call("map", [x], integer, mode="reduce", **shift)
        assert all(reduced[b, c, 0, 0] == factor * sum(x[b, c].ravel()) for b in range(2) for c in range(3))
        wide = call("map", [reduced], integer, mode="broadcast", size=(2, 3), **shift)
        assert all(wide[i] == factor * reduced[i[0], i[1], 0, 0] for i in np.ndindex(2, 3, 2, 3))
        six = whole(2, 6, 4, 5, low=0)
        blocks = call("map", [six], integer, mode="reduce_channels", channels=2, **shift)
        assert all(
            blocks[:, g].ravel().tolist() == (factor * six[:, 3 * g : 3 * g + 3].sum(1)).ravel().tolist()
            for g in (0, 1)
        )
        copies = call("map", [blocks], integer, mode="broadcast_channels", channels=4, **shift)
        assert all(copies[b, c, i, j] == factor * blocks[b, c // 2, i, j] for b, c, i, j in np.ndindex(2, 4, 4, 5))
        window = call("map", [x], integer, mode="window", kernel=(3, 2), stride=(1, 2), pad=(1, 0), **shift)
        for b, c, i, j in np.ndindex(*window.shape):
            rows = x[b, c, max(i - 1, 0) : i + 2, 2 * j : 2 * j + 2]
            assert window[b, c, i, j] == factor * rows.sum()


@pytest.mark.parametrize("order", ["kv", "qk"])
@pytest.mark.parametrize(("heads", "d", "dv", "size"), [(1, 3, 5, (1, 1)), (2, 3, 2, (2, 3)), (3, 2, 4, (1, 7))])
def test_attn(order, heads, d, dv, size) -> None:
    q, k = (whole(2, heads * d, *size, low=0, high=5) for _ in range(2))
    v = whole(2, heads * dv, *size, low=0, high=5)
    scaled = call("attn", [q.astype(float), k.astype(float), v.astype(float)], heads=heads, scale=0.5, order=order)
    counts = call("attn", [q, k, v], True, heads=heads, shift=2, saturate=60, order=order)
    n = size[0] * size[1]
    flat = [x.reshape(2, x.shape[1], n) for x in (q, k, v)]
    for b, h, j, t in np.ndindex(2, heads, dv, n):
        total = sum(
            int(flat[0][b, h * d + i, t]) * int(flat[1][b, h * d + i, m]) * int(flat[2][b, h * dv + j, m])
            for i in range(d)
            for m in range(n)
        )
        assert scaled.reshape(2, -1, n)[b, h * dv + j, t] == total / 2
        assert counts.reshape(2, -1, n)[b, h * dv + j, t] == min(total, 60) * 4


@pytest.mark.parametrize("block", [0, 2])
def test_a_table_that_lasts(block: int) -> None:
    """S = decay S + k^T v over timesteps, o = q S; in integers with 12-bit decays and two fraction bits."""
    heads, d, dv, tokens, decay = 2, 2, 3, 4, np.array([0.75, 0.5])
    keep, more = np.rint(4096 * decay).astype(np.int32), {"block": block} if block else {}
    real, whole_ = {}, {}
    tables, counts = np.zeros((heads, dv, d)), np.zeros((heads, dv, d), int)
    for t in range(5):
        q, k = (RNG.integers(0, 3, (1, heads * d, tokens, 1)) for _ in range(2))
        v = RNG.integers(0, 3, (1, heads * dv, tokens, 1))
        if t == 0 or (block and t % block == 0):
            tables[:], counts[:] = 0, 0
        wanted, limited = np.zeros((heads * dv, tokens)), np.zeros((heads * dv, tokens), int)
        for h, j, i in np.ndindex(heads, dv, d):
            pairs = sum(int(k[0, h * d + i, n, 0]) * int(v[0, h * dv + j, n, 0]) for n in range(tokens))
            tables[h, j, i] = decay[h] * tables[h, j, i] + pairs
            counts[h, j, i] = (int(keep[h]) * int(counts[h, j, i]) >> 12) + (pairs << 2)
        for h, j, n in np.ndindex(heads, dv, tokens):
            wanted[h * dv + j, n] = sum(q[0, h * d + i, n, 0] * tables[h, j, i] for i in range(d))
            limited[h * dv + j, n] = min(sum(int(q[0, h * d + i, n, 0]) * int(counts[h, j, i]) for i in range(d)), 200)
        form = {"heads": heads, "lifetime": "sample", "t": t, "timesteps": 5, **more}
        got = call("attn", [x.astype(float) for x in (q, k, v)], state=real, scale=0.5, decay=decay, **form)
        np.testing.assert_allclose(got[0, :, :, 0], 0.5 * wanted, rtol=1e-12)
        got = call("attn", [q, k, v], True, whole_, saturate=200, shift=1, keep=keep, frac=2, **form)
        assert np.array_equal(got[0, :, :, 0], limited << 1)


@pytest.mark.parametrize("integer", [False, True])
def test_take(integer: bool) -> None:
    a, b = whole(2, 2, 2, 3), whole(2, 1, 2, 2)
    index = np.array([15, -1, 0, 11, 12, 3])
    got = call("take", [a, b] if integer else [a.astype(float), b.astype(float)], integer, index=index, shape=(3, 2, 1))
    for n in range(2):
        flat = [*a[n].reshape(-1).tolist(), *b[n].reshape(-1).tolist()]
        assert got[n].reshape(-1).tolist() == [0 if at < 0 else flat[at] for at in index.tolist()]


def test_mul_is_a_mask() -> None:
    a, b, mask = (whole(2, 3, *s, low=0, high=2) for s in ((2, 2), (2, 2), (1, 1)))
    assert np.array_equal(call("mul", [a, b], True), a & b)
    assert np.array_equal(call("mul", [a, mask], True), a & mask)


@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("compare", ["ge", "gt"])
@pytest.mark.parametrize("decay_input", [True, False])
def test_lif(reset, compare, decay_input) -> None:
    """N1 (decay_input) and N1a, in exact fractions; inputs are eighths, so thresholds are met exactly too."""
    tau, theta, v_reset, gain = 2, Fraction(3, 4), Fraction(-1, 4), Fraction(1, 2)
    x, bias = whole(6, 2, 3, 2, 2, low=-8, high=24) / 8.0, np.array([0.25, -0.5, 0.0])
    state: dict = {}
    v = np.full(x.shape[1:], v_reset, object)
    for t in range(6):
        numbers = {"tau": 2.0, "theta": 0.75, "v_reset": -0.25, "gain": 0.5, "bias": bias}
        got = call("lif", [x[t]], state=state, reset=reset, compare=compare, decay_input=decay_input, **numbers)
        for i in np.ndindex(*v.shape):
            u = (Fraction(x[t][i]) + Fraction(bias[i[1]])) * gain
            h = v[i] + (u - (v[i] - v_reset)) / tau if decay_input else v[i] - (v[i] - v_reset) / tau + u
            spike = h >= theta if compare == "ge" else h > theta
            v[i] = {"hard": v_reset if spike else h, "soft": h - theta * spike, "none": h}[reset]
            assert got[i] == spike
            assert state["v"][i] == v[i]


@pytest.mark.parametrize(("rounding", "ties"), [("half_even", [0, 2, 2, 4, 4]), ("half_up", [1, 2, 3, 4, 4])])
def test_multilevel(rounding, ties) -> None:
    halves = np.array([0.5, 1.5, 2.5, 3.5, 4.5]).reshape(1, 1, 1, 5)
    got = call("multilevel", [halves], levels=4, norm=4, rounding=rounding)
    assert np.array_equal(got.ravel() * 4, ties)
    x, bias = currents(2, 3, 4, 4) * 4, currents(3)
    got = call("multilevel", [x], levels=4, rounding=rounding, gain=1.5, bias=bias)
    for i in np.ndindex(*x.shape):
        value = min(max((x[i] + bias[i[1]]) * 1.5, 0.0), 4.0)
        assert got[i] == min(range(5), key=lambda level: abs(level - value))


def test_readout_is_the_mean_over_time() -> None:
    x, bias, state = currents(3, 2, 4, 1, 1), currents(4), {}
    for t in range(3):
        got = call("readout", [x[t]], state=state, bias=bias, gain=2.0, timesteps=3)
    want = 2.0 * (x.mean(axis=0) + bias[None, :, None, None])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def decay(v: int, d: int) -> int:
    size = abs(v) * (4096 - d) // 4096
    return -size if v < 0 else size


@pytest.mark.parametrize("dv", [0, 1, 2048, 4095, 4096])
def test_cuba_lif(dv) -> None:
    """Lava 0.10 bit-accurate LIF, du = 4095 (lava_fixed_point 2.2): decay, add, compare strictly, reset to 0."""
    vth, bias = np.array([10, 0, 300]), np.array([0, 63, -640])
    state: dict = {}
    v = np.zeros((2, 3, 2, 2), object)
    for _ in range(8):
        a = whole(2, 3, 2, 2, low=-40, high=60)
        got = call("cuba_lif", [a], True, state, dv=dv, vth=vth, bias=bias)
        for i in np.ndindex(*v.shape):
            potential = decay(int(v[i]), dv) + int(a[i]) * 64 + int(bias[i[1]])
            spike = potential > int(vth[i[1]]) * 64
            v[i] = 0 if spike else potential
            assert got[i] == spike
            assert state["v"][i] == v[i]


def test_cuba_lif_compares_strictly_on_a_grain_of_64() -> None:
    vth = np.array([2])
    for a, bias, spike in ((2, 0, 0), (2, 1, 1), (3, 0, 1), (1, 64, 0), (1, 65, 1)):
        got = call("cuba_lif", [np.full((1, 1, 1, 1), a)], True, dv=4096, vth=vth, bias=np.array([bias]))
        assert got.item() == spike


def test_24_bit_registers() -> None:
    """u wraps once in (-2^23, 2^23], v saturates; both are told of (here: raised)."""
    top = 2**23 // 64
    vth = np.array([2**17 - 1])

    def once(a: int, **more) -> int:
        state: dict = {}
        call("cuba_lif", [np.full((1, 1, 1, 1), a)], True, state, dv=0, vth=vth, **more)
        return state["v"].item()

    assert once(top - 1) == 2**23 - 64
    assert once(-top + 1) == -(2**23) + 64
    with pytest.raises(OverflowInGraph, match="current u at 1"):
        once(top + 1)
    with pytest.raises(OverflowInGraph, match="current u at 1"):
        once(-top)
    with pytest.raises(OverflowInGraph, match="membrane potential v at 1"):
        once(top)  # u = 2^23 is kept, v is not
    with pytest.raises(OverflowInGraph, match="membrane potential v at 1"):
        once(top - 1, bias=np.array([64]))


@pytest.mark.parametrize("rows", [1, 3])
def test_levels(rows) -> None:
    thresholds, bias = np.sort(whole(rows, 4, low=0, high=900), axis=1), whole(3)
    a = whole(2, 3, 2, 2, low=-3, high=16)
    got = call("levels", [a], True, thresholds=thresholds, bias=bias)
    for i in np.ndindex(*a.shape):
        row = thresholds[i[1] if rows == 3 else 0]
        assert got[i] == sum(int(a[i]) * 64 + int(bias[i[1]]) >= int(th) for th in row)


def test_relay_and_int_readout() -> None:
    a, bias, state = whole(3, 2, 4, 1, 1), whole(4), {}
    assert np.array_equal(call("relay", [a[0]], True), a[0])
    with pytest.raises(OverflowInGraph, match="relay payload at 2"):
        call("relay", [np.array([[[[2**23, 2**23 - 1, -(2**23)]]]])], True)
    for t in range(3):
        got = call("int_readout", [a[t]], True, state, bias=bias, scale=0.5)
    assert np.array_equal(got, a.sum(axis=0) * 64 + 3 * bias[None, :, None, None])


def test_encode_rounds_half_to_even_and_refuses_what_does_not_fit() -> None:
    x = np.array([0.0, 0.5, 1.5, 2.5, 3.49, 7.0]).reshape(1, 1, 2, 3)
    assert np.array_equal(call("encode", [x], True, scale=1.0, lo=0, hi=7).ravel(), [0, 0, 2, 2, 3, 7])
    with pytest.raises(VerifyError, match=r"encode: input values encode to 0\.\.14, outside 0\.\.7; .*input_range"):
        call("encode", [x], True, scale=2.0, lo=0, hi=7)
    with pytest.raises(VerifyError, match=r"encode to -14\.\.0, outside 0\.\.255"):
        call("encode", [x], True, scale=-2.0, lo=0, hi=255)


def test_input_has_no_meaning_of_its_own() -> None:
    with pytest.raises(VerifyError, match="here: the interpreter feeds inputs itself"):
        op_spec("input").evaluate(Call([], {}, {}, {}, 0, 1, False, "here", lambda *_: None))


# Of what lies on active sites the twin is brute force over all pairs: tests/property/test_active_sites.py.
ON_SITES = (
    "cloud",
    "down_sites",
    "features",
    "host_sparse_conv3d",
    "mean_sites",
    "sites",
    "sparse_conv3d",
    "sum_sites",
)


def test_no_op_is_left_out() -> None:
    """A new op comes with its naive twin."""
    here = Path(__file__)
    others = ("test_graph_general.py", "test_graph_host.py", "test_neurons.py")
    source = "".join(f.read_text(encoding="utf-8") for f in (here, *map(here.with_name, others)))
    names = [spec.name for spec in known_ops() if spec.name not in ("input", *ON_SITES)]
    assert [name for name in names if f'call("{name}"' not in source and f'over_time("{name}"' not in source] == []
