"""Conv-addressed projections: event-driven sums of int8 weight rows.

For each output position the runs of active inputs under the kernel window are collected, and their
weight rows added: a[o] += (sum of w[tap, i, o] * code) << shift.
"""

import numpy as np
from numba import njit

from .rows import add_rows, add_scaled_rows, rows_at_once

WIDENED = 1 << 17  # bytes of a widened weight at most: it has to stay in cache


def pack_geometry(source, grid, kernel, stride, pad, dilation, shift, lag, steps):
    """int64 [16]: source (C, H, W), output grid (H, W), kernel, stride, pad, dilation, and scalars."""
    fields = [*source, *grid, *kernel, *stride, *pad, *dilation, shift, lag, steps]
    return np.array(fields, np.int64).reshape(16)


def value_type(bound):
    """Type of event values with |code| <= bound: int16 where several rows can be summed in 16 bits."""
    return np.int16 if rows_at_once(bound) >= 8 else np.int64


def span_limit(bound):
    """Rows that may be added in one go for |code| <= bound: no limit where sums are as wide as acc."""
    return rows_at_once(bound) if value_type(bound) is np.int16 else 2**31


def neighbours(out_width, weight, stride, collapse):
    """Output positions side by side along x that are best summed together, as one of more channels.

    A row of few channels takes longer to find than to add, so up to 4 positions share the search;
    the rows of the wider kernel are partly zero.
    """
    kh, kw, ins, outs = weight.shape
    most = 4 if outs <= 32 else 2 if outs <= 64 and kw == 1 else 1
    for count in (4, 2):
        size = kh * (kw + (count - 1) * stride) * ins * count * outs
        if count <= most and out_width % count == 0 and not collapse and size <= WIDENED:
            return count
    return 1


def widen(weight, count, stride):
    """weight [kh, kw + (count - 1) * stride, C_in, count * C_out] that does ``count`` positions at once."""
    kh, kw, ins, outs = weight.shape
    wide = np.zeros((kh, kw + (count - 1) * stride, ins, count, outs), np.int8)
    for i in range(count):
        wide[:, i * stride : i * stride + kw, :, i] = weight
    return wide.reshape(kh, -1, ins, count * outs)


@njit(cache=True, nogil=True)
def _add_wide_rows(acc, at, weight, index, value, spans, count, gain):
    """acc[at + o] += gain * sum of weight[index[e] + base, o] * value[e], in the width of acc."""
    for s in range(count):
        begin, size, base = spans[s]
        for e in range(begin, begin + size):
            row, code = index[e] + base, value[e] * gain
            for o in range(weight.shape[1]):
                acc[at + o] += weight[row, o] * code


@njit(cache=True, nogil=True)
def _add(acc, at, weight, index, value, spans, count, shift):
    """acc[at ...] += the rows of ``count`` spans. Which of the three is known when compiling."""
    if value is None:
        add_rows(acc, at, weight, index, spans, count, shift)  # type: ignore[call-arg]
    elif value.itemsize == 2:
        add_scaled_rows(acc, at, weight, index, value, spans, count, shift)  # type: ignore[call-arg]
    else:
        _add_wide_rows(acc, at, weight, index, value, spans, count, np.int64(1) << shift)


@njit(cache=True, nogil=True)
def conv(window, ptr, index, value, weight, acc, geometry, collapse, at_once, spans):
    """Conv with groups = 1. weight int8 [kh * kw * C_in, C_out].

    ptr, index, value (None for plain spikes): event lists of the source; acc [F, P_out * C_out]
    ([F, C_out] with ``collapse``); at_once: rows whose sum fits 16 bits; spans int64
    [kh * kw, 3]. With dilation 1 along x the events under one row of the kernel are one run of
    the list; otherwise every tap is.
    """
    channels, in_height, in_width, height, width, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:]
    flat, outs = acc.reshape(acc.size), weight.shape[1]
    run = kw if dx == 1 else 1
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for y in range(height):
            top = y * stride_y - pad_y
            origin = ((f - lag) * in_height + top) * in_width
            for x in range(width):
                at = f * acc.shape[1] + (0 if collapse else (y * width + x) * outs)
                count, rows = 0, 0
                for ky in range(kh):
                    if top + ky * dy < 0 or top + ky * dy >= in_height:
                        continue
                    line = origin + ky * dy * in_width
                    for kx in range(0, kw, run):
                        column = x * stride_x - pad_x + kx * dx
                        left, right = max(column, 0), min(column + run, in_width)
                        if left >= right:
                            continue
                        begin, end = ptr[line + left], ptr[line + right]
                        base = (ky * kw + kx - column) * channels
                        while begin < end:
                            size = min(end - begin, at_once - rows)
                            spans[count, 0], spans[count, 1], spans[count, 2] = begin, size, base
                            count, rows, begin = count + 1, rows + size, begin + size
                            if rows == at_once:
                                _add(flat, at, weight, index, value, spans, count, shift)
                                count, rows = 0, 0
                _add(flat, at, weight, index, value, spans, count, shift)


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
