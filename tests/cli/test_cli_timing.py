"""nmc emulate --timing: the time of a run, from the packets of its events."""

from pathlib import Path

import numpy as np
import pytest
from command import SMALL

import nmc as api
from nmc.timing import profile_for
from nmc_emulator.noc import simulate
from nmc_emulator.trace import trace_of

VECTORS = SMALL / "vectors.npz"


@pytest.fixture(scope="module")
def timed(nmc, as_json, built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = "--limit", 3, "--timing", "queue", "--trace", "events", "--json", "-o", folder
    return as_json(nmc("emulate", built, "--input", VECTORS, *options)), folder


def test_the_report_tells_the_time_of_the_packets(timed, built: Path) -> None:
    program = api.load(built).program
    with np.load(VECTORS) as file:
        images = file["images"][:3]
    run = api.emulate(program, images, record="all")
    times = simulate(program, trace_of(program, run.codes, 3), profile=profile_for(program))
    told = timed[0]["timing"]
    assert told["seconds"] == times.seconds and told["per_sample"] == times.seconds / 3
    assert told["packets"] == times.packets.sum() == timed[0]["packets"]
    assert (told["tick_ns_mean"], told["tick_ns_max"]) == (times.per_tick.mean(), times.per_tick.max())
    assert told["busiest"][0]["what"] == times.critical[0][0] and told["profile"].startswith("loihi2-")


def test_a_recosted_run_takes_the_same_time(nmc, as_json, timed, built: Path, tmp_path: Path) -> None:
    again = nmc(
        "emulate", built, "--from-trace", timed[1] / "events.npz", "--timing", "queue", "--json", "-o", tmp_path
    )
    assert as_json(again)["timing"] == timed[0]["timing"]


def test_trees_send_fewer_packets_and_flits_take_about_as_long(
    nmc, as_json, timed, built: Path, tmp_path: Path
) -> None:
    run = "emulate", built, "--input", VECTORS, "--limit", 1, "--json", "-o", tmp_path
    queue, trees, cycle = (
        as_json(nmc(*run, "--timing", *how))["timing"] for how in (("queue",), ("queue", "--multicast"), ("cycle",))
    )
    assert trees["multicast"] and trees["seconds"] <= queue["seconds"] * 1.001
    assert abs(cycle["seconds"] / queue["seconds"] - 1) < 0.1
    text = nmc(*run[:-3], "--timing", "queue", "-o", tmp_path).stdout
    assert "queue: " in text and "busiest: " in text and "a tick takes" in text


def test_cycle_cannot_branch(nmc, built: Path, tmp_path: Path) -> None:
    done = nmc("emulate", built, "--input", VECTORS, "--limit", 1, "--timing", "cycle", "--multicast", "-o", tmp_path)
    assert done.returncode == 2 and "choose queue for multicast trees" in done.stderr and not list(tmp_path.iterdir())


def test_float_arithmetic_says_what_it_is(nmc, as_json, built: Path, tmp_path: Path) -> None:
    run = "emulate", built, "--input", VECTORS, "--json", "-o", tmp_path
    exact, real = as_json(nmc(*run)), as_json(nmc(*run, "--arithmetic", "float"))
    assert (exact["arithmetic"], real["arithmetic"]) == ("exact", "float")
    assert real["assumptions"][0] == "potentials of lif somas are real numbers in this run: not what the chip computes"
    assert sum(layer["spikes"] for layer in real["layers"]) > 0
    refused = nmc(*run, "--arithmetic", "float", "--probe", "head_lif")
    assert refused.returncode == 2 and "probes and events.npz are of exact runs only" in refused.stderr
