"""All that is written about a run while it goes on: chunks of samples in, files out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from ..probe import STATES, Probe
from ..recount import Chunk, Recount
from ..trace import Trace
from .chrome import Timeline
from .plots import CORES as CORE_MAP
from .plots import LOAD, RASTER, LoadMap, Raster
from .rows import (
    CORES,
    DIRECTIONS,
    LINKS,
    PLACES,
    SPIKES,
    add_core_rows,
    add_link_rows,
    potential_rows,
    spike_rows,
)
from .table import TABLES, Table
from .vcd import Vcd

FORMATS = ("csv", "parquet", "chrome")
TIMELINE, PROBES = "timeline.json", "probes.vcd"


class Sink(Protocol):
    """Takes the chunks of a run, in order."""

    def add(self, chunk: Chunk) -> object:
        """The next samples."""

    def close(self) -> object:
        """There are no more."""


@dataclass
class Spikes:
    """Events, and potentials of probed somas where there are any, as tables."""

    program: Program
    spikes: Table
    probes: tuple[Probe, ...] = ()
    states: tuple[str, ...] = ()
    potentials: Table | None = None

    def add(self, chunk: Chunk) -> None:
        """Append the rows of a chunk."""
        self.spikes.add(spike_rows(self.program, chunk))
        if self.potentials is not None:
            self.potentials.add(potential_rows(self.program, chunk, self.probes, self.states))

    def close(self) -> None:
        """Close the files."""
        self.spikes.close()
        if self.potentials is not None:
            self.potentials.close()


class Loads:
    """What cores and links do tick by tick, counted from the events, for everyone who asks."""

    def __init__(self, program: Program, steps: int = 0) -> None:
        self.recount = Recount(program, self._ticks, steps)
        self.tables: list[tuple[Table, Table]] = []
        self.packets = np.zeros(self.recount.layout.mesh.links, np.int64)  # over each link in the whole run
        self.watchers: list[Timeline | LoadMap] = []

    def _ticks(self, first: int, synops: np.ndarray, updates: np.ndarray, axons: np.ndarray, links: np.ndarray) -> None:
        self.packets += links.sum(axis=0)
        for cores, wires in self.tables:
            add_core_rows(cores, first, synops, updates, axons)
            add_link_rows(wires, self.recount.layout, first, links)
        for watcher in self.watchers:
            watcher.add(first, synops, updates, axons, links)

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.recount.add(chunk)

    def close(self) -> None:
        """Ticks that were still open, then the end of the files."""
        self.recount.finish()
        for pair in self.tables:
            for table in pair:
                table.close()
        for watcher in self.watchers:
            watcher.close()


def _spikes(
    program: Program, folder: Path, form: str, probes: tuple[Probe, ...], states: Mapping[int, tuple[str, ...]]
) -> Spikes:
    names = {"population": tuple(p.name for p in program.populations)}
    kind, columns = TABLES[form], next(iter(states.values()), ())
    potentials = kind(folder / f"potentials.{form}", (*PLACES, *columns), names) if columns else None
    return Spikes(program, kind(folder / f"spikes.{form}", SPIKES, names), probes, columns, potentials)


def open_sinks(
    program: Program,
    folder: Path,
    formats: tuple[str, ...] = (),
    probes: tuple[Probe, ...] = (),
    picture: int = 0,
    steps: int = 0,
    states: Mapping[int, tuple[str, ...]] | None = None,
) -> tuple[list[Sink], Loads | None]:
    """The files of a run in ``folder``, and who counts the loads, where someone asks for them.

    Tables and timeline as ``formats`` (FORMATS) say, a VCD of ``probes``, pictures of a run of ``picture`` samples
    (all but the map of cores, which ``plots.draw_cores`` makes of the finished run). steps: timesteps of a stream.
    states: what chunks hold of probed populations (default: all that ``probe.Tap`` gives). ToolNotFound where a package
    is missing.
    """
    if states is None:
        states = {p.population: STATES for p in probes if program.populations[p.population].dendrite >= 0}
    tables = [f for f in formats if f in TABLES]
    sinks: list[Sink] = [_spikes(program, folder, form, probes, states) for form in tables]
    if probes:
        sinks.append(Vcd(folder / PROBES, program, probes, states))
    if picture:
        sinks.append(Raster(folder / RASTER, program))
    if not (tables or picture or "chrome" in formats):
        return sinks, None
    loads = Loads(program, steps)
    for form in tables:
        cores = TABLES[form](folder / f"core_load.{form}", CORES, {})
        loads.tables.append((cores, TABLES[form](folder / f"link_load.{form}", LINKS, {"direction": DIRECTIONS})))
    if "chrome" in formats:
        loads.watchers.append(Timeline(folder / TIMELINE, program, loads.recount.layout))
    if picture:
        loads.watchers.append(LoadMap(folder / LOAD, program, loads.recount.layout, steps or picture))
    return [*sinks, loads], loads


def write_trace(
    program: Program,
    trace: Trace,
    folder: str | os.PathLike[str],
    formats: tuple[str, ...] = ("csv",),
    probes: tuple[Probe, ...] = (),
    *,
    potentials: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    picture: bool = False,
) -> None:
    """Write files about a run whose events are in memory, of any engine, streams too.

    folder is made if it is not there.  formats: of FORMATS.  probes: somas whose spikes go to a VCD.
    potentials: u and v of probed somas, as ``EventResult`` has them.  picture: also ``raster.png`` and ``load.png``.

    UsageError for a Program with currents from the host, which a trace does not hold: trace it while it runs.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    steps = 0 if program.timesteps else trace.steps
    held = _held(program, trace, probes, potentials or {})
    known = dict.fromkeys(held, ("u", "v"))
    sinks, _ = open_sinks(program, path, formats, probes, trace.samples if picture else 0, steps, known)
    for sink in sinks:
        sink.add(Chunk(0, trace, potentials=held))
        sink.close()


def _held(
    program: Program,
    trace: Trace,
    probes: tuple[Probe, ...],
    potentials: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[int, np.ndarray]:
    """Potentials as chunks hold them. UsageError where they are not those of the probes."""
    found = {}
    for probe in probes:
        name = program.populations[probe.population].name
        if name in potentials:
            both = np.stack(potentials[name], axis=-1)
            if both.shape != (trace.steps, len(probe.somas), 2):
                raise UsageError(
                    f"potentials of '{name}' have shape {list(both.shape[:-1])}, but {trace.steps} timesteps of"
                    f" {len(probe.somas)} somas are probed"
                )
            found[probe.population] = both.reshape(trace.samples, -1, *both.shape[1:])
    return found


ALL_FILES = (
    *(f"{name}.{form}" for form in TABLES for name in ("spikes", "potentials", "core_load", "link_load")),
    TIMELINE,
    PROBES,
    RASTER,
    LOAD,
    CORE_MAP,
)
