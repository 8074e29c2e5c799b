"""Traffic: packets per timestep from core to core, from spike rates and the axon table.

One event sends one packet to each core that it reaches, however many tiles and
projections wait there. Events from the host enter from outside the mesh and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.mapping.boxes import grouped, outermost, union
from nmc_compiler.mapping.reach import SPARSE
from nmc_compiler.mapping.rows import blocks, counts_between, painted
from nmc_compiler.program.model import Mapping, Program, Shape
from nmc_compiler.program.validate_mapping import axon_ends

UNIFORM_RATE = 0.15  # events per neuron and timestep where nothing was measured: only ratios matter

Rates = MappingABC[str, float | np.ndarray]


def rate_maps(program: Program, rates: Rates | None) -> list[np.ndarray]:
    """Events per timestep of every position of every population, float64 [C, H, W] each.

    `rates`: by population name, one number per neuron and timestep or an array that broadcasts to
    the population's shape; None takes one rate for all. Raises UsageError for names that do not
    exist, populations that send events but have no rate, and rates that are not finite and >= 0.
    """
    names = [p.name for p in program.populations]
    unknown = sorted(set(rates or ()) - set(names))
    if unknown:
        raise UsageError(f"rates: no population is called {unknown[0]!r}; known are, for example, {names[:3]}")
    maps = []
    for population in program.populations:
        given = _rate_of(population.name, population.model, rates)
        try:
            value = np.broadcast_to(np.asarray(given, np.float64), population.shape)
        except (ValueError, TypeError):
            raise UsageError(
                f"rates[{population.name!r}]: {np.shape(given)} does not broadcast to {population.shape}"
            ) from None
        if not (np.isfinite(value).all() and (value >= 0).all()):
            raise UsageError(f"rates[{population.name!r}]: a rate is negative or not finite")
        maps.append(value)
    return maps


def _rate_of(name: str, model: str, rates: Rates | None) -> float | np.ndarray:
    if rates is None:
        return UNIFORM_RATE
    if name not in rates and model not in ("readout", "input"):
        raise UsageError(f"rates: none for population {name!r}; measure all, or give none for a uniform rate")
    return rates.get(name, 0.0)


def traffic_matrix(program: Program, mapping: Mapping, rates: Rates | None = None) -> np.ndarray:
    """Packets per timestep from core to core, float64 [cores, cores]; the diagonal stays on its core."""
    maps = rate_maps(program, rates)
    matrix = np.zeros((len(mapping.cores), len(mapping.cores)))
    axons = mapping.axons[mapping.axons[:, 0] >= 0].astype(np.int64)
    if not len(axons):
        return matrix
    core = mapping.tiles[:, 1].astype(np.int64)
    sources = axon_ends(program, axons)[0]
    into = core[axons[:, 4]]
    scattered = np.unique(sources[axons[:, 1] == SPARSE])
    for population in scattered.tolist():
        mine = axons[sources == population]
        _add_scattered(program, mapping, population, maps[population], mine, matrix)
    boxed = ~np.isin(sources, scattered)
    axons, sources, into = axons[boxed], sources[boxed], into[boxed]
    for rows in grouped(np.column_stack([axons[:, 0], sources, into])):
        first = rows[0]
        events = _events(maps[sources[first]], axons[rows, 5:])
        matrix[core[axons[first, 0]], into[first]] += events
    return matrix


def _add_scattered(
    program: Program, mapping: Mapping, index: int, rates: np.ndarray, axons: np.ndarray, matrix: np.ndarray
) -> None:
    """Add the events of a population with synapses one by one: each goes where its soma has any work."""
    shape, dendrite = program.populations[index].shape, program.populations[index].dendrite
    core, cores = mapping.tiles[:, 1].astype(np.int64), len(matrix)
    home = _cores_of(mapping, dendrite, shape)[0]
    by_boxes = _reached(axons[axons[:, 1] != SPARSE], core, shape)
    items = [program.sparses[i] for i in np.unique(axons[axons[:, 1] == SPARSE, 2]).tolist()]
    held = [_cores_of(mapping, item.dst, program.dendrites[item.dst].shape) for item in items]
    together = np.sum([item.indptr for item in items], axis=0)
    for start, stop in blocks(together, cores):
        reached = np.zeros((stop - start, cores), bool)
        for item, part_of in zip(items, held, strict=True):
            reached |= counts_between(item, part_of, cores, start, stop) > 0
        for into, mask in by_boxes.items():
            reached[:, into] |= mask[start:stop]
        rate = rates.reshape(-1)[start:stop, None]
        for source in np.unique(home[start:stop]).tolist():
            mine = home[start:stop] == source
            matrix[source] += (rate[mine] * reached[mine]).sum(axis=0)


def _cores_of(mapping: Mapping, dendrite: int, shape: Shape) -> list[np.ndarray]:
    """Core of each accumulator of a dendrite, as `painted` gives it."""
    pieces = mapping.pieces[mapping.pieces[:, 1] == dendrite]
    return painted(shape, pieces[:, 2:], mapping.tiles[pieces[:, 0], 1])


def _reached(axons: np.ndarray, core: np.ndarray, shape: Shape) -> dict[int, np.ndarray]:
    """By core, the somas (flat bool) in the boxes of axon rows that lead there."""
    found: dict[int, np.ndarray] = {}
    for row in axons:
        mask = found.setdefault(int(core[row[4]]), np.zeros(shape, bool))
        mask[row[5] : row[6], row[7] : row[8], row[9] : row[10]] = True
    return {into: mask.reshape(-1) for into, mask in found.items()}


def _events(rates: np.ndarray, boxes: np.ndarray) -> float:
    """Sum of rates over a union of boxes."""
    box = boxes[0] if len(boxes) == 1 else outermost(boxes)
    if box is not None:
        return float(rates[box[0] : box[1], box[2] : box[3], box[4] : box[5]].sum())
    mask, corner = union(boxes)
    ends = corner + mask.shape
    part = rates[corner[0] : ends[0], corner[1] : ends[1], corner[2] : ends[2]]
    return float(part[mask].sum())
