"""Spike-Driven Transformer V2 (Meta-SpikeFormer): binary LIF, SDSA-3, BN-padded RepConvs, two heads (``kd``)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from meta import MetaSpikeFormer, Parts, wake
from model import Lif
from torch import nn

CONFIG = {
    "family": "sdt_v2", "img_size_h": 32, "img_size_w": 32, "in_channels": 1, "num_classes": 10,
    "embed_dim": [8, 8, 16, 16], "num_heads": 2, "mlp_ratios": 4, "T": 2, "kd": True,
}  # fmt: skip
EPOCHS, RATE = 40, 5e-3
PARTS = Parts(Lif, lambda: Lif(theta=0.5), scale=0.125)


def network(**config) -> MetaSpikeFormer:
    """The published network where ``blocks`` is not given (6 and 2)."""
    return MetaSpikeFormer(PARTS, nn.Linear, **config)


def build() -> MetaSpikeFormer:
    skip = ("family", "img_size_h", "img_size_w")
    return wake(network(**{k: v for k, v in CONFIG.items() if k not in skip}, blocks=(1, 1)))
