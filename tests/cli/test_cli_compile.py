"""nmc compile: what it writes, what it says, and that a failure leaves what was there."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import DIGITS, SMALL, says

FILES = {
    "program.json",
    "arrays.safetensors",
    "conversion.json",
    "graph.float.txt",
    "graph.float.safetensors",
    "graph.int.txt",
    "graph.int.safetensors",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_it_writes_the_artefact_and_nothing_else(built: Path) -> None:
    assert set(contents(built)) == FILES
    assert [p.name for p in built.parent.iterdir()] == [built.name]
    conversion = json.loads((built / "conversion.json").read_text())
    assert conversion["schema"] == "nmc.conversion/1"
    assert {"quantize", "fold-batch-norm"} <= {entry["pass"] for entry in conversion["entries"]}


def test_it_says_what_was_folded_how_full_the_cores_are_and_what_is_assumed(nmc, tmp_path: Path) -> None:
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    for heading in ("Notes", "Folded and rewritten", "Quantisation, layer by layer", "Cores", "Written to"):
        assert f"\n{heading}" in done.stdout
    assert "settings from config model.yaml" in done.stdout
    assert "below row-major order" in done.stdout and "greedy" in done.stdout
    assert "neuron_groups" in done.stdout and "/4096" in done.stdout
    assert "loihi2 is only assumed to do" in done.stdout and "stream_accumulator" in done.stdout
    assert done.stderr == ""


def test_json_is_pure_and_tells_utilisation_placement_and_features(nmc, as_json, tmp_path: Path) -> None:
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--json", "--time-passes")
    told = as_json(done)
    assert told["schema"] == "nmc.compile/1" and told["target"] == "loihi2"
    assert told["digest"] == json.loads((tmp_path / "b" / "program.json").read_text())["digest"]
    assert len(told["utilisation"]) == told["cores"]
    assert all(use["used"] <= use["limit"] for core in told["utilisation"] for use in core.values())
    placement = told["placement"]
    assert placement["final"] <= placement["greedy"] and placement["final"] <= placement["row_major"]
    assert {f["feature"] for f in told["features"] if f["evidence"] == "assumed"} >= {"stream_accumulator"}
    assert done.stderr.count(" nodes\n") >= 5  # --time-passes, a line per pass


def test_the_graph_after_a_pass_goes_to_standard_error(nmc, tmp_path: Path) -> None:
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--print-after", "fold-batch-norm")
    assert done.returncode == 0
    assert "# after fold-batch-norm\ngraph sdt_v1 T=4 float {" in done.stderr
    assert "batch_norm(" not in done.stderr


def test_an_unknown_pass_is_named(nmc, tmp_path: Path) -> None:
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--print-after", "magic")
    assert done.returncode == 2
    assert says(done).startswith("--print-after magic: no such pass; known: ")
    assert not (tmp_path / "b").exists()


def test_calibration_samples_weigh_the_placement(nmc, as_json, tmp_path: Path) -> None:
    with np.load(SMALL / "vectors.npz") as file:
        np.savez(tmp_path / "calib.npz", images=file["images"][8:])
    plain = as_json(nmc("compile", SMALL / "model.pt", "-o", tmp_path / "a", "--json"))
    weighed = as_json(
        nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--json", "--calib", tmp_path / "calib.npz")
    )
    assert not plain["placement"]["measured_rates"] and weighed["placement"]["measured_rates"]
    assert plain["digest"] != weighed["digest"]


@pytest.mark.parametrize(
    "options",
    [
        ["--residual", "duplicate"],
        ["--residual", "stream"],
        ["--stream-pieces", "2"],
        ["--pipelined"],
        ["--chips", "auto", "--target", "generic-mesh", "--residual", "duplicate"],
        ["--input-encoding", "graded8"],
    ],
    ids=lambda options: "-".join(options).strip("-"),
)
def test_options_change_the_program_and_nothing_of_what_it_rests_on(nmc, as_json, tmp_path, built, options) -> None:
    told = as_json(nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--json", *options))
    assert told["digest"] != json.loads((built / "program.json").read_text())["digest"]
    verified = nmc("verify", tmp_path / "b", "--golden", SMALL / "vectors.npz")
    assert verified.returncode == 0, verified.stdout


def test_pipelining_shortens_the_interval_alone(nmc, as_json, tmp_path: Path) -> None:
    slow = as_json(nmc("compile", SMALL / "model.pt", "-o", tmp_path / "a", "--json"))
    fast = as_json(nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b", "--json", "--pipelined"))
    assert fast["interval_ticks"] == 4 < slow["interval_ticks"]
    assert fast["latency_ticks"] == slow["latency_ticks"]


# --- replacing an output ----------------------------------------------------------------------------------


def test_an_existing_output_is_replaced_and_strangers_in_it_stay(nmc, mine: Path) -> None:
    before = contents(mine)
    (mine / "notes.txt").write_text("mine")
    (mine / "run").mkdir()
    done = nmc("compile", SMALL / "model.pt", "-o", mine, "--pipelined")
    assert done.returncode == 0, done.stderr
    after = contents(mine)
    assert after["program.json"] != before["program.json"]
    assert (mine / "notes.txt").read_text() == "mine" and (mine / "run").is_dir()
    assert set(after) == FILES | {"notes.txt"}
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]


def test_a_full_disk_leaves_the_old_output(nmc, mine: Path) -> None:
    before = contents(mine)
    done = nmc("compile", SMALL / "model.pt", "-o", mine, "--pipelined", file_limit=20_000)
    assert done.returncode == 1
    text = says(done)
    assert f"{mine}: could not write" in text and "File too large" in text and "Free some space" in text
    assert contents(mine) == before
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]


def test_a_full_disk_leaves_no_new_folder(nmc, tmp_path: Path) -> None:
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "new" / "deep", file_limit=20_000)
    assert done.returncode == 1
    assert "nothing was left behind" in says(done)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_before_the_end_leaves_the_old_output(nmc, mine: Path, tmp_path: Path) -> None:
    before = contents(mine)
    broken = tmp_path / "model.pt"
    broken.write_bytes((SMALL / "model.pt").read_bytes()[:-500])
    assert nmc("compile", broken, "-o", mine).returncode == 1
    assert contents(mine) == before


def test_a_file_in_the_way_is_refused(nmc, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "b")
    assert done.returncode == 2
    assert says(done) == f"{tmp_path}/b: is a file; give a folder for the output"
    assert (tmp_path / "b").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(nmc, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = nmc("compile", SMALL / "model.pt", "-o", tmp_path / "locked" / "b")
    assert done.returncode == 1
    assert "Permission denied" in says(done)


# --- determinism ------------------------------------------------------------------------------------------


def test_bytes_depend_on_inputs_and_options_alone(nmc, tmp_path: Path) -> None:
    """Threads, hash seed, the folder of the model, the folder of the output, the working directory."""
    results = []
    for number, (threads, seed) in enumerate((("1", "0"), ("2", "1"), ("2", "0"), ("1", "1"))):
        home = tmp_path / f"home{number}"
        shutil.copytree(DIGITS, home, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        model = home / "model.pt" if number % 2 else "model.pt"
        env = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        done = nmc("compile", model, "-o", home / "out", "--calib", home / "calib.npz", cwd=home, **env)
        assert done.returncode == 0, done.stderr
        results.append(contents(home / "out"))
    assert set(results[0]) == FILES
    for other in results[1:]:
        assert [name for name in FILES if other[name] != results[0][name]] == []


def test_the_digest_covers_checkpoint_config_options_and_target(nmc, as_json, tmp_path: Path) -> None:
    digests = set()
    for number, options in enumerate(([], ["--seed", "1"], ["--channel-bins", "1"], ["--attn-order", "kv"])):
        told = as_json(nmc("compile", SMALL / "model.pt", "-o", tmp_path / str(number), "--json", *options))
        digests.add(told["digest"])
    assert len(digests) == 4
