"""The inner loop of placement: swaps of two cores, or moves into a free one, at one temperature."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def _pull(core, other, x0, y0, x1, y1, order, first, neighbour, weight, x, y):
    """Change of cost when `core` goes from (x0, y0) to (x1, y1); its link to `other` is left out."""
    change = np.int64(0)
    for link in range(first[core], first[core + 1]):
        if neighbour[link] != other:
            slot = order[neighbour[link]]
            near = abs(x[slot] - x1) + abs(y[slot] - y1)
            far = abs(x[slot] - x0) + abs(y[slot] - y0)
            change += weight[link] * (near - far)
    return change


@numba.njit(cache=True)
def sweep(order, holder, first, neighbour, weight, x, y, grid, picks, temperature, quantiles):
    """Try one swap per row of `picks`; returns the change of cost and leaves `order`, `holder` changed.

    ``order`` slot of each core [n]; ``holder`` core of each slot or -1; links of core c are
    ``first[c]:first[c + 1]`` of ``neighbour`` and ``weight``; ``x``, ``y`` router of each slot;
    ``grid[x, y, index]`` slot; ``picks`` random numbers int64 [moves, 5]. Half of the moves go beside
    a linked core, half anywhere. A worse order is taken where the change is at most
    ``temperature`` times a random element of ``quantiles`` (Metropolis).
    """
    wide, high, per_router = grid.shape
    total = np.int64(0)
    for move in range(len(picks)):
        core = picks[move, 0] % len(order)
        links = first[core + 1] - first[core]
        if picks[move, 1] % 2 == 0 and links > 0:
            near = order[neighbour[first[core] + picks[move, 2] % links]]
            column = min(max(x[near] + picks[move, 3] % 3 - 1, 0), wide - 1)
            row = min(max(y[near] + picks[move, 3] // 3 % 3 - 1, 0), high - 1)
            slot = grid[column, row, picks[move, 3] // 9 % per_router]
        else:
            slot = picks[move, 2] % len(holder)
        old = order[core]
        x0, y0, x1, y1 = x[old], y[old], x[slot], y[slot]
        if x0 == x1 and y0 == y1:
            continue
        other = holder[slot]
        change = _pull(core, other, x0, y0, x1, y1, order, first, neighbour, weight, x, y)
        if other >= 0:
            change += _pull(other, core, x1, y1, x0, y0, order, first, neighbour, weight, x, y)
        if change <= temperature * quantiles[picks[move, 4] % len(quantiles)]:
            order[core], holder[slot] = slot, core
            holder[old] = other
            if other >= 0:
                order[other] = old
            total += change
    return total
