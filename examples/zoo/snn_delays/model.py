"""Two hidden layers whose synapses learn their delays, in plain PyTorch.

Hammouamri et al., "Learning Delays in Spiking Neural Networks using Dilated Convolutions with Learnable Spacings", ICLR
2024 (arXiv:2306.17670). Keys are those of the published state_dicts: ``model.<n>`` in the order of the layers. Inside
time comes last before the convolutions, ``[B, N, T]``, and first before the neurons, ``[T, B, N]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "digits"))

import torch
from model import AtanSpike
from torch import Tensor, nn

CONFIG = {
    "family": "snn_delays", "n_inputs": 16, "n_hidden_layers": 2, "n_outputs": 10, "max_delay": 9, "init_tau": 2.0,
    "v_threshold": 1.0, "loss": "mean", "T": 16, "input_bits": 3,
}  # fmt: skip
HIDDEN = 48


class DelayedLinear(nn.Module):
    """y[t] = sum of W x[t - d], d = max_delay // 2 - P; in training a bump of width SIG around P instead of one tap."""

    def __init__(self, inputs: int, outputs: int, taps: int):
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.P = nn.Parameter(torch.empty(1, outputs, inputs, 1).uniform_(-taps // 2, taps // 2))
        self.SIG = nn.Parameter(torch.full((1, outputs, inputs, 1), taps / 2), requires_grad=False)

    def kernel(self) -> Tensor:
        """[O, I, taps]: the weights at their delays."""
        half = self.taps // 2
        places = torch.arange(self.taps, dtype=self.P.dtype) - half
        if self.training:
            bump = torch.exp(-0.5 * ((places - self.P[0].clamp(-half, half)) / (self.SIG[0] + 0.27)) ** 2)
        else:
            bump = (places == self.P[0].clamp(-half, half).round()).to(self.P.dtype)
        return self.weight * (bump / (bump.sum(-1, keepdim=True) + 1e-7))

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x.permute(1, 2, 0), (self.taps - 1, self.taps // 2))
        return nn.functional.conv1d(padded, self.kernel()).permute(2, 0, 1)


class Norm(nn.BatchNorm1d):
    """Over batch and time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Leaky(nn.Module):
    """h = v - v / tau + x,  s = H(h - theta),  v = (1 - s) h."""

    def __init__(self, tau: float, theta: float):
        super().__init__()
        self.tau, self.theta = tau, theta

    def forward(self, current: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(current[0]), []
        for x in current:
            h = v - v / self.tau + x
            spikes.append(AtanSpike.apply(h - self.theta))
            v = (1 - spikes[-1].detach()) * h
        return torch.stack(spikes)


class Potential(nn.Module):
    """A Leaky that never fires: its potential."""

    def __init__(self, tau: float):
        super().__init__()
        self.tau = tau

    def forward(self, current: Tensor) -> Tensor:
        v, values = torch.zeros_like(current[0]), []
        for x in current:
            v = v - v / self.tau + x
            values.append(v)
        return torch.stack(values)


class Delays(nn.Module):
    """Counts ``[T, B, N]`` to potentials ``[T + (max_delay // 2) * layers, B, classes]``, whose mean is the class."""

    def __init__(self, *, n_inputs: int, n_hidden_layers: int, n_outputs: int, max_delay: int, init_tau: float,
                 v_threshold: float, n_hidden_neurons: int = HIDDEN):  # fmt: skip
        super().__init__()
        widths = [n_inputs, *[n_hidden_neurons] * n_hidden_layers]
        layers: list[nn.Module] = []
        for cin, out in zip(widths, widths[1:], strict=False):
            layers += [DelayedLinear(cin, out, max_delay), Norm(out), Leaky(init_tau, v_threshold), nn.Dropout(0.1)]
        self.model = nn.Sequential(*layers, DelayedLinear(widths[-1], n_outputs, max_delay), Potential(init_tau))

    def forward(self, counts: Tensor) -> Tensor:
        return self.model(counts)


def build() -> Delays:
    skip = ("family", "loss", "T", "input_bits")
    return Delays(**{k: v for k, v in CONFIG.items() if k not in skip})
