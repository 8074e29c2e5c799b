"""SDTrack (Shan et al., 2025): family ``sdtrack``: V3 stages, joint attention (models.md A10), box head.

The input is one canvas, as the authors paste it: the search image at the top left, the template at the bottom right,
zeros elsewhere, ``search_size + template_size`` wide and high. After the third downsampling the tokens of both are cut
out and stand one behind the other, template first, with zeros up to a square. The outputs are the maps of the box
head before their sigmoid (or soft-argmax), which with what makes a box of them is the host's; with T timesteps of
frames they add up over time, and the host divides.
"""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import sdt_v3
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

PREFIX = "backbone."
KNOWN = tuple(
    f"{PREFIX}{key}.weight" for key in ("downsample1_1.encode_conv", "downsample4.encode_conv", "block3.0.mlp.fc1_bn")
)
FORMS = tuple(f"{PREFIX}block3.0.attn.{key}.weight" for key in ("q_conv.0", "q_BN"))  # without timesteps, with
FC1 = PREFIX + "block3.0.mlp.fc1_conv.weight"
STRIDE = 16  # pixels of a token
DEAD = dict.fromkeys(("backbone.head.weight", "backbone.head.bias"), "the classifier of the pre-training, never used")
HEADS = {"CENTER": ("ctr", "size", "offset"), "CORNER": ("tl", "br")}


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN) and any(k in tensors for k in FORMS)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    timed = FORMS[1] in tensors
    config = sdt_v3.with_levels(config, timed).with_defaults("family", search_size=256, template_size=128)
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0)
    dims = tuple(axis(tensors, f"{PREFIX}downsample{s}.encode_conv.weight", 0, 4) for s in ("1_2", "2", "3", "4"))
    config = config.agree("embed_dim", dims, "the downsample*.encode_conv shapes")
    config = config.agree("in_channels", axis(tensors, KNOWN[0], 1, 4), KNOWN[0])
    config = config.agree("mlp_ratios", ratio(axis(tensors, FC1, 0, 3), axis(tensors, FC1, 1, 3)), FC1)
    if config.integer("T") != 1 and not timed:
        raise FrontendError(
            f"config says T = {config.value('T')}; the tensors are those of a tracker without timesteps"
        )
    for key in ("search_size", "template_size"):
        if config.integer(key) % STRIDE:
            raise FrontendError(f"config says {key} = {config.value(key)}, which is no multiple of {STRIDE} pixels")
    return config


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.11) and notes."""
    config = configure(tensors, config)
    timed = FORMS[1] in tensors
    b = FamilyBuilder("sdtrack", tensors, config, config.integer("T"), record_time=timed, input_time=timed)
    search, template = (config.integer(k) // STRIDE for k in ("search_size", "template_size"))
    side = (search + template) * STRIDE
    x = b.graph.add("input", id="x", name="x", shape=Attr((config.integer("in_channels"), side, side), "config"))
    x = b.conv_bn(
        x, f"{PREFIX}downsample1_1.encode_conv", f"{PREFIX}downsample1_1.encode_bn", bias=True, stride=2, pad=3
    )
    for before, stage in ((None, "ConvBlock1_1"), ("downsample1_2", "ConvBlock1_2"), ("downsample2", "ConvBlock2_1"),
                          (None, "ConvBlock2_2")):  # fmt: skip
        x = x if before is None else sdt_v3.down(b, x, PREFIX + before, 2)
        x = sdt_v3.conv_stage(b, x, PREFIX + stage)
    x = _tokens(b, sdt_v3.down(b, x, f"{PREFIX}downsample3", 2), search, template)
    x = _blocks(b, _down_apart(b, _blocks(b, x, "block3"), search, template), "block4")
    tokens = _cut(b, x, template**2, search)
    heads = _heads(b, tokens) if any(k.startswith("box_head.") for k in tensors) else 0
    if not heads:
        b.graph.add(
            "output", b.graph.add("integrator", tokens, name="features", beta=Attr(1.0, "family")), name="features"
        )
    graph, notes = b.finish(DEAD)
    return graph, [*notes, f"input: search image and template on one canvas of {side} x {side}"]


def _blocks(b: FamilyBuilder, x: str, stage: str) -> str:
    for i in range(count_blocks(b.state, PREFIX + stage)):
        p = f"{PREFIX}{stage}.{i}"
        x = b.graph.add("add", x, sdt_v3.attention(b, x, f"{p}.attn"))
        x = sdt_v3.mlp(b, x, f"{p}.mlp")
    return x


def _moved(b: FamilyBuilder, parts: list[str], index: np.ndarray) -> str:
    """Elements [C, H, W] of the parts, one behind the other; -1 is zero."""
    key = b.graph.tensor(f"take{len(b.graph.nodes)}.index", index.reshape(-1))
    return b.graph.add("take", *parts, index=Attr(key, "family"), shape=Attr(index.shape, "family"))


def _tokens(b: FamilyBuilder, x: str, search: int, template: int) -> str:
    """Tokens of the template, of the search image, then zeros, as a square."""
    channels, height, width = b.graph.nodes[x].type.shape
    at = np.arange(channels * height * width).reshape(channels, height, width)
    parts = [at[:, -template:, -template:].reshape(channels, -1), at[:, :search, :search].reshape(channels, -1)]
    count = template**2 + search**2
    side = math.isqrt(count - 1) + 1
    rest = side**2 - count
    if math.isqrt(rest) ** 2 != rest:
        raise FrontendError(
            f"{template}x{template} and {search}x{search} tokens leave {rest} of a square of {side}x{side}, "
            f"and the authors' network takes a square of those too; 64 + 256 leave 4"
        )
    parts.append(np.full((channels, rest), -1))
    return _moved(b, [x], np.concatenate(parts, axis=1).reshape(channels, side, side))


def _cut(b: FamilyBuilder, x: str, start: int, side: int) -> str:
    """Tokens ``start`` to ``start + side^2`` as an image."""
    channels, height, width = b.graph.nodes[x].type.shape
    at = np.arange(channels * height * width).reshape(channels, -1)
    return _moved(b, [x], at[:, start : start + side**2].reshape(channels, side, side))


def _down_apart(b: FamilyBuilder, x: str, search: int, template: int) -> str:
    """downsample4, which does not shrink, on template, search image and rest, each padded by itself."""
    p = f"{PREFIX}downsample4"
    _, side, _ = b.graph.nodes[x].type.shape
    sizes = [template, search, math.isqrt(side**2 - template**2 - search**2)]
    apart = b.graph.flags["record_time"] and b.config.integer("D") == 1  # a neuron of its own for each
    s = x if apart else sdt_v3.spike(b, x, f"{p}.encode_spike", "CN")
    parts, start = [], 0
    for n, size in enumerate(sizes):
        if size:
            piece = _cut(b, s, start, size)
            piece = sdt_v3.spike(b, piece, f"{p}.encode_spike{n + 1 if n else ''}") if apart else piece
            parts.append(b.conv_bn(piece, f"{p}.encode_conv", f"{p}.encode_bn", bias=True, pad=1))
        start += size**2
    shapes = [b.graph.nodes[part].type.shape for part in parts]
    starts = np.cumsum([0, *(math.prod(s) for s in shapes)])
    index = [a + np.arange(math.prod(s)).reshape(s[0], -1) for a, s in zip(starts, shapes, strict=False)]
    return _moved(b, parts, np.concatenate(index, axis=1).reshape(shapes[0][0], side, side))


def _heads(b: FamilyBuilder, x: str) -> int:
    """Branches of four units of spike, convolution and norm, and one convolution of real values behind."""

    def keys(p: str) -> tuple[str, str, str]:
        timed = f"{p}.conv.weight" in b.state
        return (f"{p}.lif", f"{p}.conv", f"{p}.bn") if timed else (f"{p}.0", f"{p}.1", f"{p}.2")

    found = [branches for branches in HEADS.values() if f"{keys(f'box_head.conv1_{branches[0]}')[1]}.weight" in b.state]
    for branch in found[0] if found else ():
        h = x
        for n in range(1, 5):
            neuron, conv, norm = keys(f"box_head.conv{n}_{branch}")
            h = b.conv_bn(sdt_v3.spike(b, h, neuron), conv, norm, bias=True, pad=1)
        h = b.conv(h, f"box_head.conv5_{branch}", bias=True)
        value = b.graph.add("integrator", h, name=f"box_head.conv5_{branch}", beta=Attr(1.0, "family"))
        b.graph.add("output", value, name=branch)
    return len(found)
