"""MaxFormer and MS-QKFormer (Fang et al., NeurIPS 2025): family ``maxformer``; CIFAR, ImageNet and event forms.

Embeddings and blocks are told apart by their tensors, so that any mix of the authors' parts is read.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.blocks import membrane_mlp, projected, self_attention, token_attention
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.embeddings import embedding
from nmc_compiler.graph import Attr, Graph

FC1, HEAD = "stage1.0.mlp.fc1_conv.weight", "head.weight"
KNOWN = (FC1, "stage2.0.attn.q_conv.weight", HEAD)
STEMS = ("patch_embed1.proj_conv.weight", "patch_embed1.embed1.embed_conv.weight")
MIXERS = ("mixer.conv", "mixer.conv5")
IMAGENET = ("patch_embed1.embed4.embed_conv.weight", "patch_embed1.proj_conv1.weight")


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    mixes = any(k.startswith("stage2.0.mixer.") for k in tensors) or KNOWN[1] in tensors
    return FC1 in tensors and HEAD in tensors and _stem(tensors) in tensors and mixes and not _is_qkformer(tensors)


def _is_qkformer(tensors: dict[str, np.ndarray]) -> bool:
    return "stage1.0.tssa.q_conv.weight" in tensors


def _stem(tensors: dict[str, np.ndarray]) -> str:
    return next((k for k in STEMS if k in tensors), STEMS[0])


def _stages(tensors: dict[str, np.ndarray]) -> list[int]:
    return [n for n in (1, 2, 3) if f"stage{n}.0.mlp.fc1_conv.weight" in tensors]


def _heads(tensors: dict[str, np.ndarray], width: int) -> int:
    """Heads of every attention: a constant of each of the authors' files."""
    if any(key in tensors for key in IMAGENET):
        return width // 64
    return 8 if 3 in _stages(tensors) else 16


def _image_size(tensors: dict[str, np.ndarray], config: ModelConfig) -> dict[str, int]:
    """The size that the authors' file is for, where the config has none: their constructor takes no size."""
    if config.has("img_size_h") or config.has("img_size_w"):
        return {}
    side = 224 if any(key in tensors for key in IMAGENET) else 32 if 3 in _stages(tensors) else 128
    return {"img_size_h": side, "img_size_w": side}


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5, attn_scale=0.125)
    config = config.with_defaults("family", input_time=3 not in _stages(tensors))
    config = config.with_defaults("family", **_image_size(tensors, config))
    width = axis(tensors, HEAD, 1, 2)
    config = config.agree("embed_dims", width, HEAD)
    config = config.agree("num_classes", axis(tensors, HEAD, 0, 2), HEAD)
    config = config.agree("in_channels", axis(tensors, _stem(tensors), 1, 4), _stem(tensors))
    hidden, wide = axis(tensors, FC1, 0, 4), axis(tensors, FC1, 1, 4)
    return config.agree("mlp_ratios", ratio(hidden, wide), FC1)


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.10) and notes on dead tensors."""
    config = configure(tensors, config)
    flags = {"input_time": config.flag("input_time")}
    b = FamilyBuilder("maxformer", tensors, config, config.integer("T"), **flags)
    x = b.image()
    for n in _stages(tensors):
        x = embedding(b, x, f"patch_embed{n}")
        for i in range(count_blocks(tensors, f"stage{n}")):
            x = membrane_mlp(b, _mixed(b, x, f"stage{n}.{i}"), f"stage{n}.{i}.mlp", "fc", inner=True)
    s = b.lif(b.mean_positions(x), "head_lif", layout="C")
    b.graph.add("readout", b.conv(s, "head", bias=True), name="head")
    graph, notes = b.finish({})
    if config.get("img_size_h").evidence == "family":
        side = config.value("img_size_h")
        notes.append(f"images are taken to be {side}x{side}, as the authors' file has them; say img_size if not")
    return graph, notes


def _mixed(b: FamilyBuilder, x: str, p: str) -> str:
    """x + mixer, of the kind that the block's tensors name; a block without a mixer's tensors has none (identity)."""
    if f"{p}.attn.q_conv.weight" in b.state:
        return b.graph.add("add", x, _attention(b, x, f"{p}.attn"))
    for name in MIXERS:
        if f"{p}.{name}.weight" in b.state:
            return b.graph.add("add", x, _depthwise(b, x, f"{p}.{name}", f"{p}.{name}_neuron"))
    return x


def _attention(b: FamilyBuilder, x: str, p: str) -> str:
    """SSA (with a depthwise convolution of its spikes behind, where there is one) or token-QKA, on LIF x."""
    heads = Attr(_heads(b.state, b.config.integer("embed_dims")), "family")
    if f"{p}.v_conv.weight" not in b.state:
        return projected(b, token_attention(b, b.lif(x, f"{p}.proj_lif"), p, heads), p)
    y = projected(b, self_attention(b, b.lif(x, f"{p}.x_lif"), p, heads, "CN"), p)
    return _depthwise(b, y, f"{p}.dwc", f"{p}.dwc_neuron") if f"{p}.dwc.weight" in b.state else y


def _depthwise(b: FamilyBuilder, x: str, p: str, neuron: str) -> str:
    """BN(depthwise conv(LIF x)), a bias in the convolution."""
    width, kernel = b.shape(x)[0], axis(b.state, f"{p}.weight", 2, 4)
    if kernel % 2 == 0:
        raise FrontendError(f"tensor '{p}.weight' is a {kernel}x{kernel} kernel; mixers have odd ones")
    return b.conv_bn(b.lif(x, neuron), p, f"{p}_bn", bias=True, pad=kernel // 2, groups=width, out=width)
