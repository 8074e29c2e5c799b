"""A total over a term without a price is called a lower bound wherever it is told, whatever the prices and counts."""

from __future__ import annotations

import copy
import csv
import io
import re
from functools import cache
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nmc
from nmc.comparing import Comparison, _layers, _notes, _rows
from nmc.page.details import details_of
from nmc.page.table import layers_csv
from nmc.page.write import page
from nmc_compiler.mapping import split_evenly
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator.cost import CROSSING, LAYER_TERMS
from nmc_emulator.energies import priced
from nmc_emulator.price_profile import TERMS, PriceProfile
from nmc_emulator.report import Report
from nmc_emulator.tables import picojoules


@cache
def base() -> dict[str, Any]:
    """The report of a small run on two cores, whose counts are replaced."""
    net = Network("small", 3)
    source = net.input("in", (2, 1, 1))
    hidden = net.lif("hidden", (4, 1, 1), vth=0)
    net.conv("a", source, hidden, np.ones((1, 1, 2, 4), int))
    net.conv("b", hidden, net.lif("out", (2, 1, 1), vth=0), np.ones((1, 1, 4, 2), int))
    program = split_evenly(net.program(), 2, load_target("loihi2"))
    return dict(nmc.emulate(program, np.ones((2, 3, 2, 1, 1), int)).report.data)


def profile(name: str, kind: str, prices: dict[str, int | None]) -> PriceProfile:
    """A profile with these prices, and none for the rest."""

    def entry(value: int | None) -> dict[str, Any]:
        told = {"unit": "pJ", "scope": "op", "source": "a test", "note": "not known"}
        return told | (
            {"value": None, "evidence": "not-stated"}
            if value is None
            else {"value": float(value), "evidence": "assumed"}
        )

    return PriceProfile.model_validate(
        {
            "schema": "nmc.prices/1", "name": name, "title": f"Title of {name}", "description": "random",
            "scope_label": f"label of {name}", "kind": kind, "prices": {t: entry(prices.get(t)) for t in TERMS[kind]},
        }
    )  # fmt: skip


def random_prices(rng: np.random.Generator, kind: str, nulls: float) -> dict[str, int | None]:
    """Prices of which a share is null; without any, such that nothing but counts could make a total a bound."""
    prices: dict[str, int | None] = {
        term: None if rng.random() < nulls else int(rng.integers(1, 900)) for term in TERMS[kind]
    }
    if kind == "mapped" and not nulls:
        prices |= {"static": 0, "static_core": 0, "within_tile_spike": 0, "neuron_inactive": prices["neuron_active"]}
    return prices


@st.composite
def reports(draw: Any) -> tuple[Report, list[PriceProfile]]:
    """A report with random counts under two random mapped profiles and a random formula."""
    rng, nulls = (
        np.random.default_rng(draw(st.integers(0, 2**32))),
        [draw(st.sampled_from([0, 0.1, 0.5])) for _ in "abc"],
    )
    data = copy.deepcopy(base())
    told = {"papers": {"what": "random", "macs": 1.0, "acs": 1.0, "energy_pj": {}, "missing": []}}
    data["formula"] = {"variant": "papers", "variants": told, "why": "not told here"}
    for layer in data["layers"]:
        layer["terms"] = {term: int(rng.integers(0, 60) * rng.integers(0, 2)) for term in LAYER_TERMS}
        layer["terms"][CROSSING] = int(all(nulls) and rng.integers(0, 2))
        layer["formula"] = {term: int(rng.integers(10, 60)) for term in ("mac_fp32", "ac_fp32")}
    data["chip_terms"] = {
        term: int(rng.integers(1, 60)) for term in ("barrier", "host_message", "static", "static_core")
    }
    kinds = {"mapped-a": "mapped", "mapped-b": "mapped", "formula": "formula"}
    prices = [random_prices(rng, kind, n) for kind, n in zip(kinds.values(), nulls, strict=True)]
    profiles = [profile(name, kind, p) for (name, kind), p in zip(kinds.items(), prices, strict=True)]
    return Report(priced(data, profiles)), profiles


def known(report: Report, profiles: list[PriceProfile]) -> list[dict[str, Any]]:
    """The energies of a report, checked against prices and counts; only where no part could be taken for a total."""
    for entry, prices in zip(report["energy"], profiles, strict=True):
        unpriced = {t for t, n in entry["counts"].items() if n and t != CROSSING and prices.price(t) is None}
        assert unpriced <= set(entry["missing"]) and entry["complete"] == (not entry["missing"])
        assert set(entry["missing"]) == set(entry["reasons"])
        total = sum(n * (prices.price(t) or 0) for t, n in entry["counts"].items() if t != CROSSING)
        assert abs(entry["total_pj"] - total) < 1e-6
    wholes = [f(e["total_pj"] / n) for e in report["energy"] for n in (2, 6) for f in (picojoules, "{:,.0f}".format)]
    parts = [e[key] for e in report["energy"] for key in ("terms_pj", "kinds_pj")]
    parts += [layer["energy_pj"] for layer in report["layers"]]
    told = {f(v / 2) for part in parts for v in part.values() for f in (picojoules, "{:,.0f}".format)}
    told |= {picojoules(e["static_pj"] / 2) for e in report["energy"] if e["static_pj"]}
    assume(len(set(wholes)) == len(wholes) and not told & set(wholes))
    assume(all(e["total_pj"] > 200 for e in report["energy"]))
    return report["energy"]  # type: ignore[no-any-return]


def told_bare(text: str, number: str) -> list[str]:
    """What stands before each place where a text has a number, but for those that say "at least"."""
    found = [
        text[max(m.start() - 40, 0) : m.end()] for m in re.finditer(rf"(?<![\d.,]){re.escape(number)}(?![\d.,])", text)
    ]
    return [where for where in found if not where.removesuffix(number).endswith("at least ")]


def check_text(text: str, energies: list[dict[str, Any]], steps: tuple[int, ...]) -> None:
    for e in energies:
        for n in steps:
            assert e["complete"] or not told_bare(text, picojoules(e["total_pj"] / n)), e["profile"]
        number = f"{e['total_pj'] / 2:,.0f}"
        assert e["complete"] or not told_bare(text, number), e["profile"]


@settings(max_examples=60)
@given(reports())
def test_text_markdown_csv_and_json(drawn: tuple[Report, list[PriceProfile]]) -> None:
    report = drawn[0]
    energies = known(*drawn)
    for text in (report.text(), report.markdown()):
        check_text(text, energies, (2, 6))
        for e in energies:
            assert e["complete"] or picojoules(e["total_pj"] / 2) in text
    heads = next(csv.reader(io.StringIO(layers_csv(report.data))))
    for e in energies:
        assert (f"energy_pj:{e['profile']}" in heads) == e["complete"]
        assert (f"energy_pj_at_least:{e['profile']}" in heads) == (not e["complete"])
    mapped = {e["profile"]: e for e in energies if e["kind"] == "mapped"}
    ends = [mapped[report["energy_range"][end]] for end in ("low", "high")]
    assert report["energy_range"]["complete"] == all(e["complete"] for e in ends)
    for layer in report["layers"]:
        for name, e in mapped.items():
            assert set(layer["missing"][name]) == {t for t in e["missing"] if layer["terms"].get(t)}


@settings(max_examples=30)
@given(reports(), reports())
def test_comparison(first: tuple[Report, list[PriceProfile]], second: tuple[Report, list[PriceProfile]]) -> None:
    energies = [known(*first), known(*second)]
    data = [first[0].data, second[0].data]
    found = Comparison(["x", "y"], ["run", "run"], {}, _rows(data), _layers(data), _notes(data, ["x", "y"]))
    rows = {row["name"]: row for row in found.as_json()["rows"]}
    for i in range(3):
        pair = [e[i] for e in energies]
        row = rows[f"energy, {pair[0]['profile']}"]
        assert row["at_least"] == [not e["complete"] for e in pair]
        told = next(line for line in found.text().splitlines() if line.startswith(f"  energy, {pair[0]['profile']} "))
        assert len(re.findall("at least ", told)) == sum(row["at_least"])
    assert any("at least" in note for note in found.notes) == (not all(e["complete"] for es in energies for e in es))


@settings(max_examples=20)
@given(reports())
def test_page(drawn: tuple[Report, list[PriceProfile]]) -> None:
    energies = known(*drawn)
    html = page(details_of(drawn[0], None, None))
    mapped = [e["profile"] for e in energies if e["kind"] == "mapped"]
    for i, e in enumerate(energies):
        mark = "" if e["complete"] else "at least "
        told = re.findall(rf'(at least )?<(?:span|tspan) data-path="report/energy/{i}/total_pj"', html)
        assert told == [mark] * 2
        assert (f">{e['profile']}, at least</button>" in html) == (not e["complete"])
        if e["profile"] in mapped:
            ends = re.findall(rf'(at least |\+ )?<tspan data-path="waterfalls/{e["profile"]}/(\d+)/pj"', html)
            assert ends[-1][0] == mark
            assert ends[0][0] == ("" if energies[-1]["complete"] else "at least ")
        number = picojoules(e["total_pj"] / 2)
        one_term = r"report/energy/\d+/terms_pj/\w+"  # may be as much as the total, and lacks nothing itself
        allowed = rf'data-path="(report/energy/{i}/total_pj|{one_term}|energy/(low|high)_pj|waterfalls/[^"]*)"'
        for where in re.findall(rf'<\w+ (data-path="[^"]*")[^>]*>{re.escape(number)}<', html):
            assert re.fullmatch(allowed, where), where
    whole = drawn[0]["energy_range"]["complete"]
    assert ("<dt>Energy per sample, at least</dt>" in html) == (not whole)
