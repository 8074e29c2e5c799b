"""The fast engine: layer after layer, each for all timesteps of a block of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nmc_compiler.program.model import Program

from .bounds import find_bounds
from .counters import OVERFLOW, Counters
from .layout import Layout
from .loads import TickLoads
from .memory import Ref, Step, bind
from .overflow import locate
from .plan import Planner
from .statics import book_statics, updates_per_core
from .timing import Timing


def _update_loads(program: Program, layout: Layout, timing: Timing) -> np.ndarray:
    """Somas updated per tick and core by one sample, int64 [span, cores]."""
    loads = np.zeros((timing.span, layout.cores), np.int64)
    for i, p in enumerate(program.populations):
        for t in range(program.timesteps):
            loads[t * program.ticks_per_step + p.level] += updates_per_core(program, layout, i)
    return loads


def _strict_steps(program: Program, planner: Planner) -> list[Step]:
    """The plan with a check behind every population, which finds an overflow's place."""
    steps = []
    accs = {("codes", i): ("acc", p.dendrite) for i, p in enumerate(program.populations)}
    accs |= {("v", i): ("acc", p.dendrite) for i, p in enumerate(program.populations)}
    seen: set[int] = set()
    for step in planner.space.steps:
        steps.append(step)
        for arg in step.args:
            key = arg.key if isinstance(arg, Ref) else None
            i = key[1] if key in accs else -1  # type: ignore[index]
            if i in seen or i < 0 or program.populations[i].dendrite < 0:
                continue
            seen.add(i)
            steps.append(Step(_checker(program, planner, i), (Ref(accs[key]),)))  # type: ignore[index]
    return steps


def _checker(program: Program, planner: Planner, i: int) -> Callable[[np.ndarray], None]:
    def check(acc: np.ndarray) -> None:
        if planner.overflow[i].any():
            locate(program.populations[i], acc[: planner.space.block.window[1]], program.timesteps)

    return check


class LayerEngine:
    """Runs blocks of samples of one Program through its plan."""

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        samples: int,
        recorded: list[int],
        batch: int,
        strict: bool,
    ) -> None:
        self.program, self.layout, self.timing = program, layout, timing
        self.lagged = any(e.lag for e in timing.edges)
        self.batch = 1 if self.lagged else batch
        self.counters = Counters.zeros(program, layout.cores)
        bounds = find_bounds(program, timing)
        self.planner = Planner(program, layout, timing, bounds, self.counters, self.batch, samples, recorded)
        space = self.planner.space
        steps = _strict_steps(program, self.planner) if strict else space.steps
        self.steps, self.memory = bind(steps, space.shapes, forever=self.lagged)
        self.updates = _update_loads(program, layout, timing)

    def run_block(self, images: np.ndarray, first: int) -> np.ndarray:
        """Run samples ``first``.. of ``images`` [n <= batch, T or 1, C, H, W]; readout int64 [n, classes]."""
        block, loads, T = self.planner.space.block, self.planner.loads, self.program.timesteps
        block.images, block.first = images, first
        for b in range(len(images)):
            start = b * self.program.interval
            loads.updates[start : start + self.timing.span] += self.updates
        frames = len(images) * T
        for f in range(frames) if self.lagged else (0,):
            block.window[:] = (f, f + 1) if self.lagged else (0, frames)
            for step in self.steps:
                step.call(*step.args)
        loads.settle(len(images) * self.program.interval, self.counters)
        return self.planner.out[: len(images)].copy()

    def finish(self, samples: int) -> Counters:
        """Counters of the whole run of ``samples`` samples."""
        loads: TickLoads = self.planner.loads
        loads.settle(len(loads.synops), self.counters)
        self.planner.counting.finish()
        book_statics(self.counters, self.program, self.layout, self.timing, samples)
        for n, name in enumerate(OVERFLOW):
            self.counters.overflow[name] += self.planner.overflow[:, n]
        return self.counters


def run_layers(
    program: Program,
    layout: Layout,
    timing: Timing,
    images: np.ndarray,
    recorded: list[int],
    batch: int,
    strict: bool,
    progress: bool,
) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
    """All samples in blocks: readout int64 [N, classes], counters, recorded codes."""
    from tqdm import tqdm

    engine = LayerEngine(program, layout, timing, len(images), recorded, min(batch, max(len(images), 1)), strict)
    logits = np.zeros((len(images), engine.planner.out.shape[1]), np.int64)
    with tqdm(total=len(images), disable=not progress, unit="sample", leave=False) as bar:
        for first in range(0, len(images), engine.batch):
            block = images[first : first + engine.batch]
            logits[first : first + len(block)] = engine.run_block(block, first)
            bar.update(len(block))
    return logits, engine.finish(len(images)), engine.planner.codes
