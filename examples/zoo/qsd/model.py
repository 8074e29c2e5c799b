"""Quantised Spike-Driven Transformer: weights of 4 bits by learned step sizes (LSQ), codes 0..4, LayerScale."""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from meta import MetaSpikeFormer, MultiSpike, Parts
from torch import Tensor, nn

CONFIG = {
    "family": "qsd", "img_size_h": 32, "img_size_w": 32, "in_channels": 1, "num_classes": 10,
    "embed_dim": [8, 8, 8, 16], "num_heads": 2, "mlp_ratios": 4, "T": 1,
}  # fmt: skip
NEURONS = (MultiSpike,)
EPOCHS, RATE, ACTIVE = 40, 3e-3, (0.08, 0.6)
LEAST, MOST = -8, 7


class Unused(nn.Module):
    """The quantiser of activations: tensors in the checkpoint, never used."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha, self.zero_point = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        for name in ("init_state", "signed"):
            self.register_buffer(name, torch.zeros(1))


class StepSize:
    """Mixed into a layer: its weight is alpha * round(clamp(weight / alpha, -8, 7)), alpha learned per output."""

    def add_step(self, outputs: int, inputs: int) -> None:
        self.alpha = nn.Parameter(torch.empty(outputs))
        self.register_buffer("init_state", torch.zeros(1))
        self.act = Unused(inputs)

    def quantised(self) -> Tensor:
        """In training alpha follows the weights, at the value that Esser et al. (ICLR 2020, section 2.1) start from."""
        if self.training:
            self.alpha.data.copy_(2 * self.weight.detach().flatten(1).abs().mean(1) / MOST**0.5)
            self.init_state.fill_(1)
        alpha = self.alpha.detach()
        if not self.training:  # what the published scaling of its gradient leaves of it, in float32
            scaled = alpha * (1.0 / math.sqrt(self.weight.numel() * MOST))
            alpha = alpha - scaled + scaled
        alpha = alpha.view(-1, *[1] * (self.weight.dim() - 1))
        ratio = (self.weight / alpha).clamp(LEAST, MOST)
        return (ratio + (ratio.round() - ratio).detach()) * alpha


class Conv2dStep(StepSize, nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, *args, **options):
        super().__init__(inputs, outputs, *args, **options)
        self.add_step(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.quantised(), self.bias)


class Conv1dStep(StepSize, nn.Conv1d):
    def __init__(self, inputs: int, outputs: int, *args, **options):
        super().__init__(inputs, outputs, *args, **options)
        self.add_step(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.quantised(), self.bias)


class LinearStep(StepSize, nn.Linear):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.add_step(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.quantised(), self.bias)


PARTS = Parts(
    neuron=lambda: MultiSpike(gain=4.0),
    attention_neuron=lambda: MultiSpike(norm=2, gain=4.0),
    scale=0.25,
    conv2d=Conv2dStep,
    conv1d=Conv1dStep,
    layer_scale=True,
)


def network(**config) -> MetaSpikeFormer:
    """The published network where ``blocks`` is not given (6 and 2)."""
    return MetaSpikeFormer(PARTS, LinearStep, **config)


def build() -> MetaSpikeFormer:
    """With batch norms that start inside 0..1, where a neuron that multiplies by 4 has a slope."""
    skip = ("family", "img_size_h", "img_size_w")
    model = network(**{k: v for k, v in CONFIG.items() if k not in skip}, blocks=(1, 1))
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.constant_(module.weight, 0.4)
            nn.init.constant_(module.bias, 0.2)
    return model
