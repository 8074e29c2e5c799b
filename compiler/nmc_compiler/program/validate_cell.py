"""Rules of the somas of the model cell."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import Cell, Population
from nmc_compiler.program.rules import check_array, check_range, check_values, fail

MEMBRANE = 2**23 - 1  # membrane units of 24 bits
GAIN = 2**17  # CELL_ONE is one
SUM = 2**40
TABLES = ("gain", "bias", "rise")  # one row per timestep


def check_cell(p: Population, cell: Cell, timesteps: int, path: str) -> None:
    """VerifyError for the first broken rule. timesteps: of the Program, 0 for a stream, which has no tables."""
    for name in TABLES:
        table = getattr(cell, name)
        if table is None:
            continue
        if timesteps == 0:
            fail(f"{path}/{name}", "a table by timestep, but the Program is a stream (timesteps 0)")
        columns = 1 if name != "bias" and table.shape[1:] == (1,) else p.shape[0]
        check_array(f"{path}/{name}", table, np.int32, (timesteps, columns))
        check_values(f"{path}/{name}", table, *((-GAIN, GAIN) if name == "gain" else (-MEMBRANE, MEMBRANE)))
    for name in ("step", "low", "floor", "jump"):
        values = getattr(cell, name)
        if values is not None:
            check_array(f"{path}/{name}", values, np.int32, (p.shape[0],))
            check_values(f"{path}/{name}", values, -MEMBRANE, MEMBRANE)
    check_range(f"{path}/db", cell.db, 0, 4096)
    if cell.bias is not None and p.bias is not None:
        fail(f"{path}/bias", "given besides the population's; one of them acts")
    if cell.step is not None and not cell.soft:
        fail(f"{path}/step", "given, but without soft a code resets v to 0")
    if cell.low is not None and p.thresholds is not None and (cell.low >= p.thresholds[:, 0]).any():
        fail(f"{path}/low", "not below the first threshold of its channel")
    if cell.sums is not None:
        low, high = cell.sums
        check_range(f"{path}/sums", low, -SUM, 0)
        check_range(f"{path}/sums", high, 0, SUM)
