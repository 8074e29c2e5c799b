"""E-3DSNN's classifier in plain PyTorch, written from its equations, with the authors' names of modules and parameters.

Sparse tensors are features [n, C] and voxels [n, 4] (sample, x, y, z). A convolution gathers what each voxel reads in
each tap, and multiplies: what spconv does, on any processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 4


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.floor(x.clamp(0, LEVELS) + 0.5)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * ((x > 0) & (x < LEVELS))


class Multispike(nn.Module):
    """Codes 0..4, halves rounded up; the gradient passes between 0 and 4."""

    def forward(self, x: Tensor) -> Tensor:
        return _Spike.apply(x)


@dataclass(frozen=True)
class Sparse:
    """features [n, C] on voxels int64 [n, 4]; extent: largest coordinate + 1 along x, y, z; rules: see ``joined``."""

    features: Tensor
    voxels: Tensor
    extent: tuple[int, int, int]
    rules: dict[int, Tensor] = field(default_factory=dict)

    def joined(self, kernel: int) -> Tensor:
        """Row that each voxel reads in each tap of a submanifold convolution, [n, taps]; n where there is none."""
        if kernel not in self.rules:
            extent = tuple(n + 2 * kernel for n in self.extent)  # room for taps beyond the border
            shifted = self.voxels + torch.tensor([0, *[kernel] * 3])
            keys, order = _keys(shifted, extent).sort()
            axis = torch.arange(kernel) - kernel // 2
            moves = F.pad(torch.cartesian_prod(axis, axis, axis), (1, 0))
            wanted = _keys((shifted[:, None] + moves).reshape(-1, 4), extent)
            at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            self.rules[kernel] = torch.where(keys[at] == wanted, order[at], len(keys)).reshape(len(keys), -1)
        return self.rules[kernel]


def _keys(voxels: Tensor, extent: tuple[int, ...]) -> Tensor:
    sample, x, y, z = voxels.unbind(1)
    return ((sample * extent[0] + x) * extent[1] + y) * extent[2] + z


def _gathered(features: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Weights [out, taps..., in] times the features that each target reads in each tap; rows [targets, taps]."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return padded[rows].flatten(1) @ weight.flatten(1).T


class SubMConv3d(nn.Module):
    """Between equal voxels; weight [out, k, k, k, in], as spconv 2 stores it.

    With kernel 1 spconv reads the same numbers as a matrix [in, out], which is not the transpose; so does this.
    """

    def __init__(self, ins: int, outs: int, kernel: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outs, kernel, kernel, kernel, ins))
        nn.init.trunc_normal_(self.weight, std=(2.0 / (ins * min(kernel**3, 9))) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outs)) if bias else None

    def forward(self, x: Sparse) -> Sparse:
        outs, kernel, *_, ins = self.weight.shape
        if kernel == 1:
            out = x.features @ self.weight.reshape(ins, outs)
        else:
            out = _gathered(x.features, x.joined(kernel), self.weight)
        return replace(x, features=out if self.bias is None else out + self.bias)


class SparseConv3d(nn.Module):
    """Kernel 2, stride 2: its voxels are those it reaches, numbered as they are reached."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outs, 2, 2, 2, ins))
        nn.init.trunc_normal_(self.weight, std=(2.0 / (ins * 3)) ** 0.5)

    def forward(self, x: Sparse) -> Sparse:
        extent = tuple(-(-n // 2) for n in x.extent)
        coarse, number = torch.cat([x.voxels[:, :1], x.voxels[:, 1:] // 2], dim=1), torch.arange(len(x.voxels))
        found, of = _keys(coarse, extent).unique(return_inverse=True)
        first = torch.full((len(found),), len(number)).scatter_reduce(0, of, number, "amin")
        order = first.argsort()
        slot = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))[of]
        tap = ((x.voxels[:, 1] % 2) * 2 + x.voxels[:, 2] % 2) * 2 + x.voxels[:, 3] % 2
        rows = torch.full((len(found), 8), len(number))
        rows[slot, tap] = number
        return Sparse(_gathered(x.features, rows, self.weight), coarse[first[order]], extent)


class SparseSequential(nn.Sequential):
    """Convolutions take and give sparse tensors, other modules features."""

    def forward(self, x: Sparse) -> Sparse:
        for module in self:
            sparse = isinstance(module, (SubMConv3d, SparseConv3d))
            x = module(x) if sparse else replace(x, features=module(x.features))
        return x


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)


def _unit(channels: int) -> list[nn.Module]:
    return [Multispike(), SubMConv3d(channels, channels, 3), _norm(channels)]


class BasicBlock(nn.Module):
    """Membrane residuals over one convolution, then over two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = SparseSequential(*_unit(channels))
        self.voxel_block = SparseSequential(*_unit(channels), *_unit(channels))

    def forward(self, x: Sparse) -> Sparse:
        x = replace(x, features=self.block(x).features + x.features)
        return replace(x, features=self.voxel_block(x).features + x.features)


class DownBlock(nn.Module):
    """Half the resolution, then blocks."""

    def __init__(self, ins: int, outs: int, depth: int) -> None:
        super().__init__()
        self.down = SparseSequential(Multispike(), SparseConv3d(ins, outs), _norm(outs))
        self.blocks = nn.ModuleList(BasicBlock(outs) for _ in range(depth))

    def forward(self, x: Sparse) -> Sparse:
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        return x


class Classifier(nn.Module):
    """Stem, stages of half the resolution each, and the mean over voxels of a linear head."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        embed_channels: int,
        enc_channels: tuple[int, ...],
        enc_depth: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.stem = SparseSequential(
            SubMConv3d(in_channels, embed_channels, 3), _norm(embed_channels), *_unit(embed_channels),
            *_unit(embed_channels),
        )  # fmt: skip
        widths = (embed_channels, *enc_channels)
        stages = zip(widths, enc_channels, enc_depth, strict=False)
        self.enc = nn.ModuleList(DownBlock(ins, outs, depth) for ins, outs, depth in stages)
        self.final = SubMConv3d(enc_channels[-1], num_classes, 1, bias=True)

    def forward(self, x: Sparse) -> Tensor:
        """Logits [samples, classes]."""
        x = self.stem(x)
        for stage in self.enc:
            x = stage(x)
        x = self.final(x)
        samples = int(x.voxels[:, 0].max()) + 1
        count = torch.bincount(x.voxels[:, 0], minlength=samples)[:, None]
        return x.features.new_zeros(samples, x.features.shape[1]).index_add(0, x.voxels[:, 0], x.features) / count
