"""Numbers on the page: each is looked up in the details, and its element says where and how it was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from nmc_emulator.energies import units_of
from nmc_emulator.render import at_least
from nmc_emulator.tables import count, picojoules, seconds

FORMS: dict[str, Callable[[float, int], str]] = {
    "count": lambda value, n: count(value),
    "count_per": lambda value, n: count(value / n),
    "percent": lambda value, n: f"{100 * value:.4g} %",
    "pj": lambda value, n: picojoules(value),
    "pj_per": lambda value, n: picojoules(value / n),
    "seconds": lambda value, n: seconds(value),
    "seconds_per": lambda value, n: seconds(value / n),
    "times": lambda value, n: f"{value:.3g} x",
    "plain": lambda value, n: f"{value:.6g}",
}


def look_up(details: Mapping[str, Any], path: str) -> Any:
    """The value at ``path``: keys and positions, parted by ``/`` (a key with a slash is written with ``~1`` for it)."""
    found: Any = details
    for key in path.split("/"):
        found = found[int(key)] if isinstance(found, list) else found[key.replace("~1", "/")]
    return found


def key(name: str) -> str:
    """A key as a part of a path."""
    return name.replace("/", "~1")


class Numbers:
    """Writes numbers of one details object."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.details, self.units = details, units_of(details["report"])

    def value(self, path: str) -> Any:
        return look_up(self.details, path)

    def text(self, path: str, form: str = "count") -> str:
        """As it is read; a dash where nobody knows."""
        value = self.value(path)
        return "–" if value is None else FORMS[form](value, self.units)

    def html(self, path: str, form: str = "count", element: str = "span") -> str:
        """An element with the number."""
        where = escape(path, quote=True)
        return f'<{element} data-path="{where}" data-form="{form}">{escape(self.text(path, form))}</{element}>'

    def cell(self, path: str, form: str = "count", least: object = False) -> str:
        """A cell of a table, which sorts by the value itself; ``least``: whether it is a lower bound."""
        value = self.value(path)
        plain = "" if value is None else f"{value:.12g}"
        return f'<td class="n" data-value="{plain}">{at_least(not least)}{self.html(path, form)}</td>'

    def svg(self, path: str, form: str = "count") -> str:
        """The same inside of a ``text`` of a picture."""
        return self.html(path, form, "tspan")
