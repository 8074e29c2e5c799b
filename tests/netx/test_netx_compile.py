"""From file to cores and back: random lava-dl networks compiled, their ladder climbed, the file written again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netx_nets import random_input, random_layers, run_lava

import nmc
from nmc.cli import main
from nmc_compiler.export.netx_file import netx_bytes
from nmc_compiler.netx import Cuba, Layer, Sdnn
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

pytest.importorskip("h5py", reason="writes HDF5 files: pip install 'nmc[nir]'")

SIGMA = (
    Layer(0, "input", (1, 2, 2), Sdnn(3)),
    Layer(1, "flatten", (4, 1, 1)),
    Layer(2, "dense", (3, 1, 1), Sdnn(2), np.array([[9, -2, 3, 0], [4, 5, 6, 7], [-8, 0, 0, 11]])),
    Layer(3, "dense", (2, 1, 1), Sdnn(0, True), np.array([[1, -2, 3], [4, 5, 6]])),
)


def written(folder: Path, layers: tuple[Layer, ...]) -> Path:
    path = folder / "x.net"
    path.write_bytes(netx_bytes(layers))
    return path


def timesteps(layers: tuple[Layer, ...], seed: int) -> int | None:
    image = layers[0].kind == "input" and isinstance(layers[0].neuron, Cuba)
    return 9 if image or seed % 2 else None


@pytest.mark.parametrize("seed", range(5))
def test_the_ladder_of_a_random_network(tmp_path, seed):
    layers = random_layers(seed)
    compiled = nmc.compile(written(tmp_path, layers), timesteps=timesteps(layers, seed))
    ladder = nmc.verify(compiled)
    assert ladder.ok and [rung.name for rung in ladder.rungs][0] == "int = emulator"
    out = nmc.export(compiled, tmp_path / "y.net", format="netx")
    again = nmc.compile(out, timesteps=timesteps(layers, seed))
    assert again.int_graph.nodes == compiled.int_graph.nodes


def test_a_wrong_threshold_breaks_the_lowest_rung(tmp_path):
    layers = (Layer(0, "dense", (4, 1, 1), Cuba(410, 123, 30), np.full((4, 3), 20)),)
    compiled = nmc.compile(written(tmp_path, layers), timesteps=6)
    graph = compiled.int_graph
    altered = {**graph.tensors, "layer0.vth": graph.tensors["layer0.vth"] + np.array([0, 0, 9, 0], np.int32)}
    wrong = replace(compiled, graphs=compiled.graphs | {"int": replace(graph, tensors=altered)})
    [rung, *above] = nmc.verify(wrong).rungs
    assert rung.mismatches > 0 and all(r.ok for r in above)
    assert (rung.first["layer"], rung.first["neuron"]) == ("layer0", [2, 0, 0])


@pytest.mark.parametrize("seed", [1, 4, 9, 11])
def test_the_emulator_is_lava_step_by_step(tmp_path, seed):
    """The whole way, file to mapped cores, against the twin."""
    layers = random_layers(seed)
    if layers[0].kind == "input" and isinstance(layers[0].neuron, Cuba):
        pytest.skip("a window of an image is not a stream")
    data = random_input(layers, seed, 14)
    program = nmc.compile(written(tmp_path, layers)).program
    run = Emulator(program, record="all").run_events({"input": data}, len(data))
    for name, wanted in run_lava(layers, data).items():
        assert np.array_equal(codes_of(run.events[name], len(data), wanted.shape[1:]), wanted), name


def test_images_are_shown_for_their_whole_window(tmp_path):
    """Bias mantissas [N, C, H, W], each for all its timesteps, sample after sample as netx resets."""
    layers = (
        Layer(0, "input", (1, 2, 2), Cuba(4096, 1024, 20), transform=(40, 3)),
        Layer(1, "flatten", (4, 1, 1)),
        Layer(2, "dense", (3, 1, 1), Cuba(410, 123, 40), np.array([[9, -2, 30, 0], [44, 5, 6, 7], [-8, 0, 0, 60]])),
    )
    T, images = 7, np.random.default_rng(2).integers(-5, 60, (5, 1, 2, 2))
    compiled = nmc.compile(written(tmp_path, layers), timesteps=T)
    run = nmc.emulate(compiled, images, record="all")
    shown = np.concatenate([np.repeat(images, T, axis=0), np.zeros((2, 1, 2, 2), np.int64)])
    wanted = run_lava(layers, shown, interval=T)
    for late, name in enumerate(("layer0", "layer2")):
        codes = codes_of(run.events[name], 5 * T, wanted[name].shape[1:])
        assert codes.any() and np.array_equal(codes, wanted[name][late : late + 5 * T]), name


def test_sums_that_are_sent_whole(tmp_path):
    compiled = nmc.compile(written(tmp_path, SIGMA))
    assert nmc.verify(compiled).ok
    out = nmc.export(compiled, tmp_path / "y.net", format="netx")
    assert out.read_bytes() == written(tmp_path, SIGMA).read_bytes()


def test_on_the_command_line(tmp_path, capsys):
    path, build = written(tmp_path, SIGMA), str(tmp_path / "build")
    assert main(["compile", str(path), "-T", "5", "-o", build]) == 0
    told = capsys.readouterr().out
    assert "lava-dl network, integers as they are in the file: layer0 input [1, 2, 2], layer1 flatten [4, 1, 1]" in told
    assert main(["report", build, "--conversion"]) == 0
    assert capsys.readouterr().out.startswith("Nothing was quantised: the integers are the file's\n")
    assert main(["verify", build]) == 0 and capsys.readouterr().out.endswith("every rung holds\n")
    path.write_bytes(path.read_bytes()[:900])
    assert main(["compile", str(path), "-o", build]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(f"nmc: error: {path}: damaged")
    assert main(["compile", str(path), "--dt", "1", "-o", build]) == 2
