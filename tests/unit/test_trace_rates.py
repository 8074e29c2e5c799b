"""Modules that return the rates of spikes, with no layer behind the last neuron."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import Lif, compare, images_of, settle  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.graph.interpret import interpret  # noqa: E402
from nmc_emulator import run  # noqa: E402

ENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of spikes [T, 1, 4, 4, 4]
    "each neuron": lambda a, b: a.flatten(2).mean(0),
    "sum over timesteps": lambda a, b: a.flatten(2).sum(0),
    "channels": lambda a, b: a.mean((0, 3, 4)),
    "sums of channels": lambda a, b: a.flatten(3).sum(3).mean(0),
    "votes": lambda a, b: a.flatten(2).unflatten(2, (8, 8)).mean(3).sum(0),
    "residual": lambda a, b: (a + b).flatten(3).mean(3).mean(0),
}


class Rates(nn.Module):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.conv, self.one, self.conv2, self.two, self.end = nn.Conv2d(1, 4, 3), Lif(), nn.Conv2d(4, 4, 1), Lif(), end

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(self.conv(x).unsqueeze(0).repeat(3, 1, 1, 1, 1))
        b = self.two(self.conv2(a.flatten(0, 1)).unflatten(0, a.shape[:2]))
        return ENDS[self.end](a, b)


@pytest.mark.parametrize("end", ENDS)
def test_rates_are_pytorchs_and_those_of_every_engine(end: str) -> None:
    torch.manual_seed(2)
    net, x = settle(Rates(end)), torch.rand(1, 1, 6, 6, dtype=torch.float64)
    net.conv.weight.data = net.conv.weight.data.abs() * 4  # type: ignore[operator,union-attr]
    imported, got = compare(net, x)
    assert got.codes["one"].any() and got.logits.any()
    compiled = nmc.compile(net, x)
    images = images_of(imported, x)
    truth = interpret(compiled.int_graph, images, record="all")
    for engine in ("layers", "ticks"):
        found = run(compiled.program, images, record="all", engine=engine)
        assert truth.raw_logits is not None and np.array_equal(found.logits_int, truth.raw_logits)
        assert np.array_equal(np.moveaxis(found.codes["one"], 1, 0), truth.codes["one"])
