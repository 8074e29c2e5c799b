"""Spikes joined with spikes, as the residuals of SEW ResNet do it (Fang et al. 2021), and pools of codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import TwoLayers, down_to_the_emulator, settle  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402
from nmc_compiler.graph.analysis import populations  # noqa: E402
from nmc_compiler.graph.registry import op_spec  # noqa: E402

Join = Callable[[Tensor, Tensor], Tensor]
JOINS: dict[str, Join] = {
    "ADD": lambda x, y: x + y,
    "AND": lambda x, y: x * y,
    "IAND": lambda x, y: x * (1.0 - y),
    "IAND, the other": lambda x, y: (1 - x) * y,
    "IAND of a negative": lambda x, y: (-y + 1) * x,
    "IAND of a channel": lambda x, y: x * (1.0 - y[:, :, :1]),
}


class Block(TwoLayers):
    def __init__(self, join: Join, width: int = 64) -> None:
        super().__init__()
        self.head, self.join = nn.Linear(width, 3), join

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(*self.spikes(x)).flatten(2)).mean(0)


@pytest.mark.parametrize("join", JOINS)
def test_residuals_of_spikes(join: str) -> None:
    torch.manual_seed(2)
    net, x = settle(Block(JOINS[join])), torch.rand(1, 1, 6, 6, dtype=torch.float64)
    for conv in (net.conv, net.conv2):  # so that both neurons fire, and not always
        conv.weight.data = conv.weight.data.abs() * 4
    codes = down_to_the_emulator(net, x).codes
    one, two = codes["one"], codes["two"]
    assert 0 < one.mean() < 1 and 0 < two.mean() < 1
    gates = [codes[name] for name in codes if name not in ("one", "two")]  # ADD and AND are no neurons here
    assert len(gates) == join.startswith("IAND")
    wanted = JOINS[join](*(torch.from_numpy(c.astype(float)) for c in (one, two))).numpy()
    assert wanted.any() and all(np.array_equal(gate, wanted) for gate in gates)


OTHERS: dict[str, Join] = {
    "neither": lambda x, y: (1 - x) * (1 - y),
    "of two": lambda x, y: x * (2 - y),
    "of a half": lambda x, y: x * (1 - 0.5 * y),
    "of a sum": lambda x, y: x * (1 - (x + y)),
    "a sum": lambda x, y: (x + y) * (1 - x),
    "of codes": lambda x, y: x * (1 - (x + y).clamp(0, 2).round() / 2),
    "codes": lambda x, y: (x + y).clamp(0, 2).round() / 2 * (1 - x),
}


@pytest.mark.parametrize("join", OTHERS)
def test_other_products_are_refused(join: str) -> None:
    """Above all those with codes of several levels, where a - b says nothing of a (1 - b)."""
    told = r"test_trace_gates.py:\d+.*: multiplies \w+ by \w+ values; only spikes can be multiplied"
    with pytest.raises(FrontendError, match=told):
        nmc.compile(settle(Block(OTHERS[join])), torch.rand(1, 1, 6, 6, dtype=torch.float64))


def test_a_gate_does_not_go_to_the_host() -> None:
    net, x = settle(Block(JOINS["IAND"])), torch.rand(1, 1, 6, 6, dtype=torch.float64)
    graph = nmc.compile(net, x, allow=("host",)).graphs["float"]
    assert not [n.op for n in graph if op_spec(n.op).host] and len(populations(graph)) == 3


def test_an_inverse_that_is_padded_is_refused() -> None:
    """Beyond the edge it is 0, where no spike has been inverted."""
    pad = nn.functional.pad
    net = settle(Block(lambda x, y: pad(x, (1, 1)) * pad(1 - y, (1, 1)), width=96))
    with pytest.raises(FrontendError, match="multiplies"):
        nmc.compile(net, torch.rand(1, 1, 6, 6, dtype=torch.float64))


class Codes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, 0, 4)) / 4


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.pool = nn.Conv2d(1, 4, 3), Codes(), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.two, self.head = nn.Conv2d(4, 4, 1), Codes(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.pool(self.one(4 * self.conv(x)))
        return self.head(self.two(self.pool(4 * self.conv2(a))).flatten(1))


def test_pools_of_codes() -> None:
    """In front of a neuron and behind one."""
    torch.manual_seed(3)
    net = settle(Pooled())
    net.conv.weight.data *= 4
    codes = down_to_the_emulator(net, torch.rand(1, 1, 8, 8, dtype=torch.float64)).codes
    assert len(np.unique(codes["one"])) > 2 and codes["two"].any()


class Pooled1d(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.one, self.head, self.how = nn.Conv1d(2, 4, 3), Codes(), nn.Linear(12, 3), how

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(4 * self.conv(x))
        if self.how == "indices":
            a, where = nn.functional.max_pool1d(a, 2, return_indices=True)
            return self.head(where.double().flatten(1))
        return self.head(nn.functional.max_pool1d(a, 2).flatten(1))


def test_pools_in_one_dimension() -> None:
    torch.manual_seed(3)
    x = torch.rand(1, 2, 8, dtype=torch.float64)
    assert down_to_the_emulator(settle(Pooled1d("")), x).codes["one"].any()
    with pytest.raises(
        FrontendError, match=r"test_trace_gates.py:\d+.*: uses the indices of a max-pool; only its values are lowered"
    ):
        nmc.compile(settle(Pooled1d("indices")), x)
