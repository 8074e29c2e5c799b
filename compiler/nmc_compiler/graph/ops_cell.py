"""Neurons beyond the leaky one: stateful multi-level spikes, tables by timestep, parallel spiking neurons, the cell."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.firing import (
    BY_TIMESTEP,
    PARAMETER,
    check_choices,
    check_firing,
    check_parameters,
    check_tables,
    fire,
    fired_type,
    parameter,
    row_of,
)
from nmc_compiler.graph.graph import Graph, Node
from nmc_compiler.graph.ops_neuron import (
    PAIR,
    PART,
    PROFILE,
    RECORD,
    biased,
    check_cuba,
    check_record,
    check_vector,
    clip24,
    column,
    decayed,
    wrap24,
)
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, register
from nmc_compiler.graph.types import Kind, Ref, ValueType

CELL_ONE = 4096  # of an integer gain
TABLES = {"time_affine": ("gain", "bias"), "psn": ("weight", "theta")}  # attributes with a row for every timestep
TABLES_OF_NEURONS = ("gain_t", "bias_t", "theta_t", "rise_t")


def check_rows(graph: Graph, node: Node, where: str) -> None:
    """VerifyError where a table by timestep has not one row for each."""
    steps, late = graph.timesteps, None
    if node.op == "psn":
        _check_ahead(graph, node, where)
        late = node.attr("begins", 0) + node.attr("late", 0) if {"begins", "late"} & set(node.attrs) else None
    for key in TABLES.get(node.op, TABLES_OF_NEURONS):
        table = graph.tensor(node, key) if isinstance(node.attr(key), Ref) else None
        if table is None or (len(table) == steps if late is None else len(table) + late <= steps):
            continue
        if graph.timesteps == 0:
            raise VerifyError(f"{where}: {key} is a table by timestep, but the graph is a stream (T = 0)")
        told = "" if late is None else f", {late} timesteps late"
        raise VerifyError(f"{where}: {key} has rows for {len(table)} timesteps{told}, the graph has T = {steps}")


def _check_ahead(graph: Graph, node: Node, where: str) -> None:
    weight, late = graph.tensor(node, "weight"), node.attr("late", 0)
    if weight is None:
        return
    ahead = steps_ahead(weight)
    if ahead > late:
        raise VerifyError(
            f"{where}: output timesteps depend on inputs up to {ahead} timesteps later (entries above the diagonal of "
            f"weight), which a network that runs timestep after timestep has only {ahead} timesteps late; "
            f"late is {late}"
        )


def steps_ahead(weight: np.ndarray) -> int:
    """How many timesteps behind its own an output timestep hears, at most."""
    rows, columns = np.nonzero(weight)
    return max(int((columns - rows).max(initial=0)), 0)


# ---- float: integrate, send how many thresholds, keep the rest ----


def _ilif_infer(types, attrs, tensors, where):
    if types[0].is_event:
        raise VerifyError(f"{where}: a neuron takes a current, not {types[0]}")
    shape = types[0].shape
    check_vector(attrs, tensors, "bias", shape[0], where)
    check_parameters(attrs, tensors, ("beta", "theta"), shape, where)
    check_firing(attrs, tensors, shape, where)
    beta, theta = (parameter(attrs[k], tensors) for k in ("beta", "theta"))
    if not 0 <= np.min(beta) <= np.max(beta) <= 1:
        raise VerifyError(f"{where}: beta must lie in 0..1 (what is kept of a step)")
    if not np.min(theta) > 0:
        raise VerifyError(f"{where}: theta must be above 0")
    check_record(attrs, shape, where)
    return fired_type(attrs, shape)


def _ilif_eval(c: Call) -> np.ndarray:
    """N7, N7a, N7b, N8: H = beta V + gain (x + bias); code = round(clip(H / theta, 0, levels)); V = H - code step."""
    x = biased(c)
    beta = parameter(c.attrs["beta"], c.tensors)
    return fire(c, c.state.get("v", np.zeros(x.shape)), lambda v: beta * v + x, 0.0, "soft")


register(
    OpSpec(
        "ilif",
        1,
        _ilif_infer,
        _ilif_eval,
        {
            "beta": PARAMETER,
            "theta": PARAMETER,
            "step": PARAMETER,
            "levels": (int,),
            "rounding": (str,),
            "norm": NUMBER,
            "gain": NUMBER,
            "bias": TENSOR,
            **BY_TIMESTEP,
            **RECORD,
            **PART,
        },
        ("beta", "theta", "levels", "rounding"),
        neuron=True,
        doc="stateful multi-level spike with soft reset (models.md N7, N7a, N7b, N8); value = code/norm",
    )
)


# ---- float: a gain and an offset for every timestep ----


def _affine_infer(types, attrs, tensors, where):
    if types[0].is_event:
        raise VerifyError(f"{where}: time_affine takes a current, not {types[0]}")
    if not {"gain", "bias"} & set(attrs):
        raise VerifyError(f"{where}: time_affine has neither gain nor bias")
    check_tables(attrs, tensors, types[0].shape[0], where, ("gain", "bias"))
    return types[0]


def _affine_eval(c: Call) -> np.ndarray:
    gain, bias = c.tensor("gain"), c.tensor("bias")
    x = c.inputs[0] if gain is None else c.inputs[0] * row_of(gain, c.timestep)
    return x if bias is None else x + row_of(bias, c.timestep)


register(
    OpSpec(
        "time_affine",
        1,
        _affine_infer,
        _affine_eval,
        {"gain": TENSOR, "bias": TENSOR},
        doc="gain[t] * x + bias[t], tables [T] or [T, C]: batch norms and gains by timestep",
    )
)


# ---- float: parallel spiking neurons ----


def _psn_infer(types, attrs, tensors, where):
    if types[0].is_event:
        raise VerifyError(f"{where}: a neuron takes a current, not {types[0]}")
    if ("weight" in attrs) == ("taps" in attrs):
        raise VerifyError(f"{where}: give weight, or the taps of a sliding one")
    key = "weight" if "weight" in attrs else "taps"
    array = tensors[attrs[key].value.key]
    square = array.ndim == 2 and array.shape[0] == array.shape[1]
    if not array.size or not (square if key == "weight" else array.ndim == 1):
        want = "[T, T], output timestep by input timestep" if key == "weight" else "[k]"
        raise VerifyError(f"{where}: {key} must be {want}, got {list(array.shape)}")
    check_choices(attrs, where)
    if not isinstance(attrs["theta"].value, (int, float)) and tensors[attrs["theta"].value.key].ndim != 1:
        raise VerifyError(f"{where}: theta must be a number or [T]")
    for name in ("begins", "late"):
        if name in attrs and (key == "taps" or attrs[name].value < 0):
            raise VerifyError(f"{where}: {name} is a number of timesteps, at least 0, and goes with weight")
    check_record(attrs, types[0].shape, where)
    return ValueType(Kind.SPIKE, types[0].shape)


def _psn_eval(c: Call) -> np.ndarray:
    """N15: s[t] = H(sum over j of weight[t, j] x[j] - theta[t]), or of taps[i] x[t - i].

    x[0] is the input of timestep ``begins``, s[0] is given ``late`` timesteps after it; outside it is silent.
    """
    weight, taps = c.tensor("weight"), c.tensor("taps")
    at, seen = c.timestep - c.attr("begins", 0), c.state.setdefault("x", [])
    if taps is not None:
        seen.append(c.inputs[0])
        row, t = taps[: len(seen)][::-1], at
        seen[:] = seen[-len(taps) :]
    else:
        assert weight is not None
        if 0 <= at < len(weight):
            seen.append(c.inputs[0])
        t = at - c.attr("late", 0)
        if not 0 <= t < len(weight):
            return np.zeros(c.inputs[0].shape)
        row = weight[t, : len(seen)]
    h = np.tensordot(row.astype(np.float64), np.stack(seen[-len(row) :]), 1)
    theta = c.tensor("theta") if not isinstance(c.attr("theta"), (int, float)) else None
    bound = c.attr("theta") if theta is None else float(theta[t])
    return (h >= bound if c.attr("compare", "ge") == "ge" else h > bound).astype(np.float64)


register(
    OpSpec(
        "psn",
        1,
        _psn_infer,
        _psn_eval,
        {
            "weight": TENSOR,
            "taps": TENSOR,
            "theta": PARAMETER,
            "compare": (str,),
            "begins": (int,),
            "late": (int,),
            **RECORD,
            **PART,
        },
        ("theta",),
        neuron=True,
        doc="parallel spiking neuron (models.md N15): a filter over time and a threshold, so late that it is causal",
    )
)


# ---- integer: the soma of microcode ----


def _cell_infer(types, attrs, tensors, where):
    check_cuba(types, attrs, tensors, where)
    shape = types[0].shape
    check_choices(attrs, where)
    check_record(attrs, shape, where)
    for key in ("step", "low", "floor", "jump"):
        check_vector(attrs, tensors, key, shape[0], where)
    check_tables(attrs, tensors, shape[0], where, ("gain_t", "bias_t", "rise_t"))
    thresholds = tensors[attrs["thresholds"].value.key]
    if thresholds.ndim != 2 or thresholds.shape[0] not in (1, shape[0]) or not 1 <= thresholds.shape[1] <= 255:
        raise VerifyError(f"{where}: thresholds must be [1 or {shape[0]}, 1 to 255], got {list(thresholds.shape)}")
    if "low" in attrs and (tensors[attrs["low"].value.key] >= thresholds[:, 0]).any():
        raise VerifyError(f"{where}: low must be below the first threshold in every channel")
    sums = attrs["sums"].value if "sums" in attrs else (0, 0)
    if len(sums) != 2 or not sums[0] <= 0 <= sums[1]:
        raise VerifyError(f"{where}: sums must be (at most 0, at least 0), got {sums}")
    if not 0 <= (attrs["db"].value if "db" in attrs else 0) <= 4096:
        raise VerifyError(f"{where}: db must lie in 0..4096, got {attrs['db'].value}")
    if "low" in attrs:
        return ValueType(Kind.GRADED, shape, thresholds.shape[1].bit_length() + 1, True)
    if thresholds.shape[1] == 1:
        return ValueType(Kind.SPIKE, shape)
    return ValueType(Kind.GRADED, shape, thresholds.shape[1].bit_length())


def _row(c: Call, key: str, default: int) -> np.ndarray | int:
    table = c.tensor(key)
    return default if table is None else table[c.timestep].astype(np.int64).reshape(1, -1, 1, 1)


def _charged(c: Call, before: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """h of this timestep: the current is kept, a late reset is done."""
    shape = c.inputs[0].shape
    start_u, start_v = (np.zeros(shape, np.int64) if (x := c.tensor(k)) is None else x for k in ("start_u", "start_v"))
    u = c.state["u"] if "u" in c.state else np.broadcast_to(start_u, shape).astype(np.int64)
    v = c.state["v"] if "v" in c.state else np.broadcast_to(start_v, shape).astype(np.int64)
    drive = (c.inputs[0] * _row(c, "gain_t", CELL_ONE)) >> 6
    c.state["u"] = wrap24(c, decayed(u, c.attr("du", 4095) + 1) + drive)
    bias = _row(c, "bias_t", 0) if "bias_t" in c.attrs else column(c.tensor("bias"))
    h = decayed(v, c.attr("dv")) + c.state["u"] + bias
    return clip24(c, _reset(c, h, before, unit) if c.attr("late") else h)


def _reset(c: Call, h: np.ndarray, code: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return {"hard": np.where(code != 0, 0, h), "soft": h - code * unit, "none": h}[c.attr("reset")]


def _cell_eval(c: Call) -> np.ndarray:
    """docs/integers.md, Cells."""
    zero, thresholds = np.zeros_like(c.inputs[0]), c.tensor("thresholds")
    assert thresholds is not None
    before, total = c.state.get("sent", zero), c.state.get("total", zero)
    raised = decayed(c.state.get("b", zero), c.attr("db", 0)) + before * column(c.tensor("jump"))
    b = clip24(c, raised)
    rise = b + _row(c, "rise_t", 0)
    unit = column(c.tensor("step")) + rise
    v = _charged(c, before, unit)
    ladder = thresholds.astype(np.int64)[None, :, None, None, :] + rise[..., None]
    code = (v[..., None] >= ladder).sum(axis=-1)
    if "low" in c.attrs:
        code = code - (v < column(c.tensor("low")))
    if "sums" in c.attrs:
        least, most = c.attr("sums")
        code = np.clip(code, least - total, most - total)
    if not c.attr("late"):
        v = clip24(c, _reset(c, v, code, unit))
    if "floor" in c.attrs:
        v = np.maximum(v, column(c.tensor("floor")))
    c.state |= {"v": v, "b": b, "sent": code, "total": total + code}
    return code


register(
    OpSpec(
        "cell",
        1,
        _cell_infer,
        _cell_eval,
        {
            "du": (int,),
            "dv": (int,),
            "thresholds": TENSOR,
            "bias": TENSOR,
            "reset": (str,),
            "late": (bool,),
            "step": TENSOR,
            "low": TENSOR,
            "floor": TENSOR,
            "sums": PAIR,
            "db": (int,),
            "jump": TENSOR,
            "gain_t": TENSOR,
            "bias_t": TENSOR,
            "rise_t": TENSOR,
            "start_u": TENSOR,
            "start_v": TENSOR,
            "role": (str,),
            "scale": NUMBER,
            **RECORD,
            **PROFILE,
            **PART,
        },
        ("dv", "thresholds", "reset"),
        neuron=True,
        doc="integer soma of microcode: soft and late resets, several levels, thresholds and gains that move",
    )
)
