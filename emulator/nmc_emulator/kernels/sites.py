"""Active sites: a hash table of coordinates, and convolutions that look their targets up in it.

Sites are int32 rows (x, y, z), one per slot; ``count`` of them are there, the slots behind are empty. A window is an
int64 array [3, 3], rows kernel, stride, pad. Two sites meet in a tap where fine = coarse * stride - pad + tap, taps
numbered in C order.
"""

import numpy as np
from numba import njit

from .conv import _add

NOBODY = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads keys (Knuth, TAOCP 3, section 6.4)


def capacity(slots):
    """Entries of a hash table for so many sites: a power of two, at most half of them taken."""
    return 1 << max(int(2 * slots - 1).bit_length(), 1)


@njit(cache=True, nogil=True)
def _key(x, y, z, extent):
    """The site as one number; extents are below 2^20."""
    return (np.int64(x) * extent[1] + y) * extent[2] + z


@njit(cache=True, nogil=True)
def _place(keys, key):
    """Entry of a key, or the free one where it belongs."""
    mask = len(keys) - 1
    at = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(40)) & mask
    while keys[at] != NOBODY and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def fill(table, first, last, extent, keys, slots):
    """A hash table of the sites in slots first..last - 1; keys int64 and slots int32 [capacity]."""
    keys[:] = NOBODY
    for s in range(first, last):
        at = _place(keys, _key(table[s, 0], table[s, 1], table[s, 2], extent))
        keys[at] = _key(table[s, 0], table[s, 1], table[s, 2], extent)
        slots[at] = s


@njit(cache=True, nogil=True)
def find(keys, slots, extent, x, y, z):
    """Slot of a site, -1 where it is not active."""
    if x < 0 or y < 0 or z < 0 or x >= extent[0] or y >= extent[1] or z >= extent[2]:
        return NOBODY
    at = _place(keys, _key(x, y, z, extent))
    return slots[at] if keys[at] != NOBODY else NOBODY


@njit(cache=True, nogil=True)
def _coarse(fine, tap, stride, pad):
    """Coarse coordinate along one axis that a tap carries a fine one to; -1: none."""
    scaled = fine + pad - tap
    return scaled // stride if scaled >= 0 and scaled % stride == 0 else NOBODY


@njit(cache=True, nogil=True)
def _reached(table, s, tap, window, inverse):
    """Site (x, y, z) that an event of slot s reaches through a tap; x = -1: none."""
    ky, kz = window[0, 1], window[0, 2]
    a, b, c = tap // (ky * kz), tap // kz % ky, tap % kz
    x, y, z = np.int64(table[s, 0]), np.int64(table[s, 1]), np.int64(table[s, 2])
    if inverse:
        return (
            x * window[1, 0] - window[2, 0] + a,
            y * window[1, 1] - window[2, 1] + b,
            z * window[1, 2] - window[2, 2] + c,
        )
    x, y, z = (
        _coarse(x, a, window[1, 0], window[2, 0]),
        _coarse(y, b, window[1, 1], window[2, 1]),
        _coarse(z, c, window[1, 2], window[2, 2]),
    )
    return (x, y, z) if x >= 0 and y >= 0 and z >= 0 else (np.int64(NOBODY), np.int64(0), np.int64(0))


@njit(cache=True, nogil=True)
def join(table, count, window, inverse, extent, keys, slots, near):
    """near int32 [target slots, taps]: source slot that each target reads in each tap, -1: none. Returns the pairs.

    table, count: sites of the source; extent, keys, slots: the hash table of the target's.
    """
    near[:] = NOBODY
    pairs = 0
    for s in range(count):
        for tap in range(near.shape[1]):
            x, y, z = _reached(table, s, tap, window, inverse)
            t = find(keys, slots, extent, x, y, z)
            if t != NOBODY:
                near[t, tap] = s
                pairs += 1
    return pairs


@njit(cache=True, nogil=True)
def allocate(table, count, window, extent, keys, slots, made):
    """Sites of a generative convolution, numbered as they are reached; their number, even beyond the slots of ``made``.

    extent: of what is made; keys, slots: a hash table for it, of at least twice its slots.
    """
    keys[:] = NOBODY
    made[:] = NOBODY
    taps, found = window[0, 0] * window[0, 1] * window[0, 2], 0
    for s in range(count):
        for tap in range(taps):
            x, y, z = _reached(table, s, tap, window, False)
            if x < 0 or x >= extent[0] or y >= extent[1] or z >= extent[2]:
                continue
            key = _key(x, y, z, extent)
            at = _place(keys, key)
            if keys[at] == key:
                continue
            if found >= len(made):
                return found + 1
            keys[at], slots[at] = key, found
            made[found, 0], made[found, 1], made[found, 2] = x, y, z
            found += 1
    return found


@njit(cache=True, nogil=True)
def silence(window, count, codes):
    """No event comes from an empty slot: codes [F, slots, C] of slots from count[0] on."""
    codes[window[0] : window[1], count[0] :] = 0


@njit(cache=True, nogil=True)
def conv_sites(
    window, ptr, index, value, weight, acc, near, shift, lag, steps, sources, collapse, fresh, at_once, spans
):
    """Conv between sites by a rulebook; ptr to acc and fresh to spans as ``conv.conv`` takes them.

    weight int8 [taps * C_in, C_out]; near int32 [target slots, taps]; sources: slots of the source.
    """
    flat, outs, taps = acc.reshape(acc.size), weight.shape[1], near.shape[1]
    channels = weight.shape[0] // taps
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for t in range(near.shape[0]):
            at = f * acc.shape[1] + (0 if collapse else t * outs)
            count, rows, keep = 0, 0, 0 if fresh else -1
            for tap in range(taps):
                if near[t, tap] < 0:
                    continue
                source = (f - lag) * sources + near[t, tap]
                begin, end = ptr[source], ptr[source + 1]
                while begin < end:
                    size = min(end - begin, at_once - rows)
                    spans[count, 0], spans[count, 1], spans[count, 2] = begin, size, tap * channels
                    count, rows, begin = count + 1, rows + size, begin + size
                    if rows == at_once:
                        _add(flat, at, weight, index, value, spans, count, shift, keep)
                        count, rows, keep = 0, 0, -1
            _add(flat, at, weight, index, value, spans, count, shift, keep)


@njit(cache=True, nogil=True)
def host_sites(x, near, count, weight, bias, shift, out):
    """y = (conv + bias + (1 << (shift - 1))) >> shift on the sites of the first ``count`` target slots, else 0.

    x int32 [I, source slots], near [target slots, taps], weight int32 [O, I, taps], bias int64 [O], out int64
    [O, target slots].
    """
    rounding = np.int64(1) << (shift - 1) if shift > 0 else np.int64(0)
    out[:] = 0
    for t in range(count):
        for o in range(weight.shape[0]):
            total = bias[o] + rounding
            for tap in range(near.shape[1]):
                if near[t, tap] >= 0:
                    for i in range(weight.shape[1]):
                        total += np.int64(weight[o, i, tap]) * np.int64(x[i, near[t, tap]])
            out[o, t] = total >> shift


@njit(cache=True, nogil=True)
def site_event(events, table, form, inverse, extent, keys, slots, weight, collapse, shift, box, acc):
    """Run-time addressing: every event's site is looked up tap by tap among those of the tile; returns SynOps.

    events and box as in ``scatter``; table: sites of the source; extent, keys, slots: hash table of the sites that the
    tile holds (with ``collapse`` of all); weight int8 [taps, C_in, held].
    """
    taps, _, held = weight.shape
    done = 0
    for e in range(len(events)):
        for tap in range(taps):
            x, y, z = _reached(table, events[e, 1], tap, form, inverse)
            t = find(keys, slots, extent, x, y, z)
            if t == NOBODY:
                continue
            row = 0 if collapse else t - box[2]
            for o in range(held):
                acc[o, row, 0] += (weight[tap, events[e, 0], o] * events[e, 3]) << shift
            done += held
    return done


@njit(cache=True, nogil=True)
def rule_event(events, start, target, tap, weight, collapse, shift, box, acc):
    """Addressing by a rulebook: source slot s reaches target[i] through tap[i], i from start[s]; returns SynOps.

    Targets outside of the tile's rows are not its own; the rest as ``site_event``.
    """
    held, done = weight.shape[2], 0
    for e in range(len(events)):
        for i in range(start[events[e, 1]], start[events[e, 1] + 1]):
            if not collapse and (target[i] < box[2] or target[i] >= box[3]):
                continue
            row = 0 if collapse else target[i] - box[2]
            for o in range(held):
                acc[o, row, 0] += (weight[tap[i], events[e, 0], o] * events[e, 3]) << shift
            done += held
    return done
