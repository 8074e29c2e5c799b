"""How long a run takes on the chip: its packets in queues, or flit by flit (docs/timing.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Mapping, Program
from nmc_emulator.noc import TickTimes, check_fidelity, sends_trees, simulate
from nmc_emulator.noc.schedule import link_name
from nmc_emulator.price_profile import PriceProfile, load_profile
from nmc_emulator.rates import rates_of
from nmc_emulator.recount import Chunk
from nmc_emulator.trace import Events, Trace, coded, joined

PROFILES = ("loihi2-extrapolated-rates", "loihi2-assumed-rates")  # the second where the first lacks a time
NEUROCORE = ("neurocore-50mhz-rates", PROFILES[1])
LOIHI1 = ("loihi1-sanafe-rates", *PROFILES[1:])
BUSIEST = 5


class Clock:
    """Takes the chunks of a run, as the sinks of traces do, and times them all at the end."""

    def __init__(
        self, program: Program, fidelity: str, multicast: bool | None, rates: PriceProfile | None = None
    ) -> None:
        check_timing(program, fidelity, multicast, rates)
        self.program, self.fidelity, self.multicast, self.rates = program, fidelity, multicast, rates
        self.chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """The next samples."""
        self.chunks.append(chunk)

    def close(self) -> None:
        """There are no more."""

    def report(self) -> dict[str, Any]:
        """What a report says of the time."""
        trace = whole(self.program, self.chunks, range(len(self.program.populations)))
        return timed(self.program, trace, self.fidelity, self.multicast, self.rates)


def check_timing(program: Program, fidelity: str, multicast: bool | None, rates: PriceProfile | None = None) -> None:
    """UsageError for times that cannot be had, before anything is run. rates: None for those of the target."""
    if program.mapping is None:
        raise UsageError(f"Program '{program.name}' is not mapped: no packets, no time; compile it for a target")
    check_fidelity(program, fidelity, sends_trees(program, multicast))
    _check_chips(program, program.mapping)
    rates_of(program, rates or load_profile(profile_for(program)))


def _check_chips(program: Program, mapping: Mapping) -> None:
    """UsageError where packets may cross chips, whose links have no published time."""
    chip = mapping.cores[mapping.tiles[:, 1], 0]
    rows = mapping.axons[mapping.axons[:, 0] >= 0]
    src, dst = chip[rows[:, 0]], chip[rows[:, 4]]
    if (src != dst).any():
        at = int(np.argmax(src != dst))
        raise UsageError(
            f"Program '{program.name}' has axons between chips (from chip {src[at]} to chip {dst[at]}), and nobody has"
            " published the time of such a link; map it to one chip, or run it without --timing"
        )


def profile_for(program: Program) -> str:
    """Times of the Program's chip; or the one with assumed times, if those lack one that the Program needs."""
    *published, assumed = LOIHI1 if program.modular else NEUROCORE if program.current_rule else PROFILES
    for name in published:
        try:
            rates_of(program, load_profile(name))
        except UsageError:
            continue
        return name
    return assumed


def timed(
    program: Program, trace: Trace, fidelity: str, multicast: bool | None, rates: PriceProfile | None = None
) -> dict[str, Any]:
    """What a report says of the time of a run (docs/timing.md)."""
    profile = rates or load_profile(profile_for(program))
    times = simulate(program, trace, fidelity=fidelity, profile=profile, multicast=multicast)
    return described(times, program, trace.samples if program.timesteps else trace.steps)


def whole(program: Program, chunks: Iterable[Chunk], places: Sequence[int | None]) -> Trace:
    """One trace of the chunks of a run; ``places[i]`` is the population that number i in them stands for."""
    size = max(program.timesteps, 1)  # chunks of a stream count timesteps
    senders = [i for i in places if i is not None and program.populations[i].model != "readout"]
    parts: dict[int, list[Events]] = {i: [] for i in senders}
    steps = 0
    for chunk in chunks:
        first, steps = chunk.first * size, steps + chunk.trace.steps
        for number, e in chunk.trace.events.items():
            i = places[number]
            if i in parts:
                parts[i].append(Events(e.step + first, e.soma, e.code))
    events = {i: joined(p, coded(program.populations[i])) for i, p in parts.items()}
    return Trace(events, steps // program.timesteps if program.timesteps else 1, steps)


def described(times: TickTimes, program: Program, units: int) -> dict[str, Any]:
    """The numbers of a report: seconds of the run, ns per tick, latency and what was busiest most often.

    units: samples, or timesteps of a stream.
    """
    ticks, samples = times.per_tick, units if program.timesteps else 1
    return {
        "fidelity": times.fidelity,
        "profile": times.profile,
        "multicast": times.multicast,
        "seconds": times.seconds,
        "per_sample": times.seconds / max(samples, 1),
        "ticks": len(ticks),
        "tick_ns_mean": float(ticks.mean()) if len(ticks) else 0.0,
        "tick_ns_max": float(ticks.max(initial=0.0)),
        **_pace(ticks, program, units),
        "link_load": _link_load(times),
        "packets": int(times.packets.sum()),
        "deepest_queue": int(times.depth.max(initial=0)),
        "busiest": [{"what": name, "ticks": n} for name, n in times.critical[:BUSIEST]],
        "missing": list(times.missing),
    }


def _pace(ticks: np.ndarray, program: Program, units: int) -> dict[str, float]:
    """Seconds from the start of a sample (of a stream: a timestep) to its end, and how many end per second."""
    steps = program.timesteps or 1
    lasts = (steps - 1) * program.ticks_per_step + program.depth + 1
    every = program.interval if program.timesteps else program.ticks_per_step
    ends = np.concatenate([[0.0], np.cumsum(ticks)]) * 1e-9
    first = np.minimum(np.arange(max(units, 1)) * every, len(ticks))
    last = np.minimum(first + lasts, len(ticks))
    latency = ends[last] - ends[first]
    between = (ends[last[-1]] - ends[last[0]]) / (units - 1) if units > 1 else latency[0]
    return {
        "latency_mean": float(latency.mean()),
        "latency_max": float(latency.max()),
        "throughput": float(1 / between) if between else 0.0,
    }


def _link_load(times: TickTimes) -> dict[str, Any] | None:
    """The link that was busy for the largest share of the run; None where none carried anything."""
    if not times.link.any():
        return None
    at = int(times.link.argmax())
    return {"what": link_name(times.mesh, at), "share": float(times.link[at] * 1e-9 / times.seconds)}
