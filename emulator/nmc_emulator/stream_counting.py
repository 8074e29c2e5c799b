"""Counters of the event engine, after the fact: everything but the loads per tick follows from event counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .counters import BOUND, Counters
from .kernels import stream_tally as tally
from .kernels.stream_tables import Net, State
from .statics import static_counters
from .stream_plan import StreamPlan
from .stream_synapses import chunks, core_of_tile, home_tiles
from .timing import SPARSE, Edge, multiplies, synaptic_unit


class StreamCounting:
    """Turns the state of a run into counters; what depends on the mapping alone is worked out once."""

    def __init__(self, plan: StreamPlan) -> None:
        self.plan, self.layout = plan, plan.layout
        core = core_of_tile(plan.layout)
        self.homes = []
        for i, p in enumerate(plan.program.populations):
            tiles = home_tiles(plan.program, plan.layout, i)
            self.homes.append(np.full(len(tiles), plan.layout.cores) if p.dendrite < 0 else core[tiles])
        at, routers = plan.layout.mesh.at, plan.layout.mesh.routers
        apart = np.abs(at[:, None] - at[None])  # [cores, cores, 2]
        chip = at[:, 0] // routers[0]
        self.crossings = np.abs(chip[:, None] - chip[None])
        self.hops = apart[..., 0] - self.crossings, apart[..., 1]

    def counters(self, state: State, steps: int, samples: int, now: int) -> Counters:
        """Counters of ``samples`` windows of ``steps`` timesteps, ``now`` ticks into the run."""
        plan = self.plan
        program = replace(plan.program, timesteps=steps)
        found = static_counters(program, plan.layout, plan.timing)
        total = Counters.zeros(program, plan.layout.cores)
        total.add(found, samples)
        for i in range(len(program.populations)):
            self._population(i, state, total)
        for n, e in enumerate(plan.edges):
            self._edge(n, e, state, total, now)
        total.bound.update(zip(BOUND, state.bound.tolist(), strict=True))
        for i, row in enumerate(state.over):
            total.overflow_of(i)[:] = row
        return total

    def _population(self, i: int, state: State, total: Counters) -> None:
        tables, pop, homes = total.tables, self.plan.net.pops[i], self.homes[i]
        fired = state.fired[pop["soma"] : pop["soma"] + pop["size"]]
        paid = state.paid[pop["soma"] : pop["soma"] + pop["size"]] if self.plan.coded[i] else fired
        tally.add_by_home(fired, homes, tables["events"][i])
        tally.add_by_home(paid, homes, tables["payload_sum"][i])
        sent = self._sent(i, fired)
        tables["input_messages"][i, :-1] += sent[-1]
        local, remote = np.diag(sent[:-1]), sent[:-1] - np.diag(np.diag(sent[:-1]))
        tables["packets_local"][i, :-1] += local
        tables["packets"][i, :-1] += remote.sum(1)
        tables["packets_in"][i, :-1] += remote.sum(0)
        names = ("hops_ew", self.hops[0]), ("hops_ns", self.hops[1]), ("chip_crossings", self.crossings)
        for name, distance in names:
            tables[name][i, :-1] += (remote * distance).sum(1)

    def _sent(self, i: int, fired: np.ndarray) -> np.ndarray:
        """Events from core to core, the host as the last source: int64 [cores + 1, cores]."""
        plan, cores = self.plan, self.layout.cores
        sent, homes = np.zeros((cores + 1, cores), np.int64), self.homes[i]
        fed = [e for e in plan.edges if e.src == i]
        if len(fed) == 1 and fed[0].kind == SPARSE:
            row = plan.rows[fed[0].index]
            tally.add_meetings(fired, homes, plan.net.synapses[row : row + len(fired)], sent)
        elif fed:
            for first, stop in chunks(np.arange(len(fired) + 1), cores):
                met = plan.targets(i, first, stop).astype(np.int8)
                tally.add_meetings(fired[first:stop], homes[first:stop], met, sent)
        return sent

    def _edge(self, n: int, e: Edge, state: State, total: Counters, now: int) -> None:
        plan, tables = self.plan, total.tables
        name, unit = "synops_mac" if multiplies(plan.program, e) else "synops_ac", synaptic_unit(plan.program, e)
        if e.kind != SPARSE:
            row = plan.net.edges[n]
            for axon, done in zip(
                plan.net.axons[row["axons"] : row["axons_end"]], state.done[row["axons"] :], strict=False
            ):
                tables[name][unit, axon["core"]] += done[0]
                tables["axon_reads"][e.unit, axon["core"]] += done[1]
                tables["waste_events"][e.unit, axon["core"]] += done[2]
            return
        pop, first = plan.net.pops[e.src], plan.rows[e.index]
        rows = slice(first, first + int(pop["size"]))
        fired, missed = state.fired[pop["soma"] : pop["soma"] + pop["size"]], state.missed[rows]
        received = fired - flying(plan.net, state, e, plan.slots, now)
        tables["axon_reads"][e.unit, :-1] += self._entries(received, rows)
        tables["waste_events"][e.unit, :-1] += self._entries(missed, rows)
        tables[name][unit, :-1] += self._product(received - missed, plan.net.synapses[rows])

    def _entries(self, events: np.ndarray, rows: slice) -> np.ndarray:
        """Axon entries that events of a Sparse's source meet, int64 [cores]; one wherever there are synapses if
        there is no table of them."""
        net = self.plan.net
        if net.entries is not None:
            return self._product(events, net.entries[rows])
        total = np.zeros(net.synapses.shape[1], np.int64)
        tally.add_met_times(events, net.synapses[rows], total)
        return total[: self.layout.cores]

    def _product(self, events: np.ndarray, table: np.ndarray) -> np.ndarray:
        total = np.zeros(table.shape[1], np.int64)
        tally.add_rows_times(events, table, total)
        return total[: self.layout.cores]


def flying(net: Net, state: State, e: Edge, slots: int, now: int) -> np.ndarray:
    """Events per source soma that an edge has not delivered yet, int64 [somas]."""
    pop = net.pops[e.src]
    found = np.zeros(int(pop["size"]), np.int64)
    for tick in range(max(now - e.delay, 0), now):
        slot = tick % slots
        begin = int(pop["event"]) + slot * int(pop["size"])
        found += np.bincount(state.ring[begin : begin + int(state.listed[e.src, slot])], minlength=len(found))
    return found
