"""Spikformer (Zhou et al., ICLR 2023, arXiv:2209.15425), its files for ImageNet and DVS: convolutions, not Linear.

``form``: imagenet (T = 4) or dvs, with attention scale 1/4 and tokens ``[T, B, C, N]`` throughout.
"""

from __future__ import annotations

import torch
from model import Lif
from torch import Tensor, nn
from zoo_parts import MAX_POOL, Dead, SelfAttention, SpikeMlp, each_step, shown

CONFIG = {
    "family": "spikformer", "img_size_h": 32, "img_size_w": 32, "patch_size": 16, "in_channels": 1,
    "num_classes": 10, "embed_dims": 32, "num_heads": 4, "mlp_ratios": 2, "depths": 2,
}  # fmt: skip
EPOCHS, RATE = 12, 8e-3


class PatchSplit(nn.Module):
    """conv - BN - LIF - pool of spikes, four times; a convolution of what comes out is added to it as spikes."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        widths = [in_channels, dim // 8, dim // 4, dim // 2, dim]
        for stage, suffix in enumerate(("", "1", "2", "3")):
            self.add_module(f"proj_conv{suffix}", nn.Conv2d(*widths[stage : stage + 2], 3, 1, 1, bias=False))
            self.add_module(f"proj_bn{suffix}", nn.BatchNorm2d(widths[stage + 1]))
            self.add_module(f"proj_lif{suffix}", Lif())
        self.rpe_conv, self.rpe_bn = nn.Conv2d(dim, dim, 3, 1, 1, bias=False), nn.BatchNorm2d(dim)
        self.rpe_lif = Lif()

    def forward(self, x: Tensor) -> Tensor:
        for suffix in ("", "1", "2", "3"):
            current = each_step(getattr(self, f"proj_conv{suffix}"), x)
            current = each_step(getattr(self, f"proj_bn{suffix}"), current)
            x = each_step(MAX_POOL, getattr(self, f"proj_lif{suffix}")(current))
        return self.rpe_lif(each_step(self.rpe_bn, each_step(self.rpe_conv, x))) + x


class Block(Dead):
    def __init__(self, dim: int, heads: int, ratio: float, dvs: bool):
        super().__init__(dim)
        self.dvs = dvs
        self.attn = SelfAttention(dim, heads, scale=0.25 if dvs else 0.125, grid=not dvs)
        self.mlp = SpikeMlp(dim, ratio, "fc", tokens=dvs)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        if not self.dvs:
            return x + self.mlp(x)
        return x + self.mlp(x.flatten(3)).unflatten(-1, x.shape[-2:])


class SpikformerConv(nn.Module):
    """Logits [B, classes] of images [B, C, H, W], or of frames [B, T, C, H, W]."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dims: int, num_heads: int, mlp_ratios: float,
                 depths: int, img_size_h: int, img_size_w: int, patch_size: int, form: str = "imagenet",
                 **_: object):  # fmt: skip
        super().__init__()
        dvs = form == "dvs"
        self.patch_embed = PatchSplit(in_channels, embed_dims)
        if dvs:  # never used
            tokens = (img_size_h // patch_size) * (img_size_w // patch_size)
            self.pos_embed, self.norm = nn.Parameter(torch.zeros(1, tokens, embed_dims)), nn.LayerNorm(embed_dims)
        self.block = nn.ModuleList(Block(embed_dims, num_heads, mlp_ratios, dvs) for _ in range(depths))
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(shown(images, 4))
        for block in self.block:
            x = block(x)
        return self.head(x.flatten(3).mean(3).mean(0))


def build() -> nn.Module:
    return SpikformerConv(**CONFIG)
