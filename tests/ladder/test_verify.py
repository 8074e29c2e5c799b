"""nmc verify: it holds on what compiles, and it catches what is wrong, on the rung where it is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.cli import main
from nmc_compiler.errors import ArtefactError, FrontendError, UsageError
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.program import save_program
from nmc_compiler.program.model import Program

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
DIGITS = FIXTURES.parents[1] / "examples" / "digits"
ZOO = FIXTURES.parents[1] / "examples" / "zoo"
VECTORS = FIXTURES / "sdt_v1" / "vectors.npz"
RUNGS = ["golden = float", "float ~ int", "int = emulator", "layers = ticks", "mapping"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder") / "build"
    nmc.compile(FIXTURES / "sdt_v1" / "model.pt", out=folder)
    return folder


# --- it holds ---------------------------------------------------------------------------------------------


def holds(ladder: nmc.Ladder) -> None:
    assert [rung.name for rung in ladder.rungs] == RUNGS
    assert [rung.first for rung in ladder.rungs] == [None] * len(RUNGS)
    assert ladder.ok and all(rung.compared > 0 for rung in ladder.rungs)


@pytest.mark.parametrize("family", ["sdt_v1", "spikformer"])
def test_fixtures_climb_the_whole_ladder(family: str) -> None:
    compiled = nmc.compile(FIXTURES / family / "model.pt")
    holds(nmc.verify(compiled, FIXTURES / family / "vectors.npz"))


def test_digits_climb_the_whole_ladder() -> None:
    holds(nmc.verify(nmc.compile(DIGITS / "model.pt", pipelined=True), DIGITS / "golden.npz"))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("family", ["sdt_v1", "spikformer", "sdt_v3"])
def test_shared_goldens_climb_the_whole_ladder(shared: Path, family: str) -> None:
    folder = shared / "golden" / family
    holds(nmc.verify(nmc.compile(folder / "model.pt"), folder / "vectors.npz", limit=360))


def test_nothing_is_left_out(built: Path) -> None:
    """The counts of what was compared are those of the files."""
    ladder = nmc.verify(built, VECTORS)
    with np.load(VECTORS) as file:
        spikes = sum(file[name].size for name in file.files if name.startswith("spikes/"))
        logits = file["logits"].size
    assert ladder.rungs[0].compared == spikes + logits
    program = nmc.load(built).program
    somas = sum(int(np.prod(p.shape)) for p in program.populations if p.model != "readout")
    assert ladder.rungs[2].compared == 8 * (somas * program.timesteps + 10)


# --- it catches: the Program ------------------------------------------------------------------------------


def swap(items: tuple, index: int, item) -> tuple:
    return (*items[:index], item, *items[index + 1 :])


def bias_off_by_one(program: Program) -> Program:
    """The rounding of one bias goes the other way."""
    index = next(i for i, p in enumerate(program.populations) if p.name == "block.0.attn.q_lif")
    p = program.populations[index]
    bias = p.bias.copy()
    bias += 64  # one synaptic unit
    return replace(program, populations=swap(program.populations, index, replace(p, bias=bias)))


def threshold_off_by_one(program: Program) -> Program:
    """`>= theta` taken for `> theta`: a gate that needs one more."""
    index = next(i for i, p in enumerate(program.populations) if p.role == "and")
    p = program.populations[index]
    return replace(program, populations=swap(program.populations, index, replace(p, vth=p.vth + 1)))


def every_threshold_off_by_one(program: Program) -> Program:
    moved = tuple(p if p.vth is None else replace(p, vth=p.vth + 1) for p in program.populations)
    return replace(program, populations=moved)


def weights_swapped(program: Program) -> Program:
    """Two output channels of one convolution change places."""
    index = next(i for i, c in enumerate(program.convs) if c.name == "block.0.mlp.fc1_conv")
    conv = program.convs[index]
    weight = conv.weight.copy()
    weight[..., [0, 1]] = weight[..., [1, 0]]
    return replace(program, convs=swap(program.convs, index, replace(conv, weight=weight, weight_key="")))


def kernel_flipped(program: Program) -> Program:
    """Convolution instead of cross-correlation."""
    index = next(i for i, c in enumerate(program.convs) if c.weight.shape[:2] == (3, 3))
    conv = program.convs[index]
    flipped = np.ascontiguousarray(conv.weight[::-1, ::-1])
    return replace(program, convs=swap(program.convs, index, replace(conv, weight=flipped, weight_key="")))


def decay_forgotten(program: Program) -> Program:
    index = next(i for i, p in enumerate(program.populations) if p.name == "block.0.attn.shortcut_lif")
    p = program.populations[index]
    return replace(program, populations=swap(program.populations, index, replace(p, dv=0)))


def host_rounds_down(program: Program) -> Program:
    host = program.host_currents[0]
    half = 1 << host.shift >> 1
    return replace(program, host_currents=(replace(host, bias=host.bias - half),))


def readout_bias(program: Program) -> Program:
    index = next(i for i, p in enumerate(program.populations) if p.model == "readout")
    p = program.populations[index]
    bias = p.bias.copy()
    bias[3] += 1
    return replace(program, populations=swap(program.populations, index, replace(p, bias=bias)))


def axon_lost(program: Program) -> Program:
    """One axon row leads nothing where it should: the tables differ from the netlist."""
    mapping = program.mapping
    box = mapping.axons[:, 5:]
    row = int(np.argmax((box[:, 1] - box[:, 0]) * (mapping.axons[:, 0] >= 0)))
    axons = mapping.axons.copy()
    axons[row, 6] -= 1  # one source channel less
    return replace(program, mapping=replace(mapping, axons=axons))


MUTATIONS: dict[Callable[[Program], Program], tuple[str, str]] = {
    bias_off_by_one: ("int = emulator", "block.0.attn.q_lif"),
    threshold_off_by_one: ("int = emulator", "block.0.attn.kv"),
    every_threshold_off_by_one: ("int = emulator", "patch_embed.proj_lif"),
    weights_swapped: ("int = emulator", "block.0.mlp.fc2_lif"),
    kernel_flipped: ("int = emulator", "patch_embed.proj_lif1"),
    decay_forgotten: ("int = emulator", "block.0.attn.shortcut_lif"),
    host_rounds_down: ("int = emulator", "patch_embed.proj_lif"),
    readout_bias: ("int = emulator", "head"),
}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda m: m.__name__)
def test_a_wrong_program_is_caught(built: Path, mutate) -> None:
    compiled = nmc.load(built)
    ladder = nmc.verify(replace(compiled, program=mutate(compiled.program)), VECTORS, limit=16)
    rung, layer = MUTATIONS[mutate]
    broken = [r for r in ladder.rungs if not r.ok]
    assert broken[0].name == rung
    assert ladder.rungs[3].ok  # both engines run the same wrong Program
    first = broken[0].first
    assert first["layer"] == layer and first["expected"] != first["got"]
    assert broken[0].mismatches > 0


def test_a_wrong_mapping_is_caught(built: Path) -> None:
    compiled = nmc.load(built)
    ladder = nmc.verify(replace(compiled, program=axon_lost(compiled.program)), VECTORS, limit=16)
    broken = {r.name: r for r in ladder.rungs if not r.ok}
    assert "mapping" in broken and "layers = ticks" in broken
    assert "reaches tile" in broken["mapping"].first["reason"]


# --- it catches: the graph and the goldens ----------------------------------------------------------------


def test_a_wrong_float_graph_is_caught(built: Path) -> None:
    compiled = nmc.load(built)
    graph = compiled.float_graph
    key = next(k for k in graph.tensors if k == "block.0.attn.k_conv.weight")
    wrong = replace(graph, tensors=graph.tensors | {key: -graph.tensors[key]})
    broken = nmc.Compiled(compiled.program, compiled.conversion, graphs={"float": wrong, "int": compiled.int_graph})
    ladder = nmc.verify(broken, VECTORS, limit=16)
    assert not ladder.rungs[0].ok
    assert ladder.rungs[0].first["layer"] == "block.0.attn.k_lif"
    assert all(rung.ok for rung in ladder.rungs[2:])


def golden(folder: Path, **changes) -> Path:
    with np.load(VECTORS) as file:
        arrays = {name: file[name] for name in file.files}
    arrays |= changes
    path = folder / "golden.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def spikes(name: str) -> np.ndarray:
    with np.load(VECTORS) as file:
        return file[f"spikes/{name}"].copy()


def test_one_flipped_spike_is_more_than_one_in_a_million_here(built: Path, tmp_path: Path) -> None:
    codes = spikes("block.0.mlp.fc1_lif")
    codes[2, 5, 3, 1, 2] ^= 1
    ladder = nmc.verify(built, golden(tmp_path, **{"spikes/block.0.mlp.fc1_lif": codes}), limit=16)
    rung = ladder.rungs[0]
    assert (rung.ok, rung.mismatches, rung.numbers["flips"], rung.numbers["flips_allowed"]) == (False, 1, 1, 0)
    first = rung.first
    assert (first["image"], first["timestep"], first["layer"]) == (5, 2, "block.0.mlp.fc1_lif")
    assert first["neuron"] == [3, 1, 2] and abs(first["expected"] - first["got"]) == 1
    assert len(first["inputs"]["currents"]) == 3  # timesteps 0, 1, 2
    assert first["inputs"]["parameters"]["theta"] == 1.0


def test_what_follows_from_a_flip_is_not_counted_again(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording in which one neuron went the other way, and all behind it went with that."""
    graph = nmc.load(built).float_graph
    nodes = {n.name: n for n in graph if "record_perm" in n.attrs}
    with np.load(VECTORS) as file:
        images, logits = file["images"][:8], file["logits"].copy()
    other = interpret(graph, images, record=["patch_embed.proj_lif"]).codes
    other["patch_embed.proj_lif"][0, 5, :, 3:6, 3:6] ^= 1
    run = interpret(graph, images, record=list(nodes), given=other)
    arrays = {}
    for name, codes in (run.codes | other).items():
        laid = codes.transpose(0, 1, *(2 + axis for axis in nodes[name].attr("record_perm")))
        arrays[f"spikes/{name}"] = laid.reshape(*codes.shape[:2], *nodes[name].attr("record_shape")).astype(np.uint8)
    logits[:8] = run.logits
    vectors = golden(tmp_path, logits=logits, **arrays)
    rung = nmc.verify(built, vectors, limit=16).rungs[0]
    flipped, behind = rung.numbers["flips"], rung.numbers["flips_behind_recorded_spikes"]
    assert rung.mismatches == flipped + 1 and flipped > behind > 0  # and one image's logits
    assert rung.first["layer"] == "patch_embed.proj_lif"
    monkeypatch.setattr("nmc.ladder.rungs.FLIP_RATE", behind / rung.numbers["spikes_compared"])
    rung = nmc.verify(built, vectors, limit=16).rungs[0]
    assert rung.ok and rung.numbers["flips"] == flipped and rung.numbers["images_with_logits_off"] == 0
    logits[4, 1] += 1e-2
    assert nmc.verify(built, golden(tmp_path, logits=logits, **arrays), limit=16).rungs[0].mismatches == 1


def test_a_wrong_logit_is_caught(built: Path, tmp_path: Path) -> None:
    with np.load(VECTORS) as file:
        logits = file["logits"].copy()
    logits[7, 2] += 3e-4
    rung = nmc.verify(built, golden(tmp_path, logits=logits), limit=16).rungs[0]
    assert (rung.ok, rung.mismatches, rung.first["image"], rung.first["layer"]) == (False, 1, 7, "logits")


def test_logits_of_unrecorded_images_may_be_off_by_as_few_flips_as_recorded_ones(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can see the flip there: the image counts as one, one in a million is still the rate."""
    with np.load(VECTORS) as file:
        logits = file["logits"].copy()
    logits[12, 2] += 3e-4
    vectors = golden(tmp_path, logits=logits)
    rung = nmc.verify(built, vectors, limit=16).rungs[0]
    assert (rung.mismatches, rung.first["image"], rung.numbers["images_with_logits_off"]) == (1, 12, 1)
    monkeypatch.setattr("nmc.ladder.rungs.FLIP_RATE", 2e-6)  # 0.9 million spikes: now one flip is allowed
    rung = nmc.verify(built, vectors, limit=16).rungs[0]
    assert rung.ok and rung.first is None and rung.numbers["images_with_logits_off"] == 1
    logits[13, 2] += 3e-4
    assert nmc.verify(built, golden(tmp_path, logits=logits), limit=16).rungs[0].mismatches == 2


def test_an_accuracy_that_quantisation_changed_is_caught(built: Path) -> None:
    """An integer graph that tells two classes for each other."""
    compiled = nmc.load(built)
    graph = compiled.int_graph
    out = next(n for n in graph if n.op == "int_readout")
    flipped = out.with_attrs(scale=replace(out.attrs["scale"], value=-float(out.attr("scale"))))
    nodes = tuple(flipped if n.id == out.id else n for n in graph)
    graphs = {"float": compiled.float_graph, "int": replace(graph, nodes=nodes)}
    ladder = nmc.verify(nmc.Compiled(compiled.program, compiled.conversion, graphs=graphs), VECTORS, limit=16)
    rung = ladder.rungs[1]
    assert not rung.ok and rung.compared == 16 and "images right" in rung.first["reason"]
    assert rung.numbers["int_accuracy"] < rung.numbers["float_accuracy"]


def test_goldens_without_spikes_compare_nothing(built: Path, tmp_path: Path) -> None:
    with np.load(VECTORS) as file:
        none = {name: None for name in file.files if name.startswith("spikes/")}
        silent = {name: np.zeros_like(file[name]) for name in none}
        empty = {name: file[name][:, :0] for name in none}
    for changes, text in (
        (none, "no recorded spikes (arrays 'spikes/<module>'), so there is nothing to compare"),
        (silent, "19 populations are recorded, but not one spike in them"),
        (empty, "populations are recorded for [0] images; give one number >= 1"),
    ):
        with pytest.raises(FrontendError) as error:
            nmc.verify(built, golden(tmp_path, **changes))
        assert text in str(error.value)


def test_codes_of_a_module_that_got_time_and_images_as_one_axis(built: Path, tmp_path: Path) -> None:
    """[T * images, ...], as of QKFormer's SSA, is [T, images, ...]; what T does not divide is not."""
    with np.load(VECTORS) as file:
        codes = file["spikes/head_lif"]
    flat = codes.reshape(-1, *codes.shape[2:])
    assert nmc.verify(built, golden(tmp_path, **{"spikes/head_lif": flat})).rungs[0].mismatches == 0
    with pytest.raises(FrontendError, match=r"expected \[T, images, 24\] with T = 4"):
        nmc.verify(built, golden(tmp_path, **{"spikes/head_lif": flat[:-1]}))


def test_a_recorded_name_without_a_population_is_an_error(built: Path, tmp_path: Path) -> None:
    path = golden(tmp_path, **{"spikes/block.9.attn.q_lif": np.zeros((4, 8, 24, 4, 5), np.uint8)})
    with pytest.raises(FrontendError, match=r"recorded 'block.9.attn.q_lif' is no population .* \(1 such\)"):
        nmc.verify(built, path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": None}, "has no labels, which the accuracy rung needs"),
        ({"logits": None}, "has no array 'logits'"),
        ({"images": None}, "has no array 'images'"),
        ({"logits": np.zeros((16, 9), np.float32)}, "logits have shape [16, 9], expected [16, 10]"),
        ({"logits": np.full((16, 10), np.nan, np.float32)}, "logits hold NaN or infinity"),
        ({"spikes/head_lif": np.zeros((4, 8, 23), np.uint8)}, "expected [T, images, 24] with T = 4"),
        ({"spikes/head_lif": np.zeros((3, 8, 24), np.uint8)}, "expected [T, images, 24] with T = 4"),
        ({"spikes/head_lif": np.zeros((4, 7, 24), np.uint8)}, "recorded for [7, 8] images"),
        ({"spikes/head_lif": np.full((4, 8, 24), 300)}, "holds 300 to 300; codes are 0 to 255"),
        ({"spikes/head_lif": np.zeros((4, 8, 24))}, "has dtype float64; codes are whole numbers"),
    ],
)
def test_goldens_that_do_not_fit(built: Path, tmp_path: Path, changes: dict, text: str) -> None:
    with pytest.raises(FrontendError) as error:
        nmc.verify(built, golden(tmp_path, **changes))
    assert str(error.value).startswith(f"{tmp_path}/golden.npz: ") and text in str(error.value)


def test_an_unmapped_program_has_no_ladder(built: Path) -> None:
    compiled = nmc.load(built)
    with pytest.raises(ArtefactError, match="has no mapping to verify"):
        nmc.verify(replace(compiled, program=replace(compiled.program, mapping=None)), VECTORS)


def test_a_program_with_other_populations_than_its_graph_is_an_error(built: Path) -> None:
    compiled = nmc.load(built)
    p = compiled.program.populations[2]
    renamed = swap(compiled.program.populations, 2, replace(p, name="stranger"))
    with pytest.raises(ArtefactError, match="different populations: only the"):
        nmc.verify(replace(compiled, program=replace(compiled.program, populations=renamed)), VECTORS, limit=16)


def test_limits_below_one_are_refused(built: Path) -> None:
    with pytest.raises(UsageError, match="each must be at least 1"):
        nmc.verify(built, VECTORS, limit=0)


# --- the explanation --------------------------------------------------------------------------------------


def test_the_first_mismatch_is_explained_with_the_neurons_inputs(built: Path) -> None:
    """Both sides read the same currents; the parameters differ, and the numbers add up."""
    compiled = nmc.load(built)
    program = bias_off_by_one(compiled.program)
    ladder = nmc.verify(replace(compiled, program=program), VECTORS, limit=16)
    first = ladder.rungs[2].first
    p = next(p for p in program.populations if p.name == first["layer"])
    assert first["tick"] == first["timestep"] * program.ticks_per_step + p.level
    c, h, w = p.shape
    assert np.unravel_index(first["index"], p.shape) == tuple(first["neuron"])
    told, truth = first["inputs"]["program"], first["inputs"]["interpreter"]
    assert told["currents"] == truth["currents"] and len(told["currents"]) == first["timestep"] + 1
    assert sum(term["adds"] for term in told["made_of"]) == told["currents"][-1]
    assert told["parameters"]["bias"] == truth["parameters"]["bias"] + 64
    assert told["parameters"]["vth"] == truth["parameters"]["vth"]


@pytest.mark.parametrize(
    "model", [FIXTURES / "sdt_v1", FIXTURES / "spikformer", ZOO / "qkformer"], ids=lambda p: p.name
)
@pytest.mark.parametrize("residual", ["stream", "duplicate"])
@pytest.mark.parametrize("encoding", ["host-current", "graded8"])
def test_explained_currents_are_those_of_the_interpreter(model: Path, residual: str, encoding: str) -> None:
    """The explainer's own walk through the netlist agrees with the graph, population by population."""
    from nmc.ladder.explain import Reader, explain_graph, explain_program

    compiled = nmc.compile(model / "model.pt", residual=residual, input_encoding=encoding)
    with np.load(next(model.glob("*.npz"))) as file:
        image = file["images"][3]
    run = nmc.emulate(compiled, image[None], record="all")
    reader = Reader(compiled.program, {name: codes[0] for name, codes in run.codes.items()}, image)
    rng, last = np.random.default_rng(0), compiled.program.timesteps - 1
    for p in compiled.program.populations:
        if p.dendrite < 0 or p.role == "relay":
            continue
        neuron = tuple(int(rng.integers(n)) for n in p.shape)
        told = explain_program(reader, p.name, neuron, last)["currents"]
        assert told == explain_graph(compiled.int_graph, image, p.name, neuron, last)["currents"], p.name


# --- the command ------------------------------------------------------------------------------------------


def verify_command(folder: Path, capsys, *options: str) -> tuple[int, str, str]:
    status = main(["verify", str(folder), "--golden", str(VECTORS), "--limit", "16", *options])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_command_says_equal(built: Path, capsys) -> None:
    status, out, err = verify_command(built, capsys)
    assert status == 0
    assert out.count("equal     ") == 5 and out.endswith("every rung holds\n")
    assert err.splitlines() == [f"comparing {name}" for name in RUNGS]


def test_the_command_fails_with_3_and_shows_where(built: Path, tmp_path: Path, capsys) -> None:
    """The mutated Program is stored with a digest of its own: only the ladder can tell."""
    folder = Path(shutil.copytree(built, tmp_path / "build"))
    save_program(weights_swapped(nmc.load(folder).program), folder)
    status, out, _ = verify_command(folder, capsys)
    assert status == 3
    assert "MISMATCH  int = emulator" in out and "first mismatch of 'int = emulator'" in out
    assert "layer block.0.mlp.fc2_lif, neuron [" in out and "what the neuron read, as the program has it" in out
    status, out, _ = verify_command(folder, capsys, "--json")
    tree = json.loads(out)
    assert status == 3 and tree["ok"] is False
    assert [rung["name"] for rung in tree["rungs"]] == RUNGS
    assert [rung["mismatches"] > 0 for rung in tree["rungs"]] == [False, False, True, False, False]
    assert all({"name", "compared", "mismatches", "first"} <= rung.keys() for rung in tree["rungs"])
    assert tree["rungs"][2]["first"]["inputs"]["program"]["made_of"]


def test_the_command_fails_with_1_where_there_is_nothing_to_compare(built: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "g.npz", images=np.zeros((1, 1, 16, 20), np.float32))
    assert main(["verify", str(built), "--golden", str(tmp_path / "g.npz")]) == 1
    assert "there is nothing to compare" in capsys.readouterr().err


def test_the_command_fails_with_2_without_goldens(built: Path, capsys) -> None:
    assert main(["verify", str(built)]) == 2
    assert "nothing to compare with; give --golden FILE.npz, or --with lava" in capsys.readouterr().err


def test_interpreter_and_recorded_logits_agree_for_the_fixture(built: Path) -> None:
    """What the first rung rests on, said once without it."""
    with np.load(VECTORS) as file:
        error = np.abs(interpret(nmc.load(built).float_graph, file["images"]).logits - file["logits"])
    assert error.max() < 1e-4
