"""Make an integer graph fit its target: lower and map it, with graded relays only where it does not fit without."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from nmc_compiler.errors import CapacityError, LoweringError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.lowering.long_delays import relay_delays
from nmc_compiler.mapping import Layout, MappingReport, lay_out, map_program
from nmc_compiler.mapping.cluster import find_clusters
from nmc_compiler.mapping.demand import Netlist
from nmc_compiler.mapping.partition import shortages
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.relays import CutStreams, RelaySums
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target

PIECES = (2, 4, 8, 16)

Rates = Callable[[Graph, Program], dict[str, np.ndarray]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fitted:
    """A mapped Program, the graph it carries out, and how the mapping came out."""

    graph: Graph
    program: Program
    mapping: MappingReport


def fit(
    graph: Graph,
    target: Target,
    options: CompileOptions,
    report: ConversionReport,
    chips: int | Literal["auto"] = 1,
    rates: Rates | None = None,
    seed: int = 0,
) -> Fitted:
    """Lower and map ``graph``; where a residual stream is too large for the cores of its readers, cut it.

    ``rates`` gives spike rates for the placement. What was done to fit goes into the report's notes.
    Raises the CapacityError of the plainest attempt where nothing fits.
    """

    def mapped(candidate: Graph, netlist: Program) -> Fitted:
        known = None if rates is None else rates(candidate, netlist)
        return Fitted(candidate, *map_program(netlist, target, chips, known, seed))

    return _first_that_fits(graph, target, options, report, mapped)


def size(
    graph: Graph,
    target: Target,
    options: CompileOptions,
    report: ConversionReport,
    chips: int | Literal["auto"] = "auto",
) -> Layout:
    """The cores that `fit` would take, with nothing placed, routed or checked; its attempts, its errors."""
    return _first_that_fits(graph, target, options, report, lambda _, netlist: lay_out(netlist, target, chips))


@dataclass(frozen=True)
class Shortage:
    """Layers that do not fit a core, in the way of carrying the graph out that comes nearest.

    ``layers``: (layer, resource, needed by its smallest tile, there).  ``neurons``: of the whole network.
    """

    layers: tuple[tuple[str, str, int, int], ...]
    neurons: int


def nearest(graph: Graph, target: Target, options: CompileOptions) -> Layout | Shortage | None:
    """Of what `fit` tries, the first layout that has room on enough chips, or else what comes nearest to one.

    None where it is not for the size of cores that there is none.
    """
    best: Shortage | None = None
    for candidate, settings, _, _ in _attempts(graph, target, options):
        try:
            netlist = lower(candidate, target, settings)
        except LoweringError:
            continue
        clusters = find_clusters(netlist)
        errors = shortages(Netlist(netlist, target, clusters), clusters, target.name)
        if not errors:
            try:
                return lay_out(netlist, target, "auto")
            except CapacityError as error:  # one that comes of how the neighbours are cut
                errors = [error]
        layers = tuple(e.shortage for e in errors if e.shortage is not None)
        if layers and (best is None or _worst(layers) < _worst(best.layers)):
            read = [netlist.populations[i].shape for c in clusters for i in c.populations]
            best = Shortage(layers, sum(math.prod(shape) for shape in read))
    return best


def _worst(layers: tuple[tuple[str, str, int, int], ...]) -> float:
    return max((needed / there for _, _, needed, there in layers), default=0.0)


def _first_that_fits(
    graph: Graph,
    target: Target,
    options: CompileOptions,
    report: ConversionReport,
    carry_out: Callable[[Graph, Program], Result],
) -> Result:
    first: CapacityError | None = None
    for candidate, settings, steps, log in _attempts(graph, target, options):
        try:
            netlist = lower(candidate, target, settings)
            found = carry_out(candidate, netlist)
        except CapacityError as error:
            first = first or error
            continue
        except LoweringError:
            if first is None:
                raise
            continue
        report.notes += netlist.meta.get("notes", [])
        report.entries += log.entries
        if first is not None:
            report.notes.append(f"made to fit by {steps} ({str(first).split('. ')[0]})")
        return found
    assert first is not None
    raise first


Attempt = tuple[Graph, CompileOptions, str, ConversionReport]


def _attempts(graph: Graph, target: Target, options: CompileOptions) -> Iterator[Attempt]:
    """Ways to carry the graph out, plainest first, each with its name and what it put in."""
    graph = relay_delays(graph, target)
    shared = replace(options, residual="stream")
    if options.stream_pieces:
        yield _relayed(graph, shared, options.stream_pieces)
        return
    yield graph, options, "nothing", ConversionReport()
    if options.residual == "duplicate":
        return
    seen = {len(graph.nodes)}
    for pieces in (1, *PIECES):
        attempt = _relayed(graph, shared, pieces)
        if len(attempt[0].nodes) not in seen:
            seen.add(len(attempt[0].nodes))
            yield attempt
    if options.residual == "auto":
        yield graph, replace(options, residual="duplicate"), "duplicating residual streams", ConversionReport()


def _relayed(graph: Graph, options: CompileOptions, pieces: int) -> Attempt:
    log, name = ConversionReport(), "relaying sums over positions"
    if pieces > 1:
        graph, name = (
            CutStreams(pieces).apply(graph, log),
            f"cutting residual streams into up to {pieces} pieces and {name}",
        )
    graph = RelaySums().apply(graph, log)
    verify(graph, event_driven=True)
    return graph, options, name, log
