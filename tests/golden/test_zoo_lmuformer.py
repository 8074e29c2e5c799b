"""The trained LMUFormer on rows of digits: PyTorch, float graph, integers, emulator."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.lmuformer import LOOK_AHEAD
from nmc_emulator import run

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo" / "lmuformer"


@functools.cache
def compiled() -> nmc.Compiled:
    return nmc.compile(FOLDER / "model.pt")


def test_every_rung_holds() -> None:
    """PyTorch = float graph, float ~ integers, integers = emulator, engines equal, mapping whole."""
    ladder = nmc.verify(compiled(), FOLDER / "golden.npz")
    assert [rung.first for rung in ladder.rungs] == [None] * len(ladder.rungs)
    assert ladder.ok and all(rung.compared > 0 for rung in ladder.rungs)


def test_integers_stay_within_a_point_of_the_recorded_accuracy() -> None:
    with np.load(FOLDER / "test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    got = 100 * float((run(compiled().program, images, batch=40).logits.argmax(axis=1) == labels).mean())
    with np.load(FOLDER / "golden.npz") as golden:
        assert got >= float(golden["accuracy"]) - 1.0 and float(golden["accuracy"]) > 97
        assert np.array_equal(golden["images"], images[: len(golden["images"])])


def test_spikes_are_recorded_over_the_sequence_alone(tmp_path: Path) -> None:
    """As the authors' modules have them, 16 positions of a network that runs 21 timesteps."""
    with np.load(FOLDER / "golden.npz") as golden:
        arrays = dict(golden)
    spikes = {k: v for k, v in arrays.items() if k.startswith("spikes/")}
    assert {len(v) for v in spikes.values()} == {16} and all(v.any() for v in spikes.values())
    assert compiled().program.timesteps == 16 + LOOK_AHEAD
    longer = {k: np.pad(v, ((0, LOOK_AHEAD), (0, 0), (0, 0))) for k, v in spikes.items()}
    np.savez(tmp_path / "longer.npz", **arrays | longer)
    with pytest.raises(FrontendError, match=r"has shape \[21, 8, 24\], expected \[T, images, 24\] with T = 16"):
        nmc.verify(compiled(), tmp_path / "longer.npz")


def test_spikes_as_most_of_the_authors_modules_have_them(tmp_path: Path) -> None:
    """[positions, channels, images]; those of f_u and f_h are [positions, images, channels]."""
    with np.load(FOLDER / "golden.npz") as golden:
        arrays = dict(golden)
    turned = {
        k: v.swapaxes(1, 2) for k, v in arrays.items() if k.startswith("spikes/") and k[-3:] not in ("f_u", "f_h")
    }
    np.savez(tmp_path / "theirs.npz", **arrays | turned)
    first = nmc.verify(compiled(), tmp_path / "theirs.npz").rungs[0]
    assert len(turned) == 9 and first.first is None and first.compared > 0
