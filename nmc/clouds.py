"""Clouds of points from a file, as samples of a network on active sites.

A file is .bin, float32 rows x, y, z, intensity of one cloud (KITTI), or an .npz of ``points`` [P, 3 + ...], perhaps
with ``offsets`` [N + 1], where each of N clouds begins and the last one ends, and ``labels`` [N].
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nmc.npz import Npz
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.graph import Graph
from nmc_compiler.program.model import Program
from nmc_emulator.voxels import MAX_POINTS, Voxels

KITTI = 4  # numbers of a point of a .bin file
POINTS = "points"


def holds_points(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of clouds; files that cannot be read are someone else's to complain about."""
    if Path(path).suffix == ".bin":
        return True
    try:
        with Npz(path) as file:
            return POINTS in file and "images" not in file
    except FrontendError:
        return False


def read_clouds(path: str | os.PathLike[str], limit: int | None = None) -> tuple[list[np.ndarray], np.ndarray | None]:
    """(points of each cloud, labels or None), the first ``limit`` of them. FrontendError for a file without them."""
    if Path(path).suffix == ".bin":
        return [_kitti(Path(path))], None
    with Npz(path) as file:
        header = file.header(POINTS)
        if len(header.shape) != 2 or header.shape[1] < 3 or header.shape[0] < 1:
            raise FrontendError(f"{path}: {POINTS} have shape {list(header.shape)}; rows x, y, z, ... are needed")
        ends = file.read("offsets") if "offsets" in file else np.array([0, header.shape[0]])
        labels = file.read("labels") if "labels" in file else None
        _check_offsets(path, ends, header.shape[0])
        count = len(ends) - 1 if limit is None else min(limit, len(ends) - 1)
        if labels is not None and (labels.shape != (len(ends) - 1,) or labels.dtype.kind not in "iu"):
            raise FrontendError(
                f"{path}: labels are {labels.dtype} {list(labels.shape)}; one whole number for each of the"
                f" {len(ends) - 1} clouds is needed"
            )
        points = file.read(POINTS, int(ends[count]))
    clouds = [points[a:b] for a, b in zip(ends[:count].tolist(), ends[1 : count + 1].tolist(), strict=True)]
    return clouds, None if labels is None else labels[:count].astype(np.int64)


def _check_offsets(path: str | os.PathLike[str], ends: np.ndarray, rows: int) -> None:
    good = ends.ndim == 1 and len(ends) >= 2 and ends.dtype.kind in "iu"
    if not good or ends[0] != 0 or ends[-1] != rows or (ends[1:].astype(np.int64) < ends[:-1].astype(np.int64)).any():
        raise FrontendError(
            f"{path}: offsets must rise from 0 to the {rows} points, one more than there are clouds; got {ends.dtype}"
            f" {list(ends.shape)}"
        )


def _kitti(path: Path) -> np.ndarray:
    try:
        found = path.stat()
        size, row = found.st_size, 4 * KITTI
        if not stat.S_ISREG(found.st_mode) or not size or size % row or size > row * MAX_POINTS:
            raise FrontendError(f"{path}: {size} bytes are no list of up to {MAX_POINTS} points of {row} bytes")
        return np.fromfile(path, "<f4").reshape(-1, KITTI)
    except OSError as error:
        raise FrontendError(f"{path}: cannot be read: {error.strerror or error}") from None


def coder_of(settings: Mapping[str, Any]) -> Voxels:
    """How clouds are coded, by a model's config; what is missing is asked for by name."""
    missing = next((key for key in ("voxel_size", "extent") if key not in settings), None)
    if missing is not None:
        raise UsageError(f"how points become voxels is not known: the config of the model lacks '{missing}'")
    size, span = settings["voxel_size"], settings.get("point_range")
    lengths = (size,) * 3 if isinstance(size, (int, float)) else size
    features = settings.get("voxel_features", (0, 1, 2))
    if not _numbers(lengths) or not _numbers(settings["extent"]) or not _numbers(features):
        raise UsageError("config 'voxel_size', 'extent' and 'voxel_features' must be numbers or lists of numbers")
    if span is not None and (not _numbers(span) or len(span) != 6):
        raise UsageError(f"config 'point_range' must be six numbers, least and greatest x, y, z; got {span!r}")
    return Voxels(
        tuple(lengths),
        tuple(settings["extent"]),
        None if span is None else tuple(span),
        tuple(features),
        settings.get("voxel_reduce", "first"),
    )


def _numbers(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(type(v) in (int, float) for v in values)


def coder_of_program(program: Program) -> Voxels:
    """How a Program's clouds are coded. UsageError where it has no sites, or does not say."""
    if not program.sites:
        raise UsageError(f"Program '{program.name}' takes images, not clouds of points")
    config = program.meta.get("config")
    known = config if isinstance(config, dict) else {}
    return coder_of(
        {key: entry["value"] for key, entry in known.items() if isinstance(entry, dict) and "value" in entry}
    )


def samples_of(program: Program, path: str | os.PathLike[str], limit: int | None) -> tuple[np.ndarray, Any]:
    """(images float64 [N, C, slots, 1], labels or None) of a file of clouds.

    UsageError for clouds that do not fit, and for another cloud than that a Program was compiled for.
    """
    coder = coder_of_program(program)
    root = next(s for s in program.sites or () if s.parent < 0)
    return _coded(coder, path, limit, root.slots, root.table)


def calibration_of(graph: Graph, coder: Voxels, path: str | os.PathLike[str], limit: int) -> np.ndarray:
    """Images [N, C, slots, 1] of the first clouds of a file, as ``interpret`` takes them."""
    roots = [n for n in graph if n.op in ("sites", "cloud")]
    if not roots:
        raise UsageError(f"{path}: holds clouds of points, but '{graph.name}' takes images")
    return _coded(coder, path, limit, roots[0].type.shape[1], graph.tensor(roots[0], "table"))[0]


def _coded(
    coder: Voxels, path: str | os.PathLike[str], limit: int | None, slots: int, table: np.ndarray | None
) -> tuple[np.ndarray, Any]:
    """``table``: the sites of a fixed cloud."""
    clouds, labels = read_clouds(path, limit)
    names = [f"{path}: cloud {i}" for i in range(len(clouds))]
    if table is None:
        return np.stack([coder.sample(c, slots, name) for c, name in zip(clouds, names, strict=True)]), labels
    images = []
    for cloud, name in zip(clouds, names, strict=True):
        voxels, features = coder.code(cloud, name)
        if not np.array_equal(voxels, table):
            raise UsageError(
                f"{name}: its {len(voxels)} voxels are not the {slots} that the network was compiled for (--cloud);"
                " compile it for this cloud, or without --cloud for any"
            )
        images.append(features.T[:, :, None])
    return np.stack(images), labels
