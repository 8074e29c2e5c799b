"""Small trackers and detectors in PyTorch, from the equations, with the module names of SDTrack and SpikeYOLO."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from zoo import train_zoo

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

import models

TIMED = train_zoo.load_net("sdt_v3_t2d2")


def steps(op, x: Tensor) -> Tensor:
    """``op`` on [B, ...], or on every timestep of [T, B, ...]."""
    return op(x) if x.dim() == 4 else op(x.flatten(0, 1)).unflatten(0, x.shape[:2])


# ---- SDTrack ----


class HeadUnit(nn.Module):
    """Neuron, convolution, norm: modules 0, 1, 2, or lif, conv, bn in the form with timesteps."""

    def __init__(self, cin: int, out: int, timed: bool):
        super().__init__()
        self.names = ("lif", "conv", "bn") if timed else ("0", "1", "2")
        parts = (TIMED.IntegerLif() if timed else models.MultiSpike(), nn.Conv2d(cin, out, 3, padding=1))
        for name, part in zip(self.names, (*parts, nn.BatchNorm2d(out)), strict=True):
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        neuron, conv, norm = (getattr(self, name) for name in self.names)
        return steps(norm, steps(conv, neuron(x)))


class Tracker(nn.Module):
    """Template z and search image x of one canvas; maps of the head before their sigmoid, mean over T."""

    def __init__(
        self, timed: bool, search: int = 8, template: int = 4, branches: tuple[str, ...] = ("ctr", "size", "offset")
    ):
        super().__init__()
        self.search, self.template, self.branches = search, template, branches
        common = {"in_channels": 2, "num_classes": 3, "embed_dim": [4, 8, 12, 16], "num_heads": 2, "mlp_ratios": 2}
        more = {"T": 2, "D": 2} if timed else {}
        net = (TIMED.Network if timed else models.ExpandedSpikeTransformer)(**common, **more, blocks=(2, 1))
        for block in (*net.block3, *net.block4):
            if not timed:
                del block.conv
        del net.head, net.spike
        self.backbone = net
        self.box_head = nn.Module()
        for branch in branches:
            for n, (cin, out) in enumerate(((16, 8), (8, 8), (8, 4), (4, 4)), 1):
                self.box_head.add_module(f"conv{n}_{branch}", HeadUnit(cin, out, timed))
            self.box_head.add_module(f"conv5_{branch}", nn.Conv2d(4, 2, 1))

    def forward(self, canvas: Tensor) -> dict[str, Tensor]:
        net, x = self.backbone, canvas
        for stage in ([net.downsample1_1], net.ConvBlock1_1, [net.downsample1_2], net.ConvBlock1_2, [net.downsample2],
                      net.ConvBlock2_1, net.ConvBlock2_2, [net.downsample3]):  # fmt: skip
            for module in stage:
                x = module(x)
        z = x[..., -self.template :, -self.template :].flatten(-2)
        x = x[..., : self.search, : self.search].flatten(-2)
        side = int((z.shape[-1] + x.shape[-1] - 1) ** 0.5) + 1
        rest = side**2 - z.shape[-1] - x.shape[-1]
        x = self._blocks(torch.cat([z, x, torch.zeros_like(x[..., :rest])], -1).unflatten(-1, (side, side)), net.block3)
        parts = x.flatten(-2).split([self.template**2, self.search**2, rest], -1)
        square = [part.unflatten(-1, (round(part.shape[-1] ** 0.5), -1)) for part in parts]
        x = torch.cat([net.downsample4(part).flatten(-2) for part in square], -1).unflatten(-1, (side, side))
        x = self._blocks(x, net.block4).flatten(-2)
        x = x[..., self.template**2 :][..., : self.search**2].unflatten(-1, (self.search, self.search))
        return {branch: self._branch(x, branch) for branch in self.branches}

    @staticmethod
    def _blocks(x: Tensor, blocks: nn.ModuleList) -> Tensor:
        for block in blocks:
            x = x + block.attn(x)
            x = x + block.mlp(x)
        return x

    def _branch(self, x: Tensor, branch: str) -> Tensor:
        for n in range(1, 5):
            x = getattr(self.box_head, f"conv{n}_{branch}")(x)
        x = steps(getattr(self.box_head, f"conv5_{branch}"), x)
        return x if x.dim() == 4 else x.mean(0)


# ---- SpikeYOLO ----


class Codes(nn.Module):
    """I-LIF: h = keep (h - s) + gain x, s = round(clamp(h, 0, 4))."""

    norm, keep, gain = 1, 0.25, 1.0

    def forward(self, x: Tensor) -> Tensor:
        left, spikes = torch.zeros_like(x[0]), []
        for current in x:
            h = left + self.gain * current
            spikes.append(h.clamp(0, 4).round())
            left = self.keep * (h - spikes[-1])
        return torch.stack(spikes)


def norm2d(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def conv(cin: int, out: int, side: int = 1, groups: int = 1, pad: int = 0, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, out, side, stride, pad, groups=groups, bias=False)


class Ring(nn.Module):
    """Batch norm, then a ring that holds what it gives for zero."""

    def __init__(self, channels: int, width: int = 1):
        super().__init__()
        self.bn, self.width = norm2d(channels), width

    def forward(self, x: Tensor) -> Tensor:
        zero = self.bn.bias - self.bn.running_mean * self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        w = [self.width] * 4
        around = 1 - nn.functional.pad(torch.ones_like(x), w)
        return nn.functional.pad(self.bn(x), w) + around * zero.detach().view(1, -1, 1, 1)


class SepRep(nn.Module):
    def __init__(self, cin: int, out: int):
        super().__init__()
        self.body = nn.Sequential(Ring(cin), nn.Sequential(conv(cin, out), conv(out, out, 3, groups=out)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Rep(nn.Module):
    def __init__(self, cin: int, out: int):
        super().__init__()
        last = nn.Sequential(conv(cin, cin, 3, groups=cin), conv(cin, out), norm2d(out))
        self.body = nn.Sequential(conv(cin, cin), Ring(cin), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Sep(nn.Module):
    def __init__(self, dim: int, side: int = 7):
        super().__init__()
        wide = 2 * dim
        self.lif1, self.lif2, self.lif3 = Codes(), Codes(), Codes()
        self.pwconv1, self.bn1 = conv(dim, wide), norm2d(wide)
        self.dwconv2, self.bn2 = conv(wide, wide, side, wide, side // 2), norm2d(wide)
        self.pwconv3, self.bn3 = SepRep(wide, dim), norm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = steps(nn.Sequential(self.pwconv1, self.bn1), self.lif1(x))
        x = steps(nn.Sequential(self.dwconv2, self.bn2), self.lif2(x))
        return steps(nn.Sequential(self.pwconv3, self.bn3), self.lif3(x))


class Unit(nn.Module):
    """SpikeConv and MS_StandardConv: neuron, convolution, norm."""

    def __init__(self, cin: int, out: int, side: int = 1, stride: int = 1):
        super().__init__()
        self.lif, self.conv, self.bn = Codes(), conv(cin, out, side, 1, side // 2, stride), norm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return steps(nn.Sequential(self.conv, self.bn), self.lif(x))


class RepBlock(nn.Module):
    """MS_ConvBlock."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.Conv, self.lif1, self.lif2 = Sep(dim), Codes(), Codes()
        self.conv1, self.bn1 = Rep(dim, ratio * dim), norm2d(ratio * dim)
        self.conv2, self.bn2 = Rep(ratio * dim, dim), norm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Conv(x)
        h = steps(nn.Sequential(self.conv1, self.bn1), self.lif1(x))
        return x + steps(nn.Sequential(self.conv2, self.bn2), self.lif2(h))


class AllBlock(nn.Module):
    """MS_AllConvBlock."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.Conv, self.conv1, self.conv2 = Sep(dim), Unit(dim, ratio * dim, 3), Unit(ratio * dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Conv(x)
        return x + self.conv2(self.conv1(x))


class Down(nn.Module):
    def __init__(self, cin: int, out: int, side: int, stride: int, pad: int, first: bool):
        super().__init__()
        self.encode_conv, self.encode_bn = nn.Conv2d(cin, out, side, stride, pad), norm2d(out)
        if not first:
            self.encode_lif = Codes()

    def forward(self, x: Tensor) -> Tensor:
        s = self.encode_lif(x) if hasattr(self, "encode_lif") else x
        return steps(nn.Sequential(self.encode_conv, self.encode_bn), s)


class Sppf(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.cv1, self.cv2, self.m = Unit(dim, dim // 2), Unit(dim // 2 * 4, dim), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(steps(self.m, parts[-1]))
        return self.cv2(torch.cat(parts, 2))


class Last(nn.Module):
    def __init__(self, cin: int, out: int):
        super().__init__()
        self.lif, self.conv = Codes(), nn.Conv2d(cin, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return steps(self.conv, self.lif(x))


class Detect(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int, boxes: int, inner: tuple[int, int] = (4, 4)):
        super().__init__()
        for name, mid, out in (("cv2", inner[0], boxes), ("cv3", inner[1], classes)):
            branches = [nn.Sequential(Unit(w, mid, 3), Unit(mid, mid, 3), Last(mid, out)) for w in widths]
            self.add_module(name, nn.ModuleList(branches))

    def forward(self, parts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return [(self.cv2[i](x).mean(0), self.cv3[i](x).mean(0)) for i, x in enumerate(parts)]


LAYOUT = {
    "backbone": [
        [-1, 1, "MS_GetT", [3, 2]],
        [-1, 1, "MS_DownSampling", [16, 7, 4, 2, True]],
        [-1, 2, "MS_AllConvBlock", [2, 7]],
        [-1, 1, "MS_DownSampling", [32, 3, 2, 1, False]],
        [-1, 1, "MS_ConvBlock", [2, 7]],
    ],
    "head": [
        [-1, 1, "MS_StandardConv", [16, 1, 1]],
        [-1, 1, "nn.Upsample", [None, "(1,2,2)", "nearest"]],
        [[-1, 2], 1, "Concat", [2]],
        [-1, 1, "MS_StandardConv", [32, 3, 2]],
        [-1, 1, "SpikeSPPF", [32, 5]],
        [[2, 9], 1, "SpikeDetect", ["nc"]],
    ],
}


class Detector(nn.Module):
    """``LAYOUT``: real images, or frames [B, T, C, H, W], to box and class maps of two scales."""

    def __init__(self, T: int = 2):
        super().__init__()
        self.T = T
        layers = [nn.Identity(), Down(3, 4, 7, 4, 2, True), nn.Sequential(AllBlock(4, 2), AllBlock(4, 2)),
                  Down(4, 6, 3, 2, 1, False), RepBlock(6, 2), Unit(6, 4), nn.Identity(), nn.Identity(),
                  Unit(8, 6, 3, 2), Sppf(6), Detect((4, 6), 3, 4)]  # fmt: skip
        self.model = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        frames = images.transpose(0, 1) if images.ndim == 5 else images.expand(self.T, *images.shape)
        m, values = self.model, [frames]
        for n in range(1, 6):
            values.append(m[n](values[-1]))
        values.append(values[5].repeat_interleave(2, -1).repeat_interleave(2, -2))
        values.append(torch.cat([values[6], values[2]], 2))
        values.append(m[8](values[7]))
        values.append(m[9](values[8]))
        return m[10]([values[2], values[9]])


# ---- SpikeYOLO at its published sizes ----

SCALES = {"n": (0.33, 0.375, 1), "s": (0.33, 0.5, 1), "m": (0.5, 0.625, 2), "l": (0.5, 0.75, 2)}
"""Of the authors' snn_yolov8.yaml: depth, width, and the ratio of layer 25 that its comments ask for."""


def published(depth: float, width: float, last: int, classes: int = 80) -> nn.ModuleList:
    """Layers of the published layout, in order; those without tensors are Identity."""
    from nmc_compiler.frontends.spikeyolo import PUBLISHED

    layers, widths = nn.ModuleList(), [3]
    for at, (before, repeats, kind, (first, *rest)) in enumerate(PUBLISHED):
        reads = [widths[k + 1] if k >= 0 else widths[-1] for k in (before if isinstance(before, tuple) else (before,))]
        cin, count = reads[0], max(round(repeats * depth), 1) if repeats > 1 else repeats
        out, made = cin, nn.Identity()
        if kind == "MS_DownSampling":
            out = int(first * width)
            made = Down(cin, out, *rest)
        elif kind in ("MS_AllConvBlock", "MS_ConvBlock"):
            ratio, cls = (last if at == 25 else first), AllBlock if kind == "MS_AllConvBlock" else RepBlock
            made = nn.Sequential(*(cls(cin, ratio) for _ in range(count))) if count > 1 else cls(cin, ratio)
        elif kind == "SpikeSPPF":
            made = Sppf(cin)
        elif kind == "MS_StandardConv":
            out = int(first * width)
            made = Unit(cin, out, *rest)
        elif kind == "Concat":
            out = sum(reads)
        elif kind == "SpikeDetect":
            made = Detect(tuple(reads), classes, 64, (max(16, reads[0] // 4, 64), max(reads[0], classes)))
            made.dfl = nn.Module()
            made.dfl.conv = nn.Conv2d(16, 1, 1, bias=False)
        layers.append(made)
        widths.append(out)
    return layers
