"""Convolutions as CONV rows: one kernel per input channel, one geometry per target box."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nmc_compiler.neurocore import items
from nmc_compiler.neurocore.conv import conv_words, fits_conv_rows
from nmc_compiler.neurocore.places import Piece
from nmc_compiler.neurocore.rows import LAST_SHIFT, Words
from nmc_compiler.neurocore.synapses import meetings
from nmc_compiler.program.model import Conv, Shape
from nmc_compiler.program.shapes import Window, conv_windows


class ConvRow(NamedTuple):
    """What one source soma does through a CONV row."""

    source: int
    descriptor: int


def geometry(conv: Conv, piece: Piece) -> dict[str, int]:
    """Fields of the geometry by which ``conv`` reaches the neurons of ``piece``."""
    b = piece.box
    height, width = b.y1 - b.y0, b.x1 - b.x0
    return {
        "kh": conv.weight.shape[0],
        "kw": conv.weight.shape[1],
        "sy": conv.stride[0].bit_length() - 1,
        "sx": conv.stride[1].bit_length() - 1,
        "dy": conv.dilation[0],
        "dx": conv.dilation[1],
        "cout": b.c1 - b.c0,
        "oy": conv.pad[0] - b.y0 * conv.stride[0],
        "ox": conv.pad[1] - b.x0 * conv.stride[1],
        "ho": height,
        "wo": width,
        "plane": height * width,
        "first": piece.first,
    }


def fits(conv: Conv, src: Shape, piece: Piece, shift: int) -> bool:
    """Whether CONV rows can carry this part of a convolution."""
    form = geometry(conv, piece)
    return (
        fits_conv_rows(conv, src)
        and 0 <= shift <= LAST_SHIFT
        and min(form["oy"], form["ox"]) >= -128
        and form["plane"] < 1024
        and form["cout"] < 1024
    )


def saving(conv: Conv, src: Shape, piece: Piece) -> int:
    """Words that CONV rows take less than rows of synapses one by one; about, for DENSE rows may be shorter."""
    windows, b = conv_windows(conv, src)[1:], piece.box
    pairs = np.prod([_pairs(w, *ends) for w, ends in zip(windows, ((b.y0, b.y1), (b.x0, b.x1)), strict=True)])
    synapses = int(pairs) * src[0] * (b.c1 - b.c0)
    if (b.y1 - b.y0) * (b.x1 - b.x0) == 1:
        synapses = (synapses + 1) // 2
    return synapses - src[0] * conv_words(conv.weight.shape[0], conv.weight.shape[1], b.c1 - b.c0)


def _pairs(window: Window, low: int, high: int) -> int:
    _, out, _ = meetings(window)
    return int(((out >= low) & (out < high)).sum())


def rows(conv: Conv, src: Shape, piece: Piece, shift: int, geom: int, words: Words) -> Iterator[ConvRow]:
    """CONV rows of every source soma that reaches ``piece``."""
    b = piece.box
    (y, x), height, width = _touching(conv, src, piece), src[1], src[2]
    bases = [words.kernel(_kernel(conv, i, b.c0, b.c1)) for i in range(src[0])]
    for channel, base in enumerate(bases):
        made = items.descriptor(items.CONV, shift=shift, geom=geom, y=y, x=x, base64=base)
        sources = channel * height * width + y * width + x
        yield from (ConvRow(int(s), int(d)) for s, d in zip(sources, made, strict=True))


def _kernel(conv: Conv, channel: int, c0: int, c1: int) -> np.ndarray:
    """Words of the kernel of one input channel: [kh, kw, outputs], two weights a word."""
    return items.pair_words(conv.weight[:, :, channel, c0:c1].astype(np.int64)).reshape(-1)


def _touching(conv: Conv, src: Shape, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the source positions with a target in the piece."""
    windows, b = conv_windows(conv, src)[1:], piece.box
    axes = []
    for window, low, high in zip(windows, (b.y0, b.x0), (b.y1, b.x1), strict=True):
        source, out, _ = meetings(window)
        axes.append(np.unique(source[(out >= low) & (out < high)]))
    y, x = np.meshgrid(*axes, indexing="ij")
    return y.ravel(), x.ravel()
