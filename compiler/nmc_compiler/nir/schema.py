"""Node types of NIR 1.0.8 and their fields, and graphs of them as plain values (docs/nir.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = "1.0.8"  # of the nir package whose primitives these are
SCALAR = "scalar"


@dataclass(frozen=True)
class Field:
    """One field of a node type.

    ``kind``: "real" (finite numbers), "positive" (and all of them > 0), "whole" (one whole number), "pair" (one or
    two), "pad" (one or two, or the text "same" or "valid"), "shape" (whole numbers). ``needed`` False: may be
    left out.
    """

    kind: str
    needed: bool = True


REAL, POSITIVE, WHOLE = Field("real"), Field("positive"), Field("whole")
PAIR, PAD, SHAPE = Field("pair"), Field("pad"), Field("shape")
OPTIONAL, OPTIONAL_SHAPE = Field("real", False), Field("shape", False)

_CONV = {
    "weight": REAL,
    "bias": OPTIONAL,
    "stride": PAIR,
    "padding": PAD,
    "dilation": PAIR,
    "groups": WHOLE,
    "input_shape": OPTIONAL_SHAPE,
}
_POOL = {"kernel_size": PAIR, "stride": PAIR, "padding": PAIR}
_CUBA = {"tau_mem": POSITIVE, "tau_syn": POSITIVE, "r": REAL, "v_leak": REAL, "w_in": OPTIONAL}
_FIRES = {"v_threshold": REAL, "v_reset": OPTIONAL}

NODES: Mapping[str, Mapping[str, Field]] = {
    "Input": {"shape": SHAPE},
    "Output": {"shape": OPTIONAL_SHAPE},
    "Affine": {"weight": REAL, "bias": REAL},
    "Linear": {"weight": REAL},
    "Scale": {"scale": REAL},
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "SumPool2d": _POOL,
    "AvgPool2d": _POOL,
    "Flatten": {"start_dim": WHOLE, "end_dim": WHOLE, "input_type": OPTIONAL_SHAPE},
    "Delay": {"delay": REAL},
    "Threshold": {"threshold": REAL},
    "I": {"r": REAL},
    "IF": {"r": REAL, **_FIRES},
    "LI": {"tau": POSITIVE, "r": REAL, "v_leak": REAL},
    "LIF": {"tau": POSITIVE, "r": REAL, "v_leak": REAL, **_FIRES},
    "CubaLI": _CUBA,
    "CubaLIF": {**_CUBA, **_FIRES},
}

FIRING = ("IF", "LIF", "CubaLIF")
INTEGRATING = ("I", "LI", "CubaLI")
NEURONS = (*FIRING, *INTEGRATING, "Threshold")  # what emits or holds a state; a loop needs one of them, or a Delay


@dataclass(frozen=True)
class NirNode:
    """One node: its type and fields (arrays, whole numbers, tuples, text). ``where`` names it in errors."""

    name: str
    type: str
    values: dict[str, Any] = field(repr=False)
    where: str

    def get(self, key: str) -> Any:
        """A field, or None where it is not given."""
        return self.values.get(key)


@dataclass(frozen=True)
class NirGraph:
    """Nodes by name, and edges (from, to) by name, in the order of the file. ``where`` names it in errors."""

    nodes: dict[str, NirNode | NirGraph]
    edges: tuple[tuple[str, str], ...]
    where: str
