"""Placement: which physical core each logical core becomes, so that packets travel few hops.

Minimises the sum over core pairs of packets times XY distance: greedy construction,
then simulated annealing by swaps (and moves into free cores) with incremental cost.
The cost is kept in integers and the random numbers come from one seed, so the result is
the same everywhere; the best of row-major, greedy and annealed order is what is returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.route import distances, on_mesh
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
    """Physical cores in row-major order, chip by chip: chip, x, y, index as in a mapping; int64 [slots, 4]."""
    x, y = target.mesh.routers.value
    grid = np.indices((chips, y, x, target.mesh.cores_per_router.value)).reshape(4, -1)
    return grid[[0, 2, 1, 3]].T.copy()


def place(traffic: np.ndarray, target: Target, chips: int = 1, seed: int = 0) -> tuple[np.ndarray, PlacementReport]:
    """Place the n cores of `traffic` (packets per timestep, float64 [n, n]) on `chips` chips of `target`.

    Returns the table of cores (chip, x, y, index; int32 [n, 4]) and what was saved.
    """
    slots = slots_of(target, chips)
    at = on_mesh(slots, target)
    weights = traffic + traffic.T
    np.fill_diagonal(weights, 0)
    row_major = np.arange(len(traffic))
    orders = {"row_major": row_major, "greedy": row_major, "final": row_major}
    moves = 0
    if weights.any():
        scaled = _integers(weights, at)
        orders["greedy"] = _greedy(scaled, at, _centre(target))
        orders["final"], moves = _anneal(scaled, at, _grid(at, slots[:, 3]), orders["greedy"], seed)
    costs = {name: packet_hops(traffic, at[order]) for name, order in orders.items()}
    best = min(("final", "greedy", "row_major"), key=lambda name: costs[name])
    report = PlacementReport(costs["row_major"], costs["greedy"], costs[best], moves)
    return slots[orders[best]].astype(np.int32), report


def packet_hops(traffic: np.ndarray, at: np.ndarray) -> float:
    """Sum of packets times XY hops for cores at routers `at` [n, 2]."""
    return float((traffic * distances(at)).sum())


def _integers(weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weights as integers whose weighted hop sum stays below 2^52: exact sums in any order."""
    farthest = int(np.ptp(at, axis=0).sum()) + 1
    return np.rint(weights * (2.0**52 / (weights.sum() * farthest))).astype(np.int64)


def _centre(target: Target) -> int:
    """First slot of the middle router of the first chip."""
    x, y = target.mesh.routers.value
    return ((y - 1) // 2 * x + (x - 1) // 2) * target.mesh.cores_per_router.value


def _greedy(weights: np.ndarray, at: np.ndarray, start: int) -> np.ndarray:
    """Slot of every core: most connected to those placed first, each where it costs least.

    ``at``: router of each slot [slots, 2]; ``start``: slot of the first core.
    """
    order = np.full(len(weights), -1)
    free = np.ones(len(at), bool)
    pull = np.zeros(len(weights), np.int64)  # links of a core to those placed
    core, slot = int(np.argmax(weights.sum(axis=1))), start
    for _ in range(len(weights)):
        order[core], free[slot] = slot, False
        pull += weights[core]
        core = int(np.argmax(np.where(order < 0, pull, -1)))
        cost = sum(_distance_cost(weights[core], order, at[:, axis]) for axis in (0, 1))
        slot = int(np.argmin(np.where(free, cost, np.iinfo(np.int64).max)))
    return order


def _distance_cost(weights: np.ndarray, order: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Per slot, the weighted distance along one axis to the cores placed so far."""
    linked = np.flatnonzero((order >= 0) & (weights > 0))
    along = np.arange(position.max() + 1)
    return (np.abs(along[:, None] - position[order[linked]]) @ weights[linked])[position]


def _anneal(
    weights: np.ndarray, at: np.ndarray, grid: np.ndarray, start: np.ndarray, seed: int
) -> tuple[np.ndarray, int]:
    """Best order that annealing from `start` meets, and the number of moves tried."""
    from nmc_compiler.mapping.anneal import sweep  # compiles on first use

    source, neighbour = np.nonzero(weights)
    first = np.searchsorted(source, np.arange(len(weights) + 1))
    x, y = np.ascontiguousarray(at.T)
    links = (first, neighbour, weights[source, neighbour])
    order, best = start.astype(np.int64), start
    holder = np.full(len(at), -1, np.int64)
    holder[order] = np.arange(len(order))
    random = np.random.Generator(np.random.PCG64(seed))
    quantiles = np.round(-np.log((np.arange(4096) + 0.5) / 4096), 6)  # of the exponential distribution
    per_level = _moves_per_level(len(weights), len(source))
    temperature = _typical_change(weights, at, order, random)
    change, lowest = 0, 0
    for level in range(LEVELS):
        heat = 0.0 if level == LEVELS - 1 else temperature * COOLING ** (level / (LEVELS - 2))
        picks = random.integers(0, 2**31, size=(per_level, 5), dtype=np.int64)
        change += sweep(order, holder, *links, x, y, grid, picks, heat, quantiles)
        if change < lowest:
            lowest, best = change, order.copy()
    return best, LEVELS * per_level


def _grid(at: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Slot number by [x, y, index at the router]."""
    grid = np.empty((*(at.max(axis=0) + 1), index.max() + 1), np.int64)
    grid[at[:, 0], at[:, 1], index] = np.arange(len(at))
    return grid


def _moves_per_level(cores: int, links: int) -> int:
    visits = 2 * links / cores + 10  # per move: the links of two cores, and a constant
    return int(min(MOVES_PER_CORE * cores, MAX_WORK / visits)) // LEVELS + 1


def _typical_change(weights: np.ndarray, at: np.ndarray, order: np.ndarray, random: np.random.Generator) -> float:
    """Mean size of the cost change when one core moves to a random slot: the first temperature."""
    cores = random.integers(0, len(weights), size=256)
    slots = random.integers(0, len(at), size=256)
    changes = [
        weights[core] @ (_hops(at[order], at[slot]) - _hops(at[order], at[order[core]]))
        for core, slot in zip(cores, slots, strict=True)
    ]
    return float(np.mean(np.abs(changes)))


def _hops(at: np.ndarray, router: np.ndarray) -> np.ndarray:
    return np.abs(at - router).sum(axis=1)
