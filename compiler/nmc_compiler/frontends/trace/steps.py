"""Neurons written with plain functions: round(clamp(x)), floor(clamp(x) + 1/2), x >= theta, a (1 - b) of spikes."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.ops import Addr, add, affine, at
from nmc_compiler.frontends.trace.places import Layout, layout, owners, sample_shape, whole
from nmc_compiler.frontends.trace.tape import LOCAL, MASK, NOTHING, Tape, Value
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.graph.types import Kind

WAITING = {"clamp": "clamp", "round": "round", "floor": "floor", "product": "a product of spikes"}
"""Ops that are half of a neuron or of an attention: alone they are nothing that a core does."""


def apply(tape: Tape, op: str, x: Addr, low: float = -math.inf, high: float = math.inf) -> Addr:
    """clamp, round or floor of each element; together they may be a multi-level neuron."""
    axes = find_axes(tape, [x])
    results = []
    for step in axes.split(x):
        value, local = whole(tape, step)
        given = layout(local, value.shape, sample_shape(step.shape))
        made = {"clamp": _clamp, "round": _round, "floor": _floor}[op](tape, value, low, high, given)
        results.append(at(made, local))
    return axes.join(results)


def _clamp(tape: Tape, value: Value, low: float, high: float, given: Layout) -> Value:
    source = tape.values[value.operands[0]] if value.operands else value
    if value.op == "clamp":  # clamp_min, then clamp_max
        low, high, value = max(low, value.attr("low")), min(high, value.attr("high")), source
    elif value.op == "round":
        return _levels(tape, source, low, high, "half_even", given)
    elif value.op == "floor" and source.op == "bias" and source.attr("by") == 0.5:
        return _levels(tape, tape.values[source.operands[0]], low, high, "half_up", given)
    elif value.is_event and low <= 0 and high >= 1 and value.kind is Kind.SPIKE:
        return value
    return tape.add("clamp", (value.number,), value.shape, value.kind, low=low, high=high)


def _round(tape: Tape, value: Value, low: float, high: float, given: Layout) -> Value:
    if value.op == "clamp":
        found = tape.values[value.operands[0]]
        return _levels(tape, found, value.attr("low"), value.attr("high"), "half_even", given)
    return value if value.is_event else tape.add("round", (value.number,), value.shape, value.kind)


def _floor(tape: Tape, value: Value, low: float, high: float, given: Layout) -> Value:
    source = tape.values[value.operands[0]] if value.operands else value
    if value.op == "bias" and value.attr("by") == 0.5 and source.op == "clamp":
        below = tape.values[source.operands[0]]
        return _levels(tape, below, source.attr("low"), source.attr("high"), "half_up", given)
    if value.op == "clamp" and source.op == "bias" and source.attr("by") == 0.5:
        below = tape.values[source.operands[0]]
        return _levels(tape, below, value.attr("low") - 0.5, value.attr("high") - 0.5, "half_up", given)
    return value if value.is_event else tape.add("floor", (value.number,), value.shape, value.kind)


def _levels(tape: Tape, value: Value, low: float, high: float, rounding: str, given: Layout) -> Value:
    """round(clamp(x, 0, D)): a stateless neuron of D levels (models.md N4, N5)."""
    if low < 0 and low not in (-0.5,) or not 1 <= high < math.inf or high != int(high):
        raise FrontendError(
            f"{tape.line()}: rounds values clamped to {low:g}..{high:g}; 0..D with a whole D is a multi-level neuron"
        )
    attrs = (("levels", int(high)), ("rounding", rounding))
    return tape.add(
        "stateless", (value.number,), value.shape, Kind.GRADED, neuron="multilevel", attrs=attrs, layout=given
    )


def compare(tape: Tape, x: Addr, threshold: np.ndarray, how: str) -> Addr:
    """1 where x >= threshold ("ge") or x > threshold ("gt"): a neuron without memory."""
    axes = find_axes(tape, [x])
    if threshold.size != 1:
        raise FrontendError(f"{tape.line()}: compares with {threshold.size} thresholds; one number is lowered")
    theta = float(threshold.reshape(()))
    results = []
    for step in axes.split(x):
        value, local = whole(tape, step)
        level, given = theta, layout(local, value.shape, sample_shape(step.shape))
        if value.op == "bias" and isinstance(value.attr("by"), float):
            level, value = theta - value.attr("by"), tape.values[value.operands[0]]
        attrs = (("beta", 0.0), ("compare", how), ("reset", "hard"), ("theta", level))
        made = tape.add(
            "stateless", (value.number,), value.shape, Kind.SPIKE, neuron="neuron", attrs=attrs, layout=given
        )
        results.append(at(made, local))
    return axes.join(results)


def and_not(tape: Tape, a: Addr, b: Addr) -> Addr | None:
    """a (1 - b) of spikes, in either order: a neuron that keeps nothing fires where a - b is 1. None for others.

    The residual IAND of SEW ResNet (Fang et al. 2021, table 1).
    """
    for plain, inverse in ((a, b), (b, a)):
        spikes = _inverted(tape, inverse)
        if spikes is not None and _all_spikes(tape, plain):
            return compare(tape, add(tape, plain, affine(tape, "scale", spikes, np.array(-1.0))), np.array(0.5), "gt")
    return None


def _all_spikes(tape: Tape, addr: Addr) -> bool:
    return all(tape.values[n].kind is Kind.SPIKE for n in owners(addr)) and not (addr == NOTHING).any()


def _inverted(tape: Tape, addr: Addr) -> Addr | None:
    """Addresses of spikes where the given ones are of 1 - them."""
    source = np.full_like(addr, NOTHING)
    for number in owners(addr):
        value = tape.values[number]
        below = tape.values[value.operands[0]] if value.op == "bias" and value.attr("by") == 1.0 else value
        if below.op != "scale" or below is value or below.attr("by") != -1.0:
            return None
        here = (addr >> LOCAL) == number
        source[here] = (np.int64(below.operands[0]) << LOCAL) + (addr[here] & MASK)
    return source if _all_spikes(tape, source) else None
