"""SpikeYOLO (Luo et al., ECCV 2024): family ``spikeyolo``, from the first convolution to the detection maps.

The weights are a ``state_dict`` (the published files are pickled modules, which are not opened). The layout, a list of
[from, repeats, module, arguments], is that of the config's ``backbone`` and ``head``, as in the authors' yaml; without
them it is the published one. Widths and repeats are those of the tensors. The outputs are the box and class maps of
each scale, summed over T; what makes boxes of them (softmax, sigmoid, anchors, non-maximum suppression) is the host's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import axis, record
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.metaformer import Convolutional
from nmc_compiler.graph import Attr, Graph

KNOWN = ("model.1.encode_conv.weight", "model.2.0.Conv.pwconv1.weight", "model.9.cv1.conv.weight")
PUBLISHED: tuple[Any, ...] = (
    (-1, 1, "MS_GetT", (3, 1)),
    (-1, 1, "MS_DownSampling", (128, 7, 4, 2, True)),
    (-1, 3, "MS_AllConvBlock", (4, 7)),
    (-1, 1, "MS_DownSampling", (256, 3, 2, 1, False)),
    (-1, 6, "MS_AllConvBlock", (4, 7)),
    (-1, 1, "MS_DownSampling", (512, 3, 2, 1, False)),
    (-1, 9, "MS_ConvBlock", (3, 7)),
    (-1, 1, "MS_DownSampling", (1024, 3, 2, 1, False)),
    (-1, 3, "MS_ConvBlock", (2, 7)),
    (-1, 1, "SpikeSPPF", (1024, 5)),
    (-1, 1, "MS_StandardConv", (512, 1, 1)),
    (-1, 1, "nn.Upsample", (None, "(1,2,2)", "nearest")),
    (-1, 1, "MS_ConvBlock", (3, 7)),
    ((-1, 6), 1, "Concat", (2,)),
    (-1, 1, "MS_StandardConv", (256, 1, 1)),
    (-1, 1, "nn.Upsample", (None, "(1,2,2)", "nearest")),
    (-1, 1, "MS_AllConvBlock", (4, 7)),
    ((-1, 4), 1, "Concat", (2,)),
    (-1, 1, "MS_StandardConv", (256, 1, 1)),
    (-1, 1, "MS_AllConvBlock", (4, 7)),
    (-1, 1, "MS_StandardConv", (256, 3, 2)),
    ((-1, 14), 1, "Concat", (2,)),
    (-1, 1, "MS_ConvBlock", (3, 7)),
    (-1, 1, "MS_StandardConv", (512, 3, 2)),
    ((-1, 10), 1, "Concat", (2,)),
    (-1, 1, "MS_ConvBlock", (1, 7)),
    ((19, 22, 25), 1, "SpikeDetect", ("nc",)),
)
DEAD = {".dfl.conv.weight": "the numbers 0 to 15 by which the host weights a softmax"}


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN)


class _Builder(Convolutional):
    eps = Attr(1e-3, "family")  # Ultralytics sets it in every batch norm

    def spike(self, x: str, name: str, layout: str = "CHW") -> str:
        """I-LIF N7; a code of one timestep alone needs no state."""
        levels = Attr(self.config.integer("D"), self.config.get("D").evidence)
        norm, even = Attr(1, "family"), "half_even"
        kept = self.config.get("decay")
        lost = 1.0 - float(kept.value)  # type: ignore[arg-type]
        gain = lost if self.config.flag("decay_input") else None
        if self.graph.timesteps == 1:
            return self.multilevel(x, name, norm, layout, even, gain)
        return self.graph.add(
            "ilif", x, name=name, beta=kept, theta=Attr(1.0, "family"), levels=levels, norm=norm,
            gain=None if gain is None else Attr(gain, "config"), rounding=Attr(even, "family"),
            **record(self.graph.nodes[x].type.shape, layout, 0),
        )  # fmt: skip

    def spike_conv(self, x: str, p: str, stride: int = 1) -> str:
        """Neuron, convolution, batch norm."""
        side = self.take(f"{p}.conv.weight", (None, None, None, None)).shape[2]
        s = self.spike(x, f"{p}.lif")
        return self.conv_bn(s, f"{p}.conv", f"{p}.bn", stride=stride, pad=side // 2, side=side)

    def moved(self, parts: list[str], index: np.ndarray, shape: tuple[int, int, int]) -> str:
        key = f"take{len(self.graph.nodes)}.index"
        ref = Attr(self.graph.tensor(key, index.reshape(-1).astype(np.int64)), "family")
        return self.graph.add("take", *parts, index=ref, shape=Attr(shape, "family"))


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """Family constants where the config is silent; T is that of the layout's MS_GetT."""
    config = config.with_defaults("family", D=4, decay=0.25, backbone=PUBLISHED, head=())
    first = _layers(config)[0]
    frames = config.flag("input_time")  # MS_GetT takes as many as there are
    if first[2] == "MS_GetT" and len(first[3]) > 1 and not frames and config.values["backbone"].evidence != "family":
        config = config.agree("T", int(first[3][1]), "MS_GetT of the backbone")
    config = config if frames else config.with_defaults("family", T=1)
    for key in ("nc", "scales", "depth_multiple", "width_multiple", "ch"):
        config.has(key)
    decay = config.number("decay").value
    if not isinstance(decay, float) or decay > 1:
        raise FrontendError(f"config says decay = {decay}; it is what a neuron keeps of a timestep, at most 1")
    return config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])


def _layers(config: ModelConfig) -> list[tuple[Any, int, str, tuple[Any, ...]]]:
    rows = (
        [*config.value("backbone"), *config.value("head")]
        if config.values["backbone"].evidence != "family"
        else PUBLISHED
    )
    out = []
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != 4 or not isinstance(row[3], (list, tuple)):
            raise FrontendError(
                f"config 'backbone' and 'head' hold [from, repeats, module, arguments], got {row!r:.80}"
            )
        out.append((row[0], row[1], str(row[2]), tuple(row[3])))
    return out


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.8) and notes."""
    config = configure(tensors, config)
    b = _Builder("spikeyolo", tensors, config, config.integer("T"), input_time=config.flag("input_time"))
    values: list[str] = []
    for i, (before, _, kind, arguments) in enumerate(_layers(config)):
        if kind not in _MODULES:
            raise FrontendError(f"layer {i} of the layout is a {kind}; known: {', '.join(_MODULES)}")
        wanted = before if isinstance(before, (list, tuple)) else (before,)
        try:
            reads = [values[k] if k != -1 or values else b.image("x") for k in wanted]
            values.append(_MODULES[kind](b, reads, f"model.{i}", arguments))
        except IndexError:
            raise FrontendError(f"layer {i} of the layout ({kind}) reads layer {before} with {arguments}") from None
    graph, notes = b.finish(DEAD)
    return graph, [*notes, f"detection maps are sums over T = {config.value('T')}: the host divides, then makes boxes"]


def _repeated(block):
    """A block as often as the tensors have it: ``p`` itself, or ``p.0``, ``p.1``, ..."""

    def module(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
        (x,), n = reads, 0
        if f"{p}.Conv.pwconv1.weight" in b.state:
            return block(b, x, p)
        while n == 0 or f"{p}.{n}.Conv.pwconv1.weight" in b.state:
            x, n = block(b, x, f"{p}.{n}"), n + 1
        return x

    return module


def _get_t(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    return reads[0]


def _down(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    _, side, stride, pad, first = arguments
    x = reads[0] if first else b.spike(reads[0], f"{p}.encode_lif")
    return b.conv_bn(
        x, f"{p}.encode_conv", f"{p}.encode_bn", bias=True, stride=int(stride), pad=int(pad), side=int(side)
    )


def _sep_conv(b: _Builder, x: str, p: str) -> str:
    """Pointwise, depthwise, re-parameterised pointwise and depthwise; a neuron before each and a norm behind."""
    h = b.conv_bn(b.spike(x, f"{p}.lif1"), f"{p}.pwconv1", f"{p}.bn1")
    wide = b.width(h)
    side = b.take(f"{p}.dwconv2.weight", (wide, 1, None, None)).shape[2]
    h = b.conv_bn(b.spike(h, f"{p}.lif2"), f"{p}.dwconv2", f"{p}.bn2", pad=side // 2, side=side, groups=wide, out=wide)
    s = b.spike(h, f"{p}.lif3")
    return b.norm(_sep_rep_conv(b, s, f"{p}.pwconv3", b.width(x)), f"{p}.bn3")


def _sep_rep_conv(b: _Builder, s: str, p: str, out: int) -> str:
    """Batch norm of the codes, its value for zero around them, 1x1, depthwise.

    The norm's gains go into the 1x1 convolution; its offsets, which stand in the ring too, into a bias behind.
    """
    wide = b.width(s)
    scale, offset = b.affine(f"{p}.body.0.bn", wide)
    point = b.take(f"{p}.body.1.0.weight", (out, wide, 1, 1)).astype(np.float64)
    h = _derived(b, s, f"{p}.body.1.0", point * scale[None, :, None, None])
    return _depthwise(b, h, f"{p}.body.1.1", point[:, :, 0, 0] @ offset)


def _rep_conv(b: _Builder, s: str, p: str, out: int) -> str:
    """1x1, batch norm and its value for zero around, depthwise, 1x1, batch norm."""
    wide = b.width(s)
    scale, offset = b.affine(f"{p}.body.1.bn", wide)
    point = b.take(f"{p}.body.0.weight", (wide, wide, 1, 1)).astype(np.float64)
    h = _derived(b, s, f"{p}.body.0", point * scale[:, None, None, None])
    return b.conv_bn(_depthwise(b, h, f"{p}.body.2.0", offset), f"{p}.body.2.1", f"{p}.body.2.2", out=out)


def _derived(b: _Builder, x: str, name: str, weight: np.ndarray, **attrs: Any) -> str:
    ref = Attr(b.graph.tensor(f"{name}.normed.weight", weight), "checkpoint")
    return b.graph.add("conv2d", x, name=name, weight=ref, **attrs)


def _depthwise(b: _Builder, x: str, name: str, ring: np.ndarray) -> str:
    """A depthwise convolution of x + ``ring`` where the ring goes on around x: zeros around, and a bias."""
    channels = b.width(x)
    weight = b.take(f"{name}.weight", (channels, 1, None, None)).astype(np.float64)
    side = weight.shape[2]
    bias = b.graph.tensor(f"{name}.normed.bias", weight.sum(axis=(1, 2, 3)) * ring)
    pad, groups = Attr((side // 2, side // 2), "family"), Attr(channels, "family")
    return _derived(b, x, name, weight, bias=Attr(bias, "checkpoint"), pad=pad, groups=groups)


def _conv_block(b: _Builder, x: str, p: str) -> str:
    """x + SepConv(x), then x + two RepConvs."""
    x = b.add(x, _sep_conv(b, x, f"{p}.Conv"))
    wide = axis(b.state, f"{p}.conv1.body.2.1.weight", 0, 4)
    h = b.norm(_rep_conv(b, b.spike(x, f"{p}.lif1"), f"{p}.conv1", wide), f"{p}.bn1")
    return b.add(x, b.norm(_rep_conv(b, b.spike(h, f"{p}.lif2"), f"{p}.conv2", b.width(x)), f"{p}.bn2"))


def _all_conv_block(b: _Builder, x: str, p: str) -> str:
    """x + SepConv(x), then x + two 3x3 convolutions."""
    x = b.add(x, _sep_conv(b, x, f"{p}.Conv"))
    return b.add(x, b.spike_conv(b.spike_conv(x, f"{p}.conv1"), f"{p}.conv2"))


def _standard_conv(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    return b.spike_conv(reads[0], p, int(arguments[2]) if len(arguments) > 2 else 1)


def _sppf(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    """Three max-pools of real values, one behind the other, and all four of them side by side."""
    parts, side = [b.spike_conv(reads[0], f"{p}.cv1")], int(arguments[1]) if len(arguments) > 1 else 5
    kernel, stride, pad = (Attr((n, n), "family") for n in (side, 1, side // 2))
    for _ in range(3):
        parts.append(b.graph.add("maxpool2d", parts[-1], kernel=kernel, stride=stride, pad=pad))
    return b.spike_conv(_concat(b, parts, p, ()), f"{p}.cv2")


def _concat(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    shapes = [b.graph.nodes[x].type.shape for x in reads]
    if len({s[1:] for s in shapes}) != 1:
        raise FrontendError(f"{p} puts values of {shapes} side by side, whose heights and widths differ")
    channels = sum(s[0] for s in shapes)
    return b.moved(reads, np.arange(channels * shapes[0][1] * shapes[0][2]), (channels, *shapes[0][1:]))


def _upsample(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    """Every position repeated; the factor is written "(1, y, x)" and the first is that of channels."""
    text = str(arguments[1]).replace(" ", "").strip("()[]").split(",")
    if (
        len(text) != 3
        or text[0] != "1"
        or not all(t.isdigit() and t != "0" for t in text)
        or arguments[2:] != ("nearest",)
    ):
        raise FrontendError(
            f"{p} upsamples by {arguments!r}; (None, '(1,2,2)', 'nearest') and other whole factors are known"
        )
    channels, h, w = b.graph.nodes[reads[0]].type.shape
    y, x = int(text[1]), int(text[2])
    index = np.arange(channels * h * w).reshape(channels, h, w).repeat(y, axis=1).repeat(x, axis=2)
    return b.moved(reads, index, (channels, h * y, w * x))


def _detect(b: _Builder, reads: list[str], p: str, arguments: tuple[Any, ...]) -> str:
    """Box (cv2) and class (cv3) maps of each scale, as potentials that add up over T."""
    for level, x in enumerate(reads):
        for branch, what in (("cv2", "box"), ("cv3", "class")):
            q = f"{p}.{branch}.{level}"
            h = b.spike_conv(b.spike_conv(x, f"{q}.0"), f"{q}.1")
            h = b.conv(b.spike(h, f"{q}.2.lif"), f"{q}.2.conv", bias=True)
            total = b.graph.add("integrator", h, name=f"{q}.2", beta=Attr(1.0, "family"))
            b.graph.add("output", total, name=f"{what}{level}")
    return reads[-1]


_MODULES = {
    "MS_GetT": _get_t,
    "MS_DownSampling": _down,
    "MS_AllConvBlock": _repeated(_all_conv_block),
    "MS_ConvBlock": _repeated(_conv_block),
    "SpikeSPPF": _sppf,
    "MS_StandardConv": _standard_conv,
    "nn.Upsample": _upsample,
    "Concat": _concat,
    "SpikeDetect": _detect,
}
