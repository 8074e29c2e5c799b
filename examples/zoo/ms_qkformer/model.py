"""MS-QKFormer, of the same authors and paper as MaxFormer: QKFormer with residuals on membranes."""

from __future__ import annotations

from torch import nn
from train_zoo import load_net

CONFIG = {
    "family": "maxformer", "img_size_h": 16, "img_size_w": 16, "in_channels": 1, "num_classes": 10,
    "embed_dims": 32, "mlp_ratios": 2, "depths": 4, "T": 4,
}  # fmt: skip
EPOCHS, RATE = 12, 8e-3


def build() -> nn.Module:
    return load_net("maxformer").MaxFormer(**CONFIG, qk=True)
