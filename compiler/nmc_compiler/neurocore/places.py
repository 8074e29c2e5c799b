"""Where the somas of a mapped Program stand on the cores, and of which type they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.errors import CapacityError, LoweringError
from nmc_compiler.neurocore.sizes import Sizes
from nmc_compiler.program.model import Box, Conv, Map, Program, Sparse

PROFILE = "neurocore"
UNIT_SHIFT = 6  # one synaptic unit is 64 membrane units
LAST_LEVEL = 63
NEVER = (1 << 23) - 1  # no potential is above it


@dataclass(frozen=True)
class Piece:
    """A box of one population's somas on one core, as neurons ``first``, ``first`` + 1, ... in C order."""

    population: int
    core: int
    first: int
    box: Box


@dataclass(frozen=True)
class Places:
    """``core`` and ``neuron`` int64 [somas] of every population with a dendrite, and the pieces they come from."""

    sizes: Sizes
    pieces: tuple[Piece, ...]
    core: dict[int, np.ndarray]
    neuron: dict[int, np.ndarray]
    used: tuple[int, ...]  # neurons of each core


def sizes_of(program: Program) -> Sizes:
    """Sizes of the mesh that a Program was mapped for. LoweringError where that is no neurocore."""
    target = program.target
    if target.get("profile") != PROFILE or program.mapping is None:
        found = "not mapped" if program.mapping is None else f"for {target.get('name', 'no target')}"
        raise LoweringError(f"Program '{program.name}' is {found}; compile it with --target neurocore")
    limits, routers = target["limits"], target["mesh"]["routers"]
    return Sizes(
        neurons=limits["neurons"],
        axons=limits["axons_in"],
        words=limits["synapse_words"],
        types=limits["neuron_groups"],
        x=routers[0],
        y=routers[1],
    )


def find_places(program: Program) -> Places:
    """Neurons of every soma: tile after tile, the populations of a tile one after the other.

    Raises LoweringError for what the core cannot compute, CapacityError where a core has too few neurons.
    """
    sizes = sizes_of(program)
    require_models(program)
    mapping = program.mapping
    assert mapping is not None
    numbers = (mapping.cores[:, 2] * sizes.x + mapping.cores[:, 1]).astype(int)
    used, pieces = [0] * sizes.cores, []
    for tile, dendrite, *box in mapping.pieces.tolist():
        core = int(numbers[mapping.tiles[tile, 1]])
        for index, p in enumerate(program.populations):
            if p.dendrite == dendrite:
                pieces.append(Piece(index, core, used[core], Box(*box)))
                used[core] += pieces[-1].box.size
    for core, count in enumerate(used):
        if count > sizes.neurons:
            raise CapacityError(f"core {core}: neurons {count}/{sizes.neurons}. Map for a target with more neurons")
    return Places(sizes, tuple(pieces), *_tables(program, pieces), tuple(used))


def _tables(program: Program, pieces: list[Piece]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    core: dict[int, np.ndarray] = {}
    neuron: dict[int, np.ndarray] = {}
    for index, p in enumerate(program.populations):
        if p.dendrite < 0:
            continue
        core[index], neuron[index] = (np.full(p.shape, -1, np.int64) for _ in range(2))
        for piece in (x for x in pieces if x.population == index):
            b = piece.box
            part = slice(b.c0, b.c1), slice(b.y0, b.y1), slice(b.x0, b.x1)
            core[index][part] = piece.core
            neuron[index][part] = piece.first + np.arange(b.size).reshape(b.shape)
        core[index], neuron[index] = core[index].reshape(-1), neuron[index].reshape(-1)
    return core, neuron


def require_models(program: Program) -> None:
    """LoweringError, naming the part, for what a neurocore cannot compute."""
    if program.ticks_per_step != 1:
        raise LoweringError(
            f"Program '{program.name}' takes {program.ticks_per_step} ticks per timestep; a step of the neurocore is "
            "one timestep: give recurrent cycles a lag of at least as many timesteps as they have populations"
        )
    for part, why in (
        (program.dynamics, "its weights are written by events, which the neurocore cannot"),
        (program.transfers, "the neurocore has no pools, sums or right shifts of currents"),
        (
            program.host_codes,
            "the neurocore takes spikes and host currents as input; use --input-encoding host-current",
        ),
    ):
        if part:
            raise LoweringError(f"'{getattr(part[0], 'name', 'input')}': {why}")
    for p in program.populations:
        for found, what in (
            (p.model not in ("lif", "input", "readout"), f"model {p.model}"),
            (p.payload_bits > 0, f"codes of {p.payload_bits} bits"),
            (p.vth_low is not None, "a lower threshold"),
            (p.restart is not None, "a restart within the window"),
            (p.start_u is not None or p.start_v is not None, "a starting state"),
            (p.level > LAST_LEVEL, f"level {p.level}, above {LAST_LEVEL}"),
        ):
            if found:
                raise LoweringError(f"population '{p.name}' has {what}, which a neuron of the neurocore has not")


def lifts(program: Program) -> dict[int, int]:
    """Bits by which the input of each population is shifted at the soma, because no row may shift by so much.

    A row shifts by 0 to 7. Where a projection of a population shifts by more, the least shift of all is taken out.
    """
    shifts: dict[int, list[int]] = {}
    every: tuple[Conv | Map | Sparse, ...] = (*program.convs, *program.maps, *program.sparses)
    for item in every:
        shifts.setdefault(item.dst, []).append(item.shift)
    for current in program.host_currents:
        shifts.setdefault(current.dst, []).append(0)
    found = {}
    for index, p in enumerate(program.populations):
        here = shifts.get(p.dendrite, [0])
        found[index] = min(min(here), 15 - UNIT_SHIFT) if max(here) > 7 and p.dendrite >= 0 else 0
    return found


def type_rows(program: Program, places: Places) -> tuple[list[list[dict[str, Any]]], dict[int, np.ndarray]]:
    """Types of every core, and the type of every soma (int64 [somas] by population).

    Raises CapacityError where a core needs more types than it has.
    """
    lift = lifts(program)
    rows: list[dict[tuple, int]] = [{} for _ in range(places.sizes.cores)]
    types = {index: np.zeros(len(core), np.int64) for index, core in places.core.items()}
    for index, core in places.core.items():
        p = program.populations[index]
        per = math.prod(p.shape[1:])
        for channel in range(p.shape[0]):
            row = tuple(_type_of(p, channel, lift[index]).items())
            somas = slice(channel * per, (channel + 1) * per)
            for c in np.unique(core[somas]).tolist():
                number = rows[c].setdefault(row, len(rows[c]))
                types[index][somas][core[somas] == c] = number
    for c, found in enumerate(rows):
        if len(found) > places.sizes.types:
            raise CapacityError(
                f"core {c}: neuron types {len(found)}/{places.sizes.types}. Compile with --channel-bins 1, so that "
                "the channels of a layer share one threshold, or map for a target with more types"
            )
    return [[dict(row) for row in found] for found in rows], types


def _type_of(p: Any, channel: int, lift: int) -> dict[str, int]:
    """Fields of the type of one channel: docs/integers.md on one side, docs/neurocore.md on the other."""
    shared = {"gain": 1, "ishift": UNIT_SHIFT + lift, "level": p.level}
    if p.model == "readout":
        return shared | {"du": 4096, "dv": 0, "vth": NEVER}
    if p.core is not None:
        shared |= {"gain": p.core.gain, "leak": p.core.leak, "refr": p.core.refractory, "soft": int(p.core.soft)}
    return shared | {"du": p.du + 1, "dv": p.dv, "vth": int(p.vth[channel]) << UNIT_SHIFT}
