"""Random float graphs of any spiking network, as front ends build them, and inputs for them.

All numbers are multiples of powers of two, so that float sums are exact in any order and rewritings can be compared
spike by spike.
"""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.graph import Attr, Graph, GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.types import Shape
from nmc_compiler.graph.verify import verify

SHAPES: list[Shape] = [(1, 1, 1), (3, 1, 1), (6, 1, 1), (2, 2, 3), (2, 4, 4), (4, 2, 2), (1, 1, 6)]


class Maker(GraphBuilder):
    """Grows a network; every choice is drawn from ``rng``. ``kinds``: what neurons may be, see ``neuron``."""

    def __init__(self, seed: int, timesteps: int, kinds: str = "any", codes: bool = True) -> None:
        super().__init__(f"net{seed}", timesteps, "float", input_time=True)
        self.rng, self.kinds, self.codes = np.random.default_rng(seed), kinds, codes
        self.events: list[tuple[str, Shape]] = []  # what can be read: id, shape

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def array(self, values: np.ndarray) -> Attr:
        return Attr(self.tensor(f"t{len(self.tensors)}", values), "checkpoint")

    def shape(self, x: str) -> Shape:
        return self.nodes[x].type.shape

    def dyadic(self, shape, top: float = 1.0, grain: int = 8, density: float = 1.0) -> np.ndarray:
        steps = int(top * grain)
        values = self.rng.integers(-steps, steps + 1, shape) / grain
        return values * (self.rng.random(shape) < density)

    def parameter(self, shape: Shape, *options: float):
        """A number, or one per channel or element; mostly a number."""
        if self.chance(0.7):
            return self.pick(*options)
        full = self.pick((shape[0],), shape)
        return self.array(self.rng.choice(options, full))

    # ---- linear parts ----

    def conv(self, x: str, use: Use) -> str:
        c, h, w = self.shape(x)
        kernel = (self.pick(1, min(h, 2), min(h, 3)), self.pick(1, min(w, 2), min(w, 3)))
        groups = c if self.chance(0.2) else 1
        out = groups * self.pick(1, 2) if groups > 1 else self.pick(1, 2, 4)
        weight = self.dyadic((out, c // groups, *kernel), 1.5)
        form = {"pad": (self.pick(0, kernel[0] // 2), self.pick(0, kernel[1] // 2)), "groups": groups}
        form["stride"] = (self.pick(1, 1, 2), self.pick(1, 1, 2))
        bias = {"bias": self.array(self.dyadic(out, 0.25))} if self.chance(0.3) else {}
        return self.add("conv2d", use, weight=self.array(weight), **form, **bias)

    def linear(self, x: str, use: Use, outs: int = 0) -> str:
        shape = self.shape(x)
        weight = self.dyadic((outs or self.pick(1, 3, 5), *shape), 1.5, density=self.pick(0.4, 1.0))
        bias = {"bias": self.array(self.dyadic(len(weight), 0.25))} if self.chance(0.3) else {}
        return self.add("conv2d", use, weight=self.array(weight), **bias)

    def table(self, x: str, use: Use, shape: Shape | None = None) -> str:
        shape = shape or self.pick(*SHAPES)
        n, m = math.prod(self.shape(x)), math.prod(shape)
        source, target = np.nonzero(self.rng.random((n, m)) < 0.5)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))])
        attrs = {"weight": self.array(self.dyadic(len(source), 1.5)), "indptr": self.array(indptr)}
        if self.chance(0.5):
            attrs["extra"] = self.array(self.rng.integers(0, self.pick(2, 6), len(source)).astype(np.uint8))
        return self.add("sparse", use, target=self.array(target), shape=shape, **attrs)

    def small(self, x: str) -> str:
        """One more linear step behind a current."""
        shape = self.shape(x)
        kind = self.pick("scale", "pool", "reshape", "delay", "none", "none")
        if kind == "scale":
            return self.add("scale", x, factor=self.parameter(shape, 0.5, 2.0, -1.0))
        if kind == "pool" and min(shape[1:]) > 1:
            return self.add("sumpool2d", x, kernel=(2, 2), stride=self.pick((2, 2), (1, 1)))
        if kind == "reshape":
            n = math.prod(shape)
            return self.add("reshape", x, shape=self.pick((n, 1, 1), (1, 1, n), (1, n, 1)))
        if kind == "delay" and self.nodes[x].op != "sparse":
            steps = self.pick(1, 2, self.array(self.rng.integers(0, 4, shape)))
            return self.add("delay", x, steps=steps)
        return x

    def current(self, x: str, lag: int = 0, into: Shape | None = None) -> str:
        """A projection of ``x``, of shape ``into`` if given."""
        use = Use(x, lag)
        shape = self.nodes[x].type.shape if x in self.nodes else self.declared[x].shape
        if into is not None:
            return self._into(use, shape, into)
        kind = self.pick("conv", "linear", "table", "pool", "same")
        if kind == "same" and x in self.nodes:
            return self.small(self.add("scale", use, factor=1.0))
        if kind == "pool" and min(shape[1:]) > 1:
            pooled = self.add("sumpool2d", use, kernel=(2, 2), stride=(2, 2))
            average = self.add("scale", pooled, factor=0.25)
            return self.conv(average, Use(average))
        if kind == "table":
            return self.small(self.table(x, use))
        return self.small(self.conv(x, use) if kind == "conv" else self.linear(x, use))

    def _into(self, use: Use, shape: Shape, into: Shape) -> str:
        if into[1:] == (1, 1):
            weight = self.dyadic((into[0], *shape), 1.0, density=0.7)
            return self.add("conv2d", use, weight=self.array(weight))
        n, m = math.prod(shape), math.prod(into)
        source, target = np.nonzero(self.rng.random((n, m)) < 0.4)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))])
        attrs = {"weight": self.array(self.dyadic(len(source), 1.0)), "indptr": self.array(indptr)}
        return self.add("sparse", use, target=self.array(target), shape=into, **attrs)

    # ---- neurons ----

    def sent(self, shape: Shape) -> ValueType:
        """What the next neuron sends."""
        if self.kinds != "cells" or self.chance(0.5):
            return ValueType(Kind.SPIKE, shape)
        return ValueType(Kind.GRADED, shape, 3) if self.chance(0.5) else ValueType(Kind.GRADED, shape, 2, True)

    def moving(self, shape: Shape, sent: ValueType) -> dict:
        """What only a soma of microcode has."""
        p: dict = {"reset": self.pick("hard", "soft", "soft", "none")}
        p |= {"reset_at": self.pick("same", "next_start", "next_end")} if self.chance(0.5) else {}
        p |= {"v_min": self.parameter(shape, -0.5, -0.125)} if self.chance(0.3) else {}
        tables = [(self.timesteps,), (self.timesteps, 1), (self.timesteps, shape[0])]
        if sent.bits == 3:
            p |= {"levels": 4, "rounding": self.pick("half_even", "half_up", "down"), "norm": self.pick(1.0, 4.0)}
            p |= {"step": self.parameter(shape, 0.5, 1.0)} if self.chance(0.3) else {}
        elif self.chance(0.4):
            p |= {"theta_decay": self.pick(0.5, 0.75), "theta_step": self.parameter(shape, 0.25, 0.5)}
        elif self.chance(0.3):
            p["theta_t"] = self.array(0.5 + np.abs(self.dyadic(self.pick(*tables))))
        if sent.signed:
            p["theta_low"] = self.parameter(shape, -0.5, 0.0)
            p |= {"sum_low": 0, "sum_high": 3} if self.chance(0.5) else {}
        p |= {"gain_t": self.array(self.dyadic(self.pick(*tables)) + 2.0)} if self.chance(0.3) else {}
        return p

    def neuron(self, x: str, name: str, sent: ValueType | None = None) -> str:
        shape = self.shape(x)
        p: dict = {"beta": self.parameter(shape, 0.0, 0.5, 0.75, 1.0), "theta": self.parameter(shape, 0.5, 1.0, 2.0)}
        p |= {"reset": "hard", "compare": self.pick("ge", "gt")}
        if self.kinds in ("any", "cells"):
            p |= {"v_reset": self.pick(-0.5, 0.25), "theta": self.pick(0.5, 1.0)} if self.chance(0.3) else {}
            p |= {"gain": self.parameter(shape, 0.5, 2.0)} if self.chance(0.3) else {}
            p |= {"gain_v": self.parameter(shape, 0.5, 2.0)} if self.chance(0.2) else {}
            p |= {"reset_at": self.pick("same", "next_start"), "start_v": self.parameter(shape, 0.0, 0.25)}
            p |= {"current": self.pick("new", "new", "old")}
        p |= self.moving(shape, sent) if sent is not None and self.kinds == "cells" else {}
        p |= {"v_reset": 0.0} if "levels" in p else {}
        moves = {"theta_decay", "theta_t", "v_min"} & set(p)
        p |= {"reset_at": "same"} if p.get("reset_at") == "next_start" and moves else {}
        p |= {"alpha": self.parameter(shape, 0.0, 0.5)} if self.chance(0.5) else {}
        p |= {"leak": self.parameter(shape, 0.125, -0.125)} if self.chance(0.4) else {}
        if self.kinds == "cells" and "alpha" not in p and self.chance(0.2):
            p["bias_t"] = self.array(self.dyadic((self.timesteps, shape[0]), 0.5))
        return self.add("neuron", x, id=name, name=name, **p)

    def grow(self) -> Graph:
        for i in range(self.pick(1, 1, 2)):
            shape = self.pick(*SHAPES)
            x = self.add(
                "input", id=f"x{i}", name=f"x{i}", shape=shape, bits=self.pick(0, 0, 3, None) if self.codes else 0
            )
            self.events.append((x, shape))
        for i in range(self.pick(1, 2, 3, 4)):
            self._layer(f"n{i}")
        self._outputs()
        graph = self.build()
        verify(graph)
        return graph

    def _layer(self, name: str) -> None:
        total = [self.current(self.events[int(self.rng.integers(len(self.events)))][0], self.pick(0, 0, 0, 1, 2))]
        shape = self.shape(total[0])
        for other, _ in self.events:
            if self.chance(0.2):
                total.append(self.current(other, self.pick(0, 1), into=shape))
        sent = self.sent(shape)
        if self.chance(0.5):
            self.declare(name, sent)
            total.append(self.current(name, self.pick(1, 1, 3), into=shape))
        x = total[0] if len(total) == 1 else self.add("add", *total)
        self.events.append((self.neuron(x, name, sent), shape))

    def _outputs(self) -> None:
        last, _ = self.events[-1]
        self.add("output", last, name="spikes")
        if self.chance(0.6):
            x = self.linear(last, Use(last))
            more = {"alpha": 0.5} if self.chance(0.4) else {}
            li = self.add("integrator", x, name="li", beta=self.parameter(self.shape(x), 0.5, 0.75), **more)
            self.add("output", li, name="potential")
        if self.chance(0.3):
            self.add("output", self.linear(last, Use(last)), name="current")


def random_general_graph(seed: int, timesteps: int = 10, kinds: str = "any", codes: bool = True) -> Graph:
    """``kinds`` "plain": neurons that a soma carries out but for rounding; "cells": all there are.

    ``codes``: inputs may send codes.
    """
    return Maker(seed, timesteps, kinds, codes).grow()


def random_inputs(graph: Graph, seed: int, samples: int = 2, steps: int = 0) -> dict[str, np.ndarray]:
    """Values for every input, [N, T, C, H, W]: codes, or real ones that are multiples of 1/8 below 1."""
    rng, found = np.random.default_rng(seed), {}
    for node in graph.sources:
        real = node.type.kind is Kind.REAL
        top = 7 if real else (1 << max(node.type.bits, 1)) - 1
        shape = (samples, steps or graph.timesteps, *node.type.shape)
        found[node.name] = rng.integers(0, top + 1, shape) * (rng.random(shape) < 0.5) / (8 if real else 1)
    return found
