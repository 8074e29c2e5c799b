"""Counters that depend on the Program alone: what happens in every timestep, and the dense twins."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import Population, Program, Transfer

from .counters import Counters
from .fanout import channel_segments, fan
from .layout import Layout
from .sites import EMPTY, Rulebooks, runtime_sites
from .synapses import in_degree
from .timing import CONV, DYNAMIC, SPARSE, Edge, Timing, multiplies, reading_role, synaptic_unit


def updates_per_core(program: Program, layout: Layout, population: int) -> np.ndarray:
    """Somas of a population per core, int64 [cores]."""
    found = np.zeros(layout.cores, np.int64)
    dendrite = program.populations[population].dendrite
    for piece in layout.pieces[dendrite] if dendrite >= 0 else ():
        found[piece.core] += piece.box.size
    return found


def biased_per_core(population: Population, layout: Layout) -> np.ndarray:
    found, given = np.zeros(layout.cores, np.int64), biased(population)
    for piece in layout.pieces[population.dendrite] if population.dendrite >= 0 and given.any() else ():
        channels, height, width = piece.box.shape
        found[piece.core] += np.count_nonzero(given[piece.box.c0 : piece.box.c1]) * height * width
    return found


def biased(population: Population) -> np.ndarray:
    """bool [C]: whether somas have a bias, at any timestep of a table."""
    table = None if population.cell is None else population.cell.bias
    values = population.bias if table is None else table.any(axis=0)
    return np.zeros(population.shape[0], bool) if values is None else values != 0


def _elements(size: int, kernel: int, stride: int, pad: int, lo: int, hi: int) -> int:
    """In-range window elements along one axis, summed over outputs lo..hi."""
    first = np.arange(lo, hi) * stride - pad
    return int((np.minimum(first + kernel, size) - np.maximum(first, 0)).clip(0).sum())


def transfer_per_core(program: Program, layout: Layout, t: Transfer) -> tuple[np.ndarray, np.ndarray]:
    """(pool_compares, accumulator_adds) of one timestep, each int64 [cores]."""
    compares, adds = np.zeros((2, layout.cores), np.int64)
    _, height, width = program.dendrites[t.src].shape
    for piece in layout.pieces[t.dst]:
        b = piece.box
        if t.mode == "sum":
            adds[piece.core] += (b.c1 - b.c0) * height * width
            continue
        tall = _elements(height, t.kernel[0], t.stride[0], t.pad[0], b.y0, b.y1)
        wide = _elements(width, t.kernel[1], t.stride[1], t.pad[1], b.x0, b.x1)
        compares[piece.core] += (b.c1 - b.c0) * tall * wide
        adds[piece.core] += b.size
    return compares, adds


def _dense_writes(program: Program, layout: Layout, index: int) -> np.ndarray:
    """Table writes of one timestep with every soma active, int64 [cores]."""
    d = program.dynamics[index]
    channels, height, width = program.populations[d.q].shape
    depth, tokens = channels // d.heads, height * width
    values = program.populations[d.v].shape[0] // d.heads
    found = np.zeros(layout.cores, np.int64)
    for piece in layout.pieces[d.dst]:
        b = piece.box
        if d.order == "kv":
            found[piece.core] += tokens * depth * (b.c1 - b.c0)
        else:
            heads = -(-b.c1 // values) - b.c0 // values
            found[piece.core] += heads * depth * tokens * (b.y1 - b.y0) * (b.x1 - b.x0)
    return found


def _dense_fan(program: Program, layout: Layout, e: Edge) -> np.ndarray:
    """Work of one timestep with every source soma active, by the fan-out table of the edge, int64 [cores]."""
    segments = channel_segments(program, layout, e.src, [e])
    table, found = fan(program, layout, e, segments), np.zeros(layout.cores, np.int64)
    np.add.at(found, table.core, table.dense(segments))
    return found


def _dense_synops(program: Program, layout: Layout, e: Edge) -> np.ndarray:
    """SynOps of one timestep with every source soma active, int64 [cores]."""
    if _own_sites(program, e):
        return np.zeros(layout.cores, np.int64)  # booked sample by sample
    if e.kind == CONV:
        return _dense_fan(program, layout, e)
    found, degree = np.zeros(layout.cores, np.int64), in_degree(program, program.sparses[e.index])
    for piece in layout.pieces[e.dst]:
        b = piece.box
        found[piece.core] += degree[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1].sum()
    return found


def static_counters(program: Program, layout: Layout, timing: Timing) -> Counters:
    """Everything about one sample that needs no events, dense twins included."""
    counters = Counters.zeros(program, layout.cores)
    tables, n, steps = counters.tables, layout.cores, program.timesteps
    for i, population in enumerate(program.populations):
        tables["neuron_updates"][i, :n] += updates_per_core(program, layout, i) * steps
        tables["bias_events"][i, :n] += biased_per_core(population, layout) * steps
    for i, transfer in enumerate(program.transfers):
        compares, adds = transfer_per_core(program, layout, transfer)
        tables["pool_compares"][i, :n] += compares * steps
        tables["accumulator_adds"][i, :n] += adds * steps
    book_dense(counters, program, layout, timing, 1)
    return counters


def _own_sites(program: Program, e: Edge) -> bool:
    """Whether how many somas of the source there can be is a matter of the sample."""
    return e.kind == CONV and runtime_sites(program) and program.populations[e.src].sites is not None


def book_dense_sites(
    counters: Counters, program: Program, layout: Layout, timing: Timing, rulebooks: Rulebooks
) -> None:
    """Add the dense twins of one sample with sites of its own: every soma on a site active in every timestep."""
    tables = counters.tables
    for e in (e for e in timing.edges if _own_sites(program, e)):
        name = "synops_mac_dense" if multiplies(program, e) else "synops_ac_dense"
        steps = max(program.timesteps - e.lag, 0)
        tables[name][synaptic_unit(program, e), : layout.cores] += _site_fan(program, layout, e, rulebooks) * steps


def _site_fan(program: Program, layout: Layout, e: Edge, rulebooks: Rulebooks) -> np.ndarray:
    """Work of one timestep with every soma on a site active, int64 [cores]."""
    conv, found = program.convs[e.index], np.zeros(layout.cores, np.int64)
    here = rulebooks.tables.tables[program.populations[e.src].sites].count  # type: ignore[index]
    for piece in layout.pieces[e.dst]:
        b = piece.box
        if conv.sites is None:  # from each slot to itself
            pairs = int(here[0]) if conv.collapse else min(max(int(here[0]) - b.y0, 0), b.y1 - b.y0)
        else:
            near = rulebooks.near[conv.sites]
            pairs = int(np.count_nonzero((near if conv.collapse else near[b.y0 : b.y1]) != EMPTY))
        found[piece.core] += pairs * conv.weight.shape[2] * (b.c1 - b.c0)
    return found


def book_dense(counters: Counters, program: Program, layout: Layout, timing: Timing, samples: int) -> None:
    """Add the dense twins: every source soma active in every timestep of ``samples`` samples."""
    tables, n = counters.tables, layout.cores
    for e in timing.edges:
        steps = max(program.timesteps - e.lag, 0) * samples
        if e.kind in (CONV, SPARSE):
            name = "synops_mac_dense" if multiplies(program, e) else "synops_ac_dense"
            tables[name][synaptic_unit(program, e), :n] += _dense_synops(program, layout, e) * steps
        elif e.kind == DYNAMIC and e.role == reading_role(program.dynamics[e.index].order):
            tables["dyn_writes_dense"][e.index, :n] += _dense_writes(program, layout, e.index) * steps
            tables["dyn_reads_dense"][e.index, :n] += _dense_fan(program, layout, e) * steps
