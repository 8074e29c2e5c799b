"""What `nmc export --format lava` writes, and Lava running it: every population, bit for bit."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cells import celled
from general_nets import random_general
from lava_nets import describe, to_program

import nmc
from nmc.exporting import export
from nmc.ladder import verify_lava
from nmc.ladder.lava import emulated, lava_rung, noise
from nmc_compiler.errors import LoweringError, ToolNotFound, UsageError
from nmc_compiler.export.lava import export_lava
from nmc_compiler.mapping import split_evenly
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_hw.tools import LAVA_ENV, find_tools

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("sdt_v1", "spikformer", "sdt_v3")
GENERATED = {
    "sdt_v1": {"Accumulator", "Pool"},
    "spikformer": {"DynamicSynapse", "GatedLIF", "Readout"},
    "sdt_v3": {"Accumulator", "DynamicSynapse", "Levels", "Pool"},
}


@pytest.fixture(scope="module")
def lava() -> Path:
    tool = next(tool for tool in find_tools() if tool.name == "lava-nc")
    if tool.found is None:
        pytest.skip(f"no Python 3.10 with lava-nc: {tool.how_to_get}")
    return tool.found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compile a checkpoint of the tree, once."""
    made: dict[str, nmc.Compiled] = {}

    def compile(name: str) -> nmc.Compiled:
        if name not in made:
            model = ROOT / ("examples/digits" if name == "demo" else f"tests/fixtures/{name}") / "model.pt"
            made[name] = nmc.compile(model, out=tmp_path_factory.mktemp(name) / "build")
        return made[name]

    return compile


def general(seed: int, timesteps: int) -> Program:
    return replace(random_general(seed, timesteps), mapping=None, target={})


def became(program: Program) -> Counter:
    network = json.loads(export_lava(program)["network.json"])
    return Counter((p["kind"], p["origin"]) for p in network["processes"])


# --- the files, without Lava ----------------------------------------------------------------------------------


def test_the_demo_needs_processes_of_lava_alone(compiled):
    assert {origin for _, origin in became(compiled("demo").program)} == {"stock"}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_generated_for_a_family(compiled, family):
    found = became(compiled(family).program)
    assert {kind for kind, origin in found if origin == "generated"} == GENERATED[family]


def test_same_program_same_bytes(compiled):
    program = compiled("sdt_v1").program
    assert export_lava(program) == export_lava(program)


def test_the_folder_is_whole_and_needs_no_nmc(compiled, tmp_path):
    folder = export(compiled("sdt_v1"), tmp_path / "out")
    names = {"README.md", "arrays.npz", "assemble.py", "host.py", "network.json", "placement.json", "processes.py"}
    assert {p.name for p in folder.iterdir()} == names | {"program.json", "run.py"}
    for source in folder.glob("*.py"):
        assert "import nmc" not in source.read_text() and "from nmc" not in source.read_text()
        compile(source.read_text(), source.name, "exec", dont_inherit=True)
    with np.load(io.BytesIO((folder / "arrays.npz").read_bytes()), allow_pickle=False) as arrays:
        network = json.loads((folder / "network.json").read_text())
        wanted = [key for p in network["processes"] for key in p["arrays"].values()]
        assert wanted and set(wanted) <= set(arrays.files)
    readme = (folder / "README.md").read_text()
    assert "not tested" in readme and "| Pool | generated | 2 |" in readme


def test_every_part_of_the_program_became_something(compiled):
    program = compiled("spikformer").program
    parts = json.loads(export_lava(program)["program.json"])["parts"]
    assert {f"population {p.name}" for p in program.populations} <= set(parts)
    assert {f"projection {c.name}" for c in (*program.convs, *program.maps, *program.dynamics)} <= set(parts)


def test_an_unknown_format_is_refused(compiled, tmp_path):
    with pytest.raises(UsageError, match="no format 'nxsdk'; choose lava"):
        export(compiled("sdt_v1"), tmp_path / "out", format="nxsdk")
    assert not (tmp_path / "out").exists()


def test_without_lava_it_says_how_to_get_it(compiled, monkeypatch):
    monkeypatch.setenv(LAVA_ENV, "/nonexistent/python")
    with pytest.raises(ToolNotFound, match=f"no Python 3.10 with lava-nc: {LAVA_ENV}=/nonexistent/python does not run"):
        verify_lava(compiled("sdt_v1"))


# --- Lava runs it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_lava_agrees_on_a_family(lava, compiled, name):
    ladder = verify_lava(compiled(name), ROOT / f"tests/fixtures/{name}/vectors.npz", images=2, unroll=True)
    [rung] = ladder.rungs
    assert (rung.mismatches, rung.first) == (0, None)
    assert rung.numbers["images"] == 2
    assert rung.numbers["populations"] == len(compiled(name).program.populations) - 1


def test_lava_agrees_on_the_demo(lava, compiled):
    ladder = verify_lava(compiled("demo"), ROOT / "examples/digits/golden.npz", images=1, unroll=True)
    assert ladder.ok and ladder.rungs[0].compared > 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_lava_agrees_on_eight_images_with_convs_of_its_own(lava, compiled, name):
    file = "examples/digits/golden.npz" if name == "demo" else f"tests/fixtures/{name}/vectors.npz"
    assert verify_lava(compiled(name), ROOT / file, images=8).ok


@pytest.mark.slow
@pytest.mark.shared
def test_lava_agrees_on_digits_of_lava_dl(lava, shared):
    compiled = nmc.compile(shared / "data" / "lava_dl" / "mnist" / "trained_mnist_network.net", timesteps=20)
    [rung] = verify_lava(compiled, images=8).rungs
    assert (rung.mismatches, rung.first) == (0, None) and rung.compared > 100_000


@pytest.mark.slow
@pytest.mark.shared
def test_lava_agrees_on_a_stream_of_lava_dl(lava, shared):
    folder, steps = shared / "data" / "lava_dl" / "oxford", 300
    program = nmc.compile(folder / "network.net").program
    with np.load(folder / "layer0_trace.npz") as trace:
        inputs = {"codes/input": trace["in"].astype(np.int64).T[:steps].reshape(steps, 200, 1, 1)}
    sent = {name: int(codes.sum()) for name, codes in emulated(program, inputs)[0].items()}
    assert sent["layer0"] > 100 and sent["layer1"] > 100
    assert lava_rung(program, inputs).ok


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("family", FAMILIES)
def test_lava_agrees_on_eight_images_of_the_published_families(lava, shared, family):
    folder = shared / "golden" / family
    compiled = nmc.compile(folder / "model.pt", config=folder / "golden.json")
    [rung] = verify_lava(compiled, folder / "vectors.npz", images=8, unroll=True).rungs
    assert (rung.mismatches, rung.first, rung.numbers["images"]) == (0, None, 8)
    assert rung.numbers["populations"] == len(compiled.program.populations) - 1
    assert rung.compared > 2_000_000


@pytest.mark.parametrize("seed, timesteps", [(0, 0), (4, 0), (3, 5), (5, 5)])
def test_lava_agrees_on_general_networks(lava, seed, timesteps):
    program = general(seed, timesteps)
    rung = lava_rung(program, noise(program, 3 if timesteps else 1, seed))
    assert (rung.mismatches, rung.first) == (0, None)


@pytest.mark.parametrize("seed, timesteps", [(4, 0), (3, 5)])
def test_lava_agrees_on_cells(lava, seed, timesteps):
    program = celled(general(seed, timesteps), seed, signed=True)
    assert "Cell" in {kind for kind, _ in became(program)}
    rung = lava_rung(program, noise(program, 3 if timesteps else 1, seed))
    assert (rung.mismatches, rung.first) == (0, None)


def volumes() -> Program:
    net = Network("volumes")
    net.input("in", (2, 6, 3), payload_bits=3)
    net.lif("out", (2, 4, 3), vth=40)
    weight = np.random.default_rng(1).integers(-60, 60, (2, 3, 2, 1, 2))
    net.conv("c", 0, 1, weight, stride=(2, 1, 1), pad=(1, 1, 1), dilation=(1, 1, 2), groups=2, slices=3)
    return net.program()


def test_volumes_become_synapses_one_by_one():
    """Lava has no convolution along three axes."""
    assert {kind for kind, _ in became(volumes())} == {"Source", "Sparse", "LIF"}


def test_lava_agrees_on_volumes(lava):
    assert lava_rung(volumes(), noise(volumes(), 6, 1)).ok


def test_lava_agrees_on_a_network_of_its_own_kind(lava):
    program = to_program(describe(3))
    assert all(origin == "stock" for _, origin in became(program))
    assert lava_rung(program, noise(program, 1)).ok


def test_a_difference_is_found_and_shown(lava):
    """Lava shifts what a soma receives within 32 bits, and so loses what is beyond 2^25; nmc does not."""
    net = Network("beyond")
    source = net.input("in", 1, payload_bits=24)
    soma = net.lif("soma", 1, du=0, dv=0, vth=100)
    net.dense("w", source, soma, np.array([[1]]), exponent=5, graded=True)
    codes = np.array([0, 2**21, 0, 0], np.int64).reshape(4, 1, 1, 1)  # arrives as 2^26: 2^32, and 0 in Lava
    rung = lava_rung(net.program(), {"codes/in": codes})
    assert rung.mismatches > 0 and not rung.ok
    assert rung.first is not None
    assert {k: rung.first[k] for k in ("layer", "timestep", "neuron", "expected", "got")} == {
        "layer": "soma", "timestep": 2, "neuron": [0, 0, 0], "expected": 1, "got": 0
    }  # fmt: skip


def test_programs_for_loihi1_are_refused():
    net = Network("old", timesteps=2)
    net.lif("cells", 2, vth=1)
    program = split_evenly(net.program(), 1, load_target("loihi1"))
    with pytest.raises(LoweringError, match="is for loihi1, whose currents wrap in two's complement"):
        export_lava(program)
