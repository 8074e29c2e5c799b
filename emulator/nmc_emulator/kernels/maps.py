"""Maps: constant-weight channel-wise projections, a += code * gain with gain = 1 << shift."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def map_same(window, codes, acc, gain, lag, steps):
    """(c, p) -> (c, p). codes, acc: [F, P * C]."""
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for i in range(acc.shape[1]):
            acc[f, i] += np.int64(codes[f - lag, i]) * gain


@njit(cache=True, nogil=True)
def map_reduce(window, codes, acc, gain, lag, steps):
    """(c, p) -> (c, 0): a sum over positions. acc [F, 1, C]."""
    _, positions, channels = codes.shape
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(positions):
            for c in range(channels):
                acc[f, 0, c] += np.int64(codes[f - lag, p, c]) * gain


@njit(cache=True, nogil=True)
def map_broadcast(window, codes, acc, gain, lag, steps):
    """(c, 0) -> (c, all positions). codes [F, 1, C]."""
    _, positions, channels = acc.shape
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(positions):
            for c in range(channels):
                acc[f, p, c] += np.int64(codes[f - lag, 0, c]) * gain


@njit(cache=True, nogil=True)
def map_reduce_channels(window, codes, acc, gain, lag, steps):
    """(c, p) -> (c // block, p): sums over blocks of channels."""
    _, positions, channels = codes.shape
    block = channels // acc.shape[2]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(positions):
            for c in range(channels):
                acc[f, p, c // block] += np.int64(codes[f - lag, p, c]) * gain


@njit(cache=True, nogil=True)
def map_broadcast_channels(window, codes, acc, gain, lag, steps):
    """(g, p) -> (every channel of block g, p)."""
    _, positions, channels = acc.shape
    block = channels // codes.shape[2]
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for p in range(positions):
            for c in range(channels):
                acc[f, p, c] += np.int64(codes[f - lag, p, c // block]) * gain


@njit(cache=True, nogil=True)
def map_window(window, codes, acc, geometry):
    """Sum pool: every window that contains the event. ``geometry`` as for convs."""
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, _, _, shift, lag, steps = geometry[7:]
    gain = 1 << shift
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for target in range(out_h * out_w):
            y0 = target // out_w * stride_y - pad_y
            x0 = target % out_w * stride_x - pad_x
            for y in range(max(y0, 0), min(y0 + kh, height)):
                for x in range(max(x0, 0), min(x0 + kw, width)):
                    for c in range(channels):
                        acc[f, target, c] += np.int64(codes[f - lag, y * width + x, c]) * gain
