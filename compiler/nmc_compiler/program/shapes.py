"""Shape arithmetic of projections and transfers, as PyTorch defines it."""

from __future__ import annotations

from typing import NamedTuple

from nmc_compiler.program.model import Conv, Depth, Map, Shape, Transfer

Pair = tuple[int, int]
FLAT = Depth(1, 1, 1)  # what a Conv without depth has along the third axis


class Window(NamedTuple):
    """One axis of a convolution: output o reads positions ``o*stride - pad + k*dilation`` of 0..size."""

    size: int
    out: int
    kernel: int
    stride: int
    pad: int
    dilation: int


def conv_out(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output size of a convolution along one axis; below 1 where the kernel does not fit."""
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def conv_grid(conv: Conv, src: Shape) -> Pair:
    """(rows, columns) of the uncollapsed output of `conv` on a source of that shape; rows of all slices."""
    depth = conv.depth or FLAT
    kernel, height = (conv.weight.shape[0] // depth.kernel, conv.weight.shape[1]), src[1] // depth.source
    return (
        depth.target * conv_out(height, kernel[0], conv.stride[0], conv.pad[0], conv.dilation[0]),
        conv_out(src[2], kernel[1], conv.stride[1], conv.pad[1], conv.dilation[1]),
    )


def conv_windows(conv: Conv, src: Shape) -> tuple[Window, Window, Window]:
    """The axes of a valid `conv` on a source of that shape: slices, rows within a slice, columns."""
    d, (kh, kw), (rows, columns) = conv.depth or FLAT, conv.weight.shape[:2], conv.out_hw
    sizes = (src[1] // d.source, rows // d.target, kh // d.kernel), (src[2], columns, kw)
    along = zip(sizes, conv.stride, conv.pad, conv.dilation, strict=True)
    slices = Window(d.source, d.target, d.kernel, d.stride, d.pad, d.dilation)
    return slices, *(Window(*size, *form) for size, *form in along)  # type: ignore[return-value]


def channel_blocks(src: Shape, dst: Shape) -> Pair:
    """Channels of one block of a Map's source, and of what it leads to: (1, 1) but for sums and copies of channels."""
    groups = min(src[0], dst[0])
    return src[0] // groups, dst[0] // groups


def windows_start_inside(pool: Map | Transfer, src: Shape, dst: Shape) -> bool:
    """Whether every window of a pool holds a position of the source (in floor and ceil mode alike)."""
    return all(
        0 <= pool.pad[axis] < pool.kernel[axis]
        and (dst[axis + 1] - 1) * pool.stride[axis] - pool.pad[axis] < src[axis + 1]
        for axis in (0, 1)
    )
