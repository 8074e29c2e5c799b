"""How long a run takes on the chip: its packets in queues, or flit by flit (docs/timing.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_emulator.noc import TickTimes, simulate
from nmc_emulator.price_profile import load_profile
from nmc_emulator.rates import rates_of
from nmc_emulator.recount import Chunk
from nmc_emulator.trace import Events, Trace, coded, joined

PROFILES = ("loihi2-extrapolated-rates", "loihi2-assumed-rates")  # the second where the first lacks a time
LOIHI1 = ("loihi1-sanafe-rates", *PROFILES[1:])
BUSIEST = 5


class Clock:
    """Takes the chunks of a run, as the sinks of traces do, and times them all at the end."""

    def __init__(self, program: Program, fidelity: str, multicast: bool) -> None:
        if program.mapping is None:
            raise UsageError(f"Program '{program.name}' is not mapped: no packets, no time; compile it for a target")
        self.program, self.fidelity, self.multicast = program, fidelity, multicast
        self.chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """The next samples."""
        self.chunks.append(chunk)

    def close(self) -> None:
        """There are no more."""

    def report(self) -> dict[str, Any]:
        """What a report says of the time."""
        trace = whole(self.program, self.chunks, range(len(self.program.populations)))
        return timed(self.program, trace, self.fidelity, self.multicast)


def profile_for(program: Program) -> str:
    """Times of the Program's chip; or the one with assumed times, if those lack one that the Program needs."""
    *published, assumed = LOIHI1 if program.modular else PROFILES
    for name in published:
        try:
            rates_of(program, load_profile(name))
        except UsageError:
            continue
        return name
    return assumed


def timed(program: Program, trace: Trace, fidelity: str, multicast: bool) -> dict[str, Any]:
    """What a report says of the time of a run (docs/timing.md)."""
    profile = profile_for(program)
    return described(simulate(program, trace, fidelity=fidelity, profile=profile, multicast=multicast), trace.samples)


def whole(program: Program, chunks: Iterable[Chunk], places: Sequence[int | None]) -> Trace:
    """One trace of the chunks of a run; ``places[i]`` is the population that number i in them stands for."""
    senders = [i for i in places if i is not None and program.populations[i].model != "readout"]
    parts: dict[int, list[Events]] = {i: [] for i in senders}
    samples = 0
    for chunk in chunks:
        first, samples = chunk.first * program.timesteps, samples + chunk.trace.samples
        for number, e in chunk.trace.events.items():
            i = places[number]
            if i in parts:
                parts[i].append(Events(e.step + first, e.soma, e.code))
    events = {i: joined(p, coded(program.populations[i])) for i, p in parts.items()}
    return Trace(events, samples, samples * program.timesteps)


def described(times: TickTimes, samples: int) -> dict[str, Any]:
    """The numbers of a report: seconds of the run, ns per tick, and what was busiest most often."""
    ticks = times.per_tick
    return {
        "fidelity": times.fidelity,
        "profile": times.profile,
        "multicast": times.multicast,
        "seconds": times.seconds,
        "per_sample": times.seconds / max(samples, 1),
        "ticks": len(ticks),
        "tick_ns_mean": float(ticks.mean()) if len(ticks) else 0.0,
        "tick_ns_max": float(ticks.max(initial=0.0)),
        "packets": int(times.packets.sum()),
        "deepest_queue": int(times.depth.max(initial=0)),
        "busiest": [{"what": name, "ticks": n} for name, n in times.critical[:BUSIEST]],
        "missing": list(times.missing),
    }
