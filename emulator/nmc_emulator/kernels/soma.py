"""Soma models in the integer rules of Lava 0.10 (docs of ``nmc_compiler.program.model.Population``).

Symbols: a accumulator, u current, v membrane potential, theta threshold (vth << 6). The kernels
take flat populations: acc, codes [F, n], v [n] with n = positions * channels; ``bias`` and
``theta`` hold one block of whole positions, which repeats over the population.
``over`` counts values out of range: [accumulator, u, v, payload].  ``rule`` says what becomes of u beyond
24 bits: None wraps as Lava does (profile loihi2) and is compiled in; MODULAR (loihi1), SATURATING (neurocore).
"""

import numpy as np
from numba import njit

LIMIT = 1 << 23
ACCUMULATOR, CURRENT, POTENTIAL, PAYLOAD = 0, 1, 2, 3  # indices into ``over``
NARROW = 1 << 24  # |a| up to here, every intermediate value fits 32 bits
NARROW_BIAS = 1 << 29
UNWRAPPED = 1 << 17  # |a| below this, u does not wrap
MODULAR, SATURATING = 1, 2  # rules of the current
NEVER = -(1 << 31)  # a lower threshold that no potential is below


@njit(cache=True, nogil=True)
def clip24(v):
    """v saturated at +-(2^23 - 1)."""
    return min(max(v, -LIMIT + 1), LIMIT - 1)


@njit(cache=True, nogil=True)
def wrap24(u, rule=None):
    """u into (-2^23, 2^23] by one addition of 2^24, as Lava does; further out it stays outside.

    MODULAR: into -2^23 .. 2^23 - 1, from any distance.  SATURATING: like a potential.
    """
    if rule is not None:
        if rule == SATURATING:
            return clip24(u)
        return ((u + LIMIT) & (2 * LIMIT - 1)) - LIMIT
    if u > LIMIT:
        return u - 2 * LIMIT
    if u <= -LIMIT:
        return u + 2 * LIMIT
    return u


@njit(cache=True, nogil=True)
def decay(x, d):
    """D(x, d) = sgn(x) * ((|x| * (4096 - d)) >> 12): rounds toward zero, in two parts so that no x is too large."""
    size, leak = abs(x), 4096 - d
    y = (size >> 12) * leak + ((size & 4095) * leak >> 12)
    return -y if x < 0 else y


@njit(cache=True, nogil=True)
def note_range(a, u, v, over, rule):
    """Count what leaves its range: accumulator, current before wrapping, potential before clipping."""
    over[ACCUMULATOR] += a != np.int32(a)
    over[CURRENT] += u != wrap24(u, rule)
    over[POTENTIAL] += v != clip24(v)


@njit(cache=True, nogil=True)
def _lif_row_wide(acc, v, codes, bias, theta, dv, over, rule):
    tight, wraps, clips = 0, 0, 0
    for i in range(len(acc)):
        a = np.int64(acc[i])
        u = a << 6
        potential = decay(v[i], dv) + wrap24(u, rule) + bias[i]
        clipped = clip24(potential)
        spike = clipped > theta[i]
        codes[i] = spike
        v[i] = 0 if spike else clipped
        tight += a != np.int32(a)
        wraps += u != wrap24(u, rule)
        clips += potential != clipped
    over[ACCUMULATOR] += tight
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def lif_wide(window, steps, acc, v, codes, bias, theta, dv, over, rule=None):
    """LIF with any accumulator; v int64 [n]. v restarts at 0 with every sample."""
    n, block = acc.shape[1], len(bias)
    for start in range(0, n, block):
        stop = min(start + block, n)
        for f in range(window[0], window[1]):
            if f % steps == 0:
                v[start:stop] = 0
            row, out, size = acc[f, start:stop], codes[f, start:stop], stop - start
            _lif_row_wide(row, v[start:stop], out, bias[:size], theta[:size], dv, over, rule)


@njit(cache=True, nogil=True)
def lif_lasting(window, steps, acc, state, start, codes, bias, theta, low, du, dv, restart, over, rule=None):
    """LIF with a current that lasts: state and start int64 [2, n], u and v now and before the first timestep.

    bias, theta, low [C] of somas counted channel last; restart (interval, offset): u and v are 0 before the t-th
    timestep, from 1, where t % interval == offset % interval; interval 0: never.
    """
    for f in range(window[0], window[1]):
        t = f % steps + 1
        for i in range(acc.shape[1]):
            c = i % len(bias)
            u, v = (start[0, i], start[1, i]) if t == 1 else (state[0, i], state[1, i])
            if restart[0] > 0 and t % restart[0] == restart[1] % restart[0]:
                u, v = np.int64(0), np.int64(0)
            a = np.int64(acc[f, i])
            current = decay(u, du + 1) + (a << 6)
            wrapped = wrap24(current, rule)
            potential = decay(v, dv) + wrapped + bias[c]
            note_range(a, current, potential, over, rule)
            clipped = clip24(potential)
            code = np.int64(clipped > theta[c]) - np.int64(clipped < low[c])
            codes[f, i] = code
            state[0, i] = wrapped
            state[1, i] = clipped if code == 0 else 0


@njit(cache=True, nogil=True)
def lif_real(window, steps, acc, v, codes, bias, theta, dv):
    """LIF in real arithmetic: nothing rounds, wraps or saturates. v float64 [n]."""
    n, block = acc.shape[1], len(bias)
    for f in range(window[0], window[1]):
        for i in range(n):
            kept = 0.0 if f % steps == 0 else v[i] * (4096 - dv) / 4096
            potential = kept + np.float64(acc[f, i]) * 64 + bias[i % block]
            codes[f, i] = potential > theta[i % block]
            v[i] = 0.0 if potential > theta[i % block] else potential


@njit(cache=True, nogil=True)
def _drive(a, bias, wrapping, rule):
    """32 bits: (u + bias, whether u = a << 6 wrapped), for |a| <= NARROW and |bias| <= NARROW_BIAS."""
    u = np.int32(a << 6)
    if wrapping is None:
        return np.int32(u + bias), False
    if rule is not None:
        if rule == SATURATING:
            clipped = min(max(u, np.int32(-LIMIT + 1)), np.int32(LIMIT - 1))
            return np.int32(clipped + bias), clipped != u
        wrapped = np.int32((np.int32(u + LIMIT) & (2 * LIMIT - 1)) - LIMIT)
        return np.int32(wrapped + bias), wrapped != u
    turns = np.int32(np.int32(u > LIMIT) - np.int32(u <= -LIMIT))
    return np.int32(u - (turns << 24) + bias), turns != 0


@njit(cache=True, nogil=True)
def _decay32(v, leak, shift):
    """32 bits: D(v, 4096 - leak); with a ``shift``, leak = 2^(12 - shift)."""
    kept = np.int32(np.int64(abs(v)) * leak >> 12) if shift is None else np.int32(abs(v) >> shift)
    return kept if v >= 0 else np.int32(-kept)


@njit(cache=True, nogil=True)
def _lif_row(acc, v, codes, bias, theta, leak, shift, wrapping, over, rule):
    wraps, clips = np.int32(0), np.int32(0)
    for i in range(len(acc)):
        drive, wrapped = _drive(acc[i], bias[i], wrapping, rule)
        potential = np.int32(_decay32(v[i], leak, shift) + drive)
        clipped = min(max(potential, np.int32(-LIMIT + 1)), np.int32(LIMIT - 1))
        spike = clipped > theta[i]
        codes[i] = spike
        v[i] = np.int32(0) if spike else clipped
        wraps = np.int32(wraps + wrapped)
        clips = np.int32(clips + (potential != clipped))
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def lif(window, steps, acc, v, codes, bias, theta, dv, shift, wrapping, over, rule=None):
    """LIF in 32-bit arithmetic, for |a| <= NARROW, |bias| and |theta| <= NARROW_BIAS; v int32 [n].

    shift: k if 4096 - dv = 2^(12 - k), else None.  wrapping: None if |a| < UNWRAPPED, else True.
    Both are compiled in: None takes its branch out of the loop.
    """
    n, block = acc.shape[1], len(bias)
    leak = np.int64(4096 - dv)
    for start in range(0, n, block):
        stop = min(start + block, n)
        for f in range(window[0], window[1]):
            if f % steps == 0:
                v[start:stop] = 0
            row, out, size = acc[f, start:stop], codes[f, start:stop], stop - start
            operands = row, v[start:stop], out, bias[:size], theta[:size]
            _lif_row(*operands, leak, shift, wrapping, over, rule)


@njit(cache=True, nogil=True)
def _levels_row_wide(acc, v, codes, bias, thresholds, over, rule):
    tight, wraps, clips = 0, 0, 0
    for i in range(len(acc)):
        a = np.int64(acc[i])
        u = a << 6
        potential = wrap24(u, rule) + bias[i]
        v[i] = clip24(potential)
        tight += a != np.int32(a)
        wraps += u != wrap24(u, rule)
        clips += potential != v[i]
    _count_levels(v, codes, thresholds)
    over[ACCUMULATOR] += tight
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def _count_levels(v, codes, thresholds):
    """code = number of thresholds [D, >= n] reached; D stays below 256 where codes are uint8."""
    codes[:] = 0
    for level in range(thresholds.shape[0]):
        theta = thresholds[level][: len(codes)]
        for i in range(len(codes)):
            codes[i] += v[i] >= theta[i]


@njit(cache=True, nogil=True)
def levels_wide(window, acc, codes, bias, thresholds, v, over, rule=None):
    """Stateless level table: code = number of thresholds reached. thresholds [D, block] ascending.

    v int64 [block] is scratch.
    """
    n, block = acc.shape[1], len(bias)
    for f in range(window[0], window[1]):
        for start in range(0, n, block):
            stop = min(start + block, n)
            row, out, size = acc[f, start:stop], codes[f, start:stop], stop - start
            _levels_row_wide(row, v[:size], out, bias[:size], thresholds, over, rule)


@njit(cache=True, nogil=True)
def _levels_row(acc, v, codes, bias, thresholds, wrapping, over, rule):
    wraps, clips = np.int32(0), np.int32(0)
    for i in range(len(acc)):
        potential, wrapped = _drive(acc[i], bias[i], wrapping, rule)
        v[i] = min(max(potential, np.int32(-LIMIT + 1)), np.int32(LIMIT - 1))
        wraps = np.int32(wraps + wrapped)
        clips = np.int32(clips + (potential != v[i]))
    _count_levels(v, codes, thresholds)
    over[CURRENT] += wraps
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def levels(window, acc, codes, bias, thresholds, v, wrapping, over, rule=None):
    """Level table in 32-bit arithmetic; v int32 [block] is scratch, the rest as for ``lif``."""
    n, block = acc.shape[1], len(bias)
    for f in range(window[0], window[1]):
        for start in range(0, n, block):
            stop = min(start + block, n)
            row, out, size = acc[f, start:stop], codes[f, start:stop], stop - start
            _levels_row(row, v[:size], out, bias[:size], thresholds, wrapping, over, rule)


@njit(cache=True, nogil=True)
def relay(window, acc, codes, over):
    """Code = accumulator, as a signed graded spike of 24 bits."""
    for f in range(window[0], window[1]):
        for i in range(acc.shape[1]):
            a = np.int64(acc[f, i])
            over[ACCUMULATOR] += a != np.int32(a)
            over[PAYLOAD] += (a < -LIMIT) | (a >= LIMIT)
            codes[f, i] = a


@njit(cache=True, nogil=True)
def readout(window, steps, acc, v, out, bias, over, rule=None):
    """v integrates without threshold; out [samples, n] takes v after the last timestep."""
    n, block = acc.shape[1], len(bias)
    for f in range(window[0], window[1]):
        if f % steps == 0:
            v[:] = 0
        for i in range(n):
            a = np.int64(acc[f, i])
            u = a << 6
            potential = v[i] + wrap24(u, rule) + bias[i % block]
            note_range(a, u, potential, over, rule)
            v[i] = clip24(potential)
        if f % steps == steps - 1:
            out[f // steps, :] = v


@njit(cache=True, nogil=True)
def lif_tile(acc, u, v, codes, bias, theta, low, du, dv, over, rule=None):
    """One timestep of LIF somas on a tile: acc, u, v, codes int64 [C, H, W]; bias, theta, low [C].

    low: below it a soma sends -1; NEVER where it does not.
    """
    channels, height, width = acc.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                a = acc[c, y, x]
                current = decay(u[c, y, x], du + 1) + (a << 6)
                wrapped = wrap24(current, rule)
                potential = decay(v[c, y, x], dv) + wrapped + bias[c]
                note_range(a, current, potential, over, rule)
                clipped = clip24(potential)
                code = np.int64(clipped > theta[c]) - np.int64(clipped < low[c])
                codes[c, y, x] = code
                u[c, y, x] = wrapped
                v[c, y, x] = clipped if code == 0 else 0


@njit(cache=True, nogil=True)
def wrap32(x):
    """x into 32 bits, two's complement."""
    return np.int64(np.int32(x))


@njit(cache=True, nogil=True)
def _sigma_delta_one(a, sigma, act, residue, error, bias, theta, relu, cumulative):
    """(code before its shift, sigma, act, residue, error, whether a sum left 32 bits) of one soma."""
    full_sigma = sigma + wrap32(a)
    full_act = wrap32(full_sigma) + bias
    fresh = max(wrap32(full_act), 0) if relu else wrap32(full_act)
    full_delta = fresh - act + residue
    delta = wrap32(full_delta)
    full_error = error + delta if cumulative else np.int64(0)
    fire = abs(wrap32(full_error) if cumulative else delta) >= theta
    sent = delta if fire else np.int64(0)
    wraps = full_sigma != wrap32(full_sigma) or full_act != wrap32(full_act) or full_delta != delta
    wraps = wraps or full_error != wrap32(full_error)
    kept = np.int64(0) if fire else wrap32(full_error)
    return sent, wrap32(full_sigma), fresh, delta - sent, kept, wraps


@njit(cache=True, nogil=True)
def sigma_delta_tile(acc, sigma, act, residue, error, codes, bias, theta, relu, cumulative, out_shift, over):
    """One timestep of sigma-delta somas on a tile, in 32 bits that wrap: all int64 [C, H, W]; bias, theta [C]."""
    channels, height, width = acc.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                a, old = acc[c, y, x], (sigma[c, y, x], act[c, y, x], residue[c, y, x], error[c, y, x])
                new = _sigma_delta_one(a, *old, bias[c], theta[c], relu, cumulative)
                sigma[c, y, x], act[c, y, x], residue[c, y, x], error[c, y, x] = new[1:5]
                code = new[0] >> out_shift
                codes[c, y, x] = code
                over[ACCUMULATOR] += a != np.int32(a)
                over[POTENTIAL] += new[5]
                over[PAYLOAD] += (code < -LIMIT) | (code >= LIMIT)


@njit(cache=True, nogil=True)
def levels_tile(acc, codes, bias, thresholds, over, rule=None):
    """One timestep of a level table on a tile: thresholds [C, D]."""
    channels, height, width = acc.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                a = acc[c, y, x]
                v = wrap24(a << 6, rule) + bias[c]
                note_range(a, a << 6, v, over, rule)
                v = clip24(v)
                while codes[c, y, x] < thresholds.shape[1] and v >= thresholds[c, codes[c, y, x]]:
                    codes[c, y, x] += 1


@njit(cache=True, nogil=True)
def relay_tile(acc, codes, over):
    """One timestep of relays on a tile."""
    codes[:] = acc
    for a in acc.flat:
        over[ACCUMULATOR] += a != np.int32(a)
        over[PAYLOAD] += (a < -LIMIT) | (a >= LIMIT)


@njit(cache=True, nogil=True)
def readout_tile(acc, v, bias, over, rule=None):
    """One timestep of readout somas on a tile."""
    channels, height, width = acc.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                a = acc[c, y, x]
                potential = v[c, y, x] + wrap24(a << 6, rule) + bias[c]
                note_range(a, a << 6, potential, over, rule)
                v[c, y, x] = clip24(potential)
