"""When each packet of a tick is ready to leave its core, and when local deliveries are ready."""

from numba import njit

DST, END = 0, 1  # columns of packets


@njit(cache=True, nogil=True)
def emit(events, somas, live, head, rates, multicast, net, local, soma_end, extra):
    """Soma updates of one tick, core after core; fills ``net``, ``local`` and ``soma_end`` [cores].

    events: (first, last, core, population, before, start, dst, cost): events first..last of one tick in order of
    core (-1: the host), population, soma; before [E] how many somas of the population the core updates
    before; start [E + 1] deliveries.  somas int64 [populations, cores]; live [populations] whether it lives
    in this tick; head [cores] ps of work before the first soma; rates (active, inactive, spike_out, axon_out,
    axon_in) in ps.
    net: (first [cores + 1], packets [n, 4], ready, service) by source core in order of emission; of a packet DST
    is the core that receives it, END the first packet behind: i + 1, or behind its event if ``multicast``.
    local: (first [cores + 1], ready, service).  extra [cores] += service of messages from the host.
    Returns the number of packets.
    """
    first, last, core, population, before, start, dst, cost = events
    active, inactive, spike_out, axon_out, axon_in = rates
    net_first, packets, net_ready, net_service = net
    local_first, local_ready, local_service = local
    cores, populations = somas.shape[1], somas.shape[0]
    n, m, e = 0, 0, first
    while e < last and core[e] < 0:
        for i in range(start[e], start[e + 1]):
            extra[dst[i]] += axon_in + cost[i]
        e += 1
    for c in range(cores):
        net_first[c], local_first[c] = n, m
        base, p = head[c], 0
        while e < last and core[e] == c:
            while p < population[e]:
                base += somas[p, c] * (active if live[p] else inactive)
                p += 1
            base += spike_out
            at, opened = base + (before[e] + 1) * active, n
            if multicast and start[e] < start[e + 1]:
                base += axon_out
                at += axon_out
            for i in range(start[e], start[e + 1]):
                if not multicast:
                    base += axon_out
                    at += axon_out
                if dst[i] == c:
                    local_ready[m], local_service[m] = at, axon_in + cost[i]
                    m += 1
                else:
                    packets[4 * n + DST], packets[4 * n + END] = dst[i], n + 1
                    net_ready[n], net_service[n] = at, axon_in + cost[i]
                    n += 1
            if multicast and n > opened:
                packets[4 * opened + END] = n
            e += 1
        while p < populations:
            base += somas[p, c] * (active if live[p] else inactive)
            p += 1
        soma_end[c] = base
    net_first[cores], local_first[cores] = n, m
    return n
