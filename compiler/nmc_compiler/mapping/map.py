"""map_program: partition, pack, place, route and check, in this order."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from nmc_compiler.errors import CapacityError, LoweringError, UsageError
from nmc_compiler.mapping.check import check_mapping
from nmc_compiler.mapping.cluster import Cluster, find_clusters
from nmc_compiler.mapping.demand import Cuts, Netlist
from nmc_compiler.mapping.pack import Tile, pack, tiles_of
from nmc_compiler.mapping.partition import layer_name, partition
from nmc_compiler.mapping.place import place, slots_of
from nmc_compiler.mapping.report import LayerTiles, MappingReport
from nmc_compiler.mapping.resources import core_usage, limits
from nmc_compiler.mapping.route import route
from nmc_compiler.mapping.tables import axon_table, piece_table, tile_table
from nmc_compiler.mapping.traffic import Rates, rate_maps, traffic_matrix
from nmc_compiler.neurocore.places import PROFILE, require_models
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import Mapping, Population, Program
from nmc_compiler.program.timing import largest_extra
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target


def map_program(
    program: Program,
    target: Target,
    chips: int | Literal["auto"] = 1,
    rates: Rates | None = None,
    seed: int = 0,
) -> tuple[Program, MappingReport]:
    """Map a netlist onto cores of `target`; an earlier mapping of `program` is replaced.

    ``chips``: how many may be used, or "auto" for the fewest. ``rates``: events per neuron and
    timestep by population name (see `traffic.rate_maps`), the weights of placement. The same
    arguments give the same mapping. Raises CapacityError where the network does not fit,
    LoweringError where codes are too wide for the target's events or its cores cannot compute a part, UsageError for
    bad options.
    """
    found = lay_out(program, target, chips, rates)
    pieces = piece_table(found.program, found.clusters, found.cuts, found.tiles)
    mapping = Mapping(
        tiles=tile_table(found.tiles, found.on_core),
        pieces=pieces,
        axons=axon_table(found.program, pieces),
        cores=slots_of(target, found.chips)[: found.cores].astype(np.int32),
        chips=found.chips,
    )
    return _place_and_check(found.program, mapping, target, rates, seed, _layers(found))


@dataclasses.dataclass(frozen=True)
class Layout:
    """A netlist cut into tiles that are packed onto cores, none of which has a place yet. ``on_core`` [tiles]."""

    program: Program
    net: Netlist
    clusters: list[Cluster]
    cuts: Cuts
    tiles: list[Tile]
    on_core: np.ndarray
    chips: int

    @property
    def cores(self) -> int:
        return int(self.on_core.max()) + 1


def lay_out(program: Program, target: Target, chips: int | Literal["auto"] = 1, rates: Rates | None = None) -> Layout:
    """How many cores and chips a netlist takes; arguments and errors as of `map_program`."""
    if chips != "auto":
        target.mesh.extent(_whole_number(chips))
    program = dataclasses.replace(program, mapping=None, target={})
    validate_program(program)
    if target.profile == PROFILE:
        require_models(program)
    _require_payload(program, target)
    _require_tables(program, target)
    _require_delays(program, target)
    rate_maps(program, rates)
    program = dataclasses.replace(program, target=target_facts(target))
    clusters = find_clusters(program)
    net = Netlist(program, target, clusters)
    cuts = partition(net, clusters, target.name)
    tiles = tiles_of(net, clusters, cuts)
    on_core = pack(net, tiles, target.mesh.cores * (1 if chips == "auto" else _whole_number(chips)))
    needed = _chips_needed(int(on_core.max()) + 1, target, chips)
    return Layout(program, net, clusters, cuts, tiles, on_core, needed)


def _place_and_check(
    program: Program,
    mapping: Mapping,
    target: Target,
    rates: Rates | None,
    seed: int,
    layers: tuple[LayerTiles, ...],
) -> tuple[Program, MappingReport]:
    traffic = traffic_matrix(program, mapping, rates)
    cores, placement = place(traffic, target, mapping.chips, seed)
    mapping = dataclasses.replace(mapping, cores=cores)
    program = dataclasses.replace(program, mapping=mapping)
    top, usage = limits(target), core_usage(program, mapping, target)
    report = MappingReport(
        target=target.name,
        chips=mapping.chips,
        layers=layers,
        utilisation=tuple(
            {name: (int(used[core]), top[name]) for name, used in usage.items()} for core in range(len(cores))
        ),
        placement=placement,
        routes=route(traffic, cores, target, mapping.chips),
        check=check_mapping(program, target),
        measured_rates=rates is not None,
    )
    return program, report


def _whole_number(chips: object) -> int:
    if isinstance(chips, bool) or not isinstance(chips, int):
        raise UsageError(f"chips {chips!r}: expected a whole number of at least 1, or 'auto'")
    return chips


def _chips_needed(cores: int, target: Target, chips: int | Literal["auto"]) -> int:
    """Chips to use; CapacityError where the cores do not fit on those allowed."""
    needed = -(-cores // target.mesh.cores)
    top = target.mesh.chips_max.value
    allowed = (top or needed) if chips == "auto" else chips
    if needed > allowed:
        have, plural = allowed * target.mesh.cores, allowed > 1
        way_out = (
            f"Give --chips {needed} (or auto)"
            if top is None or needed <= top
            else f"{target.name} has {top} chips at most: use a target with {cores} cores"
        )
        raise CapacityError(
            f"the network needs {cores} cores, but {allowed} chip{'s' if plural else ''} of {target.name} "
            f"{'have' if plural else 'has'} {have} (cores {cores}/{have}). {way_out}"
        )
    return needed if chips == "auto" else chips


def _require_payload(program: Program, target: Target) -> None:
    """LoweringError where a population's codes are wider than what the target's events carry."""
    widest = max(program.populations, key=lambda p: p.payload_bits)
    top = target.core.payload_bits.value
    if widest.payload_bits > top:
        carried = f"carry {top}" if top else "are plain spikes"
        raise LoweringError(
            f"{widest.name!r} sends codes of {widest.payload_bits} bits, but events of {target.name} {carried}; "
            "choose another target or another lowering"
        )


def _require_tables(program: Program, target: Target) -> None:
    """CapacityError where an entry of a dynamic table could outgrow its memory."""
    top = 2**target.packing.table_entry_bits.value - 1
    for item in program.dynamics:
        k, other = (program.populations[i] for i in (item.k, item.v if item.order == "kv" else item.q))
        terms = k.shape[1] * k.shape[2] if item.order == "kv" else k.shape[0] // item.heads
        largest = terms * largest_code(k) * largest_code(other)
        if largest > top:
            raise CapacityError(
                f"attention {item.name!r}: a table entry can reach {largest}, but {target.name} keeps "
                f"{target.packing.table_entry_bits.value} bits ({largest}/{top}). Use the other order of the "
                "product, fewer tokens or code levels, or a target with wider table entries"
            )


def largest_code(population: Population) -> int:
    """Largest code that an unsigned population can emit."""
    if population.thresholds is not None:
        return int(population.thresholds.shape[1])
    return max(1, 2**population.payload_bits - 1)


def _require_delays(program: Program, target: Target) -> None:
    """CapacityError for the longest delay where the target's delay field cannot hold it."""
    delays = [(item.delay, item.name) for kind in (program.convs, program.maps) for item in kind]
    delays += [(item.delay + largest_extra(item) * program.ticks_per_step, item.name) for item in program.sparses]
    for item in program.dynamics:
        delays += [(getattr(item, f"delay_{role}"), f"{item.name} ({role})") for role in "qkv"]
    longest, name = max(delays, default=(1, ""))
    top = target.core.delay_max.value + 1
    if longest > top:
        raise CapacityError(
            f"projection {name!r} needs a delay of {longest} ticks, but {target.name} has {top} "
            f"(delay {longest}/{top}). Insert relay populations, or use a target with longer delays"
        )


def _layers(found: Layout) -> tuple[LayerTiles, ...]:
    layers = []
    for cluster in sorted(found.clusters, key=lambda c: (c.level, c.index)):
        cores = found.on_core[[tile.cluster == cluster.index for tile in found.tiles]]
        c, y, x = (len(chunks) for chunks in found.cuts[cluster.index])
        layers.append(LayerTiles(layer_name(found.net, cluster), (c, y, x), tuple(np.unique(cores).tolist())))
    return tuple(layers)
