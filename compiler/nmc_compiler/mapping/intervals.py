"""Half-open intervals along one axis, as int64 arrays [n, 2]; an empty interval has low >= high."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.shapes import Window


def even_chunks(size: int, count: int) -> np.ndarray:
    """`count` intervals that cover 0..size, longest first, lengths differing by one at most."""
    length, longer = divmod(size, count)
    lengths = np.full(count, length, np.int64)
    lengths[:longer] += 1
    return _from_lengths(lengths)


def split_by(size: int, length: int) -> np.ndarray:
    """Intervals of `length` that cover 0..size; the last one may be shorter."""
    full, rest = divmod(size, length)
    return _from_lengths(np.array([length] * full + [rest] * (rest > 0), np.int64))


def _from_lengths(lengths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, ends], axis=1)


def length(spans: np.ndarray) -> np.ndarray:
    """Length of each interval, 0 where empty."""
    return np.maximum(spans[:, 1] - spans[:, 0], 0)


def overlap(spans: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Length of the intersection of each interval [n] with each other one [m]: [n, m]."""
    low = np.maximum(spans[:, None, 0], others[None, :, 0])
    high = np.minimum(spans[:, None, 1], others[None, :, 1])
    return np.maximum(high - low, 0)


def constant(spans: np.ndarray, low: int, high: int) -> np.ndarray:
    """The same interval low..high for each of `spans`."""
    return np.broadcast_to(np.array([low, high], np.int64), (len(spans), 2))


def sources_of_outputs(outs: np.ndarray, size: int, kernel: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """Smallest interval of 0..size that holds every source position of each interval of outputs.

    Output o reads positions ``o*stride - pad + k*dilation``, 0 <= k < kernel, those inside 0..size.
    """
    low = np.full(len(outs), size, np.int64)
    high = np.zeros(len(outs), np.int64)
    for tap in range(kernel):
        shift = tap * dilation - pad
        # the outputs of the interval whose position for this tap lies inside 0..size
        first = np.maximum(outs[:, 0], -(shift // stride))
        last = np.minimum(outs[:, 1] - 1, (size - 1 - shift) // stride)
        some = first <= last
        low = np.where(some, np.minimum(low, first * stride + shift), low)
        high = np.where(some, np.maximum(high, last * stride + shift + 1), high)
    return np.stack([np.minimum(low, high), high], axis=1)


def reached(window: Window, low: int, high: int) -> np.ndarray:
    """Bool [size]: positions that outputs low..high read."""
    places = np.arange(low, high)[:, None] * window.stride - window.pad + np.arange(window.kernel) * window.dilation
    mask = np.zeros(window.size, bool)
    mask[places[(places >= 0) & (places < window.size)]] = True
    return mask


def windows_of_outputs(outs: np.ndarray, out_size: int, size: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Interval of 0..size that a tile must hold to pool each interval of outputs by itself.

    The windows of the outputs, plus what no window covers (between windows and at the rim), so that
    intervals of outputs that cover 0..out_size give intervals that cover 0..size.
    """
    first, last = outs[:, 0] * stride - pad, (outs[:, 1] - 1) * stride - pad + kernel
    low = np.where(outs[:, 0] == 0, 0, np.clip(first, 0, size))
    high = np.where(outs[:, 1] == out_size, size, np.clip(np.maximum(last, outs[:, 1] * stride - pad), 0, size))
    return np.stack([low, high], axis=1)
