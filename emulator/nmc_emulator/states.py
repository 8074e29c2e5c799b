"""What somas remember from one timestep to the next, by model."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Box, Population, Program

PARTS: dict[str, tuple[str, ...]] = {
    "lif": ("u", "v"),
    "cell": ("u", "v", "b", "sent", "total"),
    "readout": ("v",),
    "sigma_delta": ("sigma", "act", "residue", "error"),
}

State = dict[str, np.ndarray]  # part -> int64 [C, H, W]


def at_rest(p: Population, box: Box) -> State:
    """State of the somas in ``box`` at the start of a window."""
    found = {part: np.zeros(box.shape, np.int64) for part in PARTS.get(p.model, ())}
    for part, start in (("u", p.start_u), ("v", p.start_v)):
        if start is not None and part in found:
            found[part][:] = start[box.c0 : box.c1, box.y0 : box.y1, box.x0 : box.x1]
    return found


def restarts(p: Population, t: int) -> bool:
    """Whether the somas forget everything before timestep ``t`` of the window, counted from 0."""
    if p.restart is None:
        return False
    interval, offset = p.restart
    return (t + 1) % interval == offset % interval


def check_probe(program: Program, population: int, part: str) -> None:
    """UsageError if the somas of a population have no such state."""
    p = program.populations[population]
    known = PARTS.get(p.model, ())
    if part not in known:
        what = f"its model '{p.model}' has {', '.join(known)}" if known else f"its model '{p.model}' keeps none"
        raise UsageError(f"cannot probe '{part}' of population '{p.name}': {what}")
