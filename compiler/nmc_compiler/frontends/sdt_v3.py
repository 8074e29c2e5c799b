"""Spike-Driven Transformer V3 base (E-SpikeFormer): family ``sdt_v3``. Integer training, codes 0..D.

The form with timesteps (T > 1) is that of SDTrack's networks: its norms are modules of their own beside the
convolutions (``pwconv1``, ``bn1``, ...), and its neurons have a state: I-LIF, or LIF where D = 1.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio, record
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

KNOWN = (
    "downsample1_1.encode_conv.weight",
    "ConvBlock1_1.0.Conv.pwconv1.0.weight",
    "block3.0.attn.q_conv.0.weight",
    "head.weight",
)
FC1 = "block3.0.mlp.fc1_conv.weight"
TIMED = "block3.0.attn.q_BN.weight"  # in the form with timesteps
TIMED_KNOWN = (KNOWN[0], "ConvBlock1_1.0.Conv.bn3.weight", TIMED, "head.weight")
PROJECTIONS = ("q", "k", "v", "proj")
DECAY = 0.25  # what an I-LIF keeps of a timestep


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN) or all(k in tensors for k in TIMED_KNOWN)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = with_levels(config, TIMED in tensors)
    dims = tuple(axis(tensors, f"downsample{s}.encode_conv.weight", 0, 4) for s in ("1_2", "2", "3", "4"))
    config = config.agree("embed_dim", dims, "the downsample*.encode_conv shapes")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config = config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])
    hidden, width = axis(tensors, FC1, 0, 3), axis(tensors, FC1, 1, 3)
    config = config.agree("mlp_ratios", ratio(hidden, width), FC1)
    if config.integer("T") != 1 and TIMED not in tensors:
        raise FrontendError(f"config says T = {config.value('T')}; the sdt_v3 base model has no time axis (T = 1)")
    return config


def with_levels(config: ModelConfig, timed: bool) -> ModelConfig:
    """T and D: constants of the form without timesteps, asked for where it has some. A code is divided by D."""
    if not timed:
        return config.with_defaults("family", T=1, D=4, norm=4)
    return config.with_defaults(config.get("D").evidence, norm=config.integer("D"))


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.6) and notes on dead tensors."""
    config = configure(tensors, config)
    timed = TIMED in tensors
    b = FamilyBuilder(
        "sdt_v3",
        tensors,
        config,
        config.integer("T"),
        record_time=timed,
        input_time=timed and config.flag("input_time"),
    )
    shape = (config.integer("in_channels"), config.integer("img_size_h"), config.integer("img_size_w"))
    x = b.graph.add("input", id="x", shape=Attr(shape, "config"))
    x = b.conv_bn(x, "downsample1_1.encode_conv", "downsample1_1.encode_bn", bias=True, stride=2, pad=3)
    x = conv_stage(b, x, "ConvBlock1_1")
    x = conv_stage(b, down(b, x, "downsample1_2", 2), "ConvBlock1_2")
    x = conv_stage(b, down(b, x, "downsample2", 2), "ConvBlock2_1")
    x = conv_stage(b, x, "ConvBlock2_2")
    for stage, before, stride in (("block3", "downsample3", 2), ("block4", "downsample4", 1)):
        x = down(b, x, before, stride)
        for i in range(count_blocks(tensors, stage)):
            x = block(b, x, f"{stage}.{i}")
    s = spike(b, b.mean_positions(x), "spike", "C", Attr(1, "family"))
    b.graph.add("readout", b.conv(s, "head", bias=True), name="head")
    return b.finish({})


def spike(b: FamilyBuilder, x: str, name: str, layout: str = "CHW", norm: Attr | None = None) -> str:
    """MultiSpike (N4); with timesteps I-LIF (N7a), whose reset takes D times the value sent, or LIF where D = 1."""
    norm = b.config.number("norm") if norm is None else norm
    if not b.graph.flags["record_time"]:
        return b.multilevel(x, name, norm, layout)
    if b.config.integer("D") == 1:
        return b.lif(x, name, layout=layout)
    levels, step = b.config.get("D"), float(b.config.integer("D")) / float(norm.value)  # type: ignore[arg-type]
    return b.graph.add(
        "ilif", x, name=name, beta=Attr(DECAY, "family"), theta=Attr(1.0, "family"), levels=levels, norm=norm,
        step=None if step == 1 else Attr(step, "family"), rounding=Attr("half_even", "family"),
        **record(b.graph.nodes[x].type.shape, layout, 0),
    )  # fmt: skip


def down(b: FamilyBuilder, x: str, p: str, stride: int) -> str:
    s = spike(b, x, f"{p}.encode_spike")
    return b.conv_bn(s, f"{p}.encode_conv", f"{p}.encode_bn", bias=True, stride=stride, pad=1)


def _layers(b: FamilyBuilder, p: str) -> list[tuple[str, str]]:
    """Keys of the three convolutions of a SepConv and their norms."""
    names = ("pwconv1", "dwconv", "pwconv2")
    if f"{p}.bn1.weight" in b.state:
        return [(f"{p}.{name}", f"{p}.bn{n}") for n, name in enumerate(names, 1)]
    return [(f"{p}.{name}.0", f"{p}.{name}.1") for name in names]


def _sep_conv(b: FamilyBuilder, x: str, p: str) -> str:
    """SepConv_Spike: pointwise, depthwise, pointwise, a spike before each; residual outside."""
    first, depthwise, last = _layers(b, p)
    kernel = b.take(f"{depthwise[0]}.weight", (None, 1, None, None)).shape[2]
    h = b.conv_bn(spike(b, x, f"{p}.spike1"), *first)
    groups = b.graph.nodes[h].type.shape[0]
    h = b.conv_bn(spike(b, h, f"{p}.spike2"), *depthwise, pad=kernel // 2, groups=groups, out=groups)
    out = b.graph.nodes[x].type.shape[0]
    return b.graph.add("add", x, b.conv_bn(spike(b, h, f"{p}.spike3"), *last, out=out))


def conv_stage(b: FamilyBuilder, x: str, stage: str) -> str:
    for i in range(count_blocks(b.state, stage)):
        p = f"{stage}.{i}"
        x = _sep_conv(b, x, f"{p}.Conv")
        h = b.conv_bn(spike(b, x, f"{p}.spike1"), f"{p}.conv1", f"{p}.bn1", pad=1)
        out = b.graph.nodes[x].type.shape[0]
        h = b.conv_bn(spike(b, h, f"{p}.spike2"), f"{p}.conv2", f"{p}.bn2", pad=1, out=out)
        x = b.graph.add("add", x, h)
    return x


def block(b: FamilyBuilder, x: str, p: str) -> str:
    if TIMED not in b.state or f"{p}.conv.pwconv1.weight" in b.state:
        x = _sep_conv(b, x, f"{p}.conv")
    x = b.graph.add("add", x, attention(b, x, f"{p}.attn"))
    return mlp(b, x, f"{p}.mlp")


def mlp(b: FamilyBuilder, x: str, p: str) -> str:
    """x + two units of spike, pointwise convolution and batch norm."""
    h = b.conv_bn(spike(b, x, f"{p}.fc1_spike", "CN"), f"{p}.fc1_conv", f"{p}.fc1_bn", bias=True)
    s, out = spike(b, h, f"{p}.fc2_spike", "CN"), b.graph.nodes[x].type.shape[0]
    return b.graph.add("add", x, b.conv_bn(s, f"{p}.fc2_conv", f"{p}.fc2_bn", bias=True, out=out))


def attention(b: FamilyBuilder, x: str, p: str) -> str:
    """E-SDSA (A8): MS((q k^T) v * 2/sqrt(d)), v wider than q and k."""
    heads, channels = b.config.integer("num_heads"), b.graph.nodes[x].type.shape[0]
    flat = f"{p}.q_BN.weight" in b.state
    keys = {
        n: (f"{p}.{n}_conv", f"{p}.{n}_BN") if flat else (f"{p}.{n}_conv.0", f"{p}.{n}_conv.1") for n in PROJECTIONS
    }
    wide = axis(b.state, f"{keys['v'][0]}.weight", 0, 4)
    if channels % heads or wide % heads:
        raise FrontendError(f"num_heads = {heads} does not divide the {channels} and {wide} channels of {p}")
    s = spike(b, x, f"{p}.head_spike")
    q, k, v = (
        spike(b, b.conv_bn(s, *keys[n], out=out), f"{p}.{n}_spike")
        for n, out in (("q", channels), ("k", channels), ("v", wide))
    )
    scale = Attr((channels // heads) ** -0.5 * 2.0, "family")  # to the last digit, as theirs
    current = b.graph.add("attn", q, k, v, heads=Attr(heads, "config"), scale=scale)
    s = spike(b, current, f"{p}.attn_spike", "CN")
    return b.conv_bn(s, *keys["proj"], out=channels)
