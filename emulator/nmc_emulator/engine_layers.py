"""The fast engine: layer after layer, each for all timesteps of a block of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .bounds import find_bounds
from .counters import Counters
from .layout import Layout
from .memory import Ref, Step, bind
from .overflow import locate
from .plan import Planner
from .sites import runtime_sites
from .statics import book_dense_sites, static_counters, updates_per_core
from .suits import takes_events, why_not_layers
from .timing import Timing
from .trace import Events, coded, codes_of, events_of


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
    over = planner.counters.overflow_of(i)

    def check(acc: np.ndarray) -> None:
        if over.any():
            rule, part = program.current_rule, acc[: planner.space.block.window[1]]
            locate(program.populations[i], part, program.timesteps, rule)

    return check


class LayerEngine:
    """One Program, planned for blocks of up to ``batch`` samples; ``run`` may be called again and again."""

    def __init__(
        self,
        program: Program,
        layout: Layout,
        timing: Timing,
        recorded: list[int],
        batch: int,
        strict: bool,
        real: bool = False,
    ) -> None:
        """``real``: lif somas in real arithmetic."""
        reason = why_not_layers(program)
        if reason is not None:
            raise UsageError(
                f"engine 'layers' cannot run Program '{program.name}': it has {reason}; run it with engine='events'"
            )
        self.program, self.timing = program, timing
        self.given = takes_events(program)  # whose potentials can be probed, frame by frame
        self.lagged = self.given or any(e.lag for e in timing.edges)
        self.sites = runtime_sites(program)  # each sample has its own
        self.batch = 1 if self.lagged or self.sites else batch  # a lag needs all levels of a timestep before the next
        self.counters = Counters.zeros(program, layout.cores)
        self.layout, self.static = layout, static_counters(program, layout, timing)
        self.planner = Planner(
            program, layout, timing, find_bounds(program, timing), self.counters, self.batch, recorded, real
        )
        space = self.planner.space
        self.planned = _strict_steps(program, self.planner) if strict else space.steps
        self.steps, self.memory = bind(self.planned, space.shapes, forever=self.lagged)
        self.updates = _update_loads(program, layout, timing)

    def run(
        self, images: np.ndarray, done: Callable[[int], object]
    ) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        """Readout int64 [N, classes], counters and recorded codes of images [N, T or 1, C, H, W].

        ``done`` is called with the number of samples after each block.
        """
        if self.given:
            raise UsageError(f"Program '{self.program.name}' is driven by events, not images; give them to run_events")
        return self._run(images, done)

    def run_events(
        self,
        inputs: Mapping[int, Events],
        steps: int,
        probes: Mapping[int, np.ndarray] | None = None,
        done: Callable[[int], object] = lambda steps: None,
    ) -> tuple[Counters, dict[int, Events], dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Whole windows driven by events: counters, recorded events, u and v [steps, somas] of probed lif populations.

        ``logits`` then has the read-out.  done: told of the timesteps of each window behind it.
        """
        populations, T = self.program.populations, self.program.timesteps
        if steps % T:
            raise UsageError(f"{steps} timesteps are no whole number of windows of {T} ('{self.program.name}')")
        if not self.given:
            raise UsageError(f"the engine 'layers' takes images for Program '{self.program.name}'; choose ticks")
        samples, planner = steps // T, self.planner
        shapes = {i: populations[i].shape for i in inputs}
        planner.given = {i: codes_of(e, steps, shapes[i]).reshape(samples, T, *shapes[i]) for i, e in inputs.items()}
        planner.probes = dict(probes or {})
        planner.seen = {i: np.zeros((2, steps, len(somas)), np.int64) for i, somas in planner.probes.items()}
        images = np.zeros((samples, 1, *self.program.input_shape))
        self.logits, counters, codes = self._run(images, lambda n: done(n * T))
        flat = {i: c.reshape(steps, int(np.prod(populations[i].shape))) for i, c in codes.items()}
        events = {i: events_of(c, coded(populations[i])) for i, c in flat.items()}
        return counters, events, {i: (both[0], both[1]) for i, both in planner.seen.items()}

    def _run(
        self, images: np.ndarray, done: Callable[[int], object]
    ) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        self._restart(len(images))
        logits = np.zeros((len(images), self.planner.out.shape[1]), np.int64)
        for first in range(0, len(images), self.batch):
            block = images[first : first + self.batch]
            logits[first : first + len(block)] = self._run_block(block, first)
            done(len(block))
        return logits, self._counters(len(images)), dict(self.planner.codes)

    def _restart(self, samples: int) -> None:
        """Nothing of an earlier run is left, even if it ended in an error."""
        self.counters.clear()
        self.planner.loads.clear()
        self.planner.counting.ledger.clear()
        self.planner.expect(samples)

    def _run_block(self, images: np.ndarray, first: int) -> np.ndarray:
        block, loads, T = self.planner.space.block, self.planner.loads, self.program.timesteps
        block.images, block.first = images, first
        if self.sites:
            self.planner.rulebooks.load(images[0], first)
            book_dense_sites(self.counters, self.program, self.layout, self.timing, self.planner.rulebooks)
        for b in range(len(images)):
            start = b * self.program.interval
            loads.updates[start : start + self.timing.span] += self.updates
        frames = len(images) * T
        for f in range(frames) if self.lagged else (0,):
            block.window[:] = (f, f + 1) if self.lagged else (0, frames)
            for step in self.steps:
                step.call(*step.args)
        loads.settle(len(images) * self.program.interval, self.counters)
        return self.planner.out[: len(images)]

    def _counters(self, samples: int) -> Counters:
        loads = self.planner.loads
        loads.settle(len(loads.synops), self.counters)
        self.planner.counting.ledger.book(self.counters)
        self.counters.add(self.static, samples)
        return self.counters.take()
