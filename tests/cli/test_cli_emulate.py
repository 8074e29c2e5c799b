"""nmc emulate and nmc report: the keys that others script against, the files, and what is printed."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, says

import nmc as api
from nmc_compiler.graph.interpret import interpret

TOTALS = ("synops_effective", "synops_dense", "spikes", "neuron_updates", "packets", "hops")
TOTALS += ("latency_ticks", "interval_ticks")
VECTORS = SMALL / "vectors.npz"


@pytest.fixture(scope="module")
def ran(nmc, built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A run with everything recorded: the printed JSON and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = nmc("emulate", built, "--input", VECTORS, "-o", folder, "--record", "all", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


# --- JSON -------------------------------------------------------------------------------------------------


def test_json_has_the_promised_keys(ran) -> None:
    report, folder = ran
    assert report["schema"] == "nmc.report/2"
    assert report["samples"] == 16 and 0 <= report["accuracy"] <= 1
    assert np.shape(report["logits"]) == (16, 10)
    assert all(isinstance(report[key], int) and report[key] > 0 for key in TOTALS)
    for item in report["energy"]:
        assert {"profile", "total_pj", "complete", "missing"} <= item.keys()
        assert item["complete"] == (item["missing"] == [])
    assert {"name", "spikes", "rate", "synops_effective", "neuron_updates"} <= report["layers"][0].keys()
    assert json.loads((folder / "report.json").read_text()) == report


def test_layers_add_up_to_the_totals(ran) -> None:
    report, _ = ran
    for key in ("synops_effective", "synops_dense", "spikes", "neuron_updates", "packets", "hops", "host_macs"):
        assert sum(layer[key] for layer in report["layers"]) == report[key], key
    names = [layer["name"] for layer in report["layers"]]
    assert "block.0.attn.q_lif" in names and len(set(names)) == len(names)


def test_accuracy_and_logits_are_those_of_the_integer_interpreter(ran, built: Path) -> None:
    report, _ = ran
    with np.load(VECTORS) as file:
        truth = interpret(api.load(built).int_graph, file["images"]).logits
        labels = file["labels"]
    np.testing.assert_allclose(report["logits"], truth, rtol=0, atol=1e-9)
    assert report["accuracy"] == np.mean(truth.argmax(axis=1) == labels)


# --- spikes -----------------------------------------------------------------------------------------------


def test_spikes_have_the_layout_of_the_golden_vectors(ran) -> None:
    _, folder = ran
    with np.load(folder / "spikes.npz") as spikes, np.load(VECTORS) as golden:
        recorded = [name for name in golden.files if name.startswith("spikes/")]
        assert recorded and set(recorded) <= set(spikes.files)
        for name in recorded:
            assert spikes[name].dtype == np.uint8
            t, _, *layout = golden[name].shape
            assert spikes[name].shape == (t, 16, *layout), name


def test_spikes_are_those_of_the_integer_interpreter(ran, built: Path) -> None:
    _, folder = ran
    with np.load(VECTORS) as file:
        truth = interpret(api.load(built).int_graph, file["images"], record="all").codes
    with np.load(folder / "spikes.npz") as spikes:
        assert {f"spikes/{name}" for name in truth} == set(spikes.files)
        for name, codes in truth.items():
            stored = spikes[f"spikes/{name}"]
            node = next(n for n in api.load(built).int_graph if n.name == name)
            perm = node.attr("record_perm", (0, 1, 2))
            expected = codes.transpose(0, 1, *(2 + axis for axis in perm)).reshape(stored.shape)
            assert np.array_equal(stored, expected), name


@pytest.mark.parametrize("names", [["head_lif", "block.0.attn.kv"], ["head_lif,block.0.attn.kv"]])
def test_named_populations_are_recorded(nmc, built: Path, tmp_path: Path, names: list[str]) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r", "--limit", 2, "--record", *names)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "r" / "spikes.npz") as spikes:
        assert set(spikes.files) == {"spikes/head_lif", "spikes/block.0.attn.kv"}
        assert spikes["spikes/head_lif"].shape[:2] == (4, 2)


def test_a_run_without_recording_takes_older_spikes_away(nmc, mine: Path) -> None:
    assert nmc("emulate", mine, "--input", VECTORS, "--limit", 2, "--record", "all").returncode == 0
    assert sorted(p.name for p in (mine / "run").iterdir()) == ["report.json", "spikes.npz"]
    assert nmc("emulate", mine, "--input", VECTORS, "--limit", 3).returncode == 0
    assert sorted(p.name for p in (mine / "run").iterdir()) == ["report.json"]


def test_runs_write_the_same_bytes_again(nmc, ran, built: Path, tmp_path: Path) -> None:
    _, folder = ran
    done = nmc(
        "emulate", built, "--input", VECTORS, "-o", tmp_path / "again", "--record", "all", "--batch", "5",
        OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2", PYTHONHASHSEED="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("report.json", "spikes.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


# --- options ----------------------------------------------------------------------------------------------


def test_engines_report_the_same_numbers(nmc, as_json, built: Path, tmp_path: Path) -> None:
    both = [
        as_json(nmc("emulate", built, "--input", VECTORS, "--limit", 3, "-o", tmp_path / e, "--engine", e, "--json"))
        for e in ("layers", "ticks")
    ]
    assert [report.pop("engine") for report in both] == ["layers", "ticks"]
    assert both[0] == both[1]


def test_limit_takes_the_first_samples(nmc, as_json, ran, built: Path, tmp_path: Path) -> None:
    report = as_json(
        nmc("emulate", built, "--input", VECTORS, "--limit", 4, "-o", tmp_path / "r", "--json", "--strict")
    )
    assert report["samples"] == 4
    assert report["logits"] == ran[0]["logits"][:4]


def test_without_labels_there_is_no_accuracy(nmc, as_json, built: Path, tmp_path: Path) -> None:
    with np.load(VECTORS) as file:
        np.savez(tmp_path / "x.npz", images=file["images"][:2])
    done = nmc("emulate", built, "--input", tmp_path / "x.npz", "-o", tmp_path / "r", "--json")
    assert as_json(done)["accuracy"] is None


# --- what is printed --------------------------------------------------------------------------------------


def test_the_terminal_shows_assumptions_first_then_tables(nmc, built: Path, tmp_path: Path) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r")
    assert done.returncode == 0
    order = [done.stdout.index(f"\n{part}") for part in ("Assumptions", "Result", "Layers", "Energy", "Time")]
    assert order == sorted(order)
    assert "Loihi 1 prices on a Loihi 2 mapping" in done.stdout
    assert "at least" in done.stdout and "extrapolated" in done.stdout
    assert done.stderr.endswith(f"written: {tmp_path}/r/report.json\n")


def test_report_shows_the_last_run_in_three_forms(nmc, as_json, mine: Path) -> None:
    ran = nmc("emulate", mine, "--input", VECTORS, "--limit", 5)
    assert nmc("report", mine).stdout == ran.stdout
    tree = as_json(nmc("report", mine, "--json"))
    assert tree == json.loads((mine / "run" / "report.json").read_text())
    markdown = nmc("report", mine, "--markdown").stdout
    assert markdown.startswith("# sdt_v1: ") and "\n## Energy, per sample\n" in markdown
    assert "\n| layer | level |" in markdown and "\n| --- | ---: |" in markdown


def test_report_takes_a_run_folder_too(nmc, as_json, ran) -> None:
    report, folder = ran
    assert as_json(nmc("report", folder, "--json")) == report


def test_report_refuses_a_run_of_another_program(nmc, mine: Path) -> None:
    assert nmc("emulate", mine, "--input", VECTORS, "--limit", 2).returncode == 0
    assert nmc("compile", SMALL / "model.pt", "-o", mine, "--pipelined").returncode == 0
    done = nmc("report", mine)
    assert done.returncode == 1
    assert says(done).startswith(f"{mine}: the last run is of another Program (")


def test_report_without_a_run_says_what_to_do(nmc, built: Path) -> None:
    done = nmc("report", built)
    assert done.returncode == 1
    assert says(done) == f"{built}/run/report.json: No such file or directory; run `nmc emulate` first"


def test_a_full_disk_leaves_the_old_run(nmc, mine: Path) -> None:
    assert nmc("emulate", mine, "--input", VECTORS, "--limit", 2).returncode == 0
    before = (mine / "run" / "report.json").read_bytes()
    done = nmc("emulate", mine, "--input", VECTORS, "--record", "all", file_limit=10_000)
    assert done.returncode == 1
    assert "could not be written: File too large" in says(done)
    assert [p.name for p in (mine / "run").iterdir()] == ["report.json"]
    assert (mine / "run" / "report.json").read_bytes() == before
    assert not list(mine.glob(".*"))
