"""The flat tables that the event engine's kernels work on, and what their columns mean.

Somas and accumulators are counted channel-last (y, x, c) within a population or dendrite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

INPUT, LIF, LIF_UNIFORM, LIF_FULL, LIF_REAL, SIGMA_DELTA, RELAY, READOUT, CELL = range(9)  # kinds of populations
ENDLESS = 2**60  # timesteps, and ticks of the interval, of a stream
NOWHERE = -1  # a place in a pool that a population has no part of


def _record(*names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names])


POP = _record(
    *("kind", "size", "soma", "dendrite", "level", "event", "coded", "recorded", "leak_v", "leak_u", "every", "phase"),
    *("state", "ternary", "relu", "cumulative", "out_shift", "fan", "rule", "cell"),
)  # soma, event, coded, state: where its somas, and its parts of ring, ring_code, and u or sigma begin; fan:
# row of its only Sparse in the load tables, where ``paths`` are used; rule: of u beyond 24 bits, 0 for Lava's;
# cell: its row of ``cells``
DEND = _record("first", "length", "ring", "last")  # last: level of the last read
EDGE = _record(
    *("convolved", "source", "target", "delay", "lag", "gain", "graded"),
    *("row", "indptr"),  # Sparse: where its rows of load tables and of ``indptr`` start
    *("axons", "axons_end", "taps", "form"),  # Conv: its axon rows, weights and geometry
)
MOVE = _record("src", "dst", "level", "rshift")
FORM = _record(
    *("channels", "height", "width", "out_h", "out_w", "kh", "kw", "stride_y", "stride_x", "pad_y", "pad_x"),
    *("dilation_y", "dilation_x", "depth", "out_d", "kd", "stride_z", "pad_z", "dilation_z", "groups", "outs"),
)  # height, out_h, kh: of one slice; kd 0: a plane
AXON = _record(
    *("core", "c0", "c1", "y0", "y1", "x0", "x1"),  # the source box
    *("to_c0", "to_c1", "to_y0", "to_y1", "to_x0", "to_x1"),  # what the tile holds of the target
)
CELL_SIZES = _record("channels", "depth", "rows", "values", "thresholds")  # C, D, timesteps; starts in the pool
CLOCK = _record("timesteps", "ticks", "interval", "samples")


class Net(NamedTuple):
    """What a run does not change.

    Records: pops POP, dends DEND, edges EDGE, moves MOVE (by level), forms FORM and axons AXON of
    Convs, clock CLOCK [1], cells CELL_SIZES.  forms_of_cells int64 [cells, FORM] and cell_pool int64: the tables of
    ``kernels.cell``.  bias, theta, low int32 [somas] (membrane units).  start_u, start_v int32
    [somas or 0].  indptr int64, target uint32, weight int8 or int16, extra uint8 or None:
    the synapses of all Sparses.  taps int8: weights [kd * kh, kw, C_in // groups, C_out] of all Convs.
    synapses, entries int8 or int32 [rows, cores, padded]: SynOps and axon entries of one event of a
    Sparse's source soma; entries None: one wherever there are synapses.  Packets over links, one of two
    ways: crossed [somas, links, padded] int8 or int32: those of one event over each link; or, where that
    would be large, home int16 [somas] and the links from core to core, path_start int32
    [cores * cores + 1], paths int32.  homes int32 [P, cores]: somas per core.
    """

    pops: np.ndarray
    dends: np.ndarray
    edges: np.ndarray
    moves: np.ndarray
    clock: np.ndarray
    bias: np.ndarray
    theta: np.ndarray
    low: np.ndarray
    start_u: np.ndarray
    start_v: np.ndarray
    indptr: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    extra: np.ndarray | None
    taps: np.ndarray
    forms: np.ndarray
    axons: np.ndarray
    synapses: np.ndarray
    entries: np.ndarray | None
    crossed: np.ndarray
    home: np.ndarray
    path_start: np.ndarray
    paths: np.ndarray
    homes: np.ndarray
    cells: np.ndarray
    forms_of_cells: np.ndarray
    cell_pool: np.ndarray


class State(NamedTuple):
    """What ticks change; a copy of it is a checkpoint.

    acc int32 or int64: rings of all dendrites.  v int32 [somas]; of the populations that have them: u
    int64, sigma int32 [4, .] (sigma, act, residue, error), real float64 [2, .] (u, v in real
    arithmetic), cell int64 (for each population [PARTS, positions, C] of ``kernels.cell``).  ring int32:
    events of the last ticks, per population [slots, somas], ring_code their codes; listed int64 [P, slots]
    how many. fired, paid int64 [somas]: events and sums of |code|; missed int64 [rows]: events that arrived
    after their window; done int64 [A, 3]: SynOps, events met and events wasted of each axon row of a Conv;
    over int64 [P, 4] overflows; out int64 [samples, .] the readout's v after each window; bound int64 [4]
    sums over ticks of the largest loads.
    """

    acc: np.ndarray
    v: np.ndarray
    u: np.ndarray
    sigma: np.ndarray
    real: np.ndarray
    cell: np.ndarray
    ring: np.ndarray
    ring_code: np.ndarray
    listed: np.ndarray
    fired: np.ndarray
    paid: np.ndarray
    missed: np.ndarray
    done: np.ndarray
    over: np.ndarray
    out: np.ndarray
    bound: np.ndarray


class Scratch(NamedTuple):
    """Loads of the current tick, int32 [cores] or [links], padded; synops and reads are those of Sparses, those
    of Convs, which may leave 32 bits, are convolved int64 [2, cores]; met int32 [cores, cores]: packets from core
    to core; spans for ``add_rows``; codes and spikes of one population."""

    synops: np.ndarray
    reads: np.ndarray
    convolved: np.ndarray
    updates: np.ndarray
    links: np.ndarray
    met: np.ndarray
    spans: np.ndarray
    codes: np.ndarray
    spikes: np.ndarray


class Feed(NamedTuple):
    """Events from outside: of population p in tick ``first + k``, entries start[p, k]:start[p, k + 1]."""

    first: int
    start: np.ndarray
    soma: np.ndarray
    code: np.ndarray


class Record(NamedTuple):
    """Recorded events, ``n`` [1] of them, and potentials: probes int64 [n, 2] (population, soma), u, v int64, or
    float64 in real arithmetic, [n, ticks]."""

    n: np.ndarray
    step: np.ndarray
    population: np.ndarray
    soma: np.ndarray
    code: np.ndarray
    probes: np.ndarray
    u: np.ndarray
    v: np.ndarray
