"""Small pieces of HTML for notebooks: escaped, bounded, in the colours of the page they stand on.

Nothing is loaded from elsewhere, no script runs, and only inherited colours are used, so that dark pages stay dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

ROWS, LETTERS = 60, 300  # shown of a table and of a text
_STYLE = (
    "<style>.nmc{font-size:90%;line-height:1.35;max-width:100%;overflow-x:auto}"
    ".nmc table{border-collapse:collapse;margin:.3em 0}"
    ".nmc th,.nmc td{padding:.1em .6em;text-align:left;border-bottom:1px solid rgba(127,127,127,.35);"
    "background:none;color:inherit}"
    ".nmc td.n,.nmc th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".nmc b.title{font-size:110%}.nmc ul{margin:.2em 0;padding-left:1.3em}"
    ".nmc .bar{display:inline-block;width:8em;border:1px solid rgba(127,127,127,.6)}"
    ".nmc .bar i{display:block;height:.6em;background:currentColor;opacity:.55}</style>"
)


class Html(str):
    """Text that is HTML already; every other string is escaped where it is shown."""

    __slots__ = ()


def shown(text: object) -> str:
    """A text as HTML: escaped unless it is HTML, and cut where it is long."""
    if isinstance(text, Html):
        return text
    told = str(text)
    return escape(told if len(told) <= LETTERS else f"{told[: LETTERS - 3]}...")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Iterable[int] = ()) -> Html:
    """A table; columns of ``numbers`` to the right. Of a long one the first rows, and how many there are."""
    right = set(numbers)

    def line(cells: Sequence[object], tag: str) -> str:
        classed = ((' class="n"' if i in right else "", shown(c)) for i, c in enumerate(cells))
        return "<tr>" + "".join(f"<{tag}{c}>{text}</{tag}>" for c, text in classed) + "</tr>"

    body = "".join(line(row, "td") for row in rows[:ROWS])
    more = f"<div>... {len(rows) - ROWS} more of {len(rows)}</div>" if len(rows) > ROWS else ""
    return Html(f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>{more}")


def items(lines: Sequence[object]) -> Html:
    """A list, of a long one the first lines."""
    more = [f"... {len(lines) - ROWS} more"] if len(lines) > ROWS else []
    return Html("<ul>" + "".join(f"<li>{shown(line)}</li>" for line in [*lines[:ROWS], *more]) + "</ul>")


def bar(part: float, whole: float) -> Html:
    """A share as a bar with its percent, readable without the bar."""
    share = min(max(part / whole, 0.0), 1.0) if whole else 0.0
    filled = f'<i style="width:{100 * share:.1f}%"></i>'
    return Html(f'<span class="bar" aria-hidden="true">{filled}</span> {100 * share:.1f} %')


def folded(title: str, body: Html, opened: bool = False) -> Html:
    """A part that can be folded away."""
    return Html(f"<details{' open' if opened else ''}><summary>{shown(title)}</summary>{body}</details>")


def card(title: str, parts: Iterable[Html]) -> str:
    """A whole piece of output."""
    return f'<div class="nmc">{_STYLE}<b class="title">{shown(title)}</b>{"".join(parts)}</div>'
