"""SpikingJelly's op_counter on the same networks and inputs: SynOps, ACs, MACs, reads of weights (docs/metrics.md)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="SpikingJelly needs PyTorch; pip install '.[torch]'")
HOW = "compares with SpikingJelly; pip install '.[dev]'"
counters = pytest.importorskip("spikingjelly.activation_based.op_counter", reason=HOW)

from metric_nets import conv_net, frames, jelly_net, transformer  # noqa: E402

import nmc  # noqa: E402
from nmc.measuring import Metrics  # noqa: E402

aten = torch.ops.aten
LAYERS = (aten.convolution.default, aten.addmm.default, aten.mm.default)  # what layers with weights call
PRODUCTS = (aten.bmm.default, aten.baddbmm.default)


class Theirs:
    """Counts of one forward pass by kind of call: layers with weights, products of two activations, all else."""

    def __init__(self, net, *inputs) -> None:
        counted = {name: getattr(counters, f"{name}Counter")() for name in ("SynOp", "AC", "MAC")}
        with counters.DispatchCounterMode(list(counted.values())), torch.no_grad():
            for x in inputs:
                net(x)
        calls = {name: c.get_counts().get("Global", {}) for name, c in counted.items()}
        self.layers = {name: sum(n for call, n in of.items() if call in LAYERS) for name, of in calls.items()}
        self.products = {name: sum(n for call, n in of.items() if call in PRODUCTS) for name, of in calls.items()}
        self.rest = {
            name: {str(call) for call, n in of.items() if n and call not in (*LAYERS, *PRODUCTS)}
            for name, of in calls.items()
        }


def equal(found: Metrics, theirs: Theirs) -> None:
    ours = found.spikingjelly()
    assert (ours["synop"], ours["ac"], ours["mac"]) == tuple(theirs.layers[k] for k in ("SynOp", "AC", "MAC"))
    assert ours["synop"] > 0


@pytest.mark.parametrize("top", [1, 3])
def test_a_network_of_spikingjelly(top) -> None:
    """All timesteps in one call: counts of up to 3 make a call of multiplications, those of 1 one of additions."""
    net = jelly_net()
    x = frames(1, 5, 2, 8, 8, top=top)
    traced = nmc.trace(net, (5, 1, 2, 8, 8))
    theirs = Theirs(net, torch.from_numpy(x).transpose(0, 1))
    found = nmc.metrics(traced, x, calls="run")
    equal(found, theirs)
    assert (theirs.layers["MAC"] > 0) == (top > 1)
    assert theirs.rest["SynOp"] == set() == theirs.rest["MAC"]  # of neurons, nothing but additions
    assert all("add" in call or "sub" in call for call in theirs.rest["AC"])


def test_memory_of_the_same_network() -> None:
    """Weights read once an operation; biases once an output; potentials read and written at every timestep."""
    from spikingjelly.activation_based import functional

    net = jelly_net()
    x = frames(1, 5, 2, 8, 8, top=3)
    traced = nmc.trace(net, (5, 1, 2, 8, 8))
    functional.reset_net(net)
    report = counters.estimate_simple_energy(net, torch.from_numpy(x).transpose(0, 1))
    found = nmc.metrics(traced, x, calls="run")
    assert report.counts["weight_read_bytes"] == 4 * found.spikingjelly()["weight_reads"]
    shapes = {node.name: node.type.shape for node in traced.graph}
    biased = [node for node in traced.graph if node.op == "conv2d" and node.attr("bias") is not None]
    assert report.counts["bias_read_bytes"] == 4 * 5 * sum(int(np.prod(node.type.shape)) for node in biased)
    neurons = [name for name in traced.graph.by_id().values() if name.op in ("lif", "neuron")]
    state = 5 * sum(int(np.prod(shapes[node.name])) for node in neurons)
    assert report.counts["neuron_state_read_bytes"] == report.counts["neuron_state_write_bytes"] == 4 * state


@pytest.mark.parametrize("top", [1, 3])
def test_a_network_of_snntorch(top) -> None:
    """Timestep by timestep: a timestep without a count above 1 is additions."""
    pytest.importorskip("snntorch", reason="needs snnTorch: pip install '.[dev]'")
    net = conv_net()
    x = frames(1, 5, 2, 8, 8, top=top)
    traced = nmc.trace(net, (1, 2, 8, 8))
    net.reset()
    equal(nmc.metrics(traced, x), Theirs(net, *torch.from_numpy(x)[0][:, None]))


def test_a_transformer_of_the_zoo() -> None:
    """Products of q, k and v count: coincidences of k and v, and a row of the table for each spike of q."""
    net, images = transformer()
    traced = nmc.trace(net, images[:1].shape)
    theirs = Theirs(net, torch.from_numpy(images))
    found = nmc.metrics(traced, images, batch=len(images), calls="run")
    ours, head = found.spikingjelly(), found.layers[-1]
    assert ours["synop"] == theirs.layers["SynOp"] == theirs.layers["AC"]
    again = head.work.padded * (1 - 1 / net.T)  # the head stands behind the mean over time there, and is called once
    assert ours["mac"] - again == theirs.layers["MAC"]
    assert sum(found.attention.values()) == theirs.products["SynOp"] == theirs.products["AC"]
    assert theirs.products["MAC"] == 0
    assert any("batch_norm" in call for call in theirs.rest["MAC"])  # not folded there
