"""The trained networks of ``examples/zoo`` on the whole ladder: PyTorch, float graph, integers, emulator."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from zoo import ZOO, train_zoo

import nmc
from nmc.ladder.golden import LARGEST_CODE
from nmc_emulator import run

NETS = sorted(p.parent.name for p in ZOO.glob("*/golden.npz") if not (p.parent / "train.py").exists())  # train_zoo's
QUICK = ("maxformer", "qkformer", "spikingformer")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
BATCH = 8


def images_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The 360 test images as the network takes them, and their labels; its config is read, not its module."""
    import yaml

    return train_zoo.test_set(yaml.safe_load((ZOO / name / "model.yaml").read_text()))


@functools.cache
def compiled(name: str) -> nmc.Compiled:
    return nmc.compile(ZOO / name / "model.pt")


def test_there_are_some() -> None:
    assert set(QUICK) <= set(NETS)


@pytest.mark.parametrize("name", EACH)
def test_every_rung_holds(name: str) -> None:
    """PyTorch = float graph, float ~ integers, integers = emulator, engines equal, mapping whole."""
    ladder = nmc.verify(compiled(name), ZOO / name / "golden.npz")
    assert [rung.first for rung in ladder.rungs] == [None] * len(ladder.rungs)
    assert ladder.ok and all(rung.compared > 0 for rung in ladder.rungs)


@pytest.mark.parametrize("name", EACH)
def test_integers_stay_within_a_point_of_the_recorded_accuracy(name: str) -> None:
    images, labels = images_of(name)
    result = run(compiled(name).program, images, batch=BATCH)
    got = 100 * float((result.logits.argmax(axis=1) == labels).mean())
    with np.load(ZOO / name / "golden.npz") as golden:
        assert got >= float(golden["accuracy"]) - 1.0
        assert np.array_equal(golden["images"], images[: len(golden["images"])])


@pytest.mark.parametrize("name", NETS)
def test_files_are_small_and_populations_alive(name: str) -> None:
    folder = ZOO / name
    assert (folder / "model.pt").stat().st_size <= 400_000  # qsd: 637 entries of 350 bytes around 30 000 numbers
    with np.load(folder / "golden.npz") as golden:
        codes = {k: golden[k] for k in golden.files if k.startswith("spikes/")}
    assert codes and all(0 < c.max() <= LARGEST_CODE for c in codes.values())


@pytest.mark.slow
def test_the_trainer_makes_what_is_bundled(tmp_path: Path) -> None:
    """One epoch of the smallest network: the files are there, hold what the bundled ones hold, and say so again."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install '.[dev]'")
    net: ModuleType = train_zoo.load_net("spikingformer")
    net.EPOCHS = 1  # type: ignore[attr-defined]
    vectors = train_zoo.make("spikingformer", tmp_path, seed=0, net=net)
    with np.load(ZOO / "spikingformer" / "golden.npz") as bundled, np.load(tmp_path / "golden.npz") as again:
        assert {k: bundled[k].shape for k in bundled.files} == {k: again[k].shape for k in again.files}
        assert all(np.array_equal(again[k], vectors[k]) for k in again.files)
