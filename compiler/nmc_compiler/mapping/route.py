"""XY routes on the mesh: hops, and what each link carries.

A packet goes along x first, then along y. Cores behind one router are 0 hops apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.target import Target


@dataclass(frozen=True)
class RouteReport:
    """Packets and hops per timestep at the given rates, and the load of every directed link.

    ``east[y, x]`` is the load of the link from router (x, y) to (x + 1, y), ``west`` the one back;
    ``south[y, x]`` from (x, y) to (x, y + 1), ``north`` the one back. ``crossings`` counts hops
    between chips, which are part of ``hops_x``.
    """

    packets: float
    local_packets: float  # between cores behind one router, or within a core: no hop
    hops_x: float
    hops_y: float
    crossings: float
    east: np.ndarray
    west: np.ndarray
    south: np.ndarray
    north: np.ndarray

    @property
    def hops(self) -> float:
        return self.hops_x + self.hops_y

    @property
    def max_link(self) -> float:
        """Load of the busiest link, packets per timestep."""
        return max((float(a.max()) for a in (self.east, self.west, self.south, self.north) if a.size), default=0.0)


def on_mesh(cores: np.ndarray, target: Target) -> np.ndarray:
    """Router (x, y) of each core on the mesh that all chips make; int64 [n, 2] from a table of cores."""
    chip, x, y = cores[:, :3].astype(np.int64).T
    return np.column_stack([chip * target.mesh.routers.value[0] + x, y])


def distances(at: np.ndarray) -> np.ndarray:
    """Hops between any two cores at routers `at` [n, 2]; int64 [n, n]."""
    x, y = at.T
    return np.abs(x[:, None] - x[None, :]) + np.abs(y[:, None] - y[None, :])


def route(traffic: np.ndarray, cores: np.ndarray, target: Target, chips: int) -> RouteReport:
    """Route `traffic` [n, n] (packets per timestep) between `cores` (table of a mapping) over `chips` chips."""
    src, dst = np.nonzero(traffic)
    load = traffic[src, dst]
    at, chip = on_mesh(cores, target), cores[:, 0].astype(np.int64)
    (xs, ys), (xd, yd) = at[src].T, at[dst].T
    wide, high = target.mesh.extent(chips)
    east, west = _links(ys, xs, xd, load, high, wide)  # along x in the source's row
    south, north = (a.T for a in _links(xd, ys, yd, load, wide, high))  # along y in the target's column
    far = (xs != xd) | (ys != yd)
    return RouteReport(
        packets=float(load.sum()),
        local_packets=float(load[~far].sum()),
        hops_x=float((load * np.abs(xs - xd)).sum()),
        hops_y=float((load * np.abs(ys - yd)).sum()),
        crossings=float((load * np.abs(chip[src] - chip[dst])).sum()),
        east=east,
        west=west,
        south=south,
        north=north,
    )


def _links(
    line: np.ndarray, start: np.ndarray, end: np.ndarray, load: np.ndarray, lines: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Loads of the links of parallel lines of routers, upward and downward: [lines, length - 1] each.

    Each packet adds its load where it enters a run of links and takes it off where it leaves.
    """
    up, down = np.zeros((lines, length)), np.zeros((lines, length))
    rising = start < end
    for mask, target, low, high in ((rising, up, start, end), (~rising, down, end, start)):
        np.add.at(target, (line[mask], low[mask]), load[mask])
        np.add.at(target, (line[mask], high[mask]), -load[mask])
    return up.cumsum(axis=1)[:, :-1], down.cumsum(axis=1)[:, :-1]
