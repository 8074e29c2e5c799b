"""From a mapped Program to the image of the cores that it was mapped onto (docs/neurocore.md)."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.neurocore import convolutions, items
from nmc_compiler.neurocore.axons import Axons
from nmc_compiler.neurocore.image import Image, check_image
from nmc_compiler.neurocore.places import Places, find_places, lifts, type_rows
from nmc_compiler.neurocore.rows import LAST_SHIFT, LONGEST, Words, encoded, plastic_row
from nmc_compiler.neurocore.sizes import (
    DESCRIPTORS,
    GEOMETRIES,
    NEURONS,
    REGISTER_LEARN,
    REGISTER_TRACES,
    REGISTER_WINDOW,
    REGISTERS,
    ROUTES,
    RULE_ITEMS,
    RULES,
    SYNAPSES,
    TYPES,
)
from nmc_compiler.neurocore.synapses import synapses_of
from nmc_compiler.program.digest import program_digest
from nmc_compiler.program.model import Conv, Map, Program, Sparse, Stdp
from nmc_compiler.program.sites import refuse_sites

KINDS = 64  # more than any shift
Key = tuple[int, int, int]  # source soma, core, delay in steps
Usage = dict[str, tuple[int, int]]  # resource -> used, limit


@dataclass(frozen=True)
class Built:
    """An image, and what every core of it uses of each resource."""

    image: Image
    usage: tuple[Usage, ...]


@dataclass(frozen=True)
class Edge:
    """A projection as one of the populations that read its dendrite sees it."""

    item: Conv | Map | Sparse
    reader: int
    delay: int  # steps from the source's spike to the step in which the reader adds it
    shift: int


class Builder:
    """Collects rows of synapses and descriptors, source population after source population."""

    def __init__(self, program: Program, merged: bool = True) -> None:
        """``merged``: synapses of several projections share rows, which saves descriptors and may cost words."""
        self.program, self.merged, self.places = program, merged, find_places(program)
        sizes = self.places.sizes
        self.words = [Words(core, sizes.words) for core in range(sizes.cores)]
        self.axons = Axons(sizes.cores, sizes.axons)
        self.geometries: list[list[dict[str, int]]] = [[] for _ in range(sizes.cores)]
        self.rules: list[Stdp] = []
        self.weights: list[np.ndarray] = [
            np.zeros((0, 5), np.int64)
        ]  # of plastic synapses, as `Image.weights` has them
        self.rows: dict[int, dict[Key, list[int]]] = defaultdict(lambda: defaultdict(list))  # by population

    def edges(self) -> Iterator[Edge]:
        """Every projection once per reader that its events reach in time; LoweringError where an event has a code."""
        lift, populations = lifts(self.program), self.program.populations
        every: tuple[Conv | Map | Sparse, ...] = (*self.program.convs, *self.program.maps, *self.program.sparses)
        for item in every:
            arrives = self.program.arrival(item.src, item.delay, item.lag)
            for index, p in enumerate(populations):
                if p.dendrite == item.dst and p.level >= arrives:
                    delay = item.lag + p.level - populations[item.src].level
                    yield Edge(item, index, delay, item.shift - lift[index])

    def add_rows(self) -> None:
        """CONV rows where they save words, as many geometries as there are; rows of synapses for the rest."""
        edges = [edge for edge in self.edges() if not _plastic(edge)]
        for edge in self.edges():
            if _plastic(edge):
                self._add_plastic(edge)
        chosen = self._chosen(edges)
        loose: dict[int, list[tuple[Edge, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
        for number, edge in enumerate(edges):
            src, reader = self.program.populations[edge.item.src], self.program.populations[edge.reader]
            done = np.zeros(np.prod(reader.shape, dtype=np.int64), bool)
            for index, piece in enumerate(self.places.pieces):
                if (number, index) in chosen:
                    self._add_conv(edge, piece)
                    places = (self.places.core[edge.reader] == piece.core) & _within(self.places, piece)
                    done |= places
            if not done.all():
                s = synapses_of(edge.item, src.shape, reader.shape)
                kept = ~done[s.target]
                loose[edge.item.src].append((edge, *(a[kept] for a in s)))
        for population, parts in sorted(loose.items()):
            self._add_synapses(population, parts)

    def _chosen(self, edges: list[Edge]) -> set[tuple[int, int]]:
        """(edge, piece) of the convolutions that become CONV rows, those that save most first."""
        found = []
        for number, edge in enumerate(edges):
            if not isinstance(edge.item, Conv):
                continue
            src = self.program.populations[edge.item.src].shape
            for index, piece in enumerate(self.places.pieces):
                if piece.population == edge.reader and convolutions.fits(edge.item, src, piece, edge.shift):
                    gain = convolutions.saving(edge.item, src, piece)
                    if gain > 0:
                        found.append((-gain, number, index))
        chosen = set()
        for _, number, index in sorted(found):
            piece = self.places.pieces[index]
            form, known = convolutions.geometry(edges[number].item, piece), self.geometries[piece.core]  # type: ignore[arg-type]
            if form not in known:
                if len(known) == self.places.sizes.geoms:
                    continue
                known.append(form)
            chosen.add((number, index))
        return chosen

    def _add_conv(self, edge: Edge, piece: Any) -> None:
        assert isinstance(edge.item, Conv)
        src = self.program.populations[edge.item.src].shape
        geom = self.geometries[piece.core].index(convolutions.geometry(edge.item, piece))
        rows = self.rows[edge.item.src]
        for row in convolutions.rows(edge.item, src, piece, edge.shift, geom, self.words[piece.core]):
            rows[row.source, piece.core, edge.delay].append(row.descriptor)

    def _add_synapses(self, population: int, parts: list[tuple]) -> None:
        """Rows of a population's synapses: those of one source, core, delay and shift go together, summed by target."""
        columns = []
        for number, (edge, source, target, weight, extra) in enumerate(parts):
            kind = edge.shift + (0 if self.merged else number * KINDS)
            core, neuron = self.places.core[edge.reader][target], self.places.neuron[edge.reader][target]
            columns.append(np.stack([source, core, edge.delay + extra, np.full_like(core, kind), neuron, weight]))
        table = np.concatenate(columns, axis=1)
        table = _summed(table[:, np.lexsort(table[4::-1])])
        starts = _firsts(table[:4])
        for part in np.split(table, starts[1:], axis=1) if len(starts) else ():
            source, core, delay, kind = part[:4, 0].tolist()
            shift, where = kind % KINDS, self.program.populations[population].name
            self.rows[population][source, core, delay] += encoded(part[4], part[5], shift, self.words[core], where)

    def _add_plastic(self, edge: Edge) -> None:
        """Rows with a rule: one for each source, core and delay, and where the weights of its synapses lie."""
        item = edge.item
        assert isinstance(item, Sparse) and item.rule is not None
        if item.rule not in self.rules:
            self.rules.append(item.rule)
        rule = self.rules.index(item.rule) + 1
        if rule >= RULES or not 0 <= edge.shift <= LAST_SHIFT:
            raise LoweringError(
                f"plastic projection '{item.name}': rule {rule} of {RULES - 1}, shift {edge.shift} of 0..{LAST_SHIFT}; "
                "share rules between projections, and use smaller exponents"
            )
        src, reader = self.program.populations[item.src], self.program.populations[edge.reader]
        s = synapses_of(item, src.shape, reader.shape)
        core, neuron = self.places.core[edge.reader][s.target], self.places.neuron[edge.reader][s.target]
        number = np.full_like(core, next(i for i, x in enumerate(self.program.sparses) if x is item))
        table = np.stack([s.source, core, edge.delay + s.extra, neuron, s.weight, number, np.arange(len(core))])
        table = table[:, np.lexsort(table[3::-1])]
        starts = _firsts(table[:3])
        for whole in np.split(table, starts[1:], axis=1) if len(starts) else ():
            for first in range(0, whole.shape[1], LONGEST):
                part = whole[:, first : first + LONGEST]
                source, here, delay = part[:3, 0].tolist()
                row, word, low = plastic_row(part[3], part[4], edge.shift, rule, self.words[here])
                self.rows[item.src][source, here, delay].append(row)
                self.weights.append(np.stack([part[5], part[6], part[1], word, low], axis=1))

    def routes(self) -> tuple[np.ndarray, np.ndarray]:
        """Routes uint64 [cores, N] and the table of inputs; CapacityError where a core has too few descriptors."""
        sizes, program = self.places.sizes, self.program
        routes = np.zeros((sizes.cores, sizes.neurons), np.uint64)
        routes |= items.pack(items.ROUTE, log=1)
        chains: dict[tuple[int, int], dict[int, dict[int, list[int]]]] = defaultdict(lambda: defaultdict(dict))
        for population, found in self.rows.items():
            for (source, core, delay), rows in found.items():
                chains[population, source][core][delay] = rows
        inputs = []
        order = sorted(chains, key=lambda key: (-self._wanted(chains, key), key))
        for population, source in order:
            p, parts = program.populations[population], chains[population, source]
            if p.dendrite < 0:
                inputs += [(population, source, c, self.axons.place({c: parts[c]}, p.name)) for c in sorted(parts)]
                continue
            axon = self.axons.place(parts, p.name)
            core, neuron = (table[population][source] for table in (self.places.core, self.places.neuron))
            mask = sum(1 << c for c in parts)
            routes[core, neuron] |= items.pack(items.ROUTE, axon=axon, cores=mask)
        return routes, np.array(sorted(inputs), np.int32).reshape(-1, 4)

    def _wanted(self, chains: dict, key: tuple[int, int]) -> int:
        """Somas that need one number on many cores first, then long chains."""
        parts = chains[key]
        several = 0 if self.program.populations[key[0]].dendrite < 0 else len(parts)
        return 4096 * several + max(len(p.get(1, [])) + sum(d > 1 for d in p) for p in parts.values())


def _plastic(edge: Edge) -> bool:
    return isinstance(edge.item, Sparse) and edge.item.rule is not None


def _within(places: Places, piece: Any) -> np.ndarray:
    neuron = places.neuron[piece.population]
    return (neuron >= piece.first) & (neuron < piece.first + piece.box.size)


def _firsts(keys: np.ndarray) -> np.ndarray:
    """Columns of sorted keys [k, n] at which a new one begins."""
    if not keys.shape[1]:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], (np.diff(keys) != 0).any(axis=0)]))


def _summed(table: np.ndarray) -> np.ndarray:
    """Synapses of one row onto one neuron added up; sorted columns, weights last. Sums of zero are left out."""
    starts = _firsts(table[:5])
    if not len(starts):
        return table
    merged = table[:, starts]
    merged[5] = np.add.reduceat(table[5], starts)
    return merged[:, merged[5] != 0]


def build_image(program: Program) -> Built:
    """The image of a Program mapped for a neurocore.

    Raises LoweringError for what the core cannot do, naming the part, and CapacityError, with core and numbers,
    where something does not fit.
    """
    refuse_sites(program, "the neurocore has no table for", "map it for another target")
    builder = _filled(program)
    sizes = builder.places.sizes
    rows, types = type_rows(program, builder.places)
    routes, inputs = builder.routes()
    memories = {
        SYNAPSES: np.stack([words.items for words in builder.words]),
        DESCRIPTORS: builder.axons.items,
        NEURONS: _parameters(program, builder.places, types),
        ROUTES: routes,
        TYPES: _groups(items.TYPE, rows, sizes.types),
        GEOMETRIES: _groups(items.GEOMETRY, builder.geometries, sizes.geoms),
        RULE_ITEMS: _rules(builder.rules, sizes.cores),
        REGISTERS: _registers(program, sizes.cores),
    }
    currents, facts = _currents(program, builder.places)
    weights = np.concatenate(builder.weights).astype(np.int32)
    image = Image(sizes, memories, _neuron_table(builder.places), inputs, currents, weights, facts)
    check_image(image)
    return Built(image, tuple(_usage(builder, rows, core) for core in range(sizes.cores)))


def _filled(program: Program) -> Builder:
    """All rows, in as few descriptors as there are words for."""
    for merged in (True, False):
        builder = Builder(program, merged)
        builder.add_rows()
        if not any(words.missing for words in builder.words):
            return builder
    for words in builder.words:
        words.check()
    return builder


def _groups(layouts: tuple, rows: list[list[dict[str, Any]]], limit: int) -> np.ndarray:
    padded = [items.group_items(layouts, here + [{} for _ in range(limit - len(here))]) for here in rows]
    return np.stack(padded)


def _parameters(program: Program, places: Places, types: dict[int, np.ndarray]) -> np.ndarray:
    found = np.zeros((places.sizes.cores, places.sizes.neurons), np.uint64)
    for index, core in places.core.items():
        p = program.populations[index]
        bias = np.zeros(p.shape[0], np.int64) if p.bias is None else p.bias.astype(np.int64)
        if bias.size and max(-int(bias.min()) - 1, int(bias.max())) >= 1 << 19:
            raise LoweringError(f"population '{p.name}': biases {bias.min()} to {bias.max()} do not fit 20 bits")
        each = np.repeat(bias, len(core) // p.shape[0])
        found[core, places.neuron[index]] = items.pack(items.NEURON, bias=each, type=types[index])
    return found


def _registers(program: Program, cores: int) -> np.ndarray:
    registers = np.zeros((cores, 16), np.uint64)
    registers[:, REGISTER_WINDOW] = program.timesteps
    if program.traces is not None:
        registers[:, REGISTER_LEARN] = int(any(item.rule is not None for item in program.sparses))
        traces = {name: int(value) for name, value in dataclasses.asdict(program.traces).items()}
        registers[:, REGISTER_TRACES] = items.pack(items.TRACES, **traces)
    return registers


def _rules(rules: list[Stdp], cores: int) -> np.ndarray:
    rows = [{}, *({name: int(value) for name, value in dataclasses.asdict(rule).items()} for rule in rules)]
    made = items.group_items(items.RULE, rows + [{} for _ in range(RULES - len(rows))])
    return np.tile(made, (cores, 1))


def _neuron_table(places: Places) -> np.ndarray:
    rows = [
        np.stack([np.full_like(core, index), np.arange(len(core)), core, places.neuron[index]], axis=1)
        for index, core in sorted(places.core.items())
    ]
    return np.concatenate([np.zeros((0, 4), np.int64), *rows]).astype(np.int32)


def _currents(program: Program, places: Places) -> tuple[np.ndarray, dict[str, Any]]:
    """Table of host currents, one entry for every reader of its dendrite, and the facts of the image."""
    rows = [np.zeros((0, 4), np.int64)]
    told: list[dict[str, Any]] = []
    for number, current in enumerate(program.host_currents):
        for index, core in sorted(places.core.items()):
            p = program.populations[index]
            if p.dendrite == current.dst and p.level >= current.level:
                place = np.arange(len(core))
                rows.append(np.stack([np.full_like(core, len(told)), place, core, places.neuron[index]], axis=1))
                told.append({"name": current.name, "current": number, "level": p.level})
    facts = {
        "name": program.name,
        "program": program_digest(program),
        "timesteps": program.timesteps,
        "steps": program.timesteps + program.depth if program.timesteps else 0,
        "populations": [
            {"name": p.name, "shape": list(p.shape), "level": p.level, "model": p.model} for p in program.populations
        ],
        "currents": told,
    }
    return np.concatenate(rows).astype(np.int32), facts


def _usage(builder: Builder, rows: list[list], core: int) -> Usage:
    sizes = builder.places.sizes
    return {
        "neurons": (builder.places.used[core], sizes.neurons),
        "types": (len(rows[core]), sizes.types),
        "words": (builder.words[core].used, sizes.words),
        "descriptors": (builder.axons.used[core], sizes.axons),
        "geometries": (len(builder.geometries[core]), sizes.geoms),
    }
