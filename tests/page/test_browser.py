"""The page of a run in Chromium: what a person sees, sorts, reaches by the keyboard, and prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import nmc
from nmc.page.details import details_of_run
from nmc.page.write import page
from nmc_emulator.report import read_report

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    build = tmp_path_factory.mktemp("browser") / "build"
    with np.load(FIXTURES / "spikformer" / "vectors.npz") as file:
        images, labels = file["images"][:2], file["labels"][:2]
    nmc.compile(FIXTURES / "spikformer" / "model.pt", out=build)
    nmc.emulate(build, images, labels, trace=["events"], out=build / "run")
    report = read_report(build / "run" / "report.json")
    file = build / "report.html"
    file.write_text(page(details_of_run(report, build, build / "run" / "events.npz")), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[dev]'")
    with sync.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def tab(browser, path):
    """A page that must not complain, nor ask the network for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    wrong: list[str] = []
    found.on("console", lambda message: wrong.append(message.text))
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    found.goto(path.as_uri())
    yield found
    context.close()
    assert not wrong


def column(tab, number: int) -> list[float]:
    cells = tab.locator(f"#layers tbody tr td:nth-child({number})").all()
    return [float(cell.get_attribute("data-value")) for cell in cells]


def test_tables_sort_by_press_and_by_keyboard(tab) -> None:
    before = column(tab, 5)
    assert before != sorted(before)
    button = tab.locator("#layers th button", has_text="spikes")
    button.click()
    assert column(tab, 5) == sorted(before)
    button.focus()
    tab.keyboard.press("Enter")
    assert column(tab, 5) == sorted(before, reverse=True)
    assert tab.locator("#layers th[aria-sort=descending]").inner_text() == "spikes"
    tab.locator("#layers th button", has_text="layer").click()
    names = tab.locator("#layers tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names, key=str.lower) or names == sorted(names)


def test_everything_is_reached_by_the_keyboard(tab) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "summary"
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    tab.keyboard.press("Enter")
    assert tab.locator("details[open]").count() == 1


def test_nothing_is_wider_than_the_window(tab) -> None:
    for width in (1280, 800, 420):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def luminance(colour: str) -> float:
    red, green, blue = (int(v) / 255 for v in colour.removeprefix("rgb(").removesuffix(")").split(","))
    parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_schemes(tab, scheme) -> None:
    """Contrast of 4.5 to 1 (WCAG 2.1, AA) of text and soft text on the page."""
    tab.emulate_media(color_scheme=scheme)
    style = "(e, what) => getComputedStyle(document.querySelector(e))[what]"
    paper = luminance(tab.evaluate(f"({style})('html', 'backgroundColor')"))
    assert (paper > 0.5) == (scheme == "light")
    for element in ("p", ".lead", "nav a"):
        ink = luminance(tab.evaluate(f"({style})('{element}', 'color')"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, element


def test_it_prints_with_all_that_is_folded_away(tab, tmp_path) -> None:
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible()
    tab.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_pictures_have_names_and_sizes(tab) -> None:
    pictures = tab.locator("svg[role=img]").all()
    assert len(pictures) >= 9
    for picture in pictures:
        assert picture.get_attribute("aria-label")
        box = picture.bounding_box()
        assert box["width"] > 20 and box["height"] > 10
