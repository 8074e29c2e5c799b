"""Random networks of synapses one by one: recurrent, delayed, graded, of every soma model, on several tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from programs import ROUTERS, map_program

from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network

SHAPES = [(1, 1, 1), (3, 1, 1), (6, 1, 1), (2, 3, 1), (2, 2, 3), (9, 1, 1)]


class Maker:
    """Adds random populations and projections to a Network. Every choice is drawn from ``rng``."""

    def __init__(self, rng: np.random.Generator, timesteps: int) -> None:
        self.rng, self.net = rng, Network("general", timesteps)
        self.shapes: list[tuple[int, int, int]] = []
        self.inputs: list[int] = []

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def add_input(self, shape=None) -> int:
        shape = shape or self.pick(*SHAPES)
        bits, signed = self.pick((0, False), (0, False), (3, False), (8, True), (24, True))
        self.inputs.append(self.net.input(f"in{len(self.shapes)}", shape, payload_bits=bits, signed=signed))
        self.shapes.append(shape)
        return self.inputs[-1]

    def add_somas(self, shape=None) -> int:
        shape, channel = shape or self.pick(*SHAPES), self.rng.integers
        c, name = shape[0], f"p{len(self.shapes)}"
        self.shapes.append(shape)
        if self.chance(0.25):
            return self.net.sigma_delta(
                name, shape, vth=channel(0, 30, c), bias=channel(-20, 20, c), relu=self.chance(0.5),
                cumulative=self.chance(0.5), spike_exp=self.pick(0, 2, 6), state_exp=self.pick(0, 1, 6),
            )  # fmt: skip
        extra: dict = {}
        if self.chance(0.3):
            extra["vth_low"] = channel(-400, 0, c)
        if self.chance(0.3):
            extra["restart"] = (self.pick(1, 2, 5), self.pick(0, 1, 7))
        if self.chance(0.3):
            extra["start_u"] = channel(-(2**23) + 1, 2**23, shape)
            extra["start_v"] = channel(-(2**23) + 1, 2**23, shape)
        return self.net.lif(
            name, shape, du=self.pick(0, 1, 409, 2048, 4094, 4095), dv=self.pick(0, 1, 205, 4095, 4096),
            vth=channel(0, self.pick(20, 500, 131072), c), bias=channel(-200, 500, c) * self.pick(0, 1, 64), **extra,
        )  # fmt: skip

    def add_projection(self, src: int, dst: int) -> None:
        n, m, name = int(np.prod(self.shapes[src])), int(np.prod(self.shapes[dst])), f"s{self.rng.integers(2**62)}"
        top = self.pick(5, 127, 255)
        matrix = self.rng.integers(-top, top + 1, (m, n)) * (self.rng.random((m, n)) < self.rng.random())
        delay = self.pick(0, 1, self.rng.integers(0, 4, (m, n)), self.rng.integers(0, 64, (m, n)))
        form = {"exponent": self.pick(-6, -1, 0, 0, 1, 6), "graded": self.chance(0.6)}
        if self.chance(0.3):
            self._pairs(name, src, dst, matrix, delay, form)
        else:
            self.net.dense(name, src, dst, matrix, delay=delay, **form)

    def _pairs(self, name, src, dst, matrix, delay, form) -> None:
        """Rows in any order, with pairs that have two synapses."""
        rows = [np.flatnonzero(matrix[:, s]) for s in range(matrix.shape[1])]
        rows = [self.rng.permutation(np.concatenate([r, r[:1]])) for r in rows]
        indptr, target = np.cumsum([0, *map(len, rows)]), np.concatenate(rows).astype(int)
        source = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        delay = delay if np.ndim(delay) == 0 else delay[target, source]
        self.net.sparse(name, src, dst, indptr, target, matrix[target, source], delay=delay, **form)

    def add_conv(self, src: int) -> None:
        c, h, w = self.shapes[src]
        outs, k = self.pick(1, 2, 4), (min(h, 2), min(w, 2))
        dst = self.add_somas((outs, h - k[0] + 1, w - k[1] + 1))
        self.net.conv(f"c{dst}", src, dst, self.rng.integers(-128, 128, (*k, c, outs)))

    def network(self) -> Program:
        for _ in range(self.pick(1, 1, 2)):
            self.add_input()
        first = len(self.shapes)
        for _ in range(self.pick(1, 2, 3, 4)):
            self.add_somas()
        somas = range(first, len(self.shapes))
        for dst in somas:
            for src in self.rng.integers(0, len(self.shapes), self.pick(1, 2, 3)):
                self.add_projection(int(src), dst)
        self.add_projection(self.inputs[0], somas[0])
        if self.chance(0.4):
            self.add_conv(int(self.rng.integers(len(self.shapes))))
        return self.net.program()


def stretch(p: Program, rng: np.random.Generator) -> Program:
    """The same network with several ticks per timestep and delays that use them."""
    ticks = int(rng.integers(1, 4))

    def slow(item):
        return replace(item, delay=int(rng.integers(1, ticks + 1)))

    return replace(
        p, ticks_per_step=ticks, interval=p.timesteps * ticks,
        convs=tuple(map(slow, p.convs)), sparses=tuple(map(slow, p.sparses)),
    )  # fmt: skip


def random_general(seed: int, timesteps: int = 0, cores: int = 5, parts: int = 4, profile: str = "loihi2") -> Program:
    """A random mapped network; a stream unless ``timesteps`` is given. ``profile``: its integer rules."""
    rng = np.random.default_rng(seed)
    program = stretch(Maker(rng, timesteps).network(), rng)
    target = {"mesh": {"routers": ROUTERS}, "profile": profile}
    return map_program(replace(program, target=target), seed, cores, parts, 2)


def random_codes(program: Program, seed: int, steps: int, rate: float | None = None) -> dict[int, np.ndarray]:
    """Codes of every input, [steps, C, H, W], at a random rate, the ends of the payload's range among them."""
    rng, found = np.random.default_rng(seed), {}
    for i, p in enumerate(program.populations):
        if p.model == "input":
            bits = max(p.payload_bits, 1)
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if p.signed else (0, 2**bits - 1)
            values = rng.integers(low, high + 1, (steps, *p.shape))
            values = np.where(rng.random(values.shape) < 0.2, rng.choice([low, high], values.shape), values)
            share = rng.random() if rate is None else rate
            found[i] = (values * (rng.random(values.shape) < share)).astype(np.int32)
    return found


def on_one_core(program: Program) -> Program:
    """The Program with everything on core 0."""
    return map_program(replace(program, target={**program.target, "mesh": {"routers": ROUTERS}}))
