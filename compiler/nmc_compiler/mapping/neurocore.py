"""What rows of the neurocore take (docs/neurocore.md): bounds by which a network is cut before its image is built.

The image builder takes the smallest form of every row and shares what is equal. It may also put rows together, which
takes words, where there are enough of them, and never descriptors. A core can still run out of numbers that its axons
have in common with another core, and weights beyond 8 bits take more words: only the image shows that.
"""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.mapping.reach import Reach
from nmc_compiler.neurocore.conv import conv_words, fits_conv_rows
from nmc_compiler.program.model import Conv, Map, Sparse
from nmc_compiler.program.shapes import channel_blocks

HOP = 15  # steps of one DELAY descriptor


def block_words(reach: Reach, c0: int, c1: int) -> int:
    """Synapse words that a Conv or Map needs on a core for its target channels c0..c1."""
    positions, item = math.prod(reach.src_shape[1:]), reach.item
    if isinstance(item, Map):
        return (c1 - c0) * positions * _fan(reach, item)
    if not isinstance(item, Conv):
        return 0
    per_group = reach.dst_shape[0] // item.groups
    fan = math.prod(item.weight.shape[:2]) if math.prod(reach.dst_shape[1:]) > 1 else 1
    groups = -(-c1 // per_group) - c0 // per_group
    here = min(c1 - c0, per_group)
    rows = groups * item.weight.shape[2] * positions * row_words(here * fan, here * math.prod(reach.dst_shape[1:]))
    if not fits_conv_rows(item, reach.src_shape) or item.groups > 1:
        return rows
    return min(rows, item.weight.shape[2] * conv_words(item.weight.shape[0], item.weight.shape[1], c1 - c0))


def _fan(reach: Reach, item: Map) -> int:
    """Targets of one source, or sources of one target where those are more."""
    if item.mode == "broadcast":
        return math.prod(reach.dst_shape[1:])
    if item.mode == "window":
        return math.prod(-(-k // s) for k, s in zip(item.kernel, item.stride, strict=True))
    return channel_blocks(reach.src_shape, reach.dst_shape)[0]


def row_words(synapses: int, accumulators: int) -> int:
    """Words of one row with so many synapses into so many accumulators: SPARSE, or DENSE over all of them."""
    return min(synapses, 1 + -(-accumulators // 2))


def rows_words(item: Sparse, found: np.ndarray, accumulators: np.ndarray) -> np.ndarray:
    """Likewise for many rows of ``item``: synapses int64 [rows, parts], accumulators of each part [parts].

    Synapses of one delay make a row, so that rows of several delays may be no shorter than their synapses. Plastic
    rows start at multiples of 4, and are DENSE only where they skip no target.
    """
    dense = 1 + -(-accumulators // 2)
    if item.rule is not None:
        kinds = 1 if item.extra is None else len(np.unique(item.extra))
        words = np.where((found == accumulators) & (item.extra is None), dense, found)
        return np.where(found > 0, words + 3 * kinds, 0)
    return found if item.extra is not None else np.minimum(found, dense)


def descriptors(reach: Reach) -> int:
    """Row descriptors of one source soma: its rows, and the DELAY rows before them."""
    item = reach.item
    if isinstance(item, Sparse):
        extra = np.zeros(1, np.int64) if item.extra is None else np.unique(item.extra).astype(np.int64)
        return sum(1 + _hops(item.delay + int(d)) for d in extra)
    return 1 + _hops(item.delay) if isinstance(item, (Conv, Map)) else 1


def _hops(delay: int) -> int:
    return -(-(delay - 1) // HOP)
