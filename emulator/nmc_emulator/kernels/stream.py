"""The event engine's loop: a network tick by tick, driven by lists of events.

Everything lies in a few flat arrays (``stream_tables``), so that the loop over ticks is compiled as
a whole and a tick of a small network takes microseconds. Within a tick the order is that of the
Program: arrivals, transfers, somas. Loads of cores and links are sums of table rows over the events
of a tick; ``add_rows`` of ``conv`` makes them with the sums in registers.

Numba's cache notices changes in the file of a kernel only: after editing ``stream_soma``, ``soma``,
``cell`` or ``conv``, touch this file too.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .cell import PARTS, VALUES, U, V, cell
from .conv import add_rows
from .stream_soma import lif, lif_full, lif_real, lif_uniform, list_codes, list_spikes, readout, relay, sigma_delta
from .stream_tables import CELL, INPUT, LIF, LIF_FULL, LIF_REAL, LIF_UNIFORM, READOUT, SIGMA_DELTA

CHUNK = 255  # table rows below 128 that ``add_rows`` may add in one go
AHEAD = 4  # events whose synapses are fetched before they are needed
LINE = 64  # bytes of a cache line


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of array[index]: spikes have their synapses all over the memory."""

    def generate(context, builder, signature, args):
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(array)(context, builder, args[0]).data
        form = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], form)
        at = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(fetch, [at, i32(0), i32(2), i32(1)])  # for reading, into the second level, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@njit(cache=True, nogil=True)
def due(tick, level, clock):
    """(sample, timestep) that something at ``level`` lives at ``tick``; (-1, -1): none."""
    if tick < level:
        return -1, -1
    sample, rest = divmod(tick - level, clock[0].interval)
    t, off = divmod(rest, clock[0].ticks)
    if off != 0 or t >= clock[0].timesteps or sample >= clock[0].samples:
        return -1, -1
    return sample, t


@njit(cache=True, nogil=True)
def _ring(acc, dend, step):
    """Accumulators of one dendrite for one timestep."""
    first = dend.first + step % dend.ring * dend.length
    return acc[first : first + dend.length]


# -- arrivals ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _add_loads(load, table, row, ring, begin, n, spans):
    """load += rows ``row + ring[e]`` of a table, for n events from ``begin`` on."""
    if table.itemsize == 1:
        for first in range(0, n, CHUNK):
            spans[0, 0], spans[0, 1], spans[0, 2] = begin + first, min(CHUNK, n - first), row
            add_rows(load, 0, table, ring, spans, 1, 0, -1)  # type: ignore[call-arg]
    else:
        for e in range(begin, begin + n):
            line = table[row + ring[e]]
            for c in range(len(load)):
                load[c] += line[c]


@njit(cache=True, nogil=True)
def _add_met(load, table, row, ring, begin, n):
    """load += 1 wherever rows ``row + ring[e]`` of a table are not 0."""
    for e in range(begin, begin + n):
        line = table[row + ring[e]]
        for c in range(len(load)):
            load[c] += np.int32(line[c] != 0)


@njit(cache=True, nogil=True)
def _add_reads(load, entries, synapses, row, ring, begin, n, spans):
    """Axon entries read; ``entries`` None: one wherever there are synapses."""
    if entries is None:
        _add_met(load, synapses, row, ring, begin, n)
    else:
        _add_loads(load, entries, row, ring, begin, n, spans)


@njit(cache=True, nogil=True)
def _fetch(events, e, rows, target, weight):
    """Ask for the synapses of event e, if there is one."""
    if e < len(events):
        first, stop = rows[events[e]], rows[events[e] + 1]
        for j in range(first, stop, LINE // target.itemsize):
            prefetch(target, j)  # type: ignore[call-arg]
        for j in range(first, stop, LINE // weight.itemsize):
            prefetch(weight, j)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def _plain_rows(acc, events, rows, target, weight, gain):
    """Synapses of plain events, all for one timestep. ``gain`` None is 1."""
    for e in range(len(events)):
        _fetch(events, e + AHEAD, rows, target, weight)
        s = events[e]
        for j in range(np.uint64(rows[s]), np.uint64(rows[s + 1])):
            acc[target[j]] += weight[j] if gain is None else weight[j] * gain


@njit(cache=True, nogil=True)
def _late_rows(acc, dend, step, left, events, codes, rows, target, weight, extra, gain):
    """Synapses of events with codes (None: plain), each for its own timestep (extra None: all for ``step``)."""
    size, ring = dend.length, dend.ring
    for e in range(len(events)):
        _fetch(events, e + AHEAD, rows, target, weight)
        s, code = events[e], gain if codes is None else gain * codes[e]
        for j in range(np.uint64(rows[s]), np.uint64(rows[s + 1])):
            late = np.int64(0) if extra is None else np.int64(extra[j])
            if late < left:
                acc[dend.first + (step + late) % ring * size + np.int64(target[j])] += weight[j] * code


@njit(cache=True, nogil=True)
def _sparse(net, state, edge, begin, n, coded, step, left):
    """Synapses of n events for timestep ``step``, which has ``left`` timesteps of its window to go."""
    dend, events, rows = net.dends[edge.target], state.ring[begin : begin + n], net.indptr[edge.indptr :]
    gain = state.acc.dtype.type(edge.gain)
    if net.extra is None and coded < 0:
        acc = _ring(state.acc, dend, step)
        if edge.gain == 1:
            _plain_rows(acc, events, rows, net.target, net.weight, None)
        else:
            _plain_rows(acc, events, rows, net.target, net.weight, gain)
        return
    pools = rows, net.target, net.weight, net.extra
    if coded < 0:
        _late_rows(state.acc, dend, step, left, events, None, *pools, gain)
    else:
        _late_rows(state.acc, dend, step, left, events, state.ring_code[coded : coded + n], *pools, gain)


@njit(cache=True, nogil=True)
def _conv_event(acc, taps, form, axon, c, y, x, code):
    """One event of a Conv into the accumulators (y, x, o) that the axon's tile holds; SynOps."""
    ins, per_group = form.channels // form.groups, form.outs // form.groups
    group, done, z, first = c // ins, 0, 0, 0
    i, outs = c - group * ins, form.outs
    low, high = max(axon.to_c0, group * per_group), min(axon.to_c1, (group + 1) * per_group)
    if form.kd > 0:
        z, y = divmod(y, form.height)
    for kz in range(max(form.kd, 1)):
        if form.kd > 0:
            oz, rest = divmod(z + form.pad_z - kz * form.dilation_z, form.stride_z)
            if rest != 0 or oz < 0 or oz >= form.out_d:
                continue
            first = oz * form.out_h
        for ky in range(form.kh):
            oy, rest = divmod(y + form.pad_y - ky * form.dilation_y, form.stride_y)
            if rest != 0 or oy < max(axon.to_y0 - first, 0) or oy >= min(axon.to_y1 - first, form.out_h):
                continue
            for kx in range(form.kw):
                ox, rest = divmod(x + form.pad_x - kx * form.dilation_x, form.stride_x)
                if rest != 0 or ox < max(axon.to_x0, 0) or ox >= min(axon.to_x1, form.out_w):
                    continue
                row = (((kz * form.kh + ky) * form.kw + kx) * ins + i) * outs
                at = ((first + oy) * form.out_w + ox) * outs
                for o in range(low, high):
                    acc[at + o] += taps[row + o] * code
                done += max(high - low, 0)
    return done


@njit(cache=True, nogil=True)
def _conv_axon(net, state, edge, axon, begin, n, coded, step):
    """Events through one axon row of a Conv; (events met, SynOps). step -1: outside every window."""
    form, one = net.forms[edge.form], state.acc.dtype.type(edge.gain)
    acc, taps = _ring(state.acc, net.dends[edge.target], max(step, 0)), net.taps[edge.taps :]
    met, done = 0, 0
    for e in range(n):
        position, c = divmod(np.int64(state.ring[begin + e]), form.channels)
        y, x = divmod(position, form.width)
        if c < axon.c0 or c >= axon.c1 or y < axon.y0 or y >= axon.y1 or x < axon.x0 or x >= axon.x1:
            continue
        met += 1
        if step >= 0:
            code = one if coded < 0 else one * state.ring_code[coded + e]
            done += _conv_event(acc, taps, form, axon, c, y, x, code)
    return met, done


@njit(cache=True, nogil=True)
def _arrive(net, state, scratch, edge, tick):
    """Phase 1 for one edge: the events emitted ``delay`` ticks ago."""
    pop, clock = net.pops[edge.source], net.clock
    sample, t = due(tick - edge.delay, pop.level, clock)
    slot = (tick - edge.delay) % state.listed.shape[1]
    n = state.listed[edge.source, slot] if sample >= 0 else 0
    if n == 0:
        return
    begin = pop.event + slot * pop.size
    coded = pop.coded + slot * pop.size if edge.graded != 0 and pop.coded >= 0 else -1
    left = clock[0].timesteps - t - edge.lag
    step = sample * clock[0].timesteps + t + edge.lag if left > 0 else -1
    if edge.convolved != 0:
        for a in range(edge.axons, edge.axons_end):
            met, done = _conv_axon(net, state, edge, net.axons[a], begin, n, coded, step)
            scratch.convolved[0, net.axons[a].core] += done
            scratch.convolved[1, net.axons[a].core] += met
            state.done[a, 0] += done
            state.done[a, 1] += met
            state.done[a, 2] += met if step < 0 else 0
        return
    _add_reads(scratch.reads, net.entries, net.synapses, edge.row, state.ring, begin, n, scratch.spans)
    if step < 0:
        for s in state.ring[begin : begin + n]:
            state.missed[edge.row + s] += 1
        return
    _add_loads(scratch.synops, net.synapses, edge.row, state.ring, begin, n, scratch.spans)
    _sparse(net, state, edge, begin, n, coded, step, left)


# -- somas -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _clear(net, state, pop, started):
    """State at rest; ``started``: as the Program says for the first timestep."""
    for i in range(pop.size):
        soma = pop.soma + i
        state.v[soma] = net.start_v[soma] if started and len(net.start_v) > 0 else 0
        if pop.kind == LIF_FULL:
            state.u[pop.state + i] = net.start_u[soma] if started and len(net.start_u) > 0 else 0
        elif pop.kind == LIF_REAL:
            state.real[0, pop.state + i] = net.start_u[soma] if started and len(net.start_u) > 0 else 0
            state.real[1, pop.state + i] = state.v[soma]
        elif pop.kind == SIGMA_DELTA:
            for part in range(len(state.sigma)):
                state.sigma[part, pop.state + i] = 0
    if pop.kind == CELL:
        cells = _state_of(net, state, pop)
        cells[:] = 0
        cells[V] = state.v[pop.soma : pop.soma + pop.size].reshape(cells[V].shape)
        for i in range(pop.size if started and len(net.start_u) > 0 else 0):
            state.cell[pop.state + U * pop.size + i] = net.start_u[pop.soma + i]


@njit(cache=True, nogil=True)
def _state_of(net, state, pop):
    """State [PARTS, positions, C] of a population of cells."""
    channels = net.cells[pop.cell].channels
    part = state.cell[pop.state : pop.state + PARTS * pop.size]
    return part.reshape((PARTS, pop.size // channels, channels))


@njit(cache=True, nogil=True)
def _update_cells(net, state, pop, acc, codes, over, t):
    """A population of cells in timestep t of a window; ``state.v`` shows their potentials."""
    sizes, form, cells = net.cells[pop.cell], net.forms_of_cells[pop.cell], _state_of(net, state, pop)
    channels, row = sizes.channels, sizes.values + (t if sizes.rows > 1 else 0) * VALUES * sizes.channels
    values = net.cell_pool[row : row + VALUES * channels].reshape((VALUES, channels))
    table = net.cell_pool[sizes.thresholds : sizes.thresholds + sizes.depth * channels]
    thresholds = table.reshape((sizes.depth, channels))
    read, sent = acc.reshape((-1, channels)), codes.reshape((-1, channels))
    if pop.rule != 0:
        cell(read, cells, sent, form, values, thresholds, over, pop.rule)
    else:
        cell(read, cells, sent, form, values, thresholds, over, None)
    state.v[pop.soma : pop.soma + pop.size] = cells[V].reshape(-1)


@njit(cache=True, nogil=True)
def _update(net, state, scratch, pop, over, step, begin, coded):
    """One population in one timestep; the number of events listed."""
    first, size = pop.soma, pop.size
    acc = _ring(state.acc, net.dends[pop.dendrite], step)
    v, bias, theta = state.v[first : first + size], net.bias[first : first + size], net.theta[first : first + size]
    if pop.kind == LIF or pop.kind == LIF_UNIFORM:
        padded = scratch.spikes[: -(-size // 8) * 8]
        padded[size:] = 0
        if pop.kind == LIF:
            lif(acc, v, bias, theta, pop.leak_v, padded, over)
        else:
            lif_uniform(acc, v, bias[0], theta[0], pop.leak_v, padded, over)
        return list_spikes(padded, size, state.ring, begin)
    if pop.kind == READOUT:
        if pop.rule != 0:
            readout(acc, v, bias, over, pop.rule)
        else:
            readout(acc, v, bias, over, None)
        sample, t = divmod(step, net.clock[0].timesteps)
        for i in range(size if t == net.clock[0].timesteps - 1 else 0):
            state.out[sample, i] = v[i]
        return 0
    codes = scratch.codes[:size]
    if pop.kind == LIF_FULL:
        u, low = state.u[pop.state : pop.state + size], net.low[first : first + size]
        operands = acc, v, u, bias, theta, low, pop.ternary, pop.leak_u, pop.leak_v, codes, over
        if pop.rule != 0:
            lif_full(*operands, pop.rule)
        else:
            lif_full(*operands, None)
    elif pop.kind == LIF_REAL:
        real, low = state.real[:, pop.state : pop.state + size], net.low[first : first + size]
        lif_real(acc, real, bias, theta, low, pop.ternary, pop.leak_u, pop.leak_v, codes)
    elif pop.kind == CELL:
        _update_cells(net, state, pop, acc, codes, over, step % net.clock[0].timesteps)
    elif pop.kind == SIGMA_DELTA:
        sigma = state.sigma[:, pop.state : pop.state + size]
        sigma_delta(acc, sigma, bias, theta, pop.relu, pop.cumulative, pop.out_shift, codes, over)
    else:
        relay(acc, codes, over)
    return list_codes(codes, state.ring, state.ring_code, begin, coded)


@njit(cache=True, nogil=True)
def _take(state, feed, p, tick, begin, coded):
    """Events from outside into the ring; their number."""
    k = tick - feed.first
    first, stop = feed.start[p, k], feed.start[p, k + 1]
    for e in range(first, stop):
        state.ring[begin + e - first] = feed.soma[e]
        if coded >= 0:
            state.ring_code[coded + e - first] = feed.code[e]
    return stop - first


@njit(cache=True, nogil=True)
def _book(state, record, p, pop, step, begin, coded, n):
    """Count n listed events, and record them."""
    for e in range(n):
        s = pop.soma + state.ring[begin + e]
        state.fired[s] += 1
        if coded >= 0:
            state.paid[s] += abs(np.int64(state.ring_code[coded + e]))
    if pop.recorded == 0:
        return
    at = record.n[0]
    for e in range(n):
        record.step[at + e], record.population[at + e] = step, p
        record.soma[at + e] = state.ring[begin + e]
        record.code[at + e] = 1 if coded < 0 else state.ring_code[coded + e]
    record.n[0] += n


@njit(cache=True, nogil=True)
def _population(net, state, scratch, feed, record, p, tick):
    """Phase 3 for one population."""
    pop, slot = net.pops[p], tick % state.listed.shape[1]
    sample, t = due(tick, pop.level, net.clock)
    state.listed[p, slot] = 0
    if sample < 0:
        return
    begin = pop.event + slot * pop.size
    coded = pop.coded + slot * pop.size if pop.coded >= 0 else -1
    step = sample * net.clock[0].timesteps + t
    if pop.kind == INPUT:
        n = _take(state, feed, p, tick, begin, coded)
    else:
        if t == 0 or (pop.every > 0 and (t + 1) % pop.every == pop.phase):
            _clear(net, state, pop, t == 0 and not (pop.every > 0 and 1 % pop.every == pop.phase))
        n = _update(net, state, scratch, pop, state.over[p], step, begin, coded)
        for c in range(net.homes.shape[1]):
            scratch.updates[c] += net.homes[p, c]
    state.listed[p, slot] = n
    _book(state, record, p, pop, step, begin, coded, n)
    if pop.kind == INPUT:
        return
    if net.crossed.shape[1] > 0:
        _add_loads(scratch.links, net.crossed, pop.soma, state.ring, begin, n, scratch.spans)
    elif len(net.paths) > 0 and pop.fan >= 0:
        for e in range(begin, begin + n):
            s = state.ring[e]
            _add_met(scratch.met[net.home[pop.soma + s]], net.synapses, pop.fan, state.ring, e, 1)


@njit(cache=True, nogil=True)
def _route(net, scratch):
    """Loads of links from the packets from core to core, which start again from zero."""
    for c in range(len(scratch.met)):
        for d in range(len(scratch.met)):
            n, at = scratch.met[c, d], c * len(scratch.met) + d
            scratch.met[c, d] = 0
            for link in net.paths[net.path_start[at] : net.path_start[at + 1]] if n > 0 else net.paths[:0]:
                scratch.links[link] += n


@njit(cache=True, nogil=True)
def _settle(net, scratch, bound):
    """bound += the largest loads of the tick, which start again from zero."""
    _route(net, scratch)
    synops, updates, reads, links = 0, 0, 0, 0
    for c in range(len(scratch.synops)):
        done = scratch.synops[c] + scratch.convolved[0, c]
        synops = max(synops, done)
        updates = max(updates, scratch.updates[c])
        reads = max(reads, done + scratch.reads[c] + scratch.convolved[1, c])
    for n in scratch.links:
        links = max(links, n)
    bound[0] += synops
    bound[1] += updates
    bound[2] += reads
    bound[3] += links
    for load in (scratch.synops, scratch.updates, scratch.reads, scratch.links):
        load[:] = 0
    scratch.convolved[:] = 0


@njit(cache=True, nogil=True)
def _probe(net, state, record, tick, k):
    """u and v of probed somas, before accumulators are zeroed: somas that forget u have u = a << 6."""
    for i in range(len(record.probes)):
        pop, s = net.pops[record.probes[i, 0]], record.probes[i, 1]
        sample, t = due(tick, pop.level, net.clock)
        if sample < 0:
            continue
        if pop.kind == LIF_REAL:
            record.u[i, k], record.v[i, k] = state.real[0, pop.state + s], state.real[1, pop.state + s]
            continue
        acc = _ring(state.acc, net.dends[pop.dendrite], sample * net.clock[0].timesteps + t)
        if pop.kind == CELL:
            record.u[i, k] = state.cell[pop.state + U * pop.size + s]
        else:
            record.u[i, k] = state.u[pop.state + s] if pop.kind == LIF_FULL else np.int64(acc[s]) << 6
        record.v[i, k] = state.v[pop.soma + s]


@njit(cache=True, nogil=True)
def run_ticks(net, state, scratch, feed, record, first, stop):
    """Ticks ``first`` to ``stop``, or fewer when the record could overflow; the tick reached."""
    most = 0
    for p in range(len(net.pops)):
        most += net.pops[p].size if net.pops[p].recorded else 0
    for tick in range(first, stop):
        if record.n[0] + most > len(record.step):
            return tick
        for e in range(len(net.edges)):
            _arrive(net, state, scratch, net.edges[e], tick)
        for m in range(len(net.moves)):
            sample, t = due(tick, net.moves[m].level, net.clock)
            if sample >= 0:
                step = sample * net.clock[0].timesteps + t
                src = _ring(state.acc, net.dends[net.moves[m].src], step)
                dst = _ring(state.acc, net.dends[net.moves[m].dst], step)
                for i in range(len(src)):
                    dst[i] += src[i] >> net.moves[m].rshift
        for p in range(len(net.pops)):
            _population(net, state, scratch, feed, record, p, tick)
        _probe(net, state, record, tick, tick - feed.first)
        for d in range(len(net.dends)):
            sample, t = due(tick, net.dends[d].last, net.clock)
            if sample >= 0:
                _ring(state.acc, net.dends[d], sample * net.clock[0].timesteps + t)[:] = 0
        _settle(net, scratch, state.bound)
    return stop
