"""A step of the neurocore (docs/neurocore.md): deliver, update, learn. Scalar loops over flat arrays.

Everything is in this file, because Numba's cache notices changes in the file of a kernel only. Items stay packed as the
host wrote them, so that a word which learning changed is the word that is read back.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

SLOT_MASK = 15
SYNOPS, SPIKES, STEPS, SENT, RECEIVED, DEPRESSED, POTENTIATED, WRAPS, SATURATED, AXONS = 0, 2, 3, 6, 7, 8, 9, 10, 11, 13
WINDOW, LEARN, TRACES, STEP = range(4)
_SPARSE, _DENSE, _CONV, _ONE, _GATE, _DELAY = range(1, 7)
_DU, _DV, _VTH, _GAIN, _ISHIFT, _LEAK, _REFR, _SOFT, _LEVEL = range(9)
_LIMIT = (1 << 23) - 1


class State(NamedTuple):
    """The memories of all cores, core first; names as in the specification."""

    words: np.ndarray  # int64 [cores, W]
    rows: np.ndarray  # int64 [cores, A]
    params: np.ndarray  # int64 [cores, N]
    routes: np.ndarray  # int64 [cores, N]
    types: np.ndarray  # int64 [cores, 4 * TYPES]
    geoms: np.ndarray  # int64 [cores, 4 * GEOMS]
    rules: np.ndarray  # int64 [cores, 16]
    u: np.ndarray  # int64 [cores, N]
    v: np.ndarray
    refr: np.ndarray
    acc: np.ndarray
    post: np.ndarray
    pre: np.ndarray  # int64 [cores, A]
    pending: np.ndarray  # int64 [cores, 16, A / 32], 32 bits each
    fired: np.ndarray  # uint8 [cores, N]
    registers: np.ndarray  # int64 [cores, 16]
    counts: np.ndarray  # int64 [cores, 16]; 0: SynOps in full, 1 unused
    table: np.ndarray  # int64 [cores, TYPES, 9], the types field by field
    over: np.ndarray  # int64 [cores, N, 3]: additions that wrapped, u that saturated, v that saturated


@njit(cache=True, nogil=True)
def _bits(item, low, width):
    return (item >> low) & ((1 << width) - 1)


@njit(cache=True, nogil=True)
def _signed(item, low, width):
    value = (item >> low) & ((1 << width) - 1)
    return value - ((value >> (width - 1)) << width)


@njit(cache=True, nogil=True)
def spread_types(s):
    """Types field by field, after their items were written."""
    for c in range(s.types.shape[0]):
        for k in range(s.types.shape[1] // 4):
            first, second, third = s.types[c, 4 * k], s.types[c, 4 * k + 1], s.types[c, 4 * k + 2]
            row = s.table[c, k]
            row[_DU], row[_DV] = _bits(first, 0, 13), _bits(first, 13, 13)
            row[_REFR], row[_SOFT] = _bits(first, 26, 6), _bits(first, 32, 1)
            row[_VTH], row[_GAIN], row[_ISHIFT] = _signed(second, 0, 24), _bits(second, 24, 8), _bits(second, 32, 4)
            row[_LEAK], row[_LEVEL] = _bits(third, 0, 20), _bits(third, 20, 6)


@njit(cache=True, nogil=True)
def _add(s, c, target, value):
    total = s.acc[c, target] + value
    wrapped = _signed(total, 0, 24)
    s.acc[c, target] = wrapped
    s.counts[c, SYNOPS] += 1
    if wrapped != total:
        s.counts[c, WRAPS] += 1
        s.over[c, target, 0] += 1


@njit(cache=True, nogil=True)
def _change(trace, amount, shift, rect):
    if rect:
        return amount if trace > 0 else 0
    return (amount * trace) >> shift


@njit(cache=True, nogil=True)
def _depressed(s, c, rule, target, weight):
    """The weight after it was delivered."""
    first, bounds = s.rules[c, 2 * rule], s.rules[c, 2 * rule + 1]
    dw = _change(s.post[c, target], _bits(first, 8, 8), _bits(first, 20, 4), _bits(first, 24, 1))
    if dw == 0:
        return weight
    s.counts[c, DEPRESSED] += 1
    return max(weight - dw, _signed(bounds, 0, 8))


@njit(cache=True, nogil=True)
def _potentiated(s, c, rule, axon, target, weight):
    """The weight after step t's spikes, where its target fired."""
    if s.fired[c, target] == 0:
        return weight
    first, bounds = s.rules[c, 2 * rule], s.rules[c, 2 * rule + 1]
    dw = _change(s.pre[c, axon], _bits(first, 0, 8), _bits(first, 16, 4), _bits(first, 24, 1))
    if dw == 0:
        return weight
    s.counts[c, POTENTIATED] += 1
    return min(weight + dw, _signed(bounds, 8, 8))


@njit(cache=True, nogil=True)
def _replaced(word, low, weight):
    return (word & ~(255 << low)) | ((weight & 255) << low)


@njit(cache=True, nogil=True)
def _deliver_sparse(s, c, row):
    words, shift, base = s.words[c], _bits(row, 4, 3), _bits(row, 20, 16)
    rule = _bits(row, 7, 3) if s.registers[c, LEARN] & 1 else 0
    last_word, last_neuron = words.size - 1, s.acc.shape[1] - 1
    for i in range(_bits(row, 10, 10) + 1):
        at = (base + i) & last_word
        word = words[at]
        weight, target = _signed(word, 0, 8), _bits(word, 8, 10) & last_neuron
        _add(s, c, target, weight << shift)
        if rule:
            words[at] = _replaced(word, 0, _depressed(s, c, rule, target, weight))


@njit(cache=True, nogil=True)
def _deliver_dense(s, c, row):
    words, shift, base = s.words[c], _bits(row, 4, 3), _bits(row, 20, 16)
    rule = _bits(row, 7, 3) if s.registers[c, LEARN] & 1 else 0
    last_word, last_neuron = words.size - 1, s.acc.shape[1] - 1
    first = _bits(words[base & last_word], 8, 10)
    for i in range(_bits(row, 10, 10) + 1):
        at, low = (base + 1 + (i >> 1)) & last_word, 8 * (i & 1)
        weight, target = _signed(words[at], low, 8), (first + i) & last_neuron
        _add(s, c, target, weight << shift)
        if rule:
            words[at] = _replaced(words[at], low, _depressed(s, c, rule, target, weight))


@njit(cache=True, nogil=True)
def _tap(position, stride_log2, size):
    """Output index of one tap along one axis, -1 where it falls outside or between the strides."""
    if position < 0 or position & ((1 << stride_log2) - 1):
        return -1
    index = position >> stride_log2
    return index if index < size else -1


@njit(cache=True, nogil=True)
def _deliver_conv(s, c, row):
    words, shift = s.words[c], _bits(row, 4, 3)
    last_word, last_neuron = words.size - 1, s.acc.shape[1] - 1
    geom = 4 * _bits(row, 10, 4) & (s.geoms.shape[1] - 1)
    first, second, third = s.geoms[c, geom], s.geoms[c, geom + 1], s.geoms[c, geom + 2]
    kh, kw, cout = _bits(first, 0, 4), _bits(first, 4, 4), _bits(first, 18, 10)
    wo, plane, start = _bits(second, 22, 6), _bits(third, 0, 10), _bits(third, 10, 10)
    run = (cout + 1) >> 1
    for ky in range(kh):
        r = _bits(row, 14, 6) + _signed(second, 0, 8) - ky * _bits(first, 12, 3)
        r = _tap(r, _bits(first, 8, 2), _bits(second, 16, 6))
        for kx in range(kw):
            x = _bits(row, 20, 6) + _signed(second, 8, 8) - kx * _bits(first, 15, 3)
            x = _tap(x, _bits(first, 10, 2), wo)
            if r < 0 or x < 0:
                continue
            base, target = 64 * _bits(row, 26, 10) + (ky * kw + kx) * run, start + r * wo + x
            for o in range(cout):
                weight = _signed(words[(base + (o >> 1)) & last_word], 8 * (o & 1), 8)
                _add(s, c, (target + o * plane) & last_neuron, weight << shift)


@njit(cache=True, nogil=True)
def _set_pending(s, c, step, axon):
    axon &= s.rows.shape[1] - 1
    s.pending[c, step & SLOT_MASK, axon >> 5] |= 1 << (axon & 31)


@njit(cache=True, nogil=True)
def _deliver_chain(s, c, axon, step):
    last_neuron = s.acc.shape[1] - 1
    for d in range(axon, s.rows.shape[1]):
        row = s.rows[c, d]
        fmt = row & 7
        if fmt == _SPARSE:
            _deliver_sparse(s, c, row)
        elif fmt == _DENSE:
            _deliver_dense(s, c, row)
        elif fmt == _CONV:
            _deliver_conv(s, c, row)
        elif fmt == _ONE:
            _add(s, c, _bits(row, 18, 10) & last_neuron, _signed(row, 10, 8) << _bits(row, 4, 3))
        elif fmt == _GATE:
            if s.fired[c, _bits(row, 10, 10) & last_neuron] == 0:
                return
        elif fmt == _DELAY and _bits(row, 21, 4):
            _set_pending(s, c, step + _bits(row, 21, 4), _bits(row, 10, 11))
        if row >> 3 & 1 == 0:
            return


@njit(cache=True, nogil=True)
def _deliver(s, c, step):
    slot = s.pending[c, step & SLOT_MASK]
    for w in range(slot.size):
        if slot[w] == 0:
            continue
        for b in range(32):
            if slot[w] >> b & 1:
                s.counts[c, AXONS] += 1
                _deliver_chain(s, c, 32 * w + b, step)


@njit(cache=True, nogil=True)
def _decay(x, d):
    magnitude = abs(x) * (4096 - d) >> 12
    return magnitude if x >= 0 else -magnitude


@njit(cache=True, nogil=True)
def _trace(x, k, spike, inc, add):
    if x > 0:
        x -= max(x >> k, 1)
    if spike:
        x = min(x + inc, 255) if add else inc
    return x


@njit(cache=True, nogil=True)
def _soma(s, c, n, row, bias):
    """Current, potential and reset of one open neuron; whether it fired."""
    u = _decay(s.u[c, n], row[_DU]) + ((s.acc[c, n] * row[_GAIN]) << row[_ISHIFT])
    clipped = max(-_LIMIT, min(u, _LIMIT))
    high_u, high_v, fires = clipped != u, False, False
    s.u[c, n] = clipped
    if s.refr[c, n] > 0:
        s.refr[c, n] -= 1
    else:
        v = _decay(s.v[c, n], row[_DV]) + clipped + bias
        high_v = v > _LIMIT or v < -_LIMIT
        v = max(-_LIMIT, min(v, _LIMIT))
        v = max(v - row[_LEAK], 0) if v > 0 else min(v + row[_LEAK], 0)
        fires = v > row[_VTH]
        if fires:
            v = v - row[_VTH] if row[_SOFT] else 0
            high_v = high_v or v > _LIMIT or v < -_LIMIT
            v = max(-_LIMIT, min(v, _LIMIT))
            s.refr[c, n] = row[_REFR]
        s.v[c, n] = v
    if high_u or high_v:
        s.counts[c, SATURATED] += 1
        s.over[c, n, 1] += high_u
        s.over[c, n, 2] += high_v
    return fires


@njit(cache=True, nogil=True)
def _send(s, c, route, step):
    for core in range(s.acc.shape[0]):
        if _bits(route, 11, 4) >> core & 1:
            _set_pending(s, core, step + 1, route & 2047)
            s.counts[c, SENT] += core != c
            s.counts[core, RECEIVED] += core != c


@njit(cache=True, nogil=True)
def _update(s, c, step, log, logged):
    window, learn, traces = s.registers[c, WINDOW], s.registers[c, LEARN] & 1, s.registers[c, TRACES]
    k, inc, add = _bits(traces, 4, 4), _bits(traces, 16, 8), _bits(traces, 25, 1)
    for n in range(s.acc.shape[1]):
        param = s.params[c, n]
        row = s.table[c, _bits(param, 20, 6) & (s.table.shape[1] - 1)]
        since = step - row[_LEVEL]
        fires = False
        if since >= 0 and (window == 0 or since < window):
            fires = _soma(s, c, n, row, _signed(param, 0, 20))
            if learn:
                s.post[c, n] = _trace(s.post[c, n], k, fires, inc, add)
        s.acc[c, n] = 0
        s.fired[c, n] = fires
        if fires:
            s.counts[c, SPIKES] += 1
            _send(s, c, s.routes[c, n], step)
            if s.routes[c, n] >> 15 & 1:
                log[logged, 0], log[logged, 1] = c, n
                logged += 1
    return logged


@njit(cache=True, nogil=True)
def _potentiate_row(s, c, axon, row):
    words, base, rule = s.words[c], _bits(row, 20, 16), _bits(row, 7, 3)
    dense = row & 7 == _DENSE
    last_word, last_neuron = words.size - 1, s.acc.shape[1] - 1
    first = _bits(words[base & last_word], 8, 10)
    for i in range(_bits(row, 10, 10) + 1):
        at = (base + (1 + (i >> 1) if dense else i)) & last_word
        low = 8 * (i & 1) if dense else 0
        target = (first + i if dense else _bits(words[at], 8, 10)) & last_neuron
        weight = _signed(words[at], low, 8)
        words[at] = _replaced(words[at], low, _potentiated(s, c, rule, axon, target, weight))


@njit(cache=True, nogil=True)
def _learn(s, c, step):
    traces = s.registers[c, TRACES]
    k, inc, add = _bits(traces, 0, 4), _bits(traces, 8, 8), _bits(traces, 24, 1)
    for axon in range(s.rows.shape[1]):
        active = s.pending[c, step & SLOT_MASK, axon >> 5] >> (axon & 31) & 1
        s.pre[c, axon] = _trace(s.pre[c, axon], k, active, inc, add)
        if s.pre[c, axon] == 0:
            continue
        for d in range(axon, s.rows.shape[1]):
            row = s.rows[c, d]
            if (row & 7 == _SPARSE or row & 7 == _DENSE) and _bits(row, 7, 3):
                _potentiate_row(s, c, axon, row)
            if row >> 3 & 1 == 0:
                break


@njit(cache=True, nogil=True)
def advance(s, log):
    """One step of all cores. ``log`` int32 [cores * N, 2] takes (core, neuron); returns how many."""
    logged = 0
    for c in range(s.acc.shape[0]):
        step = s.registers[c, STEP]
        _deliver(s, c, step)
        logged = _update(s, c, step, log, logged)
        if s.registers[c, LEARN] & 1:
            _learn(s, c, step)
        s.pending[c, step & SLOT_MASK] = 0
        s.registers[c, STEP] = (step + 1) & 0xFFFFFFFF
        s.counts[c, STEPS] += 1
    return logged


@njit(cache=True, nogil=True)
def run(s, steps, events, cursor, fired, log):
    """``steps`` steps with events int64 [n, 3] (step from now, core, axon; sorted) from row ``cursor`` on.

    ``fired`` uint8 [steps, cores, N] takes every spike. Returns the next row.
    """
    for t in range(steps):
        while cursor < events.shape[0] and events[cursor, 0] <= t:
            core = events[cursor, 1]
            _set_pending(s, core, s.registers[core, STEP], events[cursor, 2])
            cursor += 1
        advance(s, log)
        fired[t] = s.fired
    return cursor
