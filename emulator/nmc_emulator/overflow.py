"""Strict mode: which value left its range first, and where."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import MODULAR, SATURATING, Box, Population, whole

from .cells import advanced, cell_tables
from .registers import clip, decay, wrap
from .states import PARTS, State, at_rest

RANGES = {
    "accumulator": (-(2**31), 2**31 - 1, "32-bit accumulator"),
    "u": (-(2**23) + 1, 2**23, "24-bit current, which wraps"),
    "v": (-(2**23) + 1, 2**23 - 1, "24-bit membrane potential, which saturates"),
    "b": (-(2**23) + 1, 2**23 - 1, "24-bit threshold, which saturates"),
    "kept": (-(2**23) + 1, 2**23 - 1, "24-bit membrane potential behind a reset, which saturates"),
    "payload": (-(2**23), 2**23 - 1, "24-bit payload"),
} | {
    name: (-(2**31), 2**31 - 1, f"32-bit {name} of a sigma-delta soma, which wraps")
    for name in ("sigma", "act", "delta", "error")
}


OTHER_RULES = {  # in place of RANGES
    MODULAR: {"u": (-(2**23), 2**23 - 1, "24-bit current, which wraps")},
    SATURATING: {"u": (-(2**23) + 1, 2**23 - 1, "24-bit current, which saturates")},
}


def _quantities(
    p: Population, a: np.ndarray, state: State, bias: np.ndarray, rule: int | None
) -> dict[str, np.ndarray]:
    """Values before wrapping and clipping, int64 [C, H, W] each."""
    if p.model == "relay":
        return {"accumulator": a, "payload": a}
    if p.model == "sigma_delta":
        return _sigma_delta(p, a, state, bias)
    u, v = a << 6, np.zeros_like(a) if p.model == "levels" else state["v"]
    if p.model == "lif":
        u, v = u + decay(state["u"], p.du + 1), decay(v, p.dv)
    return {"accumulator": a, "u": u, "v": v + wrap(u, rule) + bias}


def _sigma_delta(p: Population, a: np.ndarray, state: State, bias: np.ndarray) -> dict[str, np.ndarray]:
    sigma = state["sigma"] + _wrap32(a)
    full = _wrap32(sigma) + bias
    act = np.maximum(_wrap32(full), 0) if p.relu else _wrap32(full)
    delta = act - state["act"] + state["residue"]
    error = state["error"] + _wrap32(delta) if p.cumulative else np.zeros_like(a)
    fire = np.abs(_wrap32(error if p.cumulative else delta)) >= p.vth[:, None, None]  # type: ignore[index]
    code = np.where(fire, _wrap32(delta), 0) >> p.out_shift
    return {"accumulator": a, "sigma": sigma, "act": full, "delta": delta, "error": error, "payload": code}


def _wrap32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int32).astype(np.int64)


def _bias(p: Population, box: Box) -> np.ndarray:
    bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
    return bias[box.c0 : box.c1, None, None]


def raise_first(p: Population, timestep: int, a: np.ndarray, state: State, box: Box, rule: int | None = None) -> None:
    """VerifyError for the first value of one timestep that is out of range; nothing if all are within.

    a: accumulators int64 [C, H, W] of the part of the population in ``box``; state: that of the somas before
    the update; rule: of a current beyond 24 bits (``Program.current_rule``).
    """
    origin = (box.c0, box.y0, box.x0)
    if p.vth is not None:
        p = replace(p, vth=p.vth[box.c0 : box.c1])
    if p.cell is not None:
        quantities = advanced(cell_tables(p, box), timestep, a, state, rule)[0]
    else:
        quantities = _quantities(p, a, state, _bias(p, box), rule)
    ranges = RANGES | OTHER_RULES.get(rule or 0, {})
    for name, values in quantities.items():
        low, high, what = ranges[name]
        outside = np.argwhere((values < low) | (values > high))
        if len(outside):
            c, y, x = (int(i) for i in outside[0])
            at = (c + origin[0], y + origin[1], x + origin[2])
            _refuse(p, timestep, at, int(values[c, y, x]), (low, high, what))


def _refuse(
    p: Population, timestep: int, at: tuple[int, int, int], value: int, limits: tuple[int, int, str]
) -> NoReturn:
    low, high, what = limits
    raise VerifyError(
        f"overflow in population '{p.name}', timestep {timestep}, channel {at[0]}, position {at[1:]}:"
        f" {value} is outside {low}..{high} ({what}); lower the weight scale or the input,"
        " or run without strict to count such values"
    )


def advance(p: Population, t: int, a: np.ndarray, state: State, rule: int | None = None) -> State:
    """State of a lif, cell, readout or stateless soma after timestep t of a window, for walking through a sample."""
    if p.cell is not None:
        return advanced(cell_tables(p), t, a, state, rule)[1]
    v = clip(_quantities(p, a, state, _bias(p, whole(p.shape)), rule).get("v", state["v"]))
    if p.model == "lif":
        theta = p.vth.astype(np.int64)[:, None, None] << 6  # type: ignore[union-attr]
        v = np.where(v > theta, 0, v)
    return {"u": np.zeros_like(a), "v": v}


def locate(p: Population, accumulators: np.ndarray, steps: int, rule: int | None = None) -> None:
    """Raise for the first overflow of a population; accumulators [F, P, C] of whole samples."""
    c, h, w = p.shape
    rest = {part: np.zeros(p.shape, np.int64) for part in ("u", "v", *PARTS.get(p.model, ()))} | at_rest(
        p, whole(p.shape)
    )
    state = rest
    for f, row in enumerate(accumulators):
        a = row.T.reshape(c, h, w).astype(np.int64)
        state = rest if f % steps == 0 else state
        raise_first(p, f % steps, a, state, whole(p.shape), rule)
        state = advance(p, f % steps, a, state, rule)
