"""Synapses one by one, of one delay: a[target] += weight * code, shifted left."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def sparse(window, codes, acc, indptr, target, weight, gain, lag, steps, graded):
    """codes [F, sources] of ``lag`` frames ago, acc [F, targets]; row s of the synapses is that of source s.

    ``graded`` False: every event counts as 1.
    """
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for s in range(len(indptr) - 1):
            code = np.int64(codes[f - lag, s])
            if code == 0:
                continue
            each = (code if graded else np.int64(1)) * gain
            for i in range(indptr[s], indptr[s + 1]):
                acc[f, target[i]] += np.int64(weight[i]) * each
