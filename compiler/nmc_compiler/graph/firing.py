"""How a float neuron fires and resets, whatever charges it: thresholds that move, late resets, codes of several levels.

Shared by ``lif``, ``neuron`` and ``ilif``. With h the charged potential, s the code of the timestep before:

    b     = theta_decay * b + theta_step * s                  theta' = theta (theta_t[t] where given) + b
    v     = reset(v, s) before it is charged where reset_at = next_start, h = reset(h, s) where next_end
    s'    = h >= theta' (compare = ge), > theta' (gt);  with ``levels`` round(clip(h / theta', 0, levels));
            less 1 where h < theta_low (<= where compare_low = le);  kept so far in that the sum of what was sent stays
            in sum_low..sum_high
    v'    = reset(h, s') where reset_at = same, at least v_min
    reset(v, s): hard: v_reset where s != 0;  soft: v - s * theta', or v - s * step where given;  none: v
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call
from nmc_compiler.graph.types import Attr, Kind, ValueType

PARAMETER = (*NUMBER, *TENSOR)  # one number, or a tensor [C] or [C, H, W]
BY_TIMESTEP = {"gain_t": TENSOR, "bias_t": TENSOR}  # [T], [T, 1] or [T, C]: x, with its bias, becomes gain_t x + bias_t
MOVING = {
    "reset_at": (str,),
    "v_min": PARAMETER,
    "theta_decay": PARAMETER,
    "theta_step": PARAMETER,
    "theta_t": TENSOR,
    **BY_TIMESTEP,
}
CODES = {
    "levels": (int,),
    "rounding": (str,),
    "norm": NUMBER,
    "step": PARAMETER,
    "theta_low": PARAMETER,
    "compare_low": (str,),
    "sum_low": (int,),
    "sum_high": (int,),
}
CHOICES = {
    "reset": ("hard", "soft", "none"),
    "compare": ("ge", "gt"),
    "compare_low": ("lt", "le"),
    "current": ("new", "old"),
    "fire": ("new", "old"),
    "reset_at": ("same", "next_start", "next_end"),
    "rounding": ("half_even", "half_up", "down"),
}


def parameter(attr: Attr | None, tensors: dict[str, np.ndarray], default: float | None = None) -> Any:
    """A parameter as it enters an equation: a number, or an array that broadcasts over [B, C, H, W]."""
    if attr is None:
        return default
    if isinstance(attr.value, (int, float)):
        return float(attr.value)
    array = tensors[attr.value.key].astype(np.float64)  # type: ignore[union-attr]
    return array[None, :, None, None] if array.ndim == 1 else array[None]


def row_of(table: np.ndarray, t: int) -> np.ndarray:
    """The row of a table by timestep, [T] or [T, C], as it enters an equation."""
    return table[t].reshape(1, -1, 1, 1).astype(np.float64)


# ---- rules ----


def check_parameters(attrs, tensors, keys, shape, where) -> None:
    for key in keys:
        value = attrs[key].value if key in attrs else 0
        if isinstance(value, (int, float)):
            continue
        found = tensors[value.key].shape
        if found not in ((shape[0],), tuple(shape)):
            raise VerifyError(f"{where}: {key} must be a number or have shape ({shape[0]},) or {shape}, got {found}")


def check_choices(attrs, where: str) -> None:
    for key, allowed in CHOICES.items():
        if key in attrs and attrs[key].value not in allowed:
            raise VerifyError(f"{where}: {key} must be {', '.join(allowed[:-1])} or {allowed[-1]}")


def check_tables(attrs, tensors, channels: int, where: str, keys=("gain_t", "bias_t", "theta_t")) -> None:
    """Tables by timestep; that they have T rows is checked where the graph is known."""
    rows = set()
    for key in (k for k in keys if k in attrs):
        shape = tensors[attrs[key].value.key].shape
        if len(shape) not in (1, 2) or not shape[0] or shape[1:] not in ((), (1,), (channels,)):
            raise VerifyError(f"{where}: {key} must have shape [T], [T, 1] or [T, {channels}], got {list(shape)}")
        rows.add(shape[0])
    if len(rows) > 1:
        raise VerifyError(f"{where}: tables by timestep have {', '.join(map(str, sorted(rows)))} rows; T is one number")


def check_firing(attrs, tensors, shape, where: str) -> None:
    """What ``MOVING`` and ``CODES`` may be together."""
    check_choices(attrs, where)
    check_parameters(attrs, tensors, ("v_min", "theta_decay", "theta_step", "step", "theta_low"), shape, where)
    check_tables(attrs, tensors, shape[0], where)
    if ("theta_decay" in attrs) != ("theta_step" in attrs):
        raise VerifyError(f"{where}: theta_decay and theta_step, an adaptive threshold, go together")
    if "theta_decay" in attrs:
        rho = parameter(attrs["theta_decay"], tensors)
        if not 0 <= np.min(rho) <= np.max(rho) <= 1:
            raise VerifyError(f"{where}: theta_decay must lie in 0..1 (what is kept of a step)")
    levels = attrs["levels"].value if "levels" in attrs else 1
    if not 1 <= levels <= 255 or ("norm" in attrs and not attrs["norm"].value > 0):
        raise VerifyError(f"{where}: levels must lie in 1..255 and norm must be > 0")
    if ("levels" in attrs) != ("rounding" in attrs):
        raise VerifyError(f"{where}: levels and rounding go together")
    if "levels" in attrs and {"theta_low", "theta_decay", "theta_t", "sum_low"} & set(attrs):
        raise VerifyError(f"{where}: levels go with no lower threshold, bounds of a sum, or threshold that moves")
    if "levels" in attrs and np.any(parameter(attrs.get("v_reset"), tensors, 0.0) != 0):
        raise VerifyError(f"{where}: levels count thresholds from 0, so that v_reset must be 0")
    if ("sum_low" in attrs) != ("sum_high" in attrs):
        raise VerifyError(f"{where}: sum_low and sum_high go together")
    if "sum_low" in attrs and not attrs["sum_low"].value <= 0 <= attrs["sum_high"].value:
        raise VerifyError(f"{where}: sum_low must be at most 0 and sum_high at least 0")


def fired_type(attrs, shape) -> ValueType:
    """What a neuron sends: spikes, codes of several levels, or -1, 0 and 1."""
    if "theta_low" in attrs:
        return ValueType(Kind.GRADED, shape, 2, True)
    if "levels" in attrs:
        return ValueType(Kind.GRADED, shape, attrs["levels"].value.bit_length())
    return ValueType(Kind.SPIKE, shape)


# ---- meaning ----


def by_timestep(c: Call, x: np.ndarray) -> np.ndarray:
    """gain_t[t] * x + bias_t[t]."""
    gain, bias = c.tensor("gain_t"), c.tensor("bias_t")
    x = x if gain is None else x * row_of(gain, c.timestep)
    return x if bias is None else x + row_of(bias, c.timestep)


def threshold(c: Call) -> Any:
    """theta' of this timestep."""
    table = c.tensor("theta_t")
    theta = parameter(c.attrs["theta"], c.tensors) if table is None else row_of(table, c.timestep)
    if "theta_decay" not in c.attrs:
        return theta
    decay, step = (parameter(c.attrs[k], c.tensors) for k in ("theta_decay", "theta_step"))
    c.state["b"] = decay * c.state.get("b", 0.0) + step * c.state.get("s", 0.0)
    return theta + c.state["b"]


def codes(c: Call, h: np.ndarray, theta: Any) -> np.ndarray:
    """What is sent, in whole codes."""
    if "levels" in c.attrs:
        ratio = np.clip(h / theta, 0, c.attr("levels"))
        if c.attr("rounding") == "half_even":
            return np.rint(ratio)
        return np.floor(ratio + (0.5 if c.attr("rounding") == "half_up" else 0.0))
    s = (h >= theta if c.attr("compare", "ge") == "ge" else h > theta).astype(np.float64)
    if "theta_low" in c.attrs:
        low = parameter(c.attrs["theta_low"], c.tensors)
        s = s - (h <= low if c.attr("compare_low", "lt") == "le" else h < low)
    if "sum_low" in c.attrs:
        total = c.state.get("total", 0.0)
        s = np.clip(s, c.attr("sum_low") - total, c.attr("sum_high") - total)
        c.state["total"] = total + s
    return s


def fire(c: Call, v: np.ndarray, charge: Callable[[np.ndarray], np.ndarray], v_reset: Any, reset: str) -> np.ndarray:
    """One timestep of a neuron that keeps v, and its value; ``charge`` makes a potential of what was kept."""
    at, theta, s = c.attr("reset_at", "same"), threshold(c), c.state.get("s", np.zeros(v.shape))
    unit = parameter(c.attrs["step"], c.tensors) if "step" in c.attrs else theta

    def after(x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return {"hard": np.where(s != 0, v_reset, x), "soft": x - s * unit, "none": x}[reset]

    v = after(v, s) if at == "next_start" else v
    h = charge(v)
    h = after(h, s) if at == "next_end" else h
    s = codes(c, v if c.attr("fire", "new") == "old" else h, theta)
    v = after(h, s) if at == "same" else h
    if "v_min" in c.attrs:
        v = np.maximum(v, parameter(c.attrs["v_min"], c.tensors))
    c.state |= {"v": v, "s": s}
    return s / c.attr("norm", 1)
