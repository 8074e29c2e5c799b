"""Spikformer (Zhou et al., ICLR 2023): family ``spikformer``; its CIFAR, ImageNet and event (DVS) forms."""

from __future__ import annotations

import numpy as np

from nmc_compiler.frontends.blocks import self_attention, spike_mlp, spikes
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Graph

_NEVER = "LayerNorm defined by the authors' class, never used in forward"
NORMS = {f".{norm}.{part}": _NEVER for norm in ("norm1", "norm2") for part in ("weight", "bias")}
DEAD = {
    **NORMS,
    "norm.weight": _NEVER,
    "norm.bias": _NEVER,
    "pos_embed": "defined by the authors' class, never used in forward",
}
STEM, HEAD = "patch_embed.proj_conv.weight", "head.weight"
KNOWN = (STEM, "block.0.attn.q_linear.weight", "block.0.mlp.fc1_linear.weight", HEAD)
LMUFORMER = "block.0.attn.pre_bn.weight"  # of its model with attention
CONVS = (STEM, "block.0.attn.q_conv.weight", "block.0.mlp.fc1_conv.weight", HEAD)


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other).

    The ImageNet and DVS forms have keys that the Spike-Driven Transformer V1 has too, where q is no Conv1d.
    """
    if all(k in tensors for k in KNOWN):
        return True
    return all(k in tensors for k in CONVS) and tensors[CONVS[1]].ndim == 3 and LMUFORMER not in tensors


def form_of(tensors: dict[str, np.ndarray]) -> str:
    """The file of the authors that the tensors are from: the DVS form has an MLP of Conv1d."""
    if any("_linear." in key for key in tensors):
        return "cifar"
    return "dvs" if getattr(tensors.get(CONVS[2]), "ndim", 4) == 3 else "imagenet"


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    form = form_of(tensors)
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5)
    config = config.with_defaults("family", attn_scale=0.25 if form == "dvs" else 0.125)
    if form == "imagenet":
        config = config.with_defaults("family", T=4)  # a constant of that file
    config = config.with_defaults("family", input_time=form == "dvs")
    config = config.agree("embed_dims", axis(tensors, HEAD, 1, 2), HEAD)
    config = config.agree("num_classes", axis(tensors, HEAD, 0, 2), HEAD)
    config = config.agree("in_channels", axis(tensors, STEM, 1, 4), STEM)
    fc1, rank = {"cifar": (KNOWN[2], 2), "imagenet": (CONVS[2], 4), "dvs": (CONVS[2], 3)}[form]
    hidden, width = axis(tensors, fc1, 0, rank), axis(tensors, fc1, 1, rank)
    config = config.agree("mlp_ratios", ratio(hidden, width), fc1)
    return config.agree("depths", count_blocks(tensors, "block"), "the block.N keys")


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.2) and notes on dead tensors."""
    config, form = configure(tensors, config), form_of(tensors)
    flags = {"input_time": config.flag("input_time")}
    b = FamilyBuilder("spikformer", tensors, config, config.integer("T"), **flags)
    kind = "linear" if form == "cifar" else "conv"
    tokens = {"cifar": "NC", "imagenet": "CN", "dvs": "CN"}[form]  # as the authors lay out what attention gives
    grid = {"cifar": "NC", "imagenet": "CHW", "dvs": "CN"}[form]  # and what the MLP gives
    x = _stem(b, b.image(), pooled=("2", "3") if form == "cifar" else ("", "1", "2", "3"))
    for i in range(config.integer("depths")):
        p, width = f"block.{i}", b.shape(x)[0]
        attended = self_attention(b, x, f"{p}.attn", b.num_heads(), tokens, kind)
        x = b.graph.add("add", x, spikes(b, attended, f"{p}.attn.proj", grid, kind, bias=True, out=width))
        x = spike_mlp(b, x, f"{p}.mlp", "fc", grid, kind)
    b.mean_head(x)
    return b.finish(DEAD)


def _stem(b: FamilyBuilder, x: str, pooled: tuple[str, ...]) -> str:
    """Spiking patch splitting; spikes are pooled after the stages named."""
    width = b.config.integer("embed_dims")
    for stage in ("", "1", "2", "3"):
        out = width if stage == "3" else None
        x = b.conv_bn(x, f"patch_embed.proj_conv{stage}", f"patch_embed.proj_bn{stage}", pad=1, out=out)
        x = b.lif(x, f"patch_embed.proj_lif{stage}")
        x = b.maxpool(x) if stage in pooled else x
    current = b.conv_bn(x, "patch_embed.rpe_conv", "patch_embed.rpe_bn", pad=1, out=width)
    return b.graph.add("add", x, b.lif(current, "patch_embed.rpe_lif"))
