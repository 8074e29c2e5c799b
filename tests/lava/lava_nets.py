"""Random networks described in Lava's own words, and what each becomes as a Program.

A description is plain data: ``steps``; ``populations``, inputs first, each with ``kind``, ``shape`` ([n] or
[X, Y, C]) and Lava's parameters; ``connections`` with ``kind``, ``src``, ``dst``, ``weights`` and Lava's
parameters. Somas are counted in C order of ``shape``, as Lava does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.program.loihi_weights import prepare_weights
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network

Description = dict[str, Any]
MODES = (None, None, "mixed", "excitatory", "inhibitory")
LARGEST = 2**25  # |a| from here on, Lava's a << 6 leaves 32 bits


class Maker:
    """Draws one network from a seed. ``like``: "dense", "conv", "delay" or "sigma_delta"."""

    def __init__(self, seed: int, like: str) -> None:
        self.rng, self.like = np.random.default_rng(seed), like
        self.populations: list[dict] = []
        self.connections: list[dict] = []
        self.codes: list[int] = []  # largest |code| of each population, as far as it is known

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def whole(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def make(self) -> Description:
        conv, steps = self.like == "conv", self.whole(6, 14)
        if self.like == "delay":
            steps = self.pick(20, 70)
        for _ in range(self.pick(1, 1, 2)):
            self.add_input(
                [self.whole(2, 6), self.whole(2, 6), self.whole(1, 3)] if conv else [self.whole(1, 8)], steps
            )
        inputs = len(self.populations)
        if conv:
            self.add_conv(0)
        for _ in range(self.whole(1, 2) if conv else self.whole(1, 4)):
            self.add_somas([self.pick(1, 2, 5, 9)])
        for dst in range(inputs, len(self.populations)):
            for src in {max(dst - 1, 0), *self.rng.integers(0, len(self.populations), self.whole(0, 2)).tolist()}:
                self.add_synapses(int(src), dst)
        return {"steps": steps, "populations": self.populations, "connections": self.connections}

    # -- populations -----------------------------------------------------------------------------

    def add_input(self, shape: list[int], steps: int) -> None:
        top = self.pick(1, 1, 7, 255)
        low = self.pick(0, -top) if top > 1 else 0
        data = self.rng.integers(low, top + 1, (*shape, steps)) * (self.rng.random((*shape, steps)) < self.rng.random())
        self._add({"kind": "RingBuffer", "shape": shape, "data": data.tolist()}, top)

    def add_somas(self, shape: list[int]) -> None:
        kinds = (
            ("SigmaDelta",) if self.like == "sigma_delta" else ("LIF", "LIF", "LIFReset", "TernaryLIF", "SigmaDelta")
        )
        kind = self.pick(*kinds)
        self._add(self.sigma_delta(shape) if kind == "SigmaDelta" else self.lif(kind, shape), 1)

    def _add(self, population: dict, largest: int) -> None:
        self.populations.append(population)
        self.codes.append(largest)

    def sigma_delta(self, shape: list[int]) -> dict:
        return {
            "kind": "SigmaDelta", "shape": shape, "vth": self.whole(0, 60), "bias": self.whole(-20, 20),
            "act_mode": self.pick("UNIT", "RELU"), "cum_error": self.chance(0.5),
            "spike_exp": self.pick(0, 2, 6), "state_exp": self.pick(0, 1, 6),
        }  # fmt: skip

    def lif(self, kind: str, shape: list[int]) -> dict:
        n, channels = int(np.prod(shape)), shape[-1]  # channels vary fastest
        bias = self.rng.integers(-4096, 4096, channels) if self.chance(0.3) else np.full(channels, self.whole(-9, 9))
        found: dict = {
            "kind": kind, "shape": shape, "du": self.pick(0, 1, 409, 2048, 4095, self.whole(0, 4095)),
            "dv": self.pick(0, 1, 205, 4095, 4096, self.whole(0, 4096)),
            "bias_mant": np.tile(bias, n // channels).tolist(),
            "bias_exp": self.pick(0, 0, 3, 7),
        }  # fmt: skip
        if self.chance(0.3):
            found["u"], found["v"] = (self.rng.integers(-(2**23) + 1, 2**23, n).tolist() for _ in range(2))
        vth = self.whole(0, self.pick(20, 600, 600, 131071))
        if kind == "TernaryLIF":
            return found | {"vth_hi": vth, "vth_lo": -self.whole(1, self.pick(20, 600, 131071))}
        if kind == "LIFReset":
            found |= {"reset_interval": self.whole(1, 6), "reset_offset": self.whole(0, 7)}
        return found | {"vth": vth}

    # -- connections -----------------------------------------------------------------------------

    def add_synapses(self, src: int, dst: int) -> None:
        n, m = (int(np.prod(self.populations[i]["shape"])) for i in (src, dst))
        kind = self.pick("DelayDense", "DelaySparse") if self.like == "delay" else self.pick("Dense", "Sparse")
        top = self.pick(20, 127, 255, 300)
        weights = self.rng.integers(-top, top + 1, (m, n)) * (self.rng.random((m, n)) < self.pick(0.3, 1.0))
        weights = np.abs(weights) * self.pick(1, -1) if self.chance(0.3) else weights
        message = self.pick(0, 24) if self.populations[src]["kind"] != "LIF" else self.pick(0, 0, 8)
        found: dict = {
            "kind": kind, "src": src, "dst": dst, "weights": weights.tolist(), "num_weight_bits": self.whole(1, 8),
            "sign_mode": self.pick(*MODES), "num_message_bits": message,
            "weight_exp": self.whole(-6, self._room(n, self.codes[src] if message else 1)),
        }  # fmt: skip
        if self.like == "delay":
            found["delays"] = self.pick(0, 3, 63, *(self.rng.integers(0, d, (m, n)).tolist() for d in (2, 8, 64)))
        self.connections.append(found)

    def _room(self, fan_in: int, code: int) -> int:
        """Largest exponent, of at most 8, at which four such connections keep the sum below LARGEST."""
        return min(8, (LARGEST // (4 * 256 * fan_in * code)).bit_length() - 1)

    def add_conv(self, src: int) -> None:
        x, y, c = self.populations[src]["shape"]
        groups = self.pick(1, c)
        kernel, dilation = [self.whole(1, min(x, 3)), self.whole(1, min(y, 3))], [self.pick(1, 2), self.pick(1, 2)]
        padding, stride = [self.whole(0, 2), self.whole(0, 2)], [self.whole(1, 2), self.whole(1, 2)]
        out = [
            (s + 2 * p - d * (k - 1) - 1) // t + 1
            for s, p, d, k, t in zip((x, y), padding, dilation, kernel, stride, strict=True)
        ]
        if min(out) < 1:
            dilation, padding, stride = [1, 1], [0, 0], [1, 1]
            out = [x - kernel[0] + 1, y - kernel[1] + 1]
        outs = groups * self.whole(1, 3)
        self.add_somas([*out, outs])
        weights = self.rng.integers(-128, 128, (outs, *kernel, c // groups)) * self.pick(1, 2)
        self.connections.append({
            "kind": "Conv", "src": src, "dst": len(self.populations) - 1, "weights": weights.tolist(),
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
            "num_message_bits": 24 if self.codes[src] > 1 else self.pick(0, 24), "weight_exp": self.whole(-2, 3),
            "num_weight_bits": self.whole(1, 8),
        })  # fmt: skip


LIKE = ("dense", "conv", "delay", "sigma_delta", "dense", "conv", "delay")


def describe(seed: int) -> Description:
    """The network of a seed."""
    return Maker(seed, LIKE[seed % len(LIKE)]).make()


# -- as a Program ------------------------------------------------------------------------------


def canonical(shape: list[int]) -> tuple[int, int, int]:
    """(C, H, W) of a population: Lava counts (X, Y, C), a vector is (C, 1, 1)."""
    return (shape[0], 1, 1) if len(shape) == 1 else (shape[2], shape[1], shape[0])


def order(shape: list[int]) -> np.ndarray:
    """Lava's number of every soma, in our order."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    return (numbers if len(shape) == 1 else numbers.transpose(2, 1, 0)).reshape(-1)


def to_program(d: Description) -> Program:
    """The Program that computes what Lava computes."""
    net = Network("lava")
    for i, p in enumerate(d["populations"]):
        _ADD[p["kind"]](net, f"p{i}", p)
    for i, c in enumerate(d["connections"]):
        src, dst = (d["populations"][c[end]] for end in ("src", "dst"))
        (_conv if c["kind"] == "Conv" else _matrix)(net, f"c{i}", c, src, dst)
    return net.program()


def _input(net: Network, name: str, p: dict) -> None:
    data = np.array(p["data"])
    plain = data.min(initial=0) >= 0 and data.max(initial=0) <= 1
    net.input(name, canonical(p["shape"]), payload_bits=0 if plain else 24, signed=not plain)


def _lif(net: Network, name: str, p: dict) -> None:
    """Lava has one bias per soma, a Program one per channel: somas of one channel have the same here."""
    extra: dict = {}
    shape, at = canonical(p["shape"]), order(p["shape"])
    if "u" in p:
        extra = {f"start_{k}": np.array(p[k])[at].reshape(shape) for k in "uv"}
    if p["kind"] == "LIFReset":
        extra["restart"] = (p["reset_interval"], p["reset_offset"])
    vth = p["vth_hi"] if p["kind"] == "TernaryLIF" else p["vth"]
    if p["kind"] == "TernaryLIF":
        extra["vth_low"] = p["vth_lo"]
    bias = (np.array(p["bias_mant"]) << p["bias_exp"])[at].reshape(shape)[:, 0, 0]
    net.lif(name, shape, du=p["du"], dv=p["dv"], vth=vth, bias=bias, **extra)


def _sigma_delta(net: Network, name: str, p: dict) -> None:
    net.sigma_delta(
        name, canonical(p["shape"]), vth=p["vth"], bias=p["bias"], relu=p["act_mode"] == "RELU",
        cumulative=p["cum_error"], spike_exp=p["spike_exp"], state_exp=p["state_exp"],
    )  # fmt: skip


_ADD = {"RingBuffer": _input, "LIF": _lif, "LIFReset": _lif, "TernaryLIF": _lif, "SigmaDelta": _sigma_delta}


def _matrix(net: Network, name: str, c: dict, src: dict, dst: dict) -> None:
    rows, columns = order(dst["shape"]), order(src["shape"])
    weights = prepare_weights(np.array(c["weights"]), c["num_weight_bits"], c["sign_mode"])[np.ix_(rows, columns)]
    delay = np.array(c.get("delays", 0))
    delay = delay[np.ix_(rows, columns)] if delay.ndim else int(delay)
    net.dense(
        name, c["src"], c["dst"], weights,
        exponent=c["weight_exp"], delay=delay, graded=c["num_message_bits"] > 0,
    )  # fmt: skip


def _conv(net: Network, name: str, c: dict, src: dict, dst: dict) -> None:
    """Lava's convolution flips its kernel and ignores exponent and bits; ours is a cross-correlation."""
    weight = np.array(c["weights"])[:, ::-1, ::-1].transpose(2, 1, 3, 0)  # [kh, kw, C_in, C_out] from (O, X, Y, I)
    form = {k: tuple(c[k][::-1]) for k in ("stride", "dilation")}
    net.conv(
        name, c["src"], c["dst"], weight, pad=tuple(c["padding"][::-1]), groups=c["groups"],
        graded=c["num_message_bits"] > 0, **form,
    )  # fmt: skip


def with_state(d: Description) -> list[int]:
    """Populations that have u and v."""
    return [i for i, p in enumerate(d["populations"]) if "LIF" in p["kind"]]


def in_range(codes: list[np.ndarray], u: list[np.ndarray]) -> bool:
    """Whether Lava computed a run exactly: its sums and ``a << 6`` wrap at 32 bits, ours do not.

    codes: of all populations; u: of those that have it. At most 400 weights of 9 bits make one sum.
    """
    return all(np.abs(c).max(initial=0) < 2**14 for c in codes) and all(np.abs(x).max(initial=0) < 2**30 for x in u)


def codes_in(d: Description) -> dict[str, np.ndarray]:
    """Codes of the inputs, [steps, C, H, W] by population name."""
    found = {}
    for i, p in enumerate(d["populations"]):
        if p["kind"] == "RingBuffer":
            data = np.array(p["data"]).reshape(-1, d["steps"])[order(p["shape"])]
            found[f"p{i}"] = data.T.reshape(d["steps"], *canonical(p["shape"])).astype(np.int32)
    return found
