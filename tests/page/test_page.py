"""The page of a run: every number is in its JSON, names are harmless, nothing is fetched, bounds are called bounds."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.cli import main
from nmc.page.details import details_of, details_of_run
from nmc.page.hints import hints_of
from nmc.page.numbers import FORMS, look_up
from nmc.page.table import layers_csv
from nmc.page.waterfall import GROUPS, SYNAPSES
from nmc.page.write import page
from nmc_compiler.errors import ArtefactError, UsageError
from nmc_emulator.energies import choose_profiles, priced
from nmc_emulator.price_profile import MAPPED_TERMS
from nmc_emulator.report import Report, read_report

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An artefact with a run that recorded its events."""
    build = tmp_path_factory.mktemp("page") / "build"
    with np.load(FIXTURES / "spikformer" / "vectors.npz") as file:
        images, labels = file["images"][:3], file["labels"][:3]
    nmc.compile(FIXTURES / "spikformer" / "model.pt", out=build)
    nmc.emulate(build, images, labels, trace=["events"], out=build / "run")
    return build


@pytest.fixture(scope="module")
def details(folder) -> dict:
    run = folder / "run"
    return details_of_run(read_report(run / "report.json"), folder, run / "events.npz")


class Reader(HTMLParser):
    """Texts of a page: numbers with their paths, and all other text that a person reads."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str, str]] = []
        self.other: list[str] = []
        self.fetched: list[str] = []
        self.open: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "link", "br", "input"):
            self.open.append((tag, found))

    def handle_endtag(self, tag) -> None:
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data) -> None:
        tag, attrs = self.open[-1] if self.open else ("", {})
        if "data-path" in attrs:
            self.numbers.append((attrs["data-path"], attrs["data-form"], data))
        elif tag not in ("style", "script") and data.strip():
            self.other.append(" ".join(data.split()))


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def strings(tree) -> list[str]:
    """All strings of a JSON object, keys too."""
    if isinstance(tree, dict):
        return [text for key, value in tree.items() for text in (key, *strings(value))]
    if isinstance(tree, list):
        return [text for value in tree for text in strings(value)]
    return [tree] if isinstance(tree, str) else []


def test_every_number_is_in_the_json_of_the_page(details) -> None:
    html = page(details)
    inside = json.loads(re.search(r'id="details">(.*?)</script>', html, re.S)[1])
    assert inside == json.loads(json.dumps(details))
    reader, samples = read(html), details["report"]["samples"]
    assert len(reader.numbers) > 400
    for path, form, text in reader.numbers:
        value = look_up(inside, path)
        assert text == ("–" if value is None else FORMS[form](value, samples)), path
    known = " ".join(" ".join(strings(inside)).split())
    for text in reader.other:  # what else has digits is a name or a sentence of the JSON
        words = [w for w in re.findall(r"\S*\d\S*", text) if w.strip("().,:;%") not in known]
        assert not words, f"{text!r} has {words}"


def test_a_page_fetches_nothing_and_is_small(details) -> None:
    html = page(details)
    assert read(html).fetched == []
    assert "http" not in re.sub(r"<script type=.*?</script>", "", html, flags=re.S)
    assert len(html) < 5_000_000
    assert html == page(copy.deepcopy(details))


def test_names_of_a_model_are_text(details) -> None:
    evil = "</script><script>alert(1)</script><b>&"
    bent = json.loads(json.dumps(details).replace("spikformer", evil.replace('"', "'")))
    reader = read(page(bent))
    assert evil in " ".join(reader.other)
    assert page(bent).count("<script") == page(details).count("<script") == 2


def test_a_total_without_all_its_prices_is_at_least(details) -> None:
    html = page(details)
    for number, energy in enumerate(details["report"]["energy"]):
        told = re.findall(rf'(at least )?<(?:span|tspan) data-path="report/energy/{number}/total_pj"', html)
        assert told == ["" if energy["complete"] else "at least "] * 2, energy["profile"]
    assert not details["energy"]["complete"] and "Energy per sample, at least" in html


def test_waterfalls_add_up(details) -> None:
    assert {term for among in (SYNAPSES, *GROUPS.values()) for term in among} == set(MAPPED_TERMS)
    for profile, steps in details["waterfalls"].items():
        energy = next(e for e in details["report"]["energy"] if e["profile"] == profile)
        assert sum(step["pj"] for step in steps[:-1]) == pytest.approx(steps[-1]["pj"])
        assert steps[-1]["pj"] == pytest.approx(energy["per_sample_pj"])
        assert set(steps[-1]["unpriced"]) == set(energy["missing"])


def test_steps_without_all_their_prices_are_at_least_and_told(details) -> None:
    html = page(details)
    for profile, steps in details["waterfalls"].items():
        lacking = [step["name"] for step in steps[:-1] if step["unpriced"]]
        assert lacking, profile
        for i, step in enumerate(steps[:-1]):
            mark = re.search(rf'>([^<>]*)<tspan data-path="waterfalls/{profile}/{i}/pj"', html)[1]
            assert mark.endswith("at least ") == bool(step["unpriced"]), (profile, step)
        figure = html[html.index(f'data-path="waterfalls/{profile}/{len(steps) - 1}/pj"') :]
        caption = re.search(r"<figcaption>(.*?)</figcaption>", figure, re.S)[1]
        assert re.findall(r"([^.:]+): without", caption) == [
            name if not i else f" {name}" for i, name in enumerate(lacking)
        ]


def test_a_price_that_is_not_there_is_not_written_as_nothing(details) -> None:
    assert details["energy"]["term"] == "axon_out" or details["energy"]["reason"]
    bent = copy.deepcopy(details)
    low = next(e for e in bent["report"]["energy"] if e["profile"] == bent["energy"]["low"])
    bent["energy"]["term"] = term = next(t for t in low["missing"] if t not in low["terms_pj"])
    assert f"({term}: no price, " in " ".join(re.sub(r"<[^>]*>", "", page(bent)).split())


def test_the_time_of_a_stream_is_that_of_a_timestep() -> None:
    from nmc_compiler.program.network import Network

    net = Network("two", 0)
    net.conv("c", net.input("in", (1, 1, 1)), net.lif("out", (1, 1, 1), vth=0), np.ones((1, 1, 1, 1), int))
    run = nmc.emulate(net.program(), np.ones((40, 1, 1, 1), int))
    html = page(details_of(run.report, None, None))
    told = {path: text for path, form, text in read(html).numbers if form == "seconds_per"}
    assert told == {"report/seconds/run": FORMS["seconds"](run.report["seconds"]["run"] / 40, 1)}
    assert "per_sample" not in re.sub(r"<script.*?</script>", "", html, flags=re.S)


def test_times_of_packets_are_told_where_they_were_simulated(details, folder) -> None:
    assert "--timing queue" in page(details)
    with np.load(FIXTURES / "spikformer" / "vectors.npz") as file:
        report = nmc.emulate(folder, file["images"][:2], timing="queue").report
    html = page(details_of(report, None, None))
    told = {path: text for path, _, text in read(html).numbers}
    timing = report["timing"]
    assert told["report/timing/seconds"] == FORMS["seconds"](timing["seconds"] / 2, 1)
    assert told["report/timing/latency_max"] == FORMS["seconds"](timing["latency_max"], 1)
    assert told["report/timing/throughput"] == FORMS["count"](timing["throughput"], 1)
    assert "--timing queue" not in html and "Packets simulated: queue" in html


def test_links_and_load_are_those_of_the_counters(details) -> None:
    report, traffic = details["report"], details["traffic"]
    assert sum(traffic["links"]) == report["hops"] + report["chip_crossings"]
    assert sum(traffic["ticks"]["synops"]) == report["synops_effective"]
    assert sum(traffic["ticks"]["packets"]) == report["hops"] + report["chip_crossings"]
    drawn = {p["name"]: p for p in traffic["raster"]["populations"]}
    assert drawn and all(len(p["step"]) == -(-p["events"] // traffic["raster"]["stride"]) for p in drawn.values())


def test_hints_are_computed(details) -> None:
    report, ticks = details["report"], details["report"]["timesteps"]
    hints = {hint["text"]: hint for hint in hints_of(report)}
    steps = next(hint for text, hint in hints.items() if text.startswith(f"one timestep less than {ticks}"))
    energy = next(e for e in report["energy"] if e["profile"] == steps["profile"])
    assert steps["saves_pj"] == pytest.approx(sum(energy["terms_pj"].values()) / ticks / report["samples"])
    pipelined = next(hint for text, hint in hints.items() if text.startswith(f"a new sample every {ticks} ticks"))
    idle = energy["terms_pj"]["neuron_inactive"] * (1 - ticks / report["interval_ticks"]) / report["samples"]
    assert pipelined["saves_pj"] == pytest.approx(idle)
    assert [h["saves_pj"] for h in hints.values()] == sorted((h["saves_pj"] for h in hints.values()), reverse=True)


def test_a_run_without_its_artefact_or_events_says_so(details, folder) -> None:
    report = read_report(folder / "run" / "report.json")
    alone = details_of(report, None, None)
    text = " ".join(read(page(alone)).other)
    assert "Raster, load over time and links need the events of the run" in text
    assert "The artefact that was run is not here" in text
    other = replace(report, data={**report.data, "program": "0" * 64})
    assert details_of_run(other, folder, folder / "none.npz")["program"] is None


def test_unmapped_streams_have_a_page() -> None:
    from nmc_compiler.program.network import Network

    net = Network("two", 0)
    net.conv("c", net.input("in", (1, 1, 1)), net.lif("out", (1, 1, 1), vth=0), np.ones((1, 1, 1, 1), int))
    run = nmc.emulate(net.program(), np.ones((4, 1, 1, 1), int))
    text = " ".join(read(page(details_of(Report(run.report.data), None, None))).other)
    assert "The Program is not mapped" in text and "Averages are per timestep" in text


def test_command_writes_page_json_and_csv(folder, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "report.html"
    assert main(["report", str(folder), "--html", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "nmc.details/2" and out.read_text() == page(printed)
    assert main(["report", str(folder), "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(printed["report"]["layers"])
    row = dict(zip(lines[0].split(","), lines[3].split(","), strict=True))
    layer = printed["report"]["layers"][2]
    assert row["name"] == layer["name"] and int(row["spikes"]) == layer["spikes"]
    assert float(row["energy_pj:cmos45-horowitz"]) == layer["energy_pj"]["cmos45-horowitz"]
    assert main(["report", str(folder), "--html", str(out), "--csv"]) == 2
    assert "--html writes a page, which --csv and --markdown do not change" in capsys.readouterr().err


def places(tree, at=()):
    """Paths to all values of a JSON object, of a list to the first."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def test_a_damaged_report_is_refused_or_drawn(folder, tmp_path) -> None:
    """Whatever one value is lost or becomes: one clear error, or every form of the report."""
    with np.load(FIXTURES / "spikformer" / "vectors.npz") as file:
        report = nmc.emulate(folder, file["images"][:1], timing="queue", metrics=True).report
    whole = json.loads(json.dumps(report.data))
    paths = [p for p in places(whole) if p[0] not in ("logits", "prices", "energy_range") and len(p) < 5]
    refused = 0
    for number, path in enumerate(paths):
        bent = copy.deepcopy(whole)
        inside = look_up(bent, "/".join(map(str, path[:-1]))) if path[:-1] else bent
        if number % 2 and isinstance(inside, dict):
            del inside[path[-1]]
        else:
            inside[path[-1]] = (None, [], {}, "x")[number // 2 % 4]
        (tmp_path / "report.json").write_text(json.dumps(bent), encoding="utf-8")
        try:
            found = read_report(tmp_path / "report.json")
        except ArtefactError as error:
            refused += 1
            assert "run `nmc emulate` again" in str(error)
            continue
        assert found.text() and layers_csv(found.data)
        page(details_of(found, None, None))
        with contextlib.suppress(UsageError):  # no counts by price term
            priced(found.data, choose_profiles(["odin"]))
    assert refused > len(paths) // 2
