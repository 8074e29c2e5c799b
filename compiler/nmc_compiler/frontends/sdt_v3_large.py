"""Spike-Driven Transformer V3 large (Yao et al., TPAMI 2025): family ``sdt_v3_large``. Codes 0..4, half up."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import axis, count_blocks
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.metaformer import STEM, Meta, configure_meta, down, mlp
from nmc_compiler.graph import Attr, Graph

KNOWN = (
    STEM,
    "ConvBlock1_1.0.conv1.0.0.weight",
    "block3.0.attn.q_conv.0.conv1.0.weight",
    "head.weight",
)


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN)


class _Builder(Meta):
    layer_scale = True

    def spike(self, x: str, name: str, layout: str = "CHW") -> str:
        return self.multilevel(x, name, self.config.number("norm"), layout, "half_up")

    def attention_spike(self, x: str, name: str) -> str:
        return self.spike(x, name, "CN")


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes and keys tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", T=1, D=4)
    config = config.with_defaults(config.get("D").evidence, norm=config.integer("D"))
    config = config.with_defaults("family", attn_scale=0.125)
    config = configure_meta(tensors, config, ("1_2", "2", "3"))
    config = config.agree("nb_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config.has("choice")
    if "block3.0.rep_conv.conv1.0.weight" in tensors:
        raise FrontendError(
            "the checkpoint is one of spikformer12_512 (its blocks have a rep_conv), whose published forward stops "
            "with a NameError: nobody can say what its spikes are. spikformer12_768 compiles"
        )
    return config.agree("kd", "head_kd.weight" in tensors, "the presence of head_kd.weight")


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.6) and notes."""
    config = configure(tensors, config)
    b = _Builder("sdt_v3_large", tensors, config, config.integer("T"), input_time=config.flag("input_time"))
    x = down(b, b.image(), "downsample1_1", 2, first=True)
    for before, stage in ((None, "ConvBlock1_1"), ("downsample1_2", "ConvBlock1_2"), ("downsample2", "ConvBlock2_1"),
                          (None, "ConvBlock2_2")):  # fmt: skip
        x = x if before is None else down(b, x, before, 2)
        for i in range(count_blocks(tensors, stage)):
            x = _conv_block(b, x, f"{stage}.{i}")
    x = down(b, x, "downsample3", 2)
    scale = float(config.number("attn_scale").value)  # type: ignore[arg-type]
    for i in range(count_blocks(tensors, "block3")):
        p = f"block3.{i}"
        x = b.residual(x, _attention(b, x, f"{p}.attn", scale), f"{p}.layer_scale1")
        x = b.residual(x, mlp(b, x, f"{p}.mlp"), f"{p}.layer_scale2")
    _heads(b, x)
    return b.finish({})


def _conv_block(b: Meta, x: str, p: str) -> str:
    """MS_ConvBlock: x + two 3x3 convolutions with bias, each with a spike before and a batch norm behind."""
    h = b.conv_bn(b.spike(x, f"{p}.neuron1"), f"{p}.conv1.0.0", f"{p}.conv1.0.1", bias=True, pad=1)
    s = b.spike(h, f"{p}.neuron2")
    return b.add(x, b.conv_bn(s, f"{p}.conv2.0.0", f"{p}.conv2.0.1", bias=True, pad=1, out=b.width(x)))


def _rep_conv(b: Meta, x: str, p: str, out: int) -> str:
    """Two pointwise convolutions with a batch norm each and no spikes between; then the batch norm outside."""
    h = b.conv_bn(x, f"{p}.0.conv1.0", f"{p}.0.conv1.1")
    h = b.conv_bn(h, f"{p}.0.conv2.0", f"{p}.0.conv2.1", out=out)
    return b.norm(h, f"{p}.1")


def _attention(b: Meta, x: str, p: str, scale: float) -> str:
    """A3 with multi-level spikes; v may be sr_ratio times as wide as q and k."""
    heads, channels = b.heads(x), b.width(x)
    wide = axis(b.state, f"{p}.v_conv.0.conv2.0.weight", 0, 3)
    if wide % channels:
        raise FrontendError(f"v of {p} has {wide} channels, which is no multiple of the {channels} of q and k")
    s = b.spike(x, f"{p}.head_lif", "CN")
    widths = {"q": channels, "k": channels, "v": wide}
    currents = {n: _rep_conv(b, s, f"{p}.{n}_conv", out) for n, out in widths.items()}
    q, k, v = (b.spike(current, f"{p}.{n}_lif", "CN") for n, current in currents.items())
    product = b.graph.add("attn", q, k, v, heads=heads, scale=Attr(scale, "family"))
    return _rep_conv(b, b.attention_spike(product, f"{p}.attn_lif"), f"{p}.proj_conv", channels)


def _heads(b: Meta, x: str) -> None:
    """``head`` reads the mean over tokens itself, ``head_kd`` its spikes; with both, their mean is the result."""
    mean = b.mean_positions(x)
    s = b.multilevel(mean, "lif", Attr(1, "family"), "C", "half_up")
    total = b.conv(mean, "head", bias=True)
    if b.config.flag("kd"):
        total = b.graph.add("scale", b.add(total, b.conv(s, "head_kd", bias=True)), factor=Attr(0.5, "family"))
    b.graph.add("readout", total, name="head")
