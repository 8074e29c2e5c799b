"""Tables of a report, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines of a table: columns of numbers to the right, all others to the left."""
    right = [is_numeric([row[i] for row in rows]) for i in range(len(head))]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return (indent + "  ".join(cells)).rstrip()

    return [line(head), line(["-" * w for w in widths]), *(line(row) for row in rows)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The same as a Markdown table."""
    right = [is_numeric([row[i] for row in rows]) for i in range(len(head))]
    rule = ["---:" if r else "---" for r in right]
    return [_pipes(head), _pipes(rule), *(_pipes(row) for row in rows)]


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, perhaps lower bounds, with a sign, a unit of percent, or nothing known."""
    plain = [c.removeprefix("at least ").replace(",", "").rstrip("%").strip() for c in cells if c not in ("", "-")]
    return bool(plain) and all(_number(c) for c in plain)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def count(value: float) -> str:
    """A count for people: 12,345, one decimal for small averages, nothing lost to exponents."""
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"


def picojoules(value: float) -> str:
    """An energy in the unit that leaves one to three digits before the point."""
    for unit, size in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g} pJ"


def seconds(value: float) -> str:
    """A time in the unit that leaves one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"
