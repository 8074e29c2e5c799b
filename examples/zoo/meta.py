"""Building blocks of the Meta-SpikeFormer networks (sdt_v2, qsd, sdt_v3_large) in plain PyTorch, from the equations.

- Yao et al., "Spike-driven Transformer V2", ICLR 2024 (arXiv:2404.03663);
- Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training" (V3), TPAMI 2025
  (arXiv:2411.16061);
- Qiu et al., "Quantized Spike-driven Transformer", ICLR 2025 (arXiv:2501.13492).

Module names equal those of the published checkpoints. Shapes inside: ``[T, B, C, H, W]``, tokens ``[T, B, C, N]``.
A ``Parts`` says what a family is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from model import each_step
from torch import Tensor, nn


class Levels(torch.autograd.Function):
    """floor(clamp(x, 0, top) + 1/2), or torch.round where ``even``; the gradient is 1 inside the range."""

    @staticmethod
    def forward(ctx, x: Tensor, top: int, even: bool) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < top))
        clamped = x.clamp(0, top)
        return clamped.round() if even else (clamped + 0.5).floor()

    @staticmethod
    def backward(ctx, grad: Tensor):
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


class MultiSpike(nn.Module):
    """Integer code 0..top of ``gain * x``, divided by ``norm``; no state."""

    def __init__(self, norm: int = 4, gain: float = 1.0, top: int = 4, even: bool = False):
        super().__init__()
        self.norm, self.gain, self.top, self.even = norm, gain, top, even

    def forward(self, x: Tensor) -> Tensor:
        return Levels.apply(self.gain * x, self.top, self.even) / self.norm


@dataclass(frozen=True)
class Parts:
    """Constructors of neurons and linear layers, and the factor of an attention product."""

    neuron: Callable[[], nn.Module]
    attention_neuron: Callable[[], nn.Module]
    scale: float
    conv2d: Callable[..., nn.Module] = nn.Conv2d
    conv1d: Callable[..., nn.Module] = nn.Conv1d
    layer_scale: bool = False


class NormAndPad(nn.Module):
    """Batch norm, then a ring of one pixel that holds what the norm gives for zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn
        ring = bn.bias - bn.running_mean * bn.weight / torch.sqrt(bn.running_var + bn.eps)
        inside = nn.functional.pad(torch.ones_like(x[:1, :1]), (1, 1, 1, 1))
        padded = nn.functional.pad(bn(x), (1, 1, 1, 1))
        return padded + (1 - inside) * ring.detach().view(1, -1, 1, 1)


class RepConv(nn.Module):
    """1x1, norm and ring, depthwise 3x3, 1x1, norm."""

    def __init__(self, parts: Parts, dim: int):
        super().__init__()
        spread = nn.Sequential(parts.conv2d(dim, dim, 3, groups=dim, bias=False), parts.conv2d(dim, dim, 1, bias=False))
        self.body = nn.Sequential(
            parts.conv2d(dim, dim, 1, bias=False), NormAndPad(dim), nn.Sequential(*spread, nn.BatchNorm2d(dim))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class SepConv(nn.Module):
    """Pointwise to twice the channels; depthwise 7x7 and pointwise back, with nothing between these two."""

    def __init__(self, parts: Parts, dim: int):
        super().__init__()
        wide = 2 * dim
        self.lif1, self.lif2 = parts.neuron(), parts.neuron()
        self.pwconv1, self.bn1 = parts.conv2d(dim, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.dwconv = parts.conv2d(wide, wide, 7, padding=3, groups=wide, bias=False)
        self.pwconv2, self.bn2 = parts.conv2d(wide, dim, 1, bias=False), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif2(each_step(nn.Sequential(self.pwconv1, self.bn1), self.lif1(x)))
        return each_step(nn.Sequential(self.dwconv, self.pwconv2, self.bn2), s)


class ConvBlock(nn.Module):
    """x + SepConv(x), then x + two 3x3 convolutions through ``ratio`` times the channels."""

    def __init__(self, parts: Parts, dim: int, ratio: int):
        super().__init__()
        wide = ratio * dim
        self.Conv = SepConv(parts, dim)
        self.lif1, self.lif2 = parts.neuron(), parts.neuron()
        self.conv1, self.bn1 = parts.conv2d(dim, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = parts.conv2d(wide, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Conv(x)
        h = each_step(nn.Sequential(self.conv1, self.bn1), self.lif1(x))
        return x + each_step(nn.Sequential(self.conv2, self.bn2), self.lif2(h))


class Attention(nn.Module):
    """neuron(scale * q (k^T v)) per head; ``project(dim)`` makes what q, k, v and the output go through."""

    def __init__(self, parts: Parts, dim: int, num_heads: int, project: Callable[[int], nn.Module]):
        super().__init__()
        self.num_heads, self.scale = num_heads, parts.scale
        self.head_lif = parts.neuron()
        self.q_conv, self.k_conv, self.v_conv = project(dim), project(dim), project(dim)
        self.q_lif, self.k_lif, self.v_lif = parts.neuron(), parts.neuron(), parts.neuron()
        self.attn_lif = parts.attention_neuron()
        self.proj_conv = project(dim)

    def forward(self, x: Tensor) -> Tensor:
        s = self.head_lif(x)
        currents = [each_step(conv, s) for conv in (self.q_conv, self.k_conv, self.v_conv)]
        spikes = (lif(c) for lif, c in zip((self.q_lif, self.k_lif, self.v_lif), currents, strict=True))
        q, k, v = (y.flatten(3).unflatten(2, (self.num_heads, -1)) for y in spikes)  # [T, B, heads, d, N]
        product = self.scale * (v @ k.transpose(-1, -2)) @ q
        return each_step(self.proj_conv, self.attn_lif(product.flatten(2, 3)).reshape(x.shape))


class Mlp(nn.Module):
    """Two units of neuron, Conv1d, norm on tokens."""

    def __init__(self, parts: Parts, dim: int, ratio: int):
        super().__init__()
        self.fc1_lif, self.fc1_conv = parts.neuron(), parts.conv1d(dim, ratio * dim, 1)
        self.fc1_bn = nn.BatchNorm1d(ratio * dim)
        self.fc2_lif, self.fc2_conv = parts.neuron(), parts.conv1d(ratio * dim, dim, 1)
        self.fc2_bn = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        h = each_step(nn.Sequential(self.fc1_conv, self.fc1_bn), self.fc1_lif(x.flatten(3)))
        return each_step(nn.Sequential(self.fc2_conv, self.fc2_bn), self.fc2_lif(h)).reshape(x.shape)


class Block(nn.Module):
    """Attention and MLP on the residual stream, each times its LayerScale where the family has one."""

    def __init__(self, parts: Parts, dim: int, num_heads: int, ratio: int, project: Callable[[int], nn.Module]):
        super().__init__()
        self.attn = Attention(parts, dim, num_heads, project)
        self.mlp = Mlp(parts, dim, ratio)
        if parts.layer_scale:
            self.layer_scale1, self.layer_scale2 = (nn.Parameter(torch.ones(dim)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._scaled(self.attn(x), "layer_scale1")
        return x + self._scaled(self.mlp(x), "layer_scale2")

    def _scaled(self, branch: Tensor, name: str) -> Tensor:
        """``branch`` times LayerScale over channels, axis 2."""
        if not hasattr(self, name):
            return branch
        return branch * getattr(self, name).view(1, 1, -1, *[1] * (branch.dim() - 3))


class Down(nn.Module):
    """[Neuron,] strided convolution with bias, norm."""

    def __init__(self, parts: Parts, cin: int, out: int, stride: int = 2, first: bool = False):
        super().__init__()
        kernel = 7 if first else 3
        self.encode_conv = parts.conv2d(cin, out, kernel, stride=stride, padding=kernel // 2)
        self.encode_bn = nn.BatchNorm2d(out)
        if not first:
            self.encode_lif = parts.neuron()

    def forward(self, x: Tensor) -> Tensor:
        s = self.encode_lif(x) if hasattr(self, "encode_lif") else x
        return each_step(nn.Sequential(self.encode_conv, self.encode_bn), s)


class MetaSpikeFormer(nn.Module):
    """Two convolutional stages, two attention stages, token mean, neuron, linear head (mean over time)."""

    def __init__(self, parts: Parts, linear: Callable[..., nn.Module], *, in_channels: int, num_classes: int,
                 embed_dim: list[int], num_heads: int, mlp_ratios: int, T: int, blocks: tuple[int, int] = (6, 2),
                 kd: bool = False):  # fmt: skip
        super().__init__()
        self.T = T
        dims = [in_channels, embed_dim[0] // 2, *embed_dim]
        self.downsample1_1 = Down(parts, dims[0], dims[1], first=True)
        self.ConvBlock1_1 = nn.ModuleList([ConvBlock(parts, dims[1], mlp_ratios)])
        self.downsample1_2 = Down(parts, dims[1], dims[2])
        self.ConvBlock1_2 = nn.ModuleList([ConvBlock(parts, dims[2], mlp_ratios)])
        self.downsample2 = Down(parts, dims[2], dims[3])
        self.ConvBlock2_1 = nn.ModuleList([ConvBlock(parts, dims[3], mlp_ratios)])
        self.ConvBlock2_2 = nn.ModuleList([ConvBlock(parts, dims[3], mlp_ratios)])
        self.downsample3 = Down(parts, dims[3], dims[4])
        self.block3 = self._stage(parts, dims[4], num_heads, mlp_ratios, blocks[0])
        self.downsample4 = Down(parts, dims[4], dims[5], stride=1)
        self.block4 = self._stage(parts, dims[5], num_heads, mlp_ratios, blocks[1])
        self.lif = parts.neuron()
        self.head = linear(dims[5], num_classes)
        if kd:
            self.head_kd = linear(dims[5], num_classes)

    @staticmethod
    def _stage(parts: Parts, dim: int, heads: int, ratio: int, count: int) -> nn.ModuleList:
        def project(dim: int) -> nn.Module:
            return nn.Sequential(RepConv(parts, dim), nn.BatchNorm2d(dim))

        return nn.ModuleList([Block(parts, dim, heads, ratio, project) for _ in range(count)])

    def forward(self, images: Tensor) -> Tensor:
        x = self.downsample1_1(images.expand(self.T, *images.shape))
        stages = (self.ConvBlock1_1, [self.downsample1_2], self.ConvBlock1_2, [self.downsample2], self.ConvBlock2_1,
                  self.ConvBlock2_2, [self.downsample3], self.block3, [self.downsample4], self.block4)  # fmt: skip
        for stage in stages:
            for module in stage:
                x = module(x)
        s = self.lif(x.flatten(3).mean(3))
        heads = [self.head, self.head_kd] if hasattr(self, "head_kd") else [self.head]
        return torch.stack([head(s).mean(0) for head in heads]).mean(0)


def wake(model: nn.Module, attention: float = 1.0) -> nn.Module:
    """The same network, its currents around half a threshold (those of q, k and v: ``attention``), so that it spikes.

    A layer behind silence has no spread for its batch norm, whose gradients then are hundreds of times too large.
    """
    for name, module in model.named_modules():
        if name.endswith(("q_conv.1", "k_conv.1", "v_conv.1")):
            nn.init.constant_(module.bias, attention)
        elif name.endswith(("encode_bn", "bn1", "fc1_bn", "conv1.0.1")):
            nn.init.constant_(module.bias, 0.5)
    return model
