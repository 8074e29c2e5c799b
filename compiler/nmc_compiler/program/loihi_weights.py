"""The weights that Lava's bit-accurate models multiply by, from those that a user gives.

Lava 0.10 limits a weight matrix to the bits of the chip's synapse memory before the first timestep. The
network builder takes weights after that step; front ends for Lava's parameters take it here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from nmc_compiler.errors import UsageError

SignMode = Literal["mixed", "excitatory", "inhibitory"]

WEIGHT_BITS = 8


def prepare_weights(w: np.ndarray, bits: int = WEIGHT_BITS, mode: SignMode | None = None) -> np.ndarray:
    """Clip and truncate integer weights as Lava's Dense, Sparse and delay variants do; int32, shaped as `w`.

    ``bits``: num_weight_bits, 1..8. ``mode``: sign_mode; None finds it: excitatory where no weight is
    negative, else inhibitory where none is positive, else mixed. One-sign weights keep ``bits`` bits of
    magnitude up to 255; mixed ones give one bit to the sign, which leaves even numbers, -256 to 254. Bits
    are dropped by floor. Raises UsageError for weights that are not integers, and bad options.

    >>> prepare_weights(np.array([-57, 33, 300])).tolist()
    [-58, 32, 254]
    >>> prepare_weights(np.array([57, 33, 300]), bits=4).tolist()
    [48, 32, 240]
    """
    weights = np.asarray(w)
    if weights.dtype.kind not in "iu":
        raise UsageError(f"weights are {weights.dtype}; Lava's fixed-point models take integers: round them first")
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= WEIGHT_BITS:
        raise UsageError(f"bits {bits!r}: expected 1 to {WEIGHT_BITS}, as Lava's num_weight_bits")
    if mode not in (None, "mixed", "excitatory", "inhibitory"):
        raise UsageError(f"mode {mode!r}: expected 'mixed', 'excitatory', 'inhibitory' or None")
    mode = mode or _sign_mode(weights)
    mixed = mode == "mixed"
    held = np.iinfo(weights.dtype)
    limited = np.clip(weights, max(held.min, -256), min(held.max, 256)).astype(np.int32)  # may be negated now
    if mode == "inhibitory":
        limited = -limited
    limited = np.clip(limited, -256 if mixed else 0, 255)
    drop = WEIGHT_BITS - int(bits) + mixed
    limited = limited >> drop << drop
    return -limited if mode == "inhibitory" else limited


def _sign_mode(weights: np.ndarray) -> SignMode:
    if not weights.size or weights.min() >= 0:
        return "excitatory"
    return "inhibitory" if weights.max() <= 0 else "mixed"
