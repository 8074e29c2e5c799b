"""Small float SpikeGraphs for tests: ``Net`` builds one by hand, ``random_graph`` grows one from a seed.

A random graph mixes every kind of layer that passes and lowering know: dense, grouped, depthwise, strided
and dilated convolutions with biases, batch norms, LayerScale and re-parameterised chains; pools on spikes and on
currents; residuals of currents and of spikes; SDSA masks, q k^T v attention; token means; LIF neurons of
several time constants, thresholds, resets and compares, and multi-level neurons. Sizes are tiny, so that the
reference interpreter takes milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.graph import Attr, Graph, GraphBuilder, Node
from nmc_compiler.graph.analysis import populations
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.types import Shape

RATE = 0.3  # the mean square of an event's value that weights are drawn for
TAUS = (1.0, 4 / 3, 2.0, 2.0, 2.0, 3.7)


class Net(GraphBuilder):
    """A GraphBuilder that knows layers and draws the weights it is not given.

    ``dyadic``: every drawn number is a multiple of 1/16, so that float sums are exact in any order.
    """

    def __init__(self, timesteps: int = 1, seed: int = 0, dyadic: bool = False, **flags: bool) -> None:
        super().__init__("net", timesteps, "float", **flags)
        self.random, self.dyadic = np.random.default_rng(seed), dyadic

    # ---- what is there ----

    def shape(self, x: str) -> Shape:
        return self.nodes[x].type.shape

    def is_event(self, x: str) -> bool:
        return self.nodes[x].type.is_event

    def array(self, value: np.ndarray | float | list, size: int = 0) -> Attr:
        """A tensor attribute; a plain number fills a vector of ``size``."""
        array = np.full(size, value, np.float64) if isinstance(value, (int, float)) else np.asarray(value, np.float64)
        return Attr(self.tensor(f"t{len(self.tensors)}", array), "checkpoint")

    def drawn(self, mean: float, spread: float, *shape: int) -> np.ndarray:
        values = self.random.normal(mean, spread, shape)
        return np.rint(values * 16) / 16 if self.dyadic else values

    # ---- layers ----

    def input(self, *shape: int) -> str:
        return self.add("input", shape=tuple(shape))

    def conv(
        self, x: str, out: int, kernel: int | tuple[int, int] = 1, weight=None, bias=None, groups: int = 1, **geometry
    ) -> str:
        """``stride``, ``pad``, ``dilation``: a number for both axes, or a pair."""
        ky, kx = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (out, self.shape(x)[0] // groups, ky, kx)
        if weight is None:
            weight = self.drawn(0.25, 1.0, *shape) / math.sqrt(RATE * math.prod(shape[1:]))
            weight = np.rint(weight * 16) / 16 if self.dyadic else weight
        pairs = {k: (v, v) if isinstance(v, int) else v for k, v in geometry.items()}
        weight = np.broadcast_to(np.asarray(weight, np.float64), shape).copy()
        attrs = {} if bias is None else {"bias": self.array(bias, out)}
        return self.add("conv2d", x, weight=self.array(weight), groups=groups, **attrs, **pairs)

    def norm(self, x: str) -> str:
        """A batch norm with random statistics; some of its gains are negative."""
        n = self.shape(x)[0]
        gamma = self.random.choice((-1.0, 1.0, 1.0, 1.0), n) * self.random.uniform(0.5, 1.5, n)
        stats = {"weight": gamma, "bias": self.drawn(0.4, 0.4, n), "mean": self.drawn(0, 0.3, n)}
        stats["var"] = self.random.uniform(0.3, 2.0, n)
        return self.add("batch_norm", x, eps=1e-5, **{k: self.array(v) for k, v in stats.items()})

    def lif(self, x: str, name: str = "", tau: float = 2.0, theta: float = 1.0, **attrs) -> str:
        given = {"v_reset": 0.0, "reset": "hard", "compare": "ge", "decay_input": True, **attrs}
        return self.add("lif", x, name=name or f"s{len(self.nodes)}", tau=float(tau), theta=float(theta), **given)

    def levels(self, x: str, name: str = "", levels: int = 4, norm: float = 4, rounding: str = "half_even", **attrs):
        name = name or f"s{len(self.nodes)}"
        return self.add("multilevel", x, name=name, levels=levels, norm=norm, rounding=rounding, **attrs)

    def pool(self, x: str, kernel: int = 3, stride: int = 2, pad: int = 1, name: str = "") -> str:
        pairs = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (pad, pad)}
        return self.add("maxpool2d", x, name=name, **pairs)

    def sum(self, *x: str) -> str:
        return self.add("add", *x)

    def mean(self, x: str) -> str:
        """Token mean."""
        _, h, w = self.shape(x)
        return self.add("scale", self.add("sum_positions", x), factor=1.0 / (h * w))

    def mask(self, q: str, k: str, v: str, name: str = "", **lif) -> str:
        """SDSA-1: q masked by a LIF over the tokens of k*v."""
        name = name or f"m{len(self.nodes)}"
        both = self.add("mul", k, v, name=f"{name}.kv")
        hit = self.lif(self.add("map", both, mode="reduce"), f"{name}.lif", **{"theta": 0.5, **lif})
        return self.add("mul", q, hit, name=f"{name}.out")

    def attn(self, q: str, k: str, v: str, heads: int = 1, scale: float = 0.125) -> str:
        return self.add("attn", q, k, v, heads=heads, scale=scale)

    def repconv(self, x: str, out: int) -> str:
        """1x1 -> BN whose value for zero input fills the padding -> depthwise 3x3 -> 1x1 -> BN -> BN."""
        inner = self.norm(self.conv(x, out))
        bn = self.nodes[inner]
        gain, beta, mean, var = (self.tensors[bn.attr(k).key] for k in ("weight", "bias", "mean", "var"))
        ring = beta - mean * gain / np.sqrt(var + bn.attr("eps"))
        padded = self.add("pad2d", inner, pad=(1, 1), value=self.array(ring))
        wide = self.conv(padded, out, 3, groups=out)
        return self.norm(self.norm(self.conv(wide, out)))

    def readout(self, x: str, classes: int = 3, bias=None, name: str = "head") -> Graph:
        """Classify what ``x`` is: events go through a 1x1 convolution, positions are summed."""
        if self.is_event(x):
            x = self.conv(x, classes, bias=bias)
        if self.shape(x)[1:] != (1, 1):
            x = self.mean(x)
        self.add("readout", x, name=name)
        return self.build()


@dataclass(frozen=True)
class Kinds:
    """What ``random_graph`` may draw. ``chances``: op -> relative weight of the layers it adds."""

    timesteps: tuple[int, ...] = (1, 2, 3, 4)
    neurons: tuple[str, ...] = ("lif", "lif", "levels")
    attention: bool = True
    current_pools: bool = True
    code_pools: bool = False  # of spikes of several levels too
    chains: bool = True  # convolutions without a neuron between, LayerScale, RepConv
    layers: tuple[int, int] = (3, 8)
    dyadic: bool = False
    norms: bool = True  # batch norms, whose factors are no dyadic numbers
    taus: tuple[float, ...] = TAUS


ANY = Kinds()


class _Grower:
    """Grows a graph layer by layer; whatever nothing reads ends in the head."""

    def __init__(self, seed: int, kinds: Kinds) -> None:
        self.kinds, self.random = kinds, np.random.default_rng(seed)
        self.net = Net(self.pick(kinds.timesteps), seed, kinds.dyadic, input_time=self.chance(0.3))
        self.neurons = self.pick((kinds.neurons, kinds.neurons[:1]))
        self.events: list[str] = []
        self.currents: list[str] = []

    def pick(self, options):
        return options[int(self.random.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    # ---- what to build on ----

    def alike(self, nodes: list[str], x: str) -> list[str]:
        return [n for n in nodes if self.net.shape(n) == self.net.shape(x)]

    def spikes(self, x: str) -> list[str]:
        return [n for n in self.alike(self.events, x) if not self.graded(n)]

    def graded(self, x: str) -> bool:
        return self.net.nodes[x].type.bits > 0

    # ---- layers ----

    def conv(self, x: str, out: int = 0) -> str:
        net, (cin, h, w) = self.net, self.net.shape(x)
        out = out or self.pick((2, 3, 4, 6))
        bias = net.drawn(0.0, 0.3, out) if self.chance(0.4) else None
        kind = self.pick(("point", "point", "wide", "wide", "depth", "group", "odd"))
        if kind == "depth":
            y = net.conv(x, cin, 3, bias=None if bias is None else net.drawn(0, 0.3, cin), groups=cin, pad=1)
        elif kind == "group" and cin % 2 == 0:
            y = net.conv(x, 4, 3, bias=net.drawn(0, 0.3, 4), groups=2, pad=1, stride=self.pick((1, 2)))
        elif kind == "odd" and min(h, w) >= 3:
            y = net.conv(x, out, (2, 3), bias=bias, pad=(0, 1), stride=(1, 2))
        elif kind == "wide" and min(h, w) >= 3:
            dilation = self.pick((1, 1, 2))
            y = net.conv(x, out, 3, bias=bias, pad=dilation, dilation=dilation, stride=self.pick((1, 1, 2)))
        else:
            y = net.conv(x, out, bias=bias)
        return self.chain(net.norm(y) if self.kinds.norms and self.chance(0.5) else y)

    def chain(self, y: str) -> str:
        """Sometimes LayerScale, or a 1x1 convolution right behind."""
        net, n = self.net, self.net.shape(y)[0]
        if not self.kinds.chains:
            return y
        if self.chance(0.15):
            y = net.add("scale", y, factor=net.array(self.random.uniform(0.4, 1.6, n)))
        if self.chance(0.1):
            y = net.norm(net.conv(y, self.pick((2, 4)), bias=net.drawn(0, 0.2, 1)[0]))
        return y

    def projection(self, x: str) -> str:
        if self.kinds.chains and self.chance(0.08):
            return self.net.repconv(x, self.pick((2, 4)))
        others = self.alike(self.events, x)
        if len(others) > 1 and self.chance(0.3):
            x = self.net.sum(x, self.pick(others))
        if self.chance(0.1):
            return self.net.conv(self.net.add("sum_positions", x), self.pick((2, 3)))
        return self.conv(x)

    def neuron(self, x: str, unit: float | None = None) -> str:
        """A neuron on a current; ``unit``: a typical size of counts, None for a weighted current."""
        counts, unit = unit is not None, unit or 1.0
        kind = self.pick(self.neurons)
        if kind == "cell":
            return self.cell(x, unit, counts)
        if kind == "levels":
            gain = {"gain": 1.5 / unit} if counts else {}
            d, rounding = self.pick(((4, "half_even"), (4, "half_up"), (3, "half_even"), (7, "half_even")))
            return self.net.levels(x, levels=d, norm=self.pick((1, d)) if d == 3 else d, rounding=rounding, **gain)
        tau, decay_input = self.pick(self.kinds.taus), self.chance(0.8)
        theta = unit * self.pick((0.25, 0.5, 1.0)) * (0.75 if decay_input else 1.0)
        extra = {"compare": self.pick(("ge", "ge", "gt")), "decay_input": decay_input}
        if not counts and self.chance(0.15):
            extra["v_reset"] = -0.25
        return self.net.lif(x, tau=tau, theta=theta, **extra)

    def cell(self, x: str, unit: float, counts: bool) -> str:
        """A neuron that only a soma of microcode is."""
        net, steps = self.net, self.net.timesteps
        if not counts and self.chance(0.3):
            width = self.pick((1, net.shape(x)[0]))
            tables = {"gain": net.array(0.5 + self.random.random((steps, width)))}
            tables |= {"bias": net.array(net.drawn(0, 0.2, steps, width))} if self.chance(0.5) else {}
            x = net.add("time_affine", x, **tables)
        name = f"s{len(net.nodes)}"
        if self.chance(0.4):
            form = {"beta": self.pick((0.25, 0.5, 0.7, 1.0)), "theta": self.pick((0.5, 1.0)), "levels": 4}
            form |= {"rounding": self.pick(("half_even", "half_up")), "norm": self.pick((1, 4))}
            form |= {"step": 0.75} if self.chance(0.2) else {}
            return net.add("ilif", x, name=name, gain=1.5 / unit if counts else 1.0, **form)
        if self.chance(0.3):
            form = {"beta": self.pick((0.0, 0.5, 0.75, 1.0)), "theta": unit * self.pick((0.5, 1.0)), "compare": "ge"}
            form |= {"reset": self.pick(("hard", "hard", "soft")), "gain": self.pick((1.0, 0.5))}
            return net.add("neuron", x, name=name, **form, **({} if counts else {"leak": 0.125}))
        form = {"reset": self.pick(("soft", "soft", "hard", "none")), "compare": self.pick(("ge", "gt"))}
        form |= {"reset_at": self.pick(("same", "next_end"))}
        form |= {"v_min": -0.25} if self.chance(0.3) else {}
        form |= {"theta_decay": 0.75, "theta_step": 0.25 * unit} if self.chance(0.3) else {}
        return net.lif(x, name, tau=self.pick(self.kinds.taus), theta=unit * self.pick((0.25, 0.5, 1.0)), **form)

    def residual(self, x: str) -> str:
        """Sometimes the sum with an earlier current, or with itself."""
        others = [*self.alike(self.currents, x), *([x] if self.chance(0.1) else [])]
        return self.net.sum(x, self.pick(others)) if others and self.chance(0.5) else x

    def attention(self, x: str) -> str | None:
        """q, k, v of one shape in, events out."""
        net, q = self.net, x
        pool = self.alike(self.events, q)
        k, v = self.pick(pool), self.pick(pool)
        plain = not any(self.graded(e) for e in (q, k, v))
        if plain and self.chance(0.5):
            return net.mask(q, k, v, tau=self.pick((1.0, 2.0, 2.0, 3.0)), compare=self.pick(("ge", "ge", "gt")))
        c, h, w = net.shape(q)
        heads = self.pick([n for n in (1, 2, 3) if c % n == 0])
        typical = max(1.0, h * w * c / heads * RATE**2.5)
        scale = self.pick((0.125, 0.25, 1.0 / math.sqrt(c // heads)))
        y = net.attn(q, k, v, heads, scale)
        if self.chance(0.3):
            y = net.add("scale", y, factor=0.5)
            scale *= 0.5
        return self.neuron(y, unit=typical * scale)

    def grow(self) -> Graph:
        net = self.net
        x = net.input(self.pick((1, 2)), self.pick((3, 4, 5)), self.pick((3, 4, 6)))
        self.add_current(self.conv(x))
        for _ in range(int(self.random.integers(self.kinds.layers[0], self.kinds.layers[1] + 1))):
            self.add_layer(self.pick(self.events))
        return self.head()

    def add_current(self, y: str) -> None:
        """A current, what is added to it, and one or two neurons that read it."""
        y = self.residual(y)
        if self.kinds.current_pools and min(self.net.shape(y)[1:]) > 1 and self.chance(0.2):
            self.currents.append(y)
            y = self.net.pool(y, stride=self.pick((1, 2)))
            y = self.residual(y)
        self.currents.append(y)
        for _ in range(self.pick((1, 1, 2))):
            self.events.append(self.neuron(y))

    def add_layer(self, x: str) -> None:
        choice = self.pick(("conv", "conv", "conv", "pool", "attention", "mean"))
        if choice == "pool" and (self.kinds.code_pools or not self.graded(x)) and min(self.net.shape(x)[1:]) > 1:
            self.events.append(self.net.pool(x, self.pick((2, 3)), self.pick((1, 2)), name=f"p{len(self.net.nodes)}"))
        elif choice == "attention" and self.kinds.attention:
            self.events.append(self.attention(x))
        elif choice == "mean" and self.net.shape(x)[1:] != (1, 1):
            wide = [c for c in self.currents if self.net.shape(c)[1:] != (1, 1)]
            self.events.append(self.neuron(self.net.mean(self.pick(wide) if self.chance(0.5) else self.conv(x))))
        else:
            self.add_current(self.projection(x))

    def head(self) -> Graph:
        net = self.net
        used = {u.node for n in net.nodes.values() for u in n.inputs}
        parts = []
        for x in [e for e in self.events if e not in used] or self.events[-1:]:
            y = net.conv(x, 3, bias=net.drawn(0, 0.2, 3) if self.chance(0.5) else None)
            parts.append(y if net.shape(y)[1:] == (1, 1) else net.add("sum_positions", y))
        y = parts[0] if len(parts) == 1 else net.sum(*parts)
        return net.readout(net.add("scale", y, factor=0.25) if self.chance(0.5) else y)


def random_graph(seed: int, kinds: Kinds = ANY) -> Graph:
    """A float graph; the same arguments give the same graph."""
    return _Grower(seed, kinds).grow()


def random_images(graph: Graph, seed: int, count: int = 3) -> np.ndarray:
    """Samples [N, C, H, W] of values 0..1, or [N, T, C, H, W] where the graph's input has a time axis."""
    shape = next(n for n in graph if n.op == "input").type.shape
    time = (graph.timesteps,) if graph.input_time else ()
    return np.random.default_rng(seed).random((count, *time, *shape)).astype(np.float32)


def named(graph: Graph, name: str) -> Node:
    """The node with that name."""
    return next(n for n in graph if n.name == name)


def flips(before: Graph, after: Graph, images: np.ndarray) -> int:
    """Codes that differ in the populations both graphs have, which must be at least one; logits must agree too."""
    first = interpret(before, images, record="all")
    shared = sorted(first.codes.keys() & {n.name for n in populations(after)})
    assert shared
    second = interpret(after, images, record=shared)
    np.testing.assert_allclose(second.logits, first.logits, rtol=0, atol=1e-9)
    return sum(int((first.codes[k] != second.codes[k]).sum()) for k in shared)
