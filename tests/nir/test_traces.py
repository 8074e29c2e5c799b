"""The soma of the NIR paper: every graph reproduces its platform's trace, in float and on Loihi 2's integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc_compiler.frontends.nir import NirOptions, import_nir
from nmc_compiler.graph.interpret import interpret

pytest.importorskip("h5py", reason="reads NIR files: pip install 'nmc[nir]'")
DT = 1e-4


def trace(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input spikes, potential and spikes [1000] of one platform."""
    columns = np.loadtxt(shared / "data" / "nir_lif" / f"lif_{name}.csv", delimiter=",").T
    return (columns[0] > 0).astype(np.float64), columns[1], columns[2]


def agrees(found: np.ndarray, potential: np.ndarray, shared: Path, name: str, offset: int, unit: float) -> None:
    """Spikes equal once shifted by ``offset``, the potential times ``unit`` within 1e-3 of its range."""
    _, v, spikes = trace(shared, name)
    assert (np.flatnonzero(found) + offset).tolist() == np.flatnonzero(spikes).tolist() != []
    shifted = np.concatenate([np.zeros(offset), potential])[: len(v)] * unit
    assert np.abs(shifted - v).max() <= 1e-3 * np.ptp(v)


@pytest.mark.parametrize(
    ("graph", "rule", "platform", "offset", "unit"),
    [
        ("norse", "norse", "norse", 0, 1.0),
        ("rockpool", "rockpool", "rockpool", 0, 1.0),
        # the same neuron on other platforms, whose graphs are not there; some count potentials in other units
        ("norse", "euler", "snntorch", 0, 25.0),
        ("norse", "exponential", "nengo", 0, 10.0),
        ("norse", "euler", "lava_cpu_float", 1, 1.0),
    ],
)
def test_trace(shared, graph, rule, platform, offset, unit):
    imported = import_nir(shared / "data" / "nir_lif" / f"lif_{graph}.nir", NirOptions(DT, rule=rule))
    x, _, _ = trace(shared, platform)
    ran = interpret(imported.graph, x.reshape(1, -1, 1, 1, 1), states="all")
    [(neuron, state)] = ran.states.items()
    [spikes] = ran.outputs.values()
    assert neuron in ("1", "1_LIFNeuronTorch")
    agrees(spikes.ravel(), state["v"].ravel(), shared, platform, offset, unit)


def test_spyx_reads_its_potential_before_it_subtracts(shared):
    """Its spikes are recorded one timestep later than its potentials."""
    imported = import_nir(shared / "data" / "nir_lif" / "lif_norse.nir", NirOptions(DT, reset="subtract-late"))
    x, v, spikes = trace(shared, "spyx")
    ran = interpret(imported.graph, x.reshape(1, -1, 1, 1, 1), states="all")
    assert (np.flatnonzero(ran.outputs["output"]) + 1).tolist() == np.flatnonzero(spikes).tolist()
    assert np.abs(ran.states["1"]["v"].ravel() - v).max() <= 1e-3 * np.ptp(v)


@pytest.mark.parametrize("graph", ["norse", "rockpool"])
def test_every_graph_is_tested(shared, graph):
    assert sorted(p.stem for p in (shared / "data" / "nir_lif").glob("*.nir")) == ["lif_norse", "lif_rockpool"]


@pytest.mark.parametrize("platform", ["lava_loihi_fixed", "lava_cpu_fixed"])
def test_compiled_to_loihi2_it_spikes_as_silicon_did(shared, platform):
    """One timestep later there, as Lava delivers. The chip counted in other units, 25 to a threshold (320 here)."""
    compiled = nmc.compile(shared / "data" / "nir_lif" / "lif_norse.nir", target="loihi2", dt=DT)
    x, v, spikes = trace(shared, platform)
    from nmc_emulator import Emulator

    emulator = Emulator(compiled.program, record=["1"])
    ran = emulator.run_events({"input": x.astype(int).reshape(-1, 1, 1, 1)}, len(x), probe={"1": None})
    assert (ran.events["1"].step + 1).tolist() == np.flatnonzero(spikes).tolist() == [461, 511, 711, 761]
    [soma] = [p for p in compiled.program.populations if p.name == "1"]
    found = np.roll(ran.potentials["1"][1].ravel(), 1) * 25 / int(soma.vth[0])
    quiet = spikes == 0  # the chip's register holds 128 after a spike (docs/integers.md)
    assert np.abs(found - v)[quiet][1:].max() < 0.01 * np.ptp(v)  # its weight was 10 and its decay 163: 1 % coarser
