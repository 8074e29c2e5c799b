"""Neurons written as loops over time: recognised by what they compute, or refused with what to say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import compare, golden  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.errors import FrontendError  # noqa: E402

T = 5


class Levels(nn.Module):
    """round(clamp(x, 0, 4)), with a gradient of its own."""

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.round(torch.clamp(x, min=0, max=4))

    def forward(self, x: Tensor) -> Tensor:
        return self.Round.apply(x)


class MemUpdate(nn.Module):
    """I-LIF as in SpikeYOLO: a module of its own for the levels, spikes written into a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = Levels()

    def forward(self, x: Tensor) -> Tensor:
        spike, out, old = torch.zeros_like(x[0]).to(x.device), torch.zeros_like(x), 0
        for t in range(x.shape[0]):
            mem = (old - spike.detach()) * 0.25 + x[t] if t else x[t]
            spike = self.levels(mem)
            old = mem.clone()
            out[t] = spike
        return out


class Counted(nn.Module):
    """I-LIF as in SDTrack's T2D2: codes over their number, and statistics on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        mem, spike, out = 0, 0, torch.zeros_like(x)
        for t in range(len(x)):
            mem = (mem - spike * 2) * 0.25 + x[t]
            spike = torch.floor(torch.clamp(mem, 0, 2) + 0.5) / 2
            self.seen.append(torch.sum((spike == 0.5).to(torch.int)).item() / 2)
            out[t] = spike
        return out


class Hard(nn.Module):
    """h = v + (x - (v - rest))/tau; fires at 1; then v = rest. ``form``: how the reset is written."""

    def __init__(self, form: str = "product", tau: float = 2.0, rest: float = 0.0) -> None:
        super().__init__()
        self.form, self.tau, self.rest = form, tau, rest

    def forward(self, currents: Tensor) -> Tensor:
        v, spikes = torch.full_like(currents[0], self.rest), []
        for x in currents:
            h = v + (x - (v - self.rest)) / self.tau
            s = h >= 1.0
            spikes.append(s.to(x.dtype))
            if self.form == "product":
                v = spikes[-1] * self.rest + (1 - spikes[-1]) * h
            elif self.form == "difference":
                v = h - (h - self.rest) * spikes[-1]
            elif self.form == "fill":
                v = h.masked_fill(s, self.rest)
            else:
                v = torch.where(s, torch.full_like(h, self.rest), h)
        return torch.stack(spikes)


class Step(nn.Module):
    """One timestep per call, the state kept in the module; a learned decay. ``reset``: soft, none, late, late hard."""

    def __init__(self, reset: str, theta: float = 1.0) -> None:
        super().__init__()
        self.reset, self.theta, self.w = reset, theta, nn.Parameter(torch.tensor(0.5))
        self.mem: Any = None
        self.spike: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        old = torch.zeros_like(x) if self.mem is None else self.mem
        beta = torch.sigmoid(self.w)
        self.mem = beta * old + x
        if self.reset == "late":
            self.mem = self.mem - self.spike * self.theta
        elif self.reset == "late hard":
            self.mem = self.mem * (1 - self.spike)
        self.spike = (self.mem - self.theta > 0).to(x.dtype)
        made = self.spike
        if self.reset == "soft":
            self.mem = self.mem - made * self.theta
        return made


class Batched(nn.Module):
    """An integrator that fires above 2, batches first."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = 0, []
        for t in range(x.shape[1]):
            v = v + x[:, t]
            out.append((v > 2).to(x.dtype))
            v = v - 2 * out[-1]
        return torch.stack(out, 1)


class Net(nn.Module):
    """A linear layer, the neuron, a linear read-out; ``call``: how the neuron takes its timesteps."""

    def __init__(self, lif: nn.Module, call: str = "sequence") -> None:
        super().__init__()
        self.fc, self.lif, self.head, self.call = nn.Linear(6, 8), lif, nn.Linear(8, 3), call
        nn.init.uniform_(self.fc.weight, -1.0, 2.0)

    def forward(self, frames: Tensor) -> Tensor:
        current = self.fc(frames.flatten(2))  # [B, T, 8]
        if self.call == "step":
            spikes = torch.stack([self.lif(x) for x in current.unbind(1)], 1)
        else:
            spikes = self.lif(current) if self.call == "batched" else self.lif(current.transpose(0, 1)).transpose(0, 1)
        return self.head(spikes).mean(1)


BETA = float(torch.sigmoid(torch.tensor(0.5, dtype=torch.float64)))
LOOPS: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "I-LIF": (MemUpdate, "sequence", "ilif", {"beta": 0.25, "theta": 1.0, "levels": 4, "rounding": "half_even"}),
    "I-LIF with a norm": (
        Counted, "sequence", "ilif", {"beta": 0.25, "theta": 1.0, "levels": 2, "rounding": "half_up", "norm": 2},
    ),
    **{
        form: (lambda form=form: Hard(form), "sequence", "lif", {"tau": 2.0, "decay_input": True, "reset": "hard"})
        for form in ("product", "difference", "fill", "where")
    },
    "a rest": (
        lambda: Hard("where", 1.5, 0.25), "sequence", "lif",
        {"tau": 1.5, "v_reset": 0.25, "decay_input": True, "theta": 1.0, "compare": "ge"},
    ),
    "PLIF, soft": (lambda: Step("soft"), "step", "lif", {"tau": 1 / (1 - BETA), "decay_input": False, "reset": "soft"}),
    "no reset": (lambda: Step("none"), "step", "neuron", {"beta": BETA, "reset": "none", "theta": 1.0}),
    "a late reset": (lambda: Step("late", 0.75), "step", "neuron", {"reset": "soft", "reset_at": "next_end"}),
    "a late hard reset": (lambda: Step("late hard"), "step", "neuron", {"reset": "hard", "reset_at": "next_end"}),
    "an integrator": (Batched, "batched", "neuron", {"beta": 1.0, "theta": 2.0, "reset": "soft", "compare": "gt"}),
}  # fmt: skip


def network(lif: nn.Module, call: str = "sequence") -> Net:
    torch.manual_seed(1)
    return Net(lif, call).double().eval()


def images(count: int = 1) -> Tensor:
    return torch.rand(count, T, 6, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_recognised(name: str) -> None:
    """Every code is PyTorch's; the attributes are what the loop says."""
    make, call, op, wanted = LOOPS[name]
    net = network(make(), call)
    x = images()
    imported = nmc.trace(net, x, time_axis=1)
    (lif,) = [n for n in imported.graph if n.name == "lif"]
    assert lif.op == op
    for key, value in wanted.items():
        got = lif.attr(key)
        assert got == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key
    (note,) = [n for n in imported.notes if "computes the neuron" in n]
    assert note.startswith(f"test_trace_loops.{type(net.lif).__name__} computes the neuron {lif.op}: ")
    assert not any("never used" in n for n in imported.notes)
    if call != "step":
        _, run = compare(net, x, time_axis=1)
        assert run.codes["lif"].any()
    assert "forward" not in vars(net.lif)


@pytest.mark.parametrize("name", ["I-LIF", "I-LIF with a norm", "where"])
def test_down_the_ladder(name: str, tmp_path: Path) -> None:
    make, call, *_ = LOOPS[name]
    net = network(make(), call)
    imported = nmc.trace(net, images(), time_axis=1)
    compiled = nmc.compile(net, images(), time_axis=1, target="loihi2")
    assert nmc.verify(compiled, golden(net, imported, images(4), tmp_path / "golden.npz"), tick_images=1).ok


class Odd(nn.Module):
    """Loops that are no neuron of the graph."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, currents: Tensor) -> Tensor:
        v, before, spikes = torch.zeros_like(currents[0]), torch.zeros_like(currents[0]), []
        for t, x in enumerate(currents):
            h = 0.5 * v + x
            if self.kind == "late input":
                h = h + 0.25 * before
            elif self.kind == "quadratic":
                h = h + 0.1 * v * v
            elif self.kind == "changes" and t > 3:
                h = h + x
            elif self.kind == "bounded":
                h = h.clamp(min=-1)
            s = (h >= 1).to(x.dtype)
            if self.kind == "decides" and s.sum() > 100:
                s = 0 * s
            v = h - (0.3 if self.kind == "part" else 1.0) * s if self.kind != "swap" else h * s
            before = x
            spikes.append(s)
        return torch.stack(spikes)


@pytest.mark.parametrize("kind", ["late input", "quadratic", "changes", "bounded", "decides", "part", "swap"])
def test_what_no_neuron_computes_is_refused(kind: str) -> None:
    with pytest.raises(FrontendError) as caught:
        nmc.trace(network(Odd(kind)), images(), time_axis=1)
    text = str(caught.value)
    assert "test_trace_loops.py:" in text
    assert "if Odd is a spiking neuron, say what it computes before it is traced" in text
    assert 'nmc.register_neuron(Odd, lambda module: {"op": "lif", "tau": 2.0, ' in text and "\n" not in text


class Tired(nn.Module):
    """Fires no more after its tenth call."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.calls = 0.0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.v = 0.5 * self.v + x
        spikes = (self.v >= (1.0 if self.calls < 10 else 1e9)).to(x.dtype)
        self.v = self.v - spikes
        return spikes


def test_a_module_that_counts_its_calls_is_not_taken_for_what_it_does_at_first() -> None:
    with pytest.raises(FrontendError, match="if Tired is a spiking neuron"):
        nmc.trace(network(Tired(), "step"), images(), time_axis=1)


def test_a_module_without_state_stays_what_it_is() -> None:
    imported = nmc.trace(network(Levels()), images(), time_axis=1)
    assert [n.op for n in imported.graph if n.name == "lif"] == ["multilevel"]
