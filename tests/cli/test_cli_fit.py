"""nmc fit: forms of the question, exit status, what is printed."""

from pathlib import Path

from command import DIGITS, SMALL, says


def test_a_checkpoint_fits(nmc) -> None:
    done = nmc("fit", DIGITS / "model.pt")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("sdt_v1: 129,986 parameters, T = 4\n")
    assert "\nloihi2: fits, 8 cores on 1 chip of 128\n  neurons bind: they alone take 8 cores\n" in done.stdout
    assert "patch_embed.proj_lif1 " in done.stdout


def test_a_config_alone(nmc, as_json) -> None:
    told = as_json(nmc("fit", "--config", SMALL / "model.yaml", "--family", "sdt_v1", "--json"))
    assert (told["schema"], told["weights"], told["fits"]) == ("nmc.fit/1", "stand-ins", True)
    (answer,) = told["targets"]
    assert answer["cores"] == 5 and answer["at_most"] == {"cores": 8, "chips": 1}
    assert answer["resources"]["neurons"]["limit"] == 4096 and answer["binds"] == "neurons"


def test_it_does_not_fit(nmc) -> None:
    """Loihi 1 has no dynamic synapse: an answer, with a status of its own."""
    done = nmc("fit", SMALL.parent / "spikformer" / "model.pt", "--target", "loihi1")
    assert done.returncode == 3
    assert "\nloihi1: does not fit\n" in done.stdout and "needs dynamic synapse" in done.stdout


def test_a_folder(nmc, built: Path) -> None:
    done = nmc("fit", built)
    assert done.returncode == 0 and "as it is mapped" in done.stdout and "5 cores on 1 chip" in done.stdout


def test_what_is_wrong_is_said(nmc, tmp_path: Path) -> None:
    done = nmc("fit")
    assert done.returncode == 2
    assert says(done) == "no model: give a checkpoint, or the config of one with --config"
