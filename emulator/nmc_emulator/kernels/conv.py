"""Conv-addressed projections: event-driven sums of int8 weight rows.

For each output position the active inputs under the kernel window are gathered into a list of
weight rows, and the rows are added: a[o] += (sum of w[tap, i, o] * code) << shift.
"""

import numpy as np
from numba import njit

from .rows import add_rows, add_scaled_rows, rows_at_once

PLAIN, SCALED, WIDE = 0, 1, 2  # codes are 1; codes leave room for sums in 16 bits; any codes
SLACK = 8  # event lists are copied this many entries at a time, so they and ``rows`` are longer by as many


def pack_geometry(source, grid, kernel, stride, pad, dilation, shift, lag, steps):
    """int64 [16]: source (C, H, W), output grid (H, W), kernel, stride, pad, dilation, and scalars."""
    fields = [*source, *grid, *kernel, *stride, *pad, *dilation, shift, lag, steps]
    return np.array(fields, np.int64).reshape(16)


def choose_mode(bound, plain):
    """(mode, rows summed at once) for sources with |code| <= bound; ``plain``: every event has code 1."""
    if plain:
        return PLAIN, rows_at_once(1)
    at_once = rows_at_once(max(bound, 1))
    return (SCALED, at_once) if at_once >= SLACK else (WIDE, 1)


@njit(cache=True, nogil=True)
def _add_wide_rows(acc, at, weight, column, width, rows, gains, begin, count, base, gain):
    """acc[at + o] += gain * sum over rows of weight[row + base, column + o] * gains[k], in the width of acc."""
    for k in range(begin, begin + count):
        row, code = rows[k] + base, gains[k] * gain
        for o in range(width):
            acc[at + o] += weight[row, column + o] * code


@njit(cache=True, nogil=True)
def _add(mode, at_once, acc, at, weight, column, width, rows, gains, begin, count, base, shift):
    """acc[at:at + width] += the weighted rows, in as many pieces as keep sums within 16 bits."""
    if mode == WIDE:
        _add_wide_rows(acc, at, weight, column, width, rows, gains, begin, count, base, np.int64(1) << shift)
        return
    for k in range(begin, begin + count, at_once):
        n = min(at_once, begin + count - k)
        if mode == PLAIN:
            add_rows(acc, at, weight, column, width, rows, k, n, base, shift)  # type: ignore[call-arg]
        else:
            add_scaled_rows(acc, at, weight, column, width, rows, gains, k, n, base, shift)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def _copy(target, at, source, begin, size, base):
    """target[at:at + size] = source[begin:begin + size] + base, and up to SLACK - 1 entries more.

    Runs are a few entries long: whole blocks without a remainder are twice as fast. Unsigned
    indices need no check for wraparound.
    """
    at, begin = np.uint64(at), np.uint64(begin)
    for e in range(np.uint64(0), np.uint64(size), np.uint64(SLACK)):
        for j in range(np.uint64(0), np.uint64(SLACK)):
            target[at + e + j] = source[begin + e + j] + base


@njit(cache=True, nogil=True)
def conv(window, ptr, index, value, weight, acc, geometry, mode, at_once, collapse, rows, gains):
    """Conv with groups = 1. weight int8 [kh * kw * C_in, C_out].

    ptr, index, value: event lists of the source, with SLACK; acc [F, P_out, C_out] ([F, 1, C_out]
    with ``collapse``); rows int32, gains: room for kh * kw * C_in + SLACK entries. With dilation 1
    along x the events under one row of the kernel are one run of the list; otherwise every tap is.
    """
    channels, in_height, in_width, height, width, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:]
    flat, outs = acc.reshape(acc.size), acc.shape[2]
    run = kw if dx == 1 else 1
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for y in range(height):
            top = y * stride_y - pad_y
            origin = ((f - lag) * in_height + top) * in_width
            for x in range(width):
                n = 0
                for ky in range(kh):
                    if top + ky * dy < 0 or top + ky * dy >= in_height:
                        continue
                    line = origin + ky * dy * in_width
                    for kx in range(0, kw, run):
                        column = x * stride_x - pad_x + kx * dx
                        left, right = max(column, 0), min(column + run, in_width)
                        if left >= right:
                            continue
                        begin, size = ptr[line + left], ptr[line + right] - ptr[line + left]
                        _copy(rows, n, index, begin, size, np.int32((ky * kw + kx - column) * channels))
                        if mode != PLAIN:
                            _copy(gains, n, value, begin, size, 0)
                        n += size
                at = (f * acc.shape[1] + (0 if collapse else y * width + x)) * outs
                _add(mode, at_once, flat, at, weight, 0, outs, rows, gains, 0, n, 0, shift)


@njit(cache=True, nogil=True)
def conv_scatter(window, ptr, index, value, weight, acc, geometry, mode, at_once):
    """Conv with groups = 1, stride 1 and dilation 1 along x, from the side of the inputs.

    weight int8 [kh * C_in, kw * C_out], taps along x reversed: what an event adds under one row of
    the kernel are kw neighbouring positions, one run of accumulators. The events of a position
    are one run of the list, so nothing is gathered.
    """
    channels, in_height, in_width, height, width, kh, kw = geometry[:7]
    _, _, pad_y, pad_x, dy, _, shift, lag, steps = geometry[7:]
    flat, outs = acc.reshape(acc.size), acc.shape[2]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(in_height * in_width):
            line = (f - lag) * in_height * in_width + p
            begin, count = ptr[line], ptr[line + 1] - ptr[line]
            if count == 0:
                continue
            y, x = p // in_width + pad_y, p % in_width
            first = x + pad_x - kw + 1
            left, right = max(first, 0), min(x + pad_x + 1, width)
            if left >= right:
                continue
            for ky in range(kh):
                row = y - ky * dy
                if 0 <= row < height:
                    at = ((f * height + row) * width + left) * outs
                    form = (left - first) * outs, (right - left) * outs
                    base = (ky - x) * channels
                    _add(mode, at_once, flat, at, weight, *form, index, value, begin, count, base, shift)


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
