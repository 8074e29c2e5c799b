"""The LIF soma of the NIR paper, measured on Loihi 2: ours against the traces of Lava and of the chip.

Networks that others trained with lava-dl are in tests/netx.
"""

from __future__ import annotations

from pathlib import Path

import naive
import numpy as np
import pytest
from engines import ENGINES
from programs import map_program

from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_emulator.emulate import Emulator


def nir_lif(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, potential and spikes [1000] of one platform."""
    columns = np.loadtxt(shared / "data" / "nir_lif" / f"{name}.csv", delimiter=",").T.astype(np.int64)
    return columns[0], columns[1], columns[2]


def soma_of_the_paper() -> Program:
    """tau 2.5 ms at steps of 0.1 ms, threshold 0.1, weight 1, as the paper quantised them for Loihi 2."""
    net = Network("nir")
    source = net.input("in", 1)
    soma = net.lif("lif", 1, du=4095, dv=163, vth=25)
    net.dense("w", source, soma, [[10]])
    return net.program()


@pytest.mark.parametrize("engine", ENGINES)
def test_soma_equals_lava_and_silicon(shared: Path, engine: str):
    given, lava, _ = nir_lif(shared, "lif_lava_cpu_fixed")
    _, silicon, spikes = nir_lif(shared, "lif_lava_loihi_fixed")
    emulator = Emulator(soma_of_the_paper(), engine=engine, record="all")
    inputs = {"in": given.reshape(1000, 1, 1, 1)}
    result = emulator.run_events(inputs, 1000, probe={"lif": None})
    v = result.potentials["lif"][1].reshape(-1)
    assert int((v == lava).sum()) == 1000
    assert result.events["lif"].step.tolist() == np.flatnonzero(spikes).tolist() == [461, 511, 711, 761]
    # after a spike the chip's register holds 128 where Lava holds 0 (docs/integers.md)
    assert np.array_equal(np.flatnonzero(v != silicon), np.flatnonzero(spikes)) and set(silicon[spikes > 0]) == {128}


def test_soma_of_the_naive_twin(shared: Path):
    """The twin, which every engine is compared with, stands against the same trace."""
    given, lava, spikes = nir_lif(shared, "lif_lava_cpu_fixed")
    found = naive.run_events(map_program(soma_of_the_paper()), {0: given.reshape(1000, 1, 1, 1)}, 1000)
    assert np.array_equal(found.states["v"][1].reshape(-1), lava)
    assert np.array_equal(found.codes[1].reshape(-1), spikes)
