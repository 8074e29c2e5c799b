"""A Spike-Driven Transformer in plain PyTorch, written from the equations of the V1 paper.

Yao et al., "Spike-driven Transformer", NeurIPS 2023 (arXiv:2307.01694): binary spikes, LIF-conv-BN order,
residuals on membrane currents, and the first spike-driven self-attention (SDSA-1), a mask without softmax.
Module names equal those of the published checkpoints, so a ``state_dict`` of this class reads like theirs.

Shapes: images ``[B, C, H, W]``; inside the net time comes first, ``[T, B, C, H, W]``; logits
``[B, classes]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AtanSpike(torch.autograd.Function):
    """Heaviside step with H(0) = 1; its gradient is that of atan(pi x) / pi, i.e. 1 / (1 + (pi x)^2)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (1 + (math.pi * x) ** 2)


class Lif(nn.Module):
    """Leaky integrate-and-fire over the leading time axis, from rest.

    h = v + (x - v) / tau,  s = H(h - theta),  v = (1 - s) h   (decayed input, hard reset to 0).
    """

    def __init__(self, theta: float = 1.0, tau: float = 2.0):
        super().__init__()
        self.theta, self.tau = theta, tau

    def forward(self, current: Tensor) -> Tensor:
        v = torch.zeros_like(current[0])
        spikes = []
        for x in current:
            h = v + (x - v) / self.tau
            s = AtanSpike.apply(h - self.theta)
            # Detached: the surrogate gradient does not flow through the reset.
            v = (1 - s.detach()) * h
            spikes.append(s)
        return torch.stack(spikes)


def each_step(op: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a stateless op to every timestep: ``[T, B, ...]`` as one batch of T * B."""
    return op(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SpikingPatchEmbed(nn.Module):
    """Four 3x3 conv stages and a relative position conv.

    ``pooling_stat`` holds one flag per stage. Stages 0 to 2 pool spikes; stage 3 pools currents, before its
    LIF, because its output is also the membrane shortcut.
    """

    def __init__(self, in_channels: int, embed_dims: int, pooling_stat: str):
        super().__init__()
        self.pools = [flag == "1" for flag in pooling_stat]
        widths = [in_channels, embed_dims // 8, embed_dims // 4, embed_dims // 2, embed_dims]
        for stage, suffix in enumerate(("", "1", "2", "3")):
            self.add_module(f"proj_conv{suffix}", nn.Conv2d(*widths[stage : stage + 2], 3, 1, 1, bias=False))
            self.add_module(f"proj_bn{suffix}", nn.BatchNorm2d(widths[stage + 1]))
            self.add_module(f"proj_lif{suffix}", Lif())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.rpe_conv = nn.Conv2d(embed_dims, embed_dims, 3, 1, 1, bias=False)
        self.rpe_bn = nn.BatchNorm2d(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        for stage, suffix in enumerate(("", "1", "2")):
            x = getattr(self, f"proj_lif{suffix}")(self._conv_bn(suffix, x))
            x = each_step(self.pool, x) if self.pools[stage] else x
        x = self._conv_bn("3", x)
        x = each_step(self.pool, x) if self.pools[3] else x
        return x + each_step(self.rpe_bn, each_step(self.rpe_conv, self.proj_lif3(x)))

    def _conv_bn(self, suffix: str, x: Tensor) -> Tensor:
        return each_step(getattr(self, f"proj_bn{suffix}"), each_step(getattr(self, f"proj_conv{suffix}"), x))


class SpikeDrivenAttention(nn.Module):
    """SDSA-1: mask[c] = LIF_0.5(sum over tokens n of k[n, c] v[n, c]);  o[n, c] = q[n, c] mask[c]."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.shortcut_lif = Lif()
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", nn.Conv2d(dim, dim, 1, bias=False))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(dim))
            self.add_module(f"{name}_lif", Lif())
        self.talking_heads_lif = Lif(theta=0.5)
        self.proj_conv = nn.Conv2d(dim, dim, 1)
        self.proj_bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.shortcut_lif(x)
        q, k, v = (self._project(name, spikes) for name in ("q", "k", "v"))
        counts = (k * v).flatten(3).sum(3)  # [T, B, C]: how many tokens have both k and v
        by_head = counts.unflatten(2, (self.num_heads, 1, -1))  # [T, B, heads, 1, C / heads]
        mask = self.talking_heads_lif(by_head).flatten(2)[..., None, None]
        return each_step(self.proj_bn, each_step(self.proj_conv, q * mask))

    def _project(self, name: str, spikes: Tensor) -> Tensor:
        current = each_step(getattr(self, f"{name}_bn"), each_step(getattr(self, f"{name}_conv"), spikes))
        return getattr(self, f"{name}_lif")(current)


class SpikingMlp(nn.Module):
    """LIF - 1x1 conv - BN, twice, through a hidden layer ``ratio`` times as wide; returns the new stream.

    When the hidden layer is no wider than the stream, the published class adds the first half's output too.
    """

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        hidden = dim * ratio
        self.inner_residual = hidden == dim
        self.fc1_lif, self.fc1_conv, self.fc1_bn = Lif(), nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.fc2_lif, self.fc2_conv, self.fc2_bn = Lif(), nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)

    def forward(self, stream: Tensor) -> Tensor:
        hidden = each_step(self.fc1_bn, each_step(self.fc1_conv, self.fc1_lif(stream)))
        if self.inner_residual:
            stream = hidden = stream + hidden
        return stream + each_step(self.fc2_bn, each_step(self.fc2_conv, self.fc2_lif(hidden)))


class SpikeDrivenBlock(nn.Module):
    """Attention and MLP, each added to the membrane current."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int):
        super().__init__()
        self.attn = SpikeDrivenAttention(dim, num_heads)
        self.mlp = SpikingMlp(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.attn(x))


class SpikeDrivenTransformer(nn.Module):
    """The whole net: the image is shown at each of T steps, and the logits are averaged over them."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dims: int, num_heads: int,
                 mlp_ratios: int, depths: int, T: int, pooling_stat: str):  # fmt: skip
        super().__init__()
        self.T = T
        self.patch_embed = SpikingPatchEmbed(in_channels, embed_dims, pooling_stat)
        blocks = (SpikeDrivenBlock(embed_dims, num_heads, mlp_ratios) for _ in range(depths))
        self.block = nn.ModuleList(blocks)
        self.head_lif = Lif()
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images.expand(self.T, *images.shape))
        for block in self.block:
            x = block(x)
        return self.head(self.head_lif(x.flatten(3).mean(3))).mean(0)


@contextmanager
def recording(model: nn.Module, kind: type[nn.Module] = Lif) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of every module of ``kind`` by module name while the block runs."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
        for name, module in model.named_modules()
        if isinstance(module, kind)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
