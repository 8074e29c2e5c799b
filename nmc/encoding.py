"""Real inputs of a network of events: the codes that the host sends for them, as the compiler chose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import ArtefactError, FrontendError
from nmc_compiler.program.model import Program

CODES = np.iinfo(np.int32)


@dataclass(frozen=True)
class Encoding:
    """code = rint(x * scale), half to even; what lies outside lo..hi is refused."""

    scale: float
    lo: int
    hi: int


def encodings(program: Program) -> dict[str, Encoding]:
    """How inputs that were real in the trained network are encoded, by population (``Program.meta["inputs"]``)."""
    entries = program.meta.get("inputs", [])
    return dict(_read(program, entry) for entry in (entries if isinstance(entries, list) else [entries]))


def _read(program: Program, entry: object) -> tuple[str, Encoding]:
    match entry:
        case {"population": str(name), "scale": float(scale), "lo": int(lo), "hi": int(hi)} if (
            0 < scale < math.inf and CODES.min <= lo <= hi <= CODES.max
        ):
            return name, Encoding(scale, lo, hi)
    raise ArtefactError(
        f"Program '{program.name}': meta.inputs holds {str(entry)[:100]}; expected population, scale above 0, "
        "and lo <= hi of 32 bits; compile the network again"
    )


def encoded(name: str, values: np.ndarray, by: Encoding) -> np.ndarray:
    """Codes (int32) of real ``values`` of input ``name``; FrontendError where one is not finite or out of range."""
    codes = np.rint(values.astype(np.float64) * by.scale)
    odd = ~((codes >= by.lo) & (codes <= by.hi))  # true of NaN as well
    if odd.any():
        at = tuple(int(i) for i in np.argwhere(odd)[0])
        raise FrontendError(
            f"input '{name}': {np.count_nonzero(odd)} values are outside "
            f"{by.lo / by.scale:.6g}..{by.hi / by.scale:.6g}, the first ({values[at]}) at {list(at)}; "
            "scale the input, or compile with a wider --input-range"
        )
    return codes.astype(np.int32)
