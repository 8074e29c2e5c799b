"""Random lava-dl networks, and what Lava's Processes would make of them: one time step after the other, in plain NumPy.

The twin is written from the facts of lava-nc 0.10.0 and lava-dl's netx, not from the code under test: every connection
sends what it computed the step before, a LIFReset forgets before its update, a Delta compares with the step before.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.netx import Cuba, Layer, Sdnn


def cuba(rng: np.random.Generator) -> Cuba:
    i_decay = int(rng.choice([4096, 4096, 1, 410, 2048]))
    return Cuba(i_decay, int(rng.choice([0, 123, 1024, 4096])), int(rng.integers(0, 60)))


def sdnn(rng: np.random.Generator) -> Sdnn:
    return Sdnn(int(rng.integers(0, 12)))


def dense(rng: np.random.Generator, sources: int, neuron, **more) -> Layer:
    outputs = int(rng.integers(1, 6))
    weight = rng.integers(-127, 128, (outputs, sources)) * int(rng.choice([1, 2]))
    weight[rng.random(weight.shape) < 0.2] = 0
    bias = rng.integers(-20, 40, outputs) if rng.random() < 0.5 else None
    return Layer(0, "dense", (outputs, 1, 1), neuron, weight, bias=bias, **more)


def recurrent(rng: np.random.Generator, sources: int, neuron) -> Layer:
    layer = dense(rng, sources, neuron)
    n = layer.shape[0]
    return Layer(**(vars(layer) | {"kind": "dense_rec", "weight_rec": rng.integers(-60, 60, (n, n))}))


def delayed(rng: np.random.Generator, sources: int, neuron) -> Layer:
    layer = dense(rng, sources, neuron)
    outputs = layer.shape[0]
    kind = rng.choice(["outputs", "inputs", "all"])
    sides = {"outputs": (outputs, 1), "inputs": (1, sources), "all": (outputs, sources)}
    late = rng.integers(0, 5, sides[str(kind)])
    return Layer(**(vars(layer) | {"delay": np.broadcast_to(late, (outputs, sources))}))


def conv(rng: np.random.Generator, shape, neuron) -> Layer | None:
    kh, kw = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    stride = tuple(int(n) for n in rng.integers(1, 3, 2))
    pad = tuple(int(n) for n in rng.integers(0, 2, 2))
    groups = int(rng.choice([1, shape[0]]))
    outputs = groups * int(rng.integers(1, 3))
    weight = rng.integers(-100, 100, (outputs, shape[0] // groups, kh, kw))
    sides = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], pad, (kh, kw), stride, strict=True)]
    if min(sides) < 1:
        return None
    bias = rng.integers(-20, 40, outputs) if rng.random() < 0.5 else None
    out = (outputs, sides[0], sides[1])
    return Layer(0, "conv", out, neuron, weight, bias=bias, stride=stride, pad=pad, groups=groups)


def random_layers(seed: int) -> tuple[Layer, ...]:
    """An input of some kind, perhaps convolutions, dense layers of several kinds; one kind of soma."""
    rng = np.random.default_rng(seed)
    make = sdnn if rng.random() < 0.3 else cuba
    found: list[Layer] = []
    if rng.random() < 0.6:  # an image, with somas of its own or without
        shape = tuple(int(n) for n in (rng.integers(1, 3), rng.integers(2, 6), rng.integers(2, 6)))
        neuron = make(rng) if rng.random() < 0.5 else None
        found.append(Layer(0, "input", shape, neuron, transform=(40, 3) if neuron else (64, 0)))
        for _ in range(int(rng.integers(0, 3))):
            layer = None if found[-1].shape[1:] == (1, 1) else conv(rng, found[-1].shape, make(rng))
            found += [] if layer is None else [layer]
        if found[-1].shape[1:] != (1, 1):
            found.append(Layer(0, "flatten", (int(np.prod(found[-1].shape)), 1, 1)))
        sources = int(np.prod(found[-1].shape))
    else:
        sources = int(rng.integers(1, 8))
    for _ in range(int(rng.integers(1, 4))):
        kind = (dense, recurrent, delayed)[int(rng.integers(0, 3))]
        found.append(kind(rng, sources, make(rng)))
        sources = found[-1].shape[0]
    return tuple(Layer(**(vars(layer) | {"index": i})) for i, layer in enumerate(found))


def random_input(layers: tuple[Layer, ...], seed: int, steps: int) -> np.ndarray:
    """[T, C, H, W]: spikes, codes for sigma-delta somas, or bias mantissas that stay the same."""
    rng = np.random.default_rng(seed)
    first = layers[0]
    shape = first.shape if first.kind == "input" else (first.weight.shape[1], 1, 1)
    if isinstance(first.neuron, Cuba) and first.kind == "input":
        return np.repeat(rng.integers(-30, 60, (1, *shape)), steps, axis=0)
    somas = first.neuron or layers[1].neuron or layers[2].neuron
    if isinstance(somas, Sdnn):
        coded = first.kind != "input" or first.neuron is not None
        return rng.integers(-9, 10, (steps, *shape)) if coded else (rng.random((steps, *shape)) < 0.4).astype(int)
    return (rng.random((steps, *shape)) < 0.4).astype(int)


# --- Lava, step by step ---


def decay(x: np.ndarray, d: int) -> np.ndarray:
    return np.sign(x) * ((np.abs(x) * (4096 - d)) >> 12)


class Soma:
    def __init__(self, layer: Layer) -> None:
        self.layer, self.neuron = layer, layer.neuron
        self.bias = np.zeros(layer.shape, np.int64)
        if layer.bias is not None:
            self.bias += layer.bias[:, None, None]
        self.forget()

    def forget(self) -> None:
        self.u, self.v, self.sigma, self.act, self.residue = (np.zeros(self.layer.shape, np.int64) for _ in range(5))

    def step(self, a: np.ndarray) -> np.ndarray:
        if isinstance(self.neuron, Cuba):
            self.u = decay(self.u, self.neuron.i_decay) + (a << 6)
            self.u = np.where(self.u > 2**23, self.u - 2**24, np.where(self.u <= -(2**23), self.u + 2**24, self.u))
            self.v = np.clip(decay(self.v, self.neuron.v_decay) + self.u + (self.bias << 6), -(2**23) + 1, 2**23 - 1)
            spikes = self.v > self.neuron.vth << 6
            self.v = np.where(spikes, 0, self.v)
            return spikes.astype(np.int64)
        if self.layer.kind == "input":  # Delta
            act = a << 12
        else:
            self.sigma = self.sigma + a
            act = np.maximum(self.sigma + (self.bias << 12), 0)
        delta = act - self.act + self.residue
        sent = np.where(np.abs(delta) >= self.neuron.vth << 12, delta, 0)
        self.residue, self.act = delta - sent, act
        return sent >> 6


def currents(layer: Layer, heard: list[np.ndarray], own: list[np.ndarray]) -> np.ndarray:
    """a_in of a layer; ``heard[d]``: what the layer before sent 1 + d steps ago, ``own`` what this one did."""
    if layer.kind == "conv":
        return correlate(layer, heard[0])
    total = np.zeros(layer.shape[0], np.int64)
    for weight, events in ((layer.weight, heard), (layer.weight_rec, own)):
        if weight is None:
            continue
        late = np.zeros(weight.shape, int) if layer.delay is None else layer.delay
        for d in np.unique(late):
            total += np.where(late == d, weight, 0) @ events[int(d)].reshape(-1)
    return total.reshape(layer.shape)


def correlate(layer: Layer, x: np.ndarray) -> np.ndarray:
    (py, px), (sy, sx), (o, i, kh, kw) = layer.pad, layer.stride, layer.weight.shape
    x = np.pad(x, ((0, 0), (py, py), (px, px)))
    out = np.zeros(layer.shape, np.int64)
    for c, y, z in np.ndindex(*layer.shape):
        first = c // (o // layer.groups) * i
        window = x[first : first + i, y * sy : y * sy + kh, z * sx : z * sx + kw]
        out[c, y, z] = (window * layer.weight[c]).sum()
    return out


def run_lava(layers: tuple[Layer, ...], data: np.ndarray, interval: int = 0) -> dict[str, np.ndarray]:
    """What every soma sends, [steps, C, H, W] by layer; ``data`` [steps, C, H, W] as a RingBuffer sends it.

    interval: netx's reset_interval, with a reset_offset by which every layer forgets as its sample arrives.
    """
    steps, somas = len(data), {x.index: Soma(x) for x in layers if x.neuron is not None}
    entry = layers[0].kind == "input" and layers[0].neuron is not None
    nothing = {x.index: np.zeros(x.shape, np.int64) for x in layers}
    sent: dict[int, list[np.ndarray]] = {i: [] for i in somas}
    source = [np.zeros_like(data[0])] * 64
    for t in range(1, steps + 1):
        now, before = {}, source
        for k, (i, soma) in enumerate(somas.items()):
            if interval and t % interval == (k + 1 + (not entry)) % interval:
                soma.forget()
            past = [*reversed(sent[i]), *[nothing[i]] * 64]
            arrives = data[t - 1] if entry and k == 0 else currents(layers[i], before, past)
            if entry and k == 0 and isinstance(soma.neuron, Cuba):  # the image is the bias
                soma.bias, arrives = data[t - 1], np.zeros_like(arrives)
            now[i] = soma.step(arrives)
            before = past
        for i, events in now.items():
            sent[i].append(events)
        source = [data[t - 1], *source[:63]]
    return {layers[i].name: np.stack(events) for i, events in sent.items()}
