"""Networks that others trained and traces that others took, run from their own files.

lava-dl's MNIST and Oxford networks (HDF5 ``.net``, as its netx reads them: du is iDecay - 1, dv vDecay, vth
vThMant, weights the even integers they are) and the LIF soma of the NIR paper, measured on Loihi 2.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import naive
import numpy as np
import pytest
from engines import ENGINES
from programs import map_program

from nmc_compiler.program.loihi_weights import prepare_weights
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_emulator.emulate import Emulator
from nmc_emulator.trace import Events, codes_of

h5py = pytest.importorskip("h5py", reason="reads HDF5 files: pip install h5py")

PRESENTED = 20  # timesteps that a digit is shown
WINDOW = PRESENTED + 3  # until the last of its spikes has passed three connections of one timestep each


def add_layer(net: Network, group, name: str, src: int) -> int:
    """One dense CUBA layer of a ``.net`` file; weights that Lava would change are refused."""
    neuron, weight = group["neuron"], group["weight"][()]
    whole = np.rint(weight).astype(np.int64)
    assert np.array_equal(whole, weight) and np.array_equal(prepare_weights(whole), whole)
    du, dv, vth = (int(neuron[k][()]) for k in ("iDecay", "vDecay", "vThMant"))
    dst = net.lif(name, len(whole), du=du - 1, dv=dv, vth=vth)
    net.dense(f"{name}.w", src, dst, whole)
    return dst


# -- MNIST -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """The 10 000 test digits: pixels uint8 [n, 784], labels [n]."""

    pixels: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def digits(shared: Path) -> Digits:
    folder = shared / "data" / "mnist"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return Digits(pixels.reshape(-1, 784), labels)


@pytest.fixture(scope="module")
def mnist(shared: Path) -> Program:
    net = Network("mnist", WINDOW)
    at = net.input("pixels", 784)
    with h5py.File(shared / "data" / "lava_dl" / "mnist" / "trained_mnist_network.net") as file:
        for i in range(3):
            at = add_layer(net, file[f"layer/{i}"], f"layer{i}", at)
    return net.program()


def rate_code(pixels: np.ndarray) -> Events:
    """Spikes of the trainers' encoder: v += pixel / 255; a spike and v = 0 where v > 1."""
    table, v = np.zeros((256, PRESENTED), bool), np.zeros(256)
    for t in range(PRESENTED):
        v = v + np.arange(256) / 255
        table[:, t] = v > 1
        v[table[:, t]] = 0
    step, soma = [], []
    for t in range(PRESENTED):
        n, pixel = np.nonzero(table[pixels, t])
        step.append(n * WINDOW + t)
        soma.append(pixel)
    order = np.argsort(np.concatenate(step), kind="stable")
    return Events(np.concatenate(step)[order], np.concatenate(soma)[order].astype(np.int32), None)


def guesses(events: Events, n: int) -> np.ndarray:
    """The class that fired most often in a digit's window, the first of equals."""
    count = np.zeros((n, 10), np.int64)
    np.add.at(count, (events.step // WINDOW, events.soma), 1)
    return count.argmax(axis=1)


def classify(mnist: Program, digits: Digits, n: int, engine: str) -> tuple[np.ndarray, Events]:
    emulator = Emulator(mnist, engine=engine, record=["layer2"])
    events = emulator.run_events({"pixels": rate_code(digits.pixels[:n])}, n * WINDOW).events["layer2"]
    return guesses(events, n), events


def test_mnist_is_classified_as_published(mnist: Program, digits: Digits):
    """95.32 % of the 10 000 test digits at 20 timesteps each."""
    found, _ = classify(mnist, digits, 10_000, "events")
    assert int((found == digits.labels).sum()) == 9532


def test_engines_agree_on_digits(mnist: Program, digits: Digits):
    """Spike by spike, for 100 digits."""
    results = [classify(mnist, digits, 100, engine)[1] for engine in ENGINES]
    assert len(results[0]) > 300
    for other in results[1:]:
        assert np.array_equal(results[0].step, other.step) and np.array_equal(results[0].soma, other.soma)


# -- Oxford ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_oxford_layer_equals_its_trace(shared: Path, engine: str):
    """512 000 values of the trained layer, all of them."""
    folder, net = shared / "data" / "lava_dl" / "oxford", Network("oxford")
    with h5py.File(folder / "network.net") as file, np.load(folder / "layer0_trace.npz") as trace:
        add_layer(net, file["layer/0"], "layer0", net.input("in", 200))
        given, want = (trace[k].astype(np.int32).T for k in ("in", "out"))
    steps = len(given)
    result = Emulator(net.program(), engine=engine, record="all").run_events(
        {"in": given.reshape(steps, 200, 1, 1)}, steps
    )
    found = codes_of(result.events["layer0"], steps, (256, 1, 1)).reshape(steps, 256)
    assert want.size == 512_000 and want.sum() > 1000
    assert int((found != want).sum()) == 0


# -- the LIF of the NIR paper ------------------------------------------------------------------


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
