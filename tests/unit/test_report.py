"""The report: what it says, in JSON, for a terminal and in Markdown, and reading it back."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmc
from nmc_compiler.errors import ArtefactError
from nmc_emulator.report import Report, make_report, read_report
from nmc_emulator.tables import count, markdown_table, picojoules, seconds, text_table

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture(scope="module")
def runs() -> dict[str, nmc.Run]:
    """A run of each fixture: masks and plain spikes, and attention tables."""
    found = {}
    for family in ("sdt_v1", "spikformer"):
        with np.load(FIXTURES / family / "vectors.npz") as file:
            arrays = file["images"][:4], file["labels"][:4]
        found[family] = nmc.emulate(nmc.compile(FIXTURES / family / "model.pt"), *arrays)
    return found


# --- content ----------------------------------------------------------------------------------------------


def test_totals_are_the_counters(runs) -> None:
    for run in runs.values():
        counters, report = run.result.counters, run.report
        for name in ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads", "neuron_updates", "packets", "host_macs"):
            assert report[name] == counters.total(name), name
        parts = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
        assert report["synops_effective"] == sum(counters.total(name) for name in parts)
        assert report["synops_dense"] == sum(counters.total(f"{name}_dense") for name in parts)
        assert report["hops"] == counters.total("hops_ew") + counters.total("hops_ns")
        events = report["spikes"] + report["relay_events"] + report["input_events"]
        assert events == counters.total("events")
        assert report["gate_ops"] + report["pool_ops"] + report["map_ops"] == counters.total("map_ops")


def test_rates_are_events_per_neuron_and_timestep(runs) -> None:
    run = runs["sdt_v1"]
    layer = next(item for item in run.report["layers"] if item["name"] == "block.0.attn.q_lif")
    assert layer["rate"] == layer["spikes"] / (layer["neurons"] * run.program.timesteps * 4)
    assert layer["mean_code"] == 1.0 and layer["shape"] == [24, 4, 5]


def test_assumptions_name_every_assumed_feature(runs) -> None:
    said = "\n".join(runs["sdt_v1"].report["assumptions"])
    assert "loihi2 is assumed, not documented, to do stream_accumulator" in said
    assert "the host computes the first layer" in said and "extrapolated" in said
    said = "\n".join(runs["spikformer"].report["assumptions"])
    assert "to do dynamic_synapse" in said and "to do multi_level_neuron" not in said


def test_attention_tables_make_energy_and_time_incomplete(runs) -> None:
    report = runs["spikformer"].report
    for energy in report["energy"][:2]:
        assert {"dyn_write", "dyn_read"} <= set(energy["missing"]) and not energy["complete"]
    assert report["seconds"]["missing"] == ["synops"]
    assert "nobody has timed: synops" in report.text()


def test_three_profiles_stand_side_by_side(runs) -> None:
    energy = runs["sdt_v1"].report["energy"]
    assert [e["profile"] for e in energy] == ["loihi1-davies2018", "loihi1-sanafe-fit", "cmos45-horowitz"]
    counted = "variant 'papers': as most papers count: no biases, the first layer once"
    assert energy[2]["counts_what"].startswith(counted)
    for e in energy:
        assert e["total_pj"] == pytest.approx(sum(e["terms_pj"].values()))
        assert e["per_sample_pj"] == pytest.approx(e["total_pj"] / 4)


def test_overflows_are_told_by_population(runs) -> None:
    run = runs["sdt_v1"]
    counters = copy.deepcopy(run.result.counters)
    counters.overflow["u"][3] = 7
    report = make_report(run.program, replace(run.result, counters=counters))
    name = run.program.populations[3].name
    assert report["overflow"] == {name: {"u": 7}}
    assert f"WARNING, values out of range in {name}: 7 of u" in report.text()
    assert runs["sdt_v1"].report["overflow"] == {}


def test_an_unmapped_program_says_so(runs) -> None:
    run = runs["sdt_v1"]
    bare = nmc.emulate(replace(run.program, mapping=None), np.zeros((1, 1, 16, 20), np.float32))
    assert bare.report["mapped"] is False and bare.report["packets"] == 0
    assert "not mapped" in bare.report.text().splitlines()[0]
    assert any("is not mapped" in line for line in bare.report["assumptions"])


# --- rendering --------------------------------------------------------------------------------------------


def test_text_says_at_least_and_lists_what_is_missing(runs) -> None:
    text = runs["sdt_v1"].report.text()
    assert str(runs["sdt_v1"].report) == text
    assert "at least " in text and "not, or not all, in the total: " in text
    assert text.index("Assumptions") < text.index("accuracy: ")
    assert "cmos45-horowitz: variant 'papers': as most papers count" in text


def test_a_complete_total_is_not_called_at_least(runs) -> None:
    data = copy.deepcopy(dict(runs["sdt_v1"].report.data))
    for e in data["energy"]:
        e |= {"complete": True, "missing": [], "reasons": {}}
    data["energy_range"]["complete"] = True
    for layer in data["layers"]:
        layer["missing"] = dict.fromkeys(layer["missing"], [])
    assert "at least" not in Report(data).text()


def test_layer_table_has_a_line_per_population_and_a_total(runs) -> None:
    run = runs["sdt_v1"]
    lines = run.report.text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  layer "))
    rows = lines[at + 2 : at + 2 + len(run.program.populations) + 1]
    assert [row.split()[0] for row in rows[:-1]] == [p.name for p in run.program.populations]
    assert rows[-1].split()[0] == "total"
    assert count(run.report["synops_effective"] / 4) in rows[-1]


def test_markdown_has_tables_of_equal_width(runs) -> None:
    for block in runs["spikformer"].report.markdown().split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_tables_align_numbers_to_the_right() -> None:
    assert text_table(("name", "n"), [("a", "1"), ("bb", "1,000")], indent="") == [
        "name      n",
        "----  -----",
        "a         1",
        "bb    1,000",
    ]
    assert markdown_table(("a|b", "n"), [("x", "5%")]) == ["| a\\|b | n |", "| --- | ---: |", "| x | 5% |"]
    assert text_table(("a", "b"), []) == ["  a  b", "  -  -"]


def test_numbers_for_people() -> None:
    assert [count(v) for v in (0, 12345, 1234.6, 3.25, 0.0123)] == ["0", "12,345", "1,235", "3.2", "0.0123"]
    assert [picojoules(v) for v in (0.0, 12.0, 1.5e3, 2e6, 3e9, 4e12)] == [
        "0 pJ",
        "12 pJ",
        "1.5 nJ",
        "2 uJ",
        "3 mJ",
        "4 J",
    ]
    assert [seconds(v) for v in (2.0, 2e-3, 2e-6, 2e-9)] == ["2 s", "2 ms", "2 us", "2 ns"]


# --- reading back -----------------------------------------------------------------------------------------


def plain(run: nmc.Run) -> dict[str, Any]:
    return json.loads(json.dumps(run.report.data))


def test_a_report_reads_back_as_it_was(runs, tmp_path: Path) -> None:
    for run in runs.values():
        (tmp_path / "report.json").write_text(json.dumps(run.report.data))
        again = read_report(tmp_path / "report.json")
        assert again.data == plain(run)
        assert again.text() == run.report.text() and again.markdown() == run.report.markdown()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("layers"), "layers is missing or of a wrong type"),
        (lambda t: t.update(samples="4"), "samples is missing or of a wrong type"),
        (lambda t: t.update(samples=0), "holds values of a wrong type"),
        (lambda t: t["layers"].append(None), "is no object"),
        (lambda t: t["layers"][0].pop("rate"), "layers/0/rate is missing or of a wrong type"),
        (lambda t: t["energy"][1].update(missing="all"), "energy/1/missing is missing or of a wrong type"),
        (lambda t: t["energy"][1]["terms_pj"].update(x="1"), "holds values of a wrong type"),
        (lambda t: t["bound"].update(synops=None), "holds values of a wrong type"),
        (lambda t: t.update(schema="nmc.report/1"), "not a report of this version of nmc (nmc.report/2)"),
        (lambda t: t.update(formula={"why": "lost"}), "formula and the counts of its layers do not go together"),
        (lambda t: t["layers"][0].update(formula={}), "formula and the counts of its layers do not go together"),
        (lambda t: t["formula"].update(variant="mine"), "formula/variants/mine is missing or of a wrong type"),
        (
            lambda t: t["formula"]["variants"]["ann"].pop("macs"),
            "formula/variants/ann/macs is missing or of a wrong type",
        ),
        (lambda t: t["formula"]["rows"][0].update(rate=None), "formula/rows/0/rate is missing or of a wrong type"),
        (lambda t: t["formula"]["effort"].update(missing=[1]), "formula or metrics hold values of a wrong type"),
        (lambda t: t.update(metrics=None), "metrics is no object"),
    ],
)
def test_a_damaged_report_is_refused(runs, tmp_path: Path, change, text: str) -> None:
    tree = plain(runs["sdt_v1"])
    change(tree)
    (tmp_path / "report.json").write_text(json.dumps(tree))
    with pytest.raises(ArtefactError) as error:
        read_report(tmp_path / "report.json")
    assert text in str(error.value) and str(error.value).endswith("run `nmc emulate` again")
