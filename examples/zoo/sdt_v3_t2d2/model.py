"""Spike-Driven Transformer V3 with a state (I-LIF, T = 2, codes 0..2), as SDTrack has it: E-SDSA, v four times as wide.

Shan et al., "SDTrack: A Baseline for Event-based Tracking via Spiking Neural Networks", 2025 (arXiv:2503.08703); its
classifier's module names. Inside: ``[T, B, C, H, W]``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from meta import Levels, wake
from model import each_step
from torch import Tensor, nn

CONFIG = {
    "family": "sdt_v3", "img_size_h": 32, "img_size_w": 32, "in_channels": 1, "num_classes": 10,
    "embed_dim": [8, 8, 16, 16], "num_heads": 2, "mlp_ratios": 4, "T": 2, "D": 2,
}  # fmt: skip
EPOCHS, RATE, ACTIVE = 30, 4e-3, (0.08, 0.7)


class IntegerLif(nn.Module):
    """h = 1/4 (h - s D) + x of the timestep before;  s = round(clamp(h, 0, D)) / norm, half to even."""

    def __init__(self, norm: int = 2, top: int = 2):
        super().__init__()
        self.norm, self.top = norm, top

    def forward(self, current: Tensor) -> Tensor:
        left, spikes = torch.zeros_like(current[0]), []
        for x in current:
            h = left + x
            spikes.append(Levels.apply(h, self.top, True) / self.norm)
            left = 0.25 * (h - spikes[-1].detach() * self.top)
        return torch.stack(spikes)


NEURONS = (IntegerLif,)


def unit(*layers: nn.Module):
    """Layers without a state, applied to every timestep."""
    return lambda x: each_step(nn.Sequential(*layers), x)


class SepConv(nn.Module):
    """Pointwise, depthwise 7x7, pointwise; a neuron before and a norm behind each."""

    def __init__(self, dim: int):
        super().__init__()
        wide = 2 * dim
        self.spike1, self.pwconv1, self.bn1 = IntegerLif(), nn.Conv2d(dim, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.spike2, self.bn2 = IntegerLif(), nn.BatchNorm2d(wide)
        self.dwconv = nn.Conv2d(wide, wide, 7, padding=3, groups=wide, bias=False)
        self.spike3, self.pwconv2, self.bn3 = IntegerLif(), nn.Conv2d(wide, dim, 1, bias=False), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = unit(self.pwconv1, self.bn1)(self.spike1(x))
        x = unit(self.dwconv, self.bn2)(self.spike2(x))
        return unit(self.pwconv2, self.bn3)(self.spike3(x))


class ConvBlock(nn.Module):
    """x + SepConv(x), then x + two 3x3 convolutions."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        wide = ratio * dim
        self.Conv = SepConv(dim)
        self.spike1, self.conv1, self.bn1 = IntegerLif(), _conv3(dim, wide), nn.BatchNorm2d(wide)
        self.spike2, self.conv2, self.bn2 = IntegerLif(), _conv3(wide, dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Conv(x)
        return x + unit(self.conv2, self.bn2)(self.spike2(unit(self.conv1, self.bn1)(self.spike1(x))))


def _conv3(cin: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(cin, out, 3, padding=1, bias=False)


class Attention(nn.Module):
    """neuron(2 / sqrt(d) (q k^T) v) per head."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, 2 * (dim // heads) ** -0.5
        self.head_spike = IntegerLif()
        for name, out in (("q", dim), ("k", dim), ("v", 4 * dim)):
            self.add_module(f"{name}_conv", nn.Conv2d(dim, out, 1, bias=False))
            self.add_module(f"{name}_BN", nn.BatchNorm2d(out))
            self.add_module(f"{name}_spike", IntegerLif())
        self.attn_spike = IntegerLif()
        self.proj_conv, self.proj_BN = nn.Conv2d(4 * dim, dim, 1, bias=False), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        s = self.head_spike(x)
        part = {n: [getattr(self, f"{n}_{k}") for k in ("conv", "BN", "spike")] for n in "qkv"}
        currents = {n: unit(conv, norm)(s) for n, (conv, norm, _) in part.items()}
        q, k, v = (part[n][2](c).flatten(3).unflatten(2, (self.heads, -1)) for n, c in currents.items())
        product = self.scale * (v @ (q.transpose(-1, -2) @ k).transpose(-1, -2))  # [T, B, heads, d, N]
        s = self.attn_spike(product.flatten(2, 3))
        return unit(self.proj_conv, self.proj_BN)(s.unflatten(3, x.shape[3:]))


class Mlp(nn.Module):
    """Two units of neuron, Conv1d, norm on tokens."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.fc1_spike, self.fc1_conv = IntegerLif(), nn.Conv1d(dim, ratio * dim, 1)
        self.fc1_bn = nn.BatchNorm1d(ratio * dim)
        self.fc2_spike, self.fc2_conv, self.fc2_bn = IntegerLif(), nn.Conv1d(ratio * dim, dim, 1), nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        h = unit(self.fc1_conv, self.fc1_bn)(self.fc1_spike(x.flatten(3)))
        return unit(self.fc2_conv, self.fc2_bn)(self.fc2_spike(h)).reshape(x.shape)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, ratio: int):
        super().__init__()
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Down(nn.Module):
    """[Neuron,] strided convolution with bias, norm."""

    def __init__(self, cin: int, out: int, stride: int = 2, first: bool = False):
        super().__init__()
        kernel = 7 if first else 3
        self.encode_conv = nn.Conv2d(cin, out, kernel, stride, kernel // 2)
        self.encode_bn = nn.BatchNorm2d(out)
        if not first:
            self.encode_spike = IntegerLif()

    def forward(self, x: Tensor) -> Tensor:
        s = self.encode_spike(x) if hasattr(self, "encode_spike") else x
        return unit(self.encode_conv, self.encode_bn)(s)


class Network(nn.Module):
    """Two convolutional and two attention stages, token mean, neuron, head."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dim: list[int], num_heads: int, mlp_ratios: int,
                 T: int, D: int, blocks: tuple[int, int] = (6, 2)):  # fmt: skip
        super().__init__()
        assert D == 2, "the neurons have two levels"
        self.T = T
        dims = [in_channels, embed_dim[0] // 2, *embed_dim]
        self.downsample1_1 = Down(dims[0], dims[1], first=True)
        self.ConvBlock1_1 = nn.ModuleList([ConvBlock(dims[1], mlp_ratios)])
        self.downsample1_2 = Down(dims[1], dims[2])
        self.ConvBlock1_2 = nn.ModuleList([ConvBlock(dims[2], mlp_ratios)])
        self.downsample2 = Down(dims[2], dims[3])
        self.ConvBlock2_1 = nn.ModuleList([ConvBlock(dims[3], mlp_ratios)])
        self.ConvBlock2_2 = nn.ModuleList([ConvBlock(dims[3], mlp_ratios)])
        self.downsample3 = Down(dims[3], dims[4])
        self.block3 = nn.ModuleList([Block(dims[4], num_heads, mlp_ratios) for _ in range(blocks[0])])
        self.downsample4 = Down(dims[4], dims[5], stride=1)
        self.block4 = nn.ModuleList([Block(dims[5], num_heads, mlp_ratios) for _ in range(blocks[1])])
        self.spike = IntegerLif(norm=1)
        self.head = nn.Linear(dims[5], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(self.T, *images.shape)
        for stage in ([self.downsample1_1], self.ConvBlock1_1, [self.downsample1_2], self.ConvBlock1_2,
                      [self.downsample2], self.ConvBlock2_1, self.ConvBlock2_2, [self.downsample3], self.block3,
                      [self.downsample4], self.block4):  # fmt: skip
            for module in stage:
                x = module(x)
        return self.head(self.spike(x.flatten(3).mean(3))).mean(0)


def build() -> Network:
    skip = ("family", "img_size_h", "img_size_w")
    network = Network(**{k: v for k, v in CONFIG.items() if k not in skip}, blocks=(1, 1))
    for name, module in network.named_modules():
        if name.endswith(("q_BN", "k_BN", "v_BN")):
            nn.init.ones_(module.bias)
    return wake(network)
