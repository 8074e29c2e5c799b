"""Rows of the tables: spikes and potentials of a chunk of samples, loads of finished ticks."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import Program

from ..layout import Layout
from ..probe import Probe
from ..recount import Chunk
from .table import Table

SPIKES = ("sample", "timestep", "tick", "population", "c", "y", "x", "code")
PLACES = ("sample", "timestep", "tick", "population", "c", "y", "x")  # of potentials; behind them the states
CORES = ("tick", "core", "synops", "neuron_updates", "axon_reads")
LINKS = ("tick", "x", "y", "direction", "packets")
DIRECTIONS = ("east", "west", "north", "south")

Columns = dict[str, np.ndarray]


def when(program: Program, chunk: Chunk, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sample, timestep, tick of level 0) of timesteps counted within a chunk; a stream is one sample."""
    if program.timesteps == 0:
        t = chunk.first + step
        return np.zeros_like(t), t, t * program.ticks_per_step
    sample, t = chunk.first + step // program.timesteps, step % program.timesteps
    return sample, t, sample * program.interval + t * program.ticks_per_step


def _where(program: Program, population: int, soma: np.ndarray) -> Columns:
    c, y, x = np.unravel_index(soma, program.populations[population].shape)
    return {"population": np.full(len(soma), population), "c": c, "y": y, "x": x}


def spike_rows(program: Program, chunk: Chunk) -> Columns:
    """Events of a chunk, by sample, timestep, population and soma, whatever the size of chunks."""
    parts, order = [], []
    for i, e in sorted(chunk.trace.events.items()):
        sample, t, tick = when(program, chunk, e.step)
        code = np.ones(len(e), np.int32) if e.code is None else e.code
        time = {"sample": sample, "timestep": t, "tick": tick + program.populations[i].level}
        parts.append(time | _where(program, i, e.soma) | {"code": code})
        order.append(e.step * len(program.populations) + i)
    if not parts:
        return {name: np.zeros(0, np.int64) for name in SPIKES}
    by = np.argsort(np.concatenate(order), kind="stable")
    return {name: np.concatenate([p[name] for p in parts])[by] for name in SPIKES}


def potential_rows(program: Program, chunk: Chunk, probes: tuple[Probe, ...], states: tuple[str, ...]) -> Columns:
    """What probes saw in a chunk, by sample, timestep, and probe; ``states`` names the columns of potentials."""
    parts, order = [], []
    for n, probe in enumerate(probes):
        if probe.population not in chunk.potentials:
            continue
        seen = chunk.potentials[probe.population]  # [samples, T, somas, states]
        samples, steps, somas, kinds = seen.shape
        step = np.repeat(np.arange(samples * steps), somas)
        sample, t, tick = when(program, chunk, step)
        time = {"sample": sample, "timestep": t, "tick": tick + program.populations[probe.population].level}
        place = _where(program, probe.population, np.tile(probe.somas, samples * steps))
        parts.append(time | place | dict(zip(states, seen.reshape(-1, kinds).T, strict=True)))
        order.append(step * len(probes) + n)
    if not parts:
        return {name: np.zeros(0, np.int64) for name in (*PLACES, *states)}
    by = np.argsort(np.concatenate(order), kind="stable")
    return {name: np.concatenate([p[name] for p in parts])[by] for name in (*PLACES, *states)}


def add_core_rows(table: Table, first: int, synops: np.ndarray, updates: np.ndarray, axons: np.ndarray) -> None:
    """Loads of cores in consecutive ticks, from tick ``first`` on; rows of a core at rest are left out."""
    tick, core = np.nonzero(synops | updates | axons)
    work = {"synops": synops, "neuron_updates": updates, "axon_reads": axons}
    table.add({"tick": first + tick, "core": core} | {n: a[tick, core] for n, a in work.items()})


def add_link_rows(table: Table, layout: Layout, first: int, links: np.ndarray) -> None:
    """Packets over links in consecutive ticks; idle links are left out. (x, y): the router a link leaves."""
    tick, link = np.nonzero(links)
    router, direction = np.divmod(link, 4)
    x, y = np.divmod(router, layout.mesh.routers[1])
    columns = {"tick": first + tick, "x": x, "y": y, "direction": direction, "packets": links[tick, link]}
    table.add(columns)
