"""Static bounds of codes and accumulators: they choose 32- or 64-bit kernels, never the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import CELL_ONE, Conv, Dynamic, Map, Population, Program

from .host import payload_range
from .synapses import largest_gain
from .timing import CONV, DYNAMIC, MAP, SPARSE, Edge, Timing, reading_role

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
    (c, h, w), out = program.populations[m.src].shape, program.dendrites[m.dst].shape[0]
    several = {"reduce": h * w, "window": m.kernel[0] * m.kernel[1], "reduce_channels": c // out}
    return several.get(m.mode, 1)


def _dynamic_bound(program: Program, index: int, code: list[int]) -> int:
    d = program.dynamics[index]
    channels, h, w = program.populations[d.q].shape
    count = h * w * (channels // d.heads) * code[d.q] * code[d.k] * code[d.v]
    return min(d.saturate, count * piled(program, d))


def piled(program: Program, d: Dynamic) -> int:
    """How many times the writes of one timestep a table can come to."""
    return 1 if d.lasting is None else program.timesteps << d.lasting.frac


def _largest(ends: tuple[int, int]) -> int:
    return max(abs(ends[0]), abs(ends[1]))


class _Solver:
    """Bounds level by level; lagged edges take the code bounds of the timestep before."""

    def __init__(self, program: Program, timing: Timing, payloads: bool) -> None:
        """``payloads``: no sigma-delta code leaves its payload, beyond which it is counted as an overflow."""
        self.program, self.timing, self.payloads = program, timing, payloads
        self.gains = [_conv_gain(c) for c in program.convs]
        self.sparse_gains = [largest_gain(program, s) for s in program.sparses]
        self.code = [self._fixed_code(i) for i in range(len(program.populations))]
        self.accumulator = [0] * len(program.dendrites)

    def _fixed_code(self, index: int) -> int:
        population = self.program.populations[index]
        if population.model == "input":
            found = [h for h in self.program.host_codes if h.population == index]
            return _largest((found[0].lo, found[0].hi) if found else payload_range(population))
        if population.model in ("levels", "cell"):
            return 0 if population.thresholds is None else population.thresholds.shape[1]
        if population.model == "sigma_delta":
            return _largest(payload_range(population)) if self.payloads else 2**31 >> population.out_shift
        return 1 if population.model == "lif" else 0

    def _edge(self, e: Edge, code: list[int]) -> int:
        if e.kind == CONV:
            return self.gains[e.index] * code[e.src] << self.program.convs[e.index].shift
        if e.kind == MAP:
            m = self.program.maps[e.index]
            return _map_gain(self.program, m) * code[e.src] << m.shift
        if e.kind == SPARSE:
            s = self.program.sparses[e.index]
            return self.sparse_gains[e.index] * (code[e.src] if s.graded else min(code[e.src], 1)) << s.shift
        return _dynamic_bound(self.program, e.index, code) << self.program.dynamics[e.index].shift

    def _level(self, level: int, before: list[int]) -> None:
        p = self.program
        for e in self.timing.edges:
            reads_table = e.kind != DYNAMIC or e.role == reading_role(p.dynamics[e.index].order)
            if e.arrival == level and reads_table:
                self.accumulator[e.dst] += self._edge(e, before if e.lag else self.code)
        for h in p.host_currents:
            self.accumulator[h.dst] += 2**23 if h.level == level else 0
        for t in p.transfers:
            if t.level == level:
                _, height, width = p.dendrites[t.src].shape
                moved = self.accumulator[t.src] * (height * width if t.mode == "sum" else 1)
                self.accumulator[t.dst] += -(-moved >> t.rshift)
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


def _largest_input(p: Population, timesteps: int) -> int:
    """Largest |a| at which a current that decays by du stays within 64 bits: u <= 64 a 4096 / (du + 1).

    That of a cell is multiplied by its gain first.
    """
    steps = -(-4096 // (p.du + 1))
    most = LARGEST // min(steps, timesteps or steps)
    if p.cell is None:
        return most
    gain = CELL_ONE if p.cell.gain is None else int(np.abs(p.cell.gain.astype(np.int64)).max(initial=0))
    return most // max(gain, 64)


def _refuse_growth(program: Program, before: list[int], after: list[int]) -> None:
    """VerifyError if codes still grow: after as many timesteps as populations only a loop of relays does."""
    for p, old, new in zip(program.populations, before, after, strict=True):
        if old != new:
            raise VerifyError(
                f"relay '{p.name}' feeds itself, and its codes have no bound in a stream;"
                " insert a thresholding population into the loop"
            )


def _solve(program: Program, timing: Timing, payloads: bool) -> _Solver:
    """Bounds over all timesteps."""
    solver = _Solver(program, timing, payloads)
    lagged, steps, known = any(e.lag for e in timing.edges), 0, list[int]()
    while solver.code != known and (steps == 0 or (lagged and steps != program.timesteps)):
        known, steps = list(solver.code), steps + 1
        solver.timestep()
        if program.timesteps == 0 and steps > len(program.populations):
            _refuse_growth(program, known, solver.code)
    return solver


def find_bounds(program: Program, timing: Timing) -> Bounds:
    """Bounds over all timesteps. VerifyError if an accumulator could need more than 56 bits."""
    found = _solve(program, timing, True)
    for d, (dendrite, bound) in enumerate(zip(program.dendrites, found.accumulator, strict=True)):
        readers = [p for p in program.populations if p.dendrite == d]
        largest = min([LARGEST, *(_largest_input(p, program.timesteps) for p in readers)])
        if bound > largest:
            raise VerifyError(
                f"dendrite '{dendrite.name}' can reach {bound}, beyond the emulator's {largest};"
                " insert a thresholding population between its relays, or give graded inputs fewer bits"
            )
    if any(p.model == "sigma_delta" for p in program.populations):
        found = _solve(program, timing, False)
    return Bounds(tuple(found.code), tuple(found.accumulator))
