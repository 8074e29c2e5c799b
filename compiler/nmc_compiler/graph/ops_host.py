"""Ops of the host: real values between the parts of a network that cores compute (docs/host.md).

They have the same meaning in float and integer graphs: float64, sample by sample (``host_meaning``). A network that
has some is cut at them (``passes.host_partition``); what reads them, and what they read, says which values cross.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import host_meaning as meaning
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, check_shape, register
from nmc_compiler.graph.types import Attr, Kind, ValueType

Arrays = list[np.ndarray]
MAX_WINDOW = 1 << 20  # tokens that an attention keeps


def real(shape: tuple[int, ...], where: str = "") -> ValueType:
    """``where``: of an op that may make more than it reads."""
    if where:
        check_shape(shape, where)
    return ValueType(Kind.REAL, shape)  # type: ignore[arg-type]


def each(compute: Callable[[Call, Arrays, meaning.State], np.ndarray]) -> Callable[[Call], np.ndarray]:
    """Sample by sample, so that a sample's bits do not depend on those beside it."""

    def evaluate(c: Call) -> np.ndarray:
        states: list[meaning.State] = c.state.setdefault("samples", [{} for _ in c.inputs[0]])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            found = [
                compute(c, [np.ascontiguousarray(x[i], np.float64) for x in c.inputs], states[i])
                for i in range(len(states))
            ]
        out = np.stack(found)
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            raise VerifyError(
                f"{c.where}: the host gets {np.count_nonzero(~np.isfinite(out))} values that are not finite at "
                f"timestep {c.timestep} (a division by zero, or an exponential too large)"
            )
        return out

    return evaluate


def _param(c: Call, key: str) -> np.ndarray | None:
    array = c.tensor(key)
    return None if array is None else array.astype(np.float64)


def _check_param(attrs: dict[str, Attr], tensors: Any, key: str, shape: tuple[int, ...], where: str) -> None:
    attr = attrs.get(key)
    if attr is None or isinstance(attr.value, (int, float)):
        return
    found = tensors[attr.value.key].shape  # type: ignore[union-attr]
    if found not in (shape[:1], shape):
        raise VerifyError(f"{where}: {key} must have shape {shape[:1]} or {shape}, got {found}")


def _check_word(attrs: dict[str, Attr], known: dict[str, Any], where: str) -> None:
    if attrs["function"].value not in known:
        raise VerifyError(f"{where}: function is {attrs['function'].value!r}; known: {', '.join(sorted(known))}")


def _token(types: list[ValueType], heads: int, where: str) -> None:
    """One token in each timestep, its channels in heads."""
    for t in types:
        if t.shape[1:] != (1, 1) or heads < 1 or t.shape[0] % heads:
            raise VerifyError(f"{where}: wants one token of {heads} heads in each timestep, (C, 1, 1), got {t}")


# ---- by position ----


def _norm_infer(types, attrs, tensors, where):
    for key in ("weight", "bias"):
        _check_param(attrs, tensors, key, types[0].shape, where)
    if attrs["eps"].value < 0:
        raise VerifyError(f"{where}: eps must be >= 0, got {attrs['eps'].value}")
    return real(types[0].shape)


def _norm(centred: bool) -> Callable[[Call], np.ndarray]:
    return each(
        lambda c, x, _: meaning.layer_norm(x[0], _param(c, "weight"), _param(c, "bias"), float(c.attr("eps")), centred)
    )


def _linear_infer(types, attrs, tensors, where):
    weight, (c, h, w) = tensors[attrs["weight"].value.key], types[0].shape
    if weight.ndim != 2 or weight.shape[1] != c or not len(weight):
        raise VerifyError(f"{where}: weight must be [out, {c}], got {weight.shape}")
    _check_param(attrs, tensors, "bias", (len(weight), 1, 1), where)
    return real((len(weight), h, w), where)


def _linear(c: Call, x: Arrays, _: meaning.State) -> np.ndarray:
    weight = _param(c, "weight")
    assert weight is not None
    return meaning.linear(x[0], weight, _param(c, "bias"))


def _matmul_infer(types, attrs, tensors, where):
    (g, m, k), (g2, k2, n) = types[0].shape, types[1].shape
    if g != g2 or k != k2:
        raise VerifyError(f"{where}: wants (G, M, K) and (G, K, N), got {types[0]} and {types[1]}")
    return real((g, m, n), where)


def _affine_infer(types, attrs, tensors, where):
    for key in ("factor", "offset"):
        _check_param(attrs, tensors, key, types[0].shape, where)
    return real(types[0].shape)


def _affine(c: Call, x: Arrays, _: meaning.State) -> np.ndarray:
    y = x[0]
    for key, does in (("factor", np.multiply), ("offset", np.add)):
        value = c.attr(key)
        if value is not None:
            y = does(y, value if isinstance(value, (int, float)) else meaning.spread(_param(c, key)))  # type: ignore[arg-type]
    return y


def _clip_infer(types, attrs, tensors, where):
    ends = [attrs[k].value for k in ("lo", "hi") if k in attrs]
    if not ends or ends != sorted(ends):
        raise VerifyError(f"{where}: wants lo, hi, or both, lo <= hi; got {ends}")
    return real(types[0].shape)


def _unary_infer(types, attrs, tensors, where):
    _check_word(attrs, meaning.UNARY, where)
    return real(types[0].shape)


def _binary_infer(types, attrs, tensors, where):
    _check_word(attrs, meaning.BINARY, where)
    pairs = list(zip(types[0].shape, types[1].shape, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise VerifyError(f"{where}: {types[0]} and {types[1]} do not go together")
    return real(tuple(max(pair) for pair in pairs), where)


def _reduce_infer(types, attrs, tensors, where):
    _check_word(attrs, meaning.REDUCE, where)
    return real((1, *types[0].shape[1:]))


# ---- over the tokens of a sample, one in each timestep ----


def _pair_infer(types, attrs, tensors, where):
    if types[0].shape != types[1].shape:
        raise VerifyError(f"{where}: its operands differ in shape: {types[0]}, {types[1]}")
    return real(types[0].shape)


def _wkv_infer(types, attrs, tensors, where):
    _pair_infer(types, attrs, tensors, where)
    for key in ("decay", "first"):
        _check_param(attrs, tensors, key, types[0].shape, where)
    return real(types[0].shape)


def _wkv(c: Call, x: Arrays, state: meaning.State) -> np.ndarray:
    decay, first = _param(c, "decay"), _param(c, "first")
    assert decay is not None and first is not None
    return meaning.wkv(state, x[0], x[1], decay, first)


def _gated_infer(types, attrs, tensors, where):
    _token(types, attrs["heads"].value, where)
    if len({t.shape for t in (types[0], types[1], types[3])}) != 1:
        raise VerifyError(f"{where}: q, k and gate must be of one shape, got {types[0]}, {types[1]}, {types[3]}")
    return real(types[2].shape)


def _gated(c: Call, x: Arrays, state: meaning.State) -> np.ndarray:
    q, k, v, gate = x
    return meaning.gated_table(state, q, k, v, gate, c.attr("heads"))


def _window(c: Call, x: Arrays, state: meaning.State) -> np.ndarray:
    q, k, v = x
    return meaning.window_attention(state, q, k, v, c.attr("heads"), c.attr("window"), float(c.attr("scale")))


def _window_infer(types, attrs, tensors, where):
    q, k, v = types
    heads, window = attrs["heads"].value, attrs["window"].value
    _token([q], heads, where)
    size = q.shape[0] // heads
    _token([k, v], 1, where)
    if k.shape != v.shape or k.shape[0] % size or heads % (k.shape[0] // size):
        raise VerifyError(f"{where}: keys and values of {k} and {v} do not go with {heads} heads of {size} channels")
    if not 1 <= window <= MAX_WINDOW:
        raise VerifyError(f"{where}: window must lie in 1..{MAX_WINDOW}, got {window}")
    return real(q.shape)


def _rotary_infer(types, attrs, tensors, where):
    _token(types, 2 * attrs["heads"].value, where)
    return real(types[0].shape)


def _embedding_infer(types, attrs, tensors, where):
    table = tensors[attrs["weight"].value.key]
    if types[0].shape != (1, 1, 1) or table.ndim != 2 or not table.size:
        raise VerifyError(
            f"{where}: wants one number of a token and a table [tokens, C], got {types[0]}, {table.shape}"
        )
    return real((table.shape[1], 1, 1))


def _embedding(c: Call, x: Arrays, _: meaning.State) -> np.ndarray:
    table, token = _param(c, "weight"), x[0].item()
    assert table is not None
    if not (token == int(token) and 0 <= token < len(table)):
        raise VerifyError(f"{c.where}: token {token:g} is none of 0..{len(table) - 1}")
    return table[int(token)][:, None, None]


# ---- what crosses ----


def _codes_infer(types, attrs, tensors, where):
    bits = attrs["bits"].value
    if not 2 <= bits <= 24:
        raise VerifyError(f"{where}: bits must lie in 2..24, got {bits}")
    if not attrs["unit"].value > 0:
        raise VerifyError(f"{where}: unit must be above 0, got {attrs['unit'].value}")
    return ValueType(Kind.GRADED, types[0].shape, bits, True)


def _codes(c: Call) -> np.ndarray:
    top = (1 << c.attr("bits") - 1) - 1

    def one(c: Call, x: Arrays, _: meaning.State) -> np.ndarray:
        found, kept = meaning.codes(x[0], float(c.attr("unit")), -top, top)
        c.overflow(c.where, "code", kept)
        return found

    found = each(one)(c)
    return found if c.integer else found.astype(np.float64)


def _spikes_eval(c: Call) -> np.ndarray:
    found = each(lambda c, x, _: (x[0] >= c.attr("theta")).astype(np.int64))(c)
    return found if c.integer else found.astype(np.float64)


def _host(name: str, arity: int | None, infer: Any, evaluate: Any, attrs: Any, required: Any, doc: str) -> None:
    register(OpSpec(name, arity, infer, evaluate, attrs, required, doc=doc, host=True))


_NORM = {"weight": TENSOR, "bias": TENSOR, "eps": NUMBER}
_NUMBERS = (*NUMBER, *TENSOR)
_host("layer_norm", 1, _norm_infer, _norm(True), _NORM, ("eps",), "norm over the channels of each position")
_host("rms_norm", 1, _norm_infer, _norm(False), _NORM, ("eps",), "the same without taking the mean away")
_host(
    "softmax_channels", 1, lambda types, *_: real(types[0].shape), each(lambda c, x, _: meaning.softmax(x[0])), {}, (),
    "softmax over the channels of each position",
)  # fmt: skip
_host(
    "real_linear", 1, _linear_infer, each(_linear), {"weight": TENSOR, "bias": TENSOR}, ("weight",),
    "linear layer of real values, at every position",
)  # fmt: skip
_host(
    "real_matmul", 2, _matmul_infer, each(lambda c, x, _: meaning.matmul(*x)), {}, (),
    "product of two real values, (G, M, K) and (G, K, N)",
)  # fmt: skip
_host(
    "real_affine", 1, _affine_infer, each(_affine), {"factor": _NUMBERS, "offset": _NUMBERS}, (),
    "real values times and plus numbers",
)  # fmt: skip
_host(
    "clip", 1, _clip_infer, each(lambda c, x, _: np.clip(x[0], c.attr("lo", -np.inf), c.attr("hi", np.inf))),
    {"lo": NUMBER, "hi": NUMBER}, (), "real values, kept between two numbers",
)  # fmt: skip
_host(
    "unary", 1, _unary_infer, each(lambda c, x, _: meaning.UNARY[c.attr("function")](x[0])), {"function": (str,)},
    ("function",), f"a function of each element: {', '.join(meaning.UNARY)}",
)  # fmt: skip
_host(
    "binary", 2, _binary_infer, each(lambda c, x, _: meaning.BINARY[c.attr("function")](*x)), {"function": (str,)},
    ("function",), f"of two values, element by element: {', '.join(meaning.BINARY)}",
)  # fmt: skip
_host(
    "reduce", 1, _reduce_infer, each(lambda c, x, _: meaning.REDUCE[c.attr("function")](x[0])), {"function": (str,)},
    ("function",), f"over the channels of each position: {', '.join(meaning.REDUCE)}",
)  # fmt: skip
_host(
    "wkv", 2, _wkv_infer, each(_wkv), {"decay": TENSOR, "first": TENSOR}, ("decay", "first"),
    "RWKV's weighted mean of values, of k and v",
)  # fmt: skip
_host(
    "gated_table", 4, _gated_infer, each(_gated),
    {"heads": (int,)}, ("heads",), "gated linear attention of q, k, v and a gate that depends on data",
)  # fmt: skip
_host(
    "gated_mean", 2, _pair_infer, each(lambda c, x, s: meaning.gated_mean(s, x[0], x[1])), {}, (),
    "running mean of x by a gate that depends on data (HGRN)",
)  # fmt: skip
_host(
    "window_attention", 3, _window_infer,
    each(_window),
    {"heads": (int,), "window": (int,), "scale": NUMBER}, ("heads", "window", "scale"),
    "softmax attention to the last tokens",
)  # fmt: skip
_host(
    "rotary", 1, _rotary_infer,
    each(lambda c, x, _: meaning.rotary(x[0], c.attr("heads"), float(c.attr("base")), c.timestep)),
    {"heads": (int,), "base": NUMBER}, ("heads", "base"), "rotary position embedding; positions are timesteps",
)  # fmt: skip
_host("embedding", 1, _embedding_infer, each(_embedding), {"weight": TENSOR}, ("weight",), "row of a table")
_host(
    "codes", 1, _codes_infer, _codes, {"unit": NUMBER, "bits": (int,)}, ("unit", "bits"),
    "events of real values: rint(x / unit), kept in its bits",
)  # fmt: skip
_host(
    "host_spikes", 1, lambda types, *_: ValueType(Kind.SPIKE, types[0].shape), _spikes_eval, {"theta": NUMBER},
    ("theta",), "spikes of real values: x >= theta, without memory",
)  # fmt: skip
_host(
    "host_read", 1, lambda types, *_: real(types[0].shape),
    each(lambda c, x, _: x[0] * float(c.attr("scale"))), {"scale": NUMBER}, ("scale",),
    "what the host reads of a population, as the trained model's value",
)  # fmt: skip
