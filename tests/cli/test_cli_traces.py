"""nmc emulate --trace, --probe, --plot and --from-trace."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, says

import nmc as api

VECTORS = SMALL / "vectors.npz"
MODEL = SMALL / "model.pt"


@pytest.fixture(scope="module")
def traced(nmc, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of file that needs no extra."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = nmc(
        "emulate", built, "--input", VECTORS, "-o", folder, "--trace", "events,csv", "chrome",
        "--probe", "head_lif", "block.0.attn.q_lif:1,2,0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = "events.npz, spikes.csv, potentials.csv, core_load.csv, link_load.csv, timeline.json, probes.vcd"
    assert done.stderr == f"written: {folder}/report.json and {names}\n"
    return folder


@pytest.fixture(scope="module")
def elsewhere(nmc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network on another chip, with samples that overlap."""
    folder = tmp_path_factory.mktemp("artefacts") / "mesh"
    done = nmc("compile", MODEL, "--target", "generic-mesh", "--pipelined", "--seed", 5, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_traced_runs_report_what_others_do(nmc, traced: Path, built: Path, tmp_path: Path) -> None:
    assert nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r").returncode == 0
    assert (traced / "report.json").read_bytes() == (tmp_path / "r" / "report.json").read_bytes()


def test_trace_files_tell_of_the_whole_run(traced: Path, built: Path) -> None:
    report = json.loads((traced / "report.json").read_text())
    events = sum(layer["spikes"] + layer["relay_events"] + layer["input_events"] for layer in report["layers"])
    assert (traced / "spikes.csv").read_bytes().count(b"\n") == events + 1
    steps = api.load(built).program.timesteps * report["samples"]
    somas = next(layer["neurons"] for layer in report["layers"] if layer["name"] == "head_lif") + 1
    assert (traced / "potentials.csv").read_bytes().count(b"\n") == steps * somas + 1
    slices = [e for e in json.loads((traced / "timeline.json").read_text())["traceEvents"] if e["ph"] == "X"]
    updates = sum(e["args"].get("neuron_updates", 0) for e in slices)
    assert updates == report["neuron_updates"]
    assert (traced / "probes.vcd").read_text().count("$var wire 1 ") == somas


def test_an_older_run_leaves_no_traces(nmc, mine: Path) -> None:
    run = ("emulate", mine, "--input", VECTORS, "--limit", 2)
    assert nmc(*run, "--trace", "csv", "--probe", "head_lif:0,0,0").returncode == 0
    assert len(list((mine / "run").iterdir())) == 6
    assert nmc(*run).returncode == 0
    assert [p.name for p in (mine / "run").iterdir()] == ["report.json"]


def test_recosting_reports_what_running_does(nmc, as_json, traced: Path, elsewhere: Path, tmp_path: Path) -> None:
    told = as_json(nmc("emulate", elsewhere, "--from-trace", traced / "events.npz", "-o", tmp_path / "a", "--json"))
    ran = as_json(nmc("emulate", elsewhere, "--input", VECTORS, "-o", tmp_path / "b", "--json"))
    digest = json.loads((traced / "report.json").read_text())["program"]
    assert (told.pop("recosted_from"), ran.pop("recosted_from")) == (digest, None)
    assert (told.pop("engine"), ran.pop("engine")) == ("recost", "layers")
    said = f"re-costed from the events of a run of Program {digest[:12]}, which computes the same"
    assert told["assumptions"].pop(0) == f"{said}; this Program was not run"
    assert told == ran and told["accuracy"] is not None and told["hops"] > 0


def test_recosting_is_shown(nmc, traced: Path, elsewhere: Path, tmp_path: Path) -> None:
    done = nmc("emulate", elsewhere, "--from-trace", traced / "events.npz", "-o", tmp_path / "r")
    assert done.stdout.splitlines()[0].endswith("cores of generic-mesh, 16 samples, re-costed")


def test_recosting_from_python(traced: Path, elsewhere: Path) -> None:
    run = api.recost(elsewhere, traced / "events.npz")
    again = api.emulate(elsewhere, VECTORS)
    assert run.result.counters == again.result.counters and np.array_equal(run.logits, again.logits)
    assert run.accuracy == again.accuracy


def test_residual_streams_may_be_kept_otherwise(tmp_path: Path) -> None:
    """Sums in other dendrites, attention in the other order: other work and traffic, the same events."""
    model, vectors = SMALL.parent / "sdt_v3" / "model.pt", SMALL.parent / "sdt_v3" / "vectors.npz"
    first = api.compile(model, residual="stream", attn_order="kv")
    api.emulate(first, vectors, limit=4, trace=["events"], out=tmp_path)
    other = api.compile(model, target="generic-mesh", residual="duplicate", attn_order="qk", pipelined=True)
    ran, told = api.emulate(other, vectors, limit=4), api.recost(other, tmp_path / "events.npz")
    assert told.result.counters == ran.result.counters
    assert ran.report["dyn_reads"] > 0 and ran.report["hops"] > 0


def test_another_network_is_refused(nmc, traced: Path, tmp_path: Path) -> None:
    other = SMALL.parent / "spikformer" / "model.pt"
    assert nmc("compile", other, "-o", tmp_path / "c").returncode == 0
    done = nmc("emulate", tmp_path / "c", "--from-trace", traced / "events.npz")
    assert done.returncode == 2
    told = says(done)
    assert told.startswith(f"{traced}/events.npz: Program 'spikformer' does not compute what the recorded Program ")
    assert " more; run it, or compile both from one model" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trace", "vcd"], "no trace format 'vcd'; choose of events, csv, parquet, chrome"),
        (["--probe", "nobody"], "--probe nobody: no such population; Program 'sdt_v1' has "),
        (["--engine", "ticks", "--trace", "csv"], "engine 'ticks' cannot stop between samples, which checkpoints"),
    ],
)
def test_what_cannot_be_traced_is_refused(nmc, built: Path, tmp_path: Path, options: list, told: str) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r", *options)
    assert done.returncode == 2 and says(done).startswith(told)
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_run_can_do_is_refused(nmc, built: Path, traced: Path) -> None:
    done = nmc("emulate", built, "--from-trace", traced / "events.npz", "--record", "all")
    assert done.returncode == 2
    assert says(done) == "--record needs a run: give --input in place of --from-trace"


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_how_to_get_it(nmc, built: Path, tmp_path: Path) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r", "--trace", "parquet")
    assert done.returncode == 1
    assert says(done) == "Parquet needs pyarrow: pip install 'nmc[parquet]'; CSV needs nothing more"
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_drawn(nmc, built: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib, an extra")
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r", "--plot")
    assert done.returncode == 0, done.stderr
    names = {"raster.png", "cores.png", "load.png", "report.json"}
    assert {p.name for p in (tmp_path / "r").iterdir()} == names
    assert done.stderr.endswith("report.json and raster.png, load.png, cores.png\n")


def test_files_need_a_folder(built: Path) -> None:
    with pytest.raises(api.NmcError, match="traces, probes and plots are files: say with `out` where they go"):
        api.emulate(built, VECTORS, trace=["csv"])


def test_names_are_checked_where_all_is_recorded_anyway(nmc, built: Path, tmp_path: Path) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "-o", tmp_path / "r", "--trace", "csv", "csv", "--record", "no")
    assert done.returncode == 2
    assert says(done).startswith("cannot record 'no': Program 'sdt_v1' has no such population; it has patch_embed.")
