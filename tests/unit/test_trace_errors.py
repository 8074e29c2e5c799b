"""What cannot be traced is refused with one clear error: the op, the module, the line of the user's code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import Lif  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import CapacityError, FrontendError, UsageError  # noqa: E402

HERE = "test_trace_errors.py"


class Net(nn.Module):
    """Two timesteps of a linear layer and a neuron; ``odd`` is what the test is about."""

    def __init__(self, odd: Callable[..., Any] | None = None, **modules: nn.Module):
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(6, 4), Lif(), nn.Linear(4, 3)
        self.odd = odd
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        current = self.fc(x).unsqueeze(0).repeat(2, 1, 1)
        spikes = self.lif(current)
        if self.odd is not None:
            return self.odd(self, current, spikes)
        return self.out(spikes).mean(0)


def branch(net: Net, current: Tensor, spikes: Tensor) -> Tensor:
    return net.out(spikes).mean(0) if spikes.sum() > 0 else current


def endless(net: Net, current: Tensor, spikes: Tensor) -> Tensor:
    x = current[0]
    while True:
        x = x + 1.0


ODD: dict[str, tuple[Callable[..., Any], str]] = {
    "softmax": (lambda n, c, s: torch.softmax(c, -1), r"\(Net\): aten\._softmax is not lowered: it is no linear map"),
    "exp": (lambda n, c, s: c.exp(), r"aten\.exp is not lowered"),
    "layer norm": (lambda n, c, s: n.norm(c), r"in 'norm' \(LayerNorm\): aten\.native_layer_norm is not lowered"),
    "if": (branch, "the code asks for the number of a traced value"),
    "item": (lambda n, c, s: s.sum().item(), "the code asks for the number of a traced value"),
    "numpy": (lambda n, c, s: s.numpy(), "the code asks for the number of a traced value"),
    "a current by a current": (lambda n, c, s: n.out(n.second(c * c)).mean(0), "multiplies current by current values"),
    "a product of spikes alone": (
        lambda n, c, s: n.out(n.second(s.mT @ s @ torch.eye(4))).mean(0),
        "reads a product of spikes|a product of spikes is neither",
    ),
    "half a neuron": (lambda n, c, s: n.out(n.second(torch.round(c))).mean(0), "round is neither a neuron"),
    "levels of another range": (lambda n, c, s: torch.round(c.clamp(-3, 4)), "rounds values clamped to -3..4; 0..D"),
    "batch norm in training": (
        lambda n, c, s: nn.functional.batch_norm(c[0], None, None, training=True),
        "batch norm in training mode, or without running statistics",
    ),
    "a sum over some timesteps": (
        lambda n, c, s: n.lif(n.fc(torch.ones(3, 1, 6))[:1] + c[:1].repeat(3, 1, 1))[1:].sum(0),
        "is called more than once|adds up",
    ),
    "a neuron behind a mean": (lambda n, c, s: n.second(s.mean(0, keepdim=True)), "a neuron reads one at a time"),
    "a neuron called twice": (lambda n, c, s: n.out(n.lif(n.lif(c))).mean(0), "'lif' is called more than once"),
    "nothing": (lambda n, c, s: None, "Net returns no traced tensor, but NoneType"),
    "no neuron": (lambda n, c, s: c, "does not depend on any neuron"),
    "a plain buffer": (lambda n, c, s: torch.zeros(2, 1, 4).copy_(s), "writes a traced value into a plain tensor"),
    "a sum in a plain buffer": (lambda n, c, s: torch.zeros(2, 1, 4).add_(s), "writes a traced value into a plain"),
    "an error of the user": (lambda n, c, s: n.out(s[..., :3]), "wants 4 input channels, the input"),
    "a name error": (lambda n, c, s: undefined, rf"{HERE}:\d+: NameError: name 'undefined' is not defined"),  # noqa: F821
    "recursion": (lambda n, c, s: n(c[0, :, :1].repeat(1, 6)), "its modules call each other without end|more than"),
    "without end": (endless, "more than 500 values were computed: a loop that does not end"),
}


@pytest.mark.parametrize("name", ODD)
def test_one_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, text = ODD[name]
    monkeypatch.setattr("nmc_compiler.frontends.trace.tape.MAX_VALUES", 500)
    net = Net(odd, norm=nn.LayerNorm(4), second=Lif())
    with pytest.raises(FrontendError) as caught:
        nmc.trace(net, (1, 6))
    assert re.search(text, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert net.training and "forward" not in vars(net.lif)  # left as it was


def test_the_line_is_the_users() -> None:
    with pytest.raises(FrontendError, match=rf"^{HERE}:\d+ \(Net\): aten\._softmax"):
        nmc.trace(Net(lambda n, c, s: torch.softmax(c, -1)), (1, 6))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda n: n.fc.weight.data.fill_(float("nan")), r"'fc\.weight' has 24 values of 24 that are not finite"),
        (lambda n: setattr(n, "fc", nn.Linear(6, 4, device="meta")), r"'fc\.weight' is on the meta device"),
        (
            lambda n: setattr(n, "fc", nn.Linear(6, 4, dtype=torch.complex64)),
            r"'fc\.weight' has dtype torch\.complex64",
        ),
    ],
)
def test_weights_that_are_none(change: Callable[[Net], Any], text: str) -> None:
    net = Net()
    change(net)
    with pytest.raises(FrontendError, match=text):
        nmc.trace(net, (1, 6))


@pytest.mark.parametrize(
    ("shape", "options", "text"),
    [
        ((), {}, "give the sizes of all axes"),
        ((0, 6), {}, "give the sizes of all axes"),
        ((1, 1 << 40), {}, "has more than 268435456 elements"),
        ((2, 6), {}, r"must have a batch of 1 \(axis 0, 2 long, is taken as time\)"),
        ((1, 2, 3, 4, 5, 6), {}, "samples of 5 axes"),
        ((1, 6), {"time_axis": 2}, "time axis 2; it is 0"),
        ((5000, 1, 6), {}, "5000 timesteps, more than 4096"),
        ((3, 1, 6), {"timesteps": 4}, "has 3 timesteps, but 4 are asked for"),
        (("a",), {}, "give a tensor, an array or a shape"),
        ((1, 6), {"kind": "s4"}, "a traced module's input cannot be 's4'"),
    ],
)
def test_shapes_that_do_not_tell(shape: tuple[Any, ...], options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        nmc.trace(Net(), shape, **options)


def test_another_number_of_timesteps() -> None:
    with pytest.raises(FrontendError, match="Net runs 2 timesteps when it is called, but 5 are asked for"):
        nmc.trace(Net(), (1, 6), timesteps=5)


def test_what_is_no_module() -> None:
    with pytest.raises(UsageError, match="int is no torch.nn.Module"):
        nmc.trace(3, (1, 6))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"op": "conv2d"}, "its op 'conv2d' is no neuron of the graph"),
        ({"tau": 2.0}, "op 'lif' needs 'theta'"),
        ({"tau": 2.0, "volts": 1}, "op 'lif' has no 'volts'"),
        ({"call": "twice"}, "'call' is 'twice'; it must be 'step' or"),
        ({"gives": "sparks"}, "'gives' is 'sparks'"),
        (1 / 0 if False else None, "its description failed: TypeError"),
    ],
)
def test_descriptions_that_are_none(given: Any, text: str) -> None:
    class Spark(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    nmc.register_neuron(Spark, lambda module: given)
    with pytest.raises(FrontendError, match=re.escape("'spark' (") + ".*" + re.escape(text)):
        nmc.trace(Net(None, spark=Spark()), (1, 6))


def test_a_description_is_a_function() -> None:
    with pytest.raises(UsageError, match="the second argument must be a function of the module"):
        nmc.register_neuron(Lif, {"tau": 2.0})  # type: ignore[arg-type]


def test_a_subclass_that_computes_something_else_is_another_neuron() -> None:
    class Same(Lif):
        def __init__(self) -> None:
            super().__init__(theta=0.5)

    class Other(Lif):
        def forward(self, current: Tensor) -> Tensor:
            return torch.exp(current)

    traced = nmc.trace(Net(lambda n, c, s: n.out(n.same(c)).mean(0), same=Same()), (1, 6))
    assert [n.name for n in traced.graph if n.op == "lif"] == ["same"]
    with pytest.raises(FrontendError, match=r"in 'other' \(Other\): aten\.exp is not lowered.*register_neuron"):
        nmc.trace(Net(lambda n, c, s: n.other(c), other=Other()), (1, 6))


def test_unused_parameters_are_noted() -> None:
    traced = nmc.trace(Net(None, spare=nn.Linear(2, 2)), (1, 6))
    assert traced.notes[1:] == ("parameter 'spare.weight' is never used", "parameter 'spare.bias' is never used")


def test_a_refusal_of_what_was_taken_as_a_stream_says_so() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(200_000, 2), Lif()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.fc(x).unsqueeze(0)).squeeze(0)

    with pytest.raises(CapacityError, match=r"it is a stream \(-T N\); -T 1 if a call is a whole sample\)$"):
        nmc.compile(Step(), (1, 200_000))
