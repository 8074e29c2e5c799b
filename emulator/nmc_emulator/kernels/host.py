"""The host's share: a first convolution in fixed point."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _add_line(line, source, stride, w):
    """line[x] += source[x * stride] * w; the loop without stride becomes vectors."""
    if stride == 1:
        for x in range(len(line)):
            line[x] += np.int64(source[x]) * np.int64(w)
    else:
        for x in range(len(line)):
            line[x] += np.int64(source[x * stride]) * np.int64(w)


@njit(cache=True, nogil=True)
def host_conv(image, weight, bias, shift, stride, pad, dilation, groups, out):
    """y = (conv(image, weight) + bias + (1 << (shift - 1))) >> shift; returns the MACs done.

    image int32 [I, H, W], weight int32 [O, I // groups, kh, kw], bias int64 [O], out int64
    [O, H_out, W_out]. The products are of 64 bits; the inner loop runs along x.
    """
    height, width = image.shape[1:]
    outs, ins, kh, kw = weight.shape
    rounding = np.int64(1) << (shift - 1) if shift > 0 else np.int64(0)
    macs = 0
    for o in range(outs):
        first = o // (outs // groups) * ins
        for y in range(out.shape[1]):
            line = out[o, y]
            line[:] = bias[o] + rounding
            for ky in range(kh):
                row = y * stride[0] + ky * dilation[0] - pad[0]
                if row < 0 or row >= height:
                    continue
                for kx in range(kw):
                    start = kx * dilation[1] - pad[1]
                    left = max(-(start // stride[1]), 0)
                    right = min((width - 1 - start) // stride[1] + 1, len(line))
                    macs += ins * max(right - left, 0)
                    for i in range(ins):
                        w = weight[o, i, ky, kx]
                        _add_line(line[left:right], image[first + i, row, left * stride[1] + start :], stride[1], w)
            line >>= shift
    return macs
