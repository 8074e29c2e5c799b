"""QKFormer (Zhou et al., NeurIPS 2024): family ``qkformer``; its CIFAR, ImageNet and event (DVS) forms."""

from __future__ import annotations

import re

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.blocks import self_attention, spike_mlp, spikes, token_attention
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

STEM, HEAD, TOKEN = "patch_embed1.proj_conv.weight", "head.weight", "stage1.0.tssa.q_conv.weight"
KNOWN = (STEM, TOKEN, "patch_embed2.proj4_conv.weight", HEAD)
HEADS = {"cifar": 8, "dvs": 16}  # what these files use, whatever their num_heads argument says
BATCH_NOTE = (
    "the authors' {0} runs over timesteps and images of a batch as one sequence (its input has lost the time axis): "
    "spikes recorded in batches of more than one image differ; this network is theirs at batch 1"
)


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN)


def form_of(tensors: dict[str, np.ndarray]) -> str:
    """The file of the authors that the tensors are from, by the number of convolutions of the first embedding."""
    if "patch_embed1.proj3_conv.weight" in tensors:
        return "dvs"
    return "imagenet" if "patch_embed1.proj2_conv.weight" in tensors else "cifar"


def _fc(tensors: dict[str, np.ndarray]) -> str:
    return "fc" if "stage1.0.mlp.fc1_conv.weight" in tensors else "mlp"


def _stages(tensors: dict[str, np.ndarray]) -> list[int]:
    """Numbers of the stages."""
    found = sorted({int(name[1]) for name in map(re.compile(r"stage([0-9])\.").match, tensors) if name})
    if found not in ([1, 2], [1, 2, 3]):
        raise FrontendError(f"checkpoint has the stages {found}; a qkformer has stages 1 and 2, or 1 to 3")
    return found


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    form, fc1 = form_of(tensors), f"stage1.0.mlp.{_fc(tensors)}1_conv.weight"
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5, attn_scale=0.125)
    config = config.with_defaults("family", input_time=form == "dvs")
    config = config.agree("embed_dims", axis(tensors, HEAD, 1, 2), HEAD)
    config = config.agree("num_classes", axis(tensors, HEAD, 0, 2), HEAD)
    config = config.agree("in_channels", axis(tensors, STEM, 1, 4), STEM)
    hidden, width = axis(tensors, fc1, 0, 4), axis(tensors, fc1, 1, 4)
    config = config.agree("mlp_ratios", ratio(hidden, width), fc1)
    if form != "dvs":  # whose depths argument builds nothing
        blocks = sum(count_blocks(tensors, f"stage{n}") for n in _stages(tensors))
        config = config.agree("depths", blocks, "the stageN.M keys")
    sides = config.integer("img_size_h"), config.integer("img_size_w")
    if sides[0] != sides[1]:
        raise FrontendError(
            f"config says images of {sides[0]}x{sides[1]}; the authors' qkformer exchanges rows and columns behind its "
            f"attention, which only square images survive"
        )
    return config


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.4) and notes on dead tensors."""
    config, form = configure(tensors, config), form_of(tensors)
    flags = {"input_time": config.flag("input_time")}
    b = FamilyBuilder("qkformer", tensors, config, config.integer("T"), **flags)
    heads = Attr(HEADS[form], "family") if form in HEADS else b.num_heads()
    x, batched = b.image(), list[str]()
    for n in _stages(tensors):
        x = _first(b, x, form) if n == 1 else _next(b, x, f"patch_embed{n}", form)
        for i in range(count_blocks(tensors, f"stage{n}")):
            p = f"stage{n}.{i}"
            x = _attended(b, x, p, heads, batched)
            x = spike_mlp(b, x, f"{p}.mlp", _fc(tensors))
    b.mean_head(x)
    graph, notes = b.finish({})
    first = f"{batched[0]}{f' (and {len(batched) - 1} more)' if batched[1:] else ''}" if batched else ""
    return graph, [*notes, *([BATCH_NOTE.format(first)] if batched else [])]


def _attended(b: FamilyBuilder, x: str, p: str, heads: Attr, batched: list[str]) -> str:
    """x + attention, of the kind that the block's keys name."""
    name = next((k for k in ("tssa", "ssa", "attn") if f"{p}.{k}.q_conv.weight" in b.state), None)
    if name is None:
        raise FrontendError(f"checkpoint has no attention in '{p}': no tensor '{p}.tssa.q_conv.weight', nor ssa, attn")
    if name == "tssa":
        y, layout = token_attention(b, x, f"{p}.tssa", heads), "CHW"
    else:
        y, layout = self_attention(b, x, f"{p}.{name}", heads, "CN"), "CN"
        batched.append(f"{p}.{name}.proj_lif")
    return b.graph.add("add", x, spikes(b, y, f"{p}.{name}.proj", layout, bias=True, out=b.shape(x)[0]))


def _unit(b: FamilyBuilder, x: str, p: str, pool: bool = False, pad: int = 1, stride: int = 1, out=None) -> str:
    """conv -> BN -> [max-pool of the current] -> LIF."""
    y = b.conv_bn(x, f"{p}_conv", f"{p}_bn", pad=pad, stride=stride, out=out)
    return b.lif(b.maxpool(y) if pool else y, f"{p}_lif")


def _first(b: FamilyBuilder, x: str, form: str) -> str:
    """The first embedding: a chain of units, and a 1x1 convolution around its last ones."""
    p = "patch_embed1.proj"
    if form == "cifar":
        short = _unit(b, x, p)
        y, stride = _unit(b, short, f"{p}1"), 1
    elif form == "imagenet":
        short = _unit(b, x, p, pool=True)
        y, stride = _unit(b, _unit(b, short, f"{p}1", pool=True), f"{p}2"), 2
    else:
        short = _unit(b, _unit(b, x, p), f"{p}1", pool=True)
        y, stride = _unit(b, _unit(b, short, f"{p}2", pool=True), f"{p}3", pool=True), 4
    return b.graph.add("add", y, _unit(b, short, f"{p}_res", pad=0, stride=stride, out=b.shape(y)[0]))


def _next(b: FamilyBuilder, x: str, p: str, form: str) -> str:
    """A further embedding, half the size; the ImageNet form pools after its first unit, the others after its second."""
    first = f"{p}.proj" if form == "dvs" else f"{p}.proj3"
    y = _unit(b, x, first, pool=form == "imagenet")
    y = _unit(b, y, f"{p}.proj4", pool=form != "imagenet")
    return b.graph.add("add", y, _unit(b, x, f"{p}.proj_res", pad=0, stride=2, out=b.shape(y)[0]))
