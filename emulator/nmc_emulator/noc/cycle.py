"""Fidelity ``cycle``: flit by flit on meshes of up to 64 cores, the reference for ``queue``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nmc_compiler.errors import CapacityError

from ..kernels import noc_cycle as kernels
from ..kernels.noc_emit import DST, emit
from ..rates import PS
from .queue import buffers_of, largest_tick
from .schedule import Schedule, Work, hop_times, link_name
from .times import TickLoads

MOST_CYCLES = 50_000_000  # of one tick; a minute or so


class _Mesh:
    """Mesh and times in cycles."""

    def __init__(self, schedule: Schedule) -> None:
        spec, mesh = schedule.spec, schedule.mesh
        self.schedule, self.flits, self.capacity = schedule, spec.flits, spec.buffer_flits
        self.shape = (mesh.routers[0] * mesh.chips, mesh.routers[1])
        self.place = mesh.at.astype(np.int64)
        self.ps = round(spec.flit_ns * PS)
        hops = hop_times(mesh, schedule.rates, spec).reshape(*self.shape, 4)
        self.delay = np.maximum(1, np.rint(hops / self.ps)).astype(np.int64)
        self.cores, self.slot = self._cores()

    def _cores(self) -> tuple[np.ndarray, np.ndarray]:
        """(cores of every router, place of every core among them)."""
        n, slot = np.zeros(self.shape, np.int64), np.zeros(len(self.place), np.int64)
        for c, (x, y) in enumerate(self.place.tolist()):
            slot[c] = n[x, y]
            n[x, y] += 1
        cores = np.full((*self.shape, int(n.max())), kernels.IDLE, np.int64)
        cores[self.place[:, 0], self.place[:, 1], slot] = np.arange(len(slot))
        return cores, slot

    def routers(self) -> kernels.Routers:
        """Idle routers."""
        ports, outputs = (*self.shape, 4), (*self.shape, 4 + self.cores.shape[2])
        wire = np.full((*ports, int(self.delay.max()) + 1), kernels.IDLE, np.int64)
        return kernels.Routers(
            cores=self.cores,
            slot=self.slot,
            buffer=np.zeros((*ports, self.capacity), np.int64),
            top=np.zeros(ports, np.int64),
            fill=np.zeros(ports, np.int64),
            credit=np.full(ports, self.capacity, np.int64),
            returned=np.zeros(ports, np.int64),
            wire=wire,
            delay=self.delay,
            turn=np.zeros(outputs, np.int64),
            owner=np.full(outputs, kernels.IDLE, np.int64),
            sent=np.zeros(ports, np.int64),
            held=np.zeros(self.shape, np.int64),
            due=np.zeros(self.shape, np.int64),
        )

    def core_state(self, packets: kernels.Packets, local: kernels.Local, extra: np.ndarray) -> kernels.Cores:
        """Cores before a tick: nothing received, work at hand in ``extra`` ps."""
        n = len(self.place)
        return kernels.Cores(
            next_flit=packets.first[:-1] * self.flits,
            packet=np.zeros((n, self.capacity), np.int64),
            arrived=np.zeros((n, self.capacity), np.int64),
            top=np.zeros(n, np.int64),
            waiting=np.zeros(n, np.int64),
            room=np.full(n, self.capacity, np.int64),
            busy=extra / self.ps,
            local=local.first[:-1].copy(),
        )

    def cycles(self, ps: np.ndarray) -> np.ndarray:
        """The cycle that begins at a time or next after it."""
        return -(-ps // self.ps)

    def tick(self, net: tuple, own: tuple, extra: np.ndarray, what: str) -> tuple[float, np.ndarray]:
        """(ps of the last end of service, packets per link) of one tick."""
        (first, sent, ready, service), n, m = net, int(net[0][-1]), int(own[0][-1])
        packets = kernels.Packets(first, sent[DST : 4 * n : 4].copy(), self.cycles(ready[:n]), service[:n] / self.ps)
        local = kernels.Local(own[0], self.cycles(own[1][:m]), own[2][:m] / self.ps)
        routers, cores = self.routers(), self.core_state(packets, local, extra)
        served, cycles = kernels.run_tick(self.place, packets, local, self.flits, routers, cores, MOST_CYCLES)
        if served < 0:
            raise self._failed(served, cycles, routers, what)
        return float(cores.busy.max()) * self.ps, routers.sent.reshape(-1) // self.flits

    def _failed(self, why: int, cycles: int, r: kernels.Routers, what: str) -> CapacityError:
        used = (self.capacity - r.credit).reshape(-1)
        link = int(np.argmax(used))
        full = f"{link_name(self.schedule.mesh, link)} holds {used[link]} flits in {self.capacity}"
        if why == kernels.STUCK:
            return CapacityError(f"deadlock: {what} stands still, {full}; give larger buffers (NocSpec.buffer_flits)")
        return CapacityError(
            f"overload: {what} is not over after {cycles} cycles of {self.ps} ps, {full}; use fidelity queue, or"
            " spread the traffic over more cores"
        )


def run_cycle(schedule: Schedule) -> Iterator[TickLoads]:
    """Loads of all ticks, one packet per destination; depth is not measured and reads 0."""
    mesh = _Mesh(schedule)
    for work in schedule.work():
        yield _block(mesh, work)


def _block(mesh: _Mesh, work: Work) -> TickLoads:
    schedule, links, cores = mesh.schedule, mesh.schedule.mesh.links, mesh.schedule.cores
    ticks = work.block.ticks
    soma, synapse, crossed = (np.zeros((ticks, n), np.int64) for n in (cores, cores, links))
    last, packets = np.zeros(ticks), np.zeros(ticks, np.int64)
    net, own = buffers_of(largest_tick(work), cores)
    for t in range(ticks):
        part = int(work.first[t]), int(work.first[t + 1]), *work.events()
        form = schedule.somas, work.live[t], work.head[t], schedule.soma_rates, False
        packets[t] = emit(part, *form, net, own, soma[t], work.extra[t])
        synapse[t] = work.extra[t] + _received(net, own, cores)
        what = f"tick {work.block.first_tick + t} of Program '{schedule.program.name}'"
        end, crossed[t] = mesh.tick(net, own, work.extra[t], what)
        last[t] = max(end, soma[t].max(initial=0)) / PS
    link = crossed * (mesh.ps * mesh.flits / PS)
    depth = np.zeros((ticks, links + cores), np.int64)
    return TickLoads(work.block.first_tick, soma / PS, synapse / PS, link, crossed, depth, last, packets)


def _received(net: tuple, own: tuple, cores: int) -> np.ndarray:
    """int64 [cores] ps of synaptic work that the deliveries of a tick bring."""
    found, n = np.zeros(cores, np.int64), int(net[0][-1])
    np.add.at(found, net[1][DST : 4 * n : 4], net[3][:n])
    for c in range(cores):
        found[c] += own[2][own[0][c] : own[0][c + 1]].sum()
    return found
