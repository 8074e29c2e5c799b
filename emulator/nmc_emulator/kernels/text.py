"""Tables of whole numbers as text."""

from numba import njit


@njit(cache=True, nogil=True)
def _digits(value, out, at):
    """Write one whole number (above -2^63); the place behind it."""
    if value < 0:
        out[at] = 45
        at, value = at + 1, -value
    n, rest = 1, value
    while rest >= 10:
        rest //= 10
        n += 1
    for i in range(at + n - 1, at - 1, -1):
        out[i] = 48 + value % 10
        value //= 10
    return at + n


@njit(cache=True, nogil=True)
def rows(values, base, pool, start, out):
    """Rows of values int64 [n, k], separated by commas, each ended by a newline, into out; bytes written.

    base [k]: -1 for a column of numbers, else value v of the column stands for the text
    ``pool[start[base + v] : start[base + v + 1]]``.
    """
    at = 0
    for r in range(len(values)):
        for c in range(values.shape[1]):
            if base[c] < 0:
                at = _digits(values[r, c], out, at)
            else:
                name = base[c] + values[r, c]
                for i in range(start[name], start[name + 1]):
                    out[at] = pool[i]
                    at += 1
            out[at] = 10 if c == values.shape[1] - 1 else 44
            at += 1
    return at
