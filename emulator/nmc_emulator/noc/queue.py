"""Fidelity ``queue``: packets as discrete events, from output queues over links to synapse pipelines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nmc_compiler.errors import CapacityError

from ..kernels import noc_queue as kernels
from ..rates import PS
from .schedule import Schedule, Work, hop_times, link_name
from .times import TickLoads


def grid_of(schedule: Schedule) -> kernels.Grid:
    """The mesh as the kernel sees it; CapacityError if it has more queues than event keys have room for."""
    mesh, spec = schedule.mesh, schedule.spec
    height, queues = mesh.routers[1], mesh.links + schedule.cores
    if queues >= 1 << kernels.BITS:
        raise CapacityError(
            f"Program '{schedule.program.name}' is mapped to a mesh of {queues} queues; the simulation of queues"
            f" takes up to {(1 << kernels.BITS) - 1}; map to fewer chips"
        )
    occupied = round(spec.flits * spec.flit_ns * PS)
    x, y = mesh.at.astype(np.int64).T.copy()
    return kernels.Grid(height, mesh.links, x, y, occupied, spec.slots)


def state_of(schedule: Schedule, grid: kernels.Grid) -> kernels.State:
    """An idle mesh."""
    mesh, cores = schedule.mesh, schedule.cores
    width, height = mesh.routers[0] * mesh.chips, mesh.routers[1]
    router, direction = np.divmod(np.arange(mesh.links), 4)
    dx, dy = np.array([1, -1, 0, 0])[direction], np.array([0, 0, 1, -1])[direction]
    nodes = np.zeros((mesh.links + cores, kernels.COLUMNS), np.int64)
    nodes[: mesh.links, kernels.X] = (router // height + dx) % width  # edges have no such link; any place will do
    nodes[: mesh.links, kernels.Y] = (router % height + dy) % height
    nodes[: mesh.links, kernels.HOP] = hop_times(mesh, schedule.rates, schedule.spec)
    nodes[mesh.links :, [kernels.X, kernels.Y]] = mesh.at
    leaves = 1 << max(len(nodes) - 1, 0).bit_length()
    tree = np.full(2 * leaves, kernels.NEVER, np.int64)
    release = np.zeros(len(nodes) * grid.slots, np.int64)
    return kernels.State(tree, nodes.reshape(-1), release, *(np.zeros(cores, np.int64) for _ in range(3)))


def buffers_of(packets: int, cores: int) -> tuple:
    """Room for the deliveries of a tick: (network, local) as kernels.noc_emit fills them."""
    first = (np.empty(cores + 1, np.int64) for _ in range(2))
    ready, service, local_ready, local_service = (np.empty(packets, np.int64) for _ in range(4))
    net = next(first), np.empty(4 * packets, np.int64), ready, service
    return net, (next(first), local_ready, local_service)


def largest_tick(work: Work) -> int:
    """Most deliveries in one tick of the block."""
    return int(np.diff(work.block.start[work.first]).max(initial=0))


def run_queue(schedule: Schedule, multicast: bool) -> Iterator[TickLoads]:
    """Loads of all ticks; CapacityError where nothing moves any more or a tick is longer than a second."""
    grid, cores = grid_of(schedule), schedule.cores
    state, rates = state_of(schedule, grid), schedule.soma_rates
    room, buffers = 0, buffers_of(0, cores)
    for work in schedule.work():
        if largest_tick(work) > room:
            room = 2 * largest_tick(work)
            buffers = buffers_of(room, cores)
        ticks = work.block.ticks
        shapes = (cores, grid.links, grid.links, grid.links + cores, cores, 2)
        synapse, link, crossed, depth, soma, end = (np.zeros((ticks, n), np.int64) for n in shapes)
        loads = kernels.Loads(synapse, link, crossed, depth)
        stuck = kernels.run_ticks(
            ticks,
            work.first,
            work.events(),
            schedule.somas,
            work.live,
            work.head,
            rates,
            multicast,
            work.extra,
            grid,
            state,
            buffers[0],
            buffers[1],
            loads,
            (soma, end),
        )
        if stuck >= 0:
            raise _stuck(schedule, state, work.block.first_tick + stuck, end[stuck].tolist(), depth[stuck])
        last = np.maximum(end[:, 0], soma.max(axis=1, initial=0))
        yield TickLoads(
            work.block.first_tick, soma / PS, synapse / PS, link / PS, crossed, depth, last / PS, end[:, 1].copy()
        )


def _stuck(schedule: Schedule, state: kernels.State, tick: int, end: list[int], depth: np.ndarray) -> CapacityError:
    """Why the events of a tick ran out before its packets were served, or were never started."""
    where, mesh, (last, packets) = f"tick {tick} of Program '{schedule.program.name}'", schedule.mesh, end
    if last < 0:
        return CapacityError(
            f"overload: {where} has {packets} packets that could take more than a second; map it to more cores, or"
            " check the times of the price profile"
        )
    waiting = state.nodes.reshape(-1, kernels.COLUMNS)[:, kernels.WAITING]
    blocked = np.flatnonzero(waiting >= 0)
    node = int(blocked[np.argmax(depth[blocked])])
    name = link_name(mesh, node) if node < mesh.links else f"axon input of core {node - mesh.links}"
    return CapacityError(
        f"deadlock: {where} stands still with {packets} packets, {len(blocked)} buffers full, first {name} with"
        f" {schedule.spec.slots} slots; give larger buffers (NocSpec.buffer_flits)"
    )
