"""Discrete events of one tick on the mesh: queues, links with finite bandwidth and buffers, cores that serve.

A *node* is a queue and the port in front of it. Nodes are numbered like the links (``Mesh.link``): the
link, and the buffer at its far end; then one per core: as a port its axon input, as a queue its output queue.
All times are int64 ps from the start of the tick. A queue asks for the port of its head packet when the
head has arrived and its predecessor's tail has left; ports grant in the order in which they are asked
(ties: lower number). A link carries one packet at a time and takes one only if the buffer has a slot.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from .noc_emit import DST, END, emit

NEVER = np.int64(2**62)
BITS = 21  # of an event's key for the queue number; the rest is the time

ARRIVAL, BEHIND = 2, 3  # columns of packets, after DST and END: when the head reaches its queue, who is next there
# columns of nodes
HEAD, TAIL = 0, 1  # first packet of the queue, -1 for none, and last one
LEFT, WENT = 2, 3  # when the last packet's tail left the queue; latest departure of the head's copies so far
FREE = 4  # when the port is free
TAKEN, INTO, OUTOF = 5, 6, 7  # slots of the buffer whose release is not known; next slot to take, to release
WAITING, LAST, NEXT = 8, 9, 10  # queues that wait for a slot behind this port; who waits behind this queue
CROSSED, DEEPEST = 11, 12  # packets carried; most in the queue
X, Y, HOP = 13, 14, 15  # router of the queue; time of the link
COLUMNS = 16


class Grid(NamedTuple):
    """The mesh. occupied: ps for which a packet has a link to itself; slots of a buffer, in packets."""

    height: int
    links: int
    core_x: np.ndarray  # int64 [cores]
    core_y: np.ndarray
    occupied: int
    slots: int


class State(NamedTuple):
    """Queues, ports and cores during a tick."""

    tree: np.ndarray  # int64 [2 * leaves]: smallest key below each place, in heap order; leaves are queues
    nodes: np.ndarray  # int64 [nodes, COLUMNS]
    release: np.ndarray  # int64 [nodes * slots]: when each slot was or will be released
    server: np.ndarray  # int64 [cores]: when the synapse pipeline is free
    local_at: np.ndarray  # int64 [cores]: next local delivery
    seen: np.ndarray  # int64 [cores]: packets of the output queue that are ready


class Loads(NamedTuple):
    """What a tick did: ps busy, packets carried, and the deepest queues."""

    synapse: np.ndarray  # int64 [cores]
    link: np.ndarray  # int64 [links]
    crossed: np.ndarray  # int64 [links] packets
    depth: np.ndarray  # int64 [nodes]: packets in a link's buffer or on their way to it; ready in an output queue


@njit(cache=True, nogil=True, forceinline=True)
def _set(tree, queue, time):
    """Let the queue's event be at ``time``."""
    i = (len(tree) >> 1) + queue
    least = NEVER if time == NEVER else (time << BITS) | queue
    tree[i] = least
    while i > 1:
        least = min(least, tree[i ^ 1])
        i >>= 1
        tree[i] = least


@njit(cache=True, nogil=True, forceinline=True)
def _port(height, links, core_x, core_y, x, y, dst):
    """Node that a packet for core ``dst`` goes to from router (x, y): along x first, then y, then the core."""
    dx, dy, at = core_x[dst] - x, core_y[dst] - y, (x * height + y) * 4
    along_y = links + dst if dy == 0 else (at + 2 if dy > 0 else at + 3)
    return along_y if dx == 0 else (at if dx > 0 else at + 1)


@njit(cache=True, nogil=True, forceinline=True)
def _wait(tree, nodes, q, port):
    """Queue q waits, behind others, for a slot behind a port."""
    _set(tree, q, NEVER)
    nodes[(q << 4) | NEXT] = -1
    if nodes[(port << 4) | WAITING] < 0:
        nodes[(port << 4) | WAITING] = q
    else:
        nodes[(nodes[(port << 4) | LAST] << 4) | NEXT] = q
    nodes[(port << 4) | LAST] = q


@njit(cache=True, nogil=True, forceinline=True)
def _serve_own(server, busy, local_at, core, arrival, end, ready, cost):
    """Serve a core's local deliveries that are ready by ``arrival``; the core's last one is before ``end``."""
    at = local_at[core]
    while at < end and ready[at] <= arrival:
        server[core] = max(server[core], ready[at]) + cost[at]
        busy[core] += cost[at]
        at += 1
    local_at[core] = at


@njit(cache=True, nogil=True, forceinline=True)
def _ready_by(seen, core, end, ready, time):
    """The first packet of a core's output queue that is not ready by ``time``, or ``end``."""
    at = seen[core]
    while at < end and ready[at] <= time:
        at += 1
    seen[core] = at
    return at


@njit(cache=True, nogil=True, forceinline=True)
def _release(tree, nodes, release, q, out, slots, now):
    """A buffer's slot is free from ``out`` on, and whoever waits for it asks again."""
    slot = nodes[(q << 4) | OUTOF]
    release[q * slots + slot] = out
    nodes[(q << 4) | OUTOF] = slot + 1 if slot + 1 < slots else 0
    nodes[(q << 4) | TAKEN] -= 1
    waiting = nodes[(q << 4) | WAITING]
    if waiting >= 0:
        _set(tree, waiting, now)
        nodes[(q << 4) | WAITING] = nodes[(waiting << 4) | NEXT]


@njit(cache=True, nogil=True, forceinline=True)
def _enter(tree, nodes, packets, port, p, arrival):
    """A packet is on its way into the buffer behind a link."""
    packets[(p << 2) | ARRIVAL] = arrival
    taken = nodes[(port << 4) | TAKEN] + 1
    nodes[(port << 4) | TAKEN] = taken
    nodes[(port << 4) | DEEPEST] = max(nodes[(port << 4) | DEEPEST], taken)
    if nodes[(port << 4) | HEAD] < 0:
        nodes[(port << 4) | HEAD] = p
        _set(tree, port, max(arrival, nodes[(port << 4) | LEFT]))
    else:
        packets[(nodes[(port << 4) | TAIL] << 2) | BEHIND] = p
    nodes[(port << 4) | TAIL] = p


@njit(cache=True, nogil=True, forceinline=True)
def _take(nodes, release, port, now, occupied, slots):
    """Give a packet the next slot behind a port. Returns its place, and when the packet goes through the port."""
    slot = nodes[(port << 4) | INTO]
    start = max(now, nodes[(port << 4) | FREE], release[port * slots + slot])
    nodes[(port << 4) | INTO] = slot + 1 if slot + 1 < slots else 0
    nodes[(port << 4) | FREE] = start + occupied
    return port * slots + slot, start


@njit(cache=True, nogil=True, forceinline=True)
def _split(nodes, packets, q, p, cut, out):
    """One copy of the head leaves, for packets p to cut - 1; the others stay at the head, from ``cut`` on."""
    nodes[(q << 4) | WENT] = max(nodes[(q << 4) | WENT], out)
    packets[(cut << 2) | END], packets[(cut << 2) | BEHIND] = packets[(p << 2) | END], packets[(p << 2) | BEHIND]
    if nodes[(q << 4) | TAIL] == p:
        nodes[(q << 4) | TAIL] = cut
    nodes[(q << 4) | HEAD] = cut


@njit(cache=True, nogil=True)
def advance(grid, s, busy, net, local):
    """Run until no event is left; busy [cores] += ps of service. Returns how many packets were served."""
    first, packets, ready, service = net
    height, links, core_x, core_y, occupied, slots = grid
    tree, nodes, release, server, local_at, seen = s
    local_first, local_ready, local_cost = local
    served = 0
    while tree[1] != NEVER:
        q, now = tree[1] & ((1 << BITS) - 1), tree[1] >> BITS
        p, x, y = nodes[(q << 4) | HEAD], nodes[(q << 4) | X], nodes[(q << 4) | Y]
        behind, port = packets[(p << 2) | END], _port(height, links, core_x, core_y, x, y, packets[(p << 2) | DST])
        if nodes[(port << 4) | TAKEN] == slots:
            _wait(tree, nodes, q, port)
            continue
        slot, start = _take(nodes, release, port, now, occupied, slots)
        out = start + occupied
        cut = p + 1  # the copy for this port is for packets p to cut - 1
        while cut < behind and _port(height, links, core_x, core_y, x, y, packets[(cut << 2) | DST]) == port:
            cut += 1
        if cut < behind:  # other copies follow: what is left of the head is the head
            _split(nodes, packets, q, p, cut, out)
        else:
            gone = max(nodes[(q << 4) | WENT], out)
            nodes[(q << 4) | WENT], nodes[(q << 4) | LEFT] = 0, gone
            follow, when = -1, NEVER
            if q >= links:
                end = first[q - links + 1]
                deep = _ready_by(seen, q - links, end, ready, start) - p
                nodes[(q << 4) | DEEPEST] = max(nodes[(q << 4) | DEEPEST], deep)
                if behind < end:
                    follow, when = behind, max(ready[behind], gone)
            else:
                _release(tree, nodes, release, q, gone, slots, now)
                if nodes[(q << 4) | TAIL] != p:
                    follow = packets[(p << 2) | BEHIND]
                    when = max(packets[(follow << 2) | ARRIVAL], gone)
            nodes[(q << 4) | HEAD] = follow
            _set(tree, q, when)
        if port < links:
            packets[(p << 2) | END] = cut
            nodes[(port << 4) | CROSSED] += 1
            _enter(tree, nodes, packets, port, p, start + nodes[(port << 4) | HOP])
        else:
            core, served = port - links, served + 1
            _serve_own(server, busy, local_at, core, out, local_first[core + 1], local_ready, local_cost)
            release[slot] = max(server[core], out)
            server[core] = release[slot] + service[p]
            busy[core] += service[p]
    return served


@njit(cache=True, nogil=True)
def begin(grid, s, net):
    """Everything idle, the first packet of every core in its output queue."""
    first, _, ready, _ = net
    s.tree[:] = NEVER
    s.release[:] = 0
    for q in range(len(s.nodes) >> 4):
        s.nodes[q << 4 : (q << 4) | X] = 0
        s.nodes[(q << 4) | HEAD] = s.nodes[(q << 4) | WAITING] = -1
    for c in range(len(grid.core_x)):
        s.seen[c] = first[c]
        if first[c] < first[c + 1]:
            s.nodes[((grid.links + c) << 4) | HEAD] = first[c]
            _set(s.tree, grid.links + c, ready[first[c]])


@njit(cache=True, nogil=True)
def finish(s, loads, local):
    """Serve the local deliveries that are left. Returns the last end of service."""
    last = np.int64(0)
    first, ready, cost = local
    for c in range(len(s.server)):
        _serve_own(s.server, loads.synapse, s.local_at, c, NEVER, first[c + 1], ready, cost)
        last = max(last, s.server[c])
    return last


@njit(cache=True, nogil=True)
def longest(grid, s, service, n, soma_end, extra):
    """ps that a tick with n packets cannot exceed: everything one after another."""
    total, hop = np.int64(0), np.int64(0)
    for c in range(len(soma_end)):
        total = max(total, soma_end[c] + extra[c])
    for link in range(grid.links):
        hop = max(hop, s.nodes[(link << 4) | HOP])
    for i in range(n):
        total += service[i]
    return total + n * (hop + grid.occupied) * (grid.core_x.max() + grid.core_y.max() + 2)


@njit(cache=True, nogil=True)
def run_ticks(ticks, first, events, somas, live, head, rates, multicast, extra, grid, s, net, local, loads, ends):
    """All ticks of a block. Returns -1, or the first tick that cannot be finished.

    first int64 [ticks + 1]: events of each tick; head int64 [ticks, cores]; live bool [ticks, populations];
    extra int64 [ticks, cores]; loads: arrays of ``Loads`` with a leading axis of ticks; ends: soma_end int64
    [ticks, cores], end int64 [ticks, 2]: ps of the last service (-1: the tick is too long for keys), packets.
    """
    core, population, before, start, dst, cost = events
    soma_end, end = ends
    for t in range(ticks):
        now = Loads(loads.synapse[t], loads.link[t], loads.crossed[t], loads.depth[t])
        part = first[t], first[t + 1], core, population, before, start, dst, cost
        n = emit(part, somas, live[t], head[t], rates, multicast, net, local, soma_end[t], extra[t])
        end[t, 1] = n
        if longest(grid, s, net[3], n, soma_end[t], extra[t]) >= NEVER >> (BITS + 1):
            end[t, 0] = -1
            return t
        s.server[:], now.synapse[:], s.local_at[:] = extra[t], extra[t], local[0][:-1]
        if n > 0:
            begin(grid, s, net)
            served = advance(grid, s, now.synapse, net, local)
            now.crossed[:] = s.nodes[CROSSED : grid.links << 4 : 1 << 4]
            now.link[:] = now.crossed * grid.occupied
            now.depth[:] = s.nodes[DEEPEST :: 1 << 4]
            if served < n:
                return t
        end[t, 0] = finish(s, now, local)
    return -1
