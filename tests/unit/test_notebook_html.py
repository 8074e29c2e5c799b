"""What notebooks show: escaped, bounded, well formed, without colours of its own or anything from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmc
from nmc_compiler.graph import Attr, GraphBuilder
from nmc_compiler.html import LETTERS, ROWS, Html, bar, card, items, shown, table
from nmc_emulator.report import Report

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
EVIL = "<script>alert('x')</script>\"&</details></div>"
VOID = {"br", "img", "meta"}


class Nesting(HTMLParser):
    """Reads HTML, and fails where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(key.startswith("on") or key in ("src", "href") for key, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(text: str) -> Nesting:
    found = Nesting(text)
    assert not found.seen & {"script", "link", "iframe", "img"}
    style = re.findall(r"<style>(.*?)</style>", text)
    assert len(style) == 1 and "http" not in text and "@import" not in text
    assert not re.search(r"#[0-9a-f]{3}|(?<!-)\bcolor:(?!inherit)|background:(?!none|currentColor)", style[0])
    return found


@pytest.fixture(scope="module")
def compiled() -> Any:
    return nmc.compile(DIGITS / "model.pt")


@pytest.fixture(scope="module")
def run(compiled: Any) -> Any:
    with np.load(DIGITS / "test.npz") as data:
        return nmc.emulate(compiled, data["images"][:2], data["labels"][:2])


def test_a_mapping(compiled: Any) -> None:
    """What the report says, and the table of layers that the network shows too."""
    found = checked(compiled.mapping._repr_html_())
    assert "8 cores of loihi2 on 1 chip" in found.text and "busiest link" in found.text
    assert "neurons4,096 89.7 % 100.0 %" in found.text
    assert compiled.mapping.layers[0].name.replace("'", "") in found.text


def test_a_compiled_network(compiled: Any, tmp_path: Path) -> None:
    found = checked(compiled._repr_html_())
    assert "8 cores of loihi2 on 1 chip" in found.text and "89.7 %" in found.text
    assert "patch_embed.proj_lif1" in found.text and "family sdt_v1" in found.text
    again = checked(nmc.load(compiled.save(tmp_path / "build").folder)._repr_html_())
    assert "8 cores of loihi2" in again.text


def test_a_graph(compiled: Any) -> None:
    found = checked(compiled.int_graph._repr_html_())
    assert (
        "graph sdt_v1" in found.text
        and "cuba_lif" in found.text
        and f"of {len(compiled.int_graph.nodes)}" in found.text
    )


def test_a_report_and_a_run(run: Any) -> None:
    """Every number of the terminal's report stands in it."""
    found = checked(run._repr_html_())
    assert run._repr_html_() == run.report._repr_html_()
    for line in str(run.report).splitlines():
        for word in line.split():
            assert word in found.text or set(word) == {"-"}, line


def test_an_answer_of_fit() -> None:
    found = checked(nmc.fit(DIGITS / "model.pt", targets=["loihi2", "loihi1"])._repr_html_())
    assert "loihi2 fits: 8 cores on 1 chip, neurons bind" in found.text


def test_hostile_names_are_shown_and_do_nothing(compiled: Any, run: Any) -> None:
    program = compiled.program
    hostile = replace(program, name=EVIL, populations=tuple(replace(p, name=EVIL) for p in program.populations))
    bad = replace(compiled, program=hostile, conversion={**compiled.conversion, "notes": [EVIL]}, mapping=None)
    data = {**run.report.data, "name": EVIL, "assumptions": [EVIL]}
    data["layers"] = [{**layer, "name": EVIL} for layer in data["layers"]]
    b = GraphBuilder(EVIL, 1)
    b.add("input", id="x", name=EVIL, shape=Attr((1, 1, 1), "config"))
    for text in (bad._repr_html_(), Report(data)._repr_html_(), b.build()._repr_html_()):
        assert EVIL in checked(text).text and EVIL not in text


def test_large_networks_take_little_room() -> None:
    b = GraphBuilder("large", 1)
    x = b.add("input", id="x", shape=Attr((1, 8, 8), "config"))
    for n in range(5000):
        x = (
            b.add("add", x, x, name="n" * 500 + str(n))
            if n
            else b.add("input", id="y", shape=Attr((1, 8, 8), "config"))
        )
    text = b.build()._repr_html_()
    assert len(text) < 100_000 and f"... {5001 - ROWS} more of 5001" in checked(text).text


def test_pieces() -> None:
    assert shown("a<b") == "a&lt;b" and shown(Html("<i>a</i>")) == "<i>a</i>"
    assert shown("x" * (LETTERS + 1)) == "x" * (LETTERS - 3) + "..."
    assert bar(5, 0).endswith("0.0 %") and "width:100.0%" in bar(9, 3)
    assert table(("a",), [("<",)], (0,)).count("&lt;") == 1
    assert items([]) == "<ul></ul>"
    assert checked(card("<", [Html("")])).text.endswith("<")
