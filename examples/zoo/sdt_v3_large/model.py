"""Spike-Driven Transformer V3 large: codes 0..4 half up, pointwise RepConvs, LayerScale, a head on real means."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from meta import Block, Down, MultiSpike, Parts, wake
from model import each_step
from torch import Tensor, nn

CONFIG = {
    "family": "sdt_v3_large", "img_size_h": 32, "img_size_w": 32, "in_channels": 1, "num_classes": 10,
    "nb_classes": 10, "embed_dim": [8, 12, 16], "num_heads": 2, "mlp_ratios": 4, "depths": 2, "T": 1, "kd": True,
}  # fmt: skip
NEURONS = (MultiSpike,)
EPOCHS, RATE, ACTIVE = 40, 4e-3, (0.08, 0.7)
PARTS = Parts(MultiSpike, MultiSpike, scale=0.125, layer_scale=True)


class Steps(nn.Sequential):
    """Its layers on every timestep as one batch."""

    def forward(self, x: Tensor) -> Tensor:
        return each_step(super().forward, x)


class ConvBlock(nn.Module):
    """x + two 3x3 convolutions, a neuron before and a norm behind each."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.neuron1, self.conv1 = MultiSpike(), self._unit(dim, ratio * dim)
        self.neuron2, self.conv2 = MultiSpike(), self._unit(ratio * dim, dim)

    @staticmethod
    def _unit(cin: int, out: int) -> nn.Module:
        return nn.Sequential(Steps(nn.Conv2d(cin, out, 3, padding=1), nn.BatchNorm2d(out)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.neuron2(self.conv1(self.neuron1(x))))


class RepConv(nn.Module):
    """Two pointwise convolutions, a norm behind each, through 1.5 times the channels."""

    def __init__(self, dim: int):
        super().__init__()
        wide = int(1.5 * dim)
        self.conv1 = nn.Sequential(nn.Conv1d(dim, wide, 1, bias=False), nn.BatchNorm1d(wide))
        self.conv2 = nn.Sequential(nn.Conv1d(wide, dim, 1, bias=False), nn.BatchNorm1d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x.flatten(2)))


def project(dim: int) -> nn.Module:
    return nn.Sequential(RepConv(dim), nn.BatchNorm1d(dim))


class Network(nn.Module):
    """Two convolutional stages, one attention stage on tokens [T, B, C, N], two heads whose logits are averaged."""

    def __init__(self, *, in_channels: int, num_classes: int, nb_classes: int, embed_dim: list[int], num_heads: int,
                 mlp_ratios: int, depths: int, T: int, kd: bool):  # fmt: skip
        super().__init__()
        self.T = T
        dims = [in_channels, embed_dim[0] // 2, *embed_dim]
        self.downsample1_1 = Down(PARTS, dims[0], dims[1], first=True)
        self.ConvBlock1_1 = nn.ModuleList([ConvBlock(dims[1], mlp_ratios)])
        self.downsample1_2 = Down(PARTS, dims[1], dims[2])
        self.ConvBlock1_2 = nn.ModuleList([ConvBlock(dims[2], mlp_ratios)])
        self.downsample2 = Down(PARTS, dims[2], dims[3])
        self.ConvBlock2_1 = nn.ModuleList([ConvBlock(dims[3], mlp_ratios)])
        self.ConvBlock2_2 = nn.ModuleList([ConvBlock(dims[3], mlp_ratios)])
        self.downsample3 = Down(PARTS, dims[3], dims[4])
        blocks = (Block(PARTS, dims[4], num_heads, mlp_ratios, project) for _ in range(depths))
        self.block3 = nn.ModuleList(blocks)
        self.head = nn.Linear(dims[4], nb_classes)
        self.lif = MultiSpike(norm=1)
        if kd:
            self.head_kd = nn.Linear(dims[4], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.downsample1_1(images.expand(self.T, *images.shape))
        for stage in (self.ConvBlock1_1, [self.downsample1_2], self.ConvBlock1_2, [self.downsample2],
                      self.ConvBlock2_1, self.ConvBlock2_2, [self.downsample3]):  # fmt: skip
            for module in stage:
                x = module(x)
        x = x.flatten(3)
        for block in self.block3:
            x = block(x)
        mean = x.mean(3)
        s, logits = self.lif(mean), self.head(mean).mean(0)
        return (logits + self.head_kd(s).mean(0)) / 2 if hasattr(self, "head_kd") else logits


def network(**config) -> Network:
    """The published network with the published config."""
    return Network(**config)


def build() -> Network:
    skip = ("family", "img_size_h", "img_size_w")
    return wake(network(**{k: v for k, v in CONFIG.items() if k not in skip}), attention=2.5)
