"""Counters from event counts: products of event maps with the tables of fan-out and traffic."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def work(window, steps, count, width, channels, rows, columns, extent, core, offset, lag, tick, load, total):
    """total[core] += work of all events at its pieces; load[tick, core] likewise if it has rows.

    count [F, S, P] events of the source; channels [D, S], rows [D, H], columns [D, W]: fan-out
    factors, zero outside ``extent`` [D, 4]; tick [F] of level 0; events arrive ``offset`` ticks
    later; load int64 [ticks, cores], or empty for work that is not a SynOp. Events that leave the sample's
    window by their lag do no work.
    """
    for f in range(window[0], window[1]):
        if f % steps + lag >= steps:
            continue
        for d in range(len(core)):
            done = 0
            for s in range(channels.shape[1]):
                if channels[d, s] == 0:
                    continue
                plane, left, right = 0, extent[d, 2], extent[d, 3]
                for y in range(extent[d, 0], extent[d, 1]):
                    line, events = columns.dtype.type(0), count[f, s, y * width + left : y * width + right]
                    for x in range(len(events)):
                        line = columns.dtype.type(line + columns[d, left + x] * events[x])
                    plane += rows[d, y] * line
                done += channels[d, s] * plane
            total[core[d]] += done
            if len(load) > 0:
                load[tick[f] + offset, core[d]] += done


@njit(cache=True, nogil=True)
def synapses(window, steps, count, degree, core, offset, lag, tick, load, total):
    """As ``work``, for synapses one by one: count [F, C, P] events of each soma, degree [D, C * P] its synapses."""
    for f in range(window[0], window[1]):
        if f % steps + lag >= steps:
            continue
        events = count[f].reshape(count[f].size)
        for d in range(len(core)):
            done = 0
            for s in range(len(events)):
                if events[s] != 0:
                    done += degree[d, s] * events[s]
            total[core[d]] += done
            load[tick[f] + offset, core[d]] += done


@njit(cache=True, nogil=True)
def table_writes_kv(window, k_count, v_count, k_head, v_head, columns, core, tick, offset, load, total):
    """Coincident (k, v) event pairs per token and head, for the columns each piece holds.

    k_count [F, Sk, N], v_count [F, Sv, N]; k_head [Sk], v_head [Sv] head of a segment;
    columns [D, Sv] 1 where the piece holds the segment's channels; the writes come ``offset`` ticks
    after tick [F].
    """
    for f in range(window[0], window[1]):
        for d in range(len(core)):
            done = 0
            for sv in range(len(v_head)):
                if columns[d, sv] == 0:
                    continue
                for sk in range(len(k_head)):
                    if k_head[sk] == v_head[sv]:
                        for n in range(k_count.shape[2]):
                            done += k_count[f, sk, n] * v_count[f, sv, n]
            total[core[d]] += done
            load[tick[f] + offset, core[d]] += done


@njit(cache=True, nogil=True)
def table_writes_qk(window, q, k, heads, held, token, core, tick, offset, load, total):
    """Coincident (k, q) event pairs per channel, for the heads and tokens each piece holds.

    q, k codes [F, N, C]; held [D, heads] 1 where the piece holds channels of the head; token
    [D, N] 1 where it holds the token; the writes come ``offset`` ticks after tick [F].
    """
    _, tokens, channels = q.shape
    for f in range(window[0], window[1]):
        for c in range(channels):
            written = 0
            for n in range(tokens):
                written += k[f, n, c] != 0
            if written == 0:
                continue
            for d in range(len(core)):
                if held[d, c * heads // channels] == 0:
                    continue
                columns = 0
                for n in range(tokens):
                    columns += (q[f, n, c] != 0) & (token[d, n] != 0)
                total[core[d]] += written * columns
                load[tick[f] + offset, core[d]] += written * columns


@njit(cache=True, nogil=True)
def traffic(
    window,
    steps,
    count,
    start,
    kind,
    hist,
    events,
    axon_start,
    axons,
    link_start,
    links,
    tick,
    level,
    memory,
    link_load,
    reads,
    waste,
):
    """Book the events of one population: per class, per axon entry and per link.

    count [F, S, P]; start [R + 1], kind [R]: runs of cells and their class; hist [K] scratch;
    events [K] totals of the run; axons rows (unit, core, delay, lag); tick [F] of level 0,
    ``level`` that of the population; memory int64 [ticks, cores] axon entries read; link_load
    [ticks, links]; reads, waste [units, cores + 1].
    """
    for f in range(window[0], window[1]):
        hist[:] = 0
        cells = count[f].reshape(count[f].size)
        for r in range(len(kind)):
            run = np.int32(0)
            for c in cells[start[r] : start[r + 1]]:
                run = np.int32(run + c)
            hist[kind[r]] += run
        for k in range(len(hist)):
            n = hist[k]
            if n == 0:
                continue
            events[k] += n
            for a in range(axon_start[k], axon_start[k + 1]):
                unit, core, delay, lag = axons[a, 0], axons[a, 1], axons[a, 2], axons[a, 3]
                memory[tick[f] + level + delay, core] += n
                reads[unit, core] += n
                if f % steps + lag >= steps:
                    waste[unit, core] += n
            for at in range(link_start[k], link_start[k + 1]):
                link_load[tick[f] + level, links[at]] += n


@njit(cache=True, nogil=True)
def payloads(window, total, start, kind, core, table):
    """table[core of class] += payload sums [F, S, P] of one population."""
    for f in range(window[0], window[1]):
        cells = total[f].reshape(total[f].size)
        for r in range(len(kind)):
            run = np.int64(0)
            for c in cells[start[r] : start[r + 1]]:
                run += c
            table[core[kind[r]]] += run


@njit(cache=True, nogil=True)
def book(events, cell, kind, factor, flat):
    """flat[cell[i]] += events[kind[i]] * factor[i]."""
    for i in range(len(cell)):
        flat[cell[i]] += events[kind[i]] * factor[i]


@njit(cache=True, nogil=True)
def settle(ticks, synops, updates, axons, links, bound):
    """bound[4] += the largest load of each of the first ``ticks`` ticks, which then leave the window.

    synops, updates, axons int64 [ticks, cores], links [ticks, links]; bound: synops, updates, memory
    reads (synops and axon entries of one core), link packets.
    """
    for t in range(ticks):
        top_synops, top_updates, top_reads, top_link = 0, 0, 0, 0
        for c in range(synops.shape[1]):
            top_synops = max(top_synops, synops[t, c])
            top_updates = max(top_updates, updates[t, c])
            top_reads = max(top_reads, synops[t, c] + axons[t, c])
        for packets in links[t]:
            top_link = max(top_link, packets)
        bound[0] += top_synops
        bound[1] += top_updates
        bound[2] += top_reads
        bound[3] += top_link
    for load in (synops, updates, axons, links):
        rest = len(load) - ticks
        for t in range(rest):
            load[t] = load[t + ticks]
        load[rest:] = 0
