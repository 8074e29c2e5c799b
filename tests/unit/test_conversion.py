"""The conversion report: errors that were planted are found, causes are told from consequences, tables say it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.calibration import read_calibration
from nmc.cli import main
from nmc.conversion import conversion_table
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.graph import Graph, GraphBuilder, Use, ValueType
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.types import Kind
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import agreement
from nmc_compiler.passes.cause import with_fewer_bits, worst_layer
from nmc_compiler.passes.forced import forced_run
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport, layers_of
from nmc_compiler.target import load_target

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
LOIHI2 = load_target("loihi2")


def two_layers(first: np.ndarray, second: np.ndarray, beta: float = 0.5) -> Graph:
    """Two dense layers of leaky neurons, the second with synapses of its own."""
    b = GraphBuilder("net", 20, input_time=True)
    x = b.add("input", id="x", shape=(first.shape[1], 1, 1), bits=0)
    c = b.add("conv2d", x, name="fc1", weight=b.tensor("w1", first[..., None, None]))
    s = b.add("neuron", c, id="a", name="a", beta=beta, theta=1.0, reset="hard", compare="gt")
    d = b.add("conv2d", s, name="fc2", weight=b.tensor("w2", second[..., None, None]))
    own = b.declare("b", ValueType(Kind.SPIKE, (len(second), 1, 1)))
    r = b.add("conv2d", Use(own, 1), name="rec", weight=b.tensor("w3", -0.25 * np.eye(len(second))[..., None, None]))
    t = b.add("neuron", b.add("add", d, r), id="b", name="b", beta=beta, theta=1.0, reset="hard", compare="gt")
    b.add("output", t, id="out", name="out")
    return b.build()


def spikes(samples: int, width: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((samples, 20, width, 1, 1)) < 0.5).astype(np.int64)


def altered(graph: Graph, factor: float) -> Graph:
    """The integer graph with a first layer whose threshold is off."""
    tensors = dict(graph.tensors)
    key = next(n for n in graph if n.name == "a").attr("vth").key
    tensors[key] = np.rint(tensors[key] * factor).astype(np.int32)
    return Graph(graph.name, graph.timesteps, graph.nodes, tensors, "int", input_time=True)


@pytest.fixture(scope="module")
def net() -> tuple[Graph, Graph]:
    rng = np.random.default_rng(3)
    trained = two_layers(rng.normal(0.1, 0.4, (12, 10)), rng.normal(0.1, 0.4, (8, 12)))
    return trained, compile_graph(trained, LOIHI2, CompileOptions(), ConversionReport())


def test_a_planted_error_is_its_layers_own(net):
    """The threshold of the first layer is a tenth too high: the second differs too, but not by itself."""
    trained, whole = net
    first, second = agreement(trained, altered(whole, 1.1), spikes(8, 10))
    assert first.different == first.own > 50 and first.own_mean > 0.01
    assert second.different > 20 * max(second.own, 1)
    assert worst_layer([first, second]) is first


def test_nothing_differs_where_nothing_is_rounded():
    """Weights and thresholds that are whole and a potential that forgets: the compare is met to the letter."""
    rng = np.random.default_rng(1)
    trained = two_layers(rng.integers(-2, 3, (6, 5)) / 4, rng.integers(-2, 3, (4, 6)) / 4, beta=0.0)
    whole = compile_graph(trained, LOIHI2, CompileOptions(), ConversionReport())
    found = agreement(trained, whole, spikes(4, 5))
    assert [a.different for a in found] == [a.own for a in found] == [0, 0]
    assert worst_layer(found) is None and found[0].spikes_float > 10


def test_forced_populations_hear_the_float_network(net):
    trained, whole = net
    x = spikes(3, 10)
    codes = interpret(trained, x, record="all").codes
    cut, given = forced_run(whole, codes, x)
    fed = {n.name or n.id for n in cut.sources}
    assert fed == {"x", "a@float", "b@float"} == set(given)
    assert np.array_equal(given["a@float"], np.moveaxis(codes["a"], 0, 1))
    reads = {use.node for n in cut for use in n.inputs}
    assert not reads & {"a", "b"} - {n.operands[0] for n in cut if n.op == "output"}


def test_one_weight_bit_less_makes_weights_the_cause(net):
    trained, whole = net
    x = spikes(16, 10)
    found = agreement(trained, whole, x)
    bits, fewer = with_fewer_bits(trained, "a", x, LOIHI2, CompileOptions())
    assert bits == 7 and fewer > found[0].own


def test_layers_name_what_they_read_and_how_they_decay(net):
    first, second = layers_of(*net)
    assert (first["layer"], first["kind"], first["decay"], first["theta"]) == ("a", "neuron", {}, 1.0)
    assert len(first["reads"]) == 1 and len(second["reads"]) == 2  # named by join-linear
    trained = two_layers(np.eye(2), np.eye(2), beta=0.9)
    whole = compile_graph(trained, LOIHI2, CompileOptions(), ConversionReport())
    assert layers_of(trained, whole)[0]["decay"] == {"beta": [0.9, 1 - 410 / 4096]}


# --- the report ---


@pytest.fixture(scope="module")
def calib(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("calib") / "calib.npz"
    with np.load(FIXTURES / "sdt_v1" / "vectors.npz") as file:
        np.savez(path, images=file["images"][:6])
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, calib) -> nmc.Compiled:
    return nmc.compile(FIXTURES / "sdt_v1" / "model.pt", calib=calib, out=tmp_path_factory.mktemp("c") / "build")


def test_a_transformer_says_what_each_layer_does_by_itself(compiled):
    table = conversion_table(compiled.conversion)
    assert table.samples == 6 and [row["layer"] for row in table.rows] == [
        layer["layer"] for layer in compiled.conversion["layers"]
    ]
    gate = next(r for r in table.rows if r["layer"].endswith("talking_heads_lif"))
    assert gate["rating"] == "faithful" and gate["effect"]["own"] == 0
    first = next(r for r in table.rows if r["layer"] == "patch_embed.proj_lif1")
    assert first["rating"] == "approximate" and 0 < first["weight_mean_error"] < first["weight_worst_error"] < 0.02
    assert first["range"][0] < 0 < first["range"][1] and first["effect"]["overflows"] == {}


def test_the_command_prints_it_as_text_markdown_and_json(compiled, capsys):
    folder = str(compiled.folder)
    assert main(["report", folder, "--conversion"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(("Worst: ", "No ")) and "by itself  potential error" in text
    assert main(["report", folder, "--conversion", "--markdown"]) == 0
    assert "| layer | range | scale |" in capsys.readouterr().out
    assert main(["report", folder, "--conversion", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "nmc.conversion-report/1" and told["worst"] == text.splitlines()[0]
    assert len(told["layers"]) == len(conversion_table(compiled.conversion).rows)


def test_same_data_same_bytes(compiled, calib):
    again = nmc.compile(FIXTURES / "sdt_v1" / "model.pt", calib=calib)
    assert again.conversion == compiled.conversion and again.digest == compiled.digest


def test_without_data_it_says_what_to_do():
    plain = nmc.compile(FIXTURES / "sdt_v1" / "model.pt")
    table = conversion_table(plain.conversion)
    assert table.worst.startswith("What quantisation does to spikes is not known: compile with --calib FILE.npz")
    assert table.samples is None and "spikes float" not in table.text()


def conversion(effects: dict[str, dict], worst: dict | None) -> dict:
    plain = {"neurons": 10, "steps": 4, "samples": 2, "spikes_float": 30, "spikes_int": 30, "different": 0, "own": 0}
    plain |= {"own_mean": 0.01, "overflows": {}}
    found = [plain | {"layer": name} | more for name, more in effects.items()]
    entries = [
        {"pass": "quantize", "layer": name, "kind": "neuron", "scale": 4.0, "vth": [100], "vth_error_relative": 0.003,
         "rating": "approximate", "reasons": ["rounded"]} for name in effects
    ]  # fmt: skip
    layers = [{"layer": name, "kind": "neuron", "reads": [], "decay": {"beta": [0.9, 0.85]}} for name in effects]
    calibration = {"samples": 2, "populations": found, "worst": worst}
    return {"entries": entries, "layers": layers, "calibration": calibration}


TOLD = {"layer": "b", "weight_bits": 8, "fewer_bits": 7}


@pytest.mark.parametrize(
    "effects, worst, text",
    [
        ({"a": {}, "b": {}}, None, "No spike differs on 2 calibration samples"),
        ({"a": {}, "b": {"different": 3}}, None, "No layer differs by itself on 2 .*; up to 3 spikes of b differ"),
        (
            {"a": {"own": 1}, "b": {"own": 8, "different": 9}},
            TOLD | {"own_with_fewer_bits": 20},
            r"Worst: b\. On 2 .* 8 of its 30 spikes differ by itself \(10 % of .*\), 9 with what comes before\. It is"
            r" its weights: with 7 bits instead of 8, 20 would differ\. Train with weights rounded to 8 bits",
        ),
        (
            {"b": {"own": 8}},
            TOLD | {"own_with_fewer_bits": 9},
            r"It is not its weights alone \(with 7 bits 9 would differ\): its decays are rounded by 5 % of a threshold",
        ),
        (
            {"a": {"overflows": {"current u": 7}}, "b": {"own": 8}},
            TOLD,
            r"Worst: a\. On 2 calibration samples its current u left 24 bits 7 times, and wraps or saturates\. Give",
        ),
    ],
)
def test_the_hint_is_what_the_numbers_say(effects, worst, text):
    assert re.search(text, conversion_table(conversion(effects, worst)).worst)


def test_a_layer_is_as_faithful_as_its_least_faithful_pass():
    found = conversion({"a": {}, "b": {}}, None)
    for entry in found["entries"]:
        entry |= {"rating": "faithful", "reasons": []}
    found["entries"].append(
        {"pass": "plain-neurons", "layer": "b", "rating": "approximate", "reasons": ["a soft reset becomes a hard one"]}
    )
    table = conversion_table(found)
    assert [row["rating"] for row in table.rows] == ["faithful", "approximate"]
    assert "b: a soft reset becomes a hard one (plain-neurons)" in table.text()


def test_a_program_of_no_model_has_none():
    with pytest.raises(
        UsageError, match=r"has no conversion report of this version of nmc; compile its model \(again\)"
    ):
        conversion_table({})


# --- calibration data ---


@pytest.mark.parametrize(
    "array, text",
    [
        (np.zeros((2, 20, 9, 1, 1)), r"images have shape \[2, 20, 9, 1, 1\], but input 'x' takes \[N, 20, 10, 1, 1\]"),
        (np.zeros((2, 10, 1, 1)), r"images have shape \[2, 10, 1, 1\], but input 'x' takes"),
        (np.zeros((0, 20, 10, 1, 1)), r"images have shape \[0, 20, 10, 1, 1\]"),
        (np.full((1, 20, 10, 1, 1), np.nan), "images have values that are NaN or infinite; clean the input"),
    ],
)
def test_data_that_do_not_fit_are_refused(net, tmp_path, array, text):
    np.savez(tmp_path / "c.npz", images=array)
    with pytest.raises(FrontendError, match=text):
        read_calibration(tmp_path / "c.npz", net[0])


def test_data_of_a_general_network_by_name_or_as_images(net, tmp_path):
    x = spikes(20, 10)
    for key, given, count in (("images", x, 16), ("x", x[0], 20)):
        np.savez(tmp_path / "c.npz", **{key: given})
        assert len(read_calibration(tmp_path / "c.npz", net[0])["x"]) == count
