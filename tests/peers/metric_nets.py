"""Networks whose operations are counted here and by others, with the numbers that go in.

Weights are small multiples of 1/8 or 1/4, some of them 0, and decays 1/2, so that float32 and float64 give the same
spikes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import zoo
from model import Lif
from torch import Tensor, nn
from traced_nets import describe

import nmc


def eighths(net: nn.Module, seed: int = 0, scale: float = 8.0) -> nn.Module:
    """Weights in eighths (1/``scale``), one in seven of them 0; biases above 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            drawn = torch.randint(-3, 4, p.shape, generator=generator)
            p.copy_((drawn if "bias" not in name else drawn.abs()) / scale)
    return net.eval()


def frames(*shape: int, top: int, seed: int = 0) -> np.ndarray:
    """Whole numbers 0 to ``top``, most of them 0, float32; the first timestep [:, 0] has no number above 1."""
    drawn = np.random.default_rng(seed).integers(-2, top + 1, shape).clip(0)
    drawn[:, 0] = drawn[:, 0].clip(0, 1)
    return drawn.astype(np.float32)


# ---- snnTorch: one timestep per call; what NeuroBench wants besides the spikes is not looked at ----


def leaky(**options: Any) -> nn.Module:
    import snntorch

    return snntorch.Leaky(beta=0.5, threshold=1.0, init_hidden=True, **options)


class TorchNet(nn.Module):
    """(spikes, spikes) of one timestep of ``layers``, the last of which is a neuron that gives its potential too."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def reset(self) -> None:
        """What NeuroBench calls before a batch: snnTorch's own reset does not look into a Sequential."""
        for layer in self.layers:
            if hasattr(layer, "reset_mem"):
                layer.reset_mem()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = self.layers(x)
        return spikes, spikes


def mlp() -> nn.Module:
    return eighths(TorchNet(nn.Linear(24, 16), leaky(), nn.Linear(16, 10), leaky(output=True)))


def conv_net() -> nn.Module:
    return eighths(
        TorchNet(
            nn.Conv2d(2, 4, 3, padding=1),
            leaky(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
            leaky(reset_mechanism="zero"),
            nn.Conv2d(6, 6, 2, groups=3, dilation=1),
            leaky(),
            nn.Flatten(),
            nn.Linear(6, 10),
            leaky(output=True),
        ),
        scale=4.0,
    )


# ---- SpikingJelly: all timesteps in one call, [T, B, ...] ----


def jelly_net() -> nn.Module:
    from spikingjelly.activation_based import functional, layer, neuron

    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        neuron.LIFNode(tau=2.0, decay_input=False),
        layer.MaxPool2d(2, 2),
        layer.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        neuron.IFNode(v_reset=None),
        layer.Flatten(),
        layer.Linear(24, 10),
        neuron.LIFNode(tau=2.0, decay_input=False),
    )
    functional.set_step_mode(net, "m")
    return eighths(net)


# ---- a transformer of the zoo: images are shown at every timestep, all timesteps in one call ----


def transformer(name: str = "spikingformer") -> tuple[nn.Module, np.ndarray]:
    """A small transformer in float64 that keeps every layer busy, and images [N, C, H, W] for it."""
    nmc.register_neuron(Lif, describe)
    form = zoo.FORMS[name]
    return zoo.busy(form), zoo.images(form, 4)


NEURONS = Lif  # of the zoo
