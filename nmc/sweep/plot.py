"""The Pareto plot: every finished point by two objectives, and the front."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from nmc.folders import write_file
from nmc.sweep.explore import Sweep
from nmc.sweep.front import Objective
from nmc.sweep.records import Record
from nmc.sweep.table import option
from nmc_compiler.errors import UsageError
from nmc_emulator.tracing.plots import DPI, INK, load_matplotlib

SUFFIXES = (".png", ".svg", ".pdf")
LABELLED = 24  # most points of the front that are labelled
COLOURS = ("#1f6feb", "#d1661f", "#2d8a4e", "#8250df", "#bf3989", "#6e7781")
ENERGIES = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))


def check_plot(path: str | os.PathLike[str]) -> None:
    """UsageError for a file of a kind that is not drawn."""
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(f"--plot {path}: give a file that ends in {', '.join(SUFFIXES)}")


def draw(sweep: Sweep, path: str | os.PathLike[str]) -> None:
    """Draw the sweep by its first two objectives. UsageError where it has but one, or no point has both."""
    check_plot(path)
    if len(sweep.objectives) < 2:
        raise UsageError(f"--plot {path}: takes two objectives; give --objective energy,accuracy say")
    x, y = sweep.objectives[:2]
    points = [r for r in sweep.records if x.value(r) is not None and y.value(r) is not None]
    if not points:
        raise UsageError(f"--plot {path}: no point has both {x.name} and {y.name}; there is nothing to draw")
    plt = load_matplotlib()
    figure, axes = plt.subplots(figsize=(6.8, 4.6), layout="constrained")
    units = [_unit(o, max(o.value(r) or 0.0 for r in points)) for o in (x, y)]
    at = {r.key: tuple((o.value(r) or 0.0) / u for o, (u, _) in zip((x, y), units, strict=True)) for r in points}
    _draw_front(axes, sweep, at)
    _draw_points(axes, sweep, points, at)
    axes.set_xlabel(_label(x, units[0][1], points))
    axes.set_ylabel(_label(y, units[1][1], points))
    axes.grid(color="#eeeeee", linewidth=0.5, zorder=0)
    axes.margins(0.08)
    _save(plt, figure, Path(path))


def _draw_front(axes: Any, sweep: Sweep, at: dict[str, tuple[float, ...]]) -> None:
    """The border of what the front beats, and what its points are."""
    on = [r for r in sweep.records if r.key in sweep.front and r.key in at]
    if len(sweep.objectives) == 2 and on:
        step = "steps-pre" if sweep.objectives[0].more else "steps-post"
        ends = sorted(at[r.key] for r in on)
        axes.plot(*zip(*ends, strict=True), drawstyle=step, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    for r in on if len(on) <= LABELLED else ():
        told = " ".join(option(r, name) for name in sweep.vary)
        axes.annotate(told, at[r.key], xytext=(5, 5), textcoords="offset points", fontsize=6, color=INK)


def _draw_points(axes: Any, sweep: Sweep, points: list[Record], at: dict[str, tuple[float, ...]]) -> None:
    """Points coloured by the first option that was varied, where its values are few; those of the front outlined."""
    values = list(dict.fromkeys(option(r, sweep.vary[0]) for r in points)) if sweep.vary else []
    groups = values if 1 < len(values) <= len(COLOURS) else [None]
    for value, colour in zip(groups, COLOURS, strict=False):
        some = [r for r in points if value is None or option(r, sweep.vary[0]) == value]
        for front in (False, True):
            chosen = [at[r.key] for r in some if (r.key in sweep.front) == front]
            if chosen:
                size, line, alpha = (46, 1.1, 1.0) if front else (22, 0.0, 0.75)
                style = {"s": size, "color": colour, "edgecolor": INK, "linewidth": line, "alpha": alpha}
                axes.scatter(*zip(*chosen, strict=True), **style, zorder=2 + front)
        if value is not None:
            axes.scatter([], [], s=22, color=colour, label=f"{sweep.vary[0]} {value}")
    if any(r.key in sweep.front for r in points):
        labels = f": {' '.join(sweep.vary)}" if sweep.vary else ""
        axes.scatter([], [], s=46, color="white", edgecolor=INK, linewidth=1.1, label=f"front{labels}")
        axes.legend(frameon=False, fontsize=7)


def _save(plt: Any, figure: Any, path: Path) -> None:
    """Whole or not at all, and the same bytes every time."""
    about = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {"Software": None})
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / path.name
        figure.savefig(drawn, dpi=DPI, metadata=about)
        plt.close(figure)
        write_file(path, drawn.read_bytes())


def _unit(objective: Objective, most: float) -> tuple[float, str]:
    if objective.profile:
        return next((scale for scale in ENERGIES if most >= scale[0]), ENERGIES[-1])
    return (0.01, "%") if objective.name in ("accuracy", "weight_error") else (1.0, "")


def _label(objective: Objective, unit: str, points: list[Record]) -> str:
    least = "at least, " if any(objective.at_least(r) for r in points) else ""
    better = "more" if objective.more else "less"
    return f"{objective.name}{f' [{unit}]' if unit else ''} ({least}{better} is better)"
