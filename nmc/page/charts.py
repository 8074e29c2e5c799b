"""Pictures of the page, as SVG that takes its colours from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, LABEL = 1100, 290  # of a picture, and of the names at its left
BAR, GAP = 18, 7
COLOURS = 7
NARROW = 13  # height of a row of many


def _svg(height: float, title: str, body: Sequence[str], width: float = WIDTH) -> str:
    label = escape(title, quote=True)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" aria-label="{label}">'
    return "".join([head, f"<title>{label}</title>", *body, "</svg>"])


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]


def _name(y: float, name: str) -> str:
    return (
        f'<text x="{LABEL - 8}" y="{y:g}" text-anchor="end">{escape(_short(name))}<title>{escape(name)}</title></text>'
    )


@dataclass(frozen=True)
class Stack:
    """One bar: parts of (colour, value, what a pointer says), and the ``tspan`` behind it."""

    name: str
    parts: list[tuple[int, float, str]]
    told: str


def stacks(title: str, bars: Sequence[Stack]) -> str:
    """Bars of parts, one below the other, on one scale."""
    most = max((sum(v for _, v, _ in bar.parts) for bar in bars), default=0.0) or 1.0
    scale, body = (WIDTH - LABEL - 150) / most, []
    for row, bar in enumerate(bars):
        y, x = row * (BAR + GAP), float(LABEL)
        body.append(_name(y + BAR - 5, bar.name))
        for colour, value, what in bar.parts:
            wide = value * scale
            if wide > 0:
                size = f'x="{x:.1f}" y="{y}" width="{max(wide, 0.5):.1f}" height="{BAR}"'
                body.append(f'<rect class="c{colour % COLOURS}" {size}><title>{escape(what)}</title></rect>')
            x += wide
        body.append(f'<text x="{x + 6:.1f}" y="{y + BAR - 5}">{bar.told}</text>')
    return _svg(len(bars) * (BAR + GAP), title, body)


def falls(title: str, steps: Sequence[tuple[str, float, bool, str]]) -> str:
    """A waterfall: (name, value, whether it is a total, ``tspan``); other values are differences."""
    ends, level = [], 0.0
    for _, value, whole, _ in steps:
        ends.append((0.0, value) if whole else (level, level + value))
        level = ends[-1][1]
    low, high = min(min(a, b) for a, b in ends), max(max(a, b) for a, b in ends)
    scale = (WIDTH - LABEL - 150) / ((high - min(low, 0.0)) or 1.0)
    zero, body = LABEL - min(low, 0.0) * scale, []
    for row, ((name, value, whole, told), (a, b)) in enumerate(zip(steps, ends, strict=True)):
        y, x, wide = row * (BAR + GAP), zero + min(a, b) * scale, abs(b - a) * scale
        colour = 5 if whole else 1 if value > 0 else 2
        body.append(_name(y + BAR - 5, name))
        body.append(f'<rect class="c{colour}" x="{x:.1f}" y="{y}" width="{max(wide, 1):.1f}" height="{BAR}"/>')
        if row + 1 < len(steps):
            at = zero + b * scale
            body.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{y + BAR}" y2="{y + BAR + GAP}"/>')
        body.append(f'<text x="{x + wide + 6:.1f}" y="{y + BAR - 5}">{told}</text>')
    return _svg(len(steps) * (BAR + GAP), title, body)


def rates(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Thin bars of (name, value, ``tspan``)."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    scale, body = (WIDTH - LABEL - 90) / most, []
    for row, (name, value, told) in enumerate(rows):
        y, wide = row * NARROW, value * scale
        body.append(_name(y + NARROW - 3, name))
        body.append(f'<rect class="c0" x="{LABEL}" y="{y + 1}" width="{max(wide, 0.5):.1f}" height="{NARROW - 3}"/>')
        body.append(f'<text x="{LABEL + wide + 5:.1f}" y="{y + NARROW - 3}">{told}</text>')
    return _svg(len(rows) * NARROW, title, body)


def raster(title: str, rows: Sequence[tuple[str, int, Sequence[int], Sequence[int]]], steps: int) -> str:
    """Dots of (name, somas, timesteps, somas that fired): a band for each population, timesteps from left to right."""
    wide, body = WIDTH - LABEL - 10, []
    scale = wide / max(steps, 1)
    for band, (name, somas, step, soma) in enumerate(rows):
        y = band * (BAR + 2)
        body.append(_name(y + BAR - 5, name))
        body.append(f'<line class="axis" x1="{LABEL}" x2="{WIDTH - 10}" y1="{y + BAR + 1}" y2="{y + BAR + 1}"/>')
        # Within a timestep events lie side by side, by soma: all of one step at one place would be a line.
        x = LABEL + (np.asarray(step) + 0.05 + 0.9 * np.asarray(soma) / max(somas, 1)) * scale
        up = (np.asarray(soma) * 7919 % max(somas, 1)) / max(somas, 1) * (BAR - 2)
        dots = "".join(f"M{a:.1f} {y + b:.1f}h1.4v1.4h-1.4z" for a, b in zip(x.tolist(), up.tolist(), strict=True))
        body.append(f'<path class="dot" d="{dots}"/>')
    bottom = len(rows) * (BAR + 2)
    body += [f'<line class="axis" x1="{LABEL + t * scale:.1f}" x2="{LABEL + t * scale:.1f}" y1="0" y2="{bottom}"/>'
             for t in range(steps + 1) if steps <= 64]  # fmt: skip
    return _svg(bottom, title, body)


def lines(title: str, rows: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """Curves over time, one below the other, each on a scale of its own: (name, values, ``tspan`` of the largest)."""
    high, body = 70, []
    for row, (name, values, told) in enumerate(rows):
        y, most = row * (high + 22), max(values, default=0) or 1
        step = (WIDTH - LABEL - 100) / max(len(values), 1)
        bars = "".join(
            f"M{LABEL + i * step:.1f} {y + high:.1f}v{-v / most * high:.1f}h{step:.2f}V{y + high:.1f}z"
            for i, v in enumerate(values)
            if v
        )
        body.append(_name(y + high / 2 + 4, name))
        body.append(f'<path class="c{row}" d="{bars}"/>')
        body.append(f'<line class="axis" x1="{LABEL}" x2="{WIDTH - 100}" y1="{y + high}" y2="{y + high}"/>')
        body.append(f'<text x="{WIDTH - 96}" y="{y + 10}">{told}</text>')
    return _svg(len(rows) * (high + 22), title, body)


@dataclass(frozen=True)
class Grid:
    """Routers of all chips: where the cores are drawn.

    at: int [cores, 4] chip, router x and y on it, place at the router.  routers: of one chip.  per_router: cores.
    """

    at: np.ndarray
    routers: tuple[int, int]
    chips: int
    per_router: int

    @property
    def per_row(self) -> int:
        """Chips side by side before the picture goes on below."""
        return max(min(self.chips, 64 // self.routers[0]), 1)

    def spots(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """x and y of each core's square, in squares, and how many there are along each side of the picture."""
        side = max(int(np.ceil(np.sqrt(self.per_router))), 1)
        chip, x, y, place = self.at.T
        step = side + 1
        wide, tall = self.routers[0] * step + 2, self.routers[1] * step + 2
        column, row = chip % self.per_row, chip // self.per_row
        across = column * wide + x * step + place % side
        down = row * tall + (self.routers[1] - 1 - y) * step + place // side
        return across, down, self.per_row * wide, -(-self.chips // self.per_row) * tall


def _frames(grid: Grid, size: float) -> str:
    """A frame around the cores of each router, those that are not in use too."""
    side = max(int(np.ceil(np.sqrt(grid.per_router))), 1)
    chips, columns, rows = range(grid.chips), range(grid.routers[0]), range(grid.routers[1])
    at = np.array([(chip, x, y, 0) for chip in chips for x in columns for y in rows], np.int64)
    across, down, _, _ = Grid(at, grid.routers, grid.chips, grid.per_router).spots()
    edge = f"{side * size - 0.06 * size:.1f}"
    lines = (
        f"M{a * size:.1f} {b * size:.1f}h{edge}v{edge}h-{edge}z"
        for a, b in zip(across.tolist(), down.tolist(), strict=True)
    )
    return f'<path class="axis" fill="none" d="{"".join(lines)}"/>'


def cores(title: str, grid: Grid, values: Sequence[float]) -> str:
    """A square for each core in use, the stronger the larger its value, in the frames of their routers."""
    x, y, across, down = grid.spots()
    size = min(WIDTH / 2 / across, 22.0)
    shade = np.asarray(values, float)
    shade = shade / (shade.max() or 1.0)
    body = [
        f'<rect class="heat cell" fill-opacity="{0.06 + 0.94 * s:.2f}" x="{a * size:.1f}" y="{b * size:.1f}" '
        f'width="{size * 0.94:.1f}" height="{size * 0.94:.1f}"/>'
        for a, b, s in zip(x.tolist(), y.tolist(), shade.tolist(), strict=True)
    ]
    return _svg(down * size, title, [_frames(grid, size), *body], across * size)


def links(title: str, packets: Sequence[int], routers: tuple[int, int]) -> str:
    """Directed links of the mesh, the stronger the more packets went over them; both directions side by side."""
    size = min(WIDTH / max(routers[0], 1), 46.0)
    most, body = max(packets, default=0) or 1, []
    middle = np.array([0.5, 0.5])
    for number in np.flatnonzero(np.asarray(packets)).tolist():
        router, way = divmod(number, 4)
        x, y = divmod(router, routers[1])
        dx, dy = ((1, 0), (-1, 0), (0, -1), (0, 1))[way]  # north is y + 1, drawn upwards
        start = np.array([x, routers[1] - 1 - y]) + middle + np.array([-dy, dx]) * 0.1
        end, share = start + np.array([dx, dy]), packets[number] / most
        (a, b), (c, d) = (start * size).tolist(), (end * size).tolist()
        body.append(
            f'<line class="link" stroke-width="{1 + 4 * share:.1f}" stroke-opacity="{0.2 + 0.8 * share:.2f}" '
            f'x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
        )
    points = [(x, y) for x in range(routers[0]) for y in range(routers[1])]
    body += [f'<circle class="c5" cx="{(x + 0.5) * size:.1f}" cy="{(y + 0.5) * size:.1f}" r="2.5"/>' for x, y in points]
    return _svg(routers[1] * size, title, body, routers[0] * size)
