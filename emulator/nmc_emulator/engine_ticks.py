"""The slow engine: the mapped Program tick by tick, core by core, event by event.

It knows nothing of layers. Every tick each core takes in the events that arrive (phase 1), runs the
transfers that are due (phase 2) and updates the somas that are due (phase 3), whose events are put
on the axons of their tile. Accumulators and membrane potentials exist per tile only; what a tile
does not receive it does not know. Counters are taken one operation at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from nmc_compiler.program.model import Box, Conv, Population, Program, SiteWindow, Sparse
from nmc_compiler.program.shapes import channel_blocks, conv_windows

from .bounds import find_bounds
from .cells import cell_tables
from .counters import OVERFLOW, Counters
from .host import Host, check_codes
from .kernels import cell as kernel
from .kernels import scatter, soma
from .layout import HOST_TILE, Axon, Layout, Piece
from .overflow import raise_first
from .plan import readout_size
from .sites import Addressing, Rulebooks, runtime_sites
from .states import State, at_rest, check_probe, restarts
from .statics import biased, book_dense, book_dense_sites
from .synapses import Synapses, cut
from .timing import CONV, DYNAMIC, MAP, SPARSE, Timing, multiplies, reading_role, synaptic_unit
from .workspace import code_type

MODES = {"same": 0, "reduce": 1, "broadcast": 2, "window": 3, "reduce_channels": 0, "broadcast_channels": 0}
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
    """One tile: accumulator rings, the state of its somas, tables, and its synapse memory."""

    def __init__(self, program: Program, pieces: list[Piece]) -> None:
        self.program, self.core = program, pieces[0].core
        self.pieces = {p.dendrite: p for p in pieces}
        self.box = {p.dendrite: _array(p.box) for p in pieces}
        self.ring = {p.dendrite: np.zeros((program.dendrites[p.dendrite].ring, *p.box.shape), np.int64) for p in pieces}
        self.state: dict[int, State] = {}
        self.weights: dict[int, np.ndarray] = {}
        self.rows: dict[int, Synapses] = {}
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

    def synapses(self, sparse: int) -> Synapses:
        """This tile's synapses of a projection: those onto its own accumulators."""
        if sparse not in self.rows:
            s = self.program.sparses[sparse]
            self.rows[sparse] = cut(self.program, s, self.pieces[s.dst].box)
        return self.rows[sparse]

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
        self.rule = program.current_rule  # as the kernels take it
        self._restart(np.zeros((0, 1, *program.input_shape)))

    def _restart(self, images: np.ndarray, window: int | None = None) -> None:
        """A chip at rest, and empty counters; ``window``: its timesteps, if the Program does not say."""
        layout, self.images = self.layout, images
        self.T = self.program.timesteps if window is None else window
        self.period = self.program.interval if window is None else max(window * self.P, 1)
        self.span = self.timing.span + (self.T - self.program.timesteps) * self.P
        self.given: dict[int, np.ndarray] = {}
        self.probed: dict[tuple[int, str], np.ndarray] = {}
        program = self.program
        self.counters = Counters.zeros(program, layout.cores)
        self.tiles = self._make_tiles()
        self.queue: dict[int, list[Arrival]] = defaultdict(list)
        self.codes = self._make_codes()
        self.logits = np.zeros((len(images), readout_size(program)), np.int64)
        self.currents: dict[int, tuple[int, np.ndarray]] = {}
        self.inputs: dict[int, tuple[int, np.ndarray]] = {}
        self.addressing = Addressing(program, images)
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
        sample, rest = divmod(tick - level, self.period)
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
        ticks = (len(images) - 1) * self.period + self.span if len(images) else 0
        for tick in range(ticks):
            self.tick(tick)
            left, rest = divmod(tick + 1 - self.span, self.period)
            if rest == 0 and left >= 0:
                done(1)
        book_dense(self.counters, self.program, self.layout, self.timing, len(images))
        for sample in range(len(images)) if runtime_sites(self.program) else ():
            rulebooks = Rulebooks(self.program)
            rulebooks.load(images[sample], sample)
            book_dense_sites(self.counters, self.program, self.layout, self.timing, rulebooks)
        return self.logits, self.counters, self.codes

    def run_events(
        self,
        inputs: dict[int, np.ndarray],
        steps: int,
        probe: Iterable[tuple[int, str]] = (),
        done: Callable[[int], object] = lambda steps: None,
    ) -> tuple[Counters, dict[int, np.ndarray]]:
        """``steps`` timesteps from rest, driven by events: counters, and recorded codes [1, steps, C, H, W].

        A stream runs as one window, other Programs for whole windows one after the other.
        inputs: codes of every input population, integers [steps, C, H, W].  probe: (population, part) pairs,
        part a name of `states.PARTS`; ``probed`` then holds each int64 [steps, C, H, W], after the update of
        each timestep.  done: called with 1 for every timestep that has begun.  UsageError for inputs or probes that
        do not fit the Program.
        """
        given, window = check_codes(self.program, inputs, steps), self.program.timesteps or steps
        samples = steps // max(window, 1)
        self._restart(np.zeros((samples, 1, *self.program.input_shape)), None if self.program.timesteps else steps)
        self.given = given
        for i, part in probe:
            check_probe(self.program, i, part)
            self.probed[i, part] = np.zeros((steps, *self.program.populations[i].shape), np.int64)
        for tick in range((samples - 1) * self.period + self.span if samples else 0):
            self.tick(tick)
            done(int(self.due(tick, 0) >= 0))
        book_dense(self.counters, replace(self.program, timesteps=window), self.layout, self.timing, samples)
        return self.counters, {i: c.reshape(1, steps, *c.shape[2:]) for i, c in self.codes.items()}

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
        self._open_tables(tick)
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
            elif edge.kind == SPARSE:
                self._sparse(arrival, self.program.sparses[edge.index])
            else:
                dynamic[arrival.axon.tile, edge.index, arrival.step][edge.role].append(arrival.events)
        for (tile, index, step), roles in sorted(dynamic.items()):
            self._dynamic(self.tiles[tile], index, step, {r: np.concatenate(e) for r, e in roles.items()})
        self._clear_tables(tick)

    def _open_tables(self, tick: int) -> None:
        """Before the writes of a timestep a bank that lasts is what is left of the other."""
        for e in self.timing.edges:
            d = self.program.dynamics[e.index] if e.kind == DYNAMIC else None
            if d is None or d.lasting is None or e.role != reading_role(d.order):
                continue
            step, width = self.due(tick, e.arrival - 1), self.program.populations[d.v].shape[0] // d.heads
            for piece in self.layout.pieces[e.dst] if step >= 0 else ():
                tile, t = self.tiles[piece.tile], step % self.T
                keep = d.lasting.keep.astype(np.int64)[np.arange(piece.box.c0, piece.box.c1) // width]
                begins = t % d.lasting.block == 0 if d.lasting.block else t == 0
                tile.table(e.index, step)[:] = 0 if begins else keep * tile.table(e.index, step - 1) >> 12

    def _clear_tables(self, tick: int) -> None:
        """A table bank is cleared when it has been read out, unless the next timestep's begins with it."""
        for e in self.timing.edges:
            if e.kind == DYNAMIC and e.role == reading_role(self.program.dynamics[e.index].order):
                if self.program.dynamics[e.index].lasting is not None:
                    continue
                step = self.due(tick, e.arrival)
                for piece in self.layout.pieces[e.dst] if step >= 0 else ():
                    self.tiles[piece.tile].table(e.index, step)[:] = 0

    def _conv(self, arrival: Arrival) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        edge, c = axon.edge, self.program.convs[axon.edge.index]
        if c.sites is not None:
            self._between_sites(arrival, c, c.sites)
            return
        box, weight = tile.box[edge.dst], tile.weight(edge.index)
        outs = c.weight.shape[3] // c.groups
        acc = tile.accumulator(edge.dst, arrival.step)
        slices, rows, columns = map(tuple, conv_windows(c, self.program.populations[c.src].shape))
        form = outs, c.collapse, c.shift
        done = scatter.conv_event(arrival.events, weight, box[0], slices, rows, columns, *form, box, acc)
        self._book_synops(axon, done)

    def _between_sites(self, arrival: Arrival, c: Conv, window: SiteWindow) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        box, weight = tile.box[c.dst], np.ascontiguousarray(tile.weight(axon.edge.index)[:, 0])
        operands = weight, c.collapse, c.shift, box, tile.accumulator(c.dst, arrival.step)
        done = self.addressing.add(arrival.step // self.T, window, arrival.events, *operands)
        self._book_synops(axon, done)

    def _sparse(self, arrival: Arrival, s: Sparse) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        ring, rows = tile.ring[s.dst], tile.synapses(axon.edge.index)
        slots = ring.reshape(len(ring), -1)
        room = self.T - arrival.step % self.T
        operands = rows.indptr, rows.target, rows.weight, rows.extra, s.shift, s.graded
        somas = self.program.populations[s.src].shape
        done = scatter.sparse_event(arrival.events, somas, *operands, arrival.step % len(ring), room, slots)
        self._book_synops(axon, done)

    def _book_synops(self, axon: Axon, done: int) -> None:
        name = "synops_mac" if multiplies(self.program, axon.edge) else "synops_ac"
        self.counters.tables[name][synaptic_unit(self.program, axon.edge), axon.core] += done
        self.synops[axon.core] += done

    def _map(self, arrival: Arrival) -> None:
        axon, tile = arrival.axon, self.tiles[arrival.axon.tile]
        edge, m = axon.edge, self.program.maps[axon.edge.index]
        acc = tile.accumulator(edge.dst, arrival.step)
        blocks = channel_blocks(self.program.populations[m.src].shape, self.program.dendrites[m.dst].shape)
        form = (MODES[m.mode], blocks, m.kernel, m.stride, m.pad, m.shift)
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
            if d.lasting is not None:
                v = v * np.array([1, 1, 1, 1 << d.lasting.frac])
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
            if p.sites is not None and p.model != "readout":
                self.addressing.silence(step // self.T, p.sites, codes, _array(piece.box))
            if p.model != "readout":
                origin = _array(piece.box)[[0, 2, 4]]
                self._emit(i, piece.tile, piece.core, codes, origin, step, tick)

    def _input(self, i: int, step: int) -> np.ndarray:
        if i in self.given:
            return self.given[i][step]
        sample, t = divmod(step, self.T)
        if self.inputs.get(i, (-1, None))[0] != sample:
            spec = next(h for h in self.program.host_codes if h.population == i)
            self.inputs[i] = (sample, self.host.codes(spec, self.images[sample], sample))
        values = self.inputs[i][1]
        return values[t if len(values) > 1 else 0]

    def _soma(self, i: int, p: Population, tile: Tile, box: Box, step: int) -> np.ndarray:
        """Update the somas of one population on one tile; their codes int64 [C, H, W]."""
        acc, state = tile.accumulator(p.dendrite, step), self._state(i, p, tile, box, step % self.T)
        before = {part: values.copy() for part, values in state.items()} if self.strict else state
        bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
        bias = bias[box.c0 : box.c1]
        codes, over = np.zeros(box.shape, np.int64), np.zeros(len(OVERFLOW), np.int64)
        if p.model == "lif":
            theta = p.vth[box.c0 : box.c1].astype(np.int64) << 6  # type: ignore[index]
            low = np.full_like(theta, soma.NEVER) if p.vth_low is None else p.vth_low.astype(np.int64) << 6
            low = low if p.vth_low is None else low[box.c0 : box.c1]
            soma.lif_tile(acc, state["u"], state["v"], codes, bias, theta, low, p.du, p.dv, over, self.rule)
        elif p.model == "cell":
            self._cells(p, box, acc, state, codes, step % self.T, over)
        elif p.model == "sigma_delta":
            theta = p.vth[box.c0 : box.c1].astype(np.int64)  # type: ignore[index]
            operands = acc, state["sigma"], state["act"], state["residue"], state["error"], codes, bias, theta
            soma.sigma_delta_tile(*operands, p.relu, p.cumulative, p.out_shift, over)
        elif p.model == "levels":
            table = np.broadcast_to(p.thresholds, (p.shape[0], p.thresholds.shape[1]))  # type: ignore
            soma.levels_tile(acc, codes, bias, table[box.c0 : box.c1].astype(np.int64), over, self.rule)
        elif p.model == "relay":
            soma.relay_tile(acc, codes, over)
        else:
            soma.readout_tile(acc, state["v"], bias, over, self.rule)
            self._read(p, state["v"], box, step)
        self._probe(i, state, box, step)
        self._book_soma(i, p, tile.core, box)
        self.counters.overflow_of(i)[:] += over
        if self.strict and over.any():
            raise_first(p, step % self.T, acc, before, box, self.program.current_rule)
        return codes

    def _cells(
        self, p: Population, box: Box, acc: np.ndarray, state: State, codes: np.ndarray, t: int, over: np.ndarray
    ) -> None:
        """Their kernel is channel-last."""
        tables, flat = cell_tables(p, box), (len(acc), -1)
        tables.form[kernel.STILL] = 0  # every part of the state, for probes
        parts = np.stack([values.reshape(flat).T for values in state.values()])
        sent = np.zeros(parts.shape[1:], np.int64)
        operands = tables.form, tables.at(t), tables.thresholds, over, self.rule
        kernel.cell(np.ascontiguousarray(acc.reshape(flat).T), parts, sent, *operands)
        codes[:] = sent.T.reshape(codes.shape)
        for values, part in zip(state.values(), parts, strict=True):
            values[:] = part.T.reshape(values.shape)

    def _state(self, i: int, p: Population, tile: Tile, box: Box, t: int) -> State:
        """State of the somas before their update of timestep t of a window."""
        if t == 0:
            tile.state[i] = at_rest(p, box)
        if restarts(p, t):
            for values in tile.state[i].values():
                values[:] = 0
        return tile.state[i]

    def _probe(self, i: int, state: State, b: Box, step: int) -> None:
        for (population, part), values in self.probed.items():
            if population == i:
                values[step, b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = state[part]

    def _book_soma(self, i: int, p: Population, core: int, box: Box) -> None:
        _, h, w = box.shape
        self.counters.tables["neuron_updates"][i, core] += box.size
        self.counters.tables["bias_events"][i, core] += np.count_nonzero(biased(p)[box.c0 : box.c1]) * h * w
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
        hits = np.stack([self._hits(a, events) for a in axons])
        self._send(i, core, axons, hits)
        for a, hit in zip(axons, hits, strict=True):
            if hit.any():
                self._enqueue(a, step, events[hit], tick)

    def _hits(self, a: Axon, events: Events) -> np.ndarray:
        """Which events an axon row takes: those in its box, to a Sparse only from somas with a synapse there."""
        hit = scatter.inside(events, _array(a.box))
        if a.edge.kind != SPARSE:
            return hit
        somas = np.ravel_multi_index(tuple(events[:, :3].T), self.program.populations[a.edge.src].shape)
        return hit & self.tiles[a.tile].synapses(a.edge.index).reaches()[somas]

    def _enqueue(self, a: Axon, step: int, events: Events, tick: int) -> None:
        edge = a.edge
        inside = step % self.T + edge.lag < self.T
        self.queue[tick + edge.delay].append(Arrival(a, step + edge.lag if inside else OUTSIDE, events))

    def _send(self, i: int, core: int, axons: list[Axon], hits: np.ndarray) -> None:
        tables, cores = self.counters.tables, self.layout.cores
        targets = np.array([a.core for a in axons], np.int64)
        packets, inbox = np.zeros(5, np.int64), np.zeros(cores, np.int64)
        seen = np.zeros(cores, np.int8)
        if core < 0:
            scatter.host_messages(hits, targets, seen, inbox)
            tables["input_messages"][i, :cores] += inbox
            return
        mesh = self.layout.mesh
        scatter.send(hits, core, targets, seen, mesh.at, mesh.routers, packets, inbox, self.links)
        names = ("packets", "packets_local", "hops_ew", "hops_ns", "chip_crossings")
        for name, n in zip(names, packets.tolist(), strict=True):
            tables[name][i, core] += n
        tables["packets_in"][i, :cores] += inbox
