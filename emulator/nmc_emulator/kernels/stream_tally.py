"""Totals of a run of the event engine: events per soma times what one event of it costs."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def add_rows_times(events, table, total):
    """total[c] += sum over rows of events[s] * table[s, c]. events int64 [n], table int8 or int32 [n, cores]."""
    for s in range(len(events)):
        if events[s] != 0:
            for c in range(len(total)):
                total[c] += events[s] * np.int64(table[s, c])


@njit(cache=True, nogil=True)
def add_met_times(events, table, total):
    """total[c] += events[s] for all rows s with an entry in column c."""
    for s in range(len(events)):
        if events[s] != 0:
            for c in range(len(total)):
                total[c] += events[s] * np.int64(table[s, c] != 0)


@njit(cache=True, nogil=True)
def add_meetings(events, home, met, sent):
    """sent[home[s], c] += events[s] wherever met[s, c] is not 0: events from core to core."""
    for s in range(len(events)):
        if events[s] != 0:
            row = sent[home[s]]
            for c in range(len(row)):
                row[c] += events[s] * np.int64(met[s, c] != 0)


@njit(cache=True, nogil=True)
def add_by_home(values, home, total):
    """total[home[s]] += values[s]."""
    for s in range(len(values)):
        total[home[s]] += values[s]
