"""Networks of SpikingJelly, snnTorch and Norse: every spike of every neuron is the framework's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import compare, settle  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402
from nmc_compiler.graph.interpret import interpret  # noqa: E402
from nmc_emulator import Emulator  # noqa: E402

STEPS = 6


def frames(*shape: int, seed: int = 0, dtype: Any = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(STEPS, 1, *shape, generator=generator) * 2).to(dtype or torch.float64)


def busy(got: Any) -> None:
    assert all(0 < codes.astype(bool).mean() < 1 for codes in got.codes.values())


# ---- SpikingJelly ----


def jelly() -> Any:
    return pytest.importorskip("spikingjelly.activation_based", reason="needs SpikingJelly: pip install '.[dev]'")


JELLY = {
    "IF": lambda n: n.IFNode(),
    "IF soft": lambda n: n.IFNode(v_threshold=0.7, v_reset=None),
    "LIF": lambda n: n.LIFNode(tau=1.7),
    "LIF soft": lambda n: n.LIFNode(tau=2.0, v_reset=None),
    "LIF whole input": lambda n: n.LIFNode(tau=3.0, decay_input=False, v_threshold=1.5),
    "LIF to a value": lambda n: n.LIFNode(tau=2.0, v_reset=-0.25, v_threshold=0.5),
    "PLIF": lambda n: n.ParametricLIFNode(init_tau=2.5),
    "KLIF": lambda n: _klif(n, scale_reset=False),
    "KLIF scaled": lambda n: _klif(n, scale_reset=True),
    "ILIF": lambda n: n.ILIFNode(),
    "sliding PSN": lambda n: _filled(n.SlidingPSN(k=3, exp_init=False)),
    "masked PSN": lambda n: _filled(n.MaskedPSN(k=2, T=STEPS, lambda_init=1.0)),
}


def _klif(n: Any, **options: Any) -> nn.Module:
    module = n.KLIFNode(tau=2.0, **options)
    module.k.data.fill_(1.4)
    return module


def _filled(module: nn.Module) -> nn.Module:
    module.bias.data.fill_(-0.4)  # type: ignore[union-attr, operator]
    return module


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("name", JELLY)
def test_spikingjelly(name: str, mode: str) -> None:
    """Convolution, pool, linear layers; the whole sequence at once, or step by step in a loop."""
    ab = jelly()
    if (name, mode) == ("masked PSN", "s"):
        pytest.skip("a masked PSN takes whole sequences")
    from spikingjelly.activation_based import functional, layer, neuron

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = layer.Conv2d(2, 4, 3, padding=1, bias=False)
            self.bn = layer.BatchNorm2d(4)
            self.first = JELLY[name](neuron)
            self.pool, self.flat = layer.MaxPool2d(2, 2), layer.Flatten()
            self.linear = layer.Linear(16, 5)
            self.second = JELLY[name](neuron)

        def whole(self, x: Tensor) -> Tensor:
            x = self.pool(self.first(self.bn(self.conv(x))))
            return self.second(self.linear(self.flat(x)))

        def forward(self, x: Tensor) -> Tensor:
            return self.whole(x) if mode == "m" else torch.stack([self.whole(step) for step in x])

    torch.manual_seed(2)
    net = settle(Net())
    net.linear.weight.data *= 3
    functional.set_step_mode(net, mode)
    functional.reset_net(net)
    assert ab is not None
    imported, got = compare(net, frames(2, 4, 4))
    assert imported.graph.timesteps == STEPS and set(got.codes) == {"first", "second"}
    busy(got)


def test_spikingjelly_attention_and_its_own_spikformer() -> None:
    """SpikingSelfAttention (A9), TokenQKAttention (A5), ChannelQKAttention (A6), SpikeDrivenSelfAttention (A1)."""
    jelly()
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.layer import attention

    class Net(nn.Module):
        def __init__(self, block: nn.Module, tokens: bool) -> None:
            super().__init__()
            self.conv, self.lif = layer.Conv2d(1, 8, 3, padding=1, step_mode="m"), neuron.LIFNode(step_mode="m")
            self.bn, self.block, self.tokens = layer.BatchNorm2d(8, step_mode="m"), block, tokens
            self.last, self.head = neuron.LIFNode(step_mode="m"), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.conv(x.unsqueeze(0).repeat(3, 1, 1, 1, 1)))
            s = self.lif(x)
            y = self.block(s.flatten(3)).reshape(s.shape) + s if self.tokens else self.last(x + self.block(x))
            return self.head(y.flatten(3).mean(3)).mean(0)

    blocks = [
        (attention.SpikingSelfAttention(8, 2), True),
        (attention.TokenQKAttention(8, 2), True),
        (attention.ChannelQKAttention(8, 2), True),
        (attention.SpikeDrivenSelfAttention(8, 2), False),
    ]
    image = torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for block, tokens in blocks:
        torch.manual_seed(3)
        net = settle(Net(block, tokens))
        functional.reset_net(net)
        compare(net, image)
    from spikingjelly.activation_based.model.spikformer import Spikformer

    torch.manual_seed(4)
    net = settle(Spikformer(T=3, img_size_h=32, img_size_w=32, embed_dims=16, num_heads=2, depths=1, num_classes=5))
    functional.reset_net(net)
    compare(net, torch.rand(1, 3, 32, 32, dtype=torch.float64))


# ---- snnTorch ----

SNN: dict[str, Callable[[Any], nn.Module]] = {
    "Leaky": lambda snn: snn.Leaky(beta=0.9),
    "Leaky to zero": lambda snn: snn.Leaky(beta=0.8, reset_mechanism="zero", threshold=0.7),
    "Leaky at once": lambda snn: snn.Leaky(beta=0.8, reset_mechanism="zero", reset_delay=False),
    "Leaky without reset": lambda snn: snn.Leaky(beta=0.5, reset_mechanism="none"),
    "Leaky by neuron": lambda snn: snn.Leaky(beta=torch.linspace(0.1, 0.9, 4)),
    "Lapicque": lambda snn: snn.Lapicque(R=1.0, C=2.0, time_step=0.5, threshold=0.3),
    "Synaptic": lambda snn: snn.Synaptic(alpha=0.6, beta=0.8, threshold=2.0),
}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", SNN)
def test_snntorch(name: str, hidden: bool) -> None:
    """States handed on in a loop, or kept by the neurons."""
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 4), SNN[name](snn)
            self.lif.init_hidden = hidden

        def forward(self, x: Tensor) -> Tensor:
            states: tuple[Any, ...] = (None, None) if name == "Synaptic" else (None,)
            out = []
            for step in x:
                if hidden:
                    out.append(self.lif(self.fc(step)))
                else:
                    spikes, *kept = self.lif(self.fc(step), *states)
                    states = tuple(kept)
                    out.append(spikes)
            return torch.stack(out)

    torch.manual_seed(5)
    net = Net()
    net.fc.weight.data *= 2
    imported, got = compare(net, frames(3, dtype=torch.float32))
    busy(got)
    assert imported.graph.outputs and imported.graph.input_time


def test_snntorch_reads_the_potential_of_a_neuron_that_never_resets() -> None:
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")

    class Net(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 4), snn.Leaky(beta=0.9)
            self.read, self.li = nn.Linear(4, 2), snn.Leaky(beta=0.7, reset_mechanism=how)

        def forward(self, x: Tensor) -> Tensor:
            mem, kept, out = self.lif.init_leaky(), self.li.init_leaky(), []
            for step in x:
                spikes, mem = self.lif(self.fc(step), mem)
                _, kept = self.li(self.read(spikes), kept)
                out.append(kept)
            return torch.stack(out)

    torch.manual_seed(6)
    imported, _ = compare(Net("none"), frames(3, dtype=torch.float32))
    assert [n.op for n in imported.graph if n.name == "li"] == ["integrator"]
    with pytest.raises(FrontendError, match="reads the potential of 'li', which fires and resets"):
        nmc.trace(Net("subtract"), frames(3))


def test_snntorch_refused() -> None:
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")
    cases = {
        "Alpha has two currents": snn.Alpha(alpha=0.9, beta=0.8, init_hidden=True),
        "reset_delay=False with reset_mechanism='subtract'": snn.Leaky(beta=0.9, reset_delay=False, init_hidden=True),
        "inhibition=True": snn.Leaky(beta=0.9, inhibition=True, init_hidden=True),
        "that nmc does not know": snn.RLeaky(beta=0.9, linear_features=4, init_hidden=True),
    }
    for why, neuron in cases.items():
        with pytest.raises(FrontendError, match=why):
            nmc.trace(nn.Sequential(nn.Linear(3, 4), neuron), (1, 3))


def test_a_loop_through_the_network_is_read_one_timestep_late() -> None:
    """Spikes go back through a layer with a bias: at the first timestep, the bias alone."""
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.back, self.lif = nn.Linear(3, 4), nn.Linear(4, 4), snn.Leaky(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            spikes, mem, out = torch.zeros(1, 4), self.lif.init_leaky(), []
            for step in x:
                spikes, mem = self.lif(self.fc(step) + self.back(spikes), mem)
                out.append(spikes)
            return torch.stack(out)

    torch.manual_seed(7)
    imported, _ = compare(Net(), frames(3, dtype=torch.float32))
    (late,) = [use for n in imported.graph for use in n.inputs if use.lag]
    assert late.lag == 1 and imported.graph.node(late.node).name == "lif"


# ---- Norse ----


def test_norse() -> None:
    """Cells in a loop and in SequentialState; a leaky integrator is read."""
    norse = pytest.importorskip("norse.torch", reason="needs Norse: pip install '.[dev]'")
    number = torch.as_tensor

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            box = norse.LIFBoxParameters(tau_mem_inv=number(300.0), v_th=number(0.4))
            lif = norse.LIFParameters(tau_mem_inv=number(400.0), tau_syn_inv=number(500.0), v_th=number(0.2))
            self.net = norse.SequentialState(
                nn.Linear(3, 4), norse.LIFBoxCell(box), nn.Linear(4, 5), norse.LIFCell(lif), nn.Linear(5, 2),
                norse.LICell(),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            state, out = None, []
            for step in x:
                y, state = self.net(step, state)
                out.append(y)
            return torch.stack(out)

    torch.manual_seed(8)
    net = Net()
    for module in net.net.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 3
    imported, got = compare(net, frames(3, dtype=torch.float32))
    busy(got)
    assert {n.name: n.op for n in imported.graph if n.name.startswith("net.") and n.op != "conv2d"} == {
        "net.1": "neuron",
        "net.3": "neuron",
        "net.5": "integrator",
    }


def test_norse_without_its_state() -> None:
    norse = pytest.importorskip("norse.torch", reason="needs Norse: pip install '.[dev]'")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 4), norse.LIFBoxCell()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.lif(self.fc(step))[0] for step in x])

    with pytest.raises(FrontendError, match="called without its state, it starts anew; hand it what it returned"):
        nmc.trace(Net(), (STEPS, 1, 3))


# ---- what every framework shares ----


def test_arrays_of_a_neuron_are_in_the_order_of_the_graph() -> None:
    """One decay per feature of [T, B, N, C] tokens is one per channel of (C, N)."""
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lif = nn.Conv1d(2, 4, 1), snn.Leaky(beta=torch.linspace(0.2, 0.8, 4), init_hidden=True)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.lif(self.conv(step).transpose(1, 2)) for step in x])

    torch.manual_seed(9)
    imported, _ = compare(Net(), frames(2, 5, dtype=torch.float32))
    (lif,) = [n for n in imported.graph if n.name == "lif"]
    beta = imported.graph.tensor(lif, "beta")
    assert beta is not None and np.allclose(beta, np.linspace(0.2, 0.8, 4))


# ---- sinabs ----


@pytest.mark.parametrize("name", ["IAF", "IAF several", "IAF bounded", "LIF", "LIF to zero", "LIF several", "leaky"])
def test_sinabs(name: str) -> None:
    """[B, T, ...] layers; several spikes in a timestep are one code."""
    layers = pytest.importorskip(
        "sinabs.layers", reason="pip install --no-deps sinabs==3.1.3 pbr (asks for an older nir)"
    )
    activation = pytest.importorskip("sinabs.activation")
    one = {"spike_fn": activation.SingleSpike}
    neuron = {
        "IAF": lambda: layers.IAF(**one),
        "IAF several": lambda: layers.IAF(),
        "IAF bounded": lambda: layers.IAF(min_v_mem=-1.0, **one),
        "LIF": lambda: layers.LIF(tau_mem=3.0, norm_input=True, **one),
        "LIF to zero": lambda: layers.LIF(tau_mem=5.0, reset_fn=activation.MembraneReset(), **one),
        "LIF several": lambda: layers.LIF(tau_mem=3.0, norm_input=False),
        "leaky": lambda: layers.ExpLeak(tau_mem=4.0),
    }[name]()
    torch.manual_seed(10)
    net = nn.Sequential(nn.Linear(3, 4), neuron)
    net[0].weight.data *= 4
    x = frames(3, dtype=torch.float32).transpose(0, 1)
    with torch.no_grad():
        theirs = net(x)[0].numpy()
    imported = nmc.trace(net, x, time_axis=1)
    got = interpret(imported.graph, x.numpy().reshape(1, STEPS, 3, 1, 1)).outputs["out"][:, 0, :, 0, 0]
    np.testing.assert_allclose(got, theirs, rtol=0, atol=0 if name != "leaky" else 1e-5)
    assert theirs.any()


# ---- down to the emulator ----


@pytest.mark.parametrize("name", ["soft", "late", "adapted", "loop", "levels"])
def test_general_networks_down_to_the_emulator(name: str) -> None:
    """Spikes of every population of the mapped Program are the integer graph's, bit for bit."""
    ab = jelly()
    snn = pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")
    from spikingjelly.activation_based import functional, neuron

    neurons = {
        "soft": lambda: neuron.LIFNode(tau=2.0, v_reset=None),
        "late": lambda: snn.Leaky(beta=0.8, init_hidden=True),
        "adapted": lambda: snn.Synaptic(alpha=0.5, beta=0.75, reset_mechanism="zero", init_hidden=True),
        "loop": lambda: neuron.IFNode(),
        "levels": lambda: neuron.ILIFNode(),
    }

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif, self.back, self.out = nn.Linear(6, 8), neurons[name](), nn.Linear(8, 8), neurons[name]()
            self.read = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes, found = torch.zeros(1, 8), []
            for step in x:
                current = self.fc(step) + (self.back(spikes) if name == "loop" else 0.0)
                spikes = self.lif(current)
                found.append(self.out(self.read(spikes)))
            return torch.stack(found)

    assert ab is not None
    torch.manual_seed(11)
    net = Net()
    net.fc.weight.data *= 3
    net.read.weight.data *= 8
    functional.reset_net(net)
    compiled = nmc.compile(net, (STEPS, 1, 6), input_kind="spikes")
    x = (np.random.default_rng(5).random((3, STEPS, 6, 1, 1)) < 0.5).astype(np.int32)
    meant = interpret(compiled.int_graph, x, record="all").codes
    ran = Emulator(compiled.program, record="all").run_events({"x": x.reshape(-1, 6, 1, 1)}, STEPS * len(x))
    for population, codes in meant.items():
        want = np.argwhere(codes.transpose(1, 0, 2, 3, 4).reshape(len(x) * STEPS, -1))
        found = ran.events[population]
        assert [*zip(found.step.tolist(), found.soma.tolist(), strict=True)] == list(map(tuple, want.tolist()))
    assert {"lif", "out"} <= set(meant) and all(codes.any() for codes in meant.values())
