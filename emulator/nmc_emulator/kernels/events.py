"""From codes to event lists: which channels are active at which position."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def list_events(window, codes, segments, width, ptr, index, value, count):
    """Event lists in compressed rows, one row per (frame, position), and event counts.

    codes [F, P, C]; segments [S + 1] channel bounds; ptr [F * P + 1]; index: channel plus C times
    the column x of the position, so that events of neighbouring columns make one run;
    value: codes of graded events, None for plain spikes; count [F, S, P] events per segment.
    """
    _, positions, channels = codes.shape
    ptr[0] = 0
    n = np.uint64(ptr[window[0] * positions])  # unsigned: an index that needs no check for wraparound
    for f in range(window[0], window[1]):
        for line in range(0, positions, width):
            for x in range(width):
                offset, row = x * channels, codes[f, line + x]
                for s in range(len(segments) - 1):
                    before = n
                    for c in range(np.uint64(segments[s]), np.uint64(segments[s + 1])):
                        index[n] = np.int32(c) + offset
                        if value is not None:
                            value[n] = row[c]
                        n += np.uint64(row[c] != 0)
                    count[f, s, line + x] = n - before
                ptr[f * positions + line + x + 1] = n


@njit(cache=True, nogil=True)
def count_events(window, codes, segments, count):
    """Event counts [F, S, P] only, for populations that no event-driven kernel reads."""
    _, positions, _ = codes.shape
    for f in range(window[0], window[1]):
        for p in range(positions):
            for s in range(len(segments) - 1):
                n = np.int32(0)
                for code in codes[f, p, segments[s] : segments[s + 1]]:
                    n = np.int32(n + (code != 0))
                count[f, s, p] = n


@njit(cache=True, nogil=True)
def sum_payloads(window, codes, segments, total):
    """Sums of |code| per frame, segment and position: total [F, S, P] int64."""
    _, positions, _ = codes.shape
    for f in range(window[0], window[1]):
        for p in range(positions):
            for s in range(len(segments) - 1):
                n = np.int64(0)
                for code in codes[f, p, segments[s] : segments[s + 1]]:
                    n += abs(np.int64(code))
                total[f, s, p] = n
