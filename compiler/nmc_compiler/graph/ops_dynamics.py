"""Neurons of any spiking network: leaky neurons and integrators with a current, and sigma-delta neurons.

The float ops are the discrete-time equations of the common training frameworks; the integer ones are the
somas of docs/integers.md.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.firing import (
    CODES,
    MOVING,
    PARAMETER,
    by_timestep,
    check_choices,
    check_firing,
    check_parameters,
    fire,
    fired_type,
    parameter,
)
from nmc_compiler.graph.ops_neuron import (
    PART,
    PROFILE,
    RECORD,
    STATE_MAX,
    WEIGHT_SHIFT,
    check_cuba,
    check_record,
    check_vector,
    cuba_update,
)
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, check_shape, register
from nmc_compiler.graph.types import Attr, Kind, ValueType

DYNAMICS = ("alpha", "beta", "gain", "gain_v", "leak", "start_u", "start_v")
TOP_VTH = (1 << 17) - 1  # the highest threshold a soma can have


# ---- float: the general leaky neuron ----


def _check_decays(attrs, tensors, where: str) -> None:
    for key in ("alpha", "beta"):
        if key in attrs:
            value = parameter(attrs[key], tensors)
            low, high = np.min(value), np.max(value)
            if not 0 <= low <= high <= 1:
                raise VerifyError(f"{where}: {key} must lie in 0..1 (what is kept of a step), got {low:g}..{high:g}")


def _integrator_infer(types, attrs, tensors, where):
    check_parameters(attrs, tensors, DYNAMICS, types[0].shape, where)
    check_choices(attrs, where)
    _check_decays(attrs, tensors, where)
    return ValueType(Kind.REAL, types[0].shape)


def _neuron_infer(types, attrs, tensors, where):
    _integrator_infer(types, attrs, tensors, where)
    check_parameters(attrs, tensors, ("theta", "v_reset"), types[0].shape, where)
    check_firing(attrs, tensors, types[0].shape, where)
    check_record(attrs, types[0].shape, where)
    return fired_type(attrs, types[0].shape)


def _started(c: Call, register_: str) -> np.ndarray:
    """A state before its first update."""
    start = parameter(c.attrs.get(f"start_{register_}"), c.tensors, 0.0)
    return np.broadcast_to(start, c.inputs[0].shape).astype(np.float64)


def _potential(c: Call, v: np.ndarray) -> np.ndarray:
    """u' = alpha*u + gain*x;  h = beta*v + gain_v*(u' or u) + leak. Without alpha the current keeps nothing."""
    alpha, beta, gain, gain_v, leak = (
        parameter(c.attrs.get(key), c.tensors, default)
        for key, default in (("alpha", 0.0), ("beta", None), ("gain", 1.0), ("gain_v", 1.0), ("leak", 0.0))
    )
    old = c.state["u"] if "u" in c.state else _started(c, "u")
    c.state["u"] = alpha * old + gain * by_timestep(c, c.inputs[0])
    used = old if c.attr("current", "new") == "old" else c.state["u"]
    return beta * v + gain_v * used + leak


def _integrator_eval(c: Call) -> np.ndarray:
    c.state["v"] = _potential(c, c.state["v"] if "v" in c.state else _started(c, "v"))
    return c.state["v"]


def _neuron_eval(c: Call) -> np.ndarray:
    v_reset = parameter(c.attrs.get("v_reset"), c.tensors, 0.0)
    v = c.state["v"] if "v" in c.state else _started(c, "v")
    return fire(c, v, lambda v: _potential(c, v), v_reset, c.attr("reset"))


_SUBTHRESHOLD = {**dict.fromkeys(DYNAMICS, PARAMETER), "current": (str,), **PART}
register(
    OpSpec(
        "integrator",
        1,
        _integrator_infer,
        _integrator_eval,
        _SUBTHRESHOLD,
        ("beta",),
        neuron=True,
        doc="leaky integrator: u = alpha*u + gain*x, v = beta*v + gain_v*u + leak; its value is v",
    )
)
register(
    OpSpec(
        "neuron",
        1,
        _neuron_infer,
        _neuron_eval,
        {
            **_SUBTHRESHOLD,
            "theta": PARAMETER,
            "v_reset": PARAMETER,
            "reset": (str,),
            "compare": (str,),
            "fire": (str,),
            **MOVING,
            **CODES,
            **RECORD,
        },
        ("beta", "theta", "reset", "compare"),
        neuron=True,
        doc="leaky integrator that fires and resets",
    )
)


def _constant_infer(types, attrs, tensors, where):
    check_shape(attrs["shape"].value, where)
    return ValueType(Kind.SPIKE, attrs["shape"].value)


register(
    OpSpec(
        "constant",
        0,
        _constant_infer,
        lambda c: np.ones((c.batch, *c.attr("shape")), np.int64 if c.integer else np.float64),
        {"shape": (tuple,)},
        ("shape",),
        neuron=True,
        doc="a spike of every element at every timestep: the source of biases",
    )
)


# ---- integer: an integrator that is read at every step ----


def _int_integrator_infer(types, attrs, tensors, where):
    check_cuba(types, attrs, tensors, where)
    return ValueType(Kind.REAL, types[0].shape)


def _int_integrator_eval(c: Call) -> np.ndarray:
    """A cuba_lif of the highest threshold; what would make it fire is counted as an overflow."""
    v = cuba_update(c)
    fires = v > TOP_VTH << WEIGHT_SHIFT
    c.overflow(c.where, "integrated potential v", fires)
    c.state["v"] = np.where(fires, 0, v)
    return c.state["v"]


register(
    OpSpec(
        "int_integrator",
        1,
        _int_integrator_infer,
        _int_integrator_eval,
        {
            "du": (int,),
            "dv": (int,),
            "bias": TENSOR,
            "start_u": TENSOR,
            "start_v": TENSOR,
            "scale": NUMBER,
            **PART,
            **PROFILE,
        },
        ("dv",),
        neuron=True,
        doc="cuba_lif with the highest threshold, whose potential is its value; times scale it is the trained model's",
    )
)


# ---- sigma-delta ----


def _sigma_delta_infer(types, attrs, tensors, where):
    shape = types[0].shape
    for key in ("vth", "bias"):
        check_vector(attrs, tensors, key, shape[0], where)
    check_parameters(attrs, tensors, ("theta",), shape, where)
    if ("theta" in attrs) == ("vth" in attrs):
        raise VerifyError(f"{where}: give theta in a graph of float numbers, vth in one of int numbers")
    if not 0 <= attrs.get("out_shift", Attr(0)).value <= 31:
        raise VerifyError(f"{where}: out_shift must lie in 0..31, got {attrs['out_shift'].value}")
    check_record(attrs, shape, where)
    return ValueType(Kind.GRADED, shape, 24, True)


def wrap32(x: np.ndarray) -> np.ndarray:
    """Two's complement of 32 bits."""
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


def _sigma_delta_eval(c: Call) -> np.ndarray:
    """sigma += x; act' = sigma + bias, rectified with ``relu``; send delta = act' - act + residue once it is worth it.

    Integer graphs wrap every sum in 32 bits (Lava 0.10 SigmaDelta) and send delta >> out_shift.
    """
    zero = np.zeros_like(c.inputs[0])
    sigma, act, residue, error = (c.state.get(k, zero) for k in ("sigma", "act", "residue", "error"))
    bias = c.tensor("bias")
    offset = 0 if bias is None else bias.astype(zero.dtype)[None, :, None, None]
    threshold = c.tensor("vth")[None, :, None, None] if c.integer else parameter(c.attrs["theta"], c.tensors)  # type: ignore[index]
    sigma = _held(c, sigma + (wrap32(c.inputs[0]) if c.integer else c.inputs[0]))
    new = _held(c, sigma + offset)
    new = np.maximum(new, 0) if c.attr("relu") else new
    delta = _held(c, new - act + residue)
    error = _held(c, error + delta) if c.attr("cumulative") else error
    fire = np.abs(error if c.attr("cumulative") else delta) >= threshold
    sent = np.where(fire, delta, 0)
    c.state |= {"sigma": sigma, "act": new, "residue": delta - sent, "error": np.where(fire, 0, error)}
    if not c.integer:
        return sent
    code = sent >> c.attr("out_shift", 0)
    c.overflow(c.where, "payload", (code < -STATE_MAX) | (code >= STATE_MAX))
    return code


def _held(c: Call, x: np.ndarray) -> np.ndarray:
    if not c.integer:
        return x
    wrapped = wrap32(x)
    c.overflow(c.where, "32-bit state", wrapped != x)
    return wrapped


register(
    OpSpec(
        "sigma_delta",
        1,
        _sigma_delta_infer,
        _sigma_delta_eval,
        {
            "theta": PARAMETER,
            "vth": TENSOR,
            "bias": TENSOR,
            "relu": (bool,),
            "cumulative": (bool,),
            "out_shift": (int,),
            **RECORD,
        },
        (),
        neuron=True,
        doc="sends how much its activation changed, once that is worth it (Lava's SigmaDelta)",
    )
)
