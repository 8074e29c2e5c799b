"""nmc for the neurocore: image beside the Program, its engine, its rung, and NeuroCoreX's files."""

import json
import shutil

import numpy as np
import pytest
from command import DIGITS, run_nmc

import nmc
from nmc.cli import main
from nmc_compiler.errors import CapacityError
from nmc_compiler.neurocore import load_image
from nmc_compiler.program import load_program, program_digest

EXAMPLE = DIGITS.parent / "neurocore" / "attention"


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neurocore") / "build"
    done = run_nmc("compile", EXAMPLE / "model.pt", "--target", "neurocore", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_compile_writes_an_image_beside_the_program(cores):
    folder, told = cores
    image = load_image(folder)
    assert image.sizes.cores == 4 and image.facts["program"] == program_digest(load_program(folder))
    assert image.facts["steps"] == 4 + 13
    assert "\nImage\n  core  neurons    types  words" in told


def test_a_run_on_the_image(cores, as_json):
    folder, _ = cores
    given = ("--input", EXAMPLE / "test.npz", "--limit", 4, "--engine", "neurocore", "-o", folder / "neurocore")
    told = as_json(run_nmc("emulate", folder, *given, "--json"))
    assert told["engine"] == "neurocore" and told["samples"] == 4 and told["synops_effective"] > 0


def test_verify_has_a_rung_for_the_image(cores, as_json):
    folder, _ = cores
    told = as_json(
        run_nmc("verify", folder, "--golden", EXAMPLE / "golden.npz", "--limit", 2, "--tick-images", 1, "--json")
    )
    assert told["ok"] and [r["name"] for r in told["rungs"]][-2:] == ["layers = neurocore", "mapping"]


def test_another_target_leaves_no_image_behind(cores, tmp_path):
    folder = shutil.copytree(cores[0], tmp_path / "b", ignore=shutil.ignore_patterns("neurocore"))
    assert (folder / "image.json").exists()
    nmc.compile(EXAMPLE / "model.pt", target="loihi2", out=folder)
    assert not (folder / "image.json").exists()


def test_what_does_not_fit_is_told_with_numbers():
    with pytest.raises(CapacityError) as error:
        nmc.compile(DIGITS / "model.pt", target="neurocore")
    assert str(error.value) == (
        "layer 'block.1.mlp.fc1_lif': its smallest tile needs 2176 axons_in of one core, but a core of neurocore has "
        "2048 (2176/2048). Use a target with at least 2176 axons_in per core"
    )


def test_neurocorex_learns_and_gives_its_weights(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "ff.npy", rng.integers(0, 60, (10, 64)).astype(np.int8))
    np.save(tmp_path / "aa.npy", np.zeros((10, 10), np.int8))
    stdp = {"dw_pos": 2, "dw_neg": 1, "ff": True}
    (tmp_path / "p.json").write_text(json.dumps({"threshold": 60, "stdp": stdp}))
    np.savez(tmp_path / "in.npz", **{"in": (rng.random((50, 64, 1, 1)) < 0.1).astype(np.int32)})
    files = [tmp_path / name for name in ("ff.npy", "aa.npy", "p.json")]
    target = ("--target", "neurocore-1", "-o", tmp_path / "b")
    done = run_nmc("compile", "--from", "neurocorex", *files, *target)
    assert done.returncode == 0, done.stderr
    done = run_nmc("emulate", tmp_path / "b", "--input", tmp_path / "in.npz", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "run" / "weights.npz") as stored:
        assert stored["ff.stdp"].shape == (640,) and stored["ff.stdp"].dtype == np.int8
    again = ["emulate", str(tmp_path / "b"), "--input", str(tmp_path / "in.npz"), "--engine", "events"]
    assert main(again) == 2
    assert "plastic projection 'ff.stdp', which only a neurocore computes" in capsys.readouterr().err
    assert main(["compile", "--from", "neurocorex", *map(str, files[:2])]) == 2
    told = capsys.readouterr().err
    assert told.endswith("--from neurocorex takes three files, FF.npy AA.npy PARAMS.json; 2 are given\n")
