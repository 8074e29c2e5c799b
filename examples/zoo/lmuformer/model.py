"""Spiking LMUFormer in plain PyTorch: a memory with a fixed matrix in place of attention, along a sequence.

Liu et al., "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units", ICLR 2024
(arXiv:2402.04882). Keys are those of the published state_dicts. The positions of the sequence are the timesteps of
every LIF: inside signals are ``[B, C, N]``, and ``[N, B, C]`` in front of neurons.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "digits"))

import numpy as np
import torch
from model import Lif, recording  # noqa: F401
from scipy.signal import cont2discrete
from torch import Tensor, nn

CONFIG = {
    "family": "lmuformer", "embed_dims": 24, "in_channels": 16, "num_classes": 10, "mlp_ratios": 2, "depths": 1,
    "audio_length": 16,
}  # fmt: skip
EPOCHS, RATE = 80, 8e-3
LOOK_AHEAD = 5  # positions that the convolutions of the embedding see behind a row


def legendre(size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """A and B of a Legendre memory of ``theta`` timesteps, held constant over each (Voelker et al., 2019)."""
    q = np.arange(size, dtype=np.float64)[:, None]
    row, column = np.meshgrid(q, q, indexing="ij")
    rate = (2 * q + 1) / theta
    a = np.where(row < column, -1.0, (-1.0) ** (row - column + 1)) * rate
    system = (a, rate * (-1.0) ** q, np.ones((1, size)), np.zeros(1))
    return cont2discrete(system, dt=1.0, method="zoh")[:2]


class Sequence(nn.Module):
    """A module with layers called ``<before><kind><after>``."""

    def spikes(self, x: Tensor, name: str, after: str = "", theta: float = 1.0) -> Tensor:
        """LIF(BN x), [B, C, N] to the same."""
        return self.fired(getattr(self, f"{name}_bn{after}")(x), f"{name}_lif{after}")

    def fired(self, x: Tensor, name: str) -> Tensor:
        return getattr(self, name)(x.permute(2, 0, 1)).permute(1, 2, 0)


class Embedding(Sequence):
    """Five convolutions of three taps; the last is a position code of what it sees."""

    def __init__(self, channels: int, dim: int, membrane: bool):
        super().__init__()
        self.membrane = membrane
        for after, inputs in (("", channels), ("1", dim), ("2", dim), ("3", dim)):
            self.add_module(f"proj_conv{after}", nn.Conv1d(inputs, dim, 3, padding=1, bias=False))
            self.add_module(f"proj_bn{after}", nn.BatchNorm1d(dim))
            self.add_module(f"proj_lif{after}", Lif())
        self.rpe_conv = nn.Conv1d(dim, dim, 3, padding=1, bias=False)
        if not membrane:
            self.rpe_bn, self.rpe_lif = nn.BatchNorm1d(dim), Lif()

    def forward(self, x: Tensor) -> Tensor:
        for after in ("", "1", "2"):
            x = self.spikes(getattr(self, f"proj_conv{after}")(x), "proj", after)
        current = self.proj_conv3(x)
        spikes = self.spikes(current, "proj", "3")
        position = self.rpe_conv(spikes)
        return current + position if self.membrane else spikes + self.spikes(position, "rpe")


class Memory(Sequence):
    """u = LIF(BN(W_u x));  m = LIF(BN(sum of H[:, k] u_{t-k}));  h = LIF(BN(W_h [m; x]))."""

    def __init__(self, dim: int, size: int, steps: int):
        super().__init__()
        a, b = legendre(size, steps)
        response = [b]
        for _ in range(steps - 1):
            response.append(a @ response[-1])
        h = torch.from_numpy(np.concatenate(response, axis=1)).float()
        for key, array in (("A", a), ("B", b)):
            self.register_buffer(key, torch.from_numpy(array).float())
        self.register_buffer("H", h)
        self.register_buffer("fft_H", torch.fft.rfft(h, 2 * steps))
        self.W_u, self.W_h = nn.Linear(dim, 1), nn.Linear(size + dim, dim)
        self.bn_u, self.bn_m, self.bn_h = (nn.BatchNorm1d(n) for n in (1, size, dim))
        self.f_u, self.f_m, self.f_h = Lif(), Lif(), Lif()

    def forward(self, x: Tensor) -> Tensor:
        u = self.layer(self.W_u(x.mT).mT, "u")
        steps = x.shape[-1]
        moved = torch.fft.irfft(torch.fft.rfft(u, 2 * steps) * self.fft_H, 2 * steps)[..., :steps]
        m = self.layer(moved, "m")
        return self.layer(self.W_h(torch.cat([m, x], 1).mT).mT, "h")

    def layer(self, x: Tensor, name: str) -> Tensor:
        return self.fired(getattr(self, f"bn_{name}")(x), f"f_{name}")


class Attention(Sequence):
    """The memory and a projection: of a membrane to a current, or of spikes to spikes."""

    def __init__(self, dim: int, steps: int, membrane: bool):
        super().__init__()
        self.membrane = membrane
        if membrane:
            self.prev_bn, self.prev_lif = nn.BatchNorm1d(dim), Lif(theta=0.5)
        self.lmu = Memory(dim, 2 * dim, steps)
        self.proj_conv, self.proj_bn = nn.Conv1d(dim, dim, 1), nn.BatchNorm1d(dim)
        if not membrane:
            self.proj_lif = Lif()

    def forward(self, x: Tensor) -> Tensor:
        current = self.proj_conv(self.lmu(self.spikes(x, "prev") if self.membrane else x))
        return self.proj_bn(current) if self.membrane else self.spikes(current, "proj")


class Mlp(Sequence):
    """Two convolutions of one tap, of a membrane behind their norm and LIF, of spikes before them."""

    def __init__(self, dim: int, hidden: int, membrane: bool):
        super().__init__()
        self.membrane = membrane
        for name, inputs, outputs in (("fc1", dim, hidden), ("fc2", hidden, dim)):
            self.add_module(f"{name}_conv", nn.Conv1d(inputs, outputs, 1))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(inputs if membrane else outputs))
            self.add_module(f"{name}_lif", Lif())

    def forward(self, x: Tensor) -> Tensor:
        for name in ("fc1", "fc2"):
            conv = getattr(self, f"{name}_conv")
            x = conv(self.spikes(x, name)) if self.membrane else self.spikes(conv(x), name)
        return x


class Block(nn.Module):
    def __init__(self, dim: int, ratio: float, steps: int, membrane: bool):
        super().__init__()
        self.attn, self.mlp = Attention(dim, steps, membrane), Mlp(dim, int(dim * ratio), membrane)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class LmuFormer(Sequence):
    """Sequences ``[B, N, C]`` to logits; ``membrane``: residuals of currents (slmu_rnn_ms_conv1d), else of spikes."""

    def __init__(self, *, embed_dims: int, in_channels: int, num_classes: int, mlp_ratios: float, depths: int,
                 audio_length: int, membrane: bool = True, family: str = ""):  # fmt: skip
        super().__init__()
        self.patch_embed = Embedding(in_channels, embed_dims, membrane)
        self.block = nn.ModuleList([Block(embed_dims, mlp_ratios, audio_length, membrane) for _ in range(depths)])
        if membrane:
            self.head_bn, self.head_lif = nn.BatchNorm1d(embed_dims), Lif()
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x.mT)
        for block in self.block:
            x = block(x)
        if hasattr(self, "head_lif"):
            x = self.spikes(x, "head")
        return self.head(x.mT).mean(1)


def build() -> LmuFormer:
    return LmuFormer(**CONFIG)
