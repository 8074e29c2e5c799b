"""From codes to event lists: which channels are active at which position."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 8  # codes looked at together by ``list_plain_events``
GATHER = np.uint64(0x0102040810204080)  # times eight bytes of 0 or 1: byte i goes to bit 56 + i
PATTERNS = [[i for i in range(LANES) if mask >> i & 1] for mask in range(1 << LANES)]
OFFSETS = np.array([p + [0] * (LANES - len(p)) for p in PATTERNS], np.int32)  # the bits set in a byte, first to last
COUNTS = np.array([len(p) for p in PATTERNS], np.int32)


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


@intrinsic
def _store_offsets(typingctx, index, at, mask, base):
    """index[at : at + 8] = OFFSETS[mask] + base as one vector: LLVM makes eight stores of a plain loop."""

    def generate(context, builder, signature, args):
        vector, i32 = ir.VectorType(ir.IntType(32), LANES), ir.IntType(32)
        data = context.make_array(index)(context, builder, args[0]).data
        table = ir.GlobalVariable(builder.module, ir.ArrayType(vector, len(OFFSETS)), builder.module.get_unique_name())
        table.initializer = ir.Constant(table.type.pointee, [ir.Constant(vector, row) for row in OFFSETS.tolist()])
        table.global_constant, table.linkage = True, "internal"
        offsets = builder.load(builder.gep(table, [ir.Constant(i32, 0), args[2]]))
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, args[3], ir.Constant(i32, 0))
        bases = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(i32, LANES), None))
        target = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        builder.store(builder.add(offsets, bases), target, align=4)
        return context.get_dummy_value()

    return types.void(index, types.int64, types.int64, types.int32), generate


@njit(cache=True, nogil=True)
def list_plain_events(window, codes, segments, width, ptr, index, count):
    """``list_events`` for codes of 0 or 1 in uint8, where C and all segment bounds are multiples of 8.

    Up to 7 entries of index past the last event are overwritten: it needs room for F * P * C + 8.
    """
    _, positions, channels = codes.shape
    words = codes.view(np.uint64)
    ptr[0] = 0
    n = np.int64(ptr[window[0] * positions])
    for f in range(window[0], window[1]):
        for line in range(0, positions, width):
            for x in range(width):
                row = words[f, line + x]
                for s in range(len(segments) - 1):
                    before = n
                    for w in range(np.uint64(segments[s] // LANES), np.uint64(segments[s + 1] // LANES)):
                        mask = np.int64((row[w] * GATHER) >> np.uint64(56))
                        _store_offsets(index, n, mask, np.int32(x * channels + np.int64(w) * LANES))  # type: ignore[call-arg]
                        n += COUNTS[np.uint64(mask)]
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
