"""Random float graphs that mix what transformers and other spiking networks have: attention, gates, pools, residual
streams, loops, delays, average pools, elements in other places, general neurons, a read-out and outputs.

All numbers are multiples of powers of two, so that float sums are exact in any order.
"""

from __future__ import annotations

import math

import numpy as np
from graphs import Net

from nmc_compiler.graph import Attr, Graph, Kind, Use, ValueType
from nmc_compiler.graph.types import Shape
from nmc_compiler.graph.verify import verify


class Mixed(Net):
    """Grows a network; every choice is drawn from ``rng``."""

    def __init__(self, seed: int, timesteps: int) -> None:
        super().__init__(timesteps, seed, dyadic=True, input_time=True)
        self.name, self.rng = f"mixed{seed}", np.random.default_rng(seed)
        self.spikes: list[str] = []
        self.counted = 0

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def fresh(self, stem: str) -> str:
        self.counted += 1
        return f"{stem}{self.counted}"

    def weight(self, *shape: int) -> Attr:
        return self.array(self.rng.integers(-8, 13, shape) / 8)

    def bias(self, n: int) -> dict[str, Attr]:
        return {"bias": self.array(self.rng.integers(-2, 3, n) / 8)} if self.chance(0.3) else {}

    # ---- currents ----

    def wide(self, x: str | Use, out: int, **form) -> str:
        shape = self.nodes[x].type.shape if isinstance(x, str) else self.type_of(x).shape
        kernel = self.pick((1, 1), (3, 3))
        pad = (kernel[0] // 2, kernel[1] // 2)
        weight = self.weight(out, shape[0], *kernel)
        return self.add("conv2d", x, weight=weight, pad=pad, **self.bias(out), **form)

    def type_of(self, use: Use) -> ValueType:
        return self.nodes[use.node].type if use.node in self.nodes else self.declared[use.node]

    def moved(self, x: str) -> str:
        """Elements in another place: channels, positions, padding, doubled positions, or two values side by side."""
        c, h, w = self.shape(x)
        at = np.arange(c * h * w).reshape(c, h, w)
        kind = self.pick("channels", "flip", "crop", "pad", "double", "concat", "swap")
        inputs = [x]
        if kind == "channels":
            at = at[self.rng.permutation(c)[: max(c // 2, 1)]]
        elif kind == "flip":
            at = at[:, ::-1]
        elif kind == "crop" and min(h, w) > 2:
            at = at[:, 1:, : w - 1]
        elif kind == "pad":
            at = np.pad(at, ((0, 0), (1, 0), (0, 1)), constant_values=-1)
        elif kind == "double" and h * w <= 16:
            at = at.repeat(2, axis=1).repeat(2, axis=2)
        elif kind == "swap":
            at = at.transpose(0, 2, 1)
        else:
            other = self.pick(*self.alike(x))
            inputs, at = [x, other], np.concatenate([at, at + at.size])
        return self.add("take", *inputs, index=self.index(at), shape=at.shape)

    def alike(self, x: str) -> list[str]:
        nodes = self.spikes if self.is_event(x) else [x]
        return [n for n in nodes if self.shape(n) == self.shape(x) and self.nodes[n].type == self.nodes[x].type]

    def index(self, at: np.ndarray) -> Attr:
        return Attr(self.tensor(f"i{len(self.tensors)}", at.reshape(-1).astype(np.int64)))

    def average(self, x: str) -> str:
        pooled = self.add("sumpool2d", x, kernel=(2, 2), stride=self.pick((2, 2), (1, 1)))
        return self.add("scale", pooled, factor=0.25)

    def table(self, x: str | Use, shape: Shape) -> str:
        """Synapses one by one, some of them late."""
        n, m = math.prod(self.type_of(x if isinstance(x, Use) else Use(x)).shape), math.prod(shape)
        source, target = np.nonzero(self.rng.random((n, m)) < 3 / n)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))])
        attrs = {"weight": self.weight(len(source)), "indptr": self.index(indptr), "target": self.index(target)}
        if self.chance(0.5):
            late = self.rng.integers(0, 3, len(source)).astype(np.uint8)
            attrs["extra"] = Attr(self.tensor(f"i{len(self.tensors)}", late))
        return self.add("sparse", x, shape=shape, **attrs)

    def current(self, x: str) -> str:
        """Something linear in the spikes of ``x``."""
        shape, out = self.shape(x), self.pick(2, 4)
        kind = self.pick("conv", "conv", "moved", "average", "table", "behind", "shape")
        if kind == "moved":
            y = self.moved(x)
            return self.wide(y, out)
        if kind == "average" and min(shape[1:]) > 1:
            return self.wide(self.average(x), out)
        if kind == "table":
            return self.table(Use(x, self.pick(0, 0, 1)), (out, *shape[1:]))
        if kind == "behind":
            y = self.wide(Use(x, self.pick(0, 1)), out)
            return self.average(y) if min(shape[1:]) > 1 and self.chance(0.5) else self.moved(y)
        if kind == "shape":
            y = self.add("reshape", x, shape=(shape[0], shape[2], shape[1]))
            return self.wide(y, out)
        return self.wide(x, out)

    # ---- neurons ----

    def fires(self, x: str, name: str = "") -> str:
        name = name or self.fresh("n")
        kind = self.pick("lif", "lif", "neuron", "levels")
        if kind == "levels":
            return self.levels(x, name, levels=self.pick(3, 4), norm=self.pick(1, 4))
        if kind == "lif":
            return self.lif(x, name, tau=self.pick(1.0, 2.0), theta=self.pick(0.5, 1.0), decay_input=self.chance(0.5))
        more = {"alpha": 0.5} if self.chance(0.3) else {}
        beta = self.pick(0.5, 1.0, self.array(self.rng.choice((0.5, 0.75), self.shape(x)[0])))
        return self.add("neuron", x, id=name, name=name, beta=beta, theta=self.pick(0.5, 1.0),
                        reset="hard", compare=self.pick("ge", "gt"), **more)  # fmt: skip

    def layer(self) -> None:
        x = self.pick(*self.spikes)
        kind = self.pick("plain", "plain", "stream", "pool", "attn", "mask", "loop", "concat", "gate")
        made = getattr(self, f"_{kind}")(x)
        self.spikes += made if isinstance(made, list) else [made]

    def _plain(self, x: str) -> str:
        return self.fires(self.current(x))

    def _stream(self, x: str) -> list[str]:
        """A residual stream that several read."""
        first = self.wide(x, 2)
        a = self.fires(first)
        total = self.add("add", first, self.wide(a, 2))
        b = self.fires(total)
        if self.chance(0.5) and min(self.shape(total)[1:]) > 1:
            return [a, b, self.fires(self.pool(total, 2, 2, 0))]
        return [a, b, self.lif(total, self.fresh("n"))]

    def _pool(self, x: str) -> str:
        if min(self.shape(x)[1:]) < 2:
            return self._plain(x)
        if self.nodes[x].type.kind is Kind.SPIKE and self.chance(0.5):
            return self.pool(x, 2, 2, 0, name=self.fresh("p"))
        return self.fires(self.pool(self.current(x) if self.chance(0.4) else self.wide(x, 2), 1, 1, 0))

    def _attn(self, x: str) -> str:
        """q, k and v of spikes or codes; one of them sometimes from another place."""
        q = self.moved(x) if self.chance(0.3) else x
        heads = self.pick(*(h for h in (1, 2) if self.shape(q)[0] % h == 0))
        k, v = (self.pick(*self.same(q)) for _ in range(2))
        more: dict = {}
        if self.chance(0.4):  # a table that lasts
            decay = self.pick(0.5, 1.0, self.array(self.rng.choice((0.25, 0.5, 0.75), heads)))
            more = {"lifetime": "sample", "decay": decay} | ({"block": self.pick(2, 3)} if self.chance(0.4) else {})
        y = self.add("attn", q, k, v, heads=heads, scale=0.125, **more)
        if self.chance(0.4):
            y = self.add("scale", y, factor=0.5)
        return self.lif(y, self.fresh("n"), theta=self.pick(0.25, 0.5))

    def same(self, x: str) -> list[str]:
        return [n for n in [x, *self.spikes] if self.shape(n) == self.shape(x)]

    def _mask(self, x: str) -> str:
        plain = [n for n in self.same(x) if self.nodes[n].type.kind is Kind.SPIKE]
        if len(plain) < 1 or self.nodes[x].type.kind is not Kind.SPIKE:
            return self._plain(x)
        return self.mask(x, self.pick(*plain), self.pick(*plain), name=self.fresh("m"))

    def _gate(self, x: str) -> str:
        plain = [n for n in self.same(x) if self.nodes[n].type.kind is Kind.SPIKE]
        if self.nodes[x].type.kind is not Kind.SPIKE or not plain:
            return self._plain(x)
        return self.add("mul", x, Use(self.pick(*plain), self.pick(0, 1)), name=self.fresh("g"))

    def _loop(self, x: str) -> str:
        """A layer that hears itself, late."""
        name = self.fresh("n")
        first = self.wide(x, 2)
        self.declare(name, ValueType(Kind.SPIKE, self.shape(first)))
        back = Use(name, self.pick(1, 2))
        heard = self.wide(back, 2) if self.chance(0.6) else self.table(back, self.shape(first))
        total = self.add("add", first, heard)
        if self.chance(0.5):
            return self.add("neuron", total, id=name, name=name, beta=0.5, theta=1.0, reset="hard", compare="ge")
        return self.add("lif", total, id=name, name=name, tau=2.0, theta=1.0, v_reset=0.0, reset="hard", compare="ge",
                        decay_input=True)  # fmt: skip

    def _concat(self, x: str) -> str:
        """A neuron on currents side by side, one of them pooled."""
        a = self.wide(x, 2)
        b = self.pool(a, 3, 1, 1) if min(self.shape(a)[1:]) > 1 else self.wide(x, 2)
        c, h, w = self.shape(a)
        at = np.arange(2 * c * h * w)
        both = self.add("take", a, b, index=self.index(at), shape=(2 * c, h, w))
        return self.fires(both)

    # ---- ends ----

    def grow(self, layers: int, images: bool) -> Graph:
        shape = self.pick((2, 4, 4), (4, 3, 4), (2, 2, 2))
        x = self.add("input", id="x", name="x", shape=shape, **({} if images else {"bits": self.pick(0, 0, 2)}))
        self.spikes = [x]
        if images:
            y = self.wide(x, 2)
            self.spikes = [self.fires(self.average(y) if self.chance(0.3) else y)]
        for _ in range(layers):
            self.layer()
        last = self.spikes[-1]
        ends = "readout" if images else self.pick("readout", "outputs", "both")
        if ends != "outputs":
            y = self.wide(last, 3)
            self.add("readout", self.mean(y) if self.shape(y)[1:] != (1, 1) else y, name="head")
        if ends != "readout":
            self.add("output", last, name="spikes")
            if self.chance(0.5):
                self.add("output", self.wide(self.pick(*self.spikes), 2), name="current")
            if self.chance(0.5):
                li = self.add("integrator", self.wide(last, 2), name="li", beta=0.75)
                self.add("output", li, name="potential")
        graph = self.build()
        verify(graph)
        return graph


def random_mixed_graph(seed: int, timesteps: int = 4, layers: int = 0, images: bool = False) -> Graph:
    """A float graph; the same arguments give the same graph. ``layers`` 0: 2 to 5.

    ``images``: real values in, a read-out at the end; else events in, and outputs, a read-out or both.
    """
    return Mixed(seed, timesteps).grow(layers or 2 + seed % 4, images)


def random_events(graph: Graph, seed: int, samples: int = 2) -> np.ndarray:
    """Codes for the input, [N, T, C, H, W]."""
    rng, node = np.random.default_rng(seed), graph.sources[0]
    top = (1 << max(node.type.bits, 1)) - 1
    shape = (samples, graph.timesteps, *node.type.shape)
    return rng.integers(0, top + 1, shape) * (rng.random(shape) < 0.6)
