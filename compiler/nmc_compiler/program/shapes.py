"""Shape arithmetic of projections and transfers, as PyTorch defines it."""

from __future__ import annotations

from nmc_compiler.program.model import Conv, Map, Shape, Transfer

Pair = tuple[int, int]


def conv_out(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output size of a convolution along one axis; below 1 where the kernel does not fit."""
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def conv_grid(conv: Conv, src: Shape) -> Pair:
    """(H, W) of the uncollapsed output of `conv` on a source of that shape."""
    kernel = conv.weight.shape[:2]
    return (
        conv_out(src[1], kernel[0], conv.stride[0], conv.pad[0], conv.dilation[0]),
        conv_out(src[2], kernel[1], conv.stride[1], conv.pad[1], conv.dilation[1]),
    )


def windows_start_inside(pool: Map | Transfer, src: Shape, dst: Shape) -> bool:
    """Whether every window of a pool holds a position of the source (in floor and ceil mode alike)."""
    return all(
        0 <= pool.pad[axis] < pool.kernel[axis]
        and (dst[axis + 1] - 1) * pool.stride[axis] - pool.pad[axis] < src[axis + 1]
        for axis in (0, 1)
    )
