"""Placement: which physical core each logical core becomes, so that packets travel few hops.

Minimises the sum over core pairs of packets times XY distance: greedy construction,
then simulated annealing by swaps (and moves into free cores) with incremental cost.
The cost is kept in integers and the random numbers come from one seed, so the result is
the same everywhere; the best of row-major, greedy and annealed order is what is returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.route import distances
from nmc_compiler.target import Target

LEVELS = 100  # temperatures
COOLING = 1e-4  # last temperature over the first
MOVES_PER_CORE = 20_000
MAX_WORK = 1.5e9  # neighbour visits: a few seconds


@dataclass(frozen=True)
class PlacementReport:
    """Packet-hops per timestep of three orders of the same cores; ``final`` is at most the others."""

    row_major: float
    greedy: float
    final: float
    moves: int

    @property
    def saving(self) -> float:
        """Part of the row-major packet-hops that placement saves, 0 where there were none."""
        return 1 - self.final / self.row_major if self.row_major else 0.0


def slots_of(target: Target, chips: int) -> np.ndarray:
    """Physical cores in row-major order, chip by chip: chip, x, y, index; int64 [slots, 4]."""
    x, y = target.mesh.routers.value
    grid = np.indices((chips, y, x, target.mesh.cores_per_router.value)).reshape(4, -1)
    chip, row, column, index = grid
    return np.column_stack([chip, column + chip * x, row, index])


def place(traffic: np.ndarray, target: Target, chips: int = 1, seed: int = 0) -> tuple[np.ndarray, PlacementReport]:
    """Place the n cores of `traffic` (packets per timestep, float64 [n, n]) on `chips` chips of `target`.

    Returns the table of cores (chip, x, y, index; int32 [n, 4]) and what was saved.
    """
    slots, count = slots_of(target, chips), len(traffic)
    weights = traffic + traffic.T
    np.fill_diagonal(weights, 0)
    row_major = np.arange(count)
    orders = {"row_major": row_major, "greedy": row_major, "final": row_major}
    moves = 0
    if weights.any():
        scaled = _integers(weights, slots)
        orders["greedy"] = _greedy(scaled, slots)
        orders["final"], moves = _anneal(scaled, slots, orders["greedy"], seed)
    costs = {name: packet_hops(traffic, slots[order]) for name, order in orders.items()}
    best = min(("final", "greedy", "row_major"), key=lambda name: costs[name])
    report = PlacementReport(costs["row_major"], costs["greedy"], costs[best], moves)
    return slots[orders[best]].astype(np.int32), report


def packet_hops(traffic: np.ndarray, cores: np.ndarray) -> float:
    """Sum of packets times XY hops for cores at those places."""
    return float((traffic * distances(cores)).sum())


def _integers(weights: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Weights as integers whose weighted hop sum stays below 2^52: exact sums in any order."""
    farthest = int(np.ptp(slots[:, 1]) + np.ptp(slots[:, 2])) + 1
    return np.rint(weights * (2.0**52 / (weights.sum() * farthest))).astype(np.int64)


def _greedy(weights: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Slot of every core: most connected to those placed first, each where it costs least."""
    order = np.full(len(weights), -1)
    free = np.ones(len(slots), bool)
    pull = np.zeros(len(weights), np.int64)  # links of a core to those placed
    core, slot = int(np.argmax(weights.sum(axis=1))), _centre(slots)
    for _ in range(len(weights)):
        order[core], free[slot] = slot, False
        pull += weights[core]
        core = int(np.argmax(np.where(order < 0, pull, -1)))
        cost = sum(_distance_cost(weights[core], order, slots[:, axis]) for axis in (1, 2))
        slot = int(np.argmin(np.where(free, cost, np.iinfo(np.int64).max)))
    return order


def _distance_cost(weights: np.ndarray, order: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Per slot, the weighted distance along one axis to the cores placed so far."""
    linked = np.flatnonzero((order >= 0) & (weights > 0))
    along = np.arange(position.max() + 1)
    return (np.abs(along[:, None] - position[order[linked]]) @ weights[linked])[position]


def _centre(slots: np.ndarray) -> int:
    """First slot of the router nearest to the middle of the first chip."""
    first = slots[slots[:, 0] == 0]
    away = np.abs(first[:, 1] - first[:, 1].max() / 2) + np.abs(first[:, 2] - first[:, 2].max() / 2)
    return int(np.argmin(away))


def _anneal(weights: np.ndarray, slots: np.ndarray, start: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """Best order that annealing from `start` meets, and the number of moves tried."""
    from nmc_compiler.mapping.anneal import sweep  # compiles on first use

    source, neighbour = np.nonzero(weights)
    first = np.searchsorted(source, np.arange(len(weights) + 1))
    links = (first, neighbour, weights[source, neighbour])
    grid = _grid(slots)
    order, best = start.astype(np.int64), start
    holder = np.full(len(slots), -1, np.int64)
    holder[order] = np.arange(len(order))
    random = np.random.Generator(np.random.PCG64(seed))
    quantiles = np.round(-np.log((np.arange(4096) + 0.5) / 4096), 6)  # of the exponential distribution
    per_level = _moves_per_level(len(weights), len(source))
    temperature = _typical_change(weights, slots, order, random)
    change, lowest = 0, 0
    for level in range(LEVELS):
        heat = 0.0 if level == LEVELS - 1 else temperature * COOLING ** (level / (LEVELS - 2))
        picks = random.integers(0, 2**31, size=(per_level, 5), dtype=np.int64)
        change += sweep(order, holder, *links, slots[:, 1], slots[:, 2], grid, picks, heat, quantiles)
        if change < lowest:
            lowest, best = change, order.copy()
    return best, LEVELS * per_level


def _grid(slots: np.ndarray) -> np.ndarray:
    """Slot number by [x, y, index]."""
    grid = np.empty(slots[:, 1:].max(axis=0) + 1, np.int64)
    grid[slots[:, 1], slots[:, 2], slots[:, 3]] = np.arange(len(slots))
    return grid


def _moves_per_level(cores: int, links: int) -> int:
    visits = 2 * links / cores + 10  # per move: the links of two cores, and a constant
    return int(min(MOVES_PER_CORE * cores, MAX_WORK / visits)) // LEVELS + 1


def _typical_change(weights: np.ndarray, slots: np.ndarray, order: np.ndarray, random: np.random.Generator) -> float:
    """Mean size of the cost change when one core moves to a random slot: the first temperature."""
    cores = random.integers(0, len(weights), size=256)
    targets = random.integers(0, len(slots), size=256)
    x, y = slots[:, 1], slots[:, 2]
    changes = [
        weights[c] @ (np.abs(x[order] - x[t]) + np.abs(y[order] - y[t]))
        - weights[c] @ (np.abs(x[order] - x[order[c]]) + np.abs(y[order] - y[order[c]]))
        for c, t in zip(cores, targets, strict=True)
    ]
    return float(np.mean(np.abs(changes)))
