"""Recorded events back into event counts and codes."""

from numba import njit


@njit(cache=True, nogil=True)
def count_somas(step, soma, positions, segment, count):
    """count [F, S, P] += 1 per event; step, soma [n]; segment [C] that a channel belongs to."""
    for i in range(len(step)):
        c = soma[i] // positions
        count[step[i], segment[c], soma[i] - c * positions] += 1


@njit(cache=True, nogil=True)
def place_codes(step, soma, code, positions, codes):
    """codes [F, P, C] of the events; ``code`` [n]."""
    for i in range(len(step)):
        c = soma[i] // positions
        codes[step[i], soma[i] - c * positions, c] = code[i]


@njit(cache=True, nogil=True)
def book_somas(
    step, soma, code, steps, tick, level, home, first, entries, sent, targets, rows, at, routers,
    memory, synops, links, block, reads, waste,
):  # fmt: skip
    """Book recorded events soma by soma: tables of ``soma_tables.SomaTables``.

    step, soma, code [n]; ``steps`` timesteps of a window; tick [F] of level 0, ``level`` that of the population;
    at [cores, 2], routers (x, y) of a chip; memory, synops int64 [ticks, cores], links [ticks, links]: loads;
    block int64 [rows, cores + 1]: the counters; reads, waste: their tables per projection.
    """
    for i in range(len(step)):
        f, s = step[i], soma[i]
        core, now = home[s], tick[f] + level
        block[rows[0], core] += 1
        block[rows[1], core] += abs(code[i])
        for k in range(first[s], first[s + 1]):
            unit, to, delay, lag = entries[k, 0], entries[k, 1], entries[k, 2], entries[k, 3]
            memory[now + delay, to] += 1
            reads[unit, to] += 1
            if f % steps + lag >= steps:
                waste[unit, to] += 1
            elif entries[k, 4] > 0:
                synops[now + delay, to] += entries[k, 4]
                block[entries[k, 5], to] += entries[k, 4]
        for k in range(sent[s], sent[s + 1]):
            to = targets[k]
            if core < 0:
                block[rows[8], to] += 1
            elif to == core:
                block[rows[3], core] += 1
            else:
                block[rows[2], core] += 1
                block[rows[4], to] += 1
                _walk(at[core, 0], at[core, 1], at[to, 0], at[to, 1], routers, links[now], block, rows, core)


@njit(cache=True, nogil=True)
def _walk(x, y, x1, y1, routers, links, block, rows, core):
    """One packet along x, then along y; hops and crossings belong to ``core``."""
    crossings = abs(x1 // routers[0] - x // routers[0])
    block[rows[5], core] += abs(x1 - x) - crossings
    block[rows[6], core] += abs(y1 - y)
    block[rows[7], core] += crossings
    while x != x1:
        links[(x * routers[1] + y) * 4 + (0 if x1 > x else 1)] += 1
        x += 1 if x1 > x else -1
    while y != y1:
        links[(x * routers[1] + y) * 4 + (2 if y1 > y else 3)] += 1
        y += 1 if y1 > y else -1
