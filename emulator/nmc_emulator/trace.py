"""The functional trace of a run: which soma of which population fired at which timestep.

Function does not depend on the mapping, so one trace serves every mapping and target of the same
network: packets, loads, time and energy are derived from it without running the network again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Population, Program, Shape

from .host import payload_range


@dataclass(frozen=True)
class Events:
    """Events of one population, by timestep and then by soma.

    step: int64 [n], timesteps counted over all samples (``sample * T + t``; in a stream from 0).
    soma: int32 [n], counted in C order over (C, H, W).
    code: int32 [n], or None where every code is 1.
    """

    step: np.ndarray
    soma: np.ndarray
    code: np.ndarray | None

    def __len__(self) -> int:
        return len(self.step)


def coded(p: Population) -> bool:
    """Whether events of the population carry codes; else every code is 1."""
    return p.payload_bits > 0 or p.signed or p.model == "relay"


def events_of(codes: np.ndarray, with_codes: bool = True) -> Events:
    """Events of codes [timesteps, somas]."""
    step, soma = np.nonzero(codes)
    values = codes[step, soma].astype(np.int32) if with_codes else None
    return Events(step.astype(np.int64), soma.astype(np.int32), values)


def joined(parts: list[Events], with_codes: bool) -> Events:
    """Events of consecutive parts of a run."""
    step = np.concatenate([np.zeros(0, np.int64), *(p.step for p in parts)])
    soma = np.concatenate([np.zeros(0, np.int32), *(p.soma for p in parts)])
    code = np.concatenate([np.zeros(0, np.int32), *(p.code for p in parts if p.code is not None)])
    return Events(step, soma, code if with_codes else None)


def codes_of(events: Events, steps: int, shape: Shape) -> np.ndarray:
    """Codes int32 [steps, C, H, W] of events."""
    found = np.zeros((steps, int(np.prod(shape))), np.int32)
    found[events.step, events.soma] = 1 if events.code is None else events.code
    return found.reshape(steps, *shape)


def check_events(
    p: Population, events: Events, steps: int, first: int = 0, ends: tuple[int, int] | None = None
) -> Events:
    """Events from outside, of ``steps`` timesteps from ``first`` on, in order of timestep and soma.

    ends: least and largest code; None: what the payload holds.  UsageError if they do not fit.
    """
    if not isinstance(events, Events):
        raise UsageError(f"events of input '{p.name}' are of type {type(events).__name__}; give nmc_emulator.Events")
    size, step, soma = int(np.prod(p.shape)), events.step, events.soma
    parts = {"step": step, "soma": soma, **({} if events.code is None else {"code": events.code})}
    for part, array in parts.items():
        if not isinstance(array, np.ndarray) or array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            kind = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UsageError(f"events of input '{p.name}': {part} is {kind}; give a one-dimensional array of integers")
    if len(step) != len(soma) or (events.code is not None and len(events.code) != len(step)):
        raise UsageError(f"events of input '{p.name}': step, soma and code differ in length")
    if len(step) == 0:
        return events
    if step.min() < first or step.max() >= first + steps or soma.min() < 0 or soma.max() >= size:
        raise UsageError(
            f"events of input '{p.name}': timesteps {step.min()}..{step.max()}, somas"
            f" {soma.min()}..{soma.max()}, but the run has timesteps {first}..{first + steps - 1}, the input somas"
            f" 0..{size - 1}"
        )
    place = (step.astype(np.int64) - first) * size + soma.astype(np.int64)
    order = np.argsort(place, kind="stable")
    if (np.diff(place[order]) == 0).any():
        raise UsageError(f"events of input '{p.name}': a soma fires twice in one timestep; add their codes first")
    code = None if events.code is None else events.code[order]
    _check_codes(p, code, ends or payload_range(p))
    kept = None if code is None else code.astype(np.int32)
    return Events(step[order].astype(np.int64), soma[order].astype(np.int32), kept)


def _check_codes(p: Population, code: np.ndarray | None, ends: tuple[int, int]) -> None:
    if code is None or not len(code):
        return
    if not code.all():
        raise UsageError(f"events of input '{p.name}' carry a code 0, which is no event; leave them out")
    if code.min() < ends[0] or code.max() > ends[1]:
        raise UsageError(
            f"events of input '{p.name}' carry codes {code.min()}..{code.max()}, it takes {ends[0]}..{ends[1]}"
        )


@dataclass(frozen=True)
class Trace:
    """Events of all populations but the readout, by population index; ``steps`` of all samples together."""

    events: dict[int, Events]
    samples: int
    steps: int


def trace_of(program: Program, codes: dict[str, np.ndarray], samples: int) -> Trace:
    """The trace of a run of images recorded with ``record="all"``; codes [N, T, C, H, W] by population name.

    UsageError if a population that sends events was not recorded.
    """
    events = {}
    for i, p in enumerate(program.populations):
        if p.model == "readout":
            continue
        if p.name not in codes:
            raise UsageError(f"population '{p.name}' was not recorded; a trace needs all of them: record='all'")
        flat = codes[p.name].reshape(samples * program.timesteps, -1)
        events[i] = events_of(flat, coded(p))
    return Trace(events, samples, samples * program.timesteps)
