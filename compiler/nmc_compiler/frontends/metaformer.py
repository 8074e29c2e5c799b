"""What the Meta-SpikeFormer families (sdt_v2, qsd, sdt_v3_large) share: stages, blocks, re-parameterised convolutions.

``Meta`` is a FamilyBuilder that also knows the family's neurons; ``Convolutional`` is one without attention. Blocks are
named and keyed as in the authors' modules; every function returns the id of the current (or stream) that it ends in.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr
from nmc_compiler.graph.ops_linear import bn_affine

STEM = "downsample1_1.encode_conv.weight"
FC1 = "block3.0.mlp.fc1_conv.weight"


class Convolutional(FamilyBuilder):
    """A FamilyBuilder with the neuron that stands before the family's convolutions."""

    @abstractmethod
    def spike(self, x: str, name: str, layout: str = "CHW") -> str:
        """The neuron that stands before convolutions."""

    def width(self, x: str) -> int:
        return self.graph.nodes[x].type.shape[0]

    def add(self, x: str, y: str) -> str:
        return self.graph.add("add", x, y)

    def affine(self, bn: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Gains and offsets [C] of an evaluated batch norm."""
        names = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        arrays = {k: self.take(f"{bn}.{name}", (channels,)) for k, name in names.items()}
        return bn_affine(arrays.__getitem__, float(self.eps.value))  # type: ignore[arg-type]


class Meta(Convolutional):
    """A builder with the neurons of attention as well; ``layer_scale`` says whether branches have one."""

    layer_scale = False

    @abstractmethod
    def attention_spike(self, x: str, name: str) -> str:
        """The neuron behind an attention product, [C, N]."""

    def heads(self, x: str) -> Attr:
        """Number of heads, which must divide the channels of ``x``."""
        heads, channels = self.config.integer("num_heads"), self.width(x)
        if channels % heads:
            raise FrontendError(f"num_heads = {heads} does not divide {channels} channels ({self.config.source})")
        return Attr(heads, self.config.get("num_heads").evidence)

    def residual(self, x: str, branch: str, key: str) -> str:
        """x + branch; the branch times LayerScale ``key``, a learned number per channel, where the family has one."""
        if self.layer_scale:
            branch = self.graph.add("scale", branch, name=key, factor=self._ref(key, (self.width(x),)))
        return self.add(x, branch)


def configure_meta(tensors: dict[str, np.ndarray], config: ModelConfig, stages: tuple[str, ...]) -> ModelConfig:
    """Sizes that the shapes tell, checked against the config; ``stages``: the downsamplings of ``embed_dim``."""
    dims = tuple(axis(tensors, f"downsample{s}.encode_conv.weight", 0, 4) for s in stages)
    config = config.agree("embed_dim", dims, "the downsample*.encode_conv shapes")
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    config = config.agree("in_channels", axis(tensors, STEM, 1, 4), STEM)
    config = config.agree("mlp_ratios", ratio(axis(tensors, FC1, 0, 3), axis(tensors, FC1, 1, 3)), FC1)
    if config.has("nb_classes"):  # argparse of the authors' scripts
        config = config.agree("nb_classes", config.value("num_classes"), "head.weight")
    for key in ("depths", "sr_ratios"):  # of no effect on these networks beyond what the keys and shapes tell
        config.has(key)
    return config


def down(b: Meta, x: str, p: str, stride: int, first: bool = False) -> str:
    """MS_DownSampling: [spike,] convolution with bias, batch norm; 7x7 where it is the first."""
    s = x if first else b.spike(x, f"{p}.encode_lif")
    return b.conv_bn(s, f"{p}.encode_conv", f"{p}.encode_bn", bias=True, stride=stride, pad=3 if first else 1)


def sep_conv(b: Meta, x: str, p: str) -> str:
    """SepConv: pointwise, then depthwise and pointwise with nothing between the two."""
    h = b.conv_bn(b.spike(x, f"{p}.lif1"), f"{p}.pwconv1", f"{p}.bn1")
    hidden, s = b.width(h), b.spike(h, f"{p}.lif2")
    kernel = b.take(f"{p}.dwconv.weight", (None, 1, None, None)).shape[2]
    h = b.conv(s, f"{p}.dwconv", pad=kernel // 2, groups=hidden, out=hidden)
    return b.conv_bn(h, f"{p}.pwconv2", f"{p}.bn2", out=b.width(x))


def conv_block(b: Meta, x: str, p: str) -> str:
    """MS_ConvBlock: x + SepConv(x), then x + two 3x3 convolutions."""
    x = b.add(x, sep_conv(b, x, f"{p}.Conv"))
    h = b.conv_bn(b.spike(x, f"{p}.lif1"), f"{p}.conv1", f"{p}.bn1", pad=1)
    h = b.conv_bn(b.spike(h, f"{p}.lif2"), f"{p}.conv2", f"{p}.bn2", pad=1, out=b.width(x))
    return b.add(x, h)


def rep_conv(b: Meta, x: str, p: str, out: int) -> str:
    """RepConv: 1x1, batch norm whose value for zero fills the ring, depthwise 3x3, 1x1, batch norm."""
    channels, bn = b.width(x), f"{p}.body.1.bn"
    h = b.conv_bn(x, f"{p}.body.0", bn, out=channels)
    _, ring = b.affine(bn, channels)
    value = Attr(b.graph.tensor(f"{bn}.ring", ring), "checkpoint")
    h = b.graph.add("pad2d", h, name=f"{bn}.ring", pad=Attr((1, 1), "family"), value=value)
    h = b.conv(h, f"{p}.body.2.0", groups=channels, out=channels, side=3)
    return b.conv_bn(h, f"{p}.body.2.1", f"{p}.body.2.2", out=out)


def attention(b: Meta, x: str, p: str, scale: float) -> str:
    """SDSA-3 (models.md A3): spike(scale * q (k^T v)); q, k, v and the projection are RepConvs with a batch norm."""
    heads, channels = b.heads(x), b.width(x)
    s = b.spike(x, f"{p}.head_lif")
    currents = {n: b.norm(rep_conv(b, s, f"{p}.{n}_conv.0", channels), f"{p}.{n}_conv.1") for n in "qkv"}
    q, k, v = (b.spike(current, f"{p}.{n}_lif") for n, current in currents.items())
    product = b.graph.add("attn", q, k, v, heads=heads, scale=Attr(scale, "family"))
    s = b.attention_spike(product, f"{p}.attn_lif")
    return b.norm(rep_conv(b, s, f"{p}.proj_conv.0", channels), f"{p}.proj_conv.1")


def mlp(b: Meta, x: str, p: str) -> str:
    """MS_MLP on tokens."""
    h = b.conv_bn(b.spike(x, f"{p}.fc1_lif", "CN"), f"{p}.fc1_conv", f"{p}.fc1_bn", bias=True)
    return b.conv_bn(b.spike(h, f"{p}.fc2_lif", "CN"), f"{p}.fc2_conv", f"{p}.fc2_bn", bias=True, out=b.width(x))


def conv_stages(b: Meta, x: str) -> str:
    """Stages 1 and 2 of sdt_v2 and qsd."""
    x = down(b, x, "downsample1_1", 2, first=True)
    for before, stage in ((None, "ConvBlock1_1"), ("downsample1_2", "ConvBlock1_2"), ("downsample2", "ConvBlock2_1"),
                          (None, "ConvBlock2_2")):  # fmt: skip
        x = x if before is None else down(b, x, before, 2)
        for i in range(count_blocks(b.state, stage)):
            x = conv_block(b, x, f"{stage}.{i}")
    return x


def attention_stages(b: Meta, x: str, scale: float) -> str:
    """Stages 3 and 4 of sdt_v2 and qsd; LayerScale where the checkpoint has it."""
    for before, stage, stride in (("downsample3", "block3", 2), ("downsample4", "block4", 1)):
        x = down(b, x, before, stride)
        for i in range(count_blocks(b.state, stage)):
            p = f"{stage}.{i}"
            x = b.residual(x, attention(b, x, f"{p}.attn", scale), f"{p}.layer_scale1")
            x = b.residual(x, mlp(b, x, f"{p}.mlp"), f"{p}.layer_scale2")
    return x
