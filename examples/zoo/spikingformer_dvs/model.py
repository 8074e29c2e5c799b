"""The DVS form of Spikingformer: frames of events, tau = 1.5 (not written in the config: the family knows it)."""

from __future__ import annotations

from torch import nn
from train_zoo import load_net

CONFIG = {
    "family": "spikingformer", "img_size_h": 32, "img_size_w": 32, "patch_size": 16, "in_channels": 2,
    "num_classes": 10, "embed_dims": 32, "num_heads": 4, "mlp_ratios": 2, "depths": 1, "T": 5, "input_time": True,
}  # fmt: skip
EPOCHS, RATE = 14, 8e-3


def build() -> nn.Module:
    return load_net("spikingformer").Spikingformer(**CONFIG, cifar=False, tau=1.5)
