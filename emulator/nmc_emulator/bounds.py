"""Static bounds of codes and accumulators: they choose 32- or 64-bit kernels, never the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import Conv, Map, Program

from .timing import CONV, MAP, Edge, Timing

INT32 = 2**31 - 1
LARGEST = 2**56  # u = a << 6 and its sums stay within 64 bits


@dataclass(frozen=True)
class Bounds:
    """Largest magnitudes: |code| per population, |accumulator| per dendrite."""

    code: tuple[int, ...]
    accumulator: tuple[int, ...]


def _conv_gain(conv: Conv) -> int:
    """Largest |sum| that codes of magnitude 1 can make at one accumulator."""
    if conv.weight.size == 0:
        return 0
    rows = sum(np.abs(tap.astype(np.int16)).sum(axis=0, dtype=np.int64) for row in conv.weight for tap in row)
    grid = conv.out_hw[0] * conv.out_hw[1] if conv.collapse else 1
    return int(rows.max()) * grid


def _map_gain(program: Program, m: Map) -> int:
    _, h, w = program.populations[m.src].shape
    return {"same": 1, "broadcast": 1, "reduce": h * w, "window": m.kernel[0] * m.kernel[1]}[m.mode]


def _dynamic_bound(program: Program, index: int, code: list[int]) -> int:
    d = program.dynamics[index]
    channels, h, w = program.populations[d.q].shape
    count = h * w * (channels // d.heads) * code[d.q] * code[d.k] * code[d.v]
    return min(d.saturate, count)


class _Solver:
    """Bounds level by level; lagged edges take the code bounds of the timestep before."""

    def __init__(self, program: Program, timing: Timing) -> None:
        self.program, self.timing = program, timing
        self.gains = [_conv_gain(c) for c in program.convs]
        self.code = [self._fixed_code(i) for i in range(len(program.populations))]
        self.accumulator = [0] * len(program.dendrites)

    def _fixed_code(self, index: int) -> int:
        population = self.program.populations[index]
        if population.model == "input":
            codes = next(h for h in self.program.host_codes if h.population == index)
            return max(abs(codes.lo), abs(codes.hi))
        if population.model == "levels":
            return 0 if population.thresholds is None else population.thresholds.shape[1]
        return 1 if population.model == "lif" else 0

    def _edge(self, e: Edge, code: list[int]) -> int:
        if e.kind == CONV:
            return self.gains[e.index] * code[e.src] << self.program.convs[e.index].shift
        if e.kind == MAP:
            m = self.program.maps[e.index]
            return _map_gain(self.program, m) * code[e.src] << m.shift
        return _dynamic_bound(self.program, e.index, code) << self.program.dynamics[e.index].shift

    def _level(self, level: int, before: list[int]) -> None:
        p = self.program
        for e in self.timing.edges:
            reads_table = e.kind in (CONV, MAP) or e.role == (0 if p.dynamics[e.index].order == "kv" else 2)
            if e.arrival == level and reads_table:
                self.accumulator[e.dst] += self._edge(e, before if e.lag else self.code)
        for h in p.host_currents:
            self.accumulator[h.dst] += 2**23 if h.level == level else 0
        for t in p.transfers:
            if t.level == level:
                _, height, width = p.dendrites[t.src].shape
                self.accumulator[t.dst] += self.accumulator[t.src] * (height * width if t.mode == "sum" else 1)
        for i, population in enumerate(p.populations):
            if population.level == level and population.model == "relay":
                self.code[i] = max(self.code[i], self.accumulator[population.dendrite])

    def timestep(self) -> None:
        """Bounds of one more timestep."""
        p, before = self.program, list(self.code)
        self.accumulator = [0] * len(p.dendrites)
        levels = {e.arrival for e in self.timing.edges} | {q.level for q in p.populations}
        for level in sorted(levels | {h.level for h in p.host_currents} | {t.level for t in p.transfers}):
            self._level(level, before)


def find_bounds(program: Program, timing: Timing) -> Bounds:
    """Bounds over all timesteps. VerifyError if an accumulator could need more than 56 bits."""
    solver = _Solver(program, timing)
    for _ in range(program.timesteps if any(e.lag for e in timing.edges) else 1):
        solver.timestep()
    for dendrite, bound in zip(program.dendrites, solver.accumulator, strict=True):
        if bound > LARGEST:
            raise VerifyError(
                f"dendrite '{dendrite.name}' can reach {bound}, beyond the emulator's {LARGEST};"
                " insert a thresholding population between its relays"
            )
    return Bounds(tuple(solver.code), tuple(solver.accumulator))
