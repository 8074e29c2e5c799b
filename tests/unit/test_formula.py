"""The papers' formula in a report: rates from counters, variants by hand, what is not known, other efforts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_nets import EXTENT, cloud

import nmc
from nmc.cli import main
from nmc.effort import effort, residual_words
from nmc.formula import VARIANTS, FormulaRow, formula, input_of, is_masked_sum
from nmc.page.details import details_of
from nmc.page.write import page
from nmc.run_rates import rates_of_run
from nmc.work import CONNECTIONS
from nmc_compiler.errors import UsageError
from nmc_compiler.fitting import fit
from nmc_compiler.graph import Graph, GraphBuilder, label
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.gates import event_norm
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator.report import read_report

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
NETS = ("sdt_v1", "sdt_v3", "spikformer")


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[nmc.Compiled, nmc.Run, np.ndarray]]:
    found = {}
    for name in NETS:
        compiled = nmc.compile(FIXTURES / name / "model.pt")
        with np.load(FIXTURES / name / "vectors.npz") as file:
            images = file["images"][:2]
        found[name] = compiled, nmc.emulate(compiled, images, record="all"), images
    return found


def heard(compiled: nmc.Compiled, run: nmc.Run, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean code and rate of events of the input of each layer, element by element, with the codes of the run."""
    graph = compiled.float_graph
    sources = {}
    for node in graph:
        if node.op in CONNECTIONS or is_masked_sum(graph, node):
            sources[label(node)] = input_of(graph, node) if node.op in CONNECTIONS else graph.node(node.operands[0])
        if node.op == "attn":
            names = [f"{label(node).lstrip('%')}.{role}" for role in "qkv"]
            sources |= dict(zip(names, [graph.node(i) for i in node.operands], strict=True))
    neurons = {n.name for n in graph if n.type.is_event and n.op in ("lif", "multilevel")}
    given = {name: np.moveaxis(codes, 1, 0) for name, codes in run.codes.items() if name in neurons}
    events = {name: node for name, node in sources.items() if node.type.is_event}
    values = interpret(graph, images, values=[n.id for n in events.values()], given=given).values
    by_id = graph.by_id()
    return {
        name: (float(values[n.id].mean()) * event_norm(n, by_id), float((values[n.id] != 0).mean()))
        for name, n in events.items()
    }


@pytest.mark.parametrize("name", NETS)
def test_rates_are_those_of_the_recorded_codes(runs, name) -> None:
    compiled, run, images = runs[name]
    counters = run.result.counters
    rates = rates_of_run(compiled.float_graph, run.program, counters, 2, 2 * run.program.timesteps)
    expected = heard(compiled, run, images)
    assert rates.means == pytest.approx({layer: mean for layer, (mean, _) in expected.items()}, rel=1e-12)
    assert rates.events == pytest.approx({layer: expected[layer][1] for layer in rates.events}, rel=1e-12)
    assert len(rates.events) > 4


@pytest.mark.parametrize("name", NETS)
def test_a_report_has_the_formula_at_the_rates_of_its_run(runs, name) -> None:
    compiled, run, images = runs[name]
    report, graph = run.report, compiled.float_graph
    rates = {layer: mean for layer, (mean, _) in heard(compiled, run, images).items()}
    for variant, told in report["formula"]["variants"].items():
        energy = formula(graph, rates, variant)
        assert (told["macs"], told["acs"]) == pytest.approx((2 * energy.macs, 2 * energy.acs), rel=1e-9)
        assert told["energy_pj"]["fp32"] == pytest.approx(2 * energy.picojoules, rel=1e-9)
        assert told["missing"] == [] and told["what"] == VARIANTS[variant].what
    entry = next(e for e in report["energy"] if e["kind"] == "formula")
    papers = report["formula"]["variants"]["papers"]
    assert entry["complete"] and entry["total_pj"] == pytest.approx(papers["energy_pj"]["fp32"])
    assert entry["counts"] == pytest.approx({"mac_fp32": papers["macs"], "ac_fp32": papers["acs"]})
    for kind, key in (("macs", "mac_fp32"), ("acs", "ac_fp32")):
        assert sum(layer["formula"][key] for layer in report["layers"]) == pytest.approx(papers[kind])
    by_layer = sum(layer["energy_pj"]["cmos45-horowitz"] for layer in report["layers"])
    assert by_layer == pytest.approx(entry["total_pj"])
    per_sample = sum(row["acs"] for row in report["formula"]["rows"])
    assert per_sample <= papers["acs"] / 2 * (1 + 1e-12)  # the rest is attention


def test_a_layer_of_the_formula_is_told_at_the_population_that_hears_it_first(runs) -> None:
    layers = {layer["name"]: layer["formula"] for layer in runs["spikformer"][1].report["layers"]}
    rows = {row["layer"]: row for row in runs["spikformer"][1].report["formula"]["rows"]}
    assert layers["patch_embed.proj_lif"]["mac_fp32"] == 2 * rows["patch_embed.proj_conv"]["macs"] > 0
    assert layers["block.0.mlp.fc1_lif"]["ac_fp32"] == 2 * rows["block.0.mlp.fc1_linear"]["acs"] > 0
    assert layers["block.0.attn.attn_lif"]["ac_fp32"] > 0 == layers["patch_embed.proj_lif2.pool"]["ac_fp32"]
    assert layers["head"]["ac_fp32"] == 2 * rows["head"]["acs"] > 0


# --- variants by hand ---------------------------------------------------------------------------------------


def network(masks: bool = False) -> Graph:
    """T = 3: a real image of 2x4x4; conv with bias; spikes; a sum of two codes; a read-out."""
    b = GraphBuilder("tiny", timesteps=3, numbers="float")
    fires: dict[str, Any] = {"tau": 2.0, "theta": 1.0, "v_reset": 0.0, "reset": "hard", "compare": "ge"}
    x = b.add("input", shape=(2, 4, 4))
    w1, b1 = b.tensor("w1", np.ones((3, 2, 3, 3))), b.tensor("b1", np.ones(3))
    first = b.add("conv2d", x, name="first", weight=w1, bias=b1, pad=(1, 1))
    one = b.add("lif", first, name="one", decay_input=True, **fires)
    two = b.add("lif", first, name="two", decay_input=True, **fires)
    hidden = b.add("add", one, two)
    if masks:
        hidden = b.add("mul", one, two, name="kv")
        b.add("output", b.add("map", hidden, id="sum", name="sum", mode="reduce"))
    second = b.add("conv2d", hidden, name="second", weight=b.tensor("w2", np.ones((5, 3, 4, 4))))
    b.add("readout", second, name="out", bias=b.tensor("b2", np.ones(5)))
    return b.build()


FIRST, SECOND = 3 * 2 * 9 * 16, 5 * 3 * 16  # padding counts as input


def test_variants_by_hand() -> None:
    graph, rates = network(), {"second": 0.5}
    papers = formula(graph, rates)
    assert (papers.macs, papers.acs) == (FIRST, 3 * SECOND * 0.5)
    assert papers.picojoules == pytest.approx(4.6 * FIRST + 0.9 * 3 * SECOND * 0.5)
    assert papers.priced("int8") == pytest.approx(0.23 * FIRST + 0.03 * 3 * SECOND * 0.5)
    logs = formula(graph, rates, "spikingformer")
    assert (logs.macs, logs.acs) == (3 * (FIRST + 3 * 16) + 3 * (SECOND + 5), 0)  # codes of two bits are dense
    dense = formula(graph, {}, "ann")
    assert (dense.macs, dense.acs) == (FIRST + SECOND, 0)
    with pytest.raises(UsageError, match="no prices of int4 in cmos45-horowitz; choose of fp32, fp16, int32, int8"):
        papers.priced("int4")


def test_masks_are_counted_where_a_variant_says_so() -> None:
    graph, rates = network(masks=True), {"second": 0.25, "sum": 0.25}
    papers, masked = formula(graph, rates), formula(graph, rates, "sdt_v1")
    assert masked.acs - papers.acs == 3 * 48 * 0.25 and masked.macs == papers.macs


def test_a_factor_between_spikes_and_a_layer_changes_nothing() -> None:
    b = GraphBuilder("scaled", timesteps=2, numbers="float", input_time=True)
    x = b.add("input", shape=(2, 1, 1), bits=0)
    w = b.tensor("w", np.ones((3, 2, 1, 1)))
    b.add("output", b.add("conv2d", b.add("scale", x, factor=0.5), name="fc", weight=w))
    assert formula(b.build(), {"fc": 0.5}).acs == 2 * 6 * 0.5


def test_synapses_one_by_one_are_an_operation_each() -> None:
    b = GraphBuilder("sparse", timesteps=2, numbers="float", input_time=True)
    arrays = {"indptr": np.array([0, 2, 5]), "target": np.array([0, 1, 0, 1, 1]), "weight": np.ones(5)}
    refs = {k: b.tensor(k, v) for k, v in arrays.items()}
    x = b.add("input", shape=(2, 1, 1), bits=0)
    b.add("output", b.add("sparse", x, name="rows", shape=(2, 1, 1), **refs))
    assert formula(b.build(), {"rows": 0.5}).acs == 2 * 5 * 0.5


def test_convolutions_between_sites() -> None:
    """Of a fixed cloud the pairs are counted; of any other they have to be told."""
    window: dict[str, Any] = {"kernel": (3, 3, 3), "pad": (1, 1, 1)}
    weight = np.ones((5, 2, 27, 1))
    table = cloud(1, 9)
    pairs = sum(bool(np.abs(a - c).max() <= 1) for a in table for c in table)

    def graph(fixed: bool) -> Graph:
        b = GraphBuilder("sites", timesteps=1, numbers="float")
        x = b.add("input", shape=(5, 9, 1))
        made = {"table": b.tensor("t", table.astype(np.int32)), "extent": EXTENT}
        sites = b.add("cloud", **made) if fixed else b.add("sites", x, extent=EXTENT)
        conv = b.add(
            "sparse_conv3d", b.add("features", x), sites, sites, name="conv", weight=b.tensor("w", weight), **window
        )
        b.add("output", conv)
        return b.build()

    assert formula(graph(True), {}).macs == pairs * 10
    assert formula(graph(True), {}, "e3dsnn").macs == 2 * pairs * 10 - 9
    assert formula(graph(False), {"conv.pairs": 20.0, "conv.out": 6.0}, "e3dsnn").macs == 2 * 20 * 10 - 6
    with pytest.raises(UsageError, match=r"the formula needs the rate of the input of 'conv.pairs', got None"):
        formula(graph(False), {})


# --- what is not known --------------------------------------------------------------------------------------


def general(timesteps: int, crop: bool) -> Graph:
    """Spikes, perhaps a crop of them; two layers of neurons."""
    b = GraphBuilder("general", timesteps=timesteps, numbers="float", input_time=True)
    x = b.add("input", name="x", shape=(2, 2, 2) if crop else (2, 1, 1), bits=0)
    x = b.add("take", x, index=b.tensor("i", np.array([0, 4])), shape=(2, 1, 1)) if crop else x
    fires: dict[str, Any] = {"beta": 0.5, "theta": 1.0, "reset": "hard", "compare": "ge"}
    conv = b.add("conv2d", x, name="fc", weight=b.tensor("w", np.ones((3, 2, 1, 1))))
    lif = b.add("neuron", conv, name="lif", **fires)
    last = b.add("conv2d", lif, name="fc2", weight=b.tensor("w2", np.ones((2, 3, 1, 1))))
    b.add("output", b.add("neuron", last, name="lif2", **fires), name="out")
    return b.build()


def compiled_of(graph: Graph) -> nmc.Compiled:
    report, chip = ConversionReport(), load_target("loihi2")
    integers = compile_graph(graph, chip, CompileOptions(), report)
    program = replace(fit(integers, chip, CompileOptions(), report).program, meta={})
    return nmc.Compiled(program, {}, graphs={"float": graph, "int": integers})


def test_a_layer_whose_rate_no_counter_tells_makes_it_at_least() -> None:
    """A crop: which of the spikes are in it is not counted."""
    run = nmc.emulate(compiled_of(general(2, crop=True)), np.ones((3, 2, 2, 2, 2)))
    entry = next(e for e in run.report["energy"] if e["kind"] == "formula")
    assert not entry["complete"] and entry["missing"] == ["fc"]
    assert entry["reasons"]["fc"] == "the rate of what this layer hears is not among the counts of the run"
    assert run.report["formula"]["effort"]["ns_ace"] is None
    assert re.search(r"papers +at least 0 +at least \d+ +at least", run.report.text())
    assert [row["layer"] for row in run.report["formula"]["rows"]] == ["fc2"]


def test_a_stream_is_counted_by_timestep() -> None:
    """Six timesteps of a stream, or two samples of three timesteps through it, from rest."""
    compiled = compiled_of(general(0, crop=False))
    frames = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [1, 1]]).reshape(6, 2, 1, 1)
    for x, units, each in ((frames, 6, 1), (frames.reshape(2, 3, 2, 1, 1), 2, 3)):
        run = nmc.emulate(compiled, x, record="all")
        told, fired = run.report["formula"], int(run.spikes("lif").sum())
        papers = told["variants"]["papers"]
        assert (papers["acs"], papers["macs"]) == (7 * 3 + fired * 2, 0) and fired > 0
        assert [row["acs"] * units for row in told["rows"]] == pytest.approx([21, 2 * fired])
        assert [row["ops"] for row in told["rows"]] == [6 * each, 6 * each]
        assert told["effort"]["ns_ace"] == 12 * each * told["effort"]["weight_bits"]
        assert next(e for e in run.report["energy"] if e["kind"] == "formula")["total_pj"] == pytest.approx(
            0.9 * papers["acs"]
        )


def test_a_program_made_by_hand_says_that_there_is_no_formula(runs, tmp_path: Path) -> None:
    compiled, run, images = runs["sdt_v1"]
    bare = nmc.emulate(compiled.program, images, out=tmp_path / "run")
    why = "the papers' formula counts the layers of a network as trained, and none is known of this Program"
    assert bare.report["formula"] == {"why": why} and bare.report["metrics"] is None
    assert [e["kind"] for e in bare.report["energy"]] == ["mapped", "mapped"]
    assert why in bare.report.text() and "cmos45" not in bare.report.text()
    again = read_report(tmp_path / "run" / "report.json")
    html = page(details_of(again, None, None))
    assert why.replace("'", "&#39;") in html
    assert details_of(again, None, None)["waterfalls"] == {}
    mapped = [e["total_pj"] for e in run.report["energy"] if e["kind"] == "mapped"]
    assert [e["total_pj"] for e in bare.report["energy"]] == mapped  # nothing else depends on it


# --- NeuroBench's metrics in a report -----------------------------------------------------------------------


def test_metrics_of_a_run(runs, tmp_path: Path, capsys) -> None:
    compiled, _, images = runs["sdt_v1"]
    run = nmc.emulate(compiled, images, metrics=True)
    expected = nmc.metrics(compiled, images, codes=run.codes)
    assert run.report["metrics"] == expected.as_json()
    assert run.report["metrics"]["SynapticOperations"]["Effective_ACs"] > 0
    static = runs["sdt_v1"][1].report["metrics"]
    assert static == {k: run.report["metrics"][k] for k in ("Footprint", "ParameterCount", "ConnectionSparsity")}
    compiled.save(tmp_path / "build")
    np.savez(tmp_path / "in.npz", images=images)
    command = ["emulate", str(tmp_path / "build"), "--input", str(tmp_path / "in.npz"), "--metrics", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"] == json.loads(json.dumps(run.report["metrics"]))
    assert main(["report", str(tmp_path / "build")]) == 0
    assert "NeuroBench: ConnectionSparsity 0, ActivationSparsity 0." in capsys.readouterr().out
    with pytest.raises(UsageError, match="metrics are of the network as trained; this Program was made from no graph"):
        nmc.emulate(compiled.program, images, metrics=True)


# --- bits and words -----------------------------------------------------------------------------------------


def test_bit_budget_and_ace_by_hand() -> None:
    rows = [
        FormulaRow("first", 100.0, 0.0, 100.0, 1.0, None, 1),
        FormulaRow("spikes", 4 * 50.0, 40.0, 0.0, 0.2, 1, 4),
        FormulaRow("codes", 4 * 10.0, 60.0, 0.0, 1.5, 3, 4),
    ]
    found = effort(rows, {"codes": 0.5}, weights=8, inputs=8)
    assert found.ns_ace == 100 * 64 + 200 * 8 + 40 * 24
    assert found.s_ace == 100 * 64 + 200 * 8 * 0.2 + 40 * 24 * 0.5
    assert found.bit_budget == pytest.approx(found.ns_ace / 160) and found.missing == ()
    alike = effort(rows[1:2], {}, weights=8, inputs=8)
    assert alike.bit_budget == 4 * 1 * 8  # T b_s b_w
    unknown = effort(rows, {}, weights=8, inputs=8)
    assert unknown.s_ace is None and unknown.missing == ("codes",) and unknown.ns_ace == found.ns_ace


def test_words_of_the_residual_stream(runs) -> None:
    """SDT: two sums of currents in each of two blocks and one behind the stem, of 24x4x5 elements, 4 timesteps."""
    compiled, run, _ = runs["sdt_v1"]
    assert residual_words(compiled.float_graph) == 5 * 2 * 24 * 4 * 5 * 4 == run.report["formula"]["residual_words"]
    assert residual_words(runs["spikformer"][0].float_graph) == 0  # its sums are of spikes


# --- active sites -------------------------------------------------------------------------------------------


def test_a_network_on_active_sites_counts_the_pairs_of_its_clouds() -> None:
    """Additions are those of the pairs that the run had; what was folded into another layer is not told apart."""
    folder = ROOT / "examples" / "zoo" / "e3dsnn"
    compiled = nmc.compile(folder / "model.pt")
    run = nmc.emulate(compiled, folder / "test.npz", limit=2, record="all")
    told = run.report["formula"]
    rows = {row["layer"]: row for row in told["rows"]}
    layers = {layer["name"]: layer for layer in run.report["layers"]}
    into = {"stem.3": "stem.5", "enc.1.blocks.0.voxel_block.1": "enc.1.blocks.0.voxel_block.3"}
    for row, population in into.items():
        layer, source = layers[population], rows[row]
        heard = next(conv.src for conv in compiled.program.convs if conv.name == row)
        mean_code = layers[compiled.program.populations[heard].name]["mean_code"]
        assert 2 * source["acs"] == pytest.approx(layer["synops_mac"] * mean_code)
        assert 2 * source["ops"] == layer["synops_mac_dense"]
    assert 2 * rows["stem.0"]["macs"] == run.report["host_macs"]
    assert told["variants"]["papers"]["missing"] == ["enc.2.blocks.0.voxel_block.4", "final"]
    assert set(told["variants"]) == {"papers", "spikingformer", "ann", "e3dsnn"}
