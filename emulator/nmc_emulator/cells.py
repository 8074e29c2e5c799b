"""Somas of the model cell as the arrays that their kernel takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import CELL_ONE, Box, Cell, Population, whole

from .kernels import cell as kernel
from .registers import clip, decay, wrap
from .states import State

NEVER = -(1 << 31)  # a lower threshold, or a floor, that no potential is below


@dataclass(frozen=True)
class CellTables:
    """See ``kernels.cell``: form int64 [FORM], values int64 [1 or T, VALUES, C], thresholds int64 [D, C]."""

    form: np.ndarray
    values: np.ndarray
    thresholds: np.ndarray

    def at(self, t: int) -> np.ndarray:
        """Values of timestep t of a window."""
        return self.values[t if len(self.values) > 1 else 0]


def cell_tables(p: Population, box: Box | None = None) -> CellTables:
    """Tables of the channels of a population in ``box``, of all where it is None."""
    box = box or whole(p.shape)
    cell, channels = p.cell, p.shape[0]
    assert cell is not None and p.thresholds is not None  # validated
    bias = p.bias if cell.bias is None else cell.bias
    given = {
        kernel.BIAS: (bias, 0),
        kernel.STEP: (cell.step, 0),
        kernel.LOW: (cell.low, NEVER),
        kernel.FLOOR: (cell.floor, NEVER),
        kernel.JUMP: (cell.jump, 0),
        kernel.GAIN: (cell.gain, CELL_ONE),
        kernel.RISE: (cell.rise, 0),
    }
    rows = max((len(a) for a, _ in given.values() if a is not None and a.ndim == 2), default=1)
    values = np.zeros((rows, kernel.VALUES, channels), np.int64)
    for row, (array, default) in given.items():
        values[:, row] = default if array is None else array.astype(np.int64)
    thresholds = np.broadcast_to(p.thresholds.astype(np.int64), (channels, p.thresholds.shape[1])).T
    part = slice(box.c0, box.c1)
    return CellTables(_form(p, cell), values[:, :, part].copy(), thresholds[:, part].copy())


def _form(p: Population, cell: Cell) -> np.ndarray:
    form = np.zeros(kernel.FORM, np.int64)
    form[kernel.DU], form[kernel.DV], form[kernel.DB], form[kernel.LATE] = p.du, p.dv, cell.db, cell.late
    soft = kernel.NONE if cell.step is None else kernel.SOFT
    form[kernel.RESET] = soft if cell.soft else kernel.HARD
    form[kernel.LEAST], form[kernel.MOST] = cell.sums or (-kernel.NO_SUM, kernel.NO_SUM)
    moving = cell.sums, cell.jump, cell.gain, cell.rise, p.start_u
    form[kernel.STILL] = p.du == 4095 and not cell.late and all(part is None for part in moving)
    return form


def cell_start(p: Population) -> np.ndarray:
    """u and v before the first update, int64 [2, positions, C]."""
    c, h, w = p.shape
    found = np.zeros((2, h * w, c), np.int64)
    for row, start in zip(found, (p.start_u, p.start_v), strict=True):
        if start is not None:
            row[:] = start.reshape(c, h * w).T
    return found


def advanced(tables: CellTables, t: int, a: np.ndarray, state: State, rule: int | None) -> tuple[State, State]:
    """One timestep in plain NumPy, beside the kernel: (values before wrapping and clipping, state afterwards).

    a int64 [C, ...]: accumulators; the state likewise. rule: of a current beyond 24 bits (``Program.current_rule``).
    """
    row = tables.at(t).reshape(kernel.VALUES, len(a), *(1,) * (a.ndim - 1))
    form = tables.form
    u = decay(state["u"], form[kernel.DU] + 1) + (a * row[kernel.GAIN] >> 6)
    b = decay(state["b"], form[kernel.DB]) + state["sent"] * row[kernel.JUMP]
    new = {"u": wrap(u, rule), "b": clip(b)}
    r = new["b"] + row[kernel.RISE]
    unit = row[kernel.STEP] + r
    h = decay(state["v"], form[kernel.DV]) + new["u"] + row[kernel.BIAS]
    h = _reset(h, state["sent"], unit, form) if form[kernel.LATE] else h
    v = clip(h)
    ladder = tables.thresholds.reshape(-1, *r.shape[:1], *(1,) * (a.ndim - 1))
    code = (v[None] >= ladder + r[None]).sum(axis=0) - (v < row[kernel.LOW])
    code = np.clip(code, form[kernel.LEAST] - state["total"], form[kernel.MOST] - state["total"])
    kept = v if form[kernel.LATE] else _reset(v, code, unit, form)
    new |= {"v": np.maximum(clip(kept), row[kernel.FLOOR]), "sent": code, "total": state["total"] + code}
    return {"accumulator": a, "u": u, "b": b, "v": h, "kept": kept}, new


def _reset(h: np.ndarray, code: np.ndarray, unit: np.ndarray, form: np.ndarray) -> np.ndarray:
    if form[kernel.RESET] == kernel.NONE:
        return h
    return h - code * unit if form[kernel.RESET] == kernel.SOFT else np.where(code != 0, 0, h)
