"""Spike voxel coding, on the host: points become active voxels with features (docs/sparse.md).

A voxel is floor(coordinate / size), in double precision, counted from the lower end of the range, or from the least
voxel of the cloud where no range is given. Voxels are ordered by x, then y, then z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.sites import MAX_EXTENT, MAX_SLOTS

EMPTY = -1
MAX_POINTS = 2**26


@dataclass(frozen=True)
class Voxels:
    """How a cloud is coded. Points are rows x, y, z and whatever else was measured.

    size: of a voxel along each axis.  range: least and greatest x, y, z; points outside (below the least, or at or
    above the greatest) are left out.  Without it all points count.  extent: voxels along each axis; one that lies
    beyond is an error.  features: columns of the points that are a voxel's features.  reduce: those of its "first"
    point in the order of the cloud, or their "mean".
    """

    size: tuple[float, float, float]
    extent: tuple[int, int, int]
    range: tuple[float, float, float, float, float, float] | None = None
    features: tuple[int, ...] = (0, 1, 2)
    reduce: Literal["first", "mean"] = "first"

    def __post_init__(self) -> None:
        if len(self.size) != 3 or not all(math.isfinite(s) and s > 0 for s in self.size):
            raise UsageError(f"voxel size {list(self.size)}: give one or three finite lengths above 0")
        if len(self.extent) != 3 or not all(1 <= n <= MAX_EXTENT for n in self.extent):
            raise UsageError(f"voxel extent {list(self.extent)}: give three numbers in 1..{MAX_EXTENT}")
        if self.range is not None:
            ends = list(zip(self.range[:3], self.range[3:], strict=False))
            if len(self.range) != 6 or not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in ends):
                raise UsageError(f"voxel range {list(self.range)}: give least and greatest x, y, z, six finite numbers")
        if not self.features or min(self.features) < 0:
            raise UsageError(f"voxel features {list(self.features)}: name columns of the points, from 0")
        if self.reduce not in ("first", "mean"):
            raise UsageError(f"voxel reduce '{self.reduce}': choose first or mean")

    def code(self, points: np.ndarray, where: str = "cloud") -> tuple[np.ndarray, np.ndarray]:
        """Active voxels int32 [n, 3] and their features float64 [n, F] of points [P, 3 + ...].

        UsageError for points that are not finite numbers, for none (in the range), and for a cloud too large.
        """
        points = self._checked(points, where)
        grid = self._grid(points, where)
        kept = np.ones(len(grid), np.bool_)
        if self.range is not None:
            low, high = np.array(self.range[:3]), np.array(self.range[3:])
            kept = np.all((points[:, :3] >= low) & (points[:, :3] < high), axis=1)
            if not kept.any():
                raise UsageError(f"{where}: none of its {len(points)} points lies in the range {list(self.range)}")
            grid = grid[kept] - np.floor(low / np.array(self.size))
        else:
            grid = grid - grid.min(axis=0)
        if (grid.max(axis=0) >= np.array(self.extent)).any():
            found = (grid.max(axis=0) + 1).astype(np.int64).tolist()
            raise UsageError(
                f"{where}: spans {found} voxels of size {list(self.size)}, the network takes {list(self.extent)}; crop"
                " it with a range, or choose larger voxels"
            )
        return self._gathered(grid.astype(np.int64), points[kept][:, list(self.features)])

    def sample(self, points: np.ndarray, slots: int, where: str = "cloud") -> np.ndarray:
        """A sample for a network on the sites of each cloud: float64 [3 + F, slots, 1], voxels first, then features.

        Coordinates of empty slots are -1, their features 0. UsageError where the cloud has more voxels than slots.
        """
        voxels, features = self.code(points, where)
        if len(voxels) > slots:
            raise UsageError(
                f"{where}: {len(voxels)} active voxels, but the network has {slots} slots for them; crop the cloud,"
                " choose larger voxels, or compile with more slots"
            )
        out = np.zeros((3 + features.shape[1], slots, 1))
        out[:3, len(voxels) :] = EMPTY
        out[:3, : len(voxels), 0], out[3:, : len(voxels), 0] = voxels.T, features.T
        return out

    def _checked(self, points: np.ndarray, where: str) -> np.ndarray:
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "iuf":
            raise UsageError(f"{where}: {points.dtype} {list(points.shape)}; points are real rows x, y, z, ...")
        if not 1 <= len(points) <= MAX_POINTS:
            raise UsageError(f"{where}: {len(points)} points; 1 to {MAX_POINTS} can be coded")
        if max(self.features) >= points.shape[1]:
            raise UsageError(
                f"{where}: points have {points.shape[1]} columns, and column {max(self.features)} is a feature"
            )
        finite = np.isfinite(points)
        if not finite.all():
            row, column = (int(n) for n in np.argwhere(~finite)[0])
            raise UsageError(
                f"{where}: {int((~finite).any(axis=1).sum())} points are NaN or infinite, the first in row {row},"
                f" column {column}; clean the cloud"
            )
        return points.astype(np.float64)

    def _grid(self, points: np.ndarray, where: str) -> np.ndarray:
        grid = np.floor(points[:, :3] / np.array(self.size))
        if np.abs(grid).max() >= 2.0**52:
            raise UsageError(
                f"{where}: coordinates up to {np.abs(points[:, :3]).max():.3g} are too many voxels of"
                f" {list(self.size)} to be told apart"
            )
        return grid

    def _gathered(self, grid: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keys = (grid[:, 0] * self.extent[1] + grid[:, 1]) * self.extent[2] + grid[:, 2]
        _, first, of = np.unique(keys, return_index=True, return_inverse=True)
        if len(first) > MAX_SLOTS:
            raise UsageError(f"{len(first)} active voxels; at most {MAX_SLOTS} can be handled; choose larger ones")
        if self.reduce == "first":
            return grid[first].astype(np.int32), values[first]
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, of.reshape(-1), values)
        return grid[first].astype(np.int32), sums / np.bincount(of.reshape(-1))[:, None]
