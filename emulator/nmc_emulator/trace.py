"""The functional trace of a run: which soma of which population fired at which timestep.

Function does not depend on the mapping, so one trace serves every mapping and target of the same
network: packets, loads, time and energy are derived from it without running the network again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program


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
        step, soma = np.nonzero(flat)
        code = flat[step, soma].astype(np.int32)
        plain = p.payload_bits == 0 and not p.signed
        events[i] = Events(step.astype(np.int64), soma.astype(np.int32), None if plain else code)
    return Trace(events, samples, samples * program.timesteps)
