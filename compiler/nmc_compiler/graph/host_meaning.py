"""What host ops compute: one sample, one timestep, float64, in an order that no batch or thread changes.

The interpreter and whoever drives a mapped Program call the same functions, so that the host's part of a run is equal
by construction and its bits do not depend on who asks. Arrays are [C, H, W]; a *state* is a dict that lives as long as
the sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

State = dict[str, Any]

UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "abs": np.abs,
    "exp": np.exp,
    "neg": np.negative,
    "reciprocal": lambda x: 1.0 / x,
    "relu": lambda x: np.maximum(x, 0.0),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": lambda x: sigmoid(x),
    "silu": lambda x: x * sigmoid(x),
    "sqrt": np.sqrt,
    "square": np.square,
    "tanh": np.tanh,
}
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "sub": np.subtract,
}
REDUCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max": lambda x: x.max(axis=0, keepdims=True),
    "mean": lambda x: x.sum(axis=0, keepdims=True) / len(x),
    "sum": lambda x: x.sum(axis=0, keepdims=True),
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by the exponential of a number that is not above 0."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def spread(array: np.ndarray) -> np.ndarray:
    """A parameter [C] or [C, H, W] beside a value [C, H, W]."""
    return array[:, None, None] if array.ndim == 1 else array


def layer_norm(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, centred: bool
) -> np.ndarray:
    """Over the channels of each position: (x - mean) / sqrt(var + eps); not ``centred``: x / sqrt(mean(x^2) + eps)."""
    x = x - x.sum(axis=0, keepdims=True) / len(x) if centred else x
    y = x / np.sqrt((x * x).sum(axis=0, keepdims=True) / len(x) + eps)
    y = y if weight is None else y * spread(weight)
    return y if bias is None else y + spread(bias)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the channels of each position."""
    e = np.exp(x - x.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """weight [O, C] at every position."""
    y = np.einsum("oc,chw->ohw", weight, x, optimize=False)
    return y if bias is None else y + spread(bias)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[G, M, K] times [G, K, N]."""
    return np.einsum("gmk,gkn->gmn", a, b, optimize=False)


def rotary(x: np.ndarray, heads: int, base: float, position: int) -> np.ndarray:
    """Rotary position embedding of one token: channels i and i + d/2 of a head turn by position * base^(-2i/d)."""
    first, second = np.split(x.reshape(heads, -1), 2, axis=1)
    half = first.shape[1]
    angle = position * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1).reshape(x.shape)


def wkv(state: State, k: np.ndarray, v: np.ndarray, decay: np.ndarray, first: np.ndarray) -> np.ndarray:
    """RWKV-4's weighted mean of values, as its recurrence with a running maximum of exponents:

    y_t = (sum_{i<t} exp(-(t-1-i) exp(decay) + k_i) v_i + exp(first + k_t) v_t) / (the same without v).
    """
    a, b = state.get("a", np.zeros_like(k)), state.get("b", np.zeros_like(k))
    top = state.get("top", np.full_like(k, -1e38))
    rate, now = -np.exp(spread(decay)), spread(first) + k
    high = np.maximum(top, now)
    old, new = np.exp(top - high), np.exp(now - high)
    y = (old * a + new * v) / (old * b + new)
    high = np.maximum(top + rate, k)
    old, new = np.exp(top + rate - high), np.exp(k - high)
    state |= {"a": old * a + new * v, "b": old * b + new, "top": high}
    return y


def gated_table(state: State, q: np.ndarray, k: np.ndarray, v: np.ndarray, gate: np.ndarray, heads: int) -> np.ndarray:
    """Gated linear attention of one token: S_t = diag(gate_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t, by head."""
    q, k, v, gate = (x.reshape(heads, -1) for x in (q, k, v, gate))
    table = state.get("table", np.zeros((heads, k.shape[1], v.shape[1])))
    state["table"] = gate[:, :, None] * table + k[:, :, None] * v[:, None, :]
    return np.einsum("hk,hkv->hv", q, state["table"], optimize=False).reshape(-1, 1, 1)


def gated_mean(state: State, x: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """HGRN's recurrence: h_t = gate_t h_{t-1} + (1 - gate_t) x_t."""
    state["h"] = gate * state.get("h", np.zeros_like(x)) + (1.0 - gate) * x
    found: np.ndarray = state["h"]
    return found


def window_attention(
    state: State, q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, window: int, scale: float
) -> np.ndarray:
    """Softmax attention of one token to itself and the ``window - 1`` before it; keys may have fewer heads (GQA)."""
    kept = [*state.get("kept", []), (k.reshape(-1), v.reshape(-1))][-window:]
    state["kept"] = kept
    q = q.reshape(heads, -1)
    groups = len(kept[0][0]) // q.shape[1]
    keys = np.stack([k.reshape(groups, -1) for k, _ in kept]).repeat(heads // groups, axis=1)
    values = np.stack([v.reshape(groups, -1) for _, v in kept]).repeat(heads // groups, axis=1)
    weights = softmax(np.einsum("hd,thd->th", q, keys, optimize=False)[:, :, None] * scale)[:, :, 0]
    return np.einsum("th,thd->hd", weights, values, optimize=False).reshape(-1, 1, 1)


def codes(x: np.ndarray, unit: float, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """rint(x / unit), half to even, and where it had to be kept in ``low`` to ``high``."""
    whole = np.rint(x / unit)
    return np.clip(whole, low, high).astype(np.int64), ~((whole >= low) & (whole <= high))
