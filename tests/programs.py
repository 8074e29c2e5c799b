"""Small random Programs, with a trivial and a random split mapping, for tests of the emulator.

A Program is grown layer by layer from a seed: every kind of projection, transfer and soma, residual
streams, relays, recurrent projections, and delays longer than needed. Shapes are tiny so that the
brute-force twin of ``naive.py`` can follow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nmc_compiler.program.model import (
    Box,
    Conv,
    Dendrite,
    Depth,
    Dynamic,
    HostCodes,
    HostCurrent,
    Map,
    Mapping,
    Population,
    Program,
    Transfer,
    whole,
)

ROUTERS = (2, 3)


def _size(n: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


class Grower:
    """Grows a Program; populations of level L are driven by what arrives at levels up to L."""

    def __init__(
        self, rng: np.random.Generator, timesteps: int, ticks: int, graded: bool, lags: bool, volumes: bool = False
    ) -> None:
        self.rng, self.T, self.P = rng, timesteps, ticks
        self.graded, self.lags, self.volumes = graded, lags, volumes
        self.shape = (self.pick(1, 2, 3), self.pick(3, 4, 5), self.pick(3, 4, 6))
        if volumes:
            self.shape = (self.shape[0], self.pick(4, 6, 8), 3)
        self.populations: list[Population] = []
        self.dendrites: list[Dendrite] = []
        self.convs: list[Conv] = []
        self.maps: list[Map] = []
        self.dynamics: list[Dynamic] = []
        self.transfers: list[Transfer] = []
        self.currents: list[HostCurrent] = []
        self.input_codes: list[HostCodes] = []
        self.wide: set[int] = set()  # populations whose codes grow: relays, signed inputs
        self.clusters = 0

    # -- choices -------------------------------------------------------------------------------

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def weights(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    # -- parts ---------------------------------------------------------------------------------

    def dendrite(self, shape, cluster: int | None = None) -> int:
        if cluster is None:
            cluster, self.clusters = self.clusters, self.clusters + 1
        self.dendrites.append(Dendrite(f"d{len(self.dendrites)}", shape, cluster))
        return len(self.dendrites) - 1

    def add_input(self) -> None:
        if self.graded or self.chance(0.3):
            lo, hi = self.pick((0, 1), (0, 3), (0, 255), (-8, 7), (-128, 127))
            self.populations.append(
                Population(
                    "in",
                    self.shape,
                    self.pick(0, 1),
                    "input",
                    "input",
                    -1,
                    payload_bits=0 if hi == 1 else 8,
                    signed=lo < 0,
                )
            )
            self.input_codes.append(HostCodes(0, float(hi), lo, hi))
            self.wide |= {0} if lo < 0 else set()
        if not self.populations or self.chance(0.5):
            self.add_current()

    def add_current(self) -> None:
        groups = self.pick(1, self.shape[0])
        outs = groups * self.pick(1, 2)
        (kh, kw), stride, pad = (
            (self.pick(1, 2, 3), self.pick(1, 3)),
            self.pick((1, 1), (2, 1)),
            self.pick((0, 0), (1, 1)),
        )
        h, w = _size(self.shape[1], kh, stride[0], pad[0]), _size(self.shape[2], kw, stride[1], pad[1])
        weight = self.rng.integers(-3000, 3000, (outs, self.shape[0] // groups, kh, kw)).astype(np.int32)
        level, dst = self.pick(0, 1, 2), self.dendrite((outs, h, w))
        bias = self.rng.integers(-500, 500, outs).astype(np.int64)
        self.currents.append(
            HostCurrent(
                "host",
                dst,
                level,
                weight,
                bias,
                self.pick(0, 4, 7),
                self.pick(0, 3, 5),
                self.shape,
                stride,
                pad,
                (1, 1),
                groups,
            )  # fmt: skip
        )
        self.soma(dst, level + self.pick(0, 0, 1), drive=3000)

    def soma(self, d: int, level: int, drive: int = 200, model: str | None = None, role: str = "neuron") -> int:
        """A population on dendrite d; ``drive``: typical accumulator, to choose thresholds by."""
        shape = self.dendrites[d].shape
        model = model or self.pick("lif", "lif", "lif", "levels", "relay")
        bias = None if self.chance(0.5) else self.rng.integers(-2, 3, shape[0]).astype(np.int32) * 16 * drive
        extra: dict = {}
        if model == "lif":
            extra = {"dv": self.pick(4096, 2048, 0, 137), "vth": self._vth(shape[0], drive)}
        elif model == "levels":
            rows, depth = self.pick(1, shape[0]), self.pick(1, 2, 4, 9)
            table = np.sort(self.rng.integers(-drive, 4 * drive, (rows, depth)) * 64, axis=1)
            extra = {"thresholds": table.astype(np.int32), "payload_bits": 4 if depth > 1 else 0}
        elif model == "relay":
            extra, bias, role = {"payload_bits": 24, "signed": True}, None, "relay"
        elif model == "readout":
            extra = {"readout_scale": 1.0 / 64 / self.T}
        name = f"p{len(self.populations)}"
        self.populations.append(Population(name, shape, level, model, role, d, bias=bias, **extra))  # type: ignore[arg-type]
        if model == "relay":
            self.wide.add(len(self.populations) - 1)
        return len(self.populations) - 1

    def _vth(self, channels: int, drive: int) -> np.ndarray:
        return self.rng.integers(-drive // 4, drive, channels).astype(np.int32)

    def delay(self, src: int) -> int:
        return self.pick(1, 1, 1, 2, 5)

    # -- layers --------------------------------------------------------------------------------

    def source(self, narrow: bool = False) -> int:
        options = [i for i in range(len(self.populations)) if not (narrow and i in self.wide)]
        return self.pick(*options) if options else -1

    def add_conv(self, src: int, delay: int, dst: int | None = None, lag: int = 0) -> tuple[int, int]:
        """(dendrite, arrival level) of a random conv; with ``dst`` one that fits its shape, 3x3 or 1x1."""
        c, h, w = self.populations[src].shape
        fits = dst is not None
        groups = 1 if fits else self.pick(1, 1, c)
        outs = self.dendrites[dst].shape[0] if fits else groups * self.pick(1, 2, 5)  # type: ignore[index]
        kh = self.pick(1, 3) if fits else self.pick(1, 2, 3)
        kw = kh if fits else self.pick(1, 2, 3)
        stride = (1, 1) if fits else (self.pick(1, 1, 2), self.pick(1, 1, 2))
        dilation = (1, 1) if fits else (self.pick(1, 1, 2), self.pick(1, 1, 2))
        pad = (kh // 2, kw // 2) if fits else (self.pick(0, 1), self.pick(0, 1))
        depth = self._depth(h, fits) if self.volumes else Depth(1, 1, 1)
        high, kd = h // depth.source, depth.kernel
        out = (_size(high, kh, stride[0], pad[0], dilation[0]), _size(w, kw, stride[1], pad[1], dilation[1]))
        if min(depth.target, *out) < 1:
            kh, kw, stride, pad, dilation, out = 1, 1, (1, 1), (0, 0), (1, 1), (h, w)
            depth, kd = Depth(1, 1, 1), 1
        out = (depth.target * out[0], out[1])
        collapse = not fits and self.chance(0.15)
        if dst is None:
            dst = self.dendrite((outs, 1, 1) if collapse else (outs, *out))
        weight = self.weights(kd * kh, kw, c // groups, outs)
        self.convs.append(
            Conv(
                f"c{len(self.convs)}",
                src,
                dst,
                delay,
                weight,
                self.pick(0, 0, 1, 2),
                stride,
                pad,
                dilation,
                groups,
                collapse,
                out,
                lag,
                depth=depth if self.volumes else None,
            )  # fmt: skip
        )
        return dst, self.populations[src].level + delay - lag * self.P

    def _depth(self, rows: int, fits: bool) -> Depth:
        """Rows as slices of some height, and a window along them; ``fits``: one that keeps their number."""
        slices, kernel = self.pick(*(d for d in range(1, rows + 1) if rows % d == 0)), self.pick(1, 3)
        if fits:
            return Depth(slices, slices, kernel, 1, kernel // 2)
        kernel, stride, pad, dilation = self.pick(1, 2, 3), self.pick(1, 1, 2), self.pick(0, 1, 2), self.pick(1, 1, 2)
        return Depth(slices, _size(slices, kernel, stride, pad, dilation), kernel, stride, pad, dilation)

    def add_map(self, src: int) -> tuple[int, int]:
        c, h, w = self.populations[src].shape
        blocks = ("reduce_channels", "broadcast_channels") if self.chance(0.3) else ()
        mode = self.pick("same", "reduce", "window", *(["broadcast"] if h == w == 1 else []), *blocks)
        kernel, stride, pad = (1, 1), (1, 1), (0, 0)
        shape = (c, h, w)
        if mode == "reduce":
            shape = (c, 1, 1)
        elif mode == "reduce_channels":
            shape = (self.pick(*(g for g in range(1, c + 1) if c % g == 0)), h, w)
        elif mode == "broadcast_channels":
            shape = (c * self.pick(1, 2, 3), h, w)
        elif mode == "broadcast":
            shape = (c, self.pick(2, 3), self.pick(1, 4))
        elif mode == "window":
            kernel = (min(h, self.pick(2, 3)), min(w, self.pick(2, 3)))
            stride, pad = self.pick((1, 1), (2, 2), (2, 1)), self.pick((0, 0), (1, 1))
            pad = (min(pad[0], kernel[0] // 2), min(pad[1], kernel[1] // 2))
            shape = (c, _size(h, kernel[0], stride[0], pad[0]), _size(w, kernel[1], stride[1], pad[1]))
        d, delay = self.dendrite(shape), self.delay(src)
        self.maps.append(
            Map(f"m{len(self.maps)}", src, d, delay, self.pick(0, 3), mode, kernel, stride, pad)  # type: ignore[arg-type]
        )
        return d, self.populations[src].level + delay

    def add_attention(self) -> None:
        """Dynamic synapse: q, k, v are fresh somas on 1x1 convs of one population."""
        src = self.source()
        heads, depth, width = self.pick(1, 2), self.pick(1, 2, 3), self.pick(1, 3)
        _, h, w = self.populations[src].shape
        level = self.populations[src].level
        found = []
        for channels in (heads * depth, heads * depth, heads * width):
            d = self.dendrite((channels, h, w))
            self.add_conv(src, self.pick(1, 2), dst=d)
            drive = 200 if src not in self.wide else 4000
            found.append(self.soma(d, level + 2 + self.pick(0, 1), drive, self.pick("lif", "levels")))
        levels = [self.populations[i].level for i in found]
        read, order = max(levels) + 2 + self.pick(0, 1), self.pick("kv", "qk")
        at = [read - 1] * 3
        at[0 if order == "kv" else 2] = read
        dst = self.dendrite((heads * width, h, w))
        self.dynamics.append(
            Dynamic(
                f"a{len(self.dynamics)}",
                *found,
                dst,
                *(a - b for a, b in zip(at, levels, strict=True)),
                heads,
                self.pick(0, 2),
                self.pick(3, 10, 2**31 - 1),
                order,
            )  # fmt: skip
        )
        self.soma(dst, read + self.pick(0, 0, 2), drive=4, model=self.pick("lif", "levels", "relay"))

    def add_pool(self) -> None:
        """Conv, max pool on currents into a stream, and perhaps a sum over its positions."""
        src = self.source()
        first, level = self.add_conv(src, self.delay(src))
        c, h, w = self.dendrites[first].shape
        kernel, stride = (min(h, self.pick(2, 3)), min(w, self.pick(2, 3))), self.pick((1, 1), (2, 2))
        pad = self.pick((0, 0), (kernel[0] // 2, kernel[1] // 2))
        shape = (c, _size(h, kernel[0], stride[0], pad[0]), _size(w, kernel[1], stride[1], pad[1]))
        cluster, drive = self.dendrites[first].cluster, 400 if src not in self.wide else 4000
        stream, level = self.dendrite(shape, cluster), level + self.pick(0, 1)
        self.transfers.append(
            Transfer(
                f"t{len(self.transfers)}", first, stream, level, "maxpool", kernel, stride, pad, self.pick(0, 0, 1, 3)
            )
        )
        if self.chance(0.3):
            self.soma(first, level + self.pick(0, 1), drive)
        reader = self.soma(stream, level + self.pick(0, 1), drive)
        if self.chance(0.7):
            _, level = self.add_conv(reader, 1, dst=stream)
            reader = self.soma(stream, level, drive)
        if self.chance(0.5):
            level = self.populations[reader].level + self.pick(0, 1)
            total = self.dendrite((c, 1, 1), cluster)
            self.transfers.append(
                Transfer(f"t{len(self.transfers)}", stream, total, level, "sum", rshift=self.pick(0, 0, 2))
            )
            self.soma(total, level + self.pick(0, 1), 4 * drive)

    def add_transfer(self, src: int, dst: int, level: int, *form) -> None:
        self.transfers.append(Transfer(f"t{len(self.transfers)}", src, dst, level, *form, rshift=self.pick(0, 0, 1, 3)))

    def add_layer(self) -> None:
        kind = self.pick("conv", "conv", "map", "attention", "pool", "join", "again")
        if kind == "attention":
            return self.add_attention()
        if kind == "pool":
            return self.add_pool()
        src = self.source()
        d, level = self.add_map(src) if kind == "map" else self.add_conv(src, self.delay(src))
        if kind == "join":  # a second source into the same dendrite, read after both
            same = [i for i, p in enumerate(self.populations) if p.shape[1:] == self.dendrites[d].shape[1:]]
            if same:
                level = max(level, self.add_conv(self.pick(*same), self.delay(src), dst=d)[1])
        drive = (4 if kind == "map" else 300) * (30 if src in self.wide else 1)
        role = self.pick("or", "and", "pool", "neuron") if kind == "map" else "neuron"
        reader = self.soma(d, level + self.pick(0, 0, 1, 3), drive, self._model(src), role)
        if kind == "again":  # a second reader of the same dendrite, later
            self.soma(d, self.populations[reader].level + self.pick(0, 2), drive)
        if self.lags and self.chance(0.6) and reader not in self.wide:
            lag = self.pick(1, 1, 2)
            delay = lag * self.P - self.pick(0, 0, 1)
            self.add_conv(reader, max(delay, 1), dst=d, lag=lag)

    def _model(self, src: int) -> str | None:
        return None if src not in self.wide else self.pick("lif", "levels")

    def add_readout(self) -> None:
        src = self.source()
        c, h, w = self.populations[src].shape
        d = self.dendrite((3, 1, 1))
        self.convs.append(Conv("head", src, d, 1, self.weights(1, 1, c, 3), 0, collapse=True, out_hw=(h, w)))
        self.soma(d, self.populations[src].level + 1, 100, "readout", "readout")

    # -- result --------------------------------------------------------------------------------

    def ring(self, d: int, program: Program) -> int:
        levels = [program.arrival(e.src, e.delay, e.lag) for e in (*self.convs, *self.maps) if e.dst == d]
        levels += [program.arrival(a.q, a.delay_q) for a in self.dynamics if a.dst == d]
        levels += [program.arrival(a.v, a.delay_v) for a in self.dynamics if a.dst == d]
        levels += [x.level for x in (*self.transfers, *self.currents) if x.dst == d]
        reads = [p.level for p in self.populations if p.dendrite == d] + [t.level for t in self.transfers if t.src == d]
        return (max(reads) - min([*levels, max(reads)])) // self.P + 1 + self.pick(0, 0, 1)

    def program(self, name: str, pipelined: bool, input_time: bool) -> Program:
        p = Program(
            name, self.T, self.P, self.shape, input_time, tuple(self.populations), tuple(self.dendrites),
            tuple(self.convs), tuple(self.maps), tuple(self.dynamics), tuple(self.transfers), tuple(self.currents),
            tuple(self.input_codes), None, {"name": "test", "mesh": {"routers": ROUTERS}}, 0,
        )  # fmt: skip
        rings = tuple(replace(x, ring=self.ring(d, p)) for d, x in enumerate(p.dendrites))
        return replace(p, dendrites=rings, interval=self.T * self.P + (0 if pipelined else p.depth))


def random_program(
    seed: int,
    *,
    layers: int = 4,
    pipelined: bool = False,
    input_time: bool = False,
    graded: bool = False,
    lags: bool = False,
    ticks: int = 1,
    volumes: bool = False,
) -> Program:
    """A random Program without mapping; equal seeds and options give equal Programs."""
    rng = np.random.default_rng(seed)
    g = Grower(rng, int(rng.integers(1, 4)), ticks, graded, lags, volumes)
    g.add_input()
    for _ in range(layers):
        g.add_layer()
    g.add_readout()
    return g.program(f"random-{seed}", pipelined, input_time)


def random_images(program: Program, seed: int, n: int) -> np.ndarray:
    """Images of n samples that use the whole range of the input encoding."""
    rng = np.random.default_rng(seed)
    shape = (n, program.timesteps, *program.input_shape) if program.input_time else (n, *program.input_shape)
    low = min((h.lo / h.scale for h in program.host_codes), default=0.0)
    return rng.uniform(max(low, -1.0), 1.0, shape)


# -- mappings ----------------------------------------------------------------------------------


def _split(rng: np.random.Generator, box: Box, parts: int, axes: tuple[int, ...]) -> list[Box]:
    """Cut a box at random along the given axes (0 channels, 1 rows, 2 columns) into up to ``parts``."""
    boxes = [box]
    while len(boxes) < parts:
        i = int(rng.integers(len(boxes)))
        corners, axis = list(boxes[i].as_tuple()), int(rng.choice(axes))
        lo, hi = corners[2 * axis : 2 * axis + 2]
        if hi - lo < 2:
            parts -= 1
            continue
        cut = int(rng.integers(lo + 1, hi))
        left, right = list(corners), list(corners)
        left[2 * axis + 1] = right[2 * axis] = cut
        boxes[i : i + 1] = [Box(*left), Box(*right)]
    return boxes


def _transfer_source(p: Program, t: Transfer, b: Box) -> Box:
    _, h, w = p.dendrites[t.src].shape
    if t.mode == "sum":
        return Box(b.c0, b.c1, 0, h, 0, w)
    y0, x0 = b.y0 * t.stride[0] - t.pad[0], b.x0 * t.stride[1] - t.pad[1]
    y1 = (b.y1 - 1) * t.stride[0] - t.pad[0] + t.kernel[0]
    x1 = (b.x1 - 1) * t.stride[1] - t.pad[1] + t.kernel[1]
    return Box(b.c0, b.c1, max(y0, 0), min(y1, h), max(x0, 0), min(x1, w))


def _cluster_tiles(p: Program, cluster: int, rng: np.random.Generator, parts: int) -> list[dict[int, Box]]:
    """Tiles of a cluster as {dendrite: box}. A source of a transfer that somas read, too, is cut by
    channels alone, so that no position is held twice."""
    members = [i for i, d in enumerate(p.dendrites) if d.cluster == cluster]
    moves = [t for t in p.transfers if t.src in members]
    base = next(i for i in members if i not in {t.src for t in moves})
    read = {q.dendrite for q in p.populations}
    whole_planes = any(t.src in read or t.mode == "sum" for t in moves)
    tiles = []
    for box in _split(rng, whole(p.dendrites[base].shape), parts, (0,) if whole_planes else (0, 1, 2)):
        held = {base: box}
        for t in reversed(moves):
            need = _transfer_source(p, t, held[t.dst])
            _, h, w = p.dendrites[t.src].shape
            held[t.src] = Box(need.c0, need.c1, 0, h, 0, w) if whole_planes else need
        tiles.append(held)
    return tiles


def _reaches(p: Program, kind: int, index: int, role: int, shape, box: Box) -> np.ndarray:
    """Mask over the source population: somas whose events a tile with this target box needs."""
    mask = np.zeros(shape, bool)
    for c, y, x in np.ndindex(shape):
        reaches = (_conv_reaches, _map_reaches, _dynamic_reaches, _sparse_reaches)[kind]
        mask[c, y, x] = reaches(p, index, role, (c, y, x), box)
    return mask


def _conv_reaches(p, index, role, e, box):
    c = p.convs[index]
    outs, group = c.weight.shape[3] // c.groups, e[0] // c.weight.shape[2]
    if max(group * outs, box.c0) >= min((group + 1) * outs, box.c1):
        return False

    d, (kh, kw) = c.depth or Depth(1, 1, 1), c.weight.shape[:2]

    def outs_of(place, outs, kernel, stride, pad, dilation):
        for out in range(outs):
            tap, rest = divmod(place + pad - out * stride, dilation)
            if rest == 0 and 0 <= tap < kernel:
                yield out

    slice_, row = divmod(e[1], p.populations[c.src].shape[1] // d.source)
    slices = outs_of(slice_, d.target, d.kernel, d.stride, d.pad, d.dilation)
    high = c.out_hw[0] // d.target
    rows = list(outs_of(row, high, kh // d.kernel, c.stride[0], c.pad[0], c.dilation[0]))
    rows = [z * high + y for z in slices for y in rows]
    columns = outs_of(e[2], c.out_hw[1], kw, c.stride[1], c.pad[1], c.dilation[1])
    ends = zip((rows, columns), (box.y0, box.x0), (box.y1, box.x1), strict=True)
    return all(any(c.collapse or lo <= out < hi for out in found) for found, lo, hi in ends)


def _map_reaches(p, index, role, e, box):
    m = p.maps[index]
    sources, targets = p.populations[m.src].shape[0], p.dendrites[m.dst].shape[0]
    groups = min(sources, targets)
    low = e[0] // (sources // groups) * (targets // groups)
    if low >= box.c1 or low + targets // groups <= box.c0:
        return False
    if m.mode in ("reduce", "broadcast"):
        return True
    ranges = ((box.y0, box.y1), (box.x0, box.x1))
    if m.mode in ("same", "reduce_channels", "broadcast_channels"):
        return all(lo <= at < hi for at, (lo, hi) in zip(e[1:], ranges, strict=True))
    return all(
        any(0 <= e[1 + a] - (t * m.stride[a] - m.pad[a]) < m.kernel[a] for t in range(*ranges[a])) for a in (0, 1)
    )


def _dynamic_reaches(p, index, role, e, box):
    d = p.dynamics[index]
    depth = p.populations[d.q].shape[0] // d.heads
    width = p.populations[d.v].shape[0] // d.heads
    heads = range(box.c0 // width, (box.c1 - 1) // width + 1)
    token = box.y0 <= e[1] < box.y1 and box.x0 <= e[2] < box.x1
    if role == 2:
        return box.c0 <= e[0] < box.c1
    return e[0] // depth in heads and (token or role == 1)


def _sparse_reaches(p, index, role, e, box):
    s = p.sparses[index]
    row = np.ravel_multi_index(e, p.populations[s.src].shape)
    at = np.unravel_index(s.target[s.indptr[row] : s.indptr[row + 1]], p.dendrites[s.dst].shape)
    lows, highs = (box.c0, box.y0, box.x0), (box.c1, box.y1, box.x1)
    hit = np.ones(len(at[0]), bool)
    for axis, lo, hi in zip(at, lows, highs, strict=True):
        hit &= (axis >= lo) & (axis < hi)
    return bool(hit.any())


def _bounding(mask: np.ndarray, origin: Box) -> Box | None:
    part = mask[origin.c0 : origin.c1, origin.y0 : origin.y1, origin.x0 : origin.x1]
    at = np.argwhere(part)
    if not len(at):
        return None
    lo, hi = at.min(0) + (origin.c0, origin.y0, origin.x0), at.max(0) + (origin.c0, origin.y0, origin.x0) + 1
    return Box(int(lo[0]), int(hi[0]), int(lo[1]), int(hi[1]), int(lo[2]), int(hi[2]))


def _edges(p: Program):
    for i, c in enumerate(p.convs):
        yield 0, i, 0, c.src, c.dst
    for i, m in enumerate(p.maps):
        yield 1, i, 0, m.src, m.dst
    for i, d in enumerate(p.dynamics):
        for role, src in enumerate((d.q, d.k, d.v)):
            yield 2, i, role, src, d.dst
    for i, s in enumerate(p.sparses):
        yield 3, i, 0, s.src, s.dst


def map_program(p: Program, seed: int | None = None, cores: int = 1, parts: int = 1, chips: int = 1) -> Program:
    """The Program with a mapping: every cluster in up to ``parts`` tiles on random cores.

    Without a seed: one tile per cluster, all on core 0.  Axon boxes are the bounding boxes of what a
    tile needs, now and then larger (a superfluous event must do nothing but travel).
    """
    rng = np.random.default_rng(0 if seed is None else seed)
    tiles, pieces = [], []
    for cluster in sorted({d.cluster for d in p.dendrites}):
        for held in _cluster_tiles(p, cluster, rng, parts):
            core = int(rng.integers(cores))
            base = min(held, key=list(held).index)
            tiles.append((cluster, core, *held[base].as_tuple()))
            pieces += [(len(tiles) - 1, d, *box.as_tuple()) for d, box in held.items()]
    axons = _axon_rows(p, rng, pieces, enlarge=seed is not None)
    sites = [(c, x, y, k) for c in range(chips) for x in range(ROUTERS[0]) for y in range(ROUTERS[1]) for k in (0, 1)]
    chosen = rng.permutation(len(sites))[:cores] if seed is not None else np.arange(cores)
    mapping = Mapping(
        np.array(tiles, np.int32),
        np.array(pieces, np.int32),
        np.array(axons, np.int32).reshape(-1, 11),
        np.array([sites[i] for i in chosen], np.int32),
        chips,
    )
    return replace(p, mapping=mapping)


def _axon_rows(p: Program, rng: np.random.Generator, pieces: list, enlarge: bool) -> list[tuple[int, ...]]:
    rows = []
    for kind, index, role, src, dst in _edges(p):
        q = p.populations[src]
        homes = [(t, Box(*b)) for t, d, *b in pieces if d == q.dendrite] if q.dendrite >= 0 else [(-1, whole(q.shape))]
        for tile, d, *b in pieces:
            if d != dst:
                continue
            mask = _reaches(p, kind, index, role, q.shape, Box(*b))
            for home, origin in homes:
                box = _bounding(mask, origin)
                if box is not None:
                    box = origin if enlarge and rng.random() < 0.15 else box
                    rows.append((home, kind, index, role, tile, *box.as_tuple()))
    return rows
