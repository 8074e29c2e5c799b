"""Spike-Driven Transformer V3 base (E-SpikeFormer): family ``sdt_v3``. Integer training, codes 0..D."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

KNOWN = (
    "downsample1_1.encode_conv.weight",
    "ConvBlock1_1.0.Conv.pwconv1.0.weight",
    "block3.0.attn.q_conv.0.weight",
    "head.weight",
)
FC1 = "block3.0.mlp.fc1_conv.weight"


def recognise(keys: set[str]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in keys for k in KNOWN)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", T=1, D=4, norm=4)
    dims = tuple(axis(tensors, f"downsample{s}.encode_conv.weight", 0, 4) for s in ("1_2", "2", "3", "4"))
    config = config.agree("embed_dim", dims, "the downsample*.encode_conv shapes")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config = config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])
    hidden, width = axis(tensors, FC1, 0, 3), axis(tensors, FC1, 1, 3)
    config = config.agree("mlp_ratios", ratio(hidden, width), FC1)
    if config.integer("T") != 1:
        raise FrontendError(f"config says T = {config.value('T')}; the sdt_v3 base model has no time axis (T = 1)")
    return config


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.6) and notes on dead tensors."""
    config = configure(tensors, config)
    b = FamilyBuilder("sdt_v3", tensors, config, 1, record_time=False)
    shape = (config.integer("in_channels"), config.integer("img_size_h"), config.integer("img_size_w"))
    x = b.graph.add("input", id="x", shape=Attr(shape, "config"))
    x = b.conv_bn(x, "downsample1_1.encode_conv", "downsample1_1.encode_bn", bias=True, stride=2, pad=3)
    x = _conv_stage(b, x, "ConvBlock1_1")
    x = _conv_stage(b, _down(b, x, "downsample1_2", 2), "ConvBlock1_2")
    x = _conv_stage(b, _down(b, x, "downsample2", 2), "ConvBlock2_1")
    x = _conv_stage(b, x, "ConvBlock2_2")
    for stage, down, stride in (("block3", "downsample3", 2), ("block4", "downsample4", 1)):
        x = _down(b, x, down, stride)
        for i in range(count_blocks(tensors, stage)):
            x = _block(b, x, f"{stage}.{i}")
    s = b.multilevel(b.mean_positions(x), "spike", Attr(1, "family"), "C")
    b.graph.add("readout", b.conv(s, "head", bias=True), name="head")
    return b.finish({})


def _spike(b: FamilyBuilder, x: str, name: str, layout: str = "CHW") -> str:
    return b.multilevel(x, name, b.config.number("norm"), layout)


def _down(b: FamilyBuilder, x: str, p: str, stride: int) -> str:
    s = _spike(b, x, f"{p}.encode_spike")
    return b.conv_bn(s, f"{p}.encode_conv", f"{p}.encode_bn", bias=True, stride=stride, pad=1)


def _sep_conv(b: FamilyBuilder, x: str, p: str) -> str:
    """SepConv_Spike: pointwise, depthwise, pointwise, a spike before each; residual outside."""
    kernel = b.take(f"{p}.dwconv.0.weight", (None, 1, None, None)).shape[2]
    h = b.conv_bn(_spike(b, x, f"{p}.spike1"), f"{p}.pwconv1.0", f"{p}.pwconv1.1")
    groups = b.graph.nodes[h].type.shape[0]
    h = b.conv_bn(
        _spike(b, h, f"{p}.spike2"), f"{p}.dwconv.0", f"{p}.dwconv.1", pad=kernel // 2, groups=groups, out=groups
    )
    out = b.graph.nodes[x].type.shape[0]
    h = b.conv_bn(_spike(b, h, f"{p}.spike3"), f"{p}.pwconv2.0", f"{p}.pwconv2.1", out=out)
    return b.graph.add("add", x, h)


def _conv_stage(b: FamilyBuilder, x: str, stage: str) -> str:
    for i in range(count_blocks(b.state, stage)):
        p = f"{stage}.{i}"
        x = _sep_conv(b, x, f"{p}.Conv")
        h = b.conv_bn(_spike(b, x, f"{p}.spike1"), f"{p}.conv1", f"{p}.bn1", pad=1)
        out = b.graph.nodes[x].type.shape[0]
        h = b.conv_bn(_spike(b, h, f"{p}.spike2"), f"{p}.conv2", f"{p}.bn2", pad=1, out=out)
        x = b.graph.add("add", x, h)
    return x


def _block(b: FamilyBuilder, x: str, p: str) -> str:
    x = _sep_conv(b, x, f"{p}.conv")
    x = b.graph.add("add", x, _attention(b, x, f"{p}.attn"))
    h = b.conv_bn(_spike(b, x, f"{p}.mlp.fc1_spike", "CN"), f"{p}.mlp.fc1_conv", f"{p}.mlp.fc1_bn", bias=True)
    s, out = _spike(b, h, f"{p}.mlp.fc2_spike", "CN"), b.graph.nodes[x].type.shape[0]
    h = b.conv_bn(s, f"{p}.mlp.fc2_conv", f"{p}.mlp.fc2_bn", bias=True, out=out)
    return b.graph.add("add", x, h)


def _attention(b: FamilyBuilder, x: str, p: str) -> str:
    """E-SDSA (A8): MS((q k^T) v * 2/sqrt(d)), v wider than q and k."""
    heads, channels = b.config.integer("num_heads"), b.graph.nodes[x].type.shape[0]
    wide = axis(b.state, f"{p}.v_conv.0.weight", 0, 4)
    if channels % heads or wide % heads:
        raise FrontendError(f"num_heads = {heads} does not divide the {channels} and {wide} channels of {p}")
    s = _spike(b, x, f"{p}.head_spike")
    q, k, v = (
        _spike(b, b.conv_bn(s, f"{p}.{n}_conv.0", f"{p}.{n}_conv.1", out=out), f"{p}.{n}_spike")
        for n, out in (("q", channels), ("k", channels), ("v", wide))
    )
    scale = Attr(2.0 / math.sqrt(channels // heads), "family")
    current = b.graph.add("attn", q, k, v, heads=Attr(heads, "config"), scale=scale)
    s = _spike(b, current, f"{p}.attn_spike", "CN")
    return b.conv_bn(s, f"{p}.proj_conv.0", f"{p}.proj_conv.1", out=channels)
