"""Spikingformer (Zhou et al., 2023): family ``spikingformer``; its CIFAR, ImageNet and event (DVS) forms."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.blocks import membrane_mlp, projected, self_attention
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.spikformer import NORMS
from nmc_compiler.graph import Graph

KNOWN = ("block.0.attn.q_conv.weight", "block.0.mlp.mlp1_conv.weight", "head.weight")
CIFAR = "patch_embed.block0_conv.weight"  # the other forms call it proj_conv
EVENT_TAU = 1.5  # of every LIF of the DVS files


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN) and _stem(tensors) in tensors


def _stem(tensors: dict[str, np.ndarray]) -> str:
    return CIFAR if CIFAR in tensors else "patch_embed.proj_conv.weight"


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    first = _stem(tensors)
    config = config.agree("in_channels", axis(tensors, first, 1, 4), first)
    config = config.agree("embed_dims", axis(tensors, "head.weight", 1, 2), "head.weight")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    hidden, width = axis(tensors, KNOWN[1], 0, 4), axis(tensors, KNOWN[1], 1, 4)
    config = config.agree("mlp_ratios", ratio(hidden, width), KNOWN[1])
    config = config.agree("depths", count_blocks(tensors, "block"), "the block.N keys")
    if first != CIFAR and config.value("in_channels") == 2 and not config.has("input_time"):
        raise FrontendError(
            "the ImageNet and the DVS form of spikingformer have the same tensors; say 'input_time: true' in the "
            "config for images with a time axis (tau 1.5), 'input_time: false' for still images of 2 channels (tau 2)"
        )
    tau = EVENT_TAU if first != CIFAR and config.flag("input_time") else 2.0
    return config.with_defaults("family", tau=tau, v_threshold=1.0, attn_threshold=0.5, attn_scale=0.125)


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.3) and notes on dead tensors."""
    config = configure(tensors, config)
    flags = {"input_time": config.flag("input_time")}
    b = FamilyBuilder("spikingformer", tensors, config, config.integer("T"), **flags)
    x = _tokenizer(b, b.image(), cifar=CIFAR in tensors)
    for i in range(config.integer("depths")):
        p = f"block.{i}"
        attended = self_attention(b, b.lif(x, f"{p}.attn.proj_lif"), f"{p}.attn", b.num_heads(), "CN")
        x = b.graph.add("add", x, projected(b, attended, f"{p}.attn"))
        x = membrane_mlp(b, x, f"{p}.mlp", "mlp", inner=False)
    b.mean_head(x)
    return b.finish(NORMS)


def _tokenizer(b: FamilyBuilder, x: str, cifar: bool) -> str:
    """LIF - conv - BN, four times behind a first conv - BN; spikes are pooled before the convolutions, in the CIFAR
    form before the last two only."""
    stages = [f"block{n}" for n in range(5)] if cifar else ["proj", "proj1", "proj2", "proj3", "proj4"]
    x = b.conv_bn(x, f"patch_embed.{stages[0]}_conv", f"patch_embed.{stages[0]}_bn", pad=1)
    for n, stage in enumerate(stages[1:], 1):
        s = b.lif(x, f"patch_embed.{stage}_lif")
        s = s if cifar and n < 3 else b.maxpool(s)
        out = b.config.integer("embed_dims") if n == 4 else None
        x = b.conv_bn(s, f"patch_embed.{stage}_conv", f"patch_embed.{stage}_bn", pad=1, out=out)
    return x
