"""The synapses of a projection one by one, whatever its kind."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nmc_compiler.program.model import Conv, Map, Shape, Sparse
from nmc_compiler.program.shapes import Window, channel_blocks, conv_windows

Axis = tuple[np.ndarray, np.ndarray, np.ndarray]  # source, target and tap of every pair that meets


class Synapses(NamedTuple):
    """Flat arrays, one entry per synapse; somas and accumulators in C order over (C, H, W)."""

    source: np.ndarray  # int64
    target: np.ndarray  # int64, accumulators of the dendrite
    weight: np.ndarray  # int64, before the shift
    extra: np.ndarray  # int64, timesteps beyond the projection's own delay


def synapses_of(item: Conv | Map | Sparse, src: Shape, dst: Shape) -> Synapses:
    """Every synapse of ``item`` between a population and a dendrite of these shapes.

    Zero weights that nothing changes are left out.
    """
    if isinstance(item, Sparse):
        source = np.repeat(np.arange(math.prod(src)), np.diff(item.indptr))
        extra = np.zeros(len(source), np.int64) if item.extra is None else item.extra.astype(np.int64)
        found = Synapses(source, item.target.astype(np.int64), item.weight.astype(np.int64), extra)
    else:
        source, target, weight = _conv(item, src, dst) if isinstance(item, Conv) else _map(item, src, dst)
        found = Synapses(source, target, weight, np.zeros(len(source), np.int64))
    if isinstance(item, Sparse) and item.rule is not None:
        return found
    kept = found.weight != 0
    return found if kept.all() else Synapses(*(array[kept] for array in found))


def meetings(window: Window) -> Axis:
    """Source, output and tap of every pair along one axis that a tap joins."""
    out, tap = (a.ravel() for a in np.meshgrid(np.arange(window.out), np.arange(window.kernel), indexing="ij"))
    source = out * window.stride - window.pad + tap * window.dilation
    inside = (source >= 0) & (source < window.size)
    return source[inside], out[inside], tap[inside]


def _conv(conv: Conv, src: Shape, dst: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slices, rows, columns = conv_windows(conv, src)
    source, target, tap = _product(meetings(slices), meetings(rows), rows)
    source, target, tap = _product((source, target, tap), meetings(columns), columns)
    if conv.collapse:
        target = np.zeros_like(target)
    weight = conv.weight.reshape(-1, *conv.weight.shape[2:]).astype(np.int64)  # taps, inputs of a group, outputs
    inputs, outputs = src[0] // conv.groups, dst[0] // conv.groups
    i, o = (a.ravel() for a in np.meshgrid(np.arange(src[0]), np.arange(outputs), indexing="ij"))
    o = i // inputs * outputs + o
    places, targets = math.prod(src[1:]), math.prod(dst[1:])
    return (
        (i[:, None] * places + source).ravel(),
        (o[:, None] * targets + target).ravel(),
        weight[tap[None, :], (i % inputs)[:, None], o[:, None]].ravel(),
    )


def _product(outer: Axis, inner: Axis, size: Window) -> Axis:
    """Pairs along two axes, the inner one of that size running fastest."""
    joined = [a[:, None] * n + b for a, b, n in zip(outer, inner, (size.size, size.out, size.kernel), strict=True)]
    return joined[0].ravel(), joined[1].ravel(), joined[2].ravel()


def _map(item: Map, src: Shape, dst: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places, targets = math.prod(src[1:]), math.prod(dst[1:])
    inputs, outputs = channel_blocks(src, dst)
    if item.mode in ("same", "reduce_channels", "broadcast_channels"):
        source = target = np.arange(places)
    elif item.mode == "window":
        axes = [Window(src[1 + a], dst[1 + a], item.kernel[a], item.stride[a], item.pad[a], 1) for a in (0, 1)]
        source, target, _ = _product(meetings(axes[0]), meetings(axes[1]), axes[1])
    else:  # everything of a channel: onto one position, or from one
        source, target = (a.ravel() for a in np.meshgrid(np.arange(places), np.arange(targets), indexing="ij"))
    meet = np.kron(np.eye(src[0] // inputs, dtype=bool), np.ones((inputs, outputs), bool))
    of, to = (channel[:, None] for channel in np.nonzero(meet))
    return (of * places + source).ravel(), (to * targets + target).ravel(), np.ones(len(of) * len(source), int)
