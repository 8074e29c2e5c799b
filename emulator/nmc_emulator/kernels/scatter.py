"""The tick engine's kernels: one event at a time, into the accumulators of one tile.

Events are int64 rows (c, y, x, code) in coordinates of the source population. ``box`` is the part
(c0, c1, y0, y1, x0, x1) of the target dendrite that the tile holds; ``acc`` int64 [C, H, W] its
accumulators. Each kernel returns the operations it did, taken as they happen.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def inside(events, box):
    """Whether each event is inside the half-open box, bool [n]."""
    hit = np.zeros(len(events), np.bool_)
    for e in range(len(events)):
        c, y, x = events[e, 0], events[e, 1], events[e, 2]
        hit[e] = box[0] <= c < box[1] and box[2] <= y < box[3] and box[4] <= x < box[5]
    return hit


@njit(cache=True, nogil=True)
def find_events(codes, origin, events):
    """Write the nonzero codes [C, H, W] of a tile as events (global coordinates); their number."""
    n = 0
    for c in range(codes.shape[0]):
        for y in range(codes.shape[1]):
            for x in range(codes.shape[2]):
                if codes[c, y, x] != 0:
                    events[n, 0] = c + origin[0]
                    events[n, 1] = y + origin[1]
                    events[n, 2] = x + origin[2]
                    events[n, 3] = codes[c, y, x]
                    n += 1
    return n


@njit(cache=True, nogil=True)
def _reached(place, tap, window):
    """Output that a tap carries a place to along one axis, -1: none; window: as `program.shapes.Window`."""
    _, out, _, stride, pad, dilation = window
    at = place + pad - tap * dilation
    return at // stride if at % stride == 0 and 0 <= at < out * stride else -1


@njit(cache=True, nogil=True)
def conv_event(events, weight, first_out, slices, rows, columns, outs, collapse, shift, box, acc):
    """Every event adds its weights to the targets the tile holds; returns SynOps.

    weight int8 [kd * kh, kw, C_in // groups, held]: the tile's slice, output channels from ``first_out``;
    slices, rows (of a slice), columns: windows; outs: output channels per group in the whole projection.
    """
    taps, kw, ins, held = weight.shape
    done = 0
    for e in range(len(events)):
        c, code = events[e, 0], events[e, 3]
        for k in range(taps):
            for kx in range(kw):
                z = _reached(events[e, 1] // rows[0], k // rows[2], slices)
                y = _reached(events[e, 1] % rows[0], k % rows[2], rows)
                x = _reached(events[e, 2], kx, columns)
                if z < 0 or y < 0 or x < 0:
                    continue
                y += z * rows[1]
                if collapse:
                    y, x = 0, 0
                if y < box[2] or y >= box[3] or x < box[4] or x >= box[5]:
                    continue
                for o in range(held):
                    if (first_out + o) // outs == c // ins:
                        acc[o, y - box[2], x - box[4]] += (weight[k, kx, c % ins, o] * code) << shift
                        done += 1
    return done


@njit(cache=True, nogil=True)
def sparse_event(events, somas, indptr, target, weight, extra, shift, graded, slot, room, ring):
    """Every event adds the weights of its row to the tile's accumulators; returns SynOps.

    somas: shape (C, H, W) of the source; indptr, target, weight, extra: `synapses.Synapses` of the tile; ring
    int64 [slots, accumulators], ``slot`` of the timestep the events are for, which is ``room`` timesteps before
    the window's end.
    """
    done = 0
    for e in range(len(events)):
        soma = (events[e, 0] * somas[1] + events[e, 1]) * somas[2] + events[e, 2]
        code = events[e, 3] if graded else 1
        for i in range(indptr[soma], indptr[soma + 1]):
            done += 1
            if extra[i] < room:
                ring[(slot + extra[i]) % len(ring), target[i]] += (weight[i] * code) << shift
    return done


@njit(cache=True, nogil=True)
def map_event(events, mode, blocks, kernel, stride, pad, shift, box, acc):
    """Modes 0 same, 1 reduce, 2 broadcast, 3 window; returns accumulator additions.

    blocks: channels of the source, and of the target, that lead to each other.
    """
    done = 0
    for e in range(len(events)):
        y, x, code = events[e, 1], events[e, 2], events[e, 3]
        first = events[e, 0] // blocks[0] * blocks[1]
        low, high = max(first, box[0]), min(first + blocks[1], box[1])
        if low >= high:
            continue
        for ty in range(box[2], box[3]):
            for tx in range(box[4], box[5]):
                if mode == 0:
                    hit = ty == y and tx == x
                elif mode == 3:
                    top, left = ty * stride[0] - pad[0], tx * stride[1] - pad[1]
                    hit = top <= y < top + kernel[0] and left <= x < left + kernel[1]
                else:
                    hit = True
                if hit:
                    for c in range(low, high):
                        acc[c - box[0], ty - box[2], tx - box[4]] += code << shift
                    done += high - low
    return done


@njit(cache=True, nogil=True)
def write_kv(k, v, width, d, dv, box, table):
    """table[i of a head, j of the tile] += k[i, n] v[j, n] for events of one token; returns pairs.

    width: columns of the token grid; d, dv: channels of a head in k and v.
    """
    done = 0
    for b in range(len(v)):
        j = v[b, 0]
        if j < box[0] or j >= box[1]:
            continue
        for a in range(len(k)):
            if k[a, 1] * width + k[a, 2] == v[b, 1] * width + v[b, 2] and k[a, 0] // d == j // dv:
                table[k[a, 0] % d, j - box[0]] += k[a, 3] * v[b, 3]
                done += 1
    return done


@njit(cache=True, nogil=True)
def read_kv(q, d, dv, box, table, sums):
    """sums[j, n] += q[i, n] table[i, j] for the tile's tokens and channels; returns words read."""
    done = 0
    for e in range(len(q)):
        y, x = q[e, 1], q[e, 2]
        if y < box[2] or y >= box[3] or x < box[4] or x >= box[5]:
            continue
        for j in range(box[0], box[1]):
            if j // dv == q[e, 0] // d:
                sums[j - box[0], y - box[2], x - box[4]] += q[e, 3] * table[q[e, 0] % d, j - box[0]]
                done += 1
    return done


@njit(cache=True, nogil=True)
def write_qk(k, q, width, d, dv, box, table):
    """table[head of the tile, m, n of the tile] += k[i, m] q[i, n] for events of one channel; pairs."""
    done, first = 0, box[0] // dv
    for b in range(len(q)):
        y, x, head = q[b, 1], q[b, 2], q[b, 0] // d
        if y < box[2] or y >= box[3] or x < box[4] or x >= box[5]:
            continue
        if head < first or head > (box[1] - 1) // dv:
            continue
        for a in range(len(k)):
            if k[a, 0] == q[b, 0]:
                m = k[a, 1] * width + k[a, 2]
                table[head - first, m, (y - box[2]) * (box[5] - box[4]) + x - box[4]] += k[a, 3] * q[b, 3]
                done += 1
    return done


@njit(cache=True, nogil=True)
def read_qk(v, width, dv, box, table, sums):
    """sums[j, n] += v[j, m] table[head, m, n] for the tile's channels and tokens; returns words read."""
    done, columns = 0, box[5] - box[4]
    for e in range(len(v)):
        j, m = v[e, 0], v[e, 1] * width + v[e, 2]
        if j < box[0] or j >= box[1]:
            continue
        for n in range(table.shape[2]):
            sums[j - box[0], n // columns, n % columns] += v[e, 3] * table[j // dv - box[0] // dv, m, n]
            done += 1
    return done


@njit(cache=True, nogil=True)
def max_window(src, src_box, size, kernel, stride, pad, box, acc, rshift):
    """acc += (window maxima >> rshift) of the tile's piece of the source dendrite; (elements compared, additions)."""
    compared, added = 0, 0
    for c in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                seen, best = 0, np.int64(0)
                for ky in range(kernel[0]):
                    for kx in range(kernel[1]):
                        row, column = y * stride[0] - pad[0] + ky, x * stride[1] - pad[1] + kx
                        if row < 0 or row >= size[0] or column < 0 or column >= size[1]:
                            continue
                        a = src[c - src_box[0], row - src_box[2], column - src_box[4]]
                        best = a if seen == 0 else max(best, a)
                        seen += 1
                if seen:
                    acc[c - box[0], y - box[2], x - box[4]] += best >> rshift
                compared += seen
                added += 1
    return compared, added


@njit(cache=True, nogil=True)
def send(hits, home, cores, seen, at, routers, packets, inbox, links):
    """Route the events of one tile; counts [packets, local, hops ew, hops ns, crossings] of the tile.

    hits bool [axon rows, events]: which row takes which event; cores: of the rows; seen [cores] scratch; at
    [cores, 2] router of each core in the grid of all chips; routers (x of one chip, y); inbox [cores]
    packets received; links [.] load of the directed links (four per router), walked one by one: first along
    x, then along y.
    """
    for e in range(hits.shape[1]):
        seen[:] = 0
        for a in range(len(cores)):
            core = cores[a]
            if not hits[a, e] or seen[core]:
                continue
            seen[core] = 1
            if core == home:
                packets[1] += 1
                continue
            packets[0] += 1
            inbox[core] += 1
            rx, ry = at[home, 0], at[home, 1]
            while rx != at[core, 0]:
                east = at[core, 0] > rx
                links[(rx * routers[1] + ry) * 4 + (0 if east else 1)] += 1
                step = rx + 1 if east else rx - 1
                packets[2 if rx // routers[0] == step // routers[0] else 4] += 1
                rx = step
            while ry != at[core, 1]:
                north = at[core, 1] > ry
                links[(rx * routers[1] + ry) * 4 + (2 if north else 3)] += 1
                packets[3] += 1
                ry = ry + 1 if north else ry - 1


@njit(cache=True, nogil=True)
def host_messages(hits, cores, seen, inbox):
    """Messages that the host sends for its events: one per receiving core, inbox [cores]; hits as for ``send``."""
    for e in range(hits.shape[1]):
        seen[:] = 0
        for a in range(len(cores)):
            if hits[a, e] and not seen[cores[a]]:
                seen[cores[a]] = 1
                inbox[cores[a]] += 1
