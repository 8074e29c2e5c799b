"""What one event of each soma brings about, for populations with synapses one by one.

Their somas do not share destinations in boxes as those of convolutions do, so that every soma has its own
axon entries and target cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Program, Sparse

from .counters import Counters
from .layout import HOST_TILE, Layout
from .synapses import box_mask, cut
from .timing import SPARSE, multiplies, synaptic_unit

ROWS = (
    "events",
    "payload_sum",
    "packets",
    "packets_local",
    "packets_in",
    "hops_ew",
    "hops_ns",
    "chip_crossings",
    "input_messages",
)


@dataclass(frozen=True)
class SomaTables:
    """Tables of one population of n somas, counted in C order over (C, H, W).

    home int64 [n]: core, -1 for the host.  Soma s meets ``entries[first[s]:first[s + 1]]``, rows (unit, core, delay,
    lag, synops, row of synops in the counters), int32; synops are those of Sparse projections only.
    It sends to the cores ``targets[sent[s]:sent[s + 1]]``, int32.  rows: those of ROWS in the counters.
    """

    home: np.ndarray
    first: np.ndarray
    entries: np.ndarray
    sent: np.ndarray
    targets: np.ndarray
    rows: np.ndarray


def _homes(program: Program, layout: Layout, population: int) -> tuple[np.ndarray, np.ndarray]:
    """(tile, core) of every soma; (HOST_TILE, -1) for an input."""
    p = program.populations[population]
    tile, core = np.full(p.shape, HOST_TILE, np.int64), np.full(p.shape, -1, np.int64)
    for q in layout.pieces[p.dendrite] if p.dendrite >= 0 else ():
        b = q.box
        tile[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = q.tile
        core[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = q.core
    return tile.reshape(-1), core.reshape(-1)


def soma_tables(program: Program, layout: Layout, counters: Counters, population: int) -> SomaTables:
    """The tables of a population."""
    tile, home = _homes(program, layout, population)
    shape = program.populations[population].shape
    degrees: dict[int, dict[int, np.ndarray]] = {}
    somas, entries = [np.zeros(0, np.int64)], [np.zeros((0, 6), np.int64)]
    for a in layout.axons[population]:
        met, e = box_mask(shape, a.box) & (tile == a.src_tile), a.edge
        synops, row = np.zeros(len(met), np.int64), 0
        if e.kind == SPARSE:
            if e.index not in degrees:
                degrees[e.index] = _degrees(program, layout, program.sparses[e.index])
            synops = degrees[e.index][a.tile]
            met &= synops > 0
            row = _row(counters, "synops_mac" if multiplies(program, e) else "synops_ac", synaptic_unit(program, e))
        at = np.flatnonzero(met)
        fixed = np.broadcast_to(np.array([e.unit, a.core, e.delay, e.lag]), (len(at), 4))
        somas.append(at)
        entries.append(np.column_stack([fixed, synops[at], np.full(len(at), row)]))
    return _sorted(counters, population, home, np.concatenate(somas), np.concatenate(entries).astype(np.int32))


def _degrees(program: Program, layout: Layout, s: Sparse) -> dict[int, np.ndarray]:
    """Synapses of every source soma on every tile that holds accumulators of the target, int64 [somas] by tile."""
    pieces, shape = layout.pieces[s.dst], program.dendrites[s.dst].shape
    holder, held = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for n, q in enumerate(pieces):
        b = q.box
        holder[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] = n
        held[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] += 1
    if (held != 1).any():  # held twice: a halo
        return {q.tile: np.diff(cut(program, s, q.box).indptr) for q in pieces}
    somas = len(s.indptr) - 1
    source = np.repeat(np.arange(somas), np.diff(s.indptr))
    found = np.bincount(holder.reshape(-1)[s.target] * somas + source, minlength=len(pieces) * somas)
    return {q.tile: row for q, row in zip(pieces, found.reshape(len(pieces), somas), strict=True)}


def _row(counters: Counters, name: str, unit: int) -> int:
    """Row of a table's unit in the counters' block."""
    return counters.cell(name, unit, 0) // (counters.cores + 1)


def _sorted(
    counters: Counters, population: int, home: np.ndarray, somas: np.ndarray, entries: np.ndarray
) -> SomaTables:
    """Entries by soma, and their cores, each once per soma."""
    order = np.argsort(somas, kind="stable")
    somas, entries = somas[order], entries[order]
    pairs = np.sort(somas * counters.cores + entries[:, 1])
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    source, targets = np.divmod(pairs, counters.cores)
    ends = np.arange(len(home) + 1)
    rows = np.array([_row(counters, name, population) for name in ROWS], np.int64)
    first, sent = np.searchsorted(somas, ends), np.searchsorted(source, ends)
    return SomaTables(home, first, entries, sent, targets.astype(np.int32), rows)
