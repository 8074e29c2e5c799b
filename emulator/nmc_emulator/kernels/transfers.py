"""Transfers: in-core moves from one dendrite to another."""

from numba import njit


@njit(cache=True, nogil=True)
def max_pool(window, src, dst, geometry, best, rshift):
    """dst += (max of src over each window, padding left out) >> rshift. best [C] is scratch.

    src [F, H * W, C], dst [F, P_out, C]; ``geometry`` as for convs.
    """
    channels, height, width, out_h, out_w, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x = geometry[7:11]
    for f in range(window[0], window[1]):
        for target in range(out_h * out_w):
            y0 = target // out_w * stride_y - pad_y
            x0 = target % out_w * stride_x - pad_x
            first = True
            for y in range(max(y0, 0), min(y0 + kh, height)):
                for x in range(max(x0, 0), min(x0 + kw, width)):
                    p = y * width + x
                    if first:
                        best[:] = src[f, p]
                        first = False
                    else:
                        for c in range(channels):
                            best[c] = max(best[c], src[f, p, c])
            if not first:
                for c in range(channels):
                    dst[f, target, c] += best[c] >> rshift


@njit(cache=True, nogil=True)
def sum_positions(window, src, dst, total, rshift):
    """dst[c, 0] += (sum of src over all positions) >> rshift. total [C] is scratch."""
    _, positions, channels = src.shape
    for f in range(window[0], window[1]):
        total[:] = 0
        for p in range(positions):
            for c in range(channels):
                total[c] += src[f, p, c]
        for c in range(channels):
            dst[f, 0, c] += total[c] >> rshift
