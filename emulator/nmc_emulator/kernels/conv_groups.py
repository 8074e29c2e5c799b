"""Conv-addressed projections with groups; ``geometry`` as packed for ``conv``."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def conv_grouped(window, codes, weight, acc, geometry, collapse, groups):
    """Conv with groups, by scatter: every event adds its group's rows to the positions it reaches.

    codes [F, P, C_in], weight int8 [kh * kw, C_in // groups, C_out].
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:]
    ins, outs = channels // groups, acc.shape[2] // groups
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(height * width):
            for c in range(channels):
                code = np.int64(codes[f - lag, p, c])
                if code == 0:
                    continue
                group, i = c // ins, c % ins
                for ky in range(kh):
                    y = p // width + pad_y - ky * dy
                    if y % stride_y != 0 or y < 0 or y // stride_y >= out_h:
                        continue
                    for kx in range(kw):
                        x = p % width + pad_x - kx * dx
                        if x % stride_x != 0 or x < 0 or x // stride_x >= out_w:
                            continue
                        target = 0 if collapse else y // stride_y * out_w + x // stride_x
                        for o in range(group * outs, (group + 1) * outs):
                            acc[f, target, o] += (weight[ky * kw + kx, i, o] * code) << shift


@njit(cache=True, nogil=True)
def conv_depthwise(window, codes, weight, acc, geometry, collapse):
    """Conv with one channel per group, channels contiguous: dense over channels, silent or not.

    codes [F, P, C]; weight [kh * kw, C], shifted already, in the type of acc.
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, _, lag, steps = geometry[7:]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for target in range(out_h * out_w):
            y0 = target // out_w * stride_y - pad_y
            x0 = target % out_w * stride_x - pad_x
            out = acc[f, 0 if collapse else target]
            for ky in range(kh):
                y = y0 + ky * dy
                if y < 0 or y >= height:
                    continue
                for kx in range(kw):
                    x = x0 + kx * dx
                    if x < 0 or x >= width:
                        continue
                    tap, row = weight[ky * kw + kx], codes[f - lag, y * width + x]
                    for c in range(channels):
                        out[c] += tap[c] * np.int64(row[c])
