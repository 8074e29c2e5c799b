"""The engine ``neurocore``: a Program through its image, as the cores of the FPGA run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.neurocore import Image
from nmc_compiler.neurocore.build import build_image
from nmc_compiler.neurocore.learned import learned_weights
from nmc_compiler.neurocore.sizes import ACCUMULATORS, COUNTERS, U, V
from nmc_compiler.program.model import Population, Program

from ..counters import OVERFLOW, Counters
from ..host import Host
from ..recount import Chunk, Recount, host_activity, split
from ..trace import Events, Trace, codes_of, events_of
from .machines import new_machine

ACCUMULATOR = 1 << 24  # sums are modulo this
Potentials = dict[int, tuple[np.ndarray, np.ndarray]]
Done = Callable[[int], object]


class NeurocoreEngine:
    """One Program and its image. Samples start from RESTART, so weights that learning changed stay."""

    def __init__(
        self,
        program: Program,
        recorded: list[int],
        strict: bool,
        image: Image | None = None,
        machine: Any = None,
    ) -> None:
        """``image``: of this Program; None builds it.  ``machine``: holds that image; None emulates one.

        Of a machine it uses write, read, restart, run, and over, which gives None where nobody counts neuron by neuron.
        """
        self.program, self.recorded, self.strict = program, recorded, strict
        self.image = build_image(program).image if image is None else image
        self.machine, self.host = new_machine(self.image) if machine is None else machine, Host(program)
        self.out_of_range = 0  # sums that wrapped, and neurons that saturated, by the counters of the cores
        self.steps = program.timesteps + program.depth
        self._axons = {i: _by_soma(self.image.inputs, i, int(np.prod(p.shape))) for i, p in self._inputs()}
        rows = self.image.neurons
        self._at = {i: _places(rows, i) for i, p in enumerate(program.populations) if p.dendrite >= 0}

    def _inputs(self) -> list[tuple[int, Population]]:
        return [(i, p) for i, p in enumerate(self.program.populations) if p.model == "input"]

    # -- whole runs ------------------------------------------------------------------------------

    def run(self, images: np.ndarray, done: Done) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        """Readout int64 [N, classes], counters and recorded codes of images [N, T or 1, C, H, W]."""
        T, N = self.program.timesteps, len(images)
        self._zero_counters()
        fired, logits = [], []
        for n, image in enumerate(images):
            currents = self._currents(image, n)
            fired.append(self._sample(np.zeros((0, 3), np.int64), self.steps, currents))
            logits.append(self._readout())
            done(1)
        events = self._events(fired, T)
        counters = self._counters(events, N, N * T, host_activity(self.program, images))
        codes = {i: codes_of(events[i], N * T, self.program.populations[i].shape) for i in self.recorded}
        shaped = {i: c.astype(np.uint8).reshape(N, T, *c.shape[1:]) for i, c in codes.items()}
        return np.array(logits, np.int64).reshape(N, -1), counters, shaped

    def run_events(
        self,
        inputs: Mapping[int, Events],
        steps: int,
        probes: Mapping[int, np.ndarray] | None = None,
        done: Done = lambda steps: None,
    ) -> tuple[Counters, dict[int, Events], Potentials]:
        """``steps`` timesteps from rest: counters, recorded events, u and v of probes, as the event engine gives."""
        if self.program.host_currents:
            name = self.program.host_currents[0].name
            raise UsageError(f"Program '{self.program.name}' takes images (host current '{name}'), not events")
        T = self.program.timesteps or steps
        if steps and steps % T:
            raise UsageError(f"{steps} timesteps are no whole number of windows of {T} ('{self.program.name}')")
        fired, kept, logits = [], [], []
        self._zero_counters()
        for first in range(0, steps, max(T, 1)):
            potentials: list[np.ndarray] = []
            rows = self._rows(inputs, first, T)
            fired.append(self._sample(rows, T + self.program.depth, {}, probes or {}, potentials))
            kept.append(potentials)
            logits.append(self._readout())
            done(T)
        self.logits = np.array(logits, np.int64).reshape(len(logits), -1)
        events = self._events(fired, T) | {i: inputs[i] for i, _ in self._inputs()}
        samples = steps // T if self.program.timesteps and T else 1
        counters = self._counters(events, samples, steps)
        return counters, {i: events[i] for i in self.recorded}, self._potentials(kept, probes or {}, T)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights of the plastic projections as they are on the cores."""
        return learned_weights(self.program, self.image, self.machine.read)

    def _zero_counters(self) -> None:
        for core in range(self.image.sizes.cores):
            self.machine.write(core, COUNTERS, 0, np.zeros(1))

    # -- a sample --------------------------------------------------------------------------------

    def _sample(
        self,
        rows: np.ndarray,
        steps: int,
        currents: dict[int, np.ndarray],
        probes: Mapping[int, np.ndarray] | None = None,
        potentials: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Spikes uint8 [steps, cores, N] of one window from RESTART on."""
        machine = self.machine
        machine.restart()
        if not currents and not probes:
            return machine.run(steps, rows)
        fired, empty = [], np.zeros((0, 3), np.int64)
        for step in range(steps):
            self._add_currents(currents, step)
            here = rows[rows[:, 0] == step] * [0, 1, 1]
            fired.append(machine.run(1, here if len(here) else empty))
            for i, somas in (probes or {}).items():
                both = [self._values(mem, i)[somas] for mem in (U, V)]
                potentials.append(np.stack(both))  # type: ignore[union-attr]
        return np.concatenate(fired) if fired else machine.run(0, empty)

    def _rows(self, inputs: Mapping[int, Events], first: int, T: int) -> np.ndarray:
        """Events of one window as (step, core, axon), sorted by step."""
        found = [np.zeros((0, 3), np.int64)]
        for i, events in inputs.items():
            here = (events.step >= first) & (events.step < first + T)
            start, table = self._axons[i]
            soma = events.soma[here]
            count = start[soma + 1] - start[soma]
            at = np.repeat(start[soma] - np.cumsum(count) + count, count) + np.arange(count.sum())
            step = np.repeat(events.step[here] - first + self.program.populations[i].level + 1, count)
            found.append(np.column_stack([step, table[at]]))
        rows = np.concatenate(found)
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def _currents(self, image: np.ndarray, index: int) -> dict[int, np.ndarray]:
        """Values int64 [T, positions] of every host current by number."""
        T = self.program.timesteps
        values = (self.host.current(k, image, index)[0] for k in range(len(self.program.host_currents)))
        return {k: np.broadcast_to(v.reshape(len(v), -1), (T, v[0].size)) for k, v in enumerate(values)}

    def _add_currents(self, currents: dict[int, np.ndarray], step: int) -> None:
        """Write the accumulators of this step, as a host does between steps."""
        if not currents:
            return
        table, sizes = self.image.currents, self.image.sizes
        acc = np.zeros((sizes.cores, sizes.neurons), np.int64)
        for entry, told in enumerate(self.image.facts["currents"]):
            t = step - told["level"]
            if 0 <= t < self.program.timesteps:
                rows = table[table[:, 0] == entry]
                np.add.at(acc, (rows[:, 2], rows[:, 3]), currents[told["current"]][t, rows[:, 1]])
        for core in range(sizes.cores):
            if acc[core].any():
                self.machine.write(core, ACCUMULATORS, 0, acc[core] % ACCUMULATOR)

    def _readout(self) -> np.ndarray:
        outs = [i for i, p in enumerate(self.program.populations) if p.model == "readout"]
        return self._values(V, outs[0]) if outs else np.zeros(0, np.int64)

    def _values(self, mem: int, population: int) -> np.ndarray:
        """Numbers of 24 bits with sign of a population's somas, of memory u or v: int64 [somas]."""
        core, neuron = self._at[population]
        found = np.zeros(len(core), np.int64)
        for c in np.unique(core).tolist():
            here = core == c
            found[here] = self.machine.read(c, mem).astype(np.int64)[neuron[here]] & 0xFFFFFF
        return found - (found >> 23 << 24)

    # -- what came out ---------------------------------------------------------------------------

    def _events(self, fired: list[np.ndarray], T: int) -> dict[int, Events]:
        """Events of every population with neurons, by timestep over all samples."""
        found = {}
        for i, (core, neuron) in self._at.items():
            level = self.program.populations[i].level
            parts = [window[level : level + T, core, neuron] for window in fired]
            codes = np.concatenate([np.zeros((0, len(core)), np.uint8), *parts])
            if self.program.populations[i].model != "readout":
                found[i] = events_of(codes, False)
        return found

    def _potentials(self, kept: list[list[np.ndarray]], probes: Mapping[int, np.ndarray], T: int) -> Potentials:
        found = {}
        for number, i in enumerate(probes):
            level = self.program.populations[i].level
            parts = [np.array(window[number :: len(probes)])[level : level + T] for window in kept]
            both = np.concatenate([np.zeros((0, 2, len(probes[i])), np.int64), *parts])
            found[i] = both[:, 0], both[:, 1]
        return found

    def _counters(
        self, events: dict[int, Events], samples: int, steps: int, active: dict[int, np.ndarray] | None = None
    ) -> Counters:
        """The counters of the Program's own definitions, recounted from the spikes."""
        recount = Recount(self.program, None, 0 if self.program.timesteps else steps)
        trace = Trace(events, samples, steps)
        for part in split(trace, self.program.timesteps, max(samples, 1)) if self.program.timesteps else [trace]:
            recount.add(Chunk(0, part, active or {}))
        over = np.zeros((len(self.program.populations), len(OVERFLOW)), np.int64)
        told = self.machine.over()
        for i, (core, neuron) in self._at.items() if told is not None else ():
            over[i, :3] = told[core, neuron].sum(axis=0)
        counts = [self.machine.read(core, COUNTERS) for core in range(self.image.sizes.cores)]
        self.out_of_range = int(sum(int(c[10]) + int(c[11]) for c in counts))
        self._check(over)
        return recount.finish(over)

    def _check(self, over: np.ndarray) -> None:
        """VerifyError, where strict, for the first population that left its range."""
        if self.strict and self.out_of_range and not over.any():
            raise VerifyError(
                f"{self.out_of_range} sums, currents or potentials left their range; lower the weight scale or the "
                "input, or run without strict to count such values"
            )
        if self.strict and over.any():
            i, name = np.argwhere(over)[0]
            raise VerifyError(
                f"overflow in population '{self.program.populations[i].name}': {over[i, name]} values left the range "
                f"of '{OVERFLOW[name]}'; lower the weight scale or the input, or run without strict to count such"
                " values"
            )


def _by_soma(rows: np.ndarray, population: int, somas: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a population in the table of inputs as (start [somas + 1], (core, axon) [n, 2])."""
    mine = rows[rows[:, 0] == population]
    mine = mine[np.argsort(mine[:, 1], kind="stable")].astype(np.int64)
    return np.searchsorted(mine[:, 1], np.arange(somas + 1)), mine[:, 2:]


def _places(rows: np.ndarray, population: int) -> tuple[np.ndarray, np.ndarray]:
    mine = rows[rows[:, 0] == population]
    mine = mine[np.argsort(mine[:, 1], kind="stable")]
    return mine[:, 2].astype(np.int64), mine[:, 3].astype(np.int64)
