"""Parallel spiking neurons that hear later timesteps, in networks: made causal, late, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
pytest.importorskip("spikingjelly.activation_based", reason="needs SpikingJelly: pip install '.[dev]'")

from spikingjelly.activation_based import layer, neuron  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from traced_nets import compare, images_of, settle  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402
from nmc_compiler.fitting import fit  # noqa: E402
from nmc_compiler.frontends.trace.ahead import causal  # noqa: E402
from nmc_compiler.graph import Graph, GraphBuilder, Kind, Use, ValueType  # noqa: E402
from nmc_compiler.graph.interpret import interpret  # noqa: E402
from nmc_compiler.options import CompileOptions  # noqa: E402
from nmc_compiler.passes.pipeline import compile_graph  # noqa: E402
from nmc_compiler.passes.report import ConversionReport  # noqa: E402
from nmc_compiler.target import load_target  # noqa: E402
from nmc_emulator import run  # noqa: E402

STEPS = 4


def psn(kind: str) -> Any:
    made = {
        "full": lambda: neuron.PSN(STEPS),
        "mask": lambda: neuron.MaskedPSN(k=2, T=STEPS, lambda_init=1.0, step_mode="m"),
        "soft mask": lambda: neuron.MaskedPSN(k=2, T=STEPS, lambda_init=0.5, step_mode="m"),
        "sliding": lambda: neuron.SlidingPSN(k=2, exp_init=False, step_mode="m"),
        "soft LIF": lambda: neuron.LIFNode(v_reset=None, step_mode="m"),
        "CUBA": lambda: neuron.CUBALIFNode(v_threshold=1.0),
    }[kind]()
    if kind == "CUBA":
        made.step_mode = "m"
    if hasattr(made, "bias"):
        made.bias.data.fill_(-0.3)
    return made


class Net(nn.Module):
    """Convolution, norm, PSN, pool; ``second`` behind a residual sum with what comes before ``middle``; ``third``."""

    def __init__(self, middle: str, second: str, residual: bool, first: str = "full") -> None:
        super().__init__()
        self.conv, self.bn = layer.Conv2d(2, 4, 3, padding=1, step_mode="m"), layer.BatchNorm2d(4, step_mode="m")
        self.first, self.pool = psn(first), layer.MaxPool2d(2, 2, step_mode="m")
        self.fc, self.middle = nn.Linear(16, 6), psn(middle)
        self.fc2, self.second, self.residual = nn.Linear(6, 6), psn(second), residual
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.fc(self.pool(self.first(self.bn(self.conv(x)))).flatten(2))
        after = self.fc2(self.middle(current))
        return self.head(self.second(after + current if self.residual else after)).mean(0)


def made(middle: str, second: str, residual: bool, first: str = "full") -> tuple[Net, Tensor]:
    torch.manual_seed(3)
    net = settle(Net(middle, second, residual, first))
    net.fc.weight.data *= 4
    net.fc2.weight.data *= 4
    return net, (torch.randn(STEPS, 1, 2, 4, 4, dtype=torch.float64) * 2).clamp(-4, 4)


LATE = {"full": STEPS - 1, "soft mask": STEPS - 1}


@pytest.mark.parametrize("residual", [False, True], ids=["chain", "residual"])
@pytest.mark.parametrize(("middle", "second"), [("soft LIF", "full"), ("sliding", "soft mask"), ("CUBA", "soft LIF")])
def test_spikes_are_spikingjellys_so_many_timesteps_late(middle: str, second: str, residual: bool) -> None:
    net, x = made(middle, second, residual)
    imported, got = compare(net, x)
    late = STEPS - 1 + LATE.get(middle, 0) + LATE.get(second, 0)
    assert imported.graph.timesteps == STEPS + late
    assert f"samples have {STEPS} timesteps; the network runs {late} longer" in imported.notes
    assert "'first' hears up to 3 timesteps ahead, and is as late" in imported.notes
    target, options, images = load_target("loihi2"), CompileOptions(input_range=(-4.0, 4.0)), images_of(imported, x)
    integers = compile_graph(imported.graph, target, options, ConversionReport())
    program = fit(integers, target, options, ConversionReport()).program
    truth, found = interpret(integers, images, record="all"), run(program, images, record="all")
    for name, codes in truth.codes.items():
        assert np.array_equal(np.moveaxis(found.codes[name], 1, 0), codes), name
    assert truth.raw_logits is not None and np.array_equal(found.logits_int, truth.raw_logits)
    assert all(codes.any() for codes in got.codes.values())


@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("kind", [neuron.PSN, neuron.MaskedPSN])
def test_a_network_of_any_length_is_compiled_and_says_its_threshold(kind: Any, steps: int) -> None:
    """Thresholds are by timestep: also where there are as many timesteps as channels, and for one of each."""
    node = kind(steps) if kind is neuron.PSN else kind(k=2, T=steps, lambda_init=1.0, step_mode="m")
    node.bias.data = -0.25 * torch.arange(1.0, steps + 1)[:, None]
    net = nn.Sequential(nn.Linear(3, 4), node, nn.Linear(4, 2))

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.unsqueeze(0).repeat(steps, 1, 1)).mean(0)

    (layer_of,) = (
        x for x in nmc.compile(Mean(), (1, 3), timesteps=steps).conversion["layers"] if x["layer"] == "net.1"
    )
    assert layer_of["kind"] == "psn" and layer_of["theta"] == 0.25 * steps


@pytest.mark.parametrize("first", ["mask", "sliding", "soft LIF"])
def test_neurons_in_front_are_as_long_as_the_sample(first: str) -> None:
    """Whatever is shown behind the last frame, they are silent there."""
    net, x = made("sliding", "full", True, first)
    imported, got = compare(net, x)
    assert imported.graph.timesteps == STEPS + STEPS - 1 and got.codes["first"].any()
    after = compile_graph(
        imported.graph, load_target("loihi2"), CompileOptions(input_range=(-4.0, 4.0)), ConversionReport()
    )
    assert not interpret(after, images_of(imported, x), record="all").codes["first"][STEPS:].any()


def test_what_is_added_in_front_of_a_read_out_is_counted_once() -> None:
    """A norm behind the last layer, and a residual current, each with offsets."""

    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.node = nn.Linear(3, 4), psn("full")
            self.head, self.bn, self.skip = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.node(self.fc(x))
            return (self.bn(self.head(spikes).flatten(0, 1)).unflatten(0, x.shape[:2]) + self.skip(spikes)).mean(0)

    torch.manual_seed(1)
    compare(settle(Norms()), torch.randn(STEPS, 1, 3, dtype=torch.float64) * 2)


class Looped(nn.Module):
    def __init__(self, last: nn.Module, mean: bool) -> None:
        super().__init__()
        self.fc, self.node, self.fc2, self.last, self.mean = nn.Linear(3, 4), psn("full"), nn.Linear(4, 2), last, mean

    def forward(self, x: Tensor) -> Tensor:
        out = self.last(self.fc2(self.node(self.fc(x))))
        return out.mean(0) if self.mean else out


REST = "and would not rest before its first timestep, which comes 3 late: a parallel spiking neuron hears later ones"
REFUSED = [
    (lambda: neuron.IFNode(v_reset=-0.5, step_mode="m"), f"'last' has start_v, {REST}"),
    (
        lambda: neuron.LIFNode(v_threshold=-0.5, v_reset=None, step_mode="m"),
        f"'last' has a threshold of 0 or less, {REST}",
    ),
]


@pytest.mark.parametrize(("last", "text"), REFUSED, ids=["start", "threshold"])
def test_neurons_that_do_not_rest_are_refused(last: Any, text: str) -> None:
    with pytest.raises(FrontendError) as caught:
        nmc.trace(Looped(last(), mean=True), (STEPS, 1, 3))
    assert str(caught.value) == text


def by_hand(op: str, **attrs: Any) -> Graph:
    """x -> PSN that hears everything -> an op -> read-out; ``loop``: the PSN hears that op's spikes, too."""
    b = GraphBuilder("hand", STEPS, "float", input_time=True)
    loop = attrs.pop("loop", False)
    one = b.tensor("one", np.ones((1, 1, 1, 1)))
    x = b.add("conv2d", b.add("input", id="x", shape=(1, 1, 1)), weight=one)
    if loop:
        b.declare("after", ValueType(Kind.SPIKE, (1, 1, 1)))
        x = b.add("add", x, b.add("conv2d", Use("after", 1), weight=one))
    full = b.tensor("full", np.ones((STEPS, STEPS)))
    heard = b.add("conv2d", b.add("psn", x, name="psn", weight=full, theta=0.5), weight=one)
    tables = {k: b.tensor(k, v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    after = b.add(op, heard, id="after", name="after", **tables)
    b.add("readout", b.add("conv2d", after, weight=one) if op == "neuron" else after, name="logits")
    return b.build()


LIF = {"beta": 0.5, "theta": 1.0, "reset": "hard", "compare": "ge"}
PSN_ONLY = "in a network with a parallel spiking neuron that hears later timesteps it is not lowered, use a masked"
BY_HAND = [
    (
        "neuron",
        LIF | {"loop": True},
        "is in a loop with a parallel spiking neuron that hears later timesteps, which wait",
    ),
    ("integrator", {"beta": 0.5}, "keeps a potential, which an output reads at every timestep; " + PSN_ONLY),
    ("time_affine", {"gain": np.ones(STEPS)}, "numbers for each timestep in front of the read-out; " + PSN_ONLY),
    (
        "neuron",
        LIF | {"leak": 0.1},
        "'after' has leak, and would not rest before its first timestep, which comes 3 late",
    ),
]


@pytest.mark.parametrize(("op", "attrs", "text"), BY_HAND, ids=["loop", "integrator", "time_affine", "leak"])
def test_ops_that_cannot_be_late_are_refused(op: str, attrs: dict, text: str) -> None:
    with pytest.raises(FrontendError, match=text):
        causal(by_hand(op, **attrs))


def test_outputs_say_how_late_they_are() -> None:
    imported = nmc.trace(Looped(neuron.LIFNode(step_mode="m"), mean=False), (STEPS, 1, 3))
    assert "output 'last' is 3 timesteps late" in imported.notes or "output 'out' is 3 timesteps late" in imported.notes
    assert imported.graph.timesteps == STEPS + 3


def test_codes_behind_the_last_timestep_are_told_of() -> None:
    """Integer codes in front of a parallel neuron: what they leave may be sent when the sample is over."""

    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.codes = nn.Linear(4, 5), neuron.ILIFNode(step_mode="m")
            self.fc2, self.spikes, self.head = nn.Linear(5, 6), psn("full"), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.spikes(self.fc2(self.codes(self.fc(x))))).mean(0)

    notes = nmc.trace(Codes(), (STEPS, 1, 4), timesteps=STEPS).notes
    text = "'codes' keeps what its codes leave: it may send more behind its last timestep"
    assert any(note.startswith(text) for note in notes)
