"""Graphs written by the exporters of training frameworks: imported and run, they spike as their frameworks do.

Weights and inputs are random and in float32 there, float64 here; a seed is kept where no potential comes so close to
its threshold that the two differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.frontends.nir import Imported, NirOptions, import_nir
from nmc_compiler.graph.interpret import Interpretation, interpret

torch = pytest.importorskip("torch", reason="the frameworks train with PyTorch: pip install 'nmc[torch]'")
pytest.importorskip("nir.serialization", reason="writes NIR files: pip install 'nmc[nir]'")
import nir  # noqa: E402

STEPS = 60


def framework(name: str, install: str):
    """A module of a framework, or a skip that says how to get it."""
    return pytest.importorskip(name, reason=f"{install}", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)
    with torch.no_grad():
        yield


def spikes(*shape: int, rate: float = 0.4) -> np.ndarray:
    """Random spikes [STEPS, ...]."""
    return (np.random.default_rng(7).random((STEPS, *shape)) < rate).astype(np.float32)


def run(graph, x: np.ndarray, folder: Path, **options) -> tuple[Imported, np.ndarray]:
    """The only output [STEPS, ...] of a NIR graph, through a file."""
    path = folder / "net.nir"
    nir.write(path, graph)
    imported = import_nir(path, NirOptions(**options))
    shape = imported.graph.sources[0].type.shape
    found: Interpretation = interpret(imported.graph, x.reshape(1, STEPS, *shape))
    [values] = found.outputs.values()
    return imported, values.reshape(STEPS, -1)


def agree(found: np.ndarray, theirs: list) -> None:
    """Spike by spike, and neither silent nor always on."""
    want = np.array([np.asarray(t).reshape(-1) for t in theirs])
    assert 0.02 < want.mean() < 0.98
    assert int((found != want).sum()) == 0, f"of {want.size}"


def ratings(imported: Imported) -> dict[str, str]:
    return {e["layer"]: e["rating"] for e in imported.entries}


# -- snnTorch ----------------------------------------------------------------------------------


def vector(n: int, low: float, high: float):
    return low + (high - low) * torch.rand(n)


SNN = "pip install snntorch==1.0.0 nirtorch==2.6"


@pytest.mark.parametrize(
    ("mechanism", "delay", "reset"),
    [("subtract", True, None), ("zero", True, "value-late"), ("zero", False, "value")],
)
def test_snntorch_leaky(tmp_path, mechanism, delay, reset):
    """Resets of snnTorch; its files say none of them.

    Left out: subtraction without delay, whose code adds the threshold back a timestep after a spike that left the
    potential above it.
    """
    export = framework("snntorch.export_nir", SNN)
    snn = framework("snntorch", SNN)
    how = {"reset_mechanism": mechanism, "reset_delay": delay, "init_hidden": True}
    low = 0.4 if delay else 1.0
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 20),
        snn.Leaky(beta=vector(20, 0.5, 0.95), threshold=vector(20, low, low + 0.3), **how),
        torch.nn.Linear(20, 8, bias=False),
        snn.Leaky(beta=vector(8, 0.5, 0.95), threshold=vector(8, low / 2, low), **how),
    )
    net[0].weight += 0.1 * (not delay)
    net[2].weight += 0.1 * (not delay)
    x = spikes(10)
    theirs = [net(torch.tensor(frame[None])) for frame in x]
    graph = export.export_to_nir(net, torch.zeros(1, 10), ignore_dims=[0])
    imported, found = run(graph, x, tmp_path, dt=1e-4, rule="snntorch", reset=reset)
    agree(found, theirs)
    assert set(ratings(imported).values()) == {"faithful"}


def test_snntorch_synaptic_and_convolution(tmp_path):
    export = framework("snntorch.export_nir", SNN)
    snn = framework("snntorch", SNN)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, stride=2),
        snn.Leaky(beta=torch.full((4, 4, 4), 0.8), threshold=torch.full((4, 4, 4), 0.3), init_hidden=True),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 6),
        snn.Synaptic(
            alpha=vector(6, 0.4, 0.8), beta=vector(6, 0.5, 0.9), threshold=vector(6, 0.2, 0.5), init_hidden=True
        ),
    )
    x = spikes(2, 8, 8)
    theirs = [net(torch.tensor(frame[None])) for frame in x]
    graph = export.export_to_nir(net, torch.zeros(1, 2, 8, 8), ignore_dims=[0])
    _, found = run(graph, x, tmp_path, dt=1e-4, rule="snntorch")
    agree(found, theirs)


@pytest.mark.parametrize("cell", ["RLeaky", "RSynaptic"])
def test_snntorch_recurrent(tmp_path, cell):
    """A graph within the graph, with a loop."""
    export = framework("snntorch.export_nir", SNN)
    snn = framework("snntorch", SNN)
    decay = {"beta": vector(12, 0.5, 0.9)} | ({"alpha": vector(12, 0.4, 0.8)} if cell == "RSynaptic" else {})
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 12),
        getattr(snn, cell)(**decay, linear_features=12, threshold=vector(12, 0.4, 0.9), init_hidden=True),
        torch.nn.Linear(12, 5),
        snn.Leaky(beta=vector(5, 0.5, 0.9), threshold=vector(5, 0.2, 0.4), init_hidden=True),
    )
    x = spikes(10)
    theirs = [net(torch.tensor(frame[None])) for frame in x]
    graph = export.export_to_nir(net, torch.zeros(1, 10), ignore_dims=[0])
    imported, found = run(graph, x, tmp_path, dt=1e-4, rule="snntorch")
    agree(found, theirs)
    assert [e["late"] for e in imported.entries if "late" in e] == ["reads 1.lif one timestep late: a loop"]


# -- Norse -------------------------------------------------------------------------------------

NORSE = "pip install norse==1.1.0 nirtorch==2.6 torchvision==0.28.0"


@pytest.mark.parametrize("kind", ["LIFBoxCell", "LIFCell", "IAFCell"])
@pytest.mark.parametrize("scaled", [False, True])
def test_norse(tmp_path, kind, scaled):
    """``to_nir`` multiplies time constants by its dt: with dt=1 they are right, else dt squared makes up for it."""
    norse = framework("norse.torch", NORSE)
    export = framework("norse.torch.utils.export_nir", NORSE)
    rate, dt = {"tau_mem_inv": vector(20, 100, 300)}, 1e-3
    rate = {} if kind == "IAFCell" else rate | ({"tau_syn_inv": vector(20, 200, 400)} if kind == "LIFCell" else {})
    parameters = {
        "LIFBoxCell": norse.LIFBoxParameters,
        "LIFCell": norse.LIFParameters,
        "IAFCell": norse.functional.iaf.IAFParameters,
    }[kind]
    zero = {} if kind == "IAFCell" else {"v_leak": torch.zeros(20)}
    cell = getattr(norse, kind)(parameters(**rate, **zero, v_th=vector(20, 0.1, 0.3)), dt=dt)
    net = norse.SequentialState(torch.nn.Linear(10, 20), cell)
    net[0].weight *= 4
    x, theirs, state = spikes(10), [], None
    for frame in x:
        out, state = net(torch.tensor(frame[None]), state)
        theirs.append(out)
    graph = export.to_nir(net, torch.zeros(1, 10), dt=dt if scaled else 1)
    _, found = run(graph, x, tmp_path, dt=dt * dt if scaled else dt, rule="norse")
    agree(found, theirs)


# -- sinabs ------------------------------------------------------------------------------------

SINABS = "pip install --no-deps sinabs==3.1.3 pbr, which asks for an older nir"


@pytest.mark.parametrize("kind", ["IAF", "LIF", "LIF, not normalised"])
def test_sinabs(tmp_path, kind):
    """One spike in a timestep; sinabs' own default counts several, which nmc does not."""
    layers = framework("sinabs.layers", SINABS)
    export = framework("sinabs.nir", SINABS)
    one = framework("sinabs.activation", SINABS).SingleSpike
    how = {"spike_fn": one, "batch_size": 1}
    if kind == "IAF":
        cells = [layers.IAFSqueeze(spike_threshold=torch.tensor(1.5), **how) for _ in range(2)]
    else:
        normed = kind == "LIF"
        how |= {"spike_threshold": torch.tensor([0.12 if normed else 1.0]), "norm_input": normed}
        cells = [layers.LIFSqueeze(tau_mem=torch.tensor([tau]), **how) for tau in (6.0, 9.0)]
    net = torch.nn.Sequential(torch.nn.Linear(10, 20), cells[0], torch.nn.Linear(20, 8), cells[1])
    net[2].weight *= 3
    x = spikes(10)
    graph = export.to_nir(net, torch.tensor(x[:1]))
    for cell in cells:
        cell.reset_states()
    theirs = list(net(torch.tensor(x)))
    rule = "sinabs-unnormed" if "not" in kind else "sinabs"
    _, found = run(graph, x, tmp_path, dt=1.0, rule=rule)
    agree(found, theirs)


# -- SpikingJelly ------------------------------------------------------------------------------

JELLY = "pip install --no-deps spikingjelly==2.0.0 loguru"


@pytest.mark.parametrize("kind", ["IF", "LIF", "LIF, input whole", "PLIF", "CUBA"])
def test_spikingjelly(tmp_path, kind):
    neuron = framework("spikingjelly.activation_based.neuron", JELLY)
    exchange = framework("spikingjelly.activation_based.nir_exchange", JELLY)
    layer = framework("spikingjelly.activation_based.layer", JELLY)
    make = {
        "IF": lambda: neuron.IFNode(v_threshold=0.7),
        "LIF": lambda: neuron.LIFNode(tau=2.5, v_threshold=0.1, v_reset=-0.1),
        "LIF, input whole": lambda: neuron.LIFNode(tau=3.0, v_threshold=0.6, decay_input=False),
        "PLIF": lambda: neuron.ParametricLIFNode(init_tau=2.2, v_threshold=0.25),
        "CUBA": lambda: neuron.CUBALIFNode(c_decay=0.4, v_decay=0.7, v_threshold=0.8),
    }[kind]
    net = torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, stride=2, padding=1),
        make(),
        layer.AvgPool2d(2, 2),
        layer.Flatten(),
        layer.Linear(16, 6),
        make(),
    )
    net[4].weight *= 3
    x = spikes(2, 8, 8)
    graph = exchange.export_to_nir(net, torch.zeros(1, 2, 8, 8), dt=1e-4)
    theirs = [net(torch.tensor(frame[None])) for frame in x]
    imported, found = run(graph, x, tmp_path, dt=1e-4, rule="spikingjelly")
    agree(found, theirs)
    assert set(ratings(imported).values()) == {"faithful"}


# -- Rockpool ----------------------------------------------------------------------------------

ROCKPOOL = "pip install --no-deps rockpool==3.1.0"


@pytest.mark.parametrize("kind", ["LIFTorch", "LIFNeuronTorch"])
def test_rockpool(tmp_path, kind):
    modules = framework("rockpool.nn.modules", ROCKPOOL)
    combine = framework("rockpool.nn.combinators", ROCKPOOL)
    export = framework("rockpool.nn.modules.torch.nir", ROCKPOOL)
    times = {"tau_mem": 8e-3} | ({"tau_syn": 5e-3} if kind == "LIFTorch" else {})
    cell = getattr(modules, kind)(20, threshold=2.5, dt=1e-3, max_spikes_per_dt=torch.tensor(1.0), **times)
    net = combine.Sequential(modules.LinearTorch((10, 20), has_bias=False), cell)
    net[0].weight.data *= 3
    x = spikes(10)
    graph = export.to_nir(net, torch.zeros(1, STEPS, 10))
    theirs = net(torch.tensor(x[None]))[0][0]
    _, found = run(graph, x, tmp_path, dt=1e-3, rule="rockpool")
    agree(found, list(theirs))
