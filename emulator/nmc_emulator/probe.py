"""Probes: what chosen somas of a run of images read and hold, timestep by timestep.

The layer engine gives the accumulators; current and potential follow from the equations of
``nmc_compiler.program.model.Population``, computed here once more in plain NumPy, for the somas that engine runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Population, Program

from .cells import advanced, cell_start, cell_tables
from .memory import Ref, Step
from .registers import wrap
from .states import PARTS

if TYPE_CHECKING:
    from .engine_layers import LayerEngine

LIMIT = 1 << 23
MOST = 4096  # somas probed in all
STATES = ("input", "u", "v")  # what is seen of a soma


@dataclass(frozen=True)
class Probe:
    """Somas of one population to look at: ``somas`` int64 [k], in C order over (C, H, W), ascending."""

    population: int
    somas: np.ndarray


def parse_probes(program: Program, texts: list[str]) -> tuple[Probe, ...]:
    """Probes from texts ``population`` (all its somas) or ``population:c,y,x``. UsageError if one does not fit."""
    wanted: dict[int, set[int]] = {}
    for text in texts:
        population, somas = _parse(program, text)
        wanted.setdefault(population, set()).update(somas)
    total = sum(map(len, wanted.values()))
    if total > MOST:
        raise UsageError(f"{total} somas are probed, at most {MOST} can be; choose some with --probe NAME:c,y,x")
    return tuple(Probe(i, np.array(sorted(somas), np.int64)) for i, somas in sorted(wanted.items()))


def _parse(program: Program, text: str) -> tuple[int, range | list[int]]:
    names = {p.name: i for i, p in enumerate(program.populations)}
    if text in names:
        i = names[text]
        return i, range(int(np.prod(program.populations[i].shape)))
    name, _, place = text.rpartition(":")
    if name not in names:
        known = ", ".join(list(names)[:6]) + (", ..." if len(names) > 6 else "")
        raise UsageError(f"--probe {text}: no such population; Program '{program.name}' has {known}")
    shape = program.populations[names[name]].shape
    parts = place.split(",")
    at = tuple(int(n) for n in parts if n.isdecimal())
    if len(parts) != 3 or len(at) != 3 or any(n >= size for n, size in zip(at, shape, strict=True)):
        raise UsageError(
            f"--probe {text}: {place!r} is no soma of {name}, whose shape (C, H, W) is {shape}; give c,y,x from 0"
        )
    return names[name], [int(np.ravel_multi_index(at, shape))]


def _per_channel(values: np.ndarray | None, p: Population, somas: np.ndarray) -> np.ndarray:
    """A parameter at the probed somas; 0 where the population has none."""
    _, h, w = p.shape
    return np.zeros(len(somas), np.int64) if values is None else values.astype(np.int64)[somas // (h * w)]


def potentials(p: Population, a: np.ndarray, somas: np.ndarray, rule: int | None = None) -> np.ndarray:
    """(input, u, v) int64 [N, T, k, 3] of somas that read the accumulators a int64 [N, T, k].

    v is the potential after the reset. A relay has neither current nor potential: both are its input.
    rule: of a current beyond 24 bits (``Program.current_rule``).
    """
    found = np.stack([a, a if p.model == "relay" else wrap(a << 6, rule), a], axis=3)
    if p.model == "relay":
        return found
    if p.cell is not None:
        return _cells(p, a, somas, rule)
    bias, theta = _per_channel(p.bias, p, somas), _per_channel(p.vth, p, somas) << 6
    v: np.ndarray = np.zeros_like(a[:, 0])
    for t in range(a.shape[1]):
        if p.model == "levels":
            v = np.zeros_like(v)
        elif p.model == "lif":
            v = np.sign(v) * ((np.abs(v) * (4096 - p.dv)) >> 12)
        v = np.clip(v + found[:, t, :, 1] + bias, 1 - LIMIT, LIMIT - 1)
        v = np.where(v > theta, 0, v) if p.model == "lif" else v
        found[:, t, :, 2] = v
    return found


def _cells(p: Population, a: np.ndarray, somas: np.ndarray, rule: int | None) -> np.ndarray:
    """``potentials`` of cells; channels are those of the somas, one by one."""
    _, h, w = p.shape
    channels, tables = somas // (h * w), cell_tables(p)
    tables = replace(tables, values=tables.values[:, :, channels], thresholds=tables.thresholds[:, channels])
    start = cell_start(p)[:, somas % (h * w), channels]
    state = {part: np.zeros((len(somas), len(a)), np.int64) for part in PARTS["cell"]}
    state |= {"u": state["u"] + start[0][:, None], "v": state["v"] + start[1][:, None]}
    found = np.stack([a, a, a], axis=3)
    for t in range(a.shape[1]):
        _, state = advanced(tables, t, a[:, t].T, state, rule)
        found[:, t, :, 1], found[:, t, :, 2] = state["u"].T, state["v"].T
    return found


class Tap:
    """Reads the accumulators of probed somas while a layer engine runs; at most ``samples`` between two ``take``."""

    def __init__(self, engine: LayerEngine, probes: tuple[Probe, ...], samples: int) -> None:
        program = engine.program
        self.probes = {p.population: p for p in probes if program.populations[p.population].dendrite >= 0}
        self.program, self.block = program, engine.planner.space.block
        shape = samples, program.timesteps
        self.seen = {i: np.zeros((*shape, len(p.somas)), np.int64) for i, p in self.probes.items()}
        self.first = 0
        engine.steps = self._with_readers(engine)

    def _with_readers(self, engine: LayerEngine) -> list[Step]:
        """The engine's steps with one behind the somas of every probed population that sees their accumulators."""
        plan, steps, left = engine.planned, [], dict(self.probes)
        for planned, step in zip(plan, engine.steps, strict=True):
            steps.append(step)
            keys = [arg.key if isinstance(arg, Ref) else None for arg in planned.args]
            for i in [i for i in left if ("codes", i) in keys or ("v", i) in keys]:
                acc = step.args[keys.index(("acc", self.program.populations[i].dendrite))]
                steps.append(Step(self._reader(i), (acc,)))
                del left[i]
        return steps

    def _reader(self, i: int) -> Callable[[np.ndarray], None]:
        c, h, w = self.program.populations[i].shape
        channel, position = np.divmod(self.probes[i].somas, h * w)
        place = position * c + channel

        def read(acc: np.ndarray) -> None:
            first, last = self.block.window
            rows = self.seen[i].reshape(-1, len(place))
            at = (self.block.first - self.first) * self.program.timesteps
            rows[at + first : at + last] = acc.reshape(len(acc), -1)[first:last, place]

        return read

    def take(self, samples: int) -> dict[int, np.ndarray]:
        """Potentials of the samples since the last time, by population: [samples, T, k, 3]."""
        self.first += samples
        populations, rule = self.program.populations, self.program.current_rule
        return {i: potentials(populations[i], a[:samples], self.probes[i].somas, rule) for i, a in self.seen.items()}
