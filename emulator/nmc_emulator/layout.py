"""The mapping as the engines use it: pieces per dendrite, axon rows per population, the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import Box, Mapping, Program, whole

from .timing import CONV, DYNAMIC, Edge, edges_of

HOST_TILE = -1


@dataclass(frozen=True)
class Piece:
    """The part of one dendrite that one tile holds."""

    tile: int
    core: int
    dendrite: int
    box: Box


@dataclass(frozen=True)
class Axon:
    """One row of the axon table, resolved: events of ``edge.src`` inside ``box`` reach ``tile``."""

    edge: Edge
    src_tile: int
    tile: int
    core: int
    box: Box


@dataclass(frozen=True)
class Mesh:
    """Routers of all chips as one grid, chips side by side along x; one row of ``at`` per core."""

    routers: tuple[int, int]  # of one chip
    chips: int
    at: np.ndarray  # int64 [cores, 2] router x over all chips, router y

    @property
    def links(self) -> int:
        """Directed links, four slots per router: east, west, north (y + 1), south."""
        return self.routers[0] * self.chips * self.routers[1] * 4

    def link(self, x: int, y: int, direction: int) -> int:
        """Number of the link that leaves router (x, y)."""
        return (x * self.routers[1] + y) * 4 + direction

    def path(self, src: int, dst: int) -> Iterator[int]:
        """Links from core to core, XY: first along x, then along y."""
        (x, y), (x1, y1) = self.at[src].tolist(), self.at[dst].tolist()
        while x != x1:
            yield self.link(x, y, 0 if x1 > x else 1)
            x += 1 if x1 > x else -1
        while y != y1:
            yield self.link(x, y, 2 if y1 > y else 3)
            y += 1 if y1 > y else -1

    def distance(self, src: int, dst: int) -> tuple[int, int, int]:
        """(hops east-west, hops north-south, chip crossings); a crossing is not a hop."""
        (x, y), (x1, y1) = self.at[src].tolist(), self.at[dst].tolist()
        crossings = abs(x1 // self.routers[0] - x // self.routers[0])
        return abs(x1 - x) - crossings, abs(y1 - y), crossings


@dataclass(frozen=True)
class Layout:
    """Resolved mapping of one Program."""

    mapped: bool
    cores: int
    pieces: tuple[tuple[Piece, ...], ...]  # per dendrite
    axons: tuple[tuple[Axon, ...], ...]  # per source population, in table order
    mesh: Mesh


def _fail(program: Program, text: str) -> NoReturn:
    raise VerifyError(f"mapping of Program '{program.name}': {text}; map it again or report the mapper")


def one_core(program: Program) -> Mapping:
    """Everything on one core: stands in where a Program has no mapping."""
    shapes = [whole(d.shape).as_tuple() for d in program.dendrites]
    tiles = [(d.cluster, 0, *shapes[i]) for i, d in enumerate(program.dendrites)]
    first = {d.cluster: i for i, d in reversed(list(enumerate(program.dendrites)))}
    tile_of = {c: n for n, c in enumerate(sorted(first))}
    pieces = [(tile_of[d.cluster], i, *shapes[i]) for i, d in enumerate(program.dendrites)]
    axons = []
    for e in edges_of(program):
        src = program.populations[e.src]
        home = HOST_TILE if src.dendrite < 0 else tile_of[program.dendrites[src.dendrite].cluster]
        dst = tile_of[program.dendrites[e.dst].cluster]
        axons.append((home, e.kind, e.index, e.role, dst, *whole(src.shape).as_tuple()))
    return Mapping(
        np.array([tiles[first[c]] for c in sorted(first)], np.int32).reshape(-1, 8),
        np.array(pieces, np.int32).reshape(-1, 8),
        np.array(axons, np.int32).reshape(-1, 11),
        np.zeros((1, 4), np.int32),
    )


def _mesh(program: Program, mapping: Mapping, mapped: bool) -> Mesh:
    mesh = program.target.get("mesh") if mapped else {"routers": (1, 1)}
    if mesh is None:
        _fail(program, "target/mesh is missing, which says how many routers [x, y] a chip has")
    routers = tuple(int(n) for n in mesh["routers"])
    cores = mapping.cores.astype(np.int64)
    at = np.stack([cores[:, 0] * routers[0] + cores[:, 1], cores[:, 2]], axis=1)
    return Mesh((routers[0], routers[1]), mapping.chips, at)


def _pieces(program: Program, mapping: Mapping) -> tuple[tuple[Piece, ...], ...]:
    found: list[list[Piece]] = [[] for _ in program.dendrites]
    for tile, dendrite, *box in mapping.pieces.tolist():
        found[dendrite].append(Piece(tile, int(mapping.tiles[tile, 1]), dendrite, Box(*box)))
    for d, pieces in enumerate(found):
        _check_cover(program, d, pieces)
    return tuple(tuple(f) for f in found)


def _check_cover(program: Program, d: int, pieces: list[Piece]) -> None:
    """Where somas read, every position is held exactly once."""
    dendrite = program.dendrites[d]
    held = np.zeros(dendrite.shape, np.int32)
    for p in pieces:
        b = p.box
        held[b.c0 : b.c1, b.y0 : b.y1, b.x0 : b.x1] += 1
    read = [p.name for p in program.populations if p.dendrite == d]
    if read and (held.min() < 1 or held.max() > 1):
        _fail(
            program,
            f"positions of dendrite '{dendrite.name}', which '{read[0]}' reads, are held {held.min()} to"
            f" {held.max()} times instead of once",
        )


def inside(box: Box, outer: Box) -> bool:
    """Whether ``box`` is a part of ``outer``."""
    return (
        outer.c0 <= box.c0 <= box.c1 <= outer.c1
        and outer.y0 <= box.y0 <= box.y1 <= outer.y1
        and outer.x0 <= box.x0 <= box.x1 <= outer.x1
    )


def _disjoint(a: Box, b: Box) -> bool:
    return a.c1 <= b.c0 or b.c1 <= a.c0 or a.y1 <= b.y0 or b.y1 <= a.y0 or a.x1 <= b.x0 or b.x1 <= a.x0


def _axons(program: Program, mapping: Mapping) -> list[list[Axon]]:
    edges = {(e.kind, e.index, e.role): e for e in edges_of(program)}
    found: list[list[Axon]] = [[] for _ in program.populations]
    routes: dict[tuple[int, ...], list[Box]] = {}
    for src_tile, kind, index, role, dst, *corners in mapping.axons.tolist():
        edge, box = edges[kind, index, role], Box(*corners)
        others = routes.setdefault((src_tile, kind, index, role, dst), [])
        if not all(_disjoint(box, o) for o in others):
            _fail(program, f"two axons of '{edge.name}' bring the same event to tile {dst} twice")
        others.append(box)
        found[edge.src].append(Axon(edge, src_tile, dst, int(mapping.tiles[dst, 1]), box))
    return found


def source_need(program: Program, transfer: int, target: Box) -> Box:
    """Source box of a transfer that the target box ``target`` is computed from (clipped)."""
    t = program.transfers[transfer]
    _, h, w = program.dendrites[t.src].shape
    if t.mode == "sum":
        return Box(target.c0, target.c1, 0, h, 0, w)
    (kh, kw), (sy, sx), (py, px) = t.kernel, t.stride, t.pad
    return Box(
        target.c0,
        target.c1,
        max(target.y0 * sy - py, 0),
        min((target.y1 - 1) * sy - py + kh, h),
        max(target.x0 * sx - px, 0),
        min((target.x1 - 1) * sx - px + kw, w),
    )


def _check_transfers(program: Program, pieces: tuple[tuple[Piece, ...], ...]) -> None:
    for i, t in enumerate(program.transfers):
        held = {p.tile: p.box for p in pieces[t.src]}
        for p in pieces[t.dst]:
            if p.tile not in held or not inside(source_need(program, i, p.box), held[p.tile]):
                _fail(program, f"transfer '{t.name}' needs source positions that tile {p.tile} does not hold")


def resolve(program: Program) -> Layout:
    """Resolve the mapping tables of a valid Program.

    VerifyError if a soma is held not exactly once, a tile lacks what a transfer reads, or an event
    would be brought to a tile twice.
    """
    mapping = program.mapping or one_core(program)
    pieces = _pieces(program, mapping)
    _check_transfers(program, pieces)
    axons = _axons(program, mapping)
    mesh = _mesh(program, mapping, program.mapping is not None)
    return Layout(program.mapping is not None, len(mapping.cores), pieces, tuple(map(tuple, axons)), mesh)


__all__ = ["CONV", "DYNAMIC", "Axon", "Layout", "Mesh", "Piece", "one_core", "resolve", "source_need"]
