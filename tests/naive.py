"""Brute-force twin of the emulator, from the docstrings of ``program.model`` and docs/counters.md.

Plain Python and NumPy int64, canonical (C, H, W) arrays, nothing shared with ``nmc_emulator``: it
evaluates a Program timestep by timestep and recounts every counter event by event, operation by
operation. For small Programs only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from nmc_compiler.program.model import Depth, Program

HALF = 2**23


# -- arithmetic --------------------------------------------------------------------------------


def decay(x: int, d: int) -> int:
    """D(x, d) = sgn(x) * ((|x| * (4096 - d)) >> 12)."""
    sign = (x > 0) - (x < 0)
    return sign * ((abs(x) * (4096 - d)) >> 12)


def wrap24(u: int, profile: str = "loihi2") -> int:
    if profile == "loihi1":
        return (u + HALF) % 2**24 - HALF
    if profile == "neurocore":
        return clip24(u)
    if u > HALF:
        return u - 2**24
    if u <= -HALF:
        return u + 2**24
    return u


def clip24(v: int) -> int:
    return max(-HALF + 1, min(HALF - 1, v))


def wrap32(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def synapses(s, shape, e):
    """(target (o, y, x), weight, extra) of every synapse of event e = (c, y, x) of a Sparse between ``shape``s."""
    row = int(np.ravel_multi_index(e, shape[0]))
    for i in range(int(s.indptr[row]), int(s.indptr[row + 1])):
        at = tuple(int(k) for k in np.unravel_index(int(s.target[i]), shape[1]))
        yield at, int(s.weight[i]), 0 if s.extra is None else int(s.extra[i])


def conv_targets(c, rows, e):
    """(o, oy, ox, weight) for every tap of event e = (ci, y, x) that lands on the grid; ``rows`` of the source."""
    depth = c.depth or Depth(1, 1, 1)
    ci, (z, y), x = e[0], divmod(e[1], rows // depth.source), e[2]
    taps, kw, ins, outs = c.weight.shape
    kh, height, per_group = taps // depth.kernel, c.out_hw[0] // depth.target, outs // c.groups
    group, i = divmod(ci, ins)
    for oz, oy, ox in np.ndindex(depth.target, height, c.out_hw[1]):
        for kz in range(depth.kernel):
            if oz * depth.stride - depth.pad + kz * depth.dilation != z:
                continue
            for ky in range(kh):
                if oy * c.stride[0] - c.pad[0] + ky * c.dilation[0] != y:
                    continue
                for kx in range(kw):
                    if ox * c.stride[1] - c.pad[1] + kx * c.dilation[1] == x:
                        for o in range(group * per_group, (group + 1) * per_group):
                            yield o, oz * height + oy, ox, int(c.weight[kz * kh + ky, kx, i, o])


def map_targets(m, channels, shape, e):
    """Target positions of one event of a Map from so many ``channels``; ``shape`` of the target dendrite."""
    c, y, x = e
    if m.mode == "reduce_channels":
        yield c * shape[0] // channels, y, x
        return
    if m.mode == "broadcast_channels":
        yield from ((t, y, x) for t in range(shape[0]) if t * channels // shape[0] == c)
        return
    for ty in range(shape[1]):
        for tx in range(shape[2]):
            if m.mode == "same":
                hit = (ty, tx) == (y, x)
            elif m.mode == "window":
                top, left = ty * m.stride[0] - m.pad[0], tx * m.stride[1] - m.pad[1]
                hit = top <= y < top + m.kernel[0] and left <= x < left + m.kernel[1]
            else:
                hit = True
            if hit:
                yield c, ty, tx


def window(t, size, ty, tx):
    """In-range source positions of a maxpool's target position."""
    for ky in range(t.kernel[0]):
        for kx in range(t.kernel[1]):
            y, x = ty * t.stride[0] - t.pad[0] + ky, tx * t.stride[1] - t.pad[1] + kx
            if 0 <= y < size[0] and 0 <= x < size[1]:
                yield y, x


def host_conv(h, image):
    """(result [O, H, W], macs) of a host current for one image [I, H, W]."""
    x = [[[int(np.rint(float(v) * 2.0**h.frac)) for v in row] for row in plane] for plane in image]
    outs, ins, kh, kw = h.weight.shape
    rows = (len(x[0]) + 2 * h.pad[0] - h.dilation[0] * (kh - 1) - 1) // h.stride[0] + 1
    columns = (len(x[0][0]) + 2 * h.pad[1] - h.dilation[1] * (kw - 1) - 1) // h.stride[1] + 1
    y, macs = np.zeros((outs, rows, columns), np.int64), 0
    for o in range(outs):
        group = o // (outs // h.groups)
        for r in range(rows):
            for s in range(columns):
                total = int(h.bias[o]) + ((1 << (h.shift - 1)) if h.shift else 0)
                for i in range(ins):
                    for ky in range(kh):
                        for kx in range(kw):
                            a = r * h.stride[0] - h.pad[0] + ky * h.dilation[0]
                            b = s * h.stride[1] - h.pad[1] + kx * h.dilation[1]
                            if 0 <= a < len(x[0]) and 0 <= b < len(x[0][0]):
                                total += int(h.weight[o, i, ky, kx]) * x[group * ins + i][a][b]
                                macs += 1
                y[o, r, s] = total >> h.shift
    return y, macs


# -- function ----------------------------------------------------------------------------------


@dataclass
class Naive:
    """Result of ``run``: the same quantities as ``nmc_emulator.RunResult`` holds, as plain dicts."""

    codes: dict[int, np.ndarray] = field(default_factory=dict)
    logits: list[list[int]] = field(default_factory=list)
    tables: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))  # (unit, core) -> n
    overflow: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    bound: Counter = field(default_factory=Counter)
    states: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)  # part -> population -> [N, T, C, H, W]


SIGMA_DELTA = ("sigma", "act", "residue", "error")
PARTS = ("u", "v", *SIGMA_DELTA, "b", "sent", "total")


class _Machine:
    def __init__(self, program: Program, images: np.ndarray, given: dict[int, np.ndarray]) -> None:
        self.p, self.images, self.given = program, images, given
        self.profile = program.target.get("profile", "loihi2")
        self.out = Naive()
        n = len(images)
        for part in PARTS:
            self.out.states[part] = {
                i: np.zeros((n, program.timesteps, *q.shape), np.int64) for i, q in enumerate(program.populations)
            }
        for i, q in enumerate(program.populations):
            self.out.codes[i] = np.zeros((n, program.timesteps, *q.shape), np.int64)

    def sample(self, n: int) -> None:
        p = self.p
        self.kept = {}  # tables that last, by projection
        self.state = [{part: np.zeros(q.shape, np.int64) for part in PARTS} for q in p.populations]
        for q, state in zip(p.populations, self.state, strict=True):
            for part, start in (("u", q.start_u), ("v", q.start_v)):
                if start is not None:
                    state[part][:] = start
        self.ahead = [[np.zeros(d.shape, np.int64) for d in p.dendrites] for _ in range(p.timesteps)]
        for t in range(p.timesteps):
            self.acc = self.ahead[t]
            for *_, job in sorted(self._jobs(n, t), key=lambda j: j[:3]):
                job()
        for i, q in enumerate(p.populations):
            if q.model == "readout":
                self.out.logits.append([int(v) for v in self.state[i]["v"].transpose(1, 2, 0).reshape(-1)])

    def _jobs(self, n, t):
        p = self.p
        for h in p.host_currents:
            yield h.level, 1, 0, lambda h=h: self._host(h, n, t)
        for c in p.convs:
            yield p.arrival(c.src, c.delay, c.lag), 1, 0, lambda c=c: self._project(c, n, t, conv_targets)
        for m in p.maps:
            yield p.arrival(m.src, m.delay, m.lag), 1, 0, lambda m=m: self._project(m, n, t, None)
        for s in p.sparses:
            yield p.arrival(s.src, s.delay, s.lag), 1, 0, lambda s=s: self._sparse(s, n, t)
        for d in p.dynamics:
            read = p.arrival(d.q, d.delay_q) if d.order == "kv" else p.arrival(d.v, d.delay_v)
            yield read, 1, 0, lambda d=d: self._dynamic(d, n, t)
        for i, x in enumerate(p.transfers):
            yield x.level, 2, i, lambda x=x: self._transfer(x)
        for i, q in enumerate(p.populations):
            yield q.level, 3, 0, lambda i=i, q=q: self._soma(i, q, n, t)

    def _host(self, h, n, t):
        image = self.images[n][t] if self.p.input_time else self.images[n]
        self.acc[h.dst] += host_conv(h, image)[0]

    def _project(self, c, n, t, conv):
        if t < c.lag:
            return
        codes = self.out.codes[c.src][n, t - c.lag]
        acc = self.acc[c.dst]
        for e in np.argwhere(codes).tolist():
            code = int(codes[tuple(e)])
            if conv:
                for o, y, x, w in conv_targets(c, codes.shape[1], e):
                    acc[(o, 0, 0) if c.collapse else (o, y, x)] += (w * code) << c.shift
            else:
                for at in map_targets(c, codes.shape[0], acc.shape, e):
                    acc[at] += code << c.shift

    def _sparse(self, s, n, t):
        if t < s.lag:
            return
        codes = self.out.codes[s.src][n, t - s.lag]
        for e in np.argwhere(codes).tolist():
            code = int(codes[tuple(e)]) if s.graded else 1
            for at, weight, extra in synapses(s, (codes.shape, self.acc[s.dst].shape), e):
                if t + extra < self.p.timesteps:
                    self.ahead[t + extra][s.dst][at] += (weight * code) << s.shift

    def _lasting(self, d, n, t):
        """As ``_dynamic``, with tables that last: entry by entry, what is left of it and what is written."""
        q, k, v = (self.out.codes[i][n, t].reshape(self.p.populations[i].shape[0], -1) for i in (d.q, d.k, d.v))
        kept, a = self.kept.setdefault(d.name, {}), self.acc[d.dst].reshape(v.shape)
        depth, width = q.shape[0] // d.heads, v.shape[0] // d.heads
        begins = t == 0 or (d.lasting.block > 0 and t % d.lasting.block == 0)
        for j, i in np.ndindex(v.shape[0], depth):
            head = j // width
            row = head * depth + i
            old = 0 if begins else (int(d.lasting.keep[head]) * kept[j, i]) >> 12
            kept[j, i] = old + sum(int(k[row, m]) * int(v[j, m]) << d.lasting.frac for m in range(q.shape[1]))
        for j, at in np.ndindex(v.shape):
            total = sum(int(q[j // width * depth + i, at]) * kept[j, i] for i in range(depth))
            a[j, at] += min(total, d.saturate) << d.shift

    def _dynamic(self, d, n, t):
        if d.lasting is not None:
            self._lasting(d, n, t)
            return
        q, k, v = (self.out.codes[i][n, t].reshape(self.p.populations[i].shape[0], -1) for i in (d.q, d.k, d.v))
        tokens, a = q.shape[1], self.acc[d.dst].reshape(v.shape)
        depth, width = q.shape[0] // d.heads, v.shape[0] // d.heads
        for head in range(d.heads):
            for j in range(head * width, (head + 1) * width):
                for at in range(tokens):
                    total = 0
                    for i in range(head * depth, (head + 1) * depth):
                        for m in range(tokens):
                            total += int(q[i, at]) * int(k[i, m]) * int(v[j, m])
                    a[j, at] += min(total, d.saturate) << d.shift

    def _transfer(self, x):
        src, dst = self.acc[x.src], self.acc[x.dst]
        for at in np.ndindex(dst.shape):
            if x.mode == "sum":
                dst[at] += int(src[at[0]].sum()) >> x.rshift
            else:
                found = [src[at[0], y, z] for y, z in window(x, src.shape[1:], *at[1:])]
                dst[at] += int(max(found)) >> x.rshift if found else 0

    def _soma(self, i, q, n, t):
        if q.model == "input":
            if i in self.given:
                self.out.codes[i][n, t] = self.given[i][t]
                return
            spec = next(h for h in self.p.host_codes if h.population == i)
            image = self.images[n][t] if self.p.input_time else self.images[n]
            self.out.codes[i][n, t] = np.rint(image.astype(np.float64) * spec.scale)
            return
        if q.restart is not None and (t + 1) % q.restart[0] == q.restart[1] % q.restart[0]:
            self.state[i]["u"][:] = self.state[i]["v"][:] = 0
        update = {"sigma_delta": self._sigma_delta, "cell": self._cell}.get(q.model, self._update)
        self.t = t
        for at in np.ndindex(q.shape):
            self.out.codes[i][n, t][at] = update(i, q, at, int(self.acc[q.dendrite][at]))
        for part in PARTS:
            self.out.states[part][i][n, t] = self.state[i][part]

    def _update(self, i, q, at, a):
        c, over = at[0], self.out.overflow
        over["accumulator"][i] += not -(2**31) <= a < 2**31
        if q.model == "relay":
            over["payload"][i] += not -HALF <= a < HALF
            return a
        bias = 0 if q.bias is None else int(q.bias[c])
        state = self.state[i]
        old = {"lif": decay(int(state["v"][at]), q.dv), "readout": int(state["v"][at]), "levels": 0}[q.model]
        u = (decay(int(state["u"][at]), q.du + 1) if q.model == "lif" else 0) + (a << 6)
        wrapped = wrap24(u, self.profile)
        state["u"][at] = wrapped
        over["u"][i] += wrapped != u
        full = old + wrapped + bias
        v = clip24(full)
        over["v"][i] += v != full
        if q.model == "levels":
            row = q.thresholds[c if len(q.thresholds) > 1 else 0]
            return sum(v >= int(theta) for theta in row)
        spike = int(q.model == "lif" and v > int(q.vth[c]) << 6)
        if q.vth_low is not None:
            spike -= v < int(q.vth_low[c]) << 6
        state["v"][at] = 0 if spike else v
        return spike

    def _cell(self, i, q, at, a):
        """A soma of microcode, as docs/integers.md says it."""
        c, over, cell, state = at[0], self.out.overflow, q.cell, self.state[i]

        def table(values, default):
            return default if values is None else int(values[self.t][c if values.shape[1] > 1 else 0])

        def channel(values, default):
            return default if values is None else int(values[c])

        over["accumulator"][i] += not -(2**31) <= a < 2**31
        u = decay(int(state["u"][at]), q.du + 1) + (a * table(cell.gain, 4096) >> 6)
        state["u"][at] = wrap24(u, self.profile)
        over["u"][i] += int(state["u"][at]) != u
        before, total = int(state["sent"][at]), int(state["total"][at])
        raised = decay(int(state["b"][at]), cell.db) + before * channel(cell.jump, 0)
        state["b"][at] = clip24(raised)
        over["v"][i] += clip24(raised) != raised
        r = clip24(raised) + table(cell.rise, 0)
        h = decay(int(state["v"][at]), q.dv) + int(state["u"][at])
        h += channel(q.bias, 0) if cell.bias is None else table(cell.bias, 0)

        def reset(x, code):
            if not code:
                return x
            if not cell.soft:
                return 0
            return x if cell.step is None else x - code * (int(cell.step[c]) + r)

        h = reset(h, before) if cell.late else h
        v = clip24(h)
        over["v"][i] += v != h
        row = q.thresholds[c if len(q.thresholds) > 1 else 0]
        code = sum(v >= int(theta) + r for theta in row)
        code -= cell.low is not None and v < int(cell.low[c])
        if cell.sums is not None:
            code = min(max(code, cell.sums[0] - total), cell.sums[1] - total)
        if not cell.late:
            over["v"][i] += clip24(reset(v, code)) != reset(v, code)
            v = clip24(reset(v, code))
        state["v"][at] = max(v, channel(cell.floor, -(2**31)))
        state["sent"][at], state["total"][at] = code, total + code
        return code

    def _sigma_delta(self, i, q, at, a):
        """sigma, act, residue and error in 32 bits that wrap at every sum."""
        over, state = self.out.overflow, {part: int(self.state[i][part][at]) for part in SIGMA_DELTA}
        over["accumulator"][i] += not -(2**31) <= a < 2**31
        sums = {"sigma": state["sigma"] + wrap32(a)}
        sums["act"] = wrap32(sums["sigma"]) + (0 if q.bias is None else int(q.bias[at[0]]))
        act = max(wrap32(sums["act"]), 0) if q.relu else wrap32(sums["act"])
        sums["delta"] = act - state["act"] + state["residue"]
        delta = wrap32(sums["delta"])
        sums["error"] = state["error"] + delta if q.cumulative else 0
        over["v"][i] += any(wrap32(x) != x for x in sums.values())
        fire = abs(wrap32(sums["error"]) if q.cumulative else delta) >= int(q.vth[at[0]])
        sent = delta if fire else 0
        new = wrap32(sums["sigma"]), act, delta - sent, 0 if fire else wrap32(sums["error"])
        for part, value in zip(SIGMA_DELTA, new, strict=True):
            self.state[i][part][at] = value
        code = sent >> q.out_shift
        over["payload"][i] += not -HALF <= code < HALF
        return code


# -- counters ----------------------------------------------------------------------------------


def holds(box, at) -> bool:
    return all(box[2 * i] <= at[i] < box[2 * i + 1] for i in range(3))


class _Count:
    """Recount of one run from its codes and the mapping tables."""

    def __init__(self, program: Program, images: np.ndarray, out: Naive) -> None:
        self.p, self.images, self.out, self.m = program, images, out, program.mapping
        self.core_of = {i: int(row[1]) for i, row in enumerate(self.m.tiles)}
        self.pieces = defaultdict(list)  # dendrite -> (core, tile, box)
        for tile, d, *box in self.m.pieces.tolist():
            self.pieces[d].append((self.core_of[tile], tile, box))
        self.axons = defaultdict(list)  # (kind, index, role) -> rows
        for row in self.m.axons.tolist():
            self.axons[tuple(row[1:4])].append(row)
        self.synops, self.updates, self.memory, self.links = (defaultdict(Counter) for _ in range(4))

    def all(self) -> None:
        for n in range(len(self.images)):
            for t in range(self.p.timesteps):
                for i in range(len(self.p.populations)):
                    self.population(i, n, t)
                for i in range(len(self.p.dynamics)):
                    self.writes(i, n, t)
                self.transfers()
            self.host(n)
        self.dense()
        for name, load in zip(
            ("synops", "neuron_updates", "memory_reads", "link_packets"),
            (self.synops, self.updates, self.memory, self.links),
            strict=True,
        ):
            self.out.bound[name] = sum(max(cores.values()) for cores in load.values())

    def add(self, table, unit, core, n=1):
        self.out.tables[table][unit, core] += n

    def tick(self, n, t, level):
        return n * self.p.interval + t * self.p.ticks_per_step + level

    def edges(self, i):
        """(kind, index, role, unit, projection, delay, lag) of everything that population i feeds."""
        p = self.p
        for j, c in enumerate(p.convs):
            if c.src == i:
                yield 0, j, 0, j, c, c.delay, c.lag
        for j, m in enumerate(p.maps):
            if m.src == i:
                yield 1, j, 0, len(p.convs) + j, m, m.delay, m.lag
        for j, d in enumerate(p.dynamics):
            unit = len(p.convs) + len(p.maps) + j
            for role, src, delay in ((0, d.q, d.delay_q), (1, d.k, d.delay_k), (2, d.v, d.delay_v)):
                if src == i:
                    yield 2, j, role, unit, d, delay, 0
        for j, s in enumerate(p.sparses):
            if s.src == i:
                yield 3, j, 0, len(p.convs) + len(p.maps) + len(p.dynamics) + j, s, s.delay, s.lag

    def takes(self, kind, projection, row, e):
        """Whether an axon row takes an event: its box does, and for a Sparse its tile has a synapse of the soma."""
        if not holds(row[5:], e) or kind != 3:
            return holds(row[5:], e)
        return any(
            holds(box, at)
            for _, tile, box in self.pieces[projection.dst]
            if tile == row[4]
            for at in self.sparse_targets(projection, e)
        )

    def sparse_targets(self, s, e):
        shapes = self.p.populations[s.src].shape, self.p.dendrites[s.dst].shape
        return [at for at, _, _ in synapses(s, shapes, e)]

    def population(self, i, n, t):
        q, level = self.p.populations[i], self.p.populations[i].level
        if q.dendrite >= 0:
            for core, _, box in self.pieces[q.dendrite]:
                size = np.prod([box[1] - box[0], box[3] - box[2], box[5] - box[4]])
                self.add("neuron_updates", i, core, int(size))
                self.updates[self.tick(n, t, level)][core] += int(size)
                for c in range(box[0], box[1]):
                    table = None if q.cell is None else q.cell.bias
                    if (q.bias is not None and q.bias[c]) or (table is not None and table[:, c].any()):
                        self.add("bias_events", i, core, int(size) // (box[1] - box[0]))
        codes = self.out.codes[i][n, t]
        for e in np.argwhere(codes).tolist():
            self.event(i, q, e, int(codes[tuple(e)]), n, t)

    def event(self, i, q, e, code, n, t):
        home = [(core, tile) for core, tile, box in self.pieces[q.dendrite] if holds(box, e)] or [(-1, -1)]
        (core, tile) = home[0]
        self.add("events", i, core)
        self.add("payload_sum", i, core, abs(code))
        reached = set()
        for kind, j, role, unit, projection, delay, lag in self.edges(i):
            at = self.tick(n, t, q.level + delay)
            for row in self.axons[kind, j, role]:
                if row[0] == tile and self.takes(kind, projection, row, e):
                    target = self.core_of[row[4]]
                    reached.add(target)
                    self.add("axon_reads", unit, target)
                    self.memory[at][target] += 1
                    if t + lag >= self.p.timesteps:
                        self.add("waste_events", unit, target)
            if t + lag < self.p.timesteps:
                self.work(kind, j, role, projection, q, e, at)
        for target in sorted(reached):
            self.packet(i, core, target, self.tick(n, t, q.level))

    def packet(self, i, core, target, tick):
        if core < 0:
            self.add("input_messages", i, target)
        elif core == target:
            self.add("packets_local", i, core)
        else:
            self.add("packets", i, core)
            self.add("packets_in", i, target)
            self.walk(i, core, target, tick)

    def walk(self, i, core, target, tick):
        rx = self.p.target["mesh"]["routers"][0]
        (x, y), (x1, y1) = ((int(r[0]) * rx + int(r[1]), int(r[2])) for r in self.m.cores[[core, target]])
        while (x, y) != (x1, y1):
            step = (x + (1 if x1 > x else -1), y) if x != x1 else (x, y + (1 if y1 > y else -1))
            self.links[tick][(x, y), step] += 1
            if x == step[0]:
                self.add("hops_ns", i, core)
            else:
                self.add("hops_ew" if x // rx == step[0] // rx else "chip_crossings", i, core)
            x, y = step

    def work(self, kind, j, role, projection, q, e, at):
        dst = self.p.dendrites[projection.dst]
        for core, _, box in self.pieces[projection.dst]:
            if kind == 0:
                targets = [(o, y, x) for o, y, x, _ in conv_targets(projection, q.shape[1], e)]
                if projection.collapse:
                    targets = [(o, 0, 0) for o, _, _ in targets]
                done = sum(holds(box, target) for target in targets)
                self.add("synops_mac" if q.payload_bits else "synops_ac", j, core, done)
                self.operations(core, done, at)
            elif kind == 3:
                done = sum(holds(box, target) for target in self.sparse_targets(projection, e))
                mac = q.payload_bits and projection.graded
                self.add("synops_mac" if mac else "synops_ac", len(self.p.convs) + j, core, done)
                self.operations(core, done, at)
            elif kind == 1:
                done = sum(holds(box, target) for target in map_targets(projection, q.shape[0], dst.shape, e))
                self.add("map_ops", j, core, done)
            elif role == (0 if projection.order == "kv" else 2):
                done = self.words(projection, e, box)
                self.add("dyn_reads", j, core, done)
                self.operations(core, done, at)

    def operations(self, core, done, at):
        self.synops[at][core] += done
        self.memory[at][core] += done

    def words(self, d, e, box):
        """Table words that one reading event reads on a tile."""
        depth = self.p.populations[d.q].shape[0] // d.heads
        width = self.p.populations[d.v].shape[0] // d.heads
        if d.order == "kv":
            if not (box[2] <= e[1] < box[3] and box[4] <= e[2] < box[5]):
                return 0
            return sum(j // width == e[0] // depth for j in range(box[0], box[1]))
        return (box[3] - box[2]) * (box[5] - box[4]) if box[0] <= e[0] < box[1] else 0

    def writes(self, j, n, t):
        d = self.p.dynamics[j]
        q, k, v = (np.argwhere(self.out.codes[i][n, t]).tolist() for i in (d.q, d.k, d.v))
        written = self.p.arrival(d.k, d.delay_k)
        for core, done in self.pairs(d, q, k, v):
            self.add("dyn_writes", j, core, done)
            self.operations(core, done, self.tick(n, t, written))

    def pairs(self, d, q, k, v):
        depth = self.p.populations[d.q].shape[0] // d.heads
        width = self.p.populations[d.v].shape[0] // d.heads
        for core, _, box in self.pieces[d.dst]:
            done = 0
            if d.order == "kv":
                for b in v:
                    if box[0] <= b[0] < box[1]:
                        done += sum(a[1:] == b[1:] and a[0] // depth == b[0] // width for a in k)
            else:
                heads = {j // width for j in range(box[0], box[1])}
                for b in q:
                    if b[0] // depth in heads and box[2] <= b[1] < box[3] and box[4] <= b[2] < box[5]:
                        done += sum(a[0] == b[0] for a in k)
            yield core, done

    def transfers(self):
        for j, x in enumerate(self.p.transfers):
            size = self.p.dendrites[x.src].shape[1:]
            for core, _, box in self.pieces[x.dst]:
                for _ in range(box[0], box[1]):
                    for y in range(box[2], box[3]):
                        for z in range(box[4], box[5]):
                            if x.mode == "sum":
                                self.add("accumulator_adds", j, core, size[0] * size[1])
                            else:
                                self.add("pool_compares", j, core, len(list(window(x, size, y, z))))
                                self.add("accumulator_adds", j, core)

    def host(self, n):
        for j, h in enumerate(self.p.host_currents):
            frames = self.images[n] if self.p.input_time else self.images[n][None]
            for t in range(self.p.timesteps):
                y, macs = host_conv(h, frames[t if self.p.input_time else 0])
                if t < len(frames):
                    self.add("host_macs", j, -1, macs)
                for core, _, box in self.pieces[h.dst]:
                    self.add("current_messages", j, core, sum(holds(box, at) for at in np.argwhere(y).tolist()))

    def dense(self):
        """SynOps with every source soma active in every timestep."""
        p, samples = self.p, len(self.images)
        for j, c in enumerate(p.convs):
            shape, mac = p.populations[c.src].shape, bool(p.populations[c.src].payload_bits)
            for core, _, box in self.pieces[c.dst]:
                done = 0
                for e in np.ndindex(shape):
                    for o, y, x, _ in conv_targets(c, shape[1], e):
                        done += holds(box, (o, 0, 0) if c.collapse else (o, y, x))
                steps = max(p.timesteps - c.lag, 0) * samples
                self.add("synops_mac_dense" if mac else "synops_ac_dense", j, core, done * steps)
        for j, s in enumerate(p.sparses):
            mac = p.populations[s.src].payload_bits and s.graded
            for core, _, box in self.pieces[s.dst]:
                done = 0
                for e in np.ndindex(p.populations[s.src].shape):
                    done += sum(holds(box, at) for at in self.sparse_targets(s, e))
                steps = max(p.timesteps - s.lag, 0) * samples
                self.add("synops_mac_dense" if mac else "synops_ac_dense", len(p.convs) + j, core, done * steps)
        for j, d in enumerate(p.dynamics):
            q, k, v = (list(map(list, np.ndindex(p.populations[i].shape))) for i in (d.q, d.k, d.v))
            steps = p.timesteps * samples
            for core, done in self.pairs(d, q, k, v):
                self.add("dyn_writes_dense", j, core, done * steps)
            for core, _, box in self.pieces[d.dst]:
                done = sum(self.words(d, e, box) for e in (q if d.order == "kv" else v))
                self.add("dyn_reads_dense", j, core, done * steps)


def run(program: Program, images: np.ndarray) -> Naive:
    """Evaluate a mapped Program and recount everything."""
    return _run(program, images, {})


def run_events(program: Program, inputs: dict[int, np.ndarray], steps: int) -> Naive:
    """One window of ``steps`` timesteps of a mapped Program whose inputs are given: codes [steps, C, H, W]."""
    window = replace(program, timesteps=steps, interval=steps * program.ticks_per_step)
    return _run(window, np.zeros((1, *program.input_shape)), inputs)


def _run(program: Program, images: np.ndarray, given: dict[int, np.ndarray]) -> Naive:
    machine = _Machine(program, images, given)
    for n in range(len(images)):
        machine.sample(n)
    _Count(program, images, machine.out).all()
    return machine.out
