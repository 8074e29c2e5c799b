"""Every op of the host against a naive formula, written from its definition; and what a graph may not ask of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Attr, GraphBuilder, Kind, known_ops
from nmc_compiler.graph.host_meaning import BINARY, REDUCE, UNARY
from nmc_compiler.graph.host_work import work_of
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.types import ValueType
from tests.unit.test_graph_ops import call

RNG = np.random.default_rng(0)
TOKEN = (2, 4, 1, 1)


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


NAIVE = {
    "abs": abs,
    "exp": math.exp,
    "neg": lambda x: -x,
    "reciprocal": lambda x: 1 / x,
    "relu": lambda x: max(x, 0.0),
    "rsqrt": lambda x: x**-0.5,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sqrt": math.sqrt,
    "square": lambda x: x * x,
    "tanh": math.tanh,
}


@pytest.mark.parametrize("function", sorted(UNARY))
def test_unary(function: str) -> None:
    x = np.abs(reals(2, 3, 2, 2)) + 0.1
    np.testing.assert_allclose(call("unary", [x], function=function), np.vectorize(NAIVE[function])(x), rtol=1e-14)


def test_a_sigmoid_of_large_numbers_is_no_overflow() -> None:
    x = np.array([-800.0, -1.0, 0.0, 1.0, 800.0]).reshape(1, 5, 1, 1)
    found = call("unary", [x], function="sigmoid").reshape(-1)
    assert found.tolist() == [0.0, 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-1)), 1.0]


@pytest.mark.parametrize("function", sorted(BINARY))
def test_binary(function: str) -> None:
    naive = {"add": "a+b", "sub": "a-b", "mul": "a*b", "div": "a/b", "max": "max(a,b)", "min": "min(a,b)"}[function]
    a, b = reals(2, 3, 2, 2), reals(2, 3, 1, 2)
    expected = np.vectorize(lambda a, b: eval(naive))(a, np.broadcast_to(b, a.shape))
    assert (call("binary", [a, b], function=function) == expected).all()


@pytest.mark.parametrize("function", sorted(REDUCE))
def test_reduce(function: str) -> None:
    x, naive = reals(2, 5, 2, 1), {"max": max, "sum": sum, "mean": lambda v: sum(v) / len(v)}[function]
    expected = [[[naive(list(x[b, :, h, 0]))] for h in range(2)] for b in range(2)]
    np.testing.assert_allclose(call("reduce", [x], function=function)[:, 0], expected, rtol=1e-14)


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_norms(op: str) -> None:
    x, w, b = reals(2, 6, 2, 1), reals(6), reals(6)
    found = (
        call("layer_norm", [x], weight=w, bias=b, eps=1e-3) if op == "layer_norm" else call("rms_norm", [x], eps=1e-3)
    )
    for n in range(2):
        for h in range(2):
            column = x[n, :, h, 0]
            mean = column.mean() if op == "layer_norm" else 0.0
            normed = (column - mean) / math.sqrt(((column - mean) ** 2).mean() + 1e-3)
            expected = normed * w + b if op == "layer_norm" else normed
            np.testing.assert_allclose(found[n, :, h, 0], expected, rtol=1e-13)


def test_softmax_channels() -> None:
    x = reals(2, 4, 1, 3)
    found = call("softmax_channels", [x])
    np.testing.assert_allclose(found, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), rtol=1e-14)
    assert np.allclose(call("softmax_channels", [x + 1000.0]), found)


def test_real_linear_and_real_matmul() -> None:
    x, w, b = reals(2, 4, 2, 1), reals(3, 4), reals(3)
    expected = np.einsum("oc,nchw->nohw", w, x) + b[:, None, None]
    np.testing.assert_allclose(call("real_linear", [x], weight=w, bias=b), expected, rtol=1e-13)
    p, q = reals(2, 3, 2, 4), reals(2, 3, 4, 5)
    np.testing.assert_allclose(call("real_matmul", [p, q]), p @ q, rtol=1e-13)


def test_real_affine_and_clip() -> None:
    x, f = reals(2, 3, 2, 2), reals(3)
    assert (call("real_affine", [x], factor=f, offset=0.5) == x * f[:, None, None] + 0.5).all()
    assert (call("clip", [x], lo=-0.5, hi=0.25) == np.minimum(np.maximum(x, -0.5), 0.25)).all()
    assert (call("clip", [x], lo=0.0) == np.maximum(x, 0.0)).all()


def test_wkv_is_the_weighted_mean_of_all_values_so_far() -> None:
    k, v = reals(6, *TOKEN), reals(6, *TOKEN)
    decay, first, state = reals(4), reals(4), {}
    for t in range(6):
        found = call("wkv", [k[t], v[t]], state=state, decay=decay, first=first)
        rate, now = np.exp(decay)[:, None, None], first[:, None, None]
        weights = [np.exp(-(t - 1 - i) * rate + k[i]) for i in range(t)] + [np.exp(now + k[t])]
        expected = sum(w * x for w, x in zip(weights, v, strict=False)) / sum(weights)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gated_table_is_a_sum_over_the_tokens_so_far() -> None:
    q, k, v, gate = (reals(5, *TOKEN) for _ in range(4))
    gate, state = 1 / (1 + np.exp(-gate)), {}
    for t in range(5):
        found = call("gated_table", [q[t], k[t], v[t], gate[t]], state=state, heads=2)
        expected = np.zeros((2, 2, 2))
        for i in range(t + 1):
            kept = np.prod(gate[i + 1 : t + 1], axis=0).reshape(2, 2, 2)  # [N, heads, d]
            one = [x.reshape(2, 2, 2) for x in (q[t], k[i], v[i])]
            expected += np.einsum("nhd,nhd,nhd,nhe->nhe", one[0], kept, one[1], one[2])
        np.testing.assert_allclose(found, expected.reshape(2, 4, 1, 1), rtol=1e-12)


def test_gated_mean() -> None:
    x, gate, state, h = reals(5, *TOKEN), reals(5, *TOKEN), {}, 0.0
    for t in range(5):
        h = gate[t] * h + (1 - gate[t]) * x[t]
        np.testing.assert_allclose(call("gated_mean", [x[t], gate[t]], state=state), h, rtol=1e-14)


@pytest.mark.parametrize("groups", [1, 2])
def test_window_attention_is_softmax_over_the_last_tokens(groups: int) -> None:
    q, (k, v), state = reals(6, *TOKEN), (reals(6, 2, 2 * groups, 1, 1) for _ in range(2)), {}
    for t in range(6):
        found = call("window_attention", [q[t], k[t], v[t]], state=state, heads=2, window=3, scale=0.5)
        seen = range(max(t - 2, 0), t + 1)
        for n in range(2):
            for h in range(2):
                own = slice(2 * (h * groups // 2), 2 * (h * groups // 2) + 2)
                scores = [math.exp(0.5 * float(q[t, n, 2 * h : 2 * h + 2, 0, 0] @ k[i, n, own, 0, 0])) for i in seen]
                expected = sum(s * v[i, n, own, 0, 0] for s, i in zip(scores, seen, strict=True)) / sum(scores)
                np.testing.assert_allclose(found[n, 2 * h : 2 * h + 2, 0, 0], expected, rtol=1e-12)


def test_rotary_turns_pairs_by_their_position() -> None:
    x = reals(1, 8, 1, 1)
    found = call("rotary", [x], heads=2, base=100.0, t=3).reshape(2, 4)
    for h, head in enumerate(x.reshape(2, 4)):
        for i in range(2):
            turn = complex(head[i], head[i + 2]) * np.exp(1j * 3 * 100.0 ** (-i / 2))
            np.testing.assert_allclose([found[h, i], found[h, i + 2]], [turn.real, turn.imag], rtol=1e-13)


def test_embedding_codes_spikes_and_reads() -> None:
    table = reals(5, 3)
    assert (call("embedding", [np.full((1, 1, 1, 1), 4.0)], weight=table)[0, :, 0, 0] == table[4]).all()
    x = np.array([-9.0, -2.5, -0.5, 0.5, 1.5, 8.4]).reshape(1, 6, 1, 1) / 4
    state: dict = {}
    found = call("codes", [x * 0.8], state=state, unit=0.2, bits=8).reshape(-1)  # half to even
    assert found.tolist() == [-9, -2, 0, 0, 2, 8]
    assert call("host_spikes", [x], theta=0.125).reshape(-1).tolist() == [0, 0, 0, 1, 1, 1]
    assert (call("host_read", [np.arange(3).reshape(1, 3, 1, 1)], scale=0.5)[0, :, 0, 0] == [0, 0.5, 1]).all()


def test_a_batch_gives_each_sample_what_it_gets_alone() -> None:
    x, w = reals(7, 33, 1, 1), reals(17, 33)
    whole = call("real_linear", [x], weight=w)
    alone = np.concatenate([call("real_linear", [x[i : i + 1]], weight=w) for i in range(7)])
    assert (whole == alone).all()


# ---- what is not finite, or does not go together ----


def test_a_division_by_zero_is_told_with_its_timestep() -> None:
    b = GraphBuilder("net", timesteps=2, input_time=True)
    x = b.add("input", name="x", shape=(2, 1, 1))
    b.add("output", b.add("unary", x, function="reciprocal", name="one over x"), name="y")
    frames = np.ones((2, 2, 1, 1))
    frames[1, 0] = 0.0
    text = r"^one over x: the host gets 1 values that are not finite at timestep 1 \(a division by zero, or an expon"
    with pytest.raises(VerifyError, match=text):
        interpret(b.build(), frames)


BAD = {
    "function": (("unary", {"function": "gelu"}, 1), "function is 'gelu'; known: abs, exp"),
    "shapes": (("binary", {"function": "add"}, 2), r"real\[4,1,1\] and real\[4,3,1\]|do not go together"),
    "heads": (("rotary", {"heads": 3, "base": 10.0}, 1), "wants one token of 6 heads"),
    "window": (("window_attention", {"heads": 2, "window": 0, "scale": 1.0}, 3), "window must lie in 1.."),
    "bits": (("codes", {"unit": 1.0, "bits": 1}, 1), "bits must lie in 2..24, got 1"),
    "unit": (("codes", {"unit": 0.0, "bits": 8}, 1), "unit must be above 0, got 0.0"),
    "ends": (("clip", {"lo": 1.0, "hi": 0.0}, 1), "wants lo, hi, or both, lo <= hi"),
    "eps": (("layer_norm", {"eps": -1.0}, 1), "eps must be >= 0"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_attributes(case: str) -> None:
    (op, attrs, operands), text = BAD[case]
    b = GraphBuilder("net", timesteps=1)
    x = b.add("input", shape=(4, 1, 1))
    if case == "shapes":
        x2 = b.add("input", shape=(3, 1, 1))
        with pytest.raises(VerifyError, match="do not go together"):
            b.add(op, x, x2, **attrs)
        return
    with pytest.raises(VerifyError, match=text):
        b.add(op, *[x] * operands, **attrs)


def test_a_token_that_the_table_has_not() -> None:
    with pytest.raises(VerifyError, match=r"^embedding: token 5 is none of 0\.\.4$"):
        call("embedding", [np.full((1, 1, 1, 1), 5.0)], weight=reals(5, 3))


def test_work_counts_what_a_linear_layer_and_a_softmax_do() -> None:
    def work(op: str, shape: tuple, made: tuple, **attrs) -> dict[str, int]:
        given = {k: Attr(v) for k, v in attrs.items()}
        return work_of(op, given, [ValueType(Kind.REAL, shape)] * 3, ValueType(Kind.REAL, made))

    assert work("real_linear", (8, 2, 1), (3, 2, 1)) == {"macs": 48}
    assert work("softmax_channels", (8, 1, 1), (8, 1, 1)) == {"exps": 8, "ops": 16, "divisions": 8}
    assert work("unary", (8, 1, 1), (8, 1, 1), function="silu") == {"exps": 8, "divisions": 8, "ops": 16}
    assert work("window_attention", (8, 1, 1), (8, 1, 1), heads=2, window=3, scale=1.0)["macs"] == 2 * 3 * 8
    assert all(work_of(s.name, {k: Attr(1) for k in s.attrs}, [ValueType(Kind.REAL, (4, 1, 1))] * 4,
                       ValueType(Kind.REAL, (4, 1, 1))) for s in known_ops() if s.host)  # fmt: skip
