"""Neurons of BrainCog and STEP: modules of our own with their names and equations, traced; every spike is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import images_of  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402
from nmc_compiler.graph.interpret import interpret  # noqa: E402

STEPS, WIDTH = 6, 5


def at_least(x: Tensor) -> Tensor:
    return (x >= 0).to(x.dtype)


def above(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


class BaseNode(nn.Module):
    """[T * B, ...], or with ``layer_by_layer=False`` one timestep; from 0."""

    def __init__(
        self, threshold: float = 0.5, layer_by_layer: bool = True, act: Any = at_least, **settings: Any
    ) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.layer_by_layer, self.act_fun, self.mem = layer_by_layer, act, 0.0
        self.groups, self.dt, self.tau, self.D, self.sigmoid_thres = 1, 1.0, 2.0, 2, False
        for key, value in settings.items():
            setattr(self, key, value)

    def charge(self, x: Tensor) -> Tensor:
        return self.mem + (x - self.mem) / self.tau

    def one(self, x: Tensor) -> Tensor:
        self.mem = self.charge(x)
        theta = self.threshold.sigmoid() if self.sigmoid_thres else self.threshold
        spike = self.act_fun(self.mem - theta)
        self.mem = self.mem * (1 - spike)
        return spike

    def forward(self, x: Tensor) -> Tensor:
        if not self.layer_by_layer:
            return self.one(x)
        return torch.cat([self.one(step) for step in x.split(len(x) // STEPS)])


class IFNode(BaseNode):
    def charge(self, x: Tensor) -> Tensor:
        return self.mem + x * self.dt


class LIFNode(BaseNode):
    pass


class PLIFNode(BaseNode):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.w = nn.Parameter(torch.tensor(0.4))

    def charge(self, x: Tensor) -> Tensor:
        return self.mem + (x - self.mem) * self.w.sigmoid() * self.dt


class KLIFNode(BaseNode):
    def __init__(self, k: float = 1.4, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = nn.Parameter(torch.tensor(k))

    def charge(self, x: Tensor) -> Tensor:
        return torch.relu(super().charge(x) * self.k)


class ILIFNode(BaseNode):
    over = 1

    def one(self, x: Tensor) -> Tensor:
        self.mem = self.charge(x)
        code = ((self.mem / self.threshold).clamp(0, self.D) / self.over).round()
        self.mem = self.mem - code * self.threshold
        return code


class NILIFNode(ILIFNode):
    over = 2


class EIFNode(BaseNode):
    pass


class BurstLIFNode(LIFNode):
    def one(self, x: Tensor) -> Tensor:
        return 1.5 * super().one(x)


class PSNTorch(nn.Module):
    def __init__(self, act: Any = at_least) -> None:
        super().__init__()
        self.fc, self.act_func = nn.Linear(STEPS, STEPS), act
        nn.init.constant_(self.fc.bias, -0.2)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(STEPS, -1)
        return self.act_func(torch.addmm(self.fc.bias[:, None], self.fc.weight, flat)).view(x.shape)


class Alien(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


BaseNode.__module__ = "braincog.base.node.node"
for cls in (IFNode, LIFNode, PLIFNode, KLIFNode, ILIFNode, NILIFNode, EIFNode, PSNTorch, BurstLIFNode):
    cls.__module__ = "models.utils.node"
Alien.__module__, Alien.__qualname__ = "models.utils.node", "LIFNode"


class Net(nn.Module):
    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.fc, self.node, self.head = nn.Linear(3, WIDTH), node, nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        current = self.fc(x.flatten(0, 1))
        if getattr(self.node, "layer_by_layer", True):
            spikes = self.node(current)
        else:
            spikes = torch.cat([self.node(step) for step in current.split(x.shape[1])])
        return self.head(spikes).unflatten(0, x.shape[:2]).mean(0)


MADE: dict[str, Callable[[], nn.Module]] = {
    "IF": lambda: IFNode(threshold=1.0),
    "IF dt": lambda: IFNode(dt=0.5, act=above),
    "LIF": LIFNode,
    "LIF step by step": lambda: LIFNode(layer_by_layer=False, tau=3.0),
    "LIF sigmoid": lambda: LIFNode(threshold=-0.5, sigmoid_thres=True),
    "PLIF": PLIFNode,
    "KLIF": KLIFNode,
    "ILIF": ILIFNode,
    "NILIF": NILIFNode,
    "PSN": PSNTorch,
}


@pytest.mark.parametrize("name", MADE)
def test_every_spike_is_that_of_the_module(name: str) -> None:
    torch.manual_seed(0)
    net = Net(MADE[name]()).double().eval()
    net.fc.weight.data *= 4
    x, seen = torch.randn(STEPS, 1, 3, dtype=torch.float64), []
    imported = nmc.trace(net, x)
    net.node.mem = 0.0
    net.node.register_forward_hook(lambda module, given, out: seen.append(out.numpy()))
    with torch.no_grad():
        wanted = net(x).numpy()
    got = interpret(imported.graph, images_of(imported, x), record="all")
    np.testing.assert_allclose(got.logits, wanted, rtol=0, atol=1e-9)
    late = imported.graph.timesteps - STEPS
    codes, spikes = got.codes["node"][late:, 0, :, 0, 0], np.concatenate(seen)
    assert late == (STEPS - 1 if name == "PSN" else 0)
    assert np.array_equal(codes, spikes) and 0 < np.count_nonzero(codes) < codes.size


REFUSED = [
    (lambda: EIFNode(), "it takes the exponential of its potential; a soma multiplies its states by constants only"),
    (lambda: KLIFNode(k=2.5), "k is 2.5; between 0 and 2 it is read, where a potential does not grow"),
    (lambda: LIFNode(groups=4), "n_groups is 4: its timesteps stand among the channels; 1 is read"),
    (
        lambda: LIFNode(act=torch.sigmoid),
        "its surrogate function gives 0.268941, 0.5, 0.622459, 1 for -1, 0, 0.5, 100; a step at 0 is read",
    ),
    (
        lambda: Alien(),
        "it is called as a neuron of STEP is, but is no BaseNode of BrainCog; say what it computes with "
        "nmc.register_neuron(Alien, lambda module: {...}) (docs/tracing.md)",
    ),
]


@pytest.mark.parametrize(("made", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(made: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(FrontendError) as caught:
        nmc.trace(Net(made()), (STEPS, 1, 3))
    assert str(caught.value).endswith(why)


def test_another_neuron_of_theirs_is_refused_by_name() -> None:
    text = r"'node' \(models.utils.node.BurstLIFNode\) is a neuron that nmc does not know; say what it computes"
    with pytest.raises(FrontendError, match=text):
        nmc.trace(Net(BurstLIFNode()), (STEPS, 1, 3))
