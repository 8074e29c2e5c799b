"""Fan-out tables: what one event costs at each tile, as products of channel, row and column factors.

The work that an event at (c, y, x) causes on a tile factorises: ``channels[c] * rows[y] *
columns[x]``, and ``channels`` is constant over segments of channels. So counters follow from event
counts per (segment, y, x) instead of being taken event by event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Box, Conv, Map, Program
from nmc_compiler.program.shapes import Window, channel_blocks, conv_windows

from .bounds import INT32
from .layout import Layout, Piece
from .sites import degrees, near_of
from .timing import CONV, DYNAMIC, MAP, SPARSE, Edge


@dataclass(frozen=True)
class Fan:
    """Work per event of one edge on each piece of its target dendrite, D pieces in all.

    channels int64 [D, S], rows [D, H], columns int32 [D, W], int64 where the work of a row of a segment needs it;
    extent [D, 4] the rows y0:y1 and columns x0:x1 outside of which nothing is done; core [D].
    """

    channels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    extent: np.ndarray
    core: np.ndarray

    def dense(self, segments: np.ndarray) -> np.ndarray:
        """Work [D] if every soma of the source were active."""
        return (self.channels * np.diff(segments)).sum(1) * self.rows.sum(1) * self.columns.sum(1, dtype=np.int64)


def _outputs(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """Output position [size, kernel] along one axis that each tap carries each input position to; -1: none."""
    at = np.arange(size)[:, None] + pad - np.arange(kernel)[None, :] * dilation
    return np.where((at % stride == 0) & (at >= 0) & (at < out * stride), at // stride, -1)


def _hits(outputs: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Taps that carry each input position to an output position in [lo, hi), lo >= 0."""
    return ((outputs >= lo) & (outputs < hi)).sum(1)


def _conv_axes(shape: tuple[int, int, int], c: Conv, b: Box) -> tuple[np.ndarray, np.ndarray]:
    (ho, wo), (slices, rows, columns) = c.out_hw, conv_windows(c, shape)
    y, x = ((0, ho), (0, wo)) if c.collapse else ((b.y0, b.y1), (b.x0, b.x1))
    down = _outputs(*rows) if c.depth is None else _rows(slices, rows)
    return _hits(down, *y), _hits(_outputs(*columns), *x)


def _rows(slices: Window, rows: Window) -> np.ndarray:
    """As `_outputs`, for all rows of a volume and the taps of both axes."""
    z, y = _outputs(*slices)[:, None, :, None], _outputs(*rows)[None, :, None, :]
    return np.where((z >= 0) & (y >= 0), z * rows.out + y, -1).reshape(slices.size * rows.size, -1)


def _between(size: int, lo: int, hi: int) -> np.ndarray:
    at = np.arange(size)
    return ((at >= lo) & (at < hi)).astype(np.int64)


def _map_axes(shape: tuple[int, int, int], m: Map, out: tuple[int, ...], b: Box) -> tuple[np.ndarray, np.ndarray]:
    if m.mode in ("same", "reduce_channels", "broadcast_channels"):
        return _between(shape[1], b.y0, b.y1), _between(shape[2], b.x0, b.x1)
    if m.mode == "reduce":
        return np.ones(shape[1], np.int64), np.ones(shape[2], np.int64)
    if m.mode == "broadcast":
        return np.array([b.y1 - b.y0]), np.array([b.x1 - b.x0])
    rows = _outputs(shape[1], out[1], m.kernel[0], m.stride[0], m.pad[0], 1)
    columns = _outputs(shape[2], out[2], m.kernel[1], m.stride[1], m.pad[1], 1)
    return _hits(rows, b.y0, b.y1), _hits(columns, b.x0, b.x1)


def _overlap(lo: int, hi: int, b: Box) -> int:
    return max(0, min(hi, b.c1) - max(lo, b.c0))


def _channel_work(program: Program, e: Edge, c: int, b: Box) -> int:
    """Factor of channel c of an event: target channels that it reaches on the tile."""
    if e.kind == CONV:
        conv = program.convs[e.index]
        outs = conv.weight.shape[3] // conv.groups
        group = c // conv.weight.shape[2]
        return _overlap(group * outs, (group + 1) * outs, b)
    if e.kind == MAP:
        ins, outs = channel_blocks(program.populations[e.src].shape, program.dendrites[e.dst].shape)
        return _overlap(c // ins * outs, (c // ins + 1) * outs, b)
    d = program.dynamics[e.index]
    width = program.populations[d.v].shape[0] // d.heads
    if d.order == "kv":  # q reads as many words as the tile has channels of its head
        head = c // (program.populations[d.q].shape[0] // d.heads)
        return _overlap(head * width, (head + 1) * width, b)
    return _overlap(c, c + 1, b) * (b.y1 - b.y0) * (b.x1 - b.x0)  # v reads a word per token of the tile


def near_of_edge(program: Program, e: Edge) -> np.ndarray | None:
    """Rulebook of a convolution between the sites of a fixed cloud, empty where they are each sample's own."""
    window = program.convs[e.index].sites if e.kind == CONV else None
    return None if window is None else near_of(program, window)


def _between_sites(near: np.ndarray, c: Conv, sources: int, b: Box) -> tuple[np.ndarray, np.ndarray]:
    return degrees(near if c.collapse else near[b.y0 : b.y1], sources), np.ones(1, np.int64)


def _axes(program: Program, e: Edge, b: Box, near: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    shape = program.populations[e.src].shape
    if e.kind == CONV:
        conv = program.convs[e.index]
        return _conv_axes(shape, conv, b) if near is None else _between_sites(near, conv, shape[1], b)
    if e.kind == MAP:
        return _map_axes(shape, program.maps[e.index], program.dendrites[e.dst].shape, b)
    if program.dynamics[e.index].order == "kv":
        return _between(shape[1], b.y0, b.y1), _between(shape[2], b.x0, b.x1)
    return np.ones(shape[1], np.int64), np.ones(shape[2], np.int64)


def fan(program: Program, layout: Layout, e: Edge, segments: np.ndarray) -> Fan:
    """Fan-out table of an edge that adds to accumulators (for a Dynamic: the reading one)."""
    pieces = layout.pieces[e.dst]
    near = near_of_edge(program, e)
    axes = [_axes(program, e, p.box, near) for p in pieces]
    rows = np.array([a[0] for a in axes], np.int64)
    columns = np.array([a[1] for a in axes], np.int64)
    if (columns.sum(1) * np.diff(segments).max(initial=0)).max(initial=0) <= INT32:
        columns = columns.astype(np.int32)
    starts = segments[:-1].tolist()
    channels = np.array([[_channel_work(program, e, c, p.box) for c in starts] for p in pieces], np.int64)
    extent = np.array([[*_extent(r), *_extent(c)] for r, c in zip(rows, columns, strict=True)], np.int64)
    return Fan(channels, rows, columns, extent, np.array([p.core for p in pieces], np.int64))


def _extent(factors: np.ndarray) -> tuple[int, int]:
    used = np.flatnonzero(factors)
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)


def _breaks(program: Program, e: Edge, piece: Piece) -> list[int]:
    """Source channels at which the channel factor of an edge may change on one piece."""
    b = piece.box
    if e.kind == CONV:
        conv = program.convs[e.index]
        ins, outs = conv.weight.shape[2], conv.weight.shape[3] // conv.groups
        return [ins * at for at in (b.c0 // outs, -(-b.c0 // outs), b.c1 // outs, -(-b.c1 // outs))]
    if e.kind == MAP:
        ins, outs = channel_blocks(program.populations[e.src].shape, program.dendrites[e.dst].shape)
        return [ins * at for at in (b.c0 // outs, -(-b.c0 // outs), b.c1 // outs, -(-b.c1 // outs))]
    heads = program.dynamics[e.index].heads
    width = program.populations[e.src].shape[0] // heads
    return [h * width for h in range(heads)] + ([b.c0, b.c1] if e.role == 2 else [])


def channel_segments(program: Program, layout: Layout, population: int, edges: list[Edge]) -> np.ndarray:
    """Bounds [S + 1] of channel ranges on which every counter of a population is uniform; before synapses one by one
    that is every channel."""
    channels = program.populations[population].shape[0]
    if any(e.kind == SPARSE for e in edges):
        return np.arange(channels + 1)
    found = {0, channels}
    for axon in layout.axons[population]:
        found |= {axon.box.c0, axon.box.c1}
    dendrite = program.populations[population].dendrite
    for piece in layout.pieces[dendrite] if dendrite >= 0 else ():
        found |= {piece.box.c0, piece.box.c1}
    for e in edges:
        for piece in layout.pieces[e.dst]:
            found |= {c for c in _breaks(program, e, piece) if 0 < c < channels}
    return np.array(sorted(found), np.int64)


__all__ = ["DYNAMIC", "Fan", "channel_segments", "fan"]
