"""Pictures of a run: raster of spikes, map of cores and links, load of cores over time. matplotlib, on first use."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import ToolNotFound
from nmc_compiler.program.model import Program

from ..cost import run_ticks
from ..counters import Counters
from ..layout import Layout
from ..recount import Chunk
from .rows import when

RASTER, CORES, LOAD = "raster.png", "cores.png", "load.png"
RASTER_TICKS = 240  # about so many ticks are shown
RASTER_ROWS = 24  # most rows of one population
COLUMNS = 600  # of the picture of loads
LABELLED = 64  # up to so many cores have their number in the map
DPI = 150
INK, FAINT, PAPER = "#333333", "#d9d9d9", "#f4f4f4"


def load_matplotlib() -> Any:
    """matplotlib without a display. ToolNotFound where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ToolNotFound("pictures need matplotlib: pip install 'nmc[plot]'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "nmc", "font.size": 8, "axes.edgecolor": INK, "axes.linewidth": 0.6})
    import matplotlib.pyplot

    return matplotlib.pyplot


def _save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def _colours(plt: Any, name: str = "viridis_r") -> Any:
    """A colour map that starts at paper: nothing looks like nothing."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("load", [PAPER, *plt.get_cmap(name)(np.linspace(0.05, 1, 32))])


def ticks_of(program: Program, count: int) -> int:
    """Ticks of a run of ``count`` samples, or timesteps of a stream."""
    return run_ticks(program, count) if program.timesteps else (count - 1) * program.ticks_per_step + program.depth + 1


# --- spikes over time -------------------------------------------------------------------------------------


class Raster:
    """Spikes of the first samples, or of the start of a stream: a band per population, a row per soma or group."""

    def __init__(self, path: Path, program: Program) -> None:
        self.plt, self.path, self.program = load_matplotlib(), path, program
        interval = program.interval if program.timesteps else program.ticks_per_step
        self.samples = max(RASTER_TICKS // interval, 1)  # or timesteps, of a stream
        self.shown = [i for i, p in enumerate(program.populations) if p.model != "readout"]
        self.size = {i: math.prod(program.populations[i].shape) for i in self.shown}
        rows = {i: min(n, RASTER_ROWS) for i, n in self.size.items()}
        self.hits = {i: np.zeros((rows[i], ticks_of(program, self.samples)), np.int64) for i in self.shown}
        self.events = dict.fromkeys(self.shown, 0)
        self.seen = 0

    def add(self, chunk: Chunk) -> None:
        """Take in the samples that are shown."""
        left = self.samples - chunk.first
        if left <= 0:
            return
        trace, T = chunk.trace, self.program.timesteps
        self.seen = min(chunk.first + (trace.samples if T else trace.steps), self.samples)
        for i, e in chunk.trace.events.items():
            early = e.step < left * max(T, 1)
            tick = when(self.program, chunk, e.step[early])[2] + self.program.populations[i].level
            row = e.soma[early].astype(np.int64) * len(self.hits[i]) // self.size[i]
            np.add.at(self.hits[i], (row, tick), 1)
            self.events[i] += int(early.sum())

    def close(self) -> None:
        """Draw."""
        height = max(2.4, 0.36 * len(self.shown) + 1.3)
        figure, axes = self.plt.subplots(figsize=(10, height), layout="constrained")
        last = ticks_of(self.program, max(self.seen, 1))
        for band, i in enumerate(self.shown):
            group = -(-self.size[i] // len(self.hits[i]))
            share = self.hits[i][:, :last] / group
            box = (-0.5, last - 0.5, band + 0.44, band - 0.44)
            image = axes.imshow(
                share, cmap=_colours(self.plt), vmin=0, vmax=1, aspect="auto", extent=box, interpolation="nearest"
            )
        axes.set(xlim=(-0.5, last - 0.5), ylim=(len(self.shown) - 0.5, -0.5), xlabel="tick")
        axes.set_yticks(range(len(self.shown)), [_short(self.program.populations[i].name) for i in self.shown])
        self._rates(axes)
        self._starts(axes)
        bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, aspect=30)
        bar.set_label("fraction of the row's somas that fired")
        axes.set_title(
            f"{self.program.name}: spikes of {self._what()}; a row is a soma, or a"
            f" group where a population has more than {RASTER_ROWS}",
            fontsize=9,
            pad=14,
        )
        _save(self.plt, figure, self.path)

    def _what(self) -> str:
        what = "sample" if self.program.timesteps else "timestep"
        return f"{self.seen} {what}{'s' if self.seen != 1 else ''}"

    def _rates(self, axes: Any) -> None:
        right = axes.secondary_yaxis("right")
        steps = max(self.program.timesteps, 1) * max(self.seen, 1)
        told = [f"{self.size[i]:,} somas, {100 * self.events[i] / self.size[i] / steps:.1f} %" for i in self.shown]
        right.set_yticks(range(len(self.shown)), told, fontsize=7, color=INK)
        right.tick_params(length=0)

    def _starts(self, axes: Any) -> None:
        for sample in range(self.seen if self.program.timesteps else 0):
            start = sample * self.program.interval
            axes.axvline(start - 0.5, color=INK, linewidth=0.6, linestyle=(0, (4, 3)))
            if self.seen <= 12:
                axes.annotate(f"sample {sample}", (start, -0.55), fontsize=6, va="bottom", annotation_clip=False)


# --- the mesh ---------------------------------------------------------------------------------------------


def _core_squares(program: Program, layout: Layout) -> tuple[np.ndarray, int]:
    """Lower left corner [cores, 2] of every core's square within its router's unit square; squares per side."""
    place = np.zeros(layout.cores, int) if program.mapping is None else program.mapping.cores[:, 3].astype(int)
    side = math.ceil(math.sqrt(int(place.max(initial=0)) + 1))
    corner = layout.mesh.at + np.stack([place % side, place // side], axis=1) / side * 0.76 + 0.12
    return corner, side


def _extent(layout: Layout) -> tuple[int, int, int, int]:
    """x0, x1, y0, y1 of the routers that are shown: those in use, and one more on each side where there is one."""
    width, height = layout.mesh.routers[0] * layout.mesh.chips, layout.mesh.routers[1]
    (x0, y0), (x1, y1) = layout.mesh.at.min(axis=0).tolist(), layout.mesh.at.max(axis=0).tolist()
    return max(x0 - 1, 0), min(x1 + 2, width), max(y0 - 1, 0), min(y1 + 2, height)


def _grid(axes: Any, layout: Layout) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    x0, x1, y0, y1 = _extent(layout)
    squares = [Rectangle((x + 0.06, y + 0.06), 0.88, 0.88) for x in range(x0, x1) for y in range(y0, y1)]
    axes.add_collection(PatchCollection(squares, facecolor="none", edgecolor=FAINT, linewidth=0.5))
    for chip in range(1, layout.mesh.chips):
        axes.axvline(chip * layout.mesh.routers[0], color=INK, linewidth=1.2)
    axes.set(xlim=(x0 - 0.1, x1 + 0.1), ylim=(y0 - 0.1, y1 + 0.1), aspect="equal")
    axes.set_xticks(np.arange(x0, x1) + 0.5, range(x0, x1))
    axes.set_yticks(np.arange(y0, y1) + 0.5, range(y0, y1))
    axes.tick_params(length=0, labelsize=6)
    for side in axes.spines.values():
        side.set_visible(False)


def _panel(plt: Any, axes: Any, program: Program, layout: Layout, title: str, values: np.ndarray) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    _grid(axes, layout)
    corner, side = _core_squares(program, layout)
    size = 0.76 / side * 0.94
    patches = PatchCollection([Rectangle(tuple(at), size, size) for at in corner], cmap=_colours(plt), linewidth=0.3)
    patches.set(array=values, edgecolor=INK, clim=(0, max(float(values.max(initial=0)), 1e-9)))
    axes.add_collection(patches)
    if layout.cores <= LABELLED:
        light = patches.to_rgba(values)[:, :3] @ (0.299, 0.587, 0.114)
        for core, at in enumerate(corner):
            colour = "white" if light[core] < 0.55 else INK
            axes.text(*(at + size / 2), str(core), fontsize=5, ha="center", va="center", color=colour)
    axes.set_title(title, fontsize=9)
    bar = axes.figure.colorbar(patches, ax=axes, fraction=0.04, pad=0.02)
    bar.formatter.set_powerlimits((-3, 4))


def _links(plt: Any, axes: Any, layout: Layout, packets: np.ndarray, unit: str) -> None:
    """Links as arrows beside the line between two routers, one for each direction."""
    _grid(axes, layout)
    used = np.flatnonzero(packets)
    router, direction = np.divmod(used, 4)
    x, y = np.divmod(router, layout.mesh.routers[1])
    step = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])[direction]
    beside = np.stack([-step[:, 1], step[:, 0]], axis=1) * 0.12
    start = np.stack([x, y], axis=1) + 0.5 + beside + step * 0.12
    arrows = axes.quiver(
        *start.T, *(step * 0.76).T, packets[used], cmap=_colours(plt), angles="xy", scale_units="xy", scale=1,
        width=0.006, headwidth=3.5, headlength=4, headaxislength=4, clim=(0, max(packets.max(initial=0), 1e-9)),
    )  # fmt: skip
    axes.set_title(f"packets over links, per {unit}", fontsize=9)
    bar = axes.figure.colorbar(arrows, ax=axes, fraction=0.04, pad=0.02)
    bar.formatter.set_powerlimits((-3, 4))


def draw_cores(
    path: Path, program: Program, layout: Layout, counters: Counters, links: np.ndarray, n: int, unit: str = "sample"
) -> None:
    """Heat map of cores and links: totals of ``n`` units per unit; links int64 [links] packets of the run."""
    plt, tables, n = load_matplotlib(), counters.tables, max(n, 1)

    def cores(*names: str) -> np.ndarray:
        return sum((tables[name][:, :-1].sum(axis=0) for name in names), np.zeros(layout.cores)) / n

    x0, x1, y0, y1 = _extent(layout)
    columns = 3 if x1 - x0 <= 10 else 2 if x1 - x0 <= 20 else 1
    inches = min(12 / columns / (x1 - x0), 9 / (y1 - y0), 0.8)  # inches of a router
    rows = math.ceil(5 / columns)
    size = columns * max((x1 - x0) * inches + 1, 3), rows * max((y1 - y0) * inches + 0.6, 1.2) + 0.4
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    panels = [
        (f"SynOps, per {unit}", cores("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")),
        (f"neuron updates, per {unit}", cores("neuron_updates")),
        (f"axon entries read, per {unit}", cores("axon_reads")),
        (f"packets sent, per {unit}", cores("packets")),
    ]
    flat = grid.reshape(-1)
    for axes, (title, values) in zip(flat, panels, strict=False):
        _panel(plt, axes, program, layout, title, values)
    _links(plt, flat[4], layout, links / n, unit)
    for axes in flat[5:]:
        axes.set_visible(False)
    about = f"{program.name} on {layout.cores} cores of {program.target.get('name', 'a target')}"
    mesh = f"{layout.mesh.chips} x {layout.mesh.routers[0]} x {layout.mesh.routers[1]}"
    figure.suptitle(f"{about}; squares are routers at (x, y), of {mesh} (chips, x, y)", fontsize=10)
    _save(plt, figure, path)


# --- load over time ---------------------------------------------------------------------------------------


class LoadMap:
    """SynOps and axon entries of every core over the ticks of a run, in COLUMNS columns at most.

    samples: how many the run has; of a stream, timesteps.
    """

    def __init__(self, path: Path, program: Program, layout: Layout, samples: int) -> None:
        self.plt, self.path, self.program = load_matplotlib(), path, program
        self.ticks = ticks_of(program, samples)
        self.per = -(-self.ticks // COLUMNS)
        self.sums = {name: np.zeros((layout.cores, -(-self.ticks // self.per))) for name in ("synops", "axons")}
        self.last = 0

    def add(self, first: int, synops: np.ndarray, updates: np.ndarray, axons: np.ndarray, links: np.ndarray) -> None:
        """Loads of consecutive ticks."""
        column = np.minimum((first + np.arange(len(synops))) // self.per, self.sums["synops"].shape[1] - 1)
        np.add.at(self.sums["synops"].T, column, synops)
        np.add.at(self.sums["axons"].T, column, axons)
        self.last = min(first + len(synops), self.ticks)

    def close(self) -> None:
        """Draw."""
        cores, columns = self.sums["synops"].shape[0], max(-(-self.last // self.per), 1)
        height = min(max(1.6, 0.06 * cores), 5)
        figure, grid = self.plt.subplots(2, 1, figsize=(10, 2 * height + 1), layout="constrained", sharex=True)
        names = {"synops": "SynOps per tick", "axons": "axon entries read per tick"}
        for axes, (key, title) in zip(grid, names.items(), strict=True):
            box = (-0.5, columns * self.per - 0.5, cores - 0.5, -0.5)
            values = self.sums[key][:, :columns] / self.per
            image = axes.imshow(
                values, cmap=_colours(self.plt), vmin=0, aspect="auto", extent=box, interpolation="nearest"
            )
            axes.set(ylabel="core", title=title)
            figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
        grid[1].set_xlabel("tick" if self.per == 1 else f"tick (a column is the mean of {self.per} ticks)")
        figure.suptitle(f"{self.program.name}: load of cores over time", fontsize=10)
        _save(self.plt, figure, self.path)
