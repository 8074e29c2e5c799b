"""Soma updates of the event engine: a population in one timestep. Each kernel zeroes nothing but its output."""

import numpy as np
from numba import njit

from .soma import ACCUMULATOR, LIMIT, PAYLOAD, POTENTIAL, clip24, decay, note_range, wrap24


@njit(cache=True, nogil=True)
def _decay32(x, leak):
    """sgn(x) * ((|x| * leak) >> 12) in 32 bits, for |x| < 2^24 and 0 <= leak <= 4096."""
    size = np.int32(abs(x))
    kept = np.int32((size >> 12) * leak + ((size & 4095) * leak >> 12))
    return kept if x >= 0 else np.int32(-kept)


@njit(cache=True, nogil=True)
def _lif_one(a, v, bias, theta, leak):
    """32 bits: (v, spike, clipped) of a soma that forgets u, where |a| < 2^17 and |bias| < 2^29."""
    potential = np.int32(_decay32(v, leak) + np.int32(np.int32(a) << 6) + bias)
    clipped = min(max(potential, np.int32(-LIMIT + 1)), np.int32(LIMIT - 1))
    spike = clipped > theta
    return np.int32(0) if spike else clipped, spike, potential != clipped


@njit(cache=True, nogil=True)
def lif(acc, v, bias, theta, leak, spikes, over):
    """Plain LIF without u: acc, v, bias, theta int32 [n]; writes spikes uint8 [n]."""
    clips, kept = np.int32(0), np.int32(leak)
    for i in range(len(v)):
        v[i], spikes[i], clip = _lif_one(acc[i], v[i], bias[i], theta[i], kept)
        clips = np.int32(clips + clip)
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def lif_uniform(acc, v, bias, theta, leak, spikes, over):
    """``lif`` with one bias and one threshold for all somas."""
    clips, kept, one_bias, one_theta = np.int32(0), np.int32(leak), np.int32(bias), np.int32(theta)
    for i in range(len(v)):
        v[i], spikes[i], clip = _lif_one(acc[i], v[i], one_bias, one_theta, kept)
        clips = np.int32(clips + clip)
    over[POTENTIAL] += clips


@njit(cache=True, nogil=True)
def lif_full(acc, v, u, bias, theta, low, ternary, leak_u, leak_v, codes, over, rule):
    """LIF with u, any accumulator, ternary or not: u int64 [n], v int32 [n]; writes codes int32 [n].

    rule: of a current beyond 24 bits, as in ``soma``.
    """
    for i in range(len(v)):
        a = np.int64(acc[i])
        current = decay(u[i], 4096 - leak_u) + (a << 6)
        wrapped = wrap24(current, rule)
        potential = decay(np.int64(v[i]), 4096 - leak_v) + wrapped + bias[i]
        clipped = clip24(potential)
        code = np.int32(clipped > theta[i])
        if ternary and clipped < low[i]:
            code -= np.int32(1)
        codes[i] = code
        u[i] = wrapped
        v[i] = 0 if code != 0 else clipped
        note_range(a, current, potential, over, rule)


@njit(cache=True, nogil=True)
def lif_real(acc, state, bias, theta, low, ternary, leak_u, leak_v, codes):
    """``lif_full`` in real arithmetic: nothing rounds, wraps or saturates. state float64 [2, n]: u, v."""
    for i in range(len(codes)):
        u = state[0, i] * leak_u / 4096 + np.float64(acc[i]) * 64
        v = state[1, i] * leak_v / 4096 + u + bias[i]
        code = np.int32(v > theta[i])
        if ternary and v < low[i]:
            code -= np.int32(1)
        codes[i] = code
        state[0, i], state[1, i] = u, 0.0 if code != 0 else v


@njit(cache=True, nogil=True)
def sigma_delta(acc, state, bias, theta, relu, cumulative, out_shift, codes, over):
    """Sigma-delta somas: state int32 [4, n] (sigma, act, residue, error); 32 bits that wrap, as in Lava."""
    for i in range(len(codes)):
        a = np.int64(acc[i])
        over[ACCUMULATOR] += a != np.int32(a)
        sum_sigma = np.int64(state[0, i]) + np.int32(a)
        sum_act = np.int64(np.int32(sum_sigma)) + bias[i]
        act = np.int32(sum_act)
        if relu:
            act = max(act, np.int32(0))
        sum_delta = np.int64(act) - state[1, i] + state[2, i]
        delta = np.int32(sum_delta)
        sum_error = np.int64(state[3, i]) + delta if cumulative else np.int64(0)
        error = np.int32(sum_error)
        fire = abs(np.int64(error if cumulative else delta)) >= theta[i]
        sent = delta if fire else np.int32(0)
        wraps = sum_sigma != np.int32(sum_sigma) or sum_act != np.int32(sum_act) or sum_delta != delta
        over[POTENTIAL] += wraps or sum_error != error
        state[0, i], state[1, i], state[2, i] = np.int32(sum_sigma), act, np.int32(delta - sent)
        state[3, i] = np.int32(0) if fire else error
        codes[i] = sent >> out_shift
        over[PAYLOAD] += (codes[i] < -LIMIT) | (codes[i] >= LIMIT)


@njit(cache=True, nogil=True)
def relay(acc, codes, over):
    """Code = accumulator."""
    for i in range(len(codes)):
        a = np.int64(acc[i])
        over[ACCUMULATOR] += a != np.int32(a)
        over[PAYLOAD] += (a < -LIMIT) | (a >= LIMIT)
        codes[i] = np.int32(a)


@njit(cache=True, nogil=True)
def readout(acc, v, bias, over, rule):
    """Readout somas: v int32 [n] integrates without threshold; rule as for ``lif_full``."""
    for i in range(len(v)):
        a = np.int64(acc[i])
        potential = v[i] + wrap24(a << 6, rule) + bias[i]
        v[i] = clip24(potential)
        note_range(a, a << 6, potential, over, rule)


@njit(cache=True, nogil=True)
def list_spikes(spikes, size, ring, begin):
    """Indices of nonzero spikes uint8 [size, padded with zeros to a multiple of 8] into ring[begin ...]; their number.

    Nothing is written from ring[begin + size] on: events of other ticks and populations are there.
    """
    n, words = begin, spikes.view(np.uint64)
    for w in range(len(words)):
        if words[w] != 0:
            for k in range(8 * w, min(8 * w + 8, size)):
                ring[n] = k
                n += spikes[np.uint64(k)] != 0
    return n - begin


@njit(cache=True, nogil=True)
def list_codes(codes, ring, ring_code, begin, coded):
    """Indices of nonzero codes int32 [n] into ring[begin ...], the codes into ring_code[coded ...]; their number."""
    n = 0
    for i in range(len(codes)):
        if codes[i] != 0:
            ring[begin + n] = i
            if coded >= 0:
                ring_code[coded + n] = codes[i]
            n += 1
    return n
