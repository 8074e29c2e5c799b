"""Which convolutions CONV rows can carry, and what their kernels take."""

from __future__ import annotations

from nmc_compiler.program.model import Conv, Shape

BLOCK = 64  # words at which a kernel starts
STRIDES = (1, 2, 4)
KERNEL, DILATION, SIDE, POSITION = 15, 7, 63, 63


def fits_conv_rows(conv: Conv, src: Shape) -> bool:
    """Whether the fields of a geometry and of a CONV row hold this convolution, wherever its target is cut."""
    return (
        conv.depth is None
        and not conv.collapse
        and conv.groups == 1
        and max(conv.weight.shape[:2]) <= KERNEL
        and all(stride in STRIDES for stride in conv.stride)
        and max(conv.dilation) <= DILATION
        and max(conv.pad) <= 64
        and max(conv.out_hw) <= SIDE
        and max(src[1:]) <= POSITION + 1
        and conv.shift >= 0
    )


def conv_words(kh: int, kw: int, outputs: int) -> int:
    """Words of the kernel of one input channel: two weights a word, from a multiple of 64 on."""
    return -(-kh * kw * -(-outputs // 2) // BLOCK) * BLOCK
