"""Counts and energies by core add up to those by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc_emulator.core_cost import core_counts, core_energy, core_terms
from nmc_emulator.cost import CROSSING, MAPPED_PROFILES, chip_terms, layer_terms, mapped_energy

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NOT_OF_CORES = {"hop_ew", "hop_ns", "host_mac", "host_message", CROSSING}


@pytest.fixture(scope="module", params=["sdt_v1", "spikformer"])
def run(request) -> nmc.Run:
    with np.load(FIXTURES / request.param / "vectors.npz") as file:
        return nmc.emulate(nmc.compile(FIXTURES / request.param / "model.pt"), file["images"][:3])


def test_terms_of_cores_add_up_to_those_of_layers(run) -> None:
    cores = core_terms(run.program, run.result.counters, 3)
    layers = layer_terms(run.program, run.result.counters, 3)
    for term in set(layers[0]) - NOT_OF_CORES:
        assert cores.get(term, np.zeros(1)).sum() == sum(layer[term] for layer in layers), term
    assert not set(cores) & NOT_OF_CORES
    assert all((counts >= 0).all() for counts in cores.values())


@pytest.mark.parametrize("profile", MAPPED_PROFILES)
def test_energies_of_cores_are_the_total_less_what_belongs_to_no_core(run, profile) -> None:
    counters = run.result.counters
    whole = mapped_energy(profile, layer_terms(run.program, counters, 3), chip_terms(run.program, counters, 3, 1.0))
    elsewhere = sum(pj for term, pj in whole.terms_pj.items() if term in {*NOT_OF_CORES, "barrier", "static"})
    cores = core_energy(profile, core_terms(run.program, counters, 3))
    assert cores.shape == (counters.cores,)
    assert cores.sum() == pytest.approx(whole.total_pj - elsewhere, rel=1e-12)


def test_the_report_has_them(run) -> None:
    counters, report = run.result.counters, run.report
    found = core_counts(run.program, counters)
    assert found["packets"].sum() == found["packets_in"].sum() == counters.total("packets")
    assert report["per_core"]["counts"] == {name: values.tolist() for name, values in found.items()}
    assert sum(report["per_core"]["counts"]["synops"]) == report["synops_effective"]
    assert sum(report["per_core"]["counts"]["spikes"]) == report["spikes"]
    for layer in report["layers"]:
        for name, pj in layer["energy_pj"].items():
            assert sum(layer["terms_pj"][name].values()) == pytest.approx(pj)


def test_an_unmapped_program_has_no_cores() -> None:
    from nmc_compiler.program.network import Network

    net = Network("two", 4)
    net.conv("c", net.input("in", (1, 1, 1)), net.lif("out", (1, 1, 1), vth=0), np.ones((1, 1, 1, 1), int))
    assert nmc.emulate(net.program(), np.ones((4, 1, 1, 1), int)).report["per_core"] is None
