"""When things happen: arrival levels, readers of dendrites, and the rules both engines rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import Program
from nmc_compiler.program.timing import ring_needed

CONV, MAP, DYNAMIC = 0, 1, 2
MAX_SHIFT = 24  # wider than any synaptic exponent; keeps every product within 64 bits


@dataclass(frozen=True)
class Edge:
    """One population feeding one projection: a Dynamic has three (role 0 q, 1 k, 2 v)."""

    kind: int
    index: int  # within convs, maps or dynamics
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
    first_add: tuple[int, ...]  # per dendrite
    last_read: tuple[int, ...]  # per dendrite
    span: int  # ticks of one sample, from its start to the last arrival it causes


def _fail(program: Program, text: str) -> NoReturn:
    raise VerifyError(f"Program '{program.name}' cannot run: {text}; compile it again or report the compiler")


def edges_of(program: Program) -> tuple[Edge, ...]:
    """Every (population, projection, role), Convs first, then Maps, then Dynamics."""
    found: list[Edge] = []

    def add(kind: int, index: int, role: int, name: str, src: int, dst: int, delay: int, lag: int) -> None:
        unit = index + (0, len(program.convs), len(program.convs) + len(program.maps))[kind]
        arrival = program.arrival(src, delay, lag)
        found.append(Edge(kind, index, role, unit, name, src, dst, delay, lag, arrival))

    for i, c in enumerate(program.convs):
        add(CONV, i, 0, c.name, c.src, c.dst, c.delay, c.lag)
    for i, m in enumerate(program.maps):
        add(MAP, i, 0, m.name, m.src, m.dst, m.delay, m.lag)
    for i, d in enumerate(program.dynamics):
        for role, (src, delay) in enumerate(((d.q, d.delay_q), (d.k, d.delay_k), (d.v, d.delay_v))):
            add(DYNAMIC, i, role, d.name, src, d.dst, delay, 0)
    return tuple(found)


def reading_role(order: str) -> int:
    """Role whose events read the table: q (0) in order "kv", v (2) in order "qk"."""
    return 0 if order == "kv" else 2


def _check_dynamics(program: Program, edges: tuple[Edge, ...]) -> None:
    for i, d in enumerate(program.dynamics):
        arrival = {e.role: e.arrival for e in edges if e.kind == DYNAMIC and e.index == i}
        read = arrival.pop(reading_role(d.order))
        if any(a != read - 1 for a in arrival.values()):
            _fail(
                program,
                f"dynamic '{d.name}' is read at level {read}, but written at levels {sorted(arrival.values())}"
                f" instead of {read - 1}",
            )


def _additions(program: Program, edges: tuple[Edge, ...]) -> list[tuple[int, int, int, str]]:
    """(dendrite, level, order within the tick, name) of everything that adds to a dendrite."""
    found = [(e.dst, e.arrival, -1, e.name) for e in edges if e.kind != DYNAMIC]
    for e in edges:
        if e.kind == DYNAMIC and e.role == reading_role(program.dynamics[e.index].order):
            found.append((e.dst, e.arrival, -1, e.name))
    found += [(t.dst, t.level, i, t.name) for i, t in enumerate(program.transfers)]
    return found + [(h.dst, h.level, -1, h.name) for h in program.host_currents]


def _reads(program: Program) -> list[tuple[int, int, int]]:
    """(dendrite, level, order within the tick) of everything that reads a dendrite."""
    somas = len(program.transfers)  # somas update after all transfers of a tick
    found = [(t.src, t.level, i) for i, t in enumerate(program.transfers)]
    return found + [(p.dendrite, p.level, somas) for p in program.populations if p.dendrite >= 0]


def _check_numbers(program: Program, edges: tuple[Edge, ...]) -> None:
    p = program
    if p.timesteps < 1 or p.ticks_per_step < 1:
        _fail(p, f"it has {p.timesteps} timesteps of {p.ticks_per_step} ticks, at least 1 of each is needed")
    if p.interval < p.timesteps * p.ticks_per_step:
        _fail(p, f"samples start every {p.interval} ticks, before the {p.timesteps} timesteps of the last")
    for e in edges:
        if e.delay < 1 or e.lag < 0:
            _fail(p, f"'{e.name}' has delay {e.delay} and lag {e.lag}, below 1 and 0")
    shifted: tuple = (*p.convs, *p.maps, *p.dynamics)
    for item in shifted:
        if not 0 <= item.shift <= MAX_SHIFT:
            _fail(p, f"'{item.name}' shifts by {item.shift}, outside 0..{MAX_SHIFT}")
    for t in p.transfers:
        if not 0 <= t.rshift <= MAX_SHIFT:
            _fail(p, f"transfer '{t.name}' shifts right by {t.rshift}, outside 0..{MAX_SHIFT}")
    for pop in p.populations:
        if (pop.model == "input") != (pop.dendrite < 0):
            _fail(p, f"population '{pop.name}' of model {pop.model} reads dendrite {pop.dendrite}")
    inputs = sorted(i for i, pop in enumerate(p.populations) if pop.model == "input")
    if sorted(h.population for h in p.host_codes) != inputs:
        _fail(p, "not every population of model input has exactly one host code")
    if sum(pop.model == "readout" for pop in p.populations) > 1:
        _fail(p, "it has more than one readout")


def analyse(program: Program) -> Timing:
    """Check the timing rules of ``model.py`` and return the static schedule facts.

    Raises VerifyError when an addition comes after the last read of its dendrite, a ring is too
    short for the timesteps alive in it, or delays break the rules of dynamic synapses.
    """
    edges = edges_of(program)
    _check_numbers(program, edges)
    _check_dynamics(program, edges)
    adds, reads = _additions(program, edges), _reads(program)
    first, last = [], []
    for d, dendrite in enumerate(program.dendrites):
        read = [(level, order) for where, level, order in reads if where == d]
        if not read:
            _fail(program, f"nothing reads dendrite '{dendrite.name}'")
        late = [(level, order, n) for where, level, order, n in adds if where == d and (level, order) >= max(read)]
        if late:
            _fail(
                program,
                f"'{late[0][2]}' adds to dendrite '{dendrite.name}' at level {late[0][0]},"
                f" after its last read at level {max(read)[0]}",
            )
        levels = [level for where, level, _, _ in adds if where == d]
        first.append(min(levels, default=max(read)[0]))
        last.append(max(read)[0])
        need = ring_needed(first[d], last[d], program.ticks_per_step, program.timesteps, program.interval)
        if dendrite.ring < need:
            _fail(
                program,
                f"dendrite '{dendrite.name}' is in use from level {first[d]} to {last[d]}: its ring of"
                f" {dendrite.ring} timesteps is overwritten, {need} are needed",
            )
    reach = max([program.depth, *(program.populations[e.src].level + e.delay for e in edges)])
    return Timing(edges, tuple(first), tuple(last), (program.timesteps - 1) * program.ticks_per_step + reach + 1)
