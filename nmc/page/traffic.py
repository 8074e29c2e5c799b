"""What the recorded events of a run show: a raster of its first sample, load over time, packets over each link."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc.recording import as_recorded, read_recording
from nmc_compiler.program.model import Program
from nmc_emulator.recount import Chunk
from nmc_emulator.tracing.sinks import Loads

DOTS = 6000  # of the whole raster
BINS = 240  # of load over time


@dataclass(frozen=True)
class Traffic:
    """raster: by population name, timesteps and somas of events, every ``stride``-th one.

    ticks: int64 [bins] each: ``synops`` and ``packets`` (over links) in so many ticks (``width``).  links: packets over
    each directed link (``Mesh.link``), copied per destination core.  routers: of the whole mesh.
    """

    raster: dict[str, Any]
    ticks: dict[str, np.ndarray]
    width: int
    links: np.ndarray
    routers: tuple[int, int]


class _Watch:
    """Adds up the loads of every tick."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, np.ndarray, np.ndarray]] = []

    def add(self, first: int, synops: np.ndarray, updates: np.ndarray, axons: np.ndarray, links: np.ndarray) -> None:
        """The ticks from ``first`` on."""
        self.parts.append((first, synops.sum(axis=1), links.sum(axis=1)))

    def close(self) -> None:
        """Nothing is open."""

    def binned(self) -> tuple[dict[str, np.ndarray], int]:
        """Sums over equal runs of ticks, and their length."""
        total = max((first + len(a) for first, a, _ in self.parts), default=0)
        width = max(-(-total // BINS), 1)
        found = {name: np.zeros(-(-total // width), np.int64) for name in ("synops", "packets")}
        for first, synops, packets in self.parts:
            at = (first + np.arange(len(synops))) // width
            np.add.at(found["synops"], at, synops)
            np.add.at(found["packets"], at, packets)
        return found, width


def traffic_of(program: Program, events: Path) -> Traffic:
    """Count the events of a recorded run of this Program. FrontendError for a damaged file."""
    recording = read_recording(events, program)
    program = as_recorded(program, recording.window)
    loads, watch = Loads(program, recording.steps), _Watch()
    loads.watchers.append(watch)  # type: ignore[arg-type]
    places = {name: i for i, name in enumerate(recording.populations)}
    raster: dict[str, Any] = {"populations": [], "stride": 1}
    for number, chunk in enumerate(recording.chunks()):
        if not number:
            raster = _raster(program, chunk, places)
        loads.add(chunk)
    loads.close()
    ticks, width = watch.binned()
    mesh = loads.recount.layout.mesh
    return Traffic(raster, ticks, width, loads.packets, (mesh.routers[0] * mesh.chips, mesh.routers[1]))


def _raster(program: Program, chunk: Chunk, places: dict[str, int]) -> dict[str, Any]:
    """Events of the first sample, of a stream of the first chunk."""
    steps = program.timesteps or chunk.trace.steps
    lists = []
    for p in program.populations:
        e = chunk.trace.events.get(places.get(p.name, -1))
        if e is not None and p.model not in ("input", "readout"):
            stop = int(np.searchsorted(e.step, steps))
            lists.append((p, e.step[:stop], e.soma[:stop]))
    stride = max(-(-sum(len(step) for _, step, _ in lists) // DOTS), 1)
    rows = [
        {
            "name": p.name,
            "somas": int(np.prod(p.shape)),
            "events": len(step),
            "step": step[::stride].tolist(),
            "soma": soma[::stride].tolist(),
        }
        for p, step, soma in lists
    ]
    return {"populations": rows, "stride": stride, "steps": int(steps)}
