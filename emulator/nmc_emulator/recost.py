"""Re-costing: the counters of one Program from the recorded run of another one of the same network.

What a network computes does not depend on its mapping, so one recorded run serves every mapping and
target. Whether two Programs compute the same is decided population by population: a soma is its
parameters and the sum of what it has received when it updates. Levels, delays, cores and tiles do not count,
nor does in which dendrite a sum is kept, or whether other somas read it too.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program, Transfer

from .counters import OVERFLOW, Counters
from .host import check_images
from .recount import Chunk, LoadSink, Recount, host_activity, split
from .result import EventResult, RunResult
from .timing import DYNAMIC, Edge, edges_of, reading_role
from .trace import Trace, trace_of

OWN = {"name", "shape", "model", "dendrite", "level", "role", "record"}  # of a population: told or left out otherwise
WHERE_AND_WHEN = {"name", "dst", "level", "delay", "delay_q", "delay_k", "delay_v", "weight_key", "population"}
SOURCES = {"src", "q", "k", "v"}


@dataclass(frozen=True)
class Recording:
    """A recorded run of a Program.

    program: its digest.  parts: its ``fingerprint``.  populations: names of the populations that numbers in
    chunks stand for; hosts: ``host_parts`` that those of host currents stand for.  logits_int [N, classes],
    overflow [populations, 4], labels [N]: what does not depend on the mapping and is carried over.  chunks: gives the
    events, from the first sample on.
    """

    program: str
    parts: dict[str, str]
    populations: tuple[str, ...]
    hosts: tuple[str, ...]
    samples: int
    logits_int: np.ndarray
    overflow: np.ndarray
    chunks: Callable[[], Iterable[Chunk]]
    labels: np.ndarray | None = None
    steps: int = 0  # timesteps, of a stream
    window: int = 0  # timesteps of samples that went through a stream one by one, from rest


def _hash(text: str, arrays: Iterable[np.ndarray] = ()) -> str:
    hasher = hashlib.sha256(text.encode())
    for array in arrays:
        hasher.update(f"\0{array.dtype.str}{array.shape}\0".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()[:32]


def _part(program: Program, item: Any, left_out: set[str], more: Iterable[str] = ()) -> str:
    """Fingerprint of one entry of a Program; numbers of populations become names."""
    plain, arrays = [type(item).__name__, *more], []
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.name in left_out or value is None:
            continue
        if field.name in SOURCES:
            value = program.populations[value].name
        if isinstance(value, np.ndarray):
            arrays.append(value)
            value = "array"
        plain.append(f"{field.name}={value!r}")
    return _hash("\n".join(plain), arrays)


class _Sums:
    """What is added to the dendrites of a Program, as fingerprints that do not tell on which way.

    Sums over positions are linear: "sum x" is the same whether a collapsing Conv adds up or a transfer does later.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        lists = (program.convs, program.maps, program.dynamics, program.sparses)
        parts = [[self._projection(item) for item in items] for items in lists]  # by kind of edge
        self.added = [(e.dst, e.arrival, parts[e.kind][e.index]) for e in edges_of(program) if self._adds(e)]
        sent = zip(program.host_currents, host_parts(program), strict=True)
        self.added += [(h.dst, h.level, part) for h, part in sent]

    def _projection(self, item: Any) -> str:
        part = _part(self.program, item, WHERE_AND_WHEN | {"collapse", "order"})  # q (k v) = (q k) v
        return f"sum {part}" if getattr(item, "collapse", False) else part

    def _adds(self, e: Edge) -> bool:
        """Whether the edge's events add to accumulators: those that write a table come with those that read it."""
        return e.kind != DYNAMIC or e.role == reading_role(self.program.dynamics[e.index].order)

    def at(self, dendrite: int, level: int, before: int) -> list[str]:
        """What has been added by a level, by its transfers up to number ``before``."""
        found = [part for d, arrival, part in self.added if d == dendrite and arrival <= level]
        for i, t in enumerate(self.program.transfers):
            if t.dst == dendrite and (t.level, i) < (level, before):
                found += _moved(t, self.at(t.src, t.level, i))
        return sorted(found)


def _moved(t: Transfer, held: list[str]) -> list[str]:
    """What a transfer adds of what its source holds."""
    window = (t.kernel, t.stride, t.pad)
    if t.mode == "sum":
        held = [f"sum {part}" for part in held]
    elif window != ((1, 1), (1, 1), (0, 0)):
        held = [_hash("\n".join((f"maxpool {window}", *held)))]
    return [_hash("\n".join((f"shift {t.rshift}", *sorted(held))))] if t.rshift else held


def host_parts(program: Program) -> tuple[str, ...]:
    """Fingerprints of what the host computes and sends, by host current."""
    return tuple(_part(program, h, WHERE_AND_WHEN) for h in program.host_currents)


def fingerprint(program: Program) -> dict[str, str]:
    """What a Program computes: "network" and "population <name>" -> hash. Equal fingerprints, equal codes."""
    sums, last = _Sums(program), len(program.transfers)
    whole = (program.timesteps, program.input_shape, program.input_time, program.logits)
    found = {"network": _hash(repr(whole))}
    for i, p in enumerate(program.populations):
        read = sums.at(p.dendrite, p.level, last) if p.dendrite >= 0 else []
        read += [_part(program, h, WHERE_AND_WHEN) for h in program.host_codes if h.population == i]
        found[f"population {p.name}"] = _part(program, p, OWN, [repr((p.shape, p.model)), *read])
    return found


def differences(program: Program, parts: dict[str, str]) -> list[str]:
    """Which populations of a Program, sorted, compute otherwise than the recorded ones."""
    own = fingerprint(program)
    return sorted(name for name in own.keys() | parts.keys() if own.get(name) != parts.get(name))


def check_same(program: Program, digest: str, parts: dict[str, str]) -> None:
    """UsageError where a Program computes something else than the recorded one, with what differs."""
    found = differences(program, parts)
    if found:
        own = fingerprint(program)
        said = [f"{n} ({_how(n, own, parts)})" for n in found[:3]]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            f"Program '{program.name}' does not compute what the recorded Program {digest[:12]} did:"
            f" {', '.join(said)}{more}; run it, or compile both from one model,"
            " with options that only change the mapping"
        )


def _how(name: str, own: dict[str, str], recorded: dict[str, str]) -> str:
    if name not in recorded:
        return "not in the recorded one"
    return "only in the recorded one" if name not in own else "differs, or what it reads does"


def recost(program: Program, recording: Recording, loads: LoadSink | None = None) -> Counters:
    """All counters of ``program`` on the samples of a recorded run, equal to those of running it.

    loads: see ``Recount``.  UsageError if the two compute different things, with what differs.
    """
    check_same(program, recording.program, recording.parts)
    of = {p.name: i for i, p in enumerate(program.populations)}
    sent_by = [recording.hosts.index(part) for part in host_parts(program)]
    recount = Recount(program, loads, recording.steps)
    for chunk in recording.chunks():
        events = {of[recording.populations[i]]: e for i, e in chunk.trace.events.items()}
        sent = {k: chunk.host[n] for k, n in enumerate(sent_by)}
        recount.add(replace(chunk, trace=replace(chunk.trace, events=events), host=sent))
    overflow = np.zeros((len(of), len(OVERFLOW)), np.int64)
    for name, row in zip(recording.populations, recording.overflow, strict=True):
        overflow[of[name]] = row
    return recount.finish(overflow)


def recording_of(program: Program, digest: str, result: RunResult, images: np.ndarray) -> Recording:
    """The recording of a finished run that recorded all populations (``record="all"``), in memory."""
    trace: Trace = trace_of(program, result.codes, result.samples)
    active = host_activity(program, check_images(program, images))
    chunks = [Chunk(0, t, active) for t in split(trace, program.timesteps, max(result.samples, 1))]
    return Recording(
        digest,
        fingerprint(program),
        tuple(p.name for p in program.populations),
        host_parts(program),
        result.samples,
        result.logits_int,
        np.stack([result.counters.overflow[n] for n in OVERFLOW], axis=1),
        lambda: chunks,
    )


def recording_of_events(program: Program, digest: str, result: EventResult) -> Recording:
    """The same of a run that events drove (``Emulator.run_events``) and that recorded all populations."""
    names = tuple(p.name for p in program.populations)
    trace = trace_of_events(program, result)
    chunks = [Chunk(0, t) for t in (split(trace, program.timesteps, trace.samples) if program.timesteps else [trace])]
    overflow = np.stack([result.counters.overflow[n] for n in OVERFLOW], axis=1)
    none = np.zeros((trace.samples, 0), np.int64)
    return Recording(
        digest, fingerprint(program), names, (), trace.samples, none, overflow, lambda: chunks, steps=result.steps
    )


def trace_of_events(program: Program, result: EventResult) -> Trace:
    """The trace of a run that events drove. UsageError if a population that sends events was not recorded."""
    events = {}
    for i, p in enumerate(program.populations):
        if p.model != "readout":
            if p.name not in result.events:
                raise UsageError(f"population '{p.name}' was not recorded; a trace needs all of them: record='all'")
            events[i] = result.events[p.name]
    return Trace(events, result.steps // program.timesteps if program.timesteps else 1, result.steps)
