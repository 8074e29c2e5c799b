"""Small modules to trace, and PyTorch's own run of them: what tests of tracing compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import nmc
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_emulator import run


class Lif(nn.Module):
    """h = v + (x - v)/tau; fires at h >= theta, then v = 0; over the leading time axis."""

    def __init__(self, theta: float = 1.0, tau: float = 2.0):
        super().__init__()
        self.theta, self.tau = theta, tau

    def forward(self, current: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(current[0]), []
        for x in current:
            h = v + (x - v) / self.tau
            spikes.append((h >= self.theta).to(x.dtype))
            v = (1 - spikes[-1]) * h
        return torch.stack(spikes)


def describe(lif: Lif) -> dict[str, Any]:
    return {
        "tau": lif.tau,
        "theta": lif.theta,
        "decay_input": True,
        "compare": "ge",
        "reset": "hard",
        "call": "sequence",
    }


nmc.register_neuron(Lif, describe)


class TwoLayers(nn.Module):
    """Two convolutions with a neuron each; subclasses say what becomes of the spikes of both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.conv2, self.two = nn.Conv2d(1, 4, 3), Lif(), nn.Conv2d(4, 4, 1), Lif()

    def spikes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[3, N, 4, 4, 4] each, of images [N, 1, 6, 6]."""
        a = self.one(self.conv(x).unsqueeze(0).repeat(3, 1, 1, 1, 1))
        return a, self.two(self.conv2(a.flatten(0, 1)).unflatten(0, a.shape[:2]))


Net = TypeVar("Net", bound=nn.Module)


def settle(net: Net, seed: int = 0) -> Net:
    """In float64 and evaluation mode, with batch norms that keep every layer busy."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in (
                (module.weight, 0.8, 1.2),
                (module.bias, 0.3, 1.0),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.05, 0.2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return net.double().eval()


def ran(net: nn.Module, x: Tensor) -> tuple[Any, dict[str, np.ndarray]]:
    """What a module returns, and the first output of each module by name, call after call."""
    seen: dict[str, list[np.ndarray]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, out: Any) -> None:
            first = out[0] if isinstance(out, tuple) else out
            if isinstance(first, Tensor):
                seen.setdefault(name, []).append(first.detach().numpy())

        return hook

    hooks = [m.register_forward_hook(keep(name)) for name, m in net.named_modules() if name]
    with torch.no_grad():
        result = net(x)
    for hook in hooks:
        hook.remove()
    alike = {name: calls for name, calls in seen.items() if len({c.shape for c in calls}) == 1}
    return result, {name: np.stack(calls) for name, calls in alike.items()}


def images_of(imported: Imported, x: Tensor) -> np.ndarray:
    """A module's input as the interpreter takes it: [1, C, H, W], or [1, T, C, H, W] and ones where it runs longer."""
    graph, array = imported.graph, x.double().numpy()
    frames = (-1,) if graph.input_time else ()
    images = array.reshape(1, *frames, *graph.sources[0].type.shape)
    late = graph.timesteps - images.shape[1] if graph.input_time and graph.timesteps else 0
    return np.pad(images, ((0, 0), (0, late), *[(0, 0)] * 3), constant_values=1.0) if late else images


def compare(net: nn.Module, x: Tensor, **options: Any) -> tuple[Imported, Interpretation]:
    """Trace; every neuron's codes are PyTorch's, value for value, and so is what the module returns."""
    imported = nmc.trace(net, x, **options)
    result, seen = ran(net, x)
    got = interpret(imported.graph, images_of(imported, x), record="all")
    assert got.codes
    by_name = {n.name: n for n in imported.graph if n.name}
    for name, codes in got.codes.items():
        if name not in seen:
            assert name.rsplit(".", 1)[-1] in ("mul", "spike"), name  # of functions, not of modules
            continue
        node = by_name[name]
        first, count = node.attr("record_window", (0, len(codes)))
        assert not codes[:first].any() and not codes[first + count :].any(), name
        codes = codes[first : first + count]
        if "record_shape" not in node.attrs:  # an order that a recording cannot have
            assert np.array_equal(np.sort(codes, axis=None), np.sort(seen[name], axis=None)), name
            continue
        shape = node.attr("record_shape", node.type.shape)
        perm = [2 + axis for axis in node.attr("record_perm", (0, 1, 2))]
        moved = codes.transpose(0, 1, *perm).reshape(len(codes), *shape)
        theirs = np.rint(seen[name] * node.attr("norm", 1))
        assert np.array_equal(moved.reshape(-1), theirs.reshape(-1)), name
    first = result[0] if isinstance(result, tuple) else result
    mine = next(iter(got.outputs.values())) if imported.graph.outputs else got.logits
    np.testing.assert_allclose(mine.reshape(-1), first.detach().numpy().reshape(-1), rtol=0, atol=1e-6)
    return imported, got


def down_to_the_emulator(net: nn.Module, x: Tensor) -> Interpretation:
    """Spikes are PyTorch's; integers are those of both engines. What the float graph gave."""
    imported, got = compare(net, x)
    compiled, images = nmc.compile(net, x), images_of(imported, x)
    truth = interpret(compiled.int_graph, images, record="all")
    for engine in ("layers", "ticks"):
        found = run(compiled.program, images, record="all", engine=engine)
        assert truth.raw_logits is not None and np.array_equal(found.logits_int, truth.raw_logits)
        for name, codes in truth.codes.items():
            assert np.array_equal(np.moveaxis(found.codes[name], 1, 0), codes), name
    return got


def golden(net: nn.Module, imported: Imported, images: Tensor, path: Path) -> Path:
    """A recording of the module itself, as ``nmc verify --golden`` takes it; one image after the other."""
    runs = [ran(net, image[None]) for image in images]
    names = [n.name for n in imported.graph if n.type.is_event and n.name in runs[0][1]]
    norms = {n.name: n.attr("norm", 1) for n in imported.graph}
    spikes = {
        f"spikes/{name}": np.rint(np.concatenate([seen[name][0] for _, seen in runs], axis=1) * norms[name]).astype(
            np.uint8
        )
        for name in names
    }
    logits = np.concatenate([result.numpy() for result, _ in runs])
    np.savez(path, images=images.numpy(), labels=logits.argmax(axis=1), logits=logits, **spikes)
    return path
