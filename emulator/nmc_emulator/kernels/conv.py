"""Conv-addressed projections: event-driven sums of int8 weight rows.

For each output position the active inputs under the kernel window are gathered into a list of
weight rows, and the rows are added: a[o] += (sum of w[tap, i, o] * code) << shift. A row holds
all output channels, so the inner loops run over contiguous int8 and become vector adds; eight
rows are summed in 16 bits (8 * 128 * 31 < 2^15) before the sum is widened.
"""

import numpy as np
from numba import njit

PLAIN, SMALL, WIDE = 0, 1, 2  # codes are 1; |codes| <= 31; any
SMALL_CODE = 31

# Fields of ``geometry``, the integers of one projection (see ``pack_geometry``).
FIELDS = 17


def pack_geometry(source, grid, kernel, stride, pad, dilation, shift, lag, steps, mode):
    """int64 [17]: source (C, H, W), output grid (H, W), kernel, stride, pad, dilation, and scalars."""
    return np.array(
        [*source, *grid, *kernel, *stride, *pad, *dilation, shift, lag, steps, mode], np.int64
    ).reshape(FIELDS)


@njit(cache=True, nogil=True)
def add_rows(sums, weight, rows, n):
    """sums[o] += sum over the first n ``rows`` of weight[row, o]."""
    width = weight.shape[1]
    k = 0
    while k + 8 <= n:
        a, b, c, d = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        e, f, g, h = rows[k + 4], rows[k + 5], rows[k + 6], rows[k + 7]
        for o in range(width):
            low = np.int16(weight[a, o] + weight[b, o] + weight[c, o] + weight[d, o])
            high = np.int16(weight[e, o] + weight[f, o] + weight[g, o] + weight[h, o])
            sums[o] += np.int16(low + high)
        k += 8
    if k + 4 <= n:
        a, b, c, d = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        for o in range(width):
            sums[o] += np.int16(weight[a, o] + weight[b, o] + weight[c, o] + weight[d, o])
        k += 4
    while k < n:
        a = rows[k]
        for o in range(width):
            sums[o] += weight[a, o]
        k += 1


@njit(cache=True, nogil=True)
def add_rows_small(sums, weight, rows, gains, n):
    """sums[o] += sum over rows of weight[row, o] * gain, all |gain| <= 31."""
    width = weight.shape[1]
    k = 0
    while k + 4 <= n:
        a, b, c, d = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        ga, gb, gc, gd = gains[k], gains[k + 1], gains[k + 2], gains[k + 3]
        for o in range(width):
            low = np.int16(weight[a, o] * np.int16(ga) + weight[b, o] * np.int16(gb))
            high = np.int16(weight[c, o] * np.int16(gc) + weight[d, o] * np.int16(gd))
            sums[o] += np.int16(low + high)
        k += 4
    while k < n:
        a, ga = rows[k], gains[k]
        for o in range(width):
            sums[o] += np.int16(weight[a, o] * np.int16(ga))
        k += 1


@njit(cache=True, nogil=True)
def add_rows_wide(sums, weight, rows, gains, n):
    """sums[o] += sum over rows of weight[row, o] * gain, in the width of ``sums``."""
    for k in range(n):
        row, gain = rows[k], gains[k]
        for o in range(weight.shape[1]):
            sums[o] += weight[row, o] * gain


@njit(cache=True, nogil=True)
def gather_rows(ptr, index, value, first, y0, x0, geometry, rows, gains):
    """List the weight rows of all events under the kernel window at (y0, x0); their number.

    first: row of ``ptr`` of the frame's position (0, 0). With dilation 1 along x one row of the
    kernel is one run of events; otherwise every tap is a run.
    """
    channels, height, width = geometry[0], geometry[1], geometry[2]
    kh, kw, dy, dx = geometry[5], geometry[6], geometry[11], geometry[12]
    graded = len(value) > 0
    run = kw if dx == 1 else 1
    n = 0
    for ky in range(kh):
        y = y0 + ky * dy
        if y < 0 or y >= height:
            continue
        for kx in range(0, kw, run):
            x = x0 + kx * dx
            left, right = max(x, 0), min(x + run, width)
            if left >= right:
                continue
            line = first + y * width
            base = (ky * kw + kx) * channels - x * channels
            begin, end = ptr[line + left], ptr[line + right]
            for e in range(begin, end):
                rows[n + e - begin] = index[e] + base
            if graded:
                for e in range(begin, end):
                    gains[n + e - begin] = value[e]
            n += end - begin
    return n


@njit(cache=True, nogil=True)
def _sum_window(ptr, index, value, first, y0, x0, geometry, weight, rows, gains, sums):
    n = gather_rows(ptr, index, value, first, y0, x0, geometry, rows, gains)
    mode = geometry[16]
    if mode == PLAIN:
        add_rows(sums, weight, rows, n)
    elif mode == SMALL:
        add_rows_small(sums, weight, rows, gains, n)
    else:
        add_rows_wide(sums, weight, rows, gains, n)


@njit(cache=True, nogil=True)
def _flush(sums, acc, f, p, shift):
    gain = np.int64(1) << shift
    for o in range(acc.shape[2]):
        acc[f, p, o] += sums[o] * gain
    sums[:] = 0


@njit(cache=True, nogil=True)
def conv(window, ptr, index, value, weight, acc, geometry, collapse, rows, gains, sums):
    """Conv with groups = 1. weight int8 [kh * kw * C_in, >= C_out], zero beyond C_out.

    ptr, index, value: event lists of the source; acc [F, P_out, C_out] ([F, 1, C_out] with
    ``collapse``); rows, gains: room for kh * kw * C_in entries; sums [columns of weight], zeroed.
    """
    positions = geometry[1] * geometry[2]
    height, width, stride_y, stride_x = geometry[3], geometry[4], geometry[7], geometry[8]
    pad_y, pad_x, shift, lag, steps = geometry[9], geometry[10], geometry[13], geometry[14], geometry[15]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        first = (f - lag) * positions
        for y in range(height):
            for x in range(width):
                y0, x0 = y * stride_y - pad_y, x * stride_x - pad_x
                _sum_window(ptr, index, value, first, y0, x0, geometry, weight, rows, gains, sums)
                if not collapse:
                    _flush(sums, acc, f, y * width + x, shift)
        if collapse:
            _flush(sums, acc, f, 0, shift)


@njit(cache=True, nogil=True)
def conv_grouped(window, codes, weight, acc, geometry, collapse, groups):
    """Conv with groups, by scatter: every event adds its group's rows to the positions it reaches.

    codes [F, P, C_in], weight int8 [kh * kw, C_in // groups, C_out].
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:16]
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
def conv_depthwise(window, codes, weight, acc, geometry, collapse, sums):
    """Conv with one channel per group, channels contiguous: dense over channels, silent or not.

    codes [F, P, C], weight int8 [kh * kw, C], sums [C], zeroed.
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:16]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for target in range(out_h * out_w):
            y0 = target // out_w * stride_y - pad_y
            x0 = target % out_w * stride_x - pad_x
            for ky in range(kh):
                y = y0 + ky * dy
                if y < 0 or y >= height:
                    continue
                for kx in range(kw):
                    x = x0 + kx * dx
                    if x < 0 or x >= width:
                        continue
                    p, tap = y * width + x, ky * kw + kx
                    for c in range(channels):
                        sums[c] += weight[tap, c] * np.int64(codes[f - lag, p, c])
            if not collapse:
                _flush(sums, acc, f, target, shift)
        if collapse:
            _flush(sums, acc, f, 0, shift)
