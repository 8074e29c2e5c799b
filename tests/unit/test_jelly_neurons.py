"""Every neuron class of SpikingJelly 2.0: its spikes are the same down to the emulator, or it is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
pytest.importorskip("spikingjelly.activation_based", reason="needs SpikingJelly: pip install '.[dev]'")

from spikingjelly.activation_based import functional, neuron, surrogate  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from traced_nets import compare, images_of  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402
from nmc_compiler.fitting import fit  # noqa: E402
from nmc_compiler.graph.interpret import interpret  # noqa: E402
from nmc_compiler.options import CompileOptions  # noqa: E402
from nmc_compiler.passes.pipeline import compile_graph  # noqa: E402
from nmc_compiler.passes.report import ConversionReport  # noqa: E402
from nmc_compiler.target import load_target  # noqa: E402
from nmc_emulator import run  # noqa: E402

STEPS, WIDTH = 6, 5


def psn(made: Any) -> Any:
    made.bias.data.fill_(-0.4)
    return made


def k_of(made: Any) -> Any:
    made.k.data.fill_(1.4)
    return made


def mpbn(most: float = 1.2, **options: Any) -> Any:
    made = neuron.MPBNLIFNode(out_features=WIDTH, **options)
    made.vbn.running_mean.copy_(torch.linspace(-0.2, 0.2, WIDTH))
    made.vbn.running_var.fill_(2.0)
    made.vbn.weight.data.copy_(torch.linspace(0.9, most, WIDTH))
    made.vbn.bias.data.fill_(0.1)
    return made


COMPILED: dict[str, list[Callable[[], Any]]] = {
    "IFNode": [neuron.IFNode, lambda: neuron.IFNode(v_reset=None), lambda: neuron.IFNode(v_reset=-0.25)],
    "HalfThresholdIFNode": [lambda: neuron.HalfThresholdIFNode(v_threshold=1.5)],
    "ActivationAwareIFNode": [
        lambda: neuron.ActivationAwareIFNode(v_threshold=1.25, v_offset=0.5),
        lambda: neuron.ActivationAwareIFNode(torch.linspace(0.5, 1.5, WIDTH), torch.linspace(0.0, 0.25, WIDTH)),
        lambda: neuron.ActivationAwareIFNode(v_threshold=1.25, v_offset=0.5, v_reset=0.25),
    ],
    "LIFNode": [neuron.LIFNode, lambda: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=None)],
    "ParametricLIFNode": [lambda: neuron.ParametricLIFNode(init_tau=2.5, v_threshold=0.5)],
    "ILIFNode": [
        neuron.ILIFNode,
        lambda: neuron.ILIFNode(tau=2.0, surrogate_function=surrogate.MultiLevelSpikeCount(3)),
    ],
    "KLIFNode": [lambda: k_of(neuron.KLIFNode()), lambda: k_of(neuron.KLIFNode(scale_reset=True))],
    "CUBALIFNode": [
        neuron.CUBALIFNode,
        lambda: neuron.CUBALIFNode(c_decay=0.25, v_threshold=1.0, v_reset=None),
        lambda: neuron.CUBALIFNode(v_reset=-0.5),
    ],
    "TernaryIFNode": [neuron.TernaryIFNode, lambda: neuron.TernaryIFNode(v_threshold=0.75, v_reset=None)],
    "TernaryLIFNode": [
        neuron.TernaryLIFNode,
        lambda: neuron.TernaryLIFNode(tau=4.0, decay_input=False, v_reset=None),
        lambda: neuron.TernaryLIFNode(v_reset=0.25),
    ],
    "STBIFNode": [lambda: neuron.STBIFNode(0.5, level=4), lambda: neuron.STBIFNode(0.25, level=8, sym=True)],
    "DSRIFNode": [lambda: neuron.DSRIFNode(T=STEPS, v_threshold=1.5)],
    "DSRLIFNode": [lambda: neuron.DSRLIFNode(T=STEPS, v_threshold=0.5, tau=2.0, delta_t=0.5)],
    "MPBNLIFNode": [mpbn, lambda: mpbn(v_reset=None, decay_input=True), lambda: mpbn(learnable_vth=True)],
    "OTTTLIFNode": [neuron.OTTTLIFNode],
    "SLTTLIFNode": [neuron.SLTTLIFNode],
    "PSN": [lambda: psn(neuron.PSN(T=STEPS))],
    "MaskedPSN": [
        lambda: psn(neuron.MaskedPSN(k=2, T=STEPS, lambda_init=1.0)),
        lambda: psn(neuron.MaskedPSN(k=3, T=STEPS, lambda_init=0.5, step_mode="m")),
    ],
    "SlidingPSN": [lambda: psn(neuron.SlidingPSN(k=3))],
}
CONSTANTS = "a soma multiplies its states by constants only"
BASE = "it is the base of other neurons and computes nothing by itself"
POTENTIAL = (
    "it gives potentials and no spikes; return those of a neuron without reset instead (Leaky of snnTorch, LI of Norse)"
)
CONNECTED = "it hears its own spikes through a convolution inside it (conn); make that a layer beside a neuron"
NOISY = "it adds noise that is drawn while it runs; nmc compiles what is the same at every run"
TABLES = (
    "it sends spikes of K different weights when it has heard all of K timesteps; a soma has one weight for its spikes"
)
GLIF = "its reset multiplies the potential by a learned 1 - gamma; a soma sets it to a value or subtracts one"
CLIF = f"its second state decays by the sigmoid of the potential, and a spike subtracts a sigmoid of it; {CONSTANTS}"
RAF = "it turns two states into each other (resonate and fire); the current of a soma does not hear its potential"
FLEX = "it computes what the function says that it was given; say that with nmc.register_neuron (docs/tracing.md)"
BASES = ("BaseNode", "SimpleBaseNode", "NonSpikingBaseNode", "AdaptBaseNode", "MPBNBaseNode", "ILCBaseNode")
NOISES = ("BaseNode", "CUBALIFNode", "ILCBaseNode", "ILCCUBALIFNode", "NonSpikingBaseNode", "NonSpikingIFNode")
REFUSED = {
    "SimpleIFNode": "SimpleIFNode is for teaching; use IFNode instead",
    "SimpleLIFNode": "SimpleLIFNode is for teaching; use LIFNode instead",
    "LIAFNode": "LIAFNode sends the real values of its activation, not spikes",
    "GatedLIFNode": GLIF,
    "ComplementaryLIFNode": CLIF,
    "QIFNode": f"its potential is multiplied by itself; {CONSTANTS}",
    "EIFNode": f"it takes the exponential of its potential; {CONSTANTS}",
    "IzhikevichNode": f"its potential is multiplied by itself, and a second state by it; {CONSTANTS}",
    "RAFNode": RAF,
    "FlexSN": FLEX,
    **dict.fromkeys(("FewSpikeNode", "HGNode", "OutlierAwareThresholdNode"), TABLES),
    **dict.fromkeys(("NonSpikingIFNode", "NonSpikingLIFNode"), POTENTIAL),
    **dict.fromkeys(BASES, BASE),
    **dict.fromkeys(("ILCIFNode", "ILCLIFNode", "ILCCUBALIFNode"), CONNECTED),
    **{f"Noisy{name}": NOISY for name in NOISES},
}


def classes() -> set[str]:
    found = {name: v for name, v in vars(neuron).items() if inspect.isclass(v)}
    return {name for name, cls in found.items() if issubclass(cls, nn.Module)}


def test_each_class_of_the_package_is_in_one_of_the_two_tables() -> None:
    assert classes() == set(COMPILED) | set(REFUSED) and not set(COMPILED) & set(REFUSED)


class Net(nn.Module):
    """A linear layer, the neuron, and a mean of what another layer makes of its spikes."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.fc, self.node, self.head = nn.Linear(3, WIDTH), made, nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        many = getattr(self.node, "step_mode", "m") == "m"
        current = self.fc(x)
        spikes = self.node(current) if many else torch.stack([self.node(step) for step in current])
        return self.head(spikes.to(x.dtype)).mean(0)


CASES = [(name, n) for name, forms in COMPILED.items() for n in range(len(forms))]


@pytest.mark.parametrize(("name", "form"), CASES, ids=[f"{name}-{n}" for name, n in CASES])
def test_spikes_are_those_of_spikingjelly_down_to_the_emulator(name: str, form: int) -> None:
    torch.manual_seed(len(name) + form)
    net = Net(COMPILED[name][form]()).double().eval()
    net.fc.weight.data = (net.fc.weight.data * 64).round() / 16  # dyadic, so that ties are ties
    net.fc.bias.data = (net.fc.bias.data * 16).round() / 16 + 0.5
    x = torch.randint(-4, 7, (STEPS, 1, 3), dtype=torch.float64) / 4
    functional.reset_net(net)
    imported, got = compare(net, x)
    assert set(got.codes) == {"node"} and 0 < np.count_nonzero(got.codes["node"]) < got.codes["node"].size
    target, options, images = load_target("loihi2"), CompileOptions(input_range=(-2.0, 2.0)), images_of(imported, x)
    integers = compile_graph(imported.graph, target, options, ConversionReport())
    program = fit(integers, target, options, ConversionReport()).program
    truth, found = interpret(integers, images, record="all"), run(program, images, record="all")
    for population, codes in truth.codes.items():
        assert np.array_equal(np.moveaxis(found.codes[population], 1, 0), codes), population
    assert truth.raw_logits is not None and np.array_equal(found.logits_int, truth.raw_logits)


# ---- forks of SpikingJelly 0.0.0.0.12 whose surrogate functions are quantisers ----


class Fork(nn.Module):
    """h = keep v + gain x, code = round(clip(h, 0, 4)), v = h - code step, until it is reset."""

    keep, gain, decay_input, tau, v_threshold, v_reset = 1.0, 1.0, True, 2.0, 1.0, None

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.v, self.most = 0.0, 4.0
        for key, value in settings.items():
            setattr(self, key, value)

    def surrogate_function(self, x: Tensor) -> Tensor:
        return x.clamp(0, self.most).round()

    def one(self, x: Tensor) -> Tensor:
        h = self.keep * self.v + self.gain * x
        code = self.surrogate_function(h)
        self.v = h - code * self.step
        return code

    @property
    def step(self) -> float:
        return 1.0


class Q_IFNode(Fork):
    @property
    def step(self) -> float:
        return self.v_threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x)


class MultiStepLIFNode(Fork):
    keep, gain = 0.5, 0.5

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(step) for step in x])


Q_IFNode.__module__ = "Qtrick_architecture.clock_driven.neuron"
MultiStepLIFNode.__module__ = "spikingjelly.clock_driven.neuron"


class Levels(nn.Module):
    """Codes over 8; ``calls``: all at once, one by one, or (``twice``) all at once and then again."""

    def __init__(self, made: nn.Module, calls: str) -> None:
        super().__init__()
        self.fc, self.node, self.head, self.calls = nn.Linear(3, WIDTH), made, nn.Linear(WIDTH, 2), calls

    def forward(self, x: Tensor) -> Tensor:
        current = self.fc(x)
        codes = torch.stack([self.node(step) for step in current]) if self.calls == "steps" else self.node(current)
        codes = self.node(current + 1.0) if self.calls == "twice" else codes
        return self.head(codes / 8).mean(0)


FORKS = [
    (lambda: Q_IFNode(), "steps", "ilif"),
    (lambda: Q_IFNode(v_threshold=1.5), "steps", "ilif"),
    (lambda: Q_IFNode(), "whole", "multilevel"),  # as the authors call it: every timestep begins from rest
    (lambda: MultiStepLIFNode(), "whole", "ilif"),
    (lambda: MultiStepLIFNode(most=3.0, decay_input=False, gain=1.0), "whole", "ilif"),
]


@pytest.mark.parametrize(("made", "calls", "op"), FORKS, ids=range(len(FORKS)))
def test_forks_that_send_codes(made: Callable[[], nn.Module], calls: str, op: str) -> None:
    torch.manual_seed(4)
    net = Levels(made(), calls).double().eval()
    net.fc.weight.data *= 6
    x = torch.randn(STEPS, 1, 3, dtype=torch.float64)
    imported = nmc.trace(net, x)
    net.node.v = 0.0
    with torch.no_grad():
        wanted = net(x).numpy()
    got = interpret(imported.graph, images_of(imported, x), record="all")
    np.testing.assert_allclose(got.logits, wanted, rtol=0, atol=1e-9)
    assert [n.op for n in imported.graph if n.name == "node"] == [op] and got.codes["node"].max() > 1


@pytest.mark.parametrize(
    ("made", "calls", "why"),
    [
        (
            lambda: Q_IFNode(),
            "twice",
            "'node' is called again behind a call with all timesteps, and would go on from what",
        ),
        (
            lambda: MultiStepLIFNode(v_reset=0.0),
            "whole",
            "codes of several levels and resets to v_reset; with v_reset=None",
        ),
    ],
)
def test_forks_that_are_refused(made: Callable[[], nn.Module], calls: str, why: str) -> None:
    with pytest.raises(FrontendError, match=why):
        nmc.trace(Levels(made(), calls), (STEPS, 1, 3))


def unseen(made: Any) -> Any:
    made.re_parameterize_v_threshold()
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            lambda: mpbn(most=4.0),
            "its batch norm multiplies what a potential keeps by 0.636 to 2.83; between 0 and 2 is",
        ),
        (
            lambda: unseen(mpbn()),
            "its thresholds differ by channel, and nothing of it says which axis has the channels",
        ),
        (
            lambda: neuron.ActivationAwareIFNode(torch.ones(WIDTH), channel_dim=1),
            "channel_dim is 1, counted from an axis",
        ),
        (lambda: neuron.KLIFNode(v_reset=0.5), "v_reset is 0.5; a KLIF that resets to 0 is read"),
        (
            lambda: neuron.LIFNode(surrogate_function=surrogate.Sigmoid(spiking=False)),
            r"its surrogate function gives 0\.01.* for -1, 0, 0.375, 0.625, 10000; a step at 0 is read, and round",
        ),
        (
            lambda: neuron.CUBALIFNode(surrogate_function=surrogate.MultiLevelSpikeCount(2)),
            "its surrogate function sends codes of several levels; it is read where that is a step",
        ),
    ],
)
def test_settings_that_no_soma_has_are_refused(made: Callable[[], Any], why: str) -> None:
    with pytest.raises(FrontendError, match=why):
        nmc.trace(Net(made()), (STEPS, 1, 3))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_others_are_refused_by_name(name: str) -> None:
    """No constructor is run: some have many arguments, bases cannot be made at all."""
    cls = getattr(neuron, name)
    made = cls.__new__(cls)
    nn.Module.__init__(made)
    with pytest.raises(FrontendError) as caught:
        nmc.trace(Net(made), (STEPS, 1, 3))
    assert str(caught.value) == f"'node' ({cls.__module__}.{name}): {REFUSED[name]}"
