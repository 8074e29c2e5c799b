"""Dynamic synapses: per head a table written by two populations and read by a third."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def dynamic_kv(window, q, k, v, acc, heads, shift, saturate, table, row):
    """Order "kv": M[i, j] += k[n, i] v[n, j], then a[n, j] += min(sum_i q[n, i] M[i, j], saturate) << shift.

    q, k [F, N, heads * d], v and acc [F, N, heads * dv]; table [d, dv] and row [dv] are scratch.
    """
    tokens = q.shape[1]
    d, dv = table.shape
    for f in range(window[0], window[1]):
        for head in range(heads):
            table[:] = 0
            for n in range(tokens):
                for i in range(d):
                    weight = np.int64(k[f, n, head * d + i])
                    if weight != 0:
                        for j in range(dv):
                            table[i, j] += weight * np.int64(v[f, n, head * dv + j])
            for n in range(tokens):
                row[:] = 0
                for i in range(d):
                    code = np.int64(q[f, n, head * d + i])
                    if code != 0:
                        for j in range(dv):
                            row[j] += code * table[i, j]
                for j in range(dv):
                    acc[f, n, head * dv + j] += min(np.int64(row[j]), saturate) << shift


@njit(cache=True, nogil=True)
def dynamic_lasting(window, q, k, v, acc, heads, shift, saturate, tables, row, keep, frac, block, steps):
    """Order "kv" with tables that last: M = (keep * M) >> 12 before the writes of a timestep, 0 where a block begins.

    Shapes as for ``dynamic_kv`` but tables [heads, d, dv], kept from call to call; keep [heads]. A block is of so many
    of a sample's ``steps`` frames.
    """
    tokens = q.shape[1]
    _, d, dv = tables.shape
    for f in range(window[0], window[1]):
        begins = f % steps % block == 0
        for head in range(heads):
            table = tables[head]
            for i in range(d):
                for j in range(dv):
                    table[i, j] = 0 if begins else (keep[head] * table[i, j]) >> 12
            for n in range(tokens):
                for i in range(d):
                    weight = np.int64(k[f, n, head * d + i])
                    if weight != 0:
                        for j in range(dv):
                            table[i, j] += (weight * np.int64(v[f, n, head * dv + j])) << frac
            for n in range(tokens):
                row[:] = 0
                for i in range(d):
                    code = np.int64(q[f, n, head * d + i])
                    if code != 0:
                        for j in range(dv):
                            row[j] += code * table[i, j]
                for j in range(dv):
                    acc[f, n, head * dv + j] += min(np.int64(row[j]), saturate) << shift


@njit(cache=True, nogil=True)
def dynamic_qk(window, q, k, v, acc, heads, shift, saturate, table, row):
    """Order "qk": M[m, n] += k[m, i] q[n, i], then a[n, j] += min(sum_m v[m, j] M[m, n], saturate) << shift.

    Shapes as for ``dynamic_kv`` but table [N, N] and row [N].
    """
    tokens = q.shape[1]
    d, dv = q.shape[2] // heads, v.shape[2] // heads
    for f in range(window[0], window[1]):
        for head in range(heads):
            table[:] = 0
            for m in range(tokens):
                for i in range(head * d, (head + 1) * d):
                    weight = np.int64(k[f, m, i])
                    if weight != 0:
                        for n in range(tokens):
                            table[m, n] += weight * np.int64(q[f, n, i])
            for j in range(head * dv, (head + 1) * dv):
                row[:] = 0
                for m in range(tokens):
                    code = np.int64(v[f, m, j])
                    if code != 0:
                        for n in range(tokens):
                            row[n] += code * table[m, n]
                for n in range(tokens):
                    acc[f, n, j] += min(np.int64(row[n]), saturate) << shift
