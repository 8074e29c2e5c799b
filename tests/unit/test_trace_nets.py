"""Traced networks of each kind: every spike is PyTorch's, and the mapped Program's is the graph's."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from torch import Tensor, nn  # noqa: E402
from traced_nets import Lif, compare, golden, settle  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.graph.canonical import canonical  # noqa: E402
from nmc_compiler.graph.text import to_text  # noqa: E402

HEADS, DIM, T = 2, 8, 3
MASKS = ("mask", "token", "channel")


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, 0, 4))


class Levels(nn.Module):
    """Integer spikes 0..4 over 4, rounded half to even, or half up."""

    def __init__(self, up: bool = False):
        super().__init__()
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x.clamp(0, 4) + 0.5) / 4 if self.up else Round.apply(x) / 4


class Attention(nn.Module):
    """Spiking attention of one kind on [T, B, C, N], in one of the ways in which people write it."""

    def __init__(self, kind: str, neuron: type[nn.Module] = Lif):
        super().__init__()
        self.kind = kind
        width = {"fused": 3, "fused first": 3}.get(kind, 1) * DIM
        self.q, self.k, self.v = (self._layer(width if i == 0 else DIM, neuron) for i in range(3))
        self.mask, self.out = Lif(theta=0.5), neuron()

    def _layer(self, width: int, neuron: type[nn.Module]) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(DIM, width, 1, bias=False), nn.BatchNorm1d(width), neuron())

    def _through(self, layer: nn.Sequential, x: Tensor, spike: bool = True) -> Tensor:
        current = layer[1](layer[0](x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return layer[2](current) if spike else current

    def _heads(self, x: Tensor) -> Tensor:
        """[T, B, h, N, d]."""
        return x.transpose(2, 3).reshape(*x.shape[:2], x.shape[3], HEADS, -1).permute(0, 1, 3, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind.startswith("fused"):
            qkv = self._through(self.q, x, spike=self.kind == "fused")
            parts = qkv.unflatten(2, (3, HEADS, -1)).unbind(2)
            if self.kind == "fused first":
                parts = self.q[2](parts[0]), self.k[2](parts[1]), self.v[2](parts[2])
            q, k, v = (p.transpose(-1, -2) for p in parts)
        else:
            q, k, v = (self._heads(self._through(layer, x)) for layer in (self.q, self.k, self.v))
        merged = self._merge(self._attend(q, k, v))
        return merged if self.kind in MASKS else self.out(merged)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.kind == "mask":  # SDSA-1
            return q * self.mask((k * v).sum(3, keepdim=True))
        if self.kind == "token":  # QKFormer
            return self.mask(q.sum(4, keepdim=True)) * k
        if self.kind == "channel":
            return self.mask(q.sum(3, keepdim=True)) * k
        if self.kind == "qk scaled":
            return (q @ k.transpose(-2, -1)) * 0.5 @ v
        if self.kind == "kv":
            return q @ (k.transpose(-2, -1) @ v) * 0.5
        if self.kind == "einsum":
            return torch.einsum("tbhnm,tbhmd->tbhnd", torch.einsum("tbhnd,tbhmd->tbhnm", q, k), v) * 0.5
        if self.kind == "channels first":
            q, k, v = (t.transpose(-1, -2) for t in (q, k, v))
            return ((v @ k.transpose(-2, -1)) @ q * 0.5).transpose(-1, -2)
        if self.kind == "bmm":
            flat = [t.flatten(0, 2) for t in (q, k, v)]
            return (torch.bmm(torch.bmm(flat[0], flat[1].mT), flat[2]) * 0.5).unflatten(0, q.shape[:3])
        return (q @ k.transpose(-2, -1)) @ v * 0.5

    def _merge(self, x: Tensor) -> Tensor:
        return x.permute(0, 1, 2, 4, 3).flatten(2, 3)


class Net(nn.Module):
    """Convolution, attention with a residual on spikes or on currents, a linear head on the mean over tokens."""

    def __init__(self, kind: str, residual: str = "spike", neuron: type[nn.Module] = Lif, static: bool = True):
        super().__init__()
        self.residual, self.static = residual, static
        self.conv, self.bn, self.lif = nn.Conv2d(1, DIM, 3, padding=1, bias=False), nn.BatchNorm2d(DIM), neuron()
        self.attention = Attention(kind, neuron)
        self.proj, self.proj_bn, self.proj_lif = nn.Conv1d(DIM, DIM, 1), nn.BatchNorm1d(DIM), neuron()
        self.last, self.head = neuron(), nn.Linear(DIM, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = images.unsqueeze(0).repeat(T, 1, 1, 1, 1) if self.static else images.transpose(0, 1)
        x = self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]).flatten(3)
        spikes = self.lif(x)
        y = self.attention(spikes)
        y = self.proj_bn(self.proj(y.flatten(0, 1))).unflatten(0, y.shape[:2])
        x = spikes + self.proj_lif(y) if self.residual == "spike" else self.last(x + y)
        return self.head(x.mean(3)).mean(0)


KINDS = ("mask", "token", "channel", "qk", "qk scaled", "kv", "einsum", "channels first", "bmm", "fused", "fused first")


def image(seed: int = 0, **shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, *shape.values(), 4, 5, generator=generator, dtype=torch.float64) * 2


@pytest.mark.parametrize("residual", ["spike", "membrane"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_spike_of_an_attention(kind: str, residual: str) -> None:
    torch.manual_seed(4)
    _, got = compare(settle(Net(kind, residual)), image(c=1))
    assert all(codes.any() for codes in got.codes.values())


def test_the_ways_to_write_an_attention_are_one_graph() -> None:
    ways = ("qk", "qk scaled", "kv", "einsum", "channels first", "bmm")
    texts = set()
    for kind in ways:
        torch.manual_seed(2)
        graph = canonical(nmc.trace(settle(Net(kind)), (1, 1, 4, 5)).graph)
        texts.add(to_text(graph))
    assert len(texts) == 1


@pytest.mark.parametrize("up", [False, True])
def test_every_code_of_integer_neurons(up: bool) -> None:
    class Neuron(Levels):
        def __init__(self) -> None:
            super().__init__(up)

    torch.manual_seed(3)
    imported, got = compare(settle(Net("qk", "membrane", Neuron)), image(c=1), timesteps=T)
    neurons = [n for n in imported.graph if n.op == "multilevel"]
    assert {n.attr("rounding") for n in neurons} == {"half_up" if up else "half_even"}
    assert {n.attr("norm") for n in neurons} == {4} and max(c.max() for c in got.codes.values()) > 1
    assert imported.graph.timesteps == T


def test_a_layout_that_a_recording_cannot_have_is_noted() -> None:
    """Heads in front of tokens in front of their channels: [h, N, d] of (C, H, W) values."""

    class Odd(Net):
        def forward(self, images: Tensor) -> Tensor:
            x = images.unsqueeze(0).repeat(T, 1, 1, 1, 1)
            current = self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]).flatten(3)
            spikes = self.lif(self.attention._heads(current))
            return self.head(spikes.transpose(2, 3).flatten(3).mean(2)).mean(0)

    torch.manual_seed(6)
    imported, _ = compare(settle(Odd("qk")), image(c=1))
    assert "'lif' is recorded as (C, H, W) = (8, 4, 5): its module has them in another order" in imported.notes


def test_frames_along_a_time_axis_behind_the_batch() -> None:
    torch.manual_seed(4)
    imported, _ = compare(settle(Net("mask", static=False)), image(t=T, c=1))
    assert imported.graph.input_time and imported.graph.timesteps == T


@pytest.mark.parametrize("kind", ["mask", "token", "channel", "qk", "channels first", "fused"])
@pytest.mark.parametrize("residual", ["spike", "membrane"])
def test_down_to_the_emulator(kind: str, residual: str, tmp_path: Path) -> None:
    """PyTorch = float graph, and integers = emulator = its ticks; random weights say nothing of the step between."""
    torch.manual_seed(5)
    net = settle(Net(kind, residual))
    images = image(seed=7, c=1).expand(3, -1, -1, -1) * torch.tensor([0.6, 1.0, 1.4])[:, None, None, None].double()
    imported = nmc.trace(net, (1, 1, 4, 5))
    ladder = nmc.verify(nmc.compile(net, (1, 1, 4, 5)), golden(net, imported, images, tmp_path / "golden.npz"))
    rungs = {rung.name: rung for rung in ladder.rungs if rung.name != "float ~ int"}
    assert len(rungs) == 4
    assert {name: rung.first for name, rung in rungs.items()} == dict.fromkeys(rungs)
    assert all(rung.compared > 0 for rung in rungs.values())
