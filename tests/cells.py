"""Random somas of the model cell, in place of those of a random Program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nmc_compiler.program.model import Cell, Population, Program


def celled(program: Program, seed: int, signed: bool = False) -> Program:
    """The Program with about half of its lifs and level tables made cells; ``signed``: some of which are ternary."""
    rng = np.random.default_rng(seed)

    def changed(p: Population) -> Population:
        plain = p.model == "levels" or (p.model == "lif" and p.vth_low is None)
        return random_cell(p, program.timesteps, rng, signed) if plain and rng.random() < 0.7 else p

    return replace(program, populations=tuple(map(changed, program.populations)))


def random_cell(p: Population, timesteps: int, rng: np.random.Generator, signed: bool) -> Population:
    """A cell with the dendrite and the thresholds of p, and of everything else a random part."""
    channels = p.shape[0]
    if p.thresholds is None:
        table = (p.vth.astype(np.int64)[:, None] * 64 + int(rng.integers(2))).astype(np.int32)
    else:
        table = p.thresholds
    drive = int(np.abs(table).max()) + 64

    def some(low: int, high: int, *shape: int) -> np.ndarray | None:
        return rng.integers(low, high + 1, shape or channels).astype(np.int32) if rng.random() < 0.5 else None

    rows = (timesteps, int(rng.choice([1, channels])))
    low = some(-drive, 0) if signed and p.model == "lif" else None
    if low is not None:
        low = np.minimum(low, table[:, 0] - 1).astype(np.int32)
    soft, bias = bool(rng.integers(2)), some(-drive // 2, drive // 2, timesteps, channels) if timesteps else None
    cell = Cell(
        soft=soft,
        late=bool(rng.integers(2)),
        step=some(-64, drive) if soft else None,
        low=low,
        floor=some(-drive, 0),
        sums=(-2, 5) if rng.random() < 0.4 else None,
        db=int(rng.choice([0, 137, 2048, 4096])),
        jump=some(-drive // 4, drive),
        gain=some(-9000, 9000, *rows) if timesteps else None,
        bias=bias,
        rise=some(-drive // 2, drive, *rows) if timesteps else None,
    )
    return replace(
        p,
        model="cell",
        role="neuron",
        vth=None,
        thresholds=table,
        bias=None if bias is not None else p.bias,
        cell=cell,
        du=int(rng.choice([4095, 4095, 0, 1000])),
        dv=int(rng.choice([0, 1024, 2048, 4096])),
        restart=None,
        payload_bits=2 if low is not None else p.payload_bits,
        signed=low is not None,
        start_v=some(-drive, drive, *p.shape),
        start_u=some(-drive, drive, *p.shape),
    )
