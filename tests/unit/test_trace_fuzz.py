"""Modules as nobody should write them: one error of one line, nothing run but the module, nothing left behind."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from torch.nn.modules import module as hooks_of  # noqa: E402
from traced_nets import Lif  # noqa: E402

import nmc  # noqa: E402
from nmc.cli import main  # noqa: E402
from nmc_compiler.errors import NmcError, UsageError  # noqa: E402


class Net(nn.Module):
    """Two timesteps of a linear layer, a neuron and a read-out; ``odd`` makes what it returns."""

    def __init__(self, odd: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(6, 4), Lif(), nn.Linear(4, 3)
        self.odd = odd

    def forward(self, x: Tensor) -> Any:
        spikes = self.lif(self.fc(x).unsqueeze(0).repeat(2, 1, 1))
        logits = self.out(spikes).mean(0)
        return logits if self.odd is None else self.odd(self, x, logits)


class Pair(NamedTuple):
    logits: Any
    more: Any


class Me(nn.Module):
    """Holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.me = self

    def forward(self, x: Tensor) -> Tensor:
        return self.me(x)


def weight(change: Callable[[Tensor], Tensor], layer: str = "fc") -> Net:
    net = Net()
    tensor = change(getattr(net, layer).weight.detach())
    getattr(net, layer).weight = nn.Parameter(tensor, requires_grad=False)
    return net


def with_hook(hook: Callable[..., Any], before: bool = False) -> Net:
    net = Net()
    (net.fc.register_forward_pre_hook if before else net.fc.register_forward_hook)(hook)
    return net


def overridden(name: str, value: Any) -> Net:
    net = Net()
    net.__class__ = type("Net", (Net,), {name: value})
    return net


def forever(net: Net, x: Tensor, logits: Tensor) -> Tensor:
    while True:
        logits = logits.view(1, 3) if logits.ndim == 2 else logits


def again(net: Net, x: Tensor, logits: Tensor) -> Tensor:
    while True:
        logits + 1.0


def leave(*_: Any) -> Any:
    raise SystemExit(3)


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("lost")


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "NaN": (lambda: weight(lambda w: w * float("nan")), r"'fc\.weight' has 24 values of 24 that are not finite"),
    "infinite": (lambda: weight(lambda w: w / 0.0), r"'fc\.weight' has 24 values of 24 that are not finite"),
    "complex": (lambda: weight(lambda w: w.to(torch.complex64)), r"'fc\.weight' has dtype torch\.complex64"),
    "a weight too large": (
        lambda: weight(lambda w: w[:1, :1].expand(1 << 20, 1 << 20)),
        r"'fc\.weight' of shape \(1048576, 1048576\) has more than 268435456 numbers",
    ),
    "a weight of another shape": (lambda: weight(lambda w: w[:, :5]), r"(wants|RuntimeError|channels)"),
    "expanded": (lambda: Net(lambda n, x, y: y.expand(1 << 20, 1 << 10, 3)), "elements, more than 268435456"),
    "repeated": (lambda: Net(lambda n, x, y: y.repeat(1 << 30, 1)), "elements, more than 268435456"),
    "memory": (lambda: Net(lambda n, x, y: y + torch.zeros(1 << 45)), r"test_trace_fuzz\.py:\d+: RuntimeError"),
    "itself": (Me, "its modules call each other without end, or hold each other"),
    "an error": (lambda: Net(fails), r"test_trace_fuzz\.py:\d+: KeyError: 'lost'"),
    "an exit": (lambda: Net(leave), r"test_trace_fuzz\.py:\d+: SystemExit: 3"),
    "a loop of views": (lambda: Net(forever), "more than 2000 ops of PyTorch were run: a loop without end"),
    "a loop of the same": (lambda: Net(again), "more than 2000 ops of PyTorch were run: a loop without end"),
    "None": (lambda: Net(lambda n, x, y: None), "Net returns no traced tensor, but NoneType"),
    "a text": (lambda: Net(lambda n, x, y: "logits"), "Net returns no traced tensor, but str"),
    "a generator": (lambda: Net(lambda n, x, y: (z for z in (y,))), "Net returns no traced tensor, but generator"),
    "a plain tensor": (lambda: Net(lambda n, x, y: torch.zeros(1, 3)), "Net returns no traced tensor, but Tensor"),
    "its input": (lambda: Net(lambda n, x, y: x), "does not depend on any neuron"),
    "a branch": (lambda: Net(lambda n, x, y: y if y.max() > 0 else -y), "aten.max is not|asks for the number"),
    "a range of data": (lambda: Net(lambda n, x, y: y[: int(y.sum())]), "asks for the number of a traced value"),
    "a sort": (lambda: Net(lambda n, x, y: y.sort().values), r"aten\.sort is not lowered"),
    "a complex value": (lambda: Net(lambda n, x, y: torch.fft.fft(y).real), r"is not lowered"),
    "a random number": (lambda: Net(lambda n, x, y: torch.bernoulli(y.sigmoid())), r"is not lowered"),
    "a hook that raises": (lambda: with_hook(fails), r"test_trace_fuzz\.py:\d+: KeyError: 'lost'"),
    "a hook that gives text": (lambda: with_hook(lambda m, a, out: "none"), "AttributeError|TypeError"),
    "a hook that gives data": (
        lambda: with_hook(lambda m, a, out: torch.ones(1, 4)),
        r"reads nothing but|reads a constant|does not depend|'lif'",
    ),
    "a property that raises": (lambda: overridden("named_parameters", fails), r"KeyError: 'lost'"),
    "modules that raise": (lambda: overridden("named_modules", fails), r"KeyError: 'lost'"),
    "state that raises": (lambda: overridden("state_dict", fails), r"KeyError: 'lost'"),
    "a forward of two": (lambda: overridden("forward", lambda self, x, y: x), "TypeError"),
}  # fmt: skip


def settled() -> tuple[int, ...]:
    """Global hooks that are there."""
    return len(hooks_of._global_forward_hooks), len(hooks_of._global_forward_pre_hooks)


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, text = REFUSED[name]
    monkeypatch.setattr("nmc_compiler.frontends.trace.tape.MAX_OPS", 2000)
    net, before = make(), settled()
    with pytest.raises(NmcError) as caught:
        nmc.compile(net, (1, 6), out=tmp_path / "build")
    assert re.search(text, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()) and settled() == before
    assert all("forward" not in vars(m) for m in vars(net)["_modules"].values())


TAKEN: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "whole numbers": (
        lambda: weight(lambda w: (w * 9).to(torch.int64)),
        "1 tensors of dtype int64 are taken as the numbers they hold, such as 'fc.weight'; sums are of double",
    ),
    "float16": (lambda: Net().half(), "4 tensors of dtype float16 are taken as the numbers they hold"),
    "bfloat16": (lambda: weight(lambda w: w.to(torch.bfloat16)), "1 tensors of dtype bfloat16 are taken as"),
    "bytes": (lambda: weight(lambda w: (w > 0).to(torch.uint8)), "1 tensors of dtype uint8 are taken as"),
    "float64": (lambda: Net().double(), None),
    "a tuple": (lambda: Net(lambda n, x, y: (y, None, 3)), None),
    "a dict": (lambda: Net(lambda n, x, y: {"logits": y, "loss": 0.0}), None),
    "a named tuple": (lambda: Net(lambda n, x, y: Pair(y, "more")), None),
    "its input written to": (lambda: Net(lambda n, x, y: (x.add_(1.0).mul_(2.0), y)[1]), None),
    "a mutating hook": (lambda: with_hook(lambda m, args: (args[0] * 2.0,), before=True), None),
    "a hook that adds": (lambda: with_hook(lambda m, args, out: out + 1.0), None),
    "what no number needs": (lambda: Net(lambda n, x, y: (y.exp(), y)[1]), None),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_module_is_taken_and_the_note_says_how(name: str) -> None:
    make, note = TAKEN[name]
    imported = nmc.trace(make(), (1, 6))
    said = [n for n in imported.notes if "dtype" in n]
    assert not said if note is None else len(said) == 1 and said[0].startswith(note)


def test_numbers_that_no_single_precision_holds_stay_what_they_are() -> None:
    net = weight(lambda w: torch.full_like(w, (1 << 24) + 1, dtype=torch.int64))
    graph = nmc.trace(net, (1, 6)).graph
    assert graph.tensors["fc.weight"].max() == (1 << 24) + 1


def test_what_is_written_to_the_input_counts() -> None:
    """x.add_(1) before the first layer, not behind it."""

    class Written(Net):
        def forward(self, x: Tensor) -> Any:
            x.add_(1.0)
            return super().forward(x)

    plain, written = (nmc.trace(cls(), (1, 6)).graph for cls in (Net, Written))
    assert len(list(written)) == len(list(plain)) + 1


def test_weights_that_are_not_finite_are_no_matter_where_nothing_reads_them() -> None:
    net = Net()
    net.spare = nn.Parameter(torch.full((3,), float("nan")))
    assert "parameter 'spare' is never used" in nmc.trace(net, (1, 6)).notes
    for i in range(20):
        setattr(net, f"spare{i}", nn.Parameter(torch.zeros(1)))
    assert nmc.trace(net, (1, 6)).notes[-1] == "5 more parameters are never used, from 'spare15' to 'spare19'"


@pytest.mark.parametrize(
    ("shape", "text"),
    [((1, 3, 1 << 20, 1 << 20), "more than 268435456 elements"), ((0, 6), "give the sizes of all axes"),
     ((1, 2, 3, 4, 5, 6, 7), "must have a batch of 1|samples of"), ((-1, 6), "give the sizes of all axes")],
)  # fmt: skip
def test_shapes_that_are_none(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        nmc.trace(Net(), shape)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "run")


CODE = """
import torch
from torch import nn
def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU())
"""


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_weights_run_no_code(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(CODE)
    state = {"0.weight": torch.zeros(4, 6), "0.bias": Evil(tmp_path / "pwned")}
    with open(tmp_path / "evil.pt", "wb") as file:
        torch.save(state, file) if kind == "torch" else pickle.dump(state, file)
    out = tmp_path / "build"
    given = ["compile", f"{tmp_path}/net.py:build", "--weights", str(tmp_path / "evil.pt"), "--input-shape", "1,6"]
    assert main([*given, "-o", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nmc: error: ") and "Traceback" not in said
    assert not (tmp_path / "pwned").exists() and not out.exists()


ODDITIES: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda x: x + 1.0,
    "scale": lambda x: x * -0.5,
    "square": lambda x: x * x,
    "relu": torch.relu,
    "levels": lambda x: torch.round(x.clamp(0, 4)),
    "fires": lambda x: (x >= 1).to(x.dtype),
    "exp": torch.exp,
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(1, -1),
    "cat": lambda x: torch.cat([x, x], -1),
    "half": lambda x: x[..., : max(x.shape[-1] // 2, 1)],
    "pad": lambda x: nn.functional.pad(x, (1, 2)),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "sum": lambda x: x.sum(0, keepdim=True),
    "matmul": lambda x: x @ x.mT @ x,
    "half precision": lambda x: x.half().float(),
    "outer": lambda x: x[..., None] * x[..., None, :],
    "where": lambda x: torch.where(x >= 1, x, torch.zeros_like(x)),
    "softmax": lambda x: x.softmax(-1),
    "in place": lambda x: x.mul_(2.0),
    "norm": lambda x: x / x.norm(),
    "number": lambda x: x * float(x.sum()),
    "empty": lambda x: x[..., :0],
    "view": lambda x: x.reshape(-1),
    "cumulated": lambda x: x.cumsum(0),
}


class Chain(nn.Module):
    def __init__(self, names: list[str], behind: list[str]) -> None:
        super().__init__()
        self.names, self.behind = names, behind
        self.fc, self.lif = nn.Linear(6, 4), Lif()

    def forward(self, x: Tensor) -> Any:
        x = self.fc(x).unsqueeze(0).repeat(2, 1, 1)
        for name in self.names:
            x = ODDITIES[name](x)
        x = self.lif(x)
        for name in self.behind:
            x = ODDITIES[name](x)
        return x.mean(0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(ODDITIES)), max_size=3), st.lists(st.sampled_from(sorted(ODDITIES)), max_size=3))
def test_any_chain_of_ops_gives_a_graph_or_one_error(names: list[str], behind: list[str]) -> None:
    net, before = Chain(names, behind), settled()
    try:
        imported = nmc.trace(net, (1, 6))
    except NmcError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert imported.graph.outputs or any(n.op == "readout" for n in imported.graph)
    assert settled() == before and "forward" not in vars(net.lif)
