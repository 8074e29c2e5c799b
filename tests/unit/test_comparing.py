"""Runs of several artefacts side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.cli import main
from nmc.comparing import Comparison, _rows
from nmc_compiler.errors import UsageError
from nmc_compiler.program.network import Network

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "sdt_v1"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """The same network mapped in two ways, the first with a run."""
    base = tmp_path_factory.mktemp("compare")
    with np.load(FIXTURES / "vectors.npz") as file:
        images, labels = file["images"][:3], file["labels"][:3]
    nmc.compile(FIXTURES / "model.pt", out=base / "a")
    nmc.compile(FIXTURES / "model.pt", out=base / "b", residual="stream", pipelined=True)
    nmc.emulate(base / "a", images, labels, trace=["events"], out=base / "a" / "run")
    return [base / "a", base / "b"]


def test_one_run_serves_two_mappings(folders) -> None:
    found = nmc.compare(folders)
    assert found.how == ["run", f"re-costed from {folders[0] / 'run' / 'events.npz'}"]
    assert found.differ["pipelined"] == [False, True] and "target" not in found.differ
    rows = {row.name: row for row in found.rows}
    direct = [nmc.emulate(f, np.load(FIXTURES / "vectors.npz")["images"][:3]).report for f in folders]
    for name, key in (("SynOps", "synops_effective"), ("packets", "packets"), ("hops", "hops")):
        assert rows[name].values == [report[key] / 3 for report in direct]
    assert rows["cores"].values == [report["cores"] for report in direct]
    for number in range(3):
        name = direct[0]["energy"][number]["profile"]
        assert rows[f"energy, {name}"].values == [r["energy"][number]["per_sample_pj"] for r in direct]
        assert rows[f"energy, {name}"].at_least == [not r["energy"][number]["complete"] for r in direct]
    assert rows["SynOps"].ratios[1] == direct[1]["synops_effective"] / direct[0]["synops_effective"]
    layer = found.layers[0]
    assert layer["pj"][0] == pytest.approx(
        next(x for x in direct[0]["layers"] if x["name"] == layer["layer"])["energy_pj"][layer["profile"]] / 3
    )


def test_command(folders, capsys) -> None:
    names = [str(f) for f in folders]
    assert main(["compare", *names]) == 0
    text = capsys.readouterr().out
    assert "What differs" in text and "at least" in text
    assert main(["compare", *names, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["schema"] == "nmc.comparison/1" and tree["artefacts"] == names
    assert main(["compare", *names, "--markdown"]) == 0
    assert "| SynOps |" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(folders, tmp_path) -> None:
    with pytest.raises(UsageError, match="give two artefacts or more to compare"):
        nmc.compare(folders[:1])
    with pytest.raises(UsageError, match="is given twice; give each artefact once"):
        nmc.compare([folders[0], folders[0]])
    other = FIXTURES.parent / "spikformer"
    nmc.compile(other / "model.pt", out=tmp_path / "c")
    with pytest.raises(UsageError) as caught:
        nmc.compare([folders[0], tmp_path / "c"])
    said = str(caught.value)
    assert "has no run of what is compiled there, nor is there one of the same network to count (" in said
    assert said.endswith(f"run: nmc emulate {tmp_path / 'c'} --input FILE.npz")


def test_what_was_not_run_is_told(folders, capsys) -> None:
    assert main(["compare", *map(str, folders)]) == 0
    assert f"{folders[1]} was not run: re-costed from {folders[0] / 'run' / 'events.npz'}." in capsys.readouterr().out


def test_the_time_of_a_stream_is_that_of_a_timestep() -> None:
    net = Network("two", 0)
    net.conv("c", net.input("in", (1, 1, 1)), net.lif("out", (1, 1, 1), vth=0), np.ones((1, 1, 1, 1), int))
    report = nmc.emulate(net.program(), np.ones((40, 1, 1, 1), int)).report.data
    row = next(row for row in _rows([report, report]) if row.name == "time")
    assert row.values == [report["seconds"]["run"] / 40] * 2 and all(row.at_least)
    assert "Per timestep" in Comparison(["a", "b"], [], {}, [row], [], [], "timestep").text()
