"""The host's share: a first convolution in fixed point."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def host_conv(image, weight, bias, shift, stride, pad, dilation, groups, out):
    """y = (conv(image, weight) + bias + (1 << (shift - 1))) >> shift; returns the MACs done.

    image int64 [I, H, W], weight int64 [kh, kw, I // groups, O], out int64 [H_out, W_out, O].
    """
    height, width = image.shape[1:]
    kh, kw, ins, outs = weight.shape
    outs_per_group = outs // groups
    rounding = np.int64(1) << (shift - 1) if shift > 0 else np.int64(0)
    macs = 0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for o in range(outs):
                out[y, x, o] = bias[o] + rounding
            for ky in range(kh):
                row = y * stride[0] + ky * dilation[0] - pad[0]
                if row < 0 or row >= height:
                    continue
                for kx in range(kw):
                    column = x * stride[1] + kx * dilation[1] - pad[1]
                    if column < 0 or column >= width:
                        continue
                    macs += ins * outs
                    for group in range(groups):
                        for i in range(ins):
                            value = image[group * ins + i, row, column]
                            for o in range(group * outs_per_group, (group + 1) * outs_per_group):
                                out[y, x, o] += value * weight[ky, kx, i, o]
            for o in range(outs):
                out[y, x, o] >>= shift
    return macs
