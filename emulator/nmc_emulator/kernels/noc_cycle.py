"""One tick on the mesh, flit by flit, cycle after cycle: input-buffered routers, wormhole switching, credits.

Written apart from ``noc_queue``, sharing nothing with it, so that each can judge the other. A cycle is the
time of one flit on a link. In every cycle flits arrive first; then every output of every router takes one
flit from the input whose turn it is (round robin among heads of packets; a packet keeps its output until
its tail has passed), if the buffer at the far end has room. A flit sent in cycle k can go on in cycle
k + delay at the next router, and is in a core's axon input in cycle k + 1. Room that a flit leaves in cycle k
can be used in cycle k + 1.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

EAST, WEST, NORTH, SOUTH = 0, 1, 2, 3
IDLE = -1
OVER, STUCK = -1, -2  # in place of the packets served
NEVER = np.int64(2**62)


class Packets(NamedTuple):
    """Packets of one tick by source core, in order of emission: ``first[c]:first[c + 1]`` leave core c."""

    first: np.ndarray  # int64 [cores + 1]
    dst: np.ndarray  # int64
    ready: np.ndarray  # int64, cycle
    service: np.ndarray  # float64, cycles


class Local(NamedTuple):
    """Deliveries of cores to themselves, in order of ready: ``first[c]:first[c + 1]`` are core c's."""

    first: np.ndarray
    ready: np.ndarray
    service: np.ndarray


class Routers(NamedTuple):
    """State of all routers. An input is one of four neighbours' sides or a core; so is an output."""

    cores: np.ndarray  # int64 [w, h, k] cores at the router, -1 for none
    slot: np.ndarray  # int64 [cores]: which of its router's cores it is
    buffer: np.ndarray  # int64 [w, h, 4, capacity] rings of flits: packet * flits + number
    top: np.ndarray  # int64 [w, h, 4] place of the first flit in the ring
    fill: np.ndarray  # int64 [w, h, 4]
    credit: np.ndarray  # int64 [w, h, 4] flits that still fit behind an output
    returned: np.ndarray  # int64 [w, h, 4] credits of this cycle, usable in the next
    wire: np.ndarray  # int64 [w, h, 4, longest + 1] flits under way, by cycle of arrival modulo longest + 1
    delay: np.ndarray  # int64 [w, h, 4]
    turn: np.ndarray  # int64 [w, h, 4 + k] last input whose packet got the output
    owner: np.ndarray  # int64 [w, h, 4 + k] input whose packet holds the output
    sent: np.ndarray  # int64 [w, h, 4] flits carried
    held: np.ndarray  # int64 [w, h] flits in the router's buffers
    due: np.ndarray  # int64 [w, h] flits on wires that leave the router, and credits returned to it


class Cores(NamedTuple):
    """State of all cores: output queues and axon inputs."""

    next_flit: np.ndarray  # int64 [cores]
    packet: np.ndarray  # int64 [cores, capacity] ring of packets in the axon input
    arrived: np.ndarray  # int64 [cores, capacity]
    top: np.ndarray  # int64 [cores]
    waiting: np.ndarray  # int64 [cores] packets in the ring
    room: np.ndarray  # int64 [cores] flits that still fit
    busy: np.ndarray  # float64 [cores] cycle until which it serves
    local: np.ndarray  # int64 [cores] next local delivery


@njit(cache=True, nogil=True)
def _step(x, y, direction):
    if direction == EAST:
        return x + 1, y
    if direction == WEST:
        return x - 1, y
    return (x, y + 1) if direction == NORTH else (x, y - 1)


@njit(cache=True, nogil=True)
def _arrive(r, cycle):
    """Flits that are due reach the buffers of the next routers; credits of the last cycle become usable."""
    width, height = r.held.shape
    now, moved = cycle % r.wire.shape[3], 0
    for x in range(width):
        for y in range(height):
            if r.due[x, y] == 0:
                continue
            for d in range(4):
                r.credit[x, y, d] += r.returned[x, y, d]
                r.due[x, y] -= r.returned[x, y, d]
                r.returned[x, y, d] = 0
                flit = r.wire[x, y, d, now]
                if flit == IDLE:
                    continue
                r.wire[x, y, d, now] = IDLE
                to_x, to_y = _step(x, y, d)
                side = d ^ 1  # what leaves to the east comes in from the west
                at = (r.top[to_x, to_y, side] + r.fill[to_x, to_y, side]) % r.buffer.shape[3]
                r.buffer[to_x, to_y, side, at] = flit
                r.fill[to_x, to_y, side] += 1
                r.held[to_x, to_y] += 1
                r.due[x, y] -= 1
                moved += 1
    return moved


@njit(cache=True, nogil=True)
def _serve(c, cores, local, packets, flits, cycle):
    """Start services of a core that can start by now, first come first served. Returns packets of the mesh started."""
    started = 0
    while True:
        from_mesh = cores.waiting[c] > 0 and cores.arrived[c, cores.top[c]] <= cycle
        at = cores.local[c]
        own = at < local.first[c + 1] and local.ready[at] <= cycle
        if own and from_mesh:
            own = local.ready[at] <= cores.arrived[c, cores.top[c]]
        if own:
            begin = max(cores.busy[c], float(local.ready[at]))
            if begin > cycle:
                return started
            cores.busy[c] = begin + local.service[at]
            cores.local[c] += 1
        elif from_mesh:
            begin = max(cores.busy[c], float(cores.arrived[c, cores.top[c]]))
            if begin > cycle:
                return started
            cores.busy[c] = begin + packets.service[cores.packet[c, cores.top[c]]]
            cores.top[c] = (cores.top[c] + 1) % cores.packet.shape[1]
            cores.waiting[c] -= 1
            cores.room[c] += flits
            started += 1
        else:
            return started


@njit(cache=True, nogil=True)
def _output_of(flit, x, y, i, place, r, packets, flits):
    """Output that the front flit of input i asks for: a head goes where XY leads, the rest follows it."""
    if flit % flits:
        for o in range(r.owner.shape[2]):
            if r.owner[x, y, o] == i:
                return o
    dst = packets.dst[flit // flits]
    to_x, to_y = place[dst, 0], place[dst, 1]
    if to_x != x:
        return EAST if to_x > x else WEST
    if to_y != y:
        return NORTH if to_y > y else SOUTH
    return 4 + r.slot[dst]


@njit(cache=True, nogil=True)
def _look(x, y, place, r, cores, packets, flits, cycle, front, wanted):
    """Front flit of every input of a router and the output it asks for. Returns whether there is any."""
    found, first = False, 0 if r.held[x, y] else 4
    wanted[:4] = IDLE
    for i in range(first, len(front)):
        front[i], wanted[i] = IDLE, IDLE
        if i < 4:
            if r.fill[x, y, i] > 0:
                front[i] = r.buffer[x, y, i, r.top[x, y, i]]
        elif r.cores[x, y, i - 4] >= 0:
            c = r.cores[x, y, i - 4]
            flit = cores.next_flit[c]
            if flit < packets.first[c + 1] * flits and packets.ready[flit // flits] <= cycle:
                front[i] = flit
        if front[i] != IDLE:
            wanted[i] = _output_of(front[i], x, y, i, place, r, packets, flits)
            found = True
    return found


@njit(cache=True, nogil=True)
def _choose(x, y, o, r, flits, front, wanted):
    """Input that output o takes a flit from, or IDLE."""
    if r.owner[x, y, o] != IDLE:
        i = r.owner[x, y, o]
        return i if wanted[i] == o and front[i] % flits else IDLE
    inputs = len(front)
    for k in range(1, inputs + 1):
        i = (r.turn[x, y, o] + k) % inputs
        if wanted[i] == o and front[i] % flits == 0:
            return i
    return IDLE


@njit(cache=True, nogil=True)
def _switch(x, y, r, cores, flits, cycle, front, wanted):
    """Every output of a router sends a flit if it can. Returns how many went onto links and to cores."""
    sent, ejected = 0, 0
    for o in range(len(front)):
        c = IDLE if o < 4 else r.cores[x, y, o - 4]
        if (o < 4 and r.credit[x, y, o] == 0) or (o >= 4 and (c == IDLE or cores.room[c] == 0)):
            continue
        i = _choose(x, y, o, r, flits, front, wanted)
        if i == IDLE:
            continue
        flit = front[i]
        tail = flit % flits == flits - 1
        if flit % flits == 0:
            r.turn[x, y, o] = i
        r.owner[x, y, o] = IDLE if tail else i
        wanted[i] = IDLE
        if i < 4:
            r.top[x, y, i] = (r.top[x, y, i] + 1) % r.buffer.shape[3]
            r.fill[x, y, i] -= 1
            r.held[x, y] -= 1
            from_x, from_y = _step(x, y, i)
            r.returned[from_x, from_y, i ^ 1] += 1
            r.due[from_x, from_y] += 1
        else:
            cores.next_flit[r.cores[x, y, i - 4]] += 1
        if o < 4:
            sent += 1
            r.due[x, y] += 1
            r.credit[x, y, o] -= 1
            r.sent[x, y, o] += 1
            r.wire[x, y, o, (cycle + r.delay[x, y, o]) % r.wire.shape[3]] = flit
        else:
            ejected += 1
            cores.room[c] -= 1
            if tail:
                at = (cores.top[c] + cores.waiting[c]) % cores.packet.shape[1]
                cores.packet[c, at], cores.arrived[c, at] = flit // flits, cycle + 1
                cores.waiting[c] += 1
    return sent, ejected


@njit(cache=True, nogil=True)
def _next_cycle(cycle, cores, packets, flits):
    """The first later cycle in which anything can happen while no flit moves; NEVER for none."""
    soonest = NEVER
    for c in range(len(cores.busy)):
        p = cores.next_flit[c] // flits
        if p < packets.first[c + 1] and packets.ready[p] > cycle:
            soonest = min(soonest, packets.ready[p])
        if cores.waiting[c] > 0:
            soonest = min(soonest, max(np.int64(np.ceil(cores.busy[c])), cores.arrived[c, cores.top[c]], cycle + 1))
    return soonest


@njit(cache=True, nogil=True)
def run_tick(place, packets, local, flits, r, cores, limit):
    """Run a tick from an idle mesh. Returns packets served (or OVER, STUCK) and the cycles looked at.

    place int64 [cores, 2].  limit: most cycles to look at.  ``cores.busy`` ends as the last end of service.
    """
    width, height = r.held.shape
    inputs = 4 + r.cores.shape[2]
    front, wanted = np.empty(inputs, np.int64), np.empty(inputs, np.int64)
    total = packets.first[len(place)]
    cycle, served, looked, flying = np.int64(0), 0, 0, 0
    while served < total:
        looked += 1
        if looked > limit:
            return OVER, looked
        flying -= _arrive(r, cycle)
        moved = 0
        for c in range(len(place)):
            served += _serve(c, cores, local, packets, flits, cycle)
        for x in range(width):
            for y in range(height):
                if _look(x, y, place, r, cores, packets, flits, cycle, front, wanted):
                    sent, ejected = _switch(x, y, r, cores, flits, cycle, front, wanted)
                    flying, moved = flying + sent, moved + sent + ejected
        if moved > 0 or flying > 0:
            cycle += 1
            continue
        cycle = _next_cycle(cycle, cores, packets, flits)
        if cycle == NEVER and served < total:
            return STUCK, looked
    for c in range(len(place)):
        for at in range(cores.local[c], local.first[c + 1]):
            cores.busy[c] = max(cores.busy[c], float(local.ready[at])) + local.service[at]
    return served, looked
