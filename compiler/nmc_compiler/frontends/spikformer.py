"""Spikformer (Zhou et al., ICLR 2023), CIFAR form with Linear blocks: family ``spikformer``."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

DEAD = {
    ".norm1.weight": "LayerNorm defined by the authors' class, never used in forward",
    ".norm1.bias": "LayerNorm defined by the authors' class, never used in forward",
    ".norm2.weight": "LayerNorm defined by the authors' class, never used in forward",
    ".norm2.bias": "LayerNorm defined by the authors' class, never used in forward",
}
KNOWN = (
    "patch_embed.proj_conv.weight",
    "block.0.attn.q_linear.weight",
    "block.0.mlp.fc1_linear.weight",
    "head.weight",
)


def recognise(keys: set[str]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in keys for k in KNOWN)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5, attn_scale=0.125)
    config = config.agree("embed_dims", axis(tensors, "head.weight", 1, 2), "head.weight")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config = config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])
    hidden, width = axis(tensors, KNOWN[2], 0, 2), axis(tensors, KNOWN[2], 1, 2)
    config = config.agree("mlp_ratios", ratio(hidden, width), KNOWN[2])
    return config.agree("depths", count_blocks(tensors, "block"), "the block.N keys")


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.2) and notes on dead tensors."""
    config = configure(tensors, config)
    timesteps, heads = config.integer("T"), config.integer("num_heads")
    b = FamilyBuilder(
        "spikformer",
        tensors,
        config,
        timesteps,
        input_time=config.flag("input_time"),
    )
    shape = (config.integer("in_channels"), config.integer("img_size_h"), config.integer("img_size_w"))
    x = _stem(b, b.graph.add("input", id="x", shape=Attr(shape, "config")))
    for i in range(config.integer("depths")):
        x = b.graph.add("add", x, _attention(b, x, f"block.{i}.attn", heads))
        h = _unit(b, x, f"block.{i}.mlp.fc1", None)
        x = b.graph.add("add", x, _unit(b, h, f"block.{i}.mlp.fc2", config.integer("embed_dims")))
    _head(b, x)
    return b.finish(DEAD)


def _head(b: FamilyBuilder, x: str) -> None:
    """Linear on the mean over tokens of integer codes: the 1/N goes behind the (linear) product."""
    _, h, w = b.graph.nodes[x].type.shape
    current = b.graph.add(
        "scale", b.conv(b.graph.add("sum_positions", x), "head"), factor=Attr(1.0 / (h * w), "family")
    )
    b.graph.add("readout", current, name="head", bias=b.bias_ref("head", b.config.integer("num_classes")))


def _stem(b: FamilyBuilder, x: str) -> str:
    """Spiking patch splitting; pools on spikes after stages 2 and 3 (the CIFAR file)."""
    width = b.config.integer("embed_dims")
    for stage in ("", "1", "2", "3"):
        out = width if stage == "3" else None
        x = b.conv_bn(x, f"patch_embed.proj_conv{stage}", f"patch_embed.proj_bn{stage}", pad=1, out=out)
        x = b.lif(x, f"patch_embed.proj_lif{stage}")
        x = b.maxpool(x) if stage in ("2", "3") else x
    current = b.conv_bn(x, "patch_embed.rpe_conv", "patch_embed.rpe_bn", pad=1, out=width)
    return b.graph.add("add", x, b.lif(current, "patch_embed.rpe_lif"))


def _unit(b: FamilyBuilder, x: str, p: str, out: int | None) -> str:
    """Linear (bias) -> BN1d -> LIF over tokens; recorded as [N, C]."""
    return b.lif(b.conv_bn(x, f"{p}_linear", f"{p}_bn", bias=True, out=out), f"{p}_lif", layout="NC")


def _attention(b: FamilyBuilder, x: str, p: str, heads: int) -> str:
    """SSA (A7): LIF_1/2(0.125 * (q k^T) v), then a unit."""
    channels = b.graph.nodes[x].type.shape[0]
    if channels % heads:
        raise FrontendError(f"num_heads = {heads} does not divide embed_dims = {channels}")
    q, k, v = (_unit(b, x, f"{p}.{n}", channels) for n in "qkv")
    scale = b.config.number("attn_scale")
    current = b.graph.add("attn", q, k, v, heads=Attr(heads, "config"), scale=scale)
    return _unit(b, b.lif(current, f"{p}.attn_lif", "attn_threshold", "NC"), f"{p}.proj", channels)
