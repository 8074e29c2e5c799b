"""The examples for the neurocore on the RTL: through the command line and pyserial, and in this process.

What comes back is compared file by file with what the emulator writes: counters, logits, spikes, weights.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nmc
from boards import run_nmc, small_target, virtual_board
from nmc.cli import main
from nmc_compiler.mapping import map_program
from nmc_compiler.neurocore import load_image
from nmc_compiler.program import save_program
from nmc_compiler.program.model import Program
from nmc_emulator.neurocore.machines import machine_of
from nmc_hw.sim import RtlMachine
from nmc_hw.verilate import TOOL, find_verilator

pytest.importorskip("serial", reason="pyserial is missing: pip install -e '.[hw]' in the checkout")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "neurocore"
ATTENTION = EXAMPLES / "attention"


def example(folder: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / folder / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(program: Program, folder: Path) -> Path:
    """As an artefact for the core of the test's sizes."""
    save_program(map_program(program, small_target(), 1)[0], folder)
    return folder


@pytest.fixture(scope="module")
def port():
    with virtual_board("--byte-level") as name:
        yield name


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_the_board(folder: Path, port: str, out: Path, *options: object) -> dict[str, bytes]:
    """What `nmc run` writes there; the same as what `nmc emulate` does."""
    assert main(["flash", str(folder), "--port", port]) == 0
    given = [str(option) for option in (*options, "--record", "all", "-o")]
    assert main(["emulate", str(folder), "--engine", "neurocore", *given, str(out / "emulated")]) == 0
    assert main(["run", str(folder), "--port", port, *given, str(out / "ran")]) == 0
    ran = files_of(out / "ran")
    assert ran == files_of(out / "emulated")
    return ran


@pytest.mark.parametrize(("samples", "right"), [(4, 4), pytest.param(360, 352, marks=pytest.mark.slow)])
def test_the_dense_network_over_a_serial_port(port, tmp_path, samples, right) -> None:
    digits = example("dense", "digits")
    with np.load(EXAMPLES / "dense" / "weights.npz") as stored:
        folder = save(digits.program({name: stored[name] for name in ("hidden", "out")}), tmp_path / "built")
    spikes, labels = (array[digits.TRAIN :][:samples] for array in digits.digits())
    shown = spikes.reshape(samples, digits.T, 64, 1, 1).astype(np.int32)
    np.savez(tmp_path / "in.npz", pixels=shown, labels=labels)
    ran = on_the_board(folder, port, tmp_path, "--input", tmp_path / "in.npz")
    report = json.loads(ran["report.json"])
    assert (report["samples"], report["accuracy"]) == (samples, right / samples)


def test_weights_learned_on_the_board_are_read_back(port, tmp_path) -> None:
    learn = example("stdp", "learn")
    rng = np.random.default_rng(0)
    start = rng.integers(20, 60, (learn.NEURONS, learn.SIDE**2))
    folder = save(learn.network(start, learn.RULE), tmp_path / "built")
    np.savez(tmp_path / "in.npz", pixels=learn.bars(20, rng)[0])
    on_the_board(folder, port, tmp_path, "--input", tmp_path / "in.npz")
    with np.load(tmp_path / "ran" / "weights.npz") as found:
        changed = start.T.ravel() != found["learns"]
    assert changed.mean() > 0.2


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> Path:
    """The artefact for the mesh of four cores."""
    if find_verilator() is None:
        pytest.skip(f"needs {TOOL}")
    folder = tmp_path_factory.mktemp("transformer") / "built"
    nmc.compile(ATTENTION / "model.pt", target="neurocore", out=folder)
    return folder


@pytest.mark.slow
def test_the_transformer_over_a_serial_port(transformer, tmp_path) -> None:
    with virtual_board("--byte-level", sizes=load_image(transformer).sizes) as port:
        done = run_nmc("flash", transformer, "--port", port, "--json", seconds=1200)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
        ran = on_the_board(transformer, port, tmp_path, "--input", ATTENTION / "test.npz", "--limit", 8)
    report = json.loads(ran["report.json"])
    assert report["samples"] == 8 and report["synops_effective"] > 0


@pytest.mark.slow
def test_the_transformer_tells_the_whole_test_set(transformer, tmp_path) -> None:
    """In this process, where the link takes no time."""
    options = {"engine": "neurocore", "record": "all"}
    nmc.emulate(transformer, ATTENTION / "test.npz", out=tmp_path / "emulated", **options)
    with machine_of(RtlMachine):
        run = nmc.emulate(transformer, ATTENTION / "test.npz", out=tmp_path / "rtl", **options)
    assert files_of(tmp_path / "rtl") == files_of(tmp_path / "emulated")
    assert run.accuracy == 352 / 360
