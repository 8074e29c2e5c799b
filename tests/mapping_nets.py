"""Netlists of spiking transformers at any size, for the tests of mapping and artefact.

Geometry, levels and rings are those of the published models; weights are random, since no
mapping depends on their values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from nmc_compiler.program.model import (
    Conv,
    Dendrite,
    Dynamic,
    HostCodes,
    HostCurrent,
    Map,
    Population,
    Program,
    Shape,
    Transfer,
)
from nmc_compiler.program.shapes import conv_out
from nmc_compiler.program.timing import arrivals, last_reads, ring_needed
from nmc_compiler.target import Target, load_target


@dataclass
class Net:
    """Adds layers one after the other; `build` fills in rings. One cluster per dendrite unless told."""

    input_shape: Shape
    ticks_per_step: int = 1
    seed: int = 0
    populations: list[Population] = field(default_factory=list)
    dendrites: list[Dendrite] = field(default_factory=list)
    convs: list[Conv] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    dynamics: list[Dynamic] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    host_currents: list[HostCurrent] = field(default_factory=list)
    host_codes: list[HostCodes] = field(default_factory=list)
    clusters: int = 0

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)

    # --- dendrites and somas

    def dendrite(self, shape, cluster=None):
        if cluster is None:
            cluster, self.clusters = self.clusters, self.clusters + 1
        self.dendrites.append(Dendrite(f"d{len(self.dendrites)}", tuple(shape), cluster))
        return len(self.dendrites) - 1

    def cluster(self, dendrite):
        return self.dendrites[dendrite].cluster

    def soma(self, dendrite, level, role="neuron", model="lif", levels=4, name=None, vth=None):
        shape = self.dendrites[dendrite].shape
        extra = {}
        if model == "lif":
            extra = {"vth": np.full(shape[0], 100, np.int32) if vth is None else vth, "dv": 2048}
        if model == "levels":
            extra = {"thresholds": np.arange(1, levels + 1, dtype=np.int32)[None] * 64, "payload_bits": 3}
        if model == "relay":
            extra = {"payload_bits": 24, "signed": True}
        if model == "readout":
            extra = {"bias": np.zeros(shape[0], np.int32)}
        name = name or f"p{len(self.populations)}"
        self.populations.append(Population(name, shape, level, model, role, dendrite, **extra))
        return len(self.populations) - 1

    def level(self, population):
        return self.populations[population].level

    # --- projections: all arrive at level `at`

    def conv_shape(self, src, out, kernel, stride=1, pad=0, dilation=1):
        _, h, w = self.populations[src].shape
        return (out, conv_out(h, kernel, stride, pad, dilation), conv_out(w, kernel, stride, pad, dilation))

    def conv(self, src, dst, at, kernel=1, stride=1, pad=0, dilation=1, groups=1, collapse=False, lag=0, key=""):
        inputs, outputs = self.populations[src].shape[0], self.dendrites[dst].shape[0]
        same = [c.weight for c in self.convs if key and c.weight_key == key]
        size = (kernel, kernel, inputs // groups, outputs)
        weight = same[0] if same else self.random.integers(-127, 128, size).astype(np.int8)
        self.convs.append(
            Conv(
                f"conv{len(self.convs)}",
                src,
                dst,
                at - self.level(src) + lag * self.ticks_per_step,
                weight,
                0,
                (stride, stride),
                (pad, pad),
                (dilation, dilation),
                groups,
                collapse,
                self.conv_shape(src, outputs, kernel, stride, pad, dilation)[1:],
                lag,
                key,
            )
        )

    def map(self, src, dst, at, mode="same", kernel=1, stride=1, pad=0, shift=0):
        self.maps.append(
            Map(
                f"map{len(self.maps)}",
                src,
                dst,
                at - self.level(src),
                shift,
                mode,
                (kernel, kernel),
                (stride, stride),
                (pad, pad),
            )
        )

    def dynamic(self, q, k, v, dst, at, heads, order="kv"):
        early = {"kv": "kv", "qk": "qk"}[order]
        delays = {f"delay_{r}": at - (r in early) - self.level(p) for r, p in (("q", q), ("k", k), ("v", v))}
        self.dynamics.append(
            Dynamic(
                f"dyn{len(self.dynamics)}", q, k, v, dst, heads=heads, shift=0, saturate=1000, order=order, **delays
            )
        )

    def pool(self, src, dst, level, kernel, stride, pad, rshift=0):
        pairs = (kernel, kernel), (stride, stride), (pad, pad)
        self.transfers.append(Transfer(f"pool{len(self.transfers)}", src, dst, level, "maxpool", *pairs, rshift))

    def sum(self, src, dst, level):
        self.transfers.append(Transfer(f"sum{len(self.transfers)}", src, dst, level, "sum"))

    def image(self, dst, level, kernel=3, stride=1, pad=1):
        out = self.dendrites[dst].shape[0]
        weight = self.random.integers(-99, 99, (out, self.input_shape[0], kernel, kernel)).astype(np.int32)
        bias = np.zeros(out, np.int64)
        self.host_currents.append(
            HostCurrent(
                f"image{len(self.host_currents)}", dst, level, weight, bias, 8, 8, self.input_shape,
                (stride, stride), (pad, pad),
            )
        )  # fmt: skip

    # --- whole layers

    def layer(self, src, out, kernel=1, stride=1, pad=0, groups=1, model="lif", role="neuron", levels=4, delay=1):
        """conv, then a soma of its own; returns the population."""
        at = self.level(src) + delay
        dst = self.dendrite(self.conv_shape(src, out, kernel, stride, pad))
        self.conv(src, dst, at, kernel, stride, pad, 1, groups)
        return self.soma(dst, at, role, model, levels)

    def readout(self, src, classes):
        dst = self.dendrite((classes, 1, 1))
        at = self.level(src) + 1
        self.conv(src, dst, at)
        return self.soma(dst, at, "readout", "readout")

    def build(self, name="net", timesteps=4) -> Program:
        program = Program(
            name=name,
            timesteps=timesteps,
            ticks_per_step=self.ticks_per_step,
            input_shape=self.input_shape,
            input_time=False,
            populations=tuple(self.populations),
            dendrites=tuple(self.dendrites),
            convs=tuple(self.convs),
            maps=tuple(self.maps),
            dynamics=tuple(self.dynamics),
            transfers=tuple(self.transfers),
            host_currents=tuple(self.host_currents),
            host_codes=tuple(self.host_codes),
            mapping=None,
            target={},
            interval=timesteps * self.ticks_per_step + max(p.level for p in self.populations),
            meta={"made_by": "tests"},
        )
        written, read = arrivals(program), last_reads(program)
        rings = [
            ring_needed(
                min(level for level, _ in written[d]), read[d], self.ticks_per_step, timesteps, program.interval
            )
            for d in range(len(self.dendrites))
        ]
        dendrites = tuple(replace(d, ring=max(r, 1)) for d, r in zip(self.dendrites, rings, strict=True))
        return replace(program, dendrites=dendrites)


def sdt_v1(dim=64, size=32, depth=2, heads=8, ratio=4, classes=10, pools="0011", channels=1) -> Program:
    """Spike-driven transformer V1: gates for attention, one membrane stream, token mean before the head."""
    net = Net((channels, size, size))
    widths = [dim // 8, dim // 4, dim // 2, dim]
    first = net.dendrite((widths[0], size, size))
    net.image(first, 0)
    p = net.soma(first, 0)
    for stage in range(3):
        if stage:
            p = net.layer(p, widths[stage], 3, 1, 1)
        if pools[stage] == "1":
            p = or_pool(net, p)
    stream, pooled, level = stem_end(net, p, dim, pools[3] == "1")
    last = net.soma(stream, level)
    level += 1
    net.conv(last, stream, level, 3, 1, 1)
    for _ in range(depth):
        level = sdsa_block(net, stream, level, dim, ratio)
    mean = net.dendrite((dim, 1, 1), net.cluster(stream))
    net.sum(stream, mean, level)
    head = net.soma(mean, level)
    net.readout(head, classes)
    return net.build("sdt_v1")


def or_pool(net, p):
    c, h, w = net.populations[p].shape
    dst = net.dendrite((c, (h + 1) // 2, (w + 1) // 2))
    net.map(p, dst, net.level(p) + 1, "window", 3, 2, 1)
    return net.soma(dst, net.level(p) + 1, "pool")


def stem_end(net, p, dim, pool):
    """Last conv of the stem into the stream, pooled on currents or not."""
    level = net.level(p) + 1
    c, h, w = net.conv_shape(p, dim, 3, 1, 1)
    if not pool:
        stream = net.dendrite((c, h, w))
        net.conv(p, stream, level, 3, 1, 1)
        return stream, None, level
    stream = net.dendrite((c, (h + 1) // 2, (w + 1) // 2))
    before = net.dendrite((c, h, w), net.cluster(stream))
    net.conv(p, before, level, 3, 1, 1)
    net.pool(before, stream, level, 3, 2, 1)
    return stream, before, level


def sdsa_block(net, stream, level, dim, ratio):
    shape = net.dendrites[stream].shape
    s = net.soma(stream, level)
    q, k, v = (net.layer(s, dim) for _ in range(3))
    gate = net.dendrite(shape)
    at = net.level(k) + 1
    net.map(k, gate, at)
    net.map(v, gate, at)
    kv = net.soma(gate, at, "and")
    mask = net.dendrite((dim, 1, 1))
    net.map(kv, mask, at + 1, "reduce")
    m = net.soma(mask, at + 1, "or")
    out = net.dendrite(shape)
    net.map(q, out, at + 2)
    net.map(m, out, at + 2, "broadcast")
    o = net.soma(out, at + 2, "and")
    level = at + 3
    net.conv(o, stream, level)
    hidden = net.layer(net.soma(stream, level), dim * ratio)
    net.conv(hidden, stream, level + 2)
    return level + 2


def spikformer(dim=64, size=32, depth=2, heads=4, ratio=4, classes=10, channels=1) -> Program:
    """Spikformer: spikes are added, so sums of spikes are read by duplicated projections with one key."""
    net = Net((channels, size, size))
    first = net.dendrite((dim // 8, size, size))
    net.image(first, 0)
    p = net.soma(first, 0)
    for width, pool in ((dim // 4, False), (dim // 2, True), (dim, True)):
        p = net.layer(p, width, 3, 1, 1)
        p = or_pool(net, p) if pool else p
    p_in = p
    rpe = net.layer(p, dim, 3, 1, 1)
    sources = [p_in, rpe]
    for _ in range(depth):
        q, k, v = (added(net, sources, dim) for _ in range(3))
        dst = net.dendrite(net.populations[q].shape)
        at = net.level(q) + 2
        net.dynamic(q, k, v, dst, at, heads)
        sources.append(net.layer(net.soma(dst, at), dim))
        hidden = added(net, sources, dim * ratio)
        sources.append(net.layer(hidden, dim))
    dst = net.dendrite((classes, 1, 1))
    at = net.level(sources[-1]) + 1
    for s in sources:
        net.conv(s, dst, at, collapse=True, key="head")
    net.soma(dst, at, "readout", "readout")
    return net.build("spikformer")


def added(net, sources, out):
    """A layer that reads the sum of several populations' spikes through one set of weights."""
    dst = net.dendrite(net.conv_shape(sources[0], out, 1))
    at = max(net.level(s) for s in sources) + 1
    key = f"w{dst}"
    for s in sources:
        net.conv(s, dst, at, key=key)
    return net.soma(dst, at)


def sdt_v3(dims=(16, 32, 48, 64), size=64, depth=4, heads=4, ratio=4, classes=10, channels=1) -> Program:
    """SDT V3 base: codes 0..4, separable convs, E-SDSA with v four times as wide, streams per stage."""
    net = Net((channels, size, size))
    a, b, c, d = dims
    stream = net.dendrite((a // 2, size // 2, size // 2))
    net.image(stream, 0, 7, 2, 3)
    level = conv_block(net, stream, 0, a // 2, ratio)
    for dim, blocks in ((a, 1), (b, 2)):
        stream, level = downsample(net, stream, level, dim, 2)
        for _ in range(blocks):
            level = conv_block(net, stream, level, dim, ratio)
    for dim, stride, blocks in ((c, 2, depth - 2), (d, 1, 2)):
        stream, level = downsample(net, stream, level, dim, stride)
        for _ in range(blocks):
            level = sep_conv(net, stream, level, dim, 3)
            level = esdsa(net, stream, level, dim, heads)
            level = mlp(net, stream, level, dim, ratio, 1)
    mean = net.dendrite((d, 1, 1), net.cluster(stream))
    net.sum(stream, mean, level)
    net.readout(net.soma(mean, level, model="levels"), classes)
    return net.build("sdt_v3", timesteps=1)


def downsample(net, stream, level, dim, stride):
    p = net.soma(stream, level, model="levels")
    new = net.dendrite(net.conv_shape(p, dim, 3, stride, 1))
    net.conv(p, new, level + 1, 3, stride, 1)
    return new, level + 1


def sep_conv(net, stream, level, dim, kernel):
    s1 = net.soma(stream, level, model="levels")
    s2 = net.layer(s1, 2 * dim, model="levels")
    s3 = net.layer(s2, 2 * dim, kernel, 1, kernel // 2, groups=2 * dim, model="levels")
    net.conv(s3, stream, level + 3)
    return level + 3


def conv_block(net, stream, level, dim, ratio):
    return mlp(net, stream, sep_conv(net, stream, level, dim, 7), dim, ratio, 3)


def mlp(net, stream, level, dim, ratio, kernel):
    s1 = net.soma(stream, level, model="levels")
    s2 = net.layer(s1, dim * ratio, kernel, 1, kernel // 2, model="levels")
    net.conv(s2, stream, level + 2, kernel, 1, kernel // 2)
    return level + 2


def esdsa(net, stream, level, dim, heads):
    s = net.soma(stream, level, model="levels")
    q, k = net.layer(s, dim, model="levels"), net.layer(s, dim, model="levels")
    v = net.layer(s, 4 * dim, model="levels")
    dst = net.dendrite(net.populations[v].shape)
    net.dynamic(q, k, v, dst, level + 3, heads)
    o = net.soma(dst, level + 3, model="levels")
    net.conv(o, stream, level + 4)
    return level + 4


# --- small random netlists and targets --------------------------------------------------------------------


def random_net(seed: int) -> Program:
    """A small netlist with every kind of projection, transfer and soma now and then."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 4)), int(rng.integers(2, 8)), int(rng.integers(2, 8))
    net = Net(size, int(rng.choice([1, 1, 3])), seed)
    p = _random_start(net, rng)
    for _ in range(int(rng.integers(1, 5))):
        p = _PARTS[int(rng.integers(len(_PARTS)))](net, p, rng)
    head = net.dendrite((3, 1, 1))
    net.conv(p, head, net.level(p) + 1, collapse=True)
    net.soma(head, net.level(p) + 1, "readout", "readout", name="head")
    return net.build(f"random{seed}", timesteps=int(rng.integers(1, 5)))


def _random_start(net, rng):
    if rng.random() < 0.5:
        first = net.dendrite((int(rng.integers(1, 9)), *net.input_shape[1:]))
        net.image(first, 0)
        return net.soma(first, 0)
    net.populations.append(Population("image", net.input_shape, 0, "input", "input", -1, payload_bits=8))
    net.host_codes.append(HostCodes(0, 255.0, 0, 255))
    return 0


def _random_conv(net, p, rng):
    c, h, w = net.populations[p].shape
    kernel, pad = int(rng.integers(1, 4)), int(rng.integers(0, 2))
    stride, dilation = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    if conv_out(min(h, w), kernel, stride, pad, dilation) < 1:
        kernel, dilation = 1, 1
    groups = int(rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    out = groups * int(rng.integers(1, 5))
    at = net.level(p) + int(rng.integers(1, 4))
    dst = net.dendrite(net.conv_shape(p, out, kernel, stride, pad, dilation))
    net.conv(p, dst, at, kernel, stride, pad, dilation, groups)
    vth = rng.integers(1, 4, out).astype(np.int32)
    model = "levels" if rng.random() < 0.3 else "lif"
    q = net.soma(dst, at, model=model, vth=vth)
    if rng.random() < 0.3:  # recurrent, one timestep later
        net.conv(q, dst, at, lag=1)
    return q


def _random_window(net, p, rng):
    c, h, w = net.populations[p].shape
    kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    pad = int(rng.integers(0, kernel))
    h, w = (max(1, -(-(n + 2 * pad - kernel) // stride)) for n in (h, w))
    dst = net.dendrite((c, h, w))
    net.map(p, dst, net.level(p) + 1, "window", kernel, stride, pad)
    return net.soma(dst, net.level(p) + 1, "pool")


def _random_gate(net, p, rng):
    shape = net.populations[p].shape
    a, b = (net.layer(p, shape[0], delay=int(rng.integers(1, 3))) for _ in range(2))
    at = max(net.level(a), net.level(b)) + 1
    mask = net.dendrite((shape[0], 1, 1))
    net.map(a, mask, at, "reduce")
    m = net.soma(mask, at, "or")
    out = net.dendrite(shape)
    net.map(b, out, at + 1)
    net.map(m, out, at + 1, "broadcast")
    return net.soma(out, at + 1, "and")


def _random_pool(net, p, rng):
    """Max-pool on currents into a stream that several somas read, with a sum behind it."""
    c = int(rng.integers(1, 9))
    _, h, w = net.populations[p].shape
    kernel = int(rng.integers(1, 4))
    stride, pad = int(rng.integers(1, 4)), int(rng.integers(0, kernel))
    h, w = ((n + 2 * pad - kernel) // stride + 1 for n in (h, w))
    if min(h, w) < 1:
        return _random_conv(net, p, rng)
    stream = net.dendrite((c, h, w))
    before = net.dendrite((c, *net.populations[p].shape[1:]), net.cluster(stream))
    at = net.level(p) + 1
    net.conv(p, before, at, 3, 1, 1)
    net.pool(before, stream, at, kernel, stride, pad, int(rng.integers(0, 3)))
    if rng.random() < 0.3:
        net.soma(before, at)
    s = net.soma(stream, at)
    net.conv(s, stream, at + 2, key=f"shared{stream}")
    if rng.random() < 0.3:
        net.conv(s, stream, at + 1, key=f"shared{stream}")
    last = net.soma(stream, at + 2)
    if rng.random() < 0.5:
        return last
    mean = net.dendrite((c, 1, 1), net.cluster(stream))
    net.sum(stream, mean, at + 2)
    after = net.dendrite((c, 1, 1), net.cluster(stream))
    net.pool(mean, after, at + 2, 1, 1, 0, 1)
    return net.soma(after, at + 2)


def _random_attention(net, p, rng):
    heads, d, dv = (int(n) for n in rng.integers(1, 4, 3))
    q, k = net.layer(p, heads * d, model="levels"), net.layer(p, heads * d)
    v = net.layer(p, heads * dv)
    dst = net.dendrite(net.populations[v].shape)
    at = net.level(v) + int(rng.integers(2, 4))
    net.dynamic(q, k, v, dst, at, heads, str(rng.choice(["kv", "qk"])))
    return net.soma(dst, at)


def _random_relay(net, p, rng):
    dst = net.dendrite(net.populations[p].shape)
    net.map(p, dst, net.level(p) + 1)
    return net.soma(dst, net.level(p) + 1, "relay", "relay")


_PARTS = (
    _random_conv,
    _random_conv,
    _random_window,
    _random_gate,
    _random_pool,
    _random_pool,
    _random_attention,
    _random_relay,
)


def target_with(base="loihi2", routers=None, cores_per_router=None, chips_max=None, **core_limits):
    """A bundled target with other limits: core fields by name, and the mesh."""
    content = load_target(base).model_dump(by_alias=True)
    for name, value in core_limits.items():
        content["core"][name] |= {"value": value, "evidence": "assumed"}
    for name, value in (("routers", routers), ("cores_per_router", cores_per_router), ("chips_max", chips_max)):
        if value is not None:
            content["mesh"][name] |= {"value": value, "evidence": "assumed"}
    return Target.model_validate(content)
