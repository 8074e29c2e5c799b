"""Packets of a run, tick by tick, from its functional trace and the mapping (docs/timing.md).

An event of timestep t of sample n leaves its core in tick ``n * interval + t * P + level`` and is
served at its destinations in that same tick, whatever its delay: the delay is kept by the dendrite that
it adds to. Only a dynamic synapse cannot do so; its table work is put off by ``delay - 1`` ticks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .deliveries import Deliveries, deliveries
from .kernels import packets as kernels
from .layout import Layout
from .rates import Rates
from .timing import analyse
from .trace import Events, Trace

BLOCK = 1 << 17  # deliveries that a block has room for, if its first tick does not need more
CELLS = 1 << 19  # ticks of a block times cores and links: the loads of a block stay small, too


@dataclass(frozen=True)
class Block:
    """Deliveries of the ticks ``first_tick`` to ``first_tick + ticks - 1``.

    Events stand in order of tick, then source core (-1: the host), then emission: population, soma.
    event_tick: int64 [E], from ``first_tick``.  event_core, event_soma: int32 [E].  event_population: int64 [E].
    start: int64 [E + 1]; deliveries ``start[e]:start[e + 1]`` are those of event e, one per receiving core, in
    order of router x, router y, core.  dst, reads (axon entries met), ops (SynOps): int32 [n].
    cost: int64 [n], ps of synaptic work, reception left out.
    extra_cost, extra_ops: int64 [ticks, cores], work of earlier packets that was put off.
    """

    first_tick: int
    ticks: int
    event_tick: np.ndarray
    event_core: np.ndarray
    event_population: np.ndarray
    event_soma: np.ndarray
    start: np.ndarray
    dst: np.ndarray
    reads: np.ndarray
    ops: np.ndarray
    cost: np.ndarray
    extra_cost: np.ndarray
    extra_ops: np.ndarray

    def __len__(self) -> int:
        return len(self.dst)

    @property
    def event(self) -> np.ndarray:
        """int64 [n]: event of each delivery, counted within the block."""
        return np.repeat(np.arange(len(self.event_tick)), np.diff(self.start))

    @property
    def tick(self) -> np.ndarray:
        """int64 [n]: tick of each delivery, counted over the run."""
        return self.event_tick[self.event] + self.first_tick

    @property
    def src(self) -> np.ndarray:
        """int32 [n]: emitting core of each delivery; -1 the host."""
        return self.event_core[self.event]

    @property
    def network(self) -> np.ndarray:
        """bool [n]: packets; the others are local deliveries and messages of the host."""
        src = self.src
        return (src >= 0) & (src != self.dst)


class PacketStream:
    """Turns a trace into blocks of deliveries; memory does not grow with the length of the run.

    ``ticks``: ticks of the run, from the first of the first sample to the last update of the last one.
    UsageError if the trace lacks a population or is not one of this Program.
    """

    def __init__(self, program: Program, layout: Layout, rates: Rates, trace: Trace) -> None:
        self.program, self.layout, self.trace = program, layout, trace
        self.tables: Deliveries = deliveries(program, layout, analyse(program), rates)
        self.steps = program.timesteps
        self.senders = [i for i, p in enumerate(program.populations) if p.model != "readout"]
        self._check()
        last = trace.steps - 1
        self.ticks = self._tick(last, program.depth) + 1 if trace.steps else 0

    def _check(self) -> None:
        for i in self.senders:
            p = self.program.populations[i]
            if i not in self.trace.events:
                raise UsageError(f"the trace has no events of population '{p.name}'; record all: record='all'")
            events, somas = self.trace.events[i], int(np.prod(p.shape))
            if len(events) and not (
                events.step[0] >= 0
                and events.step[-1] < self.trace.steps
                and events.soma.min() >= 0
                and events.soma.max() < somas
            ):
                raise UsageError(
                    f"the trace has events of population '{p.name}' outside its {somas} somas and"
                    f" {self.trace.steps} timesteps: it belongs to another Program"
                )

    def _tick(self, step: int, level: int) -> int:
        """Tick at which a population of a level lives a timestep, timesteps counted over all samples."""
        p = self.program
        sample, t = divmod(step, self.steps) if self.steps else (0, step)
        return sample * p.interval + t * p.ticks_per_step + level

    def step_at(self, tick: int, level: int) -> int:
        """The first timestep, over all samples, that a population of a level lives at ``tick`` or later."""
        p, tick = self.program, max(tick - level, 0)
        if not self.steps:
            return -(-tick // p.ticks_per_step)
        sample, rest = divmod(tick, p.interval)
        return sample * self.steps + min(-(-rest // p.ticks_per_step), self.steps)

    def _cut(self, tick: int) -> list[int]:
        """Per sender, how many of its events come before ``tick``."""
        populations = self.program.populations
        steps = [self.step_at(tick, populations[i].level) for i in self.senders]
        return [int(np.searchsorted(self.trace.events[i].step, s)) for i, s in zip(self.senders, steps, strict=True)]

    def _room(self, start: list[int], end: list[int]) -> int:
        """Most deliveries that the events between two cuts can make."""
        widest = self.tables.widest[self.senders].tolist()
        return sum((b - a) * w for a, b, w in zip(start, end, widest, strict=True))

    def _extent(self, tick: int, start: list[int], step: int) -> tuple[int, list[int]]:
        """(ticks, cut) of the block at ``tick``: as many ticks, up to ``step``, as fit."""
        while True:
            step = min(step, self.ticks - tick)
            end = self._cut(tick + step)
            if step == 1 or self._room(start, end) <= BLOCK:
                return step, end
            step = max(step // 2, 1)

    def blocks(self) -> Iterator[Block]:
        """All ticks of the run, block by block."""
        cores, late = self.layout.cores, self.tables.late
        most = max(CELLS // (cores + self.layout.mesh.links), 1)
        tick, start, step = 0, self._cut(0), most
        carry = np.zeros((2, late, cores), np.int64)
        while tick < self.ticks:
            step, end = self._extent(tick, start, min(2 * step, most))
            extra = np.zeros((2, step + late, cores), np.int64)
            extra[:, :late] = carry
            yield self._block(tick, step, start, end, extra)
            carry = extra[:, step:]
            tick, start = tick + step, end

    def _events(self, tick: int, ticks: int, start: list[int], end: list[int]) -> tuple[np.ndarray, ...]:
        """(tick, population, soma, step, core) of the events between two cuts, in order of emission."""
        places, parts = self.tables.places, []
        for i, a, b in zip(self.senders, start, end, strict=True):
            events: Events = self.trace.events[i]
            if a == b:
                continue
            step, soma, level = events.step[a:b], events.soma[a:b], self.program.populations[i].level
            sample, t = np.divmod(step, self.steps) if self.steps else (0, step)
            at = sample * self.program.interval + t * self.program.ticks_per_step + (level - tick)
            parts.append((at, np.full(b - a, i), soma, step, places.core[places.soma[i] + soma]))
        if not parts:
            none = np.zeros(0, np.int64)
            return none, none, none.astype(np.int32), none, none.astype(np.int32)
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = kernels.order_events(joined[0], joined[4], self.layout.cores, ticks)
        return tuple(column[order] for column in joined)

    def _keys(self, tick: int, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Events of k by timestep and key, for every dynamic synapse: (start, first timestep, counts)."""
        starts, firsts, parts = [0], [], []
        for i, d in enumerate(self.program.dynamics):
            writer = self.program.populations[d.v if d.order == "kv" else d.q]
            keys = int(self.tables.writes.keys[i])
            first, last = (self.step_at(at, writer.level) for at in (tick, tick + ticks))
            count = np.zeros((last - first) * keys, np.int32)
            events, (channels, height, width) = self.trace.events[d.k], self.program.populations[d.k].shape
            a, b = np.searchsorted(events.step, [first, last])
            form = first, height * width, channels, d.heads, d.order == "kv", keys
            kernels.count_keys(events.step[a:b], events.soma[a:b], *form, count)
            parts.append(count)
            firsts.append(first)
            starts.append(starts[-1] + len(count))
        counts = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return np.array(starts, np.int64), np.array(firsts, np.int64), counts

    def _block(self, tick: int, ticks: int, start: list[int], end: list[int], extra: np.ndarray) -> Block:
        at, population, soma, step, core = self._events(tick, ticks, start, end)
        room, t = self._room(start, end), self.tables
        first, cost = np.empty(len(at) + 1, np.int64), np.empty(room, np.int64)
        dst, reads, ops = (np.empty(room, np.int32) for _ in range(3))
        tables = t.places, t.rows, t.later, t.writes, t.synapses, self._keys(tick, ticks)
        events, out = (at, population, soma, step), (first, dst, reads, ops, cost)
        n = kernels.deliver(events, self.steps, *tables, (extra[0], extra[1]), out)
        now = extra[:, :ticks]
        return Block(tick, ticks, at, core, population, soma, first, dst[:n], reads[:n], ops[:n], cost[:n], *now)
