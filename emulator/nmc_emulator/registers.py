"""Registers of 24 bits and their decay, in NumPy, beside the kernels' own."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import MODULAR, SATURATING

LIMIT = 2**23


def wrap(u: np.ndarray, rule: int | None) -> np.ndarray:
    """A current into its register; rule: ``Program.current_rule``."""
    if rule == SATURATING:
        return np.clip(u, -LIMIT + 1, LIMIT - 1)
    if rule == MODULAR:
        return (u + LIMIT) % (2 * LIMIT) - LIMIT
    return np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))


def clip(v: np.ndarray) -> np.ndarray:
    """A potential into its register."""
    return np.clip(v, -LIMIT + 1, LIMIT - 1)


def decay(x: np.ndarray, d: int) -> np.ndarray:
    """D(x, d) of the integer rules, in two parts so that no x is too large."""
    size, leak = np.abs(x), 4096 - d
    return np.sign(x) * ((size >> 12) * leak + ((size & 4095) * leak >> 12))
