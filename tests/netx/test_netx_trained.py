"""Networks that others trained with lava-dl, from their own files: compiled, emulated, written out again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc_compiler.export.netx import layers_of
from nmc_compiler.frontends.hdf5 import read_hdf5
from nmc_compiler.frontends.netx import read_layers
from nmc_compiler.graph.interpret import interpret
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

pytest.importorskip("h5py", reason="reads HDF5 files: pip install 'nmc[nir]'")
T = 20  # timesteps that a digit is shown


@pytest.fixture(scope="module")
def digits(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 10 000 test digits as spikes [N, T, 784, 1, 1], and their labels."""
    folder = shared / "data" / "mnist"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    spikes = rate_code()[pixels.reshape(-1, 784)]
    return spikes.transpose(0, 2, 1)[..., None, None], labels.astype(np.int64)


def rate_code() -> np.ndarray:
    """Spikes [256, T] of the trainers' encoder for each value of a pixel: v += value / 255; v > 1 spikes, and v = 0."""
    table, v = np.zeros((256, T), np.uint8), np.zeros(256)
    for t in range(T):
        v = v + np.arange(256) / 255
        table[:, t] = v > 1
        v[table[:, t] > 0] = 0
    return table


@pytest.fixture(scope="module")
def mnist(shared: Path, tmp_path_factory) -> nmc.Compiled:
    path = shared / "data" / "lava_dl" / "mnist" / "trained_mnist_network.net"
    return nmc.compile(path, timesteps=T, out=tmp_path_factory.mktemp("mnist") / "build")


def file_of(folder: Path, digits, n: int) -> Path:
    path = folder / "digits.npz"
    np.savez_compressed(path, images=digits[0][:n], labels=digits[1][:n])
    return path


def test_a_thousand_digits(mnist, digits, tmp_path):
    run = nmc.emulate(mnist, file_of(tmp_path, digits, 1000))
    assert round(run.accuracy * 1000) == 947


@pytest.mark.slow
def test_all_digits_as_published(mnist, digits, tmp_path):
    """95.32 % of the 10 000 test digits at 20 timesteps each."""
    run = nmc.emulate(mnist, file_of(tmp_path, digits, 10_000))
    assert round(run.accuracy * 10_000) == 9532


def test_interpreter_and_engines_agree_on_digits(mnist, digits):
    images = digits[0][:30]
    truth = interpret(mnist.int_graph, images, record="all").codes
    for engine in ("events", "ticks"):
        run = nmc.emulate(mnist, images, record="all", engine=engine)
        for name in ("layer0", "layer1", "layer2"):
            want = np.moveaxis(truth[name], 0, 1)
            found = codes_of(run.events[name], 30 * T, want.shape[2:]).reshape(want.shape)
            assert want.any() and np.array_equal(found, want), (engine, name)


def test_every_rung_of_its_ladder_holds(mnist):
    ladder = nmc.verify(mnist)
    assert ladder.ok and [rung.name for rung in ladder.rungs] == ["int = emulator", "events = ticks", "mapping"]


def test_it_comes_out_as_it_went_in(shared, mnist, tmp_path):
    """Weights, parameters and shapes, layer for layer."""
    out = nmc.export(mnist, tmp_path / "y.net", format="netx")
    before = read_layers(read_hdf5(shared / "data" / "lava_dl" / "mnist" / "trained_mnist_network.net")).layers
    after = read_layers(read_hdf5(out)).layers
    assert [vars(a).keys() for a in before] == [vars(b).keys() for b in after]
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a.weight, b.weight) and (a.neuron, a.shape, a.kind) == (b.neuron, b.shape, b.kind)
    again = nmc.compile(out, timesteps=T)
    assert again.int_graph.nodes == mnist.int_graph.nodes


def test_export_on_the_command_line(mnist, tmp_path, capsys):
    from nmc.cli import main

    out = tmp_path / "y.net"
    assert main(["export", str(mnist.folder), "--format", "netx", "-o", str(out)]) == 0
    assert "layer0: dense [128, 1, 1] CUBA\n" in capsys.readouterr().out
    assert main(["export", str(mnist.folder), "--format", "netx", "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"][2] == {"name": "layer2", "kind": "dense", "shape": [10, 1, 1], "somas": "CUBA"}


# -- Oxford ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oxford(shared: Path) -> nmc.Compiled:
    return nmc.compile(shared / "data" / "lava_dl" / "oxford" / "network.net")


@pytest.fixture(scope="module")
def trace(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """Spikes into and out of the first layer, [steps, somas]."""
    with np.load(shared / "data" / "lava_dl" / "oxford" / "layer0_trace.npz") as file:
        return file["in"].astype(np.int64).T, file["out"].astype(np.int64).T


@pytest.mark.parametrize("engine", ["interpreter", "events", "ticks"])
def test_oxford_layer_equals_its_trace(oxford, trace, engine):
    """512 000 values of the trained layer, all of them."""
    given, want = trace
    steps = len(given)
    codes = given.reshape(steps, 200, 1, 1)
    if engine == "interpreter":
        found = interpret(oxford.int_graph, codes, record=["layer0"]).codes["layer0"].reshape(steps, 256)
    else:
        result = Emulator(oxford.program, engine=engine, record=["layer0"]).run_events({"input": codes}, steps)
        found = codes_of(result.events["layer0"], steps, (256, 1, 1)).reshape(steps, 256)
    assert want.size == 512_000 and want.sum() > 1000
    assert int((found != want).sum()) == 0


def test_oxford_is_a_stream_of_two_layers(oxford):
    assert oxford.program.timesteps == 0
    assert [layer.shape[0] for layer in layers_of(oxford.int_graph)] == [256, 200]
