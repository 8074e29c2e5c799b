"""Conv-addressed projections with groups; ``geometry`` and ``slices`` as ``conv`` takes them."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def conv_grouped(window, codes, weight, acc, geometry, slices, collapse, groups):
    """Conv with groups, by scatter: every event adds its group's rows to the positions it reaches.

    codes [F, P, C_in], weight int8 [kd * kh * kw, C_in // groups, C_out].
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:]
    depth, out_d, kd, stride_z, pad_z, dz = (1, 1, 1, 1, 0, 1) if slices is None else slices
    ins, outs = channels // groups, acc.shape[2] // groups
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(depth * height * width):
            front, top = (0, p // width) if slices is None else divmod(p // width, height)
            for c in range(channels):
                code = np.int64(codes[f - lag, p, c])
                if code == 0:
                    continue
                group, i = c // ins, c % ins
                for k in range(kd * kh):
                    kz, ky = (0, k) if slices is None else divmod(k, kh)
                    z, y = front + pad_z - kz * dz, top + pad_y - ky * dy
                    if y % stride_y != 0 or y < 0 or y // stride_y >= out_h:
                        continue
                    if z % stride_z != 0 or z < 0 or z // stride_z >= out_d:
                        continue
                    line = (z // stride_z * out_h + y // stride_y) * out_w
                    for kx in range(kw):
                        x = p % width + pad_x - kx * dx
                        if x % stride_x != 0 or x < 0 or x // stride_x >= out_w:
                            continue
                        target = 0 if collapse else line + x // stride_x
                        for o in range(group * outs, (group + 1) * outs):
                            acc[f, target, o] += (weight[k * kw + kx, i, o] * code) << shift


@njit(cache=True, nogil=True)
def conv_depthwise(window, codes, weight, acc, geometry, slices, collapse):
    """Conv with one channel per group, channels contiguous: dense over channels, silent or not.

    codes [F, P, C]; weight [kd * kh * kw, C], shifted already, in the type of acc.
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, _, lag, steps = geometry[7:]
    depth, out_d, kd, stride_z, pad_z, dz = (1, 1, 1, 1, 0, 1) if slices is None else slices
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for target in range(out_d * out_h * out_w):
            front, top = (0, target // out_w) if slices is None else divmod(target // out_w, out_h)
            z0, y0 = front * stride_z - pad_z, top * stride_y - pad_y
            x0 = target % out_w * stride_x - pad_x
            out = acc[f, 0 if collapse else target]
            for k in range(kd * kh):
                kz, ky = (0, k) if slices is None else divmod(k, kh)
                z, y = z0 + kz * dz, y0 + ky * dy
                if z < 0 or z >= depth or y < 0 or y >= height:
                    continue
                for kx in range(kw):
                    x = x0 + kx * dx
                    if x < 0 or x >= width:
                        continue
                    tap, row = weight[k * kw + kx], codes[f - lag, (z * height + y) * width + x]
                    for c in range(channels):
                        out[c] += tap[c] * np.int64(row[c])
