"""Where things lie: our (C, H, W), Lava's (X, Y, C), and synapses one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.program.model import Conv, Map, Program, Shape, Sparse
from nmc_compiler.program.shapes import channel_blocks, conv_windows

MAX_SYNAPSES = 1 << 26  # of one projection written out one by one


@dataclass(frozen=True)
class Part:
    """A Process that stands for some channels of a population or dendrite."""

    process: str
    channels: np.ndarray  # int64, ascending

    def shape(self, whole: Shape) -> list[int]:
        """(X, Y, channels of this part)."""
        return [whole[2], whole[1], len(self.channels)]


@dataclass(frozen=True)
class Synapses:
    """One entry each: source and target soma, counted in C order over (C, H, W); ``extra`` timesteps later."""

    source: np.ndarray  # int64
    target: np.ndarray  # int64
    weight: np.ndarray  # int64
    extra: np.ndarray  # int64


def numbers(shape: Shape, channels: np.ndarray) -> np.ndarray:
    """Lava's number, in C order over (X, Y, channels), of every soma in our order; -1 where not of the part."""
    c, h, w = shape
    found = np.full(shape, -1, np.int64)
    lava = np.arange(w * h * len(channels)).reshape(w, h, len(channels))
    found[channels] = lava.transpose(2, 1, 0)
    return found.reshape(-1)


def synapses_of(program: Program, item: Conv | Map | Sparse) -> Synapses:
    """All synapses of a projection. LoweringError where they are too many."""
    if isinstance(item, Sparse):
        source = np.repeat(np.arange(len(item.indptr) - 1), np.diff(item.indptr))
        extra = np.zeros(len(source), np.int64) if item.extra is None else item.extra.astype(np.int64)
        return Synapses(source, item.target.astype(np.int64), item.weight.astype(np.int64), extra)
    pieces = list(_conv(program, item) if isinstance(item, Conv) else _map(program, item))
    if not pieces:
        return Synapses(*(np.zeros(0, np.int64) for _ in range(4)))
    source, target, weight = (np.concatenate([p[k].reshape(-1) for p in pieces]) for k in range(3))
    keep = weight != 0
    return Synapses(source[keep], target[keep], weight[keep], np.zeros(int(keep.sum()), np.int64))


Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def _conv(program: Program, conv: Conv) -> Iterator[Entries]:
    shape, (rows, columns) = program.populations[conv.src].shape, conv.out_hw
    _, _, per_group, outs = conv.weight.shape
    if rows * columns * conv.weight.size > MAX_SYNAPSES:
        raise LoweringError(
            f"projection '{conv.name}': {rows * columns * conv.weight.size} synapses one by one, but Lava's Conv"
            " cannot stand for it (its sum may leave 24 bits, it adds over positions, or it has a third axis); at most"
            f" {MAX_SYNAPSES}"
        )
    o, i = np.meshgrid(np.arange(outs), np.arange(per_group), indexing="ij")
    channel = o // (outs // conv.groups) * per_group + i
    windows = conv_windows(conv, shape)
    place = np.arange(rows * columns).reshape(-1, 1, 1)
    out = np.unravel_index(place, [w.out for w in windows])
    taps = np.ndindex(*(w.kernel for w in windows))
    for tap, kernel in zip(taps, conv.weight.reshape(-1, per_group, outs), strict=True):
        at = [n * w.stride - w.pad + k * w.dilation for n, k, w in zip(out, tap, windows, strict=True)]
        inside = np.logical_and.reduce([(n >= 0) & (n < w.size) for n, w in zip(at, windows, strict=True)]).reshape(-1)
        line = at[0] * windows[1].size + at[1]
        source = ((channel * shape[1] + line) * shape[2] + at[2])[inside]
        target = o + 0 * source if conv.collapse else (o * rows * columns + place)[inside]
        yield source, target, np.broadcast_to(kernel.T.astype(np.int64), source.shape)


def _map(program: Program, item: Map) -> Iterator[Entries]:
    shape, out = program.populations[item.src].shape, program.dendrites[item.dst].shape
    at, to = np.arange(int(np.prod(shape))).reshape(shape), np.arange(int(np.prod(out))).reshape(out)
    if item.mode == "window":
        yield from _windows(item, at, to)
        return
    inputs, outputs = channel_blocks(shape, out)
    at, to = at.repeat(outputs, axis=0), to.repeat(inputs, axis=0)
    wide = np.broadcast_shapes(at.shape, to.shape)
    source, target = np.broadcast_to(at, wide), np.broadcast_to(to, wide)
    yield source, target, np.ones(wide, np.int64)


def _windows(item: Map, at: np.ndarray, to: np.ndarray) -> Iterator[Entries]:
    _, height, width = at.shape
    _, rows, columns = to.shape
    for ky in range(item.kernel[0]):
        for kx in range(item.kernel[1]):
            y = np.arange(rows) * item.stride[0] - item.pad[0] + ky
            x = np.arange(columns) * item.stride[1] - item.pad[1] + kx
            down, across = (y >= 0) & (y < height), (x >= 0) & (x < width)
            source = at[:, y[down]][:, :, x[across]]
            yield source, to[:, down][:, :, across], np.ones(source.shape, np.int64)
