"""The rungs of a Program that was made from no graph: its engines against each other, and its mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc.artefact import stored_target
from nmc.ladder.compare import Comparison, compare_codes, describe
from nmc.ladder.lava import STREAM_STEPS, noise
from nmc.ladder.rungs import Rung
from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target, list_targets, load_target
from nmc_emulator import Emulator
from nmc_emulator.counters import Counters
from nmc_emulator.trace import codes_of


@dataclass(frozen=True)
class Answer:
    """What an engine says: codes [T, N, C, H, W] of every population that sends, logits [N, classes], counters."""

    engine: str
    codes: dict[str, np.ndarray]
    logits: np.ndarray
    counters: Counters


def answer(program: Program, inputs: dict[str, np.ndarray], samples: int, engine: str) -> Answer:
    """A run of ``noise``: images, or codes of every input."""
    emulator = Emulator(program, record="all", engine=engine)
    if "images" in inputs:
        ran = emulator.run(inputs["images"])
        codes = {name: np.moveaxis(c, 0, 1) for name, c in ran.codes.items()}
        return Answer(emulator.name, codes, ran.logits_int, ran.counters)
    given = {key.removeprefix("codes/"): codes for key, codes in inputs.items()}
    steps = samples * (program.timesteps or STREAM_STEPS)
    found = emulator.run_events(given, steps)
    T = program.timesteps or steps
    shapes = {p.name: p.shape for p in program.populations}
    dense = {n: codes_of(e, steps, shapes[n]).reshape(-1, T, *shapes[n]) for n, e in found.events.items()}
    logits = np.zeros((steps // T, 0), np.int64)
    return Answer(emulator.name, {n: np.moveaxis(c, 0, 1) for n, c in dense.items()}, logits, found.counters)


CLAIMS = {
    "ticks": "the fast engine gives what running tick by tick from the mapping's tables gives, on noise",
    "neurocore": "the fast engine gives what the image of the cores gives, on noise",
}


def fast_rung(program: Program, samples: int, other: str = "ticks") -> Rung:
    """The fast engine = the tick engine, or that of a neurocore, on noise: populations, read-out and counters.

    samples: windows; of a stream, pieces of 16 timesteps.
    """
    inputs = noise(program, samples)
    fast, ticks = (answer(program, inputs, samples, engine) for engine in ("auto", other))
    order = sorted((p for p in program.populations if p.model != "readout"), key=lambda p: p.level)
    seen = compare_codes((p.name, ticks.codes[p.name], fast.codes[p.name]) for p in order)
    wrong, counters = ticks.logits != fast.logits, ticks.counters.differences(fast.counters)
    names = len(ticks.counters.tables) + len(ticks.counters.bound) + len(ticks.counters.overflow)
    steps, windows = next(iter(ticks.codes.values())).shape[:2] if ticks.codes else (0, 0)
    own = {p.name for p in order if p.model != "input"}
    return Rung(
        f"{fast.engine} = {ticks.engine}",
        CLAIMS[ticks.engine],
        seen.compared + wrong.size + names,
        seen.different + int(wrong.sum()) + len(counters),
        _first(program, seen, counters, wrong),
        {
            "populations": len(order),
            "windows": windows,
            "timesteps": steps * windows,
            "events": sum(int(np.count_nonzero(c)) for name, c in ticks.codes.items() if name in own),
            "counters": names,
            "mapped": program.mapping is not None,
        },
    )


def _first(program: Program, seen: Comparison, counters: list[str], wrong: np.ndarray) -> dict[str, Any] | None:
    if seen.first is not None:
        p = next(p for p in program.populations if p.name == seen.first.layer)
        return describe(seen.first, p.shape, seen.first.timestep * program.ticks_per_step + p.level)
    if wrong.any():
        return {"layer": "logits", "reason": f"{int(wrong.sum())} potentials of the readout differ"}
    return {"layer": "counters", "reason": f"counters differ: {', '.join(counters)}"} if counters else None


def target_of(program: Program) -> Target:
    """The target a Program was mapped for: the one it carries, or the one of that name that is the same."""
    if "target" in program.meta:
        return stored_target(program)
    name = str(program.target.get("name", ""))
    target = load_target(name) if name in list_targets() else None
    if target is None or target.digest != program.target.get("digest"):
        raise UsageError(
            f"Program '{program.name}' was mapped for a target '{name}' that is not known here as it was then, so its"
            " limits cannot be checked; map it again, or keep the target's description in meta/target"
        )
    return target
