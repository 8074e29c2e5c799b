"""A given layout in place of a found one: every population spread evenly over the same cores."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from nmc_compiler.errors import CapacityError, UsageError
from nmc_compiler.mapping.place import slots_of
from nmc_compiler.mapping.tables import axon_table
from nmc_compiler.program.clusters import base_dendrites, dendrites_of_clusters
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import Mapping, Program, Shape
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target


def split_evenly(program: Program, cores: int, target: Target) -> Program:
    """The Program with soma i of every population of N on core ``i * cores // N``, somas in C order.

    Cores stand row-major on the target's mesh, as many behind each router as it has, on as few chips as hold
    them. Nothing is weighed or optimised, and what a core may hold is not checked: layouts of benchmarks and
    of other tools need not fit. UsageError where a population cannot be spread so (a max-pool whose windows
    reach across somas, attention, a sum over positions), or for a bad number of cores; CapacityError where the
    target has no room for that many.
    """
    if isinstance(cores, bool) or not isinstance(cores, int) or cores < 1:
        raise UsageError(f"cores {cores!r}: expected a whole number of at least 1")
    chips, top = -(-cores // target.mesh.cores), target.mesh.chips_max.value
    if top is not None and chips > top:
        raise CapacityError(f"{cores} cores need {chips} chips, but {target.name} has {top}; ask for fewer cores")
    target.mesh.extent(chips)
    program = dataclasses.replace(program, mapping=None, target={})
    validate_program(program)
    _require_separate_somas(program)
    tiles, pieces = _tables(program, cores)
    mapping = Mapping(
        tiles=tiles,
        pieces=pieces,
        axons=axon_table(program, pieces),
        cores=slots_of(target, chips)[:cores].astype(np.int32),
        chips=chips,
    )
    program = dataclasses.replace(program, mapping=mapping, target=target_facts(target))
    validate_program(program)
    return program


def _require_separate_somas(program: Program) -> None:
    """UsageError where what one soma needs is more than its own position of the cluster's dendrites."""
    for t in program.transfers:
        if t.mode == "sum" or (t.kernel, t.stride, t.pad) != ((1, 1), (1, 1), (0, 0)):
            raise UsageError(f"transfer {t.name!r} reads more than one position; map the network with map_program")
    for item in program.dynamics:
        raise UsageError(f"attention {item.name!r} keeps whole heads together; map the network with map_program")


def _tables(program: Program, cores: int) -> tuple[np.ndarray, np.ndarray]:
    """Tiles and pieces, int32: the somas of each cluster and core as boxes, one tile per box."""
    members = dendrites_of_clusters(program)
    tiles: list[tuple[int, ...]] = []
    pieces: list[tuple[int, ...]] = []
    for cluster, base in base_dendrites(program).items():
        shape = program.dendrites[base].shape
        size = math.prod(shape)
        for core in range(cores):
            low, high = -(-core * size // cores), -(-(core + 1) * size // cores)
            for box in boxes_of_range(shape, low, high):
                pieces += [(len(tiles), dendrite, *box) for dendrite in members[cluster]]
                tiles.append((cluster, core, *box))
    return np.array(tiles, np.int32), np.array(pieces, np.int32)


def boxes_of_range(shape: Shape, low: int, high: int) -> list[tuple[int, int, int, int, int, int]]:
    """Disjoint boxes c0, c1, y0, y1, x0, x1 that hold the positions low..high of an array in C order."""
    c, h, w = shape
    found = []
    for plane, first, last in _pieces(low, high, h * w):
        if first == 0 and last == h * w:
            found.append((plane[0], plane[1], 0, h, 0, w))
            continue
        for line, start, stop in _pieces(first, last, w):
            found.append((*plane, *line, start, stop))
    return found


def _pieces(low: int, high: int, unit: int) -> list[tuple[tuple[int, int], int, int]]:
    """Cut low..high at multiples of `unit`: (first unit, last unit), start and stop within; whole units together."""
    found = []
    while low < high:
        number, start = divmod(low, unit)
        units = (high - low) // unit if start == 0 else 0
        stop = unit if units else min(unit, start + high - low)
        found.append(((number, number + max(units, 1)), start, stop))
        low += units * unit or stop - start
    return found
