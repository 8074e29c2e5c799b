"""Parts of the networks of the zoo, in plain PyTorch, written from the papers' equations.

Layers carry the names of the published checkpoints: ``<name>_conv``, ``<name>_bn``, ``<name>_lif``. Inside the nets
time comes first, ``[T, B, C, H, W]``.
"""

from __future__ import annotations

from model import Lif, each_step
from torch import Tensor, nn


class Layers(nn.Module):
    """A module with convolutions, batch norms and LIFs of one name each.

    ``tokens``: layers over ``[T, B, C, N]`` (Conv1d, BatchNorm1d); ``tau`` of every LIF.
    """

    def __init__(self, tau: float = 2.0):
        super().__init__()
        self.tau = tau

    def layer(self, name: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, bias: bool = False,
              groups: int = 1, tokens: bool = False, lif: bool = True) -> None:  # fmt: skip
        """Add one; strided or wide kernels are padded to keep size / stride."""
        conv, bn = (nn.Conv1d, nn.BatchNorm1d) if tokens else (nn.Conv2d, nn.BatchNorm2d)
        self.add_module(f"{name}_conv", conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias))
        self.add_module(f"{name}_bn", bn(outputs))
        if lif:
            self.add_module(f"{name}_lif", Lif(tau=self.tau))

    def current(self, name: str, x: Tensor) -> Tensor:
        """BN(conv x)."""
        return each_step(getattr(self, f"{name}_bn"), each_step(getattr(self, f"{name}_conv"), x))

    def spikes(self, name: str, x: Tensor, pool: nn.Module | None = None) -> Tensor:
        """LIF(BN(conv x)), with a pool of the current where one is given."""
        current = self.current(name, x)
        return getattr(self, f"{name}_lif")(current if pool is None else each_step(pool, current))


MAX_POOL = nn.MaxPool2d(3, 2, 1)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[T, B, C, N] -> [T, B, heads, N, C / heads]."""
    return x.unflatten(2, (heads, -1)).transpose(3, 4)


class SelfAttention(Layers):
    """SSA: LIF_1/2(scale (q k^T) v) per head, without softmax, and the layer ``proj``.

    ``before``: name of a LIF in front of q, k and v (the input is a current, and so is what is returned).
    ``grid``: the last LIF sees [C, H, W] as the stream does, not [C, N].
    """

    def __init__(self, dim: int, heads: int, before: str = "", scale: float = 0.125, tau: float = 2.0,
                 grid: bool = False):  # fmt: skip
        super().__init__(tau)
        self.heads, self.before, self.scale, self.grid = heads, before, scale, grid
        if before:
            self.add_module(before, Lif(tau=tau))
        for name in "qkv":
            self.layer(name, dim, dim, tokens=True)
        self.attn_lif = Lif(theta=0.5, tau=tau)
        self.layer("proj", dim, dim, bias=True, tokens=True, lif=not before)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-2:]
        x = (getattr(self, self.before)(x) if self.before else x).flatten(3)
        q, k, v = (heads_of(self.spikes(name, x), self.heads) for name in "qkv")
        attended = (q @ (k.transpose(-2, -1) @ v)) * self.scale
        s = self.attn_lif(attended.transpose(3, 4).flatten(2, 3))
        current = self.current("proj", s)
        if self.before:
            return current.unflatten(-1, grid)
        return self.proj_lif(current.unflatten(-1, grid)) if self.grid else self.proj_lif(current).unflatten(-1, grid)


class TokenAttention(Layers):
    """Token-QKA: k where LIF_1/2 of the sum of q over the channels of its head fires, and the layer ``proj``.

    ``membrane``: a LIF comes first and a current is returned; else spikes come and are returned.
    """

    def __init__(self, dim: int, heads: int, membrane: bool):
        super().__init__()
        self.heads, self.membrane = heads, membrane
        for name in "qk":
            self.layer(name, dim, dim, tokens=True)
        self.attn_lif = Lif(theta=0.5)
        self.layer("proj", dim, dim, bias=True, tokens=True)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-2:]
        x = (self.proj_lif(x) if self.membrane else x).flatten(3)
        q, k = (self.spikes(name, x).unflatten(2, (self.heads, -1)) for name in "qk")
        masked = (self.attn_lif(q.sum(3, keepdim=True)) * k).flatten(2, 3)
        current = self.current("proj", masked).unflatten(-1, grid)
        return current if self.membrane else self.proj_lif(current)


class SpikeMlp(Layers):
    """conv - BN - LIF twice, through a hidden layer ``ratio`` times as wide; spikes in, spikes out."""

    def __init__(self, dim: int, ratio: float, name: str, tokens: bool = False):
        super().__init__()
        self.names = [f"{name}1", f"{name}2"]
        self.layer(self.names[0], dim, int(dim * ratio), bias=True, tokens=tokens)
        self.layer(self.names[1], int(dim * ratio), dim, bias=True, tokens=tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes(self.names[1], self.spikes(self.names[0], x))


class MembraneMlp(Layers):
    """LIF - conv - BN twice; a current in, the new residual stream out.

    ``inner``: where the hidden layer is no wider than the stream, what the first half gives is added too.
    """

    def __init__(self, dim: int, ratio: float, name: str, inner: bool, tau: float = 2.0):
        super().__init__(tau)
        self.names, hidden = [f"{name}1", f"{name}2"], int(dim * ratio)
        self.inner = inner and hidden == dim
        self.layer(self.names[0], dim, hidden, bias=True)
        self.layer(self.names[1], hidden, dim, bias=True)

    def forward(self, stream: Tensor) -> Tensor:
        hidden = self._half(0, stream)
        if self.inner:
            stream = hidden = stream + hidden
        return stream + self._half(1, hidden)

    def _half(self, n: int, x: Tensor) -> Tensor:
        return self.current(self.names[n], getattr(self, f"{self.names[n]}_lif")(x))


def shown(images: Tensor, steps: int) -> Tensor:
    """[T, B, C, H, W]: an image at every step, or frames [B, T, C, H, W] one a step."""
    return images.transpose(0, 1) if images.ndim == 5 else images.expand(steps, *images.shape)


class Dead(nn.Module):
    """A block with the two LayerNorms that the published classes define and never use."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
