"""The slow engine: the mapped Program tick by tick, core by core, event by event.

It knows nothing of layers. Every tick each core takes in the events that arrive (phase 1), runs the
transfers that are due (phase 2) and updates the somas that are due (phase 3), whose events are put
on the axons of their tile. Accumulators and membrane potentials exist per tile only; what a tile
does not receive it does not know. Counters are taken one operation at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Box, Population, Program

from .bounds import find_bounds
from .counters import OVERFLOW, Counters
from .host import Host
from .kernels import scatter, soma
from .layout import HOST_TILE, Axon, Layout, Piece
from .overflow import raise_first
from .plan import readout_size
from .statics import book_dense
from .timing import CONV, DYNAMIC, MAP, Timing, reading_role
from .workspace import code_type

MODES = {"same": 0, "reduce": 1, "broadcast": 2, "window": 3}
OUTSIDE = -1
Events = np.ndarray  # int64 [n, 4]: c, y, x, code


@dataclass(frozen=True)
class Arrival:
    """Events on their way to one tile through one axon row.

    ``step`` is the timestep they are for, counted over all samples, or OUTSIDE of every window.
    """

    axon: Axon
    step: int
    events: Events


def _array(box: Box) -> np.ndarray:
    return np.array(box.as_tuple(), np.int64)


class Tile:
    """State of one tile: accumulator rings, membrane potentials, tables, and its synapse memory."""

    def __init__(self, program: Program, pieces: list[Piece]) -> None:
        self.program, self.core = program, pieces[0].core
        self.pieces = {p.dendrite: p for p in pieces}
        self.box = {p.dendrite: _array(p.box) for p in pieces}
        self.ring = {p.dendrite: np.zeros((program.dendrites[p.dendrite].ring, *p.box.shape), np.int64) for p in pieces}
        self.v = {
            i: np.zeros(self.pieces[q.dendrite].box.shape, np.int64)
            for i, q in enumerate(program.populations)
            if q.dendrite in self.pieces
        }
        self.weights: dict[int, np.ndarray] = {}
        self.tables: dict[int, np.ndarray] = {}

    def accumulator(self, dendrite: int, step: int) -> np.ndarray:
        """Accumulators [C, H, W] of one timestep: the ring is indexed by logical timestep."""
        ring = self.ring[dendrite]
        return ring[step % len(ring)]

    def weight(self, conv: int) -> np.ndarray:
        """This tile's slice of a projection's weights: its output channels only."""
        if conv not in self.weights:
            c = self.program.convs[conv]
            box = self.pieces[c.dst].box
            self.weights[conv] = np.ascontiguousarray(c.weight[..., box.c0 : box.c1])
        return self.weights[conv]

    def table(self, index: int, step: int) -> np.ndarray:
        """The bank of a dynamic table for one timestep: two banks, chosen by its parity."""
        if index not in self.tables:
            d = self.program.dynamics[index]
            channels, h, w = self.program.populations[d.q].shape
            depth, dv = channels // d.heads, self.program.populations[d.v].shape[0] // d.heads
            box = self.pieces[d.dst].box
            if d.order == "kv":
                shape: tuple[int, ...] = (depth, box.c1 - box.c0)
            else:
                heads = (box.c1 - 1) // dv - box.c0 // dv + 1
                shape = (heads, h * w, (box.y1 - box.y0) * (box.x1 - box.x0))
            self.tables[index] = np.zeros((2, *shape), np.int64)
        return self.tables[index][step % 2]


class TickEngine:
    """Runs consecutive samples of one Program; the samples overlap when the interval says so."""

    def __init__(
        self, program: Program, layout: Layout, timing: Timing, recorded: list[int], batch: int, strict: bool
    ) -> None:
        """``batch`` is taken for symmetry with the layer engine: ticks have no batches."""
        self.program, self.layout, self.timing = program, layout, timing
        self.recorded, self.strict, self.host = recorded, strict, Host(program)
        self.T, self.P = program.timesteps, program.ticks_per_step
        self.bounds = find_bounds(program, timing)
        self._restart(np.zeros((0, 1, *program.input_shape)))

    def _restart(self, images: np.ndarray) -> None:
        """A chip at rest, and empty counters."""
        program, layout = self.program, self.layout
        self.images = images
        self.counters = Counters.zeros(program, layout.cores)
        self.tiles = self._make_tiles()
        self.queue: dict[int, list[Arrival]] = defaultdict(list)
        self.codes = self._make_codes()
        self.logits = np.zeros((len(images), readout_size(program)), np.int64)
        self.currents: dict[int, tuple[int, np.ndarray]] = {}
        self.inputs: dict[int, tuple[int, np.ndarray]] = {}
        self.synops = np.zeros(layout.cores, np.int64)  # loads of the current tick
        self.updates = np.zeros(layout.cores, np.int64)
        self.axon_reads = np.zeros(layout.cores, np.int64)
        self.links = np.zeros(max(layout.mesh.links, 1), np.int64)

    # -- set-up ----------------------------------------------------------------------------------

    def _make_tiles(self) -> dict[int, Tile]:
        held: dict[int, list[Piece]] = defaultdict(list)
        for pieces in self.layout.pieces:
            for p in pieces:
                held[p.tile].append(p)
        return {t: Tile(self.program, pieces) for t, pieces in sorted(held.items())}

    def _make_codes(self) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        for i in self.recorded:
            shape = (len(self.images), self.T, *self.program.populations[i].shape)
            found[i] = np.zeros(shape, code_type(self.program, self.bounds, i))
        return found

    # -- time ------------------------------------------------------------------------------------

    def due(self, tick: int, level: int) -> int:
        """Timestep (over all samples) that something at ``level`` lives at ``tick``; -1: none."""
        sample, rest = divmod(tick - level, self.program.interval)
        t, off = divmod(rest, self.P)
        if off or t >= self.T or not 0 <= sample < len(self.images):
            return -1
        return sample * self.T + t

    def run(
        self, images: np.ndarray, done: Callable[[int], object]
    ) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        """Readout int64 [N, classes], counters and recorded codes of images [N, T or 1, C, H, W].

        All ticks from the first sample's start until nothing is in flight.  ``done`` is called with
        1 whenever a sample has left the chip.
        """
        self._restart(images)
        ticks = (len(images) - 1) * self.program.interval + self.timing.span if len(images) else 0
        for tick in range(ticks):
            self.tick(tick)
            left, rest = divmod(tick + 1 - self.timing.span, self.program.interval)
            if rest == 0 and left >= 0:
                done(1)
        book_dense(self.counters, self.program, self.layout, self.timing, len(images))
        return self.logits, self.counters, self.codes

    def tick(self, tick: int) -> None:
        """One tick of the whole chip."""
        self._arrivals(tick)
        for i, t in enumerate(self.program.transfers):
            step = self.due(tick, t.level)
            if step >= 0:
                self._transfer(i, step)
        for i, p in enumerate(self.program.populations):
            step = self.due(tick, p.level)
            if step >= 0:
                self._population(i, p, step, tick)
        self._forget(tick)
        self._settle()

    def _forget(self, tick: int) -> None:
        """Zero the accumulators whose timestep was read for the last time in this tick."""
        for d, level in enumerate(self.timing.last_read):
            step = self.due(tick, level)
            if step >= 0:
                for piece in self.layout.pieces[d]:
                    self.tiles[piece.tile].accumulator(d, step)[:] = 0

    def _settle(self) -> None:
        bound = self.counters.bound
        bound["synops"] += int(self.synops.max())
        bound["neuron_updates"] += int(self.updates.max())
        bound["memory_reads"] += int((self.synops + self.axon_reads).max())
        bound["link_packets"] += int(self.links.max())
        for load in (self.synops, self.updates, self.axon_reads, self.links):
            load[:] = 0

    # -- phase 1: arrivals -----------------------------------------------------------------------

    def _arrivals(self, tick: int) -> None:
        for number, h in enumerate(self.program.host_currents):
            step = self.due(tick, h.level)
            if step >= 0:
                self._host_current(number, step)
        dynamic: dict[tuple[int, int, int], dict[int, list[Events]]] = defaultdict(lambda: defaultdict(list))
        for arrival in self.queue.pop(tick, []):
            edge, core, n = arrival.axon.edge, arrival.axon.core, len(arrival.events)
            self.axon_reads[core] += n
            self.counters.tables["axon_reads"][edge.unit, core] += n
            if arrival.step == OUTSIDE:
                self.counters.tables["waste_events"][edge.unit, core] += n
            elif edge.kind == CONV:
                self._conv(arrival)
            elif edge.kind == MAP:
                self._map(arrival)
            else:
                dynamic[arrival.axon.tile, edge.index, arrival.step][edge.role].append(arrival.events)
        for (tile, index, step), roles in sorted(dynamic.items()):
            self._dynamic(self.tiles[tile], index, step, {r: np.concatenate(e) for r, e in roles.items()})
        self._clear_tables(tick)

    def _clear_tables(self, tick: int) -> None:
        """A table bank is cleared when it has been read out."""
        for e in self.timing.edges:
            if e.kind == DYNAMIC and e.role == reading_role(self.program.dynamics[e.index].order):
                step = self.due(tick, e.arrival)
                for piece in self.layout.pieces[e.dst] if step >= 0 else ():
                    self.tiles[piece.tile].table(e.index, step)[:] = 0

    def _conv(self, arrival: Arrival) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        edge, c = axon.edge, self.program.convs[axon.edge.index]
        box, weight = tile.box[edge.dst], tile.weight(edge.index)
        outs = c.weight.shape[3] // c.groups
        acc = tile.accumulator(edge.dst, arrival.step)
        form = (c.out_hw, c.stride, c.pad, c.dilation, c.groups, outs, c.collapse, c.shift)
        done = scatter.conv_event(arrival.events, weight, box[0], *form, box, acc)
        graded = self.program.populations[edge.src].payload_bits > 0
        self.counters.tables["synops_mac" if graded else "synops_ac"][edge.index, tile.core] += done
        self.synops[tile.core] += done

    def _map(self, arrival: Arrival) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        edge, m = axon.edge, self.program.maps[axon.edge.index]
        acc = tile.accumulator(edge.dst, arrival.step)
        form = (MODES[m.mode], m.kernel, m.stride, m.pad, m.shift)
        done = scatter.map_event(arrival.events, *form, tile.box[edge.dst], acc)
        self.counters.tables["map_ops"][edge.index, tile.core] += done

    def _dynamic(self, tile: Tile, index: int, step: int, roles: dict[int, Events]) -> None:
        """Writes (two populations in one tick) or reads (the third) of one table bank."""
        d = self.program.dynamics[index]
        none = np.zeros((0, 4), np.int64)
        q, k, v = (roles.get(r, none) for r in range(3))
        channels, _, width = self.program.populations[d.q].shape
        depth, dv = channels // d.heads, self.program.populations[d.v].shape[0] // d.heads
        box, table = tile.box[d.dst], tile.table(index, step)
        tables = self.counters.tables
        if reading_role(d.order) in roles:
            sums = np.zeros(tile.pieces[d.dst].box.shape, np.int64)
            if d.order == "kv":
                done = scatter.read_kv(q, depth, dv, box, table, sums)
            else:
                done = scatter.read_qk(v, width, dv, box, table, sums)
            tile.accumulator(d.dst, step)[:] += np.minimum(sums, d.saturate) << d.shift
            tables["dyn_reads"][index, tile.core] += done
        elif d.order == "kv":
            done = scatter.write_kv(k, v, width, depth, dv, box, table)
            tables["dyn_writes"][index, tile.core] += done
        else:
            done = scatter.write_qk(k, q, width, depth, dv, box, table)
            tables["dyn_writes"][index, tile.core] += done
        self.synops[tile.core] += done

    def _host_current(self, number: int, step: int) -> None:
        sample, t = divmod(step, self.T)
        if self.currents.get(number, (-1, None))[0] != sample:
            y, macs = self.host.current(number, self.images[sample], sample)
            self.currents[number] = (sample, y)
            self.counters.tables["host_macs"][number, -1] += macs
        y = self.currents[number][1]
        frame = y[t if len(y) > 1 else 0]
        dst = self.program.host_currents[number].dst
        for piece in self.layout.pieces[dst]:
            b = piece.box
            part = frame[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1]
            self.tiles[piece.tile].accumulator(dst, step)[:] += part
            self.counters.tables["current_messages"][number, piece.core] += np.count_nonzero(part)

    # -- phase 2: transfers ----------------------------------------------------------------------

    def _transfer(self, index: int, step: int) -> None:
        t, tables = self.program.transfers[index], self.counters.tables
        size = self.program.dendrites[t.src].shape[1:]
        for piece in self.layout.pieces[t.dst]:
            tile = self.tiles[piece.tile]
            src, dst = tile.accumulator(t.src, step), tile.accumulator(t.dst, step)
            if t.mode == "sum":
                b, held = piece.box, tile.pieces[t.src].box
                part = src[b.c0 - held.c0 : b.c1 - held.c0]
                dst[:, 0, 0] += part.sum(axis=(1, 2)) >> t.rshift
                tables["accumulator_adds"][index, tile.core] += part.size
                continue
            boxes = tile.box[t.src], tile.box[t.dst]
            done = scatter.max_window(src, boxes[0], size, t.kernel, t.stride, t.pad, boxes[1], dst, t.rshift)
            tables["pool_compares"][index, tile.core] += done[0]
            tables["accumulator_adds"][index, tile.core] += done[1]

    # -- phase 3: somas --------------------------------------------------------------------------

    def _population(self, i: int, p: Population, step: int, tick: int) -> None:
        if p.model == "input":
            self._emit(i, HOST_TILE, -1, self._input(i, step), np.zeros(3, np.int64), step, tick)
            return
        for piece in self.layout.pieces[p.dendrite]:
            codes = self._soma(i, p, self.tiles[piece.tile], piece.box, step)
            if p.model != "readout":
                origin = _array(piece.box)[[0, 2, 4]]
                self._emit(i, piece.tile, piece.core, codes, origin, step, tick)

    def _input(self, i: int, step: int) -> np.ndarray:
        sample, t = divmod(step, self.T)
        if self.inputs.get(i, (-1, None))[0] != sample:
            spec = next(h for h in self.program.host_codes if h.population == i)
            self.inputs[i] = (sample, self.host.codes(spec, self.images[sample], sample))
        values = self.inputs[i][1]
        return values[t if len(values) > 1 else 0]

    def _soma(self, i: int, p: Population, tile: Tile, box: Box, step: int) -> np.ndarray:
        """Update the somas of one population on one tile; their codes int64 [C, H, W]."""
        acc, v = tile.accumulator(p.dendrite, step), tile.v[i]
        if step % self.T == 0:
            v[:] = 0  # just before the population's own window
        before = v.copy() if self.strict else v
        bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
        bias = bias[box.c0 : box.c1]
        codes, over = np.zeros(box.shape, np.int64), np.zeros(len(OVERFLOW), np.int64)
        if p.model == "lif":
            theta = p.vth[box.c0 : box.c1].astype(np.int64) << 6  # type: ignore[index]
            soma.lif_tile(acc, v, codes, bias, theta, p.dv, over)
        elif p.model == "levels":
            table = np.broadcast_to(p.thresholds, (p.shape[0], p.thresholds.shape[1]))  # type: ignore
            soma.levels_tile(acc, codes, bias, table[box.c0 : box.c1].astype(np.int64), over)
        elif p.model == "relay":
            soma.relay_tile(acc, codes, over)
        else:
            soma.readout_tile(acc, v, bias, over)
            self._read(p, v, box, step)
        self._book_soma(i, p, tile.core, box, bias)
        self.counters.overflow_of(i)[:] += over
        if self.strict and over.any():
            raise_first(p, step % self.T, acc, before, (box.c0, box.y0, box.x0))
        return codes

    def _book_soma(self, i: int, p: Population, core: int, box: Box, bias: np.ndarray) -> None:
        _, h, w = box.shape
        self.counters.tables["neuron_updates"][i, core] += box.size
        self.counters.tables["bias_events"][i, core] += np.count_nonzero(bias) * h * w
        self.updates[core] += box.size

    def _read(self, p: Population, v: np.ndarray, box: Box, step: int) -> None:
        if step % self.T == self.T - 1:
            logits = self.logits[step // self.T].reshape(p.shape[1], p.shape[2], p.shape[0])
            logits[box.y0 : box.y1, box.x0 : box.x1, box.c0 : box.c1] = v.transpose(1, 2, 0)

    def _emit(self, i: int, tile: int, core: int, codes: np.ndarray, origin: np.ndarray, step: int, tick: int) -> None:
        """Put the events of one tile on its axons, and count packets and hops."""
        events = np.empty((int(np.count_nonzero(codes)), 4), np.int64)
        scatter.find_events(codes, origin, events)
        if i in self.codes:
            c, y, x = origin.tolist()
            dc, dy, dx = codes.shape
            self.codes[i][step // self.T, step % self.T, c : c + dc, y : y + dy, x : x + dx] = codes
        tables = self.counters.tables
        tables["events"][i, core] += len(events)
        tables["payload_sum"][i, core] += int(np.abs(events[:, 3]).sum())
        axons = [a for a in self.layout.axons[i] if a.src_tile == tile]
        if not len(events) or not axons:
            return
        self._send(i, core, axons, events)
        for a in axons:
            met = events[scatter.inside(events, _array(a.box)) != 0]
            if len(met):
                self._enqueue(a, step, met, tick)

    def _enqueue(self, a: Axon, step: int, events: Events, tick: int) -> None:
        edge = a.edge
        inside = step % self.T + edge.lag < self.T
        self.queue[tick + edge.delay].append(Arrival(a, step + edge.lag if inside else OUTSIDE, events))

    def _send(self, i: int, core: int, axons: list[Axon], events: Events) -> None:
        tables, cores = self.counters.tables, self.layout.cores
        boxes = np.array([a.box.as_tuple() for a in axons], np.int64)
        targets = np.array([a.core for a in axons], np.int64)
        packets, inbox = np.zeros(5, np.int64), np.zeros(cores, np.int64)
        seen = np.zeros(cores, np.int8)
        if core < 0:
            scatter.host_messages(events, boxes, targets, seen, inbox)
            tables["input_messages"][i, :cores] += inbox
            return
        mesh = self.layout.mesh
        scatter.send(events, core, boxes, targets, seen, mesh.at, mesh.routers, packets, inbox, self.links)
        names = ("packets", "packets_local", "hops_ew", "hops_ns", "chip_crossings")
        for name, n in zip(names, packets.tolist(), strict=True):
            tables[name][i, core] += n
        tables["packets_in"][i, :cores] += inbox
