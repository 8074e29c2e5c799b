"""Spike-Driven Transformer V1 (arXiv:2307.01694) as its authors run it on CIFAR10-DVS: frames of events, and Erode.

Erode is a max over 3x3 neighbours: of k and v in the image, then of k v and of what the mask leaves of q among the
tokens in a row and the channels of a head.
"""

from __future__ import annotations

from model import SpikeDrivenAttention, SpikeDrivenTransformer, each_step
from torch import Tensor, nn
from torch.nn import functional as F

CONFIG = {
    "family": "sdt_v1", "img_size_h": 16, "img_size_w": 16, "patch_size": 4, "in_channels": 2, "num_classes": 10,
    "embed_dims": 32, "num_heads": 4, "mlp_ratios": 2, "depths": 2, "T": 5, "pooling_stat": "0011",
    "spike_mode": "lif", "dvs_mode": True, "TET": True, "input_time": True,
}  # fmt: skip
EPOCHS, RATE = 12, 8e-3
ARGUMENTS = ("in_channels", "num_classes", "embed_dims", "num_heads", "mlp_ratios", "depths", "T", "pooling_stat")


def erode(x: Tensor) -> Tensor:
    """Max over 3x3 neighbours of the last two axes."""
    return F.max_pool2d(x.flatten(0, -3), 3, 1, 1).view_as(x)


class ErodingAttention(SpikeDrivenAttention):
    """SDSA-1 with Erode; ``talking_heads`` is what the published class defines and never uses."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads)
        self.talking_heads = nn.Conv1d(num_heads, num_heads, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        spikes, grid = self.shortcut_lif(x), x.shape[-2:]
        q, k, v = (self._project(name, spikes) for name in "qkv")
        both = self._by_head(erode(k)) * self._by_head(erode(v))
        counts = erode(both).sum(4)  # [T, B, heads, channels]
        mask = self.talking_heads_lif(counts[:, :, :, None])[:, :, :, 0, :, None]
        masked = erode(self._by_head(q) * mask).flatten(2, 3).unflatten(-1, grid)
        return each_step(self.proj_bn, each_step(self.proj_conv, masked))

    def _by_head(self, x: Tensor) -> Tensor:
        """[T, B, heads, channels, tokens]."""
        return x.flatten(3).unflatten(2, (self.num_heads, -1))


class EventTransformer(SpikeDrivenTransformer):
    """Logits [B, classes], the mean over time, of frames [B, T, C, H, W]; ``erodes``: as on CIFAR10-DVS."""

    def __init__(self, erodes: bool = True, **arguments: int | str):
        super().__init__(**{name: arguments[name] for name in ARGUMENTS})
        for block in self.block if erodes else ():
            block.attn = ErodingAttention(arguments["embed_dims"], arguments["num_heads"])

    def forward(self, frames: Tensor) -> Tensor:
        x = self.patch_embed(frames.transpose(0, 1))
        for block in self.block:
            x = block(x)
        return self.head(self.head_lif(x.flatten(3).mean(3))).mean(0)


def build() -> nn.Module:
    return EventTransformer(**CONFIG)
