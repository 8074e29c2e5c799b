"""Spike-Driven Transformer V1 (Yao et al., NeurIPS 2023): family ``sdt_v1``."""

from __future__ import annotations

import reprlib

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.blocks import check_heads, membrane_mlp
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

DEAD = {
    "attn.talking_heads.weight": "defined by the authors' class, never used in forward",
    ".attn_lif.w": "attn_lif is never used in forward",
    "patch_embed.rpe_lif.w": "rpe_lif is never used in forward",
}
ERODED = ("cifar10-dvs", "cifar10-dvs-tet")  # names of data sets for which the authors' script sets dvs_mode
EVENTS = (*ERODED, "gesture")
KNOWN = (
    "patch_embed.proj_conv.weight",
    "block.0.attn.q_conv.weight",
    "block.0.mlp.fc1_conv.weight",
    "head.weight",
)


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other): Spikformer's have a Conv1d for q."""
    return all(k in tensors for k in KNOWN) and tensors[KNOWN[1]].ndim == 4


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5)
    config = config.agree("embed_dims", axis(tensors, "head.weight", 1, 2), "head.weight")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config = config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])
    config = config.agree("depths", count_blocks(tensors, "block"), "the block.N keys")
    hidden, width = axis(tensors, KNOWN[2], 0, 4), axis(tensors, KNOWN[2], 1, 4)
    config = config.agree("mlp_ratios", ratio(hidden, width), KNOWN[2])
    learned = "patch_embed.proj_lif.w" in tensors
    config = config.agree("spike_mode", "plif" if learned else "lif", "the presence of *_lif.w")
    dataset = config.value("dataset") if config.has("dataset") else None
    config = config.with_defaults("family", dvs_mode=dataset in ERODED)
    return config.with_defaults("family", input_time=config.flag("dvs_mode") or dataset in EVENTS)


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.1) and notes on dead tensors."""
    config = configure(tensors, config)
    timesteps, heads = config.integer("T"), config.integer("num_heads")
    b = FamilyBuilder(
        "sdt_v1",
        tensors,
        config,
        timesteps,
        input_time=config.flag("input_time"),
    )
    x = _stem(b, b.image())
    for i in range(config.integer("depths")):
        x = _block(b, x, f"block.{i}", heads)
    s = b.lif(b.mean_positions(x), "head_lif", layout="C")
    b.graph.add("readout", b.conv(s, "head", bias=True), name="head")
    graph, notes = b.finish(DEAD)
    if config.flag("TET"):
        notes.append("TET: logits are averaged over timesteps, as the authors' evaluation does")
    return graph, notes


def _pooling(config: ModelConfig) -> str:
    pooling = str(config.value("pooling_stat"))
    if len(pooling) != 4 or set(pooling) - {"0", "1"}:
        raise FrontendError(
            f'pooling_stat must be four digits 0 or 1 in quotes, such as "0011", got {reprlib.repr(pooling)} '
            f"({config.source})"
        )
    return pooling


def _stem(b: FamilyBuilder, x: str) -> str:
    pooling = _pooling(b.config)
    for i, stage in enumerate(("", "1", "2")):
        x = b.conv_bn(x, f"patch_embed.proj_conv{stage}", f"patch_embed.proj_bn{stage}", pad=1)
        x = b.lif(x, f"patch_embed.proj_lif{stage}")
        x = b.maxpool(x) if pooling[i] == "1" else x
    width = b.config.integer("embed_dims")
    x = b.conv_bn(x, "patch_embed.proj_conv3", "patch_embed.proj_bn3", pad=1, out=width)
    x = b.maxpool(x) if pooling[3] == "1" else x
    s = b.lif(x, "patch_embed.proj_lif3")
    return b.graph.add("add", x, b.conv_bn(s, "patch_embed.rpe_conv", "patch_embed.rpe_bn", pad=1, out=width))


def _block(b: FamilyBuilder, x: str, p: str, heads: int) -> str:
    x = b.graph.add("add", x, _attention(b, x, f"{p}.attn", heads))
    return membrane_mlp(b, x, f"{p}.mlp", "fc", inner=True)


def _attention(b: FamilyBuilder, x: str, p: str, heads: int) -> str:
    """SDSA-1: mask = LIF_1/2(sum over tokens of k*v); o = q*mask."""
    if f"{p}.talking_heads.weight" in b.state:
        b.config.agree("num_heads", axis(b.state, f"{p}.talking_heads.weight", 0, 3), f"{p}.talking_heads.weight")
    channels = b.graph.nodes[x].type.shape[0]
    check_heads(Attr(heads, "config"), channels, p)
    s = b.lif(x, f"{p}.shortcut_lif")
    q, k, v = (b.lif(b.conv_bn(s, f"{p}.{n}_conv", f"{p}.{n}_bn", out=channels), f"{p}.{n}_lif") for n in "qkv")
    erode = b.config.flag("dvs_mode")
    if erode:
        k, v = _erode(b, k), _erode(b, v)
    both = b.graph.add("mul", k, v, name=f"{p}.kv")
    counts = b.graph.add("map", _erode(b, both, heads) if erode else both, mode="reduce")
    mask = b.lif(counts, f"{p}.talking_heads_lif", "attn_threshold", "heads", heads)
    masked = b.graph.add("mul", q, mask, name=f"{p}.qkv")
    masked = _erode(b, masked, heads) if erode else masked
    return b.conv_bn(masked, f"{p}.proj_conv", f"{p}.proj_bn", bias=True, out=channels)


def _erode(b: FamilyBuilder, x: str, heads: int = 0) -> str:
    """Max over 3x3 neighbours: in the image, or with ``heads`` among the channels of a head and the tokens in a row."""
    shape = b.shape(x)
    view = (heads, shape[0] // heads, shape[1] * shape[2]) if heads else shape
    x = b.graph.add("reshape", x, shape=Attr(view, "family")) if heads else x
    once = Attr((1, 1), "family")
    x = b.graph.add("maxpool2d", x, kernel=Attr((3, 3), "family"), stride=once, pad=once)
    return b.graph.add("reshape", x, shape=Attr(shape, "family")) if heads else x
