"""What happens in which tick: which populations live, what cores do before their somas, what they send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from ..layout import Layout, Mesh, resolve
from ..packets import Block, PacketStream
from ..rates import Rates
from ..statics import biased_per_core, transfer_per_core, updates_per_core
from ..trace import Trace
from .spec import NocSpec


@dataclass(frozen=True)
class Work:
    """One block of ticks, ready for a simulator.

    first: int64 [ticks + 1], events of each tick; before: int32 [E], somas of the population that the core
    updates before the event's; live: bool [ticks, populations]; head: int64 [ticks, cores] ps of soma work before
    the first update; extra: int64 [ticks, cores] ps of synaptic work that is there when the tick opens.
    """

    block: Block
    first: np.ndarray
    before: np.ndarray
    live: np.ndarray
    head: np.ndarray
    extra: np.ndarray

    def events(self) -> tuple[np.ndarray, ...]:
        """Arrays as the kernels take them, without the bounds of a tick."""
        b = self.block
        return b.event_core, b.event_population, self.before, b.start, b.dst, b.cost


class Schedule:
    """The work of a run, block by block, priced in ps."""

    def __init__(
        self, program: Program, trace: Trace, rates: Rates, spec: NocSpec, layout: Layout | None = None
    ) -> None:
        self.program, self.rates, self.spec, self.trace = program, rates, spec, trace
        self.layout: Layout = layout or resolve(program)
        self.stream = PacketStream(program, self.layout, rates, trace)
        self.ticks, self.cores = self.stream.ticks, self.layout.cores
        populations = range(len(program.populations))
        self.somas = np.array([updates_per_core(program, self.layout, i) for i in populations], np.int64)
        biased = [biased_per_core(program.populations[i], self.layout) for i in populations]
        self.bias = np.array(biased, np.int64) * rates.bias
        moved = [transfer_per_core(program, self.layout, t) for t in program.transfers]
        self.moves = [compares * rates.compare + adds * rates.add for compares, adds in moved]

    @property
    def mesh(self) -> Mesh:
        return self.layout.mesh

    @property
    def soma_rates(self) -> tuple[int, int, int, int, int]:
        """ps as kernels.noc_emit takes them."""
        r = self.rates
        return r.active, r.inactive, r.spike_out, r.axon_out, r.axon_in

    def live(self, ticks: np.ndarray, level: int) -> np.ndarray:
        """bool [ticks]: whether a timestep of a population of this level falls on the tick."""
        p, at = self.program, ticks - level
        if not p.timesteps:
            return (at >= 0) & (at % p.ticks_per_step == 0) & (at // p.ticks_per_step < self.trace.steps)
        sample, rest = np.divmod(at, p.interval)
        inside = (rest % p.ticks_per_step == 0) & (rest // p.ticks_per_step < p.timesteps)
        return (at >= 0) & (sample < self.trace.samples) & inside

    def work(self) -> Iterator[Work]:
        """All ticks of the run; UsageError where a packet crosses chips and no time is known for that."""
        for block in self.stream.blocks():
            self._check_crossings(block)
            ticks = np.arange(block.first_tick, block.first_tick + block.ticks)
            live = np.stack([self.live(ticks, p.level) for p in self.program.populations], axis=1)
            head = np.zeros((block.ticks, self.cores), np.int64)
            for t, ps in zip(self.program.transfers, self.moves, strict=True):
                head[self.live(ticks, t.level)] += ps
            extra = block.extra_cost + live.astype(np.int64) @ self.bias
            first = np.searchsorted(block.event_tick, np.arange(block.ticks + 1))
            places = self.stream.tables.places
            before = places.order[places.soma[block.event_population] + block.event_soma]
            yield Work(block, first, before, live, head, extra)

    def _check_crossings(self, block: Block) -> None:
        mesh = self.mesh
        if mesh.chips == 1 or self.spec.crossing_ns is not None or not len(block):
            return
        net, chip = block.network, mesh.at[:, 0] // mesh.routers[0]
        crossing = np.flatnonzero(chip[block.src[net]] != chip[block.dst[net]])
        if len(crossing):
            src, dst = block.src[net][crossing[0]], block.dst[net][crossing[0]]
            raise UsageError(
                f"Program '{self.program.name}' sends packets between chips (core {src} on chip {chip[src]} to core"
                f" {dst} on chip {chip[dst]}), and nobody has published the time of such a link; give"
                " NocSpec(crossing_ns=...), or map to one chip"
            )


def link_name(mesh: Mesh, link: int) -> str:
    """'link (x,y)->(x',y')' by router coordinates, chips side by side along x."""
    router, direction = divmod(link, 4)
    x, y = divmod(router, mesh.routers[1])
    dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[direction]
    return f"link ({x},{y})->({x + dx},{y + dy})"


def hop_times(mesh: Mesh, rates: Rates, spec: NocSpec) -> np.ndarray:
    """int64 [links] ps of every link; a crossing without a time costs nothing, as no packet takes it."""
    per_chip, (width, height) = mesh.routers[0], (mesh.routers[0] * mesh.chips, mesh.routers[1])
    hop = np.empty((width, height, 4), np.int64)
    hop[:, :, :2], hop[:, :, 2:] = rates.hop_ew, rates.hop_ns
    crossing = round((spec.crossing_ns or 0.0) * 1000)
    hop[per_chip - 1 :: per_chip, :, 0] = crossing
    hop[::per_chip, :, 1] = crossing
    return hop.reshape(-1)
