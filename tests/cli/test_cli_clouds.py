"""The E-3DSNN example from checkpoint to report: clouds of points in, on sites of each cloud and on those of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.cli import main
from nmc_compiler.errors import FrontendError, UsageError

ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo" / "e3dsnn"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds") / "build"
    nmc.compile(ZOO / "model.pt", input_range=(-1.0, 1.0), out=folder)
    return folder


def one_cloud(folder: Path, index: int) -> Path:
    with np.load(ZOO / "test.npz") as file:
        a, b = file["offsets"][index : index + 2]
        np.savez(folder / f"cloud{index}.npz", points=file["points"][a:b], labels=file["labels"][index : index + 1])
    return folder / f"cloud{index}.npz"


def test_the_quantised_network_is_within_a_point_of_the_trained_one(compiled):
    """119 of 120 in float (train.py); a point is 1.2 clouds."""
    run = nmc.emulate(compiled, ZOO / "test.npz")
    assert run.accuracy >= 118 / 120 and run.report["samples"] == 120
    assert run.report["input"] == "120 clouds"


def test_every_rung_holds(compiled):
    assert nmc.verify(compiled, ZOO / "golden.npz", tick_images=1).ok


def test_a_program_for_one_cloud_computes_the_same(compiled, tmp_path):
    cloud = one_cloud(tmp_path, 5)
    own = nmc.emulate(compiled, cloud, record=["stem.5", "enc.2.blocks.0.voxel_block.3"])
    fixed = nmc.compile(ZOO / "model.pt", input_range=(-1.0, 1.0), cloud=cloud)
    run = nmc.emulate(fixed, cloud, record=["stem.5", "enc.2.blocks.0.voxel_block.3"])
    assert np.array_equal(run.logits, own.logits)
    for name, codes in run.codes.items():
        assert np.array_equal(codes, own.codes[name][:, :, :, : codes.shape[3]])
    assert run.report["synops_effective"] == own.report["synops_effective"]
    with pytest.raises(
        UsageError, match=r"cloud6.npz: cloud 0: its \d+ voxels are not the \d+ that the network was comp"
    ):
        nmc.emulate(fixed, one_cloud(tmp_path, 6))


def test_command_line(compiled, tmp_path, capsys):
    assert main(["emulate", str(compiled), "--input", str(ZOO / "test.npz"), "--limit", "3", "-o", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "3 clouds" in told and "accuracy: 100.00 % (3 of 3)" in told


def test_clouds_that_do_not_fit(compiled, tmp_path):
    np.savez(tmp_path / "far.npz", points=np.full((4, 6), 3.0))
    with pytest.raises(UsageError, match=r"far.npz: cloud 0: none of its 4 points lies in the range"):
        nmc.emulate(compiled, tmp_path / "far.npz")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "many.npz", points=rng.uniform(-1, 1, (2000, 6)))
    with pytest.raises(UsageError, match=r"many.npz: cloud 0: 1\d\d\d active voxels, but the network has 160 slots"):
        nmc.emulate(compiled, tmp_path / "many.npz")
    with pytest.raises(UsageError, match="--cloud .*test.npz holds 120 clouds; a Program is compiled for one"):
        nmc.compile(ZOO / "model.pt", cloud=ZOO / "test.npz")
    with pytest.raises(FrontendError, match=r"points have shape \[4, 2\]; rows x, y, z, ... are needed"):
        np.savez(tmp_path / "flat.npz", points=np.zeros((4, 2)))
        nmc.emulate(compiled, tmp_path / "flat.npz")
