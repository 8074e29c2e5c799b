"""Spikingformer (Zhou et al., 2023, arXiv:2304.11954): LIF - conv - BN, residuals on membranes, SSA, a real head.

The CIFAR form pools before its last two tokeniser stages, the others before all four; the DVS form has tau = 1.5.
"""

from __future__ import annotations

from torch import Tensor, nn
from zoo_parts import MAX_POOL, Dead, Layers, MembraneMlp, SelfAttention, each_step, shown

CONFIG = {
    "family": "spikingformer", "img_size_h": 16, "img_size_w": 16, "patch_size": 4, "in_channels": 1,
    "num_classes": 10, "embed_dims": 32, "num_heads": 4, "mlp_ratios": 2, "depths": 2, "T": 4,
}  # fmt: skip


class Tokenizer(Layers):
    """A first conv - BN, then LIF - [pool] - conv - BN four times."""

    def __init__(self, in_channels: int, dim: int, cifar: bool, tau: float):
        super().__init__(tau)
        self.names = [f"block{n}" for n in range(5)] if cifar else ["proj", *(f"proj{n}" for n in range(1, 5))]
        self.pooled = (3, 4) if cifar else (1, 2, 3, 4)
        widths = [in_channels, dim // 8, dim // 4, dim // 2, dim, dim]
        for n, name in enumerate(self.names):
            self.layer(name, *widths[n : n + 2], kernel=3, lif=n > 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.current(self.names[0], x)
        for n, name in enumerate(self.names[1:], 1):
            s = getattr(self, f"{name}_lif")(x)
            x = self.current(name, each_step(MAX_POOL, s) if n in self.pooled else s)
        return x


class Block(Dead):
    def __init__(self, dim: int, heads: int, ratio: float, tau: float):
        super().__init__(dim)
        self.attn = SelfAttention(dim, heads, before="proj_lif", tau=tau)
        self.mlp = MembraneMlp(dim, ratio, "mlp", inner=False, tau=tau)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.attn(x))


class Spikingformer(nn.Module):
    """Logits [B, classes] of images [B, C, H, W], or of frames [B, T, C, H, W]."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dims: int, num_heads: int, mlp_ratios: float,
                 depths: int, T: int, cifar: bool = True, tau: float = 2.0, **_: object):  # fmt: skip
        super().__init__()
        self.T = T
        self.patch_embed = Tokenizer(in_channels, embed_dims, cifar, tau)
        self.block = nn.ModuleList(Block(embed_dims, num_heads, mlp_ratios, tau) for _ in range(depths))
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(shown(images, self.T))
        for block in self.block:
            x = block(x)
        return self.head(x.flatten(3).mean(3).mean(0))


def build() -> nn.Module:
    return Spikingformer(**CONFIG)
