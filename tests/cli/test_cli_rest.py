"""The rest of the command line: help, version, usage errors, inspect, targets, passes, doctor, interruption."""

import json
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from command import DIGITS, HEAR_CTRL_C, SMALL, START, says

COMMANDS = ["compile", "emulate", "report", "verify", "export", "inspect", "fit", "targets", "passes", "doctor"]


def test_help_lists_every_command(nmc) -> None:
    done = nmc("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"    {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(nmc, command: str) -> None:
    done = nmc(command, "--help")
    assert done.returncode == 0 and "--json" in done.stdout and "exit status" in done.stdout


def test_version(nmc) -> None:
    assert nmc("--version").stdout == f"nmc {version('nmc')}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["compile"], "the following arguments are required: MODEL"),
        (["emulate"], "the following arguments are required: FOLDER"),
        (["verify", "build", "--with", "nengo"], "invalid choice: 'nengo'"),
        (["compile", "m.pt", "--chips", "many"], "'many' is not a whole number of at least 1"),
        (["compile", "m.pt", "--input-encoding", "rate"], "invalid choice: 'rate'"),
        (["report", "b", "--json", "--markdown"], "not allowed with argument --json"),
    ],
)
def test_wrong_usage_is_2(nmc, arguments: list[str], text: str) -> None:
    done = nmc(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("usage: nmc") and text in done.stderr


def test_verify_wants_something_to_compare_with(nmc, built) -> None:
    done = nmc("verify", built)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "nmc: error: nothing to compare with; give --golden FILE.npz, or --with lava\n"


def test_inspect_shows_every_layer_and_where_numbers_come_from(nmc, as_json) -> None:
    done = nmc("inspect", DIGITS / "model.pt")
    assert done.returncode == 0
    assert "Everything is event-driven, or on the host before the first event." in done.stdout
    assert "theta=0.5 (family)" in done.stdout and "AND gate: a spike passes where the mask has one" in done.stdout
    tree = as_json(nmc("inspect", SMALL / "model.pt", "--config", SMALL / "model.yaml", "--json"))
    assert tree["schema"] == "nmc.inspect/1" and tree["refused"] == 0
    assert {"layer", "op", "place", "event_driven", "reason"} <= tree["layers"][0].keys()


def test_targets_are_listed_and_shown(nmc, as_json) -> None:
    assert "loihi2" in nmc("targets").stdout
    assert {t["name"] for t in as_json(nmc("targets", "list", "--json"))["targets"]} >= {"loihi2", "generic-mesh"}
    shown = nmc("targets", "show", "loihi2").stdout
    assert "features.dynamic_synapse" in shown and "assumed" in shown and "mesh.chips_max" in shown
    assert "not stated" in shown
    assert as_json(nmc("targets", "show", "loihi2", "--json"))["core"]["neurons"]["value"] == 4096


def test_targets_wants_a_name_to_show_and_none_to_list(nmc) -> None:
    done = nmc("targets", "show")
    assert done.returncode == 2 and says(done).startswith("nmc targets show NAME: which? known: ")
    done = nmc("targets", "list", "loihi2")
    assert done.returncode == 2 and says(done).endswith("use: nmc targets show loihi2")
    assert nmc("targets", "show", "loihi9").returncode == 2


def test_passes_are_listed_in_order_with_what_they_do(nmc, as_json) -> None:
    passes = as_json(nmc("passes", "--json"))["passes"]
    assert [p["order"] for p in passes] == list(range(1, len(passes) + 1))
    assert passes[0]["name"] == "drop-dead" and passes[-1]["name"] == "quantize"
    assert all(p["does"].endswith(".") for p in passes)
    assert passes[-1]["options"]["weight_bits"] == 8
    assert f"{len(passes)}. quantize: " in nmc("passes").stdout


def test_doctor_tells_what_is_there_and_how_to_get_the_rest(nmc, as_json) -> None:
    tree = as_json(nmc("doctor", "--json"))
    assert tree["nmc"] == version("nmc") and tree["packages"]["numpy"] == version("numpy")
    assert all(tool["how_to_get"] for tool in tree["tools"])
    text = nmc("doctor").stdout
    assert all(tool["name"] in text for tool in tree["tools"])


def test_an_interruption_is_clean(built: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a compile: one line, 130, and no files."""
    program = [sys.executable, "-c", HEAR_CTRL_C + START]
    command = [*program, "compile", str(DIGITS / "model.pt"), "-o", "out", "--time-passes"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()  # the first pass is through
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and err.splitlines()[-1] == "nmc: interrupted; nothing half-written was left behind"
    assert "Traceback" not in err and list(tmp_path.iterdir()) == []


def test_a_reader_that_stops_early_is_no_accident(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -c '{START}' inspect {DIGITS / 'model.pt'} | head -1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("sdt_v1: T = 4") and done.stderr == ""


def test_json_is_stable(nmc) -> None:
    """Keys are sorted, so that two outputs can be compared as text."""
    text = nmc("passes", "--json").stdout
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
