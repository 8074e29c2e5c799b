"""Modules that return the rates of spikes, with no layer behind the last neuron."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor  # noqa: E402
from traced_nets import TwoLayers, down_to_the_emulator, settle  # noqa: E402

ENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of spikes [T, 1, 4, 4, 4]
    "each neuron": lambda a, b: a.flatten(2).mean(0),
    "sum over timesteps": lambda a, b: a.flatten(2).sum(0),
    "channels": lambda a, b: a.mean((0, 3, 4)),
    "sums of channels": lambda a, b: a.flatten(3).sum(3).mean(0),
    "votes": lambda a, b: a.flatten(2).unflatten(2, (8, 8)).mean(3).sum(0),
    "residual": lambda a, b: (a + b).flatten(3).mean(3).mean(0),
}


class Rates(TwoLayers):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return ENDS[self.end](*self.spikes(x))


@pytest.mark.parametrize("end", ENDS)
def test_rates_are_pytorchs_and_those_of_every_engine(end: str) -> None:
    torch.manual_seed(2)
    net, x = settle(Rates(end)), torch.rand(1, 1, 6, 6, dtype=torch.float64)
    net.conv.weight.data = net.conv.weight.data.abs() * 4
    got = down_to_the_emulator(net, x)
    assert got.codes["one"].any() and got.logits.any()
