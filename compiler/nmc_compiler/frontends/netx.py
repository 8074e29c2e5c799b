"""lava-dl's HDF5 networks (``.net``): what the file says, layer by layer, as lava-dl's netx takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.hdf5 import Hdf5Group, some
from nmc_compiler.netx import (
    CONV_LIMIT,
    DENSE_HIGH,
    DENSE_LOW,
    FULL_DECAY,
    LAYERS,
    MAX_BIAS,
    MAX_DELAY,
    MAX_VTH,
    NEURONS,
    Cuba,
    Layer,
    Sdnn,
    Shape,
)

MAX_LAYERS = 10_000
MAX_SIDE = 1 << 20
PAIRS = (("stride", "stride", 1), ("pad", "padding", 0), ("dilation", "dilation", 1))
USED = (
    *("type", "shape", "neuron", "weight", "weight_rec", "bias", "delay", "stride", "padding", "dilation", "groups"),
    *("inFeatures", "outFeatures", "inChannels", "outChannels", "kernelSize"),  # the weights say them too
)


@dataclass(frozen=True)
class NetxFile:
    """``sample``: simulation/tSample, timesteps of a sample in training, or 0 where the file does not say."""

    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    sample: int = 0


def read_layers(file: Hdf5Group) -> NetxFile:
    """All layers of a ``.net``. FrontendError, with place and numbers, for what is missing, odd or does not fit."""
    group = file.group("layer")
    count = len(group.names)
    if not 1 <= count <= MAX_LAYERS:
        raise group.wrong("", f"has {count} layers; 1 to {MAX_LAYERS} are read")
    if missing := [str(i) for i in range(count) if str(i) not in group]:
        raise FrontendError(f"{group.where} has {some(group.names)} but no layer {missing[0]}: they count from 0")
    notes: list[str] = []
    layers: list[Layer] = []
    for i in range(count):
        layers.append(_Reader(group.group(str(i)), i, layers[-1] if layers else None, notes).layer())
    if all(layer.neuron is None and layer.weight is None for layer in layers):
        raise FrontendError(f"{group.where} has no layer with weights or neurons: {', '.join(x.kind for x in layers)}")
    sample = 0
    if "simulation" in file and "tSample" in file.group("simulation"):
        sample = file.group("simulation").integer("tSample", 0, 1 << 31)
    return NetxFile(tuple(layers), tuple(notes), sample)


class _Reader:
    """Reads one layer; ``before`` is the one it takes its input from."""

    def __init__(self, group: Hdf5Group, index: int, before: Layer | None, notes: list[str]) -> None:
        self.group, self.index, self.before, self.notes = group, index, before, notes

    def layer(self) -> Layer:
        kind = self.group.text("type")
        if kind not in LAYERS:
            raise self.group.wrong("type", f"is {ascii(kind)[:40]}; layers that can be imported: {', '.join(LAYERS)}")
        if kind == "input" and self.before is not None:
            raise self.group.wrong("type", "is 'input'; only the first layer can be")
        if "imag" in (self.group.group("weight").names if self._is_group("weight") else []):
            raise self.group.wrong("weight", "is complex (resonate and fire); only real weights can be imported")
        unused = [name for name in self.group.names if name not in USED]
        if unused:
            self.notes.append(f"layer/{self.index} has {some(unused)}, which netx does not use")
        return getattr(self, f"_{kind}")()

    def _is_group(self, name: str) -> bool:
        return isinstance(self.group.members.get(name), Hdf5Group)

    # --- kinds ---

    def _input(self) -> Layer:
        neuron = self._neuron(sigma=False)
        weight, bias = (self._optional_integer(key, default) for key, default in (("weight", 64), ("bias", 0)))
        return Layer(self.index, "input", self._shape(), neuron, transform=(weight, bias))

    def _flatten(self) -> Layer:
        shape = self._before().shape
        return Layer(self.index, "flatten", (math.prod(shape), 1, 1))

    def _average(self) -> Layer:
        (outputs, height, width), before = self._shape(), self._before().shape
        if height * width != 1 or math.prod(before) % outputs:
            raise self.group.wrong("shape", f"of an average is {outputs}, which does not divide the {before} before it")
        return Layer(self.index, "average", (outputs, 1, 1))

    def _dense(self) -> Layer:
        weight, before = self._dense_weight("weight"), self.before
        sources = weight.shape[1]
        if before is not None and before.shape != (sources, 1, 1):
            told = "put a flatten layer between" if math.prod(before.shape) == sources else "they do not go together"
            raise self.group.wrong("weight", f"takes {sources} inputs, but the layer before has {before.shape}; {told}")
        shape = (len(weight), 1, 1)
        return self._with_neuron("dense", shape, weight, delay=self._delays(weight))

    def _dense_rec(self) -> Layer:
        layer, rec = self._dense(), self._dense_weight("weight_rec")
        assert layer.weight is not None
        outputs = len(layer.weight)
        if rec.shape != (outputs, outputs):
            raise self.group.wrong("weight_rec", f"has shape {list(rec.shape)}; [{outputs}, {outputs}] was expected")
        if layer.delay is not None and layer.delay.shape != rec.shape:
            raise self.group.wrong(
                "delay", "cannot hold for both the input and the recurrent weights (netx has no rule)"
            )
        return Layer(**(vars(layer) | {"kind": "dense_rec", "weight_rec": rec}))

    def _conv(self) -> Layer:
        weight = self.group.integers("weight")
        weight = weight[..., 0] if weight.ndim == 5 and weight.shape[4] == 1 else weight
        if weight.ndim != 4:
            raise self.group.wrong("weight", f"has shape {list(weight.shape)}; [O, I, kh, kw] was expected")
        groups = self._optional_integer("groups", 1)
        return self._convolved("conv", weight, groups)

    def _pool(self) -> Layer:
        """One kernel for every channel: a convolution with as many groups as channels (slayer's Pool)."""
        weight, channels = self.group.integers("weight"), self._before().shape[0]
        kernel = weight.reshape(-1, *weight.shape[2:4])
        if weight.ndim not in (4, 5) or len(kernel) != 1 or weight.shape[4:] not in ((), (1,)):
            raise self.group.wrong("weight", f"has shape {list(weight.shape)}; [1, 1, kh, kw] was expected")
        return self._convolved("pool", np.repeat(kernel[None], channels, axis=0), channels)

    def _convolved(self, kind: str, weight: np.ndarray, groups: int) -> Layer:
        channels = self._before().shape[0]
        if not 1 <= groups <= channels or channels != weight.shape[1] * groups or len(weight) % groups:
            raise self.group.wrong(
                "weight",
                f"has shape {list(weight.shape)} in {groups} groups, but the layer before has {channels} channels",
            )
        self._within("weight", weight, -CONV_LIMIT, CONV_LIMIT - 1)
        form = {key: self._pair(name, low) for key, name, low in PAIRS}
        shape, told = conv_shape(self._before().shape, weight, **form), self._shape()
        if shape != told:
            raise self.group.wrong("shape", f"is {told}, but its weights, stride and padding give {shape}")
        if "delay" in self.group and self.group.integers("delay").any():
            raise self.group.wrong("delay", "of a convolution is ignored by netx, so what it means is not known")
        return self._with_neuron(kind, shape, weight, groups=groups, **form)

    # --- parts ---

    def _before(self) -> Layer:
        if self.before is None:
            kind = self.group.text("type")
            raise self.group.wrong("type", f"is {kind!r}, and no layer before it says the size of its input")
        return self.before

    def _shape(self) -> Shape:
        """(C, H, W), as lava-dl writes it; a list of one number is a vector."""
        shape = self.group.integers("shape")
        shape = shape.reshape(-1) if shape.ndim < 2 else shape
        if shape.ndim != 1 or len(shape) not in (1, 2, 3):
            raise self.group.wrong("shape", f"has shape {list(shape.shape)}; up to three sizes were expected")
        self._within("shape", shape, 1, MAX_SIDE)
        full = [1] * (3 - len(shape)) + shape.tolist() if len(shape) > 1 else [*shape.tolist(), 1, 1]
        if math.prod(full) > MAX_SIDE:
            raise self.group.wrong("shape", f"is {full}: {math.prod(full)} neurons; at most {MAX_SIDE} are read")
        return full[0], full[1], full[2]

    def _dense_weight(self, name: str) -> np.ndarray:
        weight = self.group.integers(name)
        outputs = math.prod(self._shape())
        if weight.ndim == 1 and weight.size % outputs == 0:
            weight = weight.reshape(outputs, -1)
        if weight.ndim != 2 or len(weight) != outputs or not weight.size:
            raise self.group.wrong(name, f"has shape {list(weight.shape)}; [{outputs}, inputs] was expected")
        mixed = weight.min() < 0 < weight.max()
        self._within(name, weight, DENSE_LOW if mixed else -255, DENSE_HIGH if mixed else 255)
        return weight

    def _with_neuron(self, kind: str, shape: Shape, weight: np.ndarray, **more: object) -> Layer:
        return Layer(self.index, kind, shape, self._neuron(), weight, bias=self._bias(shape), **more)  # type: ignore[arg-type]

    def _neuron(self, sigma: bool = True) -> Cuba | Sdnn | None:
        if "neuron" not in self.group:
            return None
        group = self.group.group("neuron")
        kind = group.text("type")
        if kind not in NEURONS:
            raise group.wrong("type", f"is {ascii(kind)[:40]}; neurons that can be imported: {', '.join(NEURONS)}")
        if kind == "SDNN":
            if "activation" in group and group.text("activation").lower() != "relu":
                told = ascii(group.text("activation"))[:40]
                raise group.wrong(
                    "activation", f"is {told}; netx computes relu whatever it says, so only that is taken"
                )
            summed = sigma and "sigma_output" in group
            return Sdnn(group.integer("vThMant", 0, (1 << 19) - 1) if not summed else 0, summed)
        self._must_be(group, "refDelay", 1, "netx knows no refractory time")
        self._must_be(group, "gradedSpike", 0, "Lava's LIF sends no payload")
        for key in ("wgtExp", "weight_exp"):
            self._must_be(group, key, 0, "netx does not use it")
        i_decay, v_decay = group.integer("iDecay", 1, FULL_DECAY), group.integer("vDecay", 0, FULL_DECAY)
        return Cuba(i_decay, v_decay, group.integer("vThMant", 0, MAX_VTH))

    @staticmethod
    def _must_be(group: Hdf5Group, key: str, value: int, why: str) -> None:
        if key in group and (found := group.integers(key)).any() and (found != value).any():
            raise group.wrong(key, f"is {found.flat[0]}, but {why}; only {value} is taken")

    def _bias(self, shape: Shape) -> np.ndarray | None:
        """Mantissas of the channels; one number is all of them."""
        if "bias" not in self.group:
            return None
        bias = self.group.integers("bias").reshape(-1)
        if bias.size not in (1, shape[0]):
            raise self.group.wrong(
                "bias", f"has {bias.size} values; one, or one for each of {shape[0]} channels, is taken"
            )
        self._within("bias", bias, -MAX_BIAS, MAX_BIAS - 1)
        return np.broadcast_to(bias, (shape[0],)).copy()

    def _delays(self, weight: np.ndarray) -> np.ndarray | None:
        """Timesteps beyond a connection's one, [O, I]; a list is of the outputs, else of the inputs, as in netx."""
        if "delay" not in self.group:
            return None
        delay = self.group.integers("delay")
        if delay.size and not 0 <= delay.min() <= delay.max() <= MAX_DELAY:
            raise self.group.wrong(
                "delay", f"has values {delay.min()}..{delay.max()}; 0..{MAX_DELAY} are taken (netx cuts what is longer)"
            )
        if not delay.any():
            return None
        outputs, inputs = weight.shape
        if delay.shape == (outputs,):
            delay = delay[:, None]
        elif delay.shape == (inputs,):
            delay = delay[None, :]
        elif delay.size != 1 and delay.shape != weight.shape:
            raise self.group.wrong(
                "delay", f"has shape {list(delay.shape)}, which fits no side of {list(weight.shape)}"
            )
        return np.broadcast_to(delay, weight.shape)

    def _pair(self, name: str, low: int) -> tuple[int, int]:
        if name not in self.group:
            return (1, 1) if low else (0, 0)
        found = self.group.integers(name).reshape(-1)
        if found.size not in (1, 2):
            raise self.group.wrong(name, f"has {found.size} values; one or two (y, x) were expected")
        self._within(name, found, low, MAX_SIDE)
        y, x = np.broadcast_to(found, (2,)).tolist()
        return y, x

    def _optional_integer(self, name: str, default: int) -> int:
        return self.group.integer(name, -(1 << 20), 1 << 20) if name in self.group else default

    def _within(self, name: str, found: np.ndarray, low: int, high: int) -> None:
        if found.size and not low <= found.min() <= found.max() <= high:
            raise self.group.wrong(name, f"has values {found.min()}..{found.max()}; {low}..{high} are taken")


def conv_shape(
    shape: Shape, weight: np.ndarray, stride: tuple[int, int], pad: tuple[int, int], dilation: tuple[int, int]
) -> Shape:
    """(C, H, W) of a convolution's output; a side below 1 where the kernel does not fit."""
    sides = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape[1:], weight.shape[2:], stride, pad, dilation, strict=True)
    ]
    return len(weight), sides[0], sides[1]
