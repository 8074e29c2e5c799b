"""When dendrites are written and read, in levels, and the rules that follow for delays and rings."""

from __future__ import annotations

from collections import defaultdict

from nmc_compiler.program.model import Dynamic, Program, Sparse
from nmc_compiler.program.rules import check_range, check_same, fail

Arrivals = dict[int, list[tuple[int, str]]]  # dendrite -> (level, path of what writes)


def arrivals(program: Program) -> Arrivals:
    """Level at which each projection, transfer and host current adds to each dendrite."""
    found: Arrivals = defaultdict(list)
    for kind in ("convs", "maps", "sparses"):
        for index, item in enumerate(getattr(program, kind)):
            level = program.arrival(item.src, item.delay, item.lag)
            found[item.dst].append((level, f"{kind}/{index}"))
    for index, dynamic in enumerate(program.dynamics):
        found[dynamic.dst].append((dynamic_level(program, dynamic), f"dynamics/{index}"))
    for kind in ("transfers", "host_currents"):
        for index, entry in enumerate(getattr(program, kind)):
            found[entry.dst].append((entry.level, f"{kind}/{index}"))
    return found


def dynamic_level(program: Program, item: Dynamic) -> int:
    """Level A at which the reading events of a dynamic synapse arrive: those of q, or of v in order "qk"."""
    role = "q" if item.order == "kv" else "v"
    return program.arrival(getattr(item, role), getattr(item, f"delay_{role}"))


def first_writes(program: Program) -> dict[int, int]:
    """Level of the first addition to each dendrite, counted in the timestep that it is for.

    Synapses with extra delays add for later timesteps: ``extra`` of them are ``extra * P`` levels ahead.
    """
    first = {dendrite: min(level for level, _ in found) for dendrite, found in arrivals(program).items()}
    for item in program.sparses:
        ahead = largest_extra(item) * program.ticks_per_step
        level = program.arrival(item.src, item.delay, item.lag) - ahead
        first[item.dst] = min(first[item.dst], level)
    return first


def largest_extra(item: Sparse) -> int:
    """Longest extra delay of its synapses, in timesteps."""
    return 0 if item.extra is None or not item.extra.size else int(item.extra.max())


def last_reads(program: Program) -> dict[int, int]:
    """Level at which each dendrite is read last, by a soma or a transfer."""
    last: dict[int, int] = {}
    readers = [(p.dendrite, p.level) for p in program.populations if p.dendrite >= 0]
    for dendrite, level in readers + [(t.src, t.level) for t in program.transfers]:
        last[dendrite] = max(level, last.get(dendrite, level))
    return last


def ring_needed(first_write: int, last_read: int, ticks_per_step: int, timesteps: int, interval: int) -> int:
    """Timesteps alive at once in a dendrite written from level ``first_write`` and read until ``last_read``.

    A timestep t lives from tick ``t*P + first_write`` to ``t*P + last_read``, inclusive. Where the next sample
    starts only after the last timestep is read (``interval``), no more than T are ever alive. A stream
    (``timesteps`` 0) has no last one.
    """
    steps = (last_read - first_write) // ticks_per_step + 1
    if timesteps == 0:
        return steps
    drained = interval > (timesteps - 1) * ticks_per_step + last_read - first_write
    return min(steps, timesteps) if drained else steps


def check_timing(program: Program) -> None:
    """Raise VerifyError where an event comes too late, a ring is too short or a table is written off time."""
    for index, dynamic in enumerate(program.dynamics):
        _check_dynamic(program, dynamic, f"dynamics/{index}")
    _check_order(program)
    written, last, earliest = arrivals(program), last_reads(program), first_writes(program)
    for index, dendrite in enumerate(program.dendrites):
        path = f"dendrites/{index}"
        if index not in last:
            fail(path, f"no population and no transfer reads {dendrite.name!r}")
        for level, writer in written.get(index, []):
            if level > last[index]:
                fail(writer, f"arrives at level {level}, but {dendrite.name!r} is last read at {last[index]}")
        if index in written:
            first = earliest[index]
            need = ring_needed(first, last[index], program.ticks_per_step, program.timesteps, program.interval)
            if dendrite.ring < need:
                fail(
                    f"{path}/ring",
                    f"{dendrite.ring}, but {dendrite.name!r} is written from level {first} and read until "
                    f"level {last[index]}: at {program.ticks_per_step} ticks per timestep it needs {need}",
                )


def _check_order(program: Program) -> None:
    """A transfer adds before the dendrite is read for the last time, also within one tick.

    Transfers of one level run in the order of the Program, then the somas update.
    """
    for i, t in enumerate(program.transfers):
        somas = any(p.dendrite == t.dst and p.level >= t.level for p in program.populations)
        later = any(u.src == t.dst and (u.level, j) > (t.level, i) for j, u in enumerate(program.transfers))
        read = any(p.dendrite == t.dst for p in program.populations) or any(u.src == t.dst for u in program.transfers)
        if read and not somas and not later:
            fail(f"transfers/{i}", f"adds to {program.dendrites[t.dst].name!r} after its last read")


def _check_dynamic(program: Program, item: Dynamic, path: str) -> None:
    level = dynamic_level(program, item)
    for role in ("q", "k") if item.order == "qk" else ("k", "v"):
        arrives = program.arrival(getattr(item, role), getattr(item, f"delay_{role}"))
        why = f"tables are written one tick before they are read at level {level}"
        check_same(f"{path}/delay_{role}", arrives, level - 1, why)
    check_range(path, level, 0, 2**31)
