"""Strict mode: which value left its range first, and where."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import Population

LIMIT = 2**23
RANGES = {
    "accumulator": (-(2**31), 2**31 - 1, "32-bit accumulator"),
    "u": (-(2**23) + 1, 2**23, "24-bit current, which wraps"),
    "v": (-(2**23) + 1, 2**23 - 1, "24-bit membrane potential, which saturates"),
    "payload": (-(2**23), 2**23 - 1, "24-bit payload of a relay"),
}


def _wrap(u: np.ndarray) -> np.ndarray:
    return np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))


def _quantities(p: Population, a: np.ndarray, v: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Values before wrapping and clipping; a, v int64 [..., C]."""
    if p.model == "relay":
        return {"accumulator": a, "payload": a}
    if p.model == "lif":
        v = np.sign(v) * ((np.abs(v) * (4096 - p.dv)) >> 12)
    elif p.model == "levels":
        v = np.zeros_like(v)
    return {"accumulator": a, "u": a << 6, "v": v + _wrap(a << 6) + bias}


def raise_first(p: Population, timestep: int, a: np.ndarray, v: np.ndarray, origin: tuple[int, int, int]) -> None:
    """VerifyError for the first value of one timestep that is out of range; nothing if all are within.

    a: accumulators int64 [C, H, W] (of the part of the population that starts at ``origin``),
    v: membrane potentials before the update, same shape.
    """
    bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
    bias = bias[origin[0] : origin[0] + a.shape[0], None, None]
    for name, values in _quantities(p, a, v, bias).items():
        low, high, _ = RANGES[name]
        outside = np.argwhere((values < low) | (values > high))
        if len(outside):
            c, y, x = (int(i) for i in outside[0])
            at = (c + origin[0], y + origin[1], x + origin[2])
            _refuse(p, timestep, at, int(values[c, y, x]), name)


def _refuse(p: Population, timestep: int, at: tuple[int, int, int], value: int, name: str) -> NoReturn:
    low, high, what = RANGES[name]
    raise VerifyError(
        f"overflow in population '{p.name}', timestep {timestep}, channel {at[0]}, position {at[1:]}:"
        f" {value} is outside {low}..{high} ({what}); lower the weight scale or the input,"
        " or run without strict to count such values"
    )


def advance(p: Population, a: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Membrane potential after one timestep, for walking through the timesteps of a sample."""
    bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
    v = np.clip(_quantities(p, a, v, bias[:, None, None]).get("v", v), -LIMIT + 1, LIMIT - 1)
    if p.model == "lif":
        theta = p.vth.astype(np.int64)[:, None, None] << 6  # type: ignore[union-attr]
        v = np.where(v > theta, 0, v)
    return v


def locate(p: Population, accumulators: np.ndarray, steps: int) -> None:
    """Raise for the first overflow of a population; accumulators [F, P, C] of whole samples."""
    c, h, w = p.shape
    v = np.zeros(p.shape, np.int64)
    for f, row in enumerate(accumulators):
        a = row.T.reshape(c, h, w).astype(np.int64)
        v = np.zeros(p.shape, np.int64) if f % steps == 0 else v
        raise_first(p, f % steps, a, v, (0, 0, 0))
        v = advance(p, a, v)
