"""Operations of one weighted layer of a float graph on what it is really given, counted exactly, in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.ops_sites import active, pairs

CONNECTIONS = ("conv2d", "sparse", "sparse_conv3d")  # ops whose weights are synapses


@dataclass(frozen=True)
class Work:
    """What a layer does with some input.

    ``effective``: products of a nonzero input and a nonzero weight.  ``synops``: of a nonzero input and any weight.
    ``dense``: of any input and any weight.  All three leave out what zero padding would be multiplied with;
    ``padded`` is dense with it: output elements times weights of each.  ``nonzero``, ``inputs``: elements of the
    input that are not zero, and all.
    """

    effective: int = 0
    synops: int = 0
    dense: int = 0
    padded: int = 0
    nonzero: int = 0
    inputs: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[int, ...]:
        return self.effective, self.synops, self.dense, self.padded, self.nonzero, self.inputs


def work_of(graph: Graph, node: Node, x: np.ndarray, sites: tuple[np.ndarray, np.ndarray] | None = None) -> Work:
    """Work of a connection on its input x [B, C, H, W].

    sites: of a ``sparse_conv3d`` the tables [B, 3, S, 1] of its second and third operand.
    """
    mask, inputs = x != 0, x.size
    if node.op == "conv2d":
        effective, synops, dense, padded = _conv(graph, node, mask.sum(axis=0), len(x))
    elif node.op == "sparse":
        effective, synops, dense, padded = _synapses(graph, node, mask.sum(axis=0).reshape(-1), len(x))
    else:
        assert sites is not None
        here = active(sites[0])
        mask, inputs = mask & here, int(here.sum()) * x.shape[1]
        effective, synops, dense, padded = _between_sites(graph, node, mask, *sites)
    return Work(effective, synops, dense, padded, int(mask.sum()), inputs)


def _conv(graph: Graph, node: Node, often: np.ndarray, batch: int) -> tuple[int, int, int, int]:
    """often: int64 [C, H, W], how many times each input element was not zero in the batch."""
    weight = graph.tensor(node, "weight")
    assert weight is not None
    groups, fan_out = int(node.attr("groups", 1)), weight.shape[0] // int(node.attr("groups", 1))
    by_group = (weight != 0).reshape(groups, fan_out, *weight.shape[1:]).sum(axis=1)
    kept = by_group.reshape(often.shape[0], *weight.shape[2:]).astype(np.int64)  # nonzero weights of an input, by tap
    effective = synops = places = 0
    for tap, window in _taps(node, weight.shape[2:], often.shape[1:]):
        met = often[(slice(None), *window)].sum(axis=(1, 2))
        effective += int(kept[(slice(None), *tap)] @ met)
        synops += int(met.sum()) * fan_out
        places += math.prod(len(range(*at.indices(n))) for at, n in zip(window, often.shape[1:], strict=True))
    dense = places * often.shape[0] * fan_out * batch
    return effective, synops, dense, math.prod(node.type.shape[1:]) * weight.size * batch


def _taps(
    node: Node, kernel: tuple[int, ...], size: tuple[int, ...]
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Each tap of a kernel with the input elements that it meets over all output positions."""
    settings = [node.attr(key, value) for key, value in (("stride", (1, 1)), ("pad", (0, 0)), ("dilation", (1, 1)))]
    axes = []
    for axis, (taps, length, outputs) in enumerate(zip(kernel, size, node.type.shape[1:], strict=True)):
        stride, pad, dilation = (int(value[axis]) for value in settings)
        axes.append([_met(k * dilation - pad, stride, length, outputs) for k in range(taps)])
    for i, rows in enumerate(axes[0]):
        for j, columns in enumerate(axes[1]):
            yield (i, j), (rows, columns)


def _met(first: int, stride: int, length: int, outputs: int) -> slice:
    """Of first, first + stride, ... (one for each output) those inside 0..length - 1."""
    skipped = max(0, -(first // stride)) if first < 0 else 0
    start = first + skipped * stride
    stop = min(length, first + (outputs - 1) * stride + 1)
    return slice(start, max(start, stop), stride)


def _synapses(graph: Graph, node: Node, often: np.ndarray, batch: int) -> tuple[int, int, int, int]:
    indptr, weight = graph.tensor(node, "indptr"), graph.tensor(node, "weight")
    assert indptr is not None and weight is not None
    rows = np.diff(indptr)
    kept = np.concatenate([[0], np.cumsum(weight != 0)])[indptr]
    dense = int(rows.sum()) * batch
    return int(np.diff(kept) @ often), int(rows @ often), dense, dense


def _between_sites(
    graph: Graph, node: Node, mask: np.ndarray, source: np.ndarray, target: np.ndarray
) -> tuple[int, int, int, int]:
    """Pairs of active sites; slots without a site do not count, whatever they hold."""
    weight = graph.tensor(node, "weight")
    assert weight is not None
    kept = (weight[..., 0] != 0).sum(axis=0)  # [C_in, taps]
    one = (1, 1, 1)
    window = (node.attr("kernel"), node.attr("stride", one), node.attr("pad", (0, 0, 0)))
    effective = synops = found = 0
    for x, a, b in zip(mask[..., 0], source[..., 0], target[..., 0], strict=True):
        book = np.array(pairs(a, b, *window, node.attr("inverse", False)), np.int64).reshape(-1, 3)
        met = x[:, book[:, 0]]
        effective += int((kept[:, book[:, 1]] * met).sum())
        synops += int(met.sum()) * weight.shape[0]
        found += len(book)
    dense = found * weight.shape[0] * weight.shape[1]
    return effective, synops, dense, dense


def products_of(node: Node, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
    """Operations of an attention product ``attn`` on events q, k, v [B, C, H, W], in the order of the node.

    kv: coincidences of k and v of one token and head, which add to a table, and for each event of q the words of a
    row of it.  qk: coincidences of q and k of one channel, and for each event of v the words of a row.
    """
    heads = int(node.attr("heads"))
    q, k, v = ((x != 0).reshape(len(x), heads, x.shape[1] // heads, -1).astype(np.int64) for x in (q, k, v))
    if node.attr("order", "kv") == "kv":
        return int((k.sum(axis=2) * v.sum(axis=2)).sum() + q.sum() * v.shape[2])
    return int((q.sum(axis=3) * k.sum(axis=3)).sum() + v.sum() * q.shape[3])
