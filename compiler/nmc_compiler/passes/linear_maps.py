"""Linear maps between populations: convolutions while they are, tables of synapses where they must be.

What stands between two populations of a network (convolutions, pools, scales, reshapes, delays) is one linear
map. ``then`` composes two of them; a composition that is no convolution becomes a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph.types import Shape

MAX_SYNAPSES = 1 << 27  # of one table; about 3 GiB while it is made
Pair = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """Cross-correlation from ``source``, seen in C order as ``view`` (C, H, W), to ``target``.

    weight float64 [O, I/groups, kh, kw].
    """

    source: Shape
    view: Shape
    target: Shape
    weight: np.ndarray
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        return self.groups == self.view[0] == self.target[0]

    @property
    def diagonal(self) -> bool:
        """One number per channel."""
        return self.pointwise and self.depthwise

    @property
    def pointwise(self) -> bool:
        return self.weight.shape[2:] == (1, 1) and self.stride == (1, 1) and self.pad == (0, 0)

    @property
    def single(self) -> bool:
        """Whether it has one tap: pointwise, maybe with zeros around what it gives."""
        return self.weight.shape[2:] == (1, 1) and self.stride == (1, 1)

    @property
    def selects(self) -> bool:
        """Whether each target channel is a channel of the source, or silent (``selection``)."""
        if not self.pointwise or self.groups != 1:
            return False
        rows = self.weight[:, :, 0, 0]
        return bool(((rows == 0) | (rows == 1)).all() and ((rows == 1).sum(axis=1) <= 1).all())


@dataclass(frozen=True)
class Table:
    """Synapses one by one: elements counted in C order; ``extra`` timesteps late, each pair and delay once."""

    source: Shape
    target: Shape
    src: np.ndarray  # int64 [synapses]
    dst: np.ndarray  # int64
    weight: np.ndarray  # float64
    extra: np.ndarray  # int64

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """(order, indptr): synapses source by source, then target, then delay."""
        order = np.lexsort((self.extra, self.dst, self.src))
        counts = np.bincount(self.src, minlength=math.prod(self.source))
        return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


LinearMap = Kernel | Table


def identity(shape: Shape) -> Kernel:
    return Kernel(shape, shape, shape, np.ones((shape[0], 1, 1, 1)), groups=shape[0])


def window_sum(shape: Shape, target: Shape, kernel: Pair, stride: Pair, pad: Pair) -> Kernel:
    """Sum pool, channel by channel."""
    return Kernel(shape, shape, target, np.ones((shape[0], 1, *kernel)), stride, pad, groups=shape[0])


def padding(shape: Shape, pad: Pair) -> Kernel:
    """Zeros around each channel."""
    target = (shape[0], shape[1] + 2 * pad[0], shape[2] + 2 * pad[1])
    return Kernel(shape, shape, target, np.ones((shape[0], 1, 1, 1)), pad=pad, groups=shape[0])


def block_sums(shape: Shape, target: Shape) -> Kernel:
    """Sums over blocks of channels, or copies to them."""
    groups = min(shape[0], target[0])
    return Kernel(shape, shape, target, np.ones((target[0], shape[0] // groups, 1, 1)), (1, 1), (0, 0), groups=groups)


def spread(shape: Shape, target: Shape) -> Table:
    """Every position of a channel takes the channel's only element."""
    dst = np.arange(math.prod(target))
    return Table(shape, target, dst // (target[1] * target[2]), dst, np.ones(len(dst)), np.zeros(len(dst), np.int64))


def selection(shape: Shape, target: Shape, index: np.ndarray) -> LinearMap:
    """Element k of the target is element index[k] of the source, C order; nothing where index[k] is negative.

    Whole channels in order (a concatenation, a slice) make a convolution, anything else a table.
    """
    area = shape[1] * shape[2]
    if shape[1:] == target[1:]:
        planes, position = index.reshape(target[0], area), np.arange(area)
        silent = (planes < 0).all(axis=1)
        whole = (planes == planes[:, :1] + position).all(axis=1) & (planes[:, 0] % area == 0) & ~silent
        if (silent | whole).all():
            weight = np.zeros((target[0], shape[0], 1, 1))
            weight[whole, planes[whole, 0] // area] = 1.0
            return Kernel(shape, shape, target, weight)
    dst = np.flatnonzero(index >= 0)
    return Table(shape, target, index[dst].astype(np.int64), dst, np.ones(len(dst)), np.zeros(len(dst), np.int64))


# ---- changes of one map ----


def scaled(m: LinearMap, factor: np.ndarray | float) -> LinearMap:
    """Outputs times a number, or one per channel [C] or element [C, H, W]."""
    factor = np.asarray(factor, np.float64)
    factor = factor[:, None, None] if factor.ndim == 1 else factor
    full = np.broadcast_to(factor, m.target)
    if isinstance(m, Kernel) and (full == full[:, :1, :1]).all():
        return replace(m, weight=m.weight * full[:, 0, 0][:, None, None, None])
    t = as_table(m)
    return replace(t, weight=t.weight * full.reshape(-1)[t.dst])


def delayed(m: LinearMap, steps: np.ndarray) -> Table:
    """Outputs late by ``steps`` [C, H, W]."""
    t = as_table(m)
    return replace(t, extra=t.extra + steps.reshape(-1)[t.dst])


def reshaped(m: LinearMap, target: Shape) -> LinearMap:
    """Outputs in another shape, in C order."""
    if target == m.target:
        return m
    if isinstance(m, Kernel) and m.diagonal:
        factor = np.broadcast_to(m.weight[:, 0], m.view).reshape(target)
        if (factor == factor[:, :1, :1]).all():
            weight = np.ascontiguousarray(factor[:, :1, :1])[:, None]
            return Kernel(m.source, target, target, weight, groups=target[0])
    return replace(as_table(m), target=target)


def settled(m: LinearMap) -> LinearMap:
    """The map as a projection of its source: a convolution of another view is a larger kernel, or a table."""
    if isinstance(m, Table) or m.view == m.source:
        return m
    if m.view[1:] == (1, 1) and m.groups == 1 and m.weight.shape[2:] == (1, 1) and m.target[1:] == (1, 1):
        return Kernel(m.source, m.source, m.target, m.weight[:, :, 0, 0].reshape(-1, *m.source))
    return as_table(m)


def joined(tables: list[Table]) -> Table:
    """Several tables between the same ends as one."""
    src, dst, weight, extra = (
        np.concatenate([getattr(t, key) for t in tables]) for key in ("src", "dst", "weight", "extra")
    )
    return _summed(Table(tables[0].source, tables[0].target, src, dst, weight, extra))


# ---- composition ----


def then(first: LinearMap, second: LinearMap) -> LinearMap:
    """``second`` after ``first``."""
    if isinstance(first, Kernel) and isinstance(second, Kernel):
        joined = _kernel_then(first, second)
        if joined is not None:
            return joined
    return _table_then(as_table(first), as_table(second))


def _kernel_then(first: Kernel, second: Kernel) -> Kernel | None:
    """The convolution that two are, where they are one."""
    if second.view != first.target:
        return None
    pad = (first.pad[0] + second.pad[0], first.pad[1] + second.pad[1])
    ends = {"source": first.source, "view": first.view}
    if first.single and first.depthwise:
        out, per = second.weight.shape[:2]
        factor = first.weight[:, 0, 0, 0][np.arange(out)[:, None] // (out // second.groups) * per + np.arange(per)]
        return replace(second, **ends, weight=second.weight * factor[:, :, None, None], pad=pad)  # type: ignore[arg-type]
    if second.diagonal or second.single and second.depthwise and first.single:
        return replace(first, target=second.target, weight=first.weight * second.weight, pad=pad)
    if first.depthwise and _tiles(first, second):
        return _pooled(first, second)
    if first.single and first.groups == 1 and (second.groups == 1 or second.depthwise):
        point = first.weight[:, :, 0, 0]
        weight = (
            np.einsum("omkl,mi->oikl", second.weight, point)
            if second.groups == 1
            else second.weight * point[:, :, None, None]
        )
        return replace(second, **ends, weight=weight, pad=pad, groups=1)  # type: ignore[arg-type]
    if second.pointwise and second.groups == 1 and (first.groups == 1 or first.depthwise):
        point = second.weight[:, :, 0, 0]
        weight = (
            np.einsum("om,mikl->oikl", point, first.weight)
            if first.groups == 1
            else point[:, :, None, None] * first.weight[None, :, 0]
        )
        return replace(first, target=second.target, weight=weight, groups=1)
    return None


def _tiles(pool: Kernel, conv: Kernel) -> bool:
    """Whether zero padding after a channel-wise window sum is zero padding before it."""
    if pool.pad != (0, 0) or pool.dilation != (1, 1):
        return False
    exact = pool.stride == pool.weight.shape[2:] and all(
        pool.target[1 + a] * pool.stride[a] == pool.view[1 + a] for a in (0, 1)
    )
    return exact or conv.pad == (0, 0)


def _pooled(pool: Kernel, conv: Kernel) -> Kernel:
    """One kernel: tap (ky, kx) of ``conv`` spread over the window that it reads."""
    (kh, kw), (sy, sx) = pool.weight.shape[2:], pool.stride
    out, per, ch, cw = conv.weight.shape
    step = (conv.dilation[0] * sy, conv.dilation[1] * sx)
    weight = np.zeros((out, per, step[0] * (ch - 1) + kh, step[1] * (cw - 1) + kw))
    group = np.arange(out) // (out // conv.groups)
    source = group[:, None] * per + np.arange(per)[None, :]  # [out, per] channel of the pool
    for y in range(ch):
        for x in range(cw):
            window = conv.weight[:, :, y, x][:, :, None, None] * pool.weight[source, 0]
            weight[:, :, y * step[0] : y * step[0] + kh, x * step[1] : x * step[1] + kw] += window
    stride = (sy * conv.stride[0], sx * conv.stride[1])
    pad = (sy * conv.pad[0], sx * conv.pad[1])
    return Kernel(pool.source, pool.view, conv.target, weight, stride, pad, (1, 1), conv.groups)


def _table_then(first: Table, second: Table) -> Table:
    """Every way over an element between: weights multiplied, delays added."""
    order = np.argsort(first.dst, kind="stable")
    counts = np.bincount(first.dst, minlength=math.prod(first.target))
    start = np.concatenate([[0], np.cumsum(counts)])
    ways = counts[second.src]
    _check_size(int(ways.sum()), first.source, second.target)
    which = np.repeat(np.arange(len(second.src)), ways)
    rank = np.arange(len(which)) - np.repeat(np.cumsum(ways) - ways, ways)
    into = order[start[second.src[which]] + rank]
    return _summed(
        Table(
            first.source,
            second.target,
            first.src[into],
            second.dst[which],
            first.weight[into] * second.weight[which],
            first.extra[into] + second.extra[which],
        )
    )


def _summed(t: Table) -> Table:
    """One synapse per pair and delay, those of weight 0 left out."""
    order = np.lexsort((t.extra, t.dst, t.src))
    src, dst, weight, extra = t.src[order], t.dst[order], t.weight[order], t.extra[order]
    if len(src):
        fresh = np.append(True, (np.diff(src) != 0) | (np.diff(dst) != 0) | (np.diff(extra) != 0))
        starts = np.flatnonzero(fresh)
        src, dst, weight, extra = src[starts], dst[starts], np.add.reduceat(weight, starts), extra[starts]
    keep = weight != 0
    return replace(t, src=src[keep], dst=dst[keep], weight=weight[keep], extra=extra[keep])


def as_table(m: LinearMap) -> Table:
    """The synapses of a map one by one."""
    if isinstance(m, Table):
        return m
    out, per, kh, kw = m.weight.shape
    oh, ow = m.target[1:]
    _check_size(out * per * kh * kw * oh * ow, m.source, m.target)
    o, i, ky, kx, y, x = np.ogrid[:out, :per, :kh, :kw, :oh, :ow]
    row = y * m.stride[0] - m.pad[0] + ky * m.dilation[0]
    column = x * m.stride[1] - m.pad[1] + kx * m.dilation[1]
    channel = o // (out // m.groups) * per + i
    _, h, w = m.view
    full = (out, per, kh, kw, oh, ow)
    inside = np.broadcast_to((row >= 0) & (row < h) & (column >= 0) & (column < w), full)
    weight = np.broadcast_to(m.weight[..., None, None], full)
    keep = inside & (weight != 0)
    src = np.broadcast_to((channel * h + row) * w + column, full)[keep]
    dst = np.broadcast_to((o * oh + y) * ow + x, full)[keep]
    return Table(m.source, m.target, src, dst, weight[keep], np.zeros(len(src), np.int64))


def _check_size(count: int, source: Shape, target: Shape) -> None:
    if count > MAX_SYNAPSES:
        raise LoweringError(
            f"the linear map from {source} to {target} has {count} synapses, more than the {MAX_SYNAPSES} of one table"
        )
