"""A report in a notebook: what the terminal shows, as HTML of bounded length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nmc_compiler.html import Html, card, folded, items, table

from .render import report_parts
from .tables import is_numeric


def report_html(data: Mapping[str, Any]) -> str:
    """HTML of a report's JSON."""
    title, *parts = report_parts(data, _table, "")
    opened = ("Result", "Energy, per", "Assumptions")
    return card(title[0], [folded(p[0], _body(p[1:]), p[0].startswith(opened)) for p in parts])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    numbers = [i for i in range(len(head)) if is_numeric([row[i] for row in rows])]
    return [table(head, rows, numbers)]


def _body(lines: Sequence[str]) -> Html:
    """Tables as they are, runs of other lines as lists."""
    told: list[str] = []
    found: list[str] = []
    for line in lines:
        if isinstance(line, Html):
            found += [items(told)] if told else []
            found.append(line)
            told = []
        elif line.strip():
            told.append(line.strip())
    return Html("".join([*found, *([items(told)] if told else [])]))
