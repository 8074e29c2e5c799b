"""NeuroBench's own metrics of the same networks and inputs: equal, or off by what is named (docs/metrics.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NeuroBench needs PyTorch; pip install '.[torch]'")
pytest.importorskip("snntorch", reason="NeuroBench needs snnTorch; pip install '.[dev]'")
HOW = "compares with NeuroBench; pip install --no-deps neurobench==2.3.0"
benchmarks = pytest.importorskip("neurobench.benchmarks", reason=HOW, exc_type=ImportError)

from metric_nets import NEURONS, conv_net, frames, jelly_net, mlp, transformer  # noqa: E402
from neurobench.metrics import static, workload  # noqa: E402
from neurobench.models import SNNTorchModel, TorchModel  # noqa: E402

import nmc  # noqa: E402
from nmc_compiler.frontends.checkpoint import Imported  # noqa: E402

STATIC = [static.Footprint, static.ParameterCount, static.ConnectionSparsity]
WORKLOAD = [workload.ActivationSparsity, workload.SynapticOperations, workload.MembraneUpdates]
BATCH = 3


def theirs(model: Any, x: np.ndarray, batch: int = BATCH) -> dict[str, Any]:
    """Results of a Benchmark over samples [N, ...]."""
    from torch.utils.data import DataLoader, TensorDataset

    data = DataLoader(TensorDataset(torch.from_numpy(x), torch.zeros(len(x))), batch_size=batch)
    bench = benchmarks.Benchmark(model, data, [], [], [STATIC, WORKLOAD])
    with torch.no_grad():
        found = dict(bench.run(quiet=True))
    bench.workload_metric_manager.cleanup_hooks(model)
    return found


def neuron_buffers(net: Any) -> int:
    """Bytes that snnTorch's neurons store: decay, threshold, factor of a spike, kind of reset."""
    import snntorch

    neurons = [m for m in net.modules() if isinstance(m, snntorch.SpikingNeuron)]
    stored = [b for m in neurons for b in m.buffers(recurse=False)]
    return sum(b.numel() * b.element_size() for b in stored)


def by_numbers(traced: Imported, x: np.ndarray) -> np.ndarray:
    """Frames [N, T, ...] as the graph takes them."""
    return x.reshape(*x.shape[:2], *traced.graph.sources[0].type.shape)


@pytest.mark.parametrize("make, shape, top", [(mlp, (24,), 1), (mlp, (24,), 3), (conv_net, (2, 8, 8), 1),
                                              (conv_net, (2, 8, 8), 3)])  # fmt: skip
def test_networks_of_snntorch(make, shape, top) -> None:
    """Spikes in, or counts in: a timestep in which no count is above 1 is additions, the others multiplications."""
    net = make()
    x = frames(7, 5, *shape, top=top)
    traced = nmc.trace(net, (1, *shape))
    extra = neuron_buffers(net)  # before a run, which leaves potentials there
    want = theirs(SNNTorchModel(net), x)
    found = nmc.metrics(traced, by_numbers(traced, x), batch=BATCH)
    got = found.neurobench()
    assert all(layer.work.effective for layer in found.layers)
    assert got["SynapticOperations"] == want["SynapticOperations"]
    assert (got["SynapticOperations"]["Effective_MACs"] > 0) == (top > 1)
    assert got["ActivationSparsity"] == pytest.approx(want["ActivationSparsity"], rel=1e-12)
    assert 0.1 < got["ActivationSparsity"] < 0.95
    assert got["MembraneUpdates"] == want["MembraneUpdates"]
    assert got["ParameterCount"] == want["ParameterCount"]
    assert round(got["ConnectionSparsity"], 4) == want["ConnectionSparsity"] > 0.1
    assert got["Footprint"] == want["Footprint"] - extra
    assert extra == 20 * sum(type(m).__name__ == "Leaky" for m in net.modules())


def test_a_network_of_spikingjelly() -> None:
    """Neurons without buffers: the footprint is the same; NeuroBench knows no potential of theirs."""
    jelly = pytest.importorskip("spikingjelly.activation_based", reason="needs SpikingJelly: pip install '.[dev]'")
    net = jelly_net()
    x = frames(4, 5, 2, 8, 8, top=3)
    traced = nmc.trace(net, (5, 1, 2, 8, 8))

    class Whole(TorchModel):
        """[B, T, ...], as NeuroBench has it, to [T, B, ...] and back, from rest."""

        def __call__(self, batch):
            jelly.functional.reset_net(self.net)
            return self.net(batch.transpose(0, 1)).transpose(0, 1)

    model = Whole(net)
    model.add_activation_module(jelly.neuron.BaseNode)
    want = theirs(model, x)
    got = nmc.metrics(traced, by_numbers(traced, x), batch=BATCH, calls="run").neurobench()
    same = ("Footprint", "ParameterCount", "SynapticOperations")
    assert {k: got[k] for k in same} == {k: want[k] for k in same}
    assert got["ActivationSparsity"] == pytest.approx(want["ActivationSparsity"], rel=1e-12)
    assert want["MembraneUpdates"] == 0 < got["MembraneUpdates"]


@pytest.mark.parametrize("name", ["spikingformer", "spikformer-imagenet", "qkformer"])
def test_a_transformer_of_the_zoo(name) -> None:
    """Products of q, k and v are in no layer that NeuroBench hooks; its head stands behind the mean over time.

    Inputs of Spikformer and QKFormer are sums of spikes: additions in a call where none is above 1.
    """
    net, images = transformer(name)
    traced = nmc.trace(net, images[:1].shape)
    model = TorchModel(net)
    model.add_activation_module(NEURONS)
    heads: list[int] = []

    def seen(module: Any, given: Any) -> None:
        heads.extend([int((given[0] != 0).sum())] * (module is net.head))  # not of copies that NeuroBench makes

    hook = net.head.register_forward_pre_hook(seen)
    want = theirs(model, images)
    hook.remove()
    found = nmc.metrics(traced, images, batch=BATCH, calls="run")
    got, head = found.neurobench(), found.layers[-1]
    assert head.layer == "head" and head.work == head.real and net.head.weight.all()
    n, classes = found.samples, net.head.out_features
    operations = got["SynapticOperations"]
    assert operations["Effective_ACs"] == want["SynapticOperations"]["Effective_ACs"] > 0
    rest = operations["Effective_MACs"] - head.work.effective / n
    assert rest == want["SynapticOperations"]["Effective_MACs"] - sum(heads) * classes / n
    once = operations["Dense"] - head.work.dense * (1 - 1 / traced.graph.timesteps) / n
    assert once == want["SynapticOperations"]["Dense"]
    assert got["ActivationSparsity"] == pytest.approx(want["ActivationSparsity"], rel=1e-12)
    assert all(count > 0 for count in found.attention.values()) and found.attention
    unused = {n: p for n, p in net.named_parameters() if ".norm" in n}  # layer norms that the forward never calls
    assert got["ParameterCount"] == want["ParameterCount"] - sum(p.numel() for p in unused.values())
    counters = [b for n, b in net.named_buffers() if n.endswith("num_batches_tracked")]
    unread = [*unused.values(), *counters]
    assert got["Footprint"] == want["Footprint"] - sum(b.numel() * b.element_size() for b in unread)
