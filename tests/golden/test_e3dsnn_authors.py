"""A network of E-3DSNN's authors, run by their own code on spconv (record_e3dsnn.py): every code is equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc_compiler.frontends.checkpoint import import_checkpoint
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.types import Kind

HERE = Path(__file__).resolve().parent / "e3dsnn"


@pytest.fixture(scope="module")
def recorded():
    with np.load(HERE / "recorded.npz") as file:
        return {name: file[name] for name in file.files}


def sample(recorded: dict[str, np.ndarray], i: int) -> np.ndarray:
    voxels, features = recorded[f"{i}/voxels"], recorded[f"{i}/features"]
    out = np.zeros((1, 9, 260, 1))
    out[:, :3] = -1
    out[0, :3, : len(voxels), 0], out[0, 3:, : len(voxels), 0] = voxels.T, features.T
    return out


@pytest.mark.parametrize("i", [0, 1])
def test_codes_and_logits(recorded, i):
    """By place: they number the voxels of a stage in another order."""
    graph = import_checkpoint(HERE / "model.pth").graph
    stages = {n.name: n.id for n in graph if n.type.kind is Kind.SITES}
    result = interpret(graph, sample(recorded, i), record="all", values=stages.values())
    assert np.abs(result.logits[0] - recorded[f"{i}/logits"]).max() < 1e-5
    compared = 0
    for name, codes in result.codes.items():
        inner = name.removeprefix("backbone.")
        stage = int(inner.split(".")[1]) + (".down." not in inner) if inner.startswith("enc") else 0
        table = result.values[stages[f"sites{stage}"]][0, 0, :, :, 0].T
        slot = {tuple(place): s for s, place in enumerate(table.tolist()) if place[0] >= 0}
        key = f"{i}/voxels/enc.{stage - 1}.down.1" if stage else f"{i}/voxels"
        order = [slot[tuple(place)] for place in recorded[key].tolist()]
        assert len(order) == len(slot) and np.array_equal(codes[0, 0, :, order, 0], recorded[f"{i}/{inner}"]), name
        compared += codes[0, 0, :, order].size
    assert compared > 5000


def test_it_compiles(recorded):
    compiled = nmc.compile(HERE / "model.pth", input_range=(-4.0, 4.0))
    images = np.concatenate([sample(recorded, i) for i in (0, 1)])
    result = nmc.emulate(compiled, images, record="all")
    want = interpret(compiled.int_graph, images, record="all")
    assert np.array_equal(result.logits, want.logits)
    assert all(np.array_equal(np.moveaxis(result.codes[k], 1, 0), c) for k, c in want.codes.items())
