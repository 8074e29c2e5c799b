"""Somas of the model cell, in the integer rules of ``nmc_compiler.program.model.Population``.

One routine serves all engines: a population in one timestep, channel-last. ``form`` int64 [FORM] are its numbers;
``state`` int64 [PARTS, positions, C]; ``values`` int64 [VALUES, C] per channel; ``thresholds`` int64 [D, C].
"""

import numpy as np
from numba import njit

from .soma import ACCUMULATOR, CURRENT, POTENTIAL, clip24, decay, wrap24

U, V, B, SENT, TOTAL = range(5)  # state; sent: the code of the timestep before, total: the sum of codes
PARTS = 5
BIAS, STEP, LOW, FLOOR, JUMP, GAIN, RISE = range(7)  # values
VALUES = 7
DU, DV, DB, RESET, LATE, LEAST, MOST, STILL = range(8)  # form; still: nothing but v is remembered
FORM = 8
HARD, SOFT, NONE = range(3)  # resets
NO_SUM = 1 << 60


@njit(cache=True, nogil=True, inline="always")
def _reset(h, code, unit, reset):
    """A potential after a code; ``unit``: what one code subtracts."""
    if code == 0 or reset == NONE:
        return h
    return h - code * unit if reset == SOFT else np.int64(0)


@njit(cache=True, nogil=True)
def _still_row(acc, u, v, codes, form, values, thresholds, over, rule):
    """Somas that remember v alone and reset at once: passes over a row that a compiler makes vectors of."""
    leak, tight, wraps, clips = 4096 - form[DV], 0, 0, 0
    bias, step, low, floor = values[BIAS], values[STEP], values[LOW], values[FLOOR]
    for i in range(len(acc)):
        a = np.int64(acc[i])
        wrapped = wrap24(a << 6, rule)
        kept = abs(v[i]) * leak >> 12
        h = (kept if v[i] >= 0 else -kept) + wrapped + bias[i]
        u[i] = wrapped
        v[i] = clip24(h)
        tight += a != np.int32(a)
        wraps += a << 6 != wrapped
        clips += v[i] != h
        codes[i] = 0
    for level in range(thresholds.shape[0]):
        theta = thresholds[level]
        for i in range(len(acc)):
            codes[i] += v[i] >= theta[i]
    for i in range(len(acc)):
        code = np.int64(codes[i]) - (v[i] < low[i])
        h = v[i]
        if form[RESET] == SOFT:
            h = v[i] - code * step[i]
        elif form[RESET] == HARD and code != 0:
            h = np.int64(0)
        v[i] = max(clip24(h), floor[i])
        clips += clip24(h) != h
        codes[i] = code
    over[ACCUMULATOR] += tight
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def cell(acc, state, codes, form, values, thresholds, over, rule=None):
    """acc, codes [positions, C]; rule: of a current beyond 24 bits, as in ``soma``; over: as there."""
    if form[STILL]:
        for p in range(acc.shape[0]):
            _still_row(acc[p], state[U, p], state[V, p], codes[p], form, values, thresholds, over, rule)
        return
    kept_u, kept_v, kept_b, reset, late = form[DU] + 1, form[DV], form[DB], form[RESET], form[LATE]
    tight, wraps, clips = 0, 0, 0
    for p in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            a, sent = np.int64(acc[p, c]), state[SENT, p, c]
            current = decay(state[U, p, c], kept_u) + (a * values[GAIN, c] >> 6)
            wrapped = wrap24(current, rule)
            raised = decay(state[B, p, c], kept_b) + sent * values[JUMP, c]
            b = clip24(raised)
            r = b + values[RISE, c]
            unit = values[STEP, c] + r
            h = decay(state[V, p, c], kept_v) + wrapped + values[BIAS, c]
            if late:
                h = _reset(h, sent, unit, reset)
            v = clip24(h)
            clips += (v != h) + (b != raised)
            code = np.int64(0)
            while code < thresholds.shape[0] and v >= thresholds[code, c] + r:
                code += 1
            code -= v < values[LOW, c]
            code = min(max(code, form[LEAST] - state[TOTAL, p, c]), form[MOST] - state[TOTAL, p, c])
            if not late:
                h = _reset(v, code, unit, reset)
                v = clip24(h)
                clips += v != h
            codes[p, c] = code
            state[U, p, c], state[V, p, c], state[B, p, c] = wrapped, max(v, values[FLOOR, c]), b
            state[SENT, p, c] = code
            state[TOTAL, p, c] += code
            tight += a != np.int32(a)
            wraps += current != wrapped
    over[ACCUMULATOR] += tight
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def cells(window, steps, acc, state, start, codes, form, values, thresholds, over, rule=None):
    """All frames of a window: acc, codes [F, positions, C]; start int64 [2, positions, C]: u and v at rest.

    values int64 [1 or steps, VALUES, C].
    """
    for f in range(window[0], window[1]):
        t = f % steps
        if t == 0:
            state[:] = 0
            state[:2] = start
        row = values[t if len(values) > 1 else 0]
        cell(acc[f], state, codes[f], form, row, thresholds, over, rule)
