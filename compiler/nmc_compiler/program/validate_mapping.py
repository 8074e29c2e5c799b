"""Rules of the mapping tables by themselves: dtypes, indices, boxes, and that each row's ends exist.

They keep an engine that runs from the tables within its arrays. That the tables deliver
every synapse once is checked, independently, by `nmc_compiler.mapping.check`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.program.clusters import base_dendrites
from nmc_compiler.program.model import Mapping, Program
from nmc_compiler.program.rules import NUMBER_LIMIT, check_array, check_range, fail

KINDS = ("convs", "maps", "dynamics", "sparses")  # axon kinds 0, 1, 2, 3
COLUMNS = {"tiles": 8, "pieces": 8, "axons": 11, "cores": 4}
ROLES = "qkv"  # axon roles 0, 1, 2 of a dynamic projection


def check_tables(program: Program, mapping: Mapping) -> None:
    """Raise VerifyError for the first row of a table that does not fit the netlist or the other tables."""
    for name, columns in COLUMNS.items():
        table = getattr(mapping, name)
        # a network of host currents and readouts alone has no axons
        rows = 0 if name == "axons" and len(table.shape) == 2 and len(table) == 0 else None
        check_array(f"mapping/{name}", table, np.int32, (rows, columns))
    check_range("mapping/chips", mapping.chips, 1, NUMBER_LIMIT)
    _check_cores(program, mapping)
    _check_tiles(program, mapping)
    _check_pieces(program, mapping)
    _check_axons(program, mapping)


def _require(good: Any, table: str, text: str, shown: np.ndarray) -> None:
    """Fail at the first row that is not good, showing its numbers."""
    if not good.all():
        row = int(np.argmin(good))
        fail(f"mapping/{table}/{row}", f"{text}: {np.asarray(shown[row]).tolist()}")


def _in(values: np.ndarray, low: Any, high: Any) -> Any:
    return (values >= low) & (values < high)


def _inside(boxes: np.ndarray, shapes: np.ndarray) -> Any:
    """Whether boxes [n, 6] are not empty and lie within arrays of those shapes [n, 3]."""
    low, high = boxes[:, 0::2], boxes[:, 1::2]
    return ((low >= 0) & (low < high) & (high <= shapes)).all(axis=1)


def _check_cores(program: Program, mapping: Mapping) -> None:
    cores = mapping.cores
    _require(_in(cores[:, 0], 0, mapping.chips), "cores", f"chip is not below {mapping.chips}", cores)
    _require((cores >= 0).all(axis=1), "cores", "negative coordinate", cores)
    places = len(np.unique(cores, axis=0))
    if places != len(cores):
        fail("mapping/cores", f"{len(cores)} cores stand in {places} places")
    mesh = program.target.get("mesh")
    if mesh is None:
        fail("target/mesh", "a mapped Program says there how many routers [x, y] a chip has; map it for a target")
    x, y, per_router = _mesh(mesh)
    fits = (cores[:, 1] < x) & (cores[:, 2] < y) & (cores[:, 3] < per_router)
    _require(fits, "cores", f"[chip, x, y, index] outside chips of {x} x {y} routers with {per_router} cores", cores)


def _mesh(mesh: object) -> tuple[int, int, int]:
    """Routers x, y of one chip and cores per router, from the target facts."""
    if not isinstance(mesh, dict) or not isinstance(mesh.get("routers"), (list, tuple)):
        fail("target/mesh", "expected an object with routers [x, y]")
    numbers = [*mesh["routers"], mesh.get("cores_per_router", NUMBER_LIMIT)]
    if len(numbers) != 3 or not all(type(n) is int and 1 <= n <= NUMBER_LIMIT for n in numbers):
        fail("target/mesh", "routers must be [x, y] and cores_per_router a number, all of at least 1")
    if mesh.get("multicast", "unicast") not in ("unicast", "tree"):
        fail("target/mesh", f"multicast is {mesh['multicast']!r}; expected 'unicast' or 'tree'")
    return numbers[0], numbers[1], numbers[2]


def _check_tiles(program: Program, mapping: Mapping) -> None:
    tiles, bases = mapping.tiles, base_dendrites(program)
    shapes = np.zeros((max(bases) + 1, 3), np.int64)  # zero where there is no such cluster: no box fits
    for cluster, dendrite in bases.items():
        shapes[cluster] = program.dendrites[dendrite].shape
    _require(_in(tiles[:, 0], 0, len(shapes)), "tiles", "no such cluster", tiles)
    _require(_in(tiles[:, 1], 0, len(mapping.cores)), "tiles", "no such core", tiles)
    _require(_inside(tiles[:, 2:], shapes[tiles[:, 0]]), "tiles", "box outside its base dendrite", tiles)


def _check_pieces(program: Program, mapping: Mapping) -> None:
    pieces, tiles = mapping.pieces, mapping.tiles
    shapes = np.array([d.shape for d in program.dendrites], np.int64)
    clusters = np.array([d.cluster for d in program.dendrites], np.int64)
    _require(_in(pieces[:, 0], 0, len(tiles)), "pieces", "no such tile", pieces)
    _require(_in(pieces[:, 1], 0, len(shapes)), "pieces", "no such dendrite", pieces)
    same = clusters[pieces[:, 1]] == tiles[pieces[:, 0], 0]
    _require(same, "pieces", "the dendrite is not of the tile's cluster", pieces)
    _require(_inside(pieces[:, 2:], shapes[pieces[:, 1]]), "pieces", "box outside its dendrite", pieces)
    keys = pieces[:, 0].astype(np.int64) * len(shapes) + pieces[:, 1]
    if len(np.unique(keys)) != len(keys):
        fail("mapping/pieces", "a tile has two pieces of one dendrite")


def _check_axons(program: Program, mapping: Mapping) -> None:
    axons = mapping.axons
    if not len(axons):
        return
    counts = np.array([len(getattr(program, kind)) for kind in KINDS], np.int64)
    _require(_in(axons[:, 1], 0, len(KINDS)), "axons", "kind is not 0, 1, 2 or 3", axons)
    _require(_in(axons[:, 2], 0, counts[axons[:, 1]]), "axons", "no such projection", axons)
    _require(_in(axons[:, 3], 0, np.where(axons[:, 1] == 2, 3, 1)), "axons", "no such role", axons)
    _require(_in(axons[:, 0], -1, len(mapping.tiles)), "axons", "no such source tile", axons)
    _require(_in(axons[:, 4], 0, len(mapping.tiles)), "axons", "no such destination tile", axons)
    _check_axon_ends(program, mapping)


def _check_axon_ends(program: Program, mapping: Mapping) -> None:
    axons = mapping.axons
    sources, targets = axon_ends(program, axons)
    shapes = np.array([p.shape for p in program.populations], np.int64)
    _require(_inside(axons[:, 5:], shapes[sources]), "axons", "box outside the source population", axons)
    read = np.array([p.dendrite for p in program.populations], np.int64)[sources]
    from_host = axons[:, 0] == -1
    _require(from_host == (read < 0), "axons", "source tile -1 goes with an input population only", axons)
    piece_of = {(int(t), int(d)): i for i, (t, d) in enumerate(mapping.pieces[:, :2])}
    into = [(int(t), int(d)) in piece_of for t, d in zip(axons[:, 4], targets, strict=True)]
    _require(np.array(into), "axons", "the destination tile holds nothing of the target dendrite", axons)
    rows = np.array([piece_of.get((int(t), int(d)), -1) for t, d in zip(axons[:, 0], read, strict=True)])
    _require(from_host | (rows >= 0), "axons", "the source tile holds no soma of the source", axons)
    held = mapping.pieces[rows, 2:]
    low = (axons[:, 5::2] >= held[:, 0::2]).all(axis=1)
    high = (axons[:, 6::2] <= held[:, 1::2]).all(axis=1)
    _require(from_host | (low & high), "axons", "the box leaves the somas of the source tile", axons)


def axon_ends(program: Program, axons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source population and target dendrite of each axon row, int64 [n] each."""
    width = max(len(getattr(program, kind)) for kind in KINDS)
    sources = np.full((len(KINDS), width, 3), -1, np.int64)
    targets = np.full((len(KINDS), width), -1, np.int64)
    for kind, name in enumerate(KINDS):
        for index, item in enumerate(getattr(program, name)):
            sources[kind, index] = [getattr(item, r) for r in ROLES] if kind == 2 else item.src
            targets[kind, index] = item.dst
    kinds, items, roles = axons[:, 1], axons[:, 2], axons[:, 3]
    return sources[kinds, items, roles], targets[kinds, items]
