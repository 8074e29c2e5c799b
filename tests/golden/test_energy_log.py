"""The papers' formula on the published log of Spikingformer-8-512: its rows, its total, and the same from our graph."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zoo

from nmc.formula import FormulaEnergy, FormulaRow, formula
from nmc_compiler.errors import UsageError
from nmc_compiler.frontends.checkpoint import FAMILIES
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import label

LOG = "energy_consumption_of_Spikingformer-8-512_log.txt"
ROW = r"\('([^']+)', \w+\(.*?array\(\[([^\]]+)\]\)\)"
RENAMED = {"patch_embed.proj_conv": "patch_embed.proj_conv", "patch_embed.rpe_conv": "patch_embed.proj4_conv"}


def named(name: str) -> str:
    """The published checkpoints' name of a layer, which the log has under an older one."""
    name = re.sub(r"\[(\d+)\]", r".\1", name)
    name = RENAMED.get(name, re.sub(r"proj_conv(\d)", r"proj\1_conv", name))
    return re.sub(r"mlp\.fc(\d)_conv", r"mlp.mlp\1_conv", name)


@pytest.fixture(scope="module")
def log(shared: Path) -> str:
    return (shared / "data" / "energy" / LOG).read_text()


@pytest.fixture(scope="module")
def rows(log) -> dict[str, list[float]]:
    """ops, ACs, MACs and rate in per cent, by layer."""
    return {named(name): [float(v) for v in values.split(",")] for name, values in re.findall(ROW, log)}


@pytest.fixture(scope="module")
def qkv(log) -> list[list[float]]:
    block = re.search(r"Firing rate of Q/K/V inputs in each block:\s*\[(\[.*?\])\]", log, re.S)
    return [[float(v) for v in row.split(",")] for row in re.findall(r"\[([^\[\]]+)\]", block[1])]


@pytest.fixture(scope="module")
def graph():
    """The float graph of the published size, from shapes alone: arrays that take no memory."""
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]'")
    form = zoo.FORMS["spikingformer-imagenet"]
    size = {"img_size_h": 224, "img_size_w": 224, "num_classes": 1000, "T": 4, "embed_dims": 512, "num_heads": 8}
    config = form.config | size | {"mlp_ratios": 4, "depths": 8}
    with torch.device("meta"):
        net = zoo.module(replace(form, config=config))
    state = {
        name: np.broadcast_to(np.float32(0.5), tuple(tensor.shape))
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert sum(p.numel() for p in net.parameters()) == 29_705_768
    built, _ = FAMILIES["spikingformer"].build(state, parse_config(config, "the published size"))
    return built


def rates_of(graph, rows, qkv) -> dict[str, float]:
    rates = {name: row[3] / 100 for name, row in rows.items()}
    products = [label(node).lstrip("%") for node in graph if node.op == "attn"]
    names = [f"{product}.{role}" for product in products for role in "qkv"]
    return rates | dict(zip(names, [rate for row in qkv for rate in row], strict=True))


def test_total_of_the_logged_rows(rows, qkv, log) -> None:
    assert len(rows) == 54
    logged = [FormulaRow(name, *row) for name, row in rows.items()]
    products = sum(4 * 8 * 196 * 64**2 * (min(k, v) + q) for q, k, v in qkv)
    energy = FormulaEnergy(logged, products)
    told = float(re.search(r"Energy consumption: ([\d.]+) mJ", log)[1])
    assert energy.picojoules * 1e-9 == pytest.approx(told, rel=1e-5) == pytest.approx(7.463503, rel=1e-5)


def test_every_layer_of_our_graph_has_the_logged_operations(graph, rows, qkv) -> None:
    energy = formula(graph, rates_of(graph, rows, qkv), "spikingformer")
    ours, theirs = {row.layer: row.ops for row in energy.rows}, {name: row[0] for name, row in rows.items()}
    assert {k: f"{v:.8e}" for k, v in ours.items()} == {k: f"{v:.8e}" for k, v in theirs.items()}  # digits of the log
    for row in energy.rows:
        _, acs, macs, _ = rows[row.layer]
        assert (row.acs, row.macs) == pytest.approx((acs, macs), rel=1e-6), row.layer


def test_our_graph_at_the_logged_rates_has_the_published_energy(graph, rows, qkv) -> None:
    energy = formula(graph, rates_of(graph, rows, qkv), "spikingformer")
    assert energy.macs == pytest.approx(0.347329512e9, rel=1e-9)
    assert energy.acs == pytest.approx(6.51754094076244e9, rel=1e-6)
    assert energy.picojoules * 1e-9 == pytest.approx(7.463502601886196, rel=1e-6)


def test_most_papers_count_the_first_layer_once_and_no_biases(graph, rows, qkv) -> None:
    most = formula(graph, rates_of(graph, rows, qkv), "papers")
    theirs = formula(graph, rates_of(graph, rows, qkv), "spikingformer")
    assert most.rows[0].macs == 224 * 224 * 64 * 27 and theirs.rows[0].macs == 4 * 224 * 224 * 64 * 27
    assert most.acs < theirs.acs


def test_a_missing_rate_and_an_unknown_variant_are_named(graph, rows, qkv) -> None:
    rates = rates_of(graph, rows, qkv)
    del rates["block.0.attn.q_conv"]
    with pytest.raises(UsageError, match=r"needs the rate of the input of 'block.0.attn.q_conv', got None"):
        formula(graph, rates)
    with pytest.raises(UsageError, match="no variant 'mine' of the formula; choose of papers, spikingformer"):
        formula(graph, rates, "mine")
