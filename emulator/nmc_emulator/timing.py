"""When things happen: who arrives where at which level, and when dendrites are free again."""

from __future__ import annotations

from dataclasses import dataclass

from nmc_compiler.program.model import Program
from nmc_compiler.program.timing import last_reads

CONV, MAP, DYNAMIC, SPARSE = 0, 1, 2, 3


@dataclass(frozen=True)
class Edge:
    """One population feeding one projection: a Dynamic has three (role 0 q, 1 k, 2 v)."""

    kind: int
    index: int  # within convs, maps, dynamics or sparses
    role: int
    unit: int  # row in tables "per projection"
    name: str
    src: int
    dst: int
    delay: int
    lag: int
    arrival: int  # level, relative to the timestep it belongs to


@dataclass(frozen=True)
class Timing:
    """Static facts of a Program. Times are levels relative to the tick of a timestep."""

    edges: tuple[Edge, ...]
    last_read: tuple[int, ...]  # per dendrite
    span: int  # ticks of one sample, from its start to the last arrival it causes (timesteps > 0)


def edges_of(program: Program) -> tuple[Edge, ...]:
    """Every (population, projection, role): Convs first, then Maps, Dynamics, Sparses."""
    found: list[Edge] = []
    sizes = [len(program.convs), len(program.maps), len(program.dynamics)]

    def add(kind: int, index: int, role: int, name: str, src: int, dst: int, delay: int, lag: int) -> None:
        unit = index + sum(sizes[:kind])
        arrival = program.arrival(src, delay, lag)
        found.append(Edge(kind, index, role, unit, name, src, dst, delay, lag, arrival))

    for i, c in enumerate(program.convs):
        add(CONV, i, 0, c.name, c.src, c.dst, c.delay, c.lag)
    for i, m in enumerate(program.maps):
        add(MAP, i, 0, m.name, m.src, m.dst, m.delay, m.lag)
    for i, d in enumerate(program.dynamics):
        for role, (src, delay) in enumerate(((d.q, d.delay_q), (d.k, d.delay_k), (d.v, d.delay_v))):
            add(DYNAMIC, i, role, d.name, src, d.dst, delay, 0)
    for i, s in enumerate(program.sparses):
        add(SPARSE, i, 0, s.name, s.src, s.dst, s.delay, s.lag)
    return tuple(found)


def multiplies(program: Program, e: Edge) -> bool:
    """Whether an event of the edge multiplies its weights (``synops_mac``) or selects them (``synops_ac``)."""
    graded = program.populations[e.src].payload_bits > 0
    return graded and (e.kind != SPARSE or program.sparses[e.index].graded)


def synaptic_unit(program: Program, e: Edge) -> int:
    """Row of a Conv or Sparse in tables of kind "synaptic": Convs, then Sparses."""
    return e.index + (len(program.convs) if e.kind == SPARSE else 0)


def reading_role(order: str) -> int:
    """Role whose events read the table: q (0) in order "kv", v (2) in order "qk"."""
    return 0 if order == "kv" else 2


def analyse(program: Program) -> Timing:
    """The static schedule of a valid Program."""
    edges, last = edges_of(program), last_reads(program)
    reach = max([program.depth, *(program.populations[e.src].level + e.delay for e in edges)])
    span = (program.timesteps - 1) * program.ticks_per_step + reach + 1
    return Timing(edges, tuple(last[d] for d in range(len(program.dendrites))), span)
