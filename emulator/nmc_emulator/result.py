"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .counters import Counters
    from .trace import Events


@dataclass(frozen=True)
class RunResult:
    """Result of ``run``.

    ``logits`` float64 [N, classes] = ``logits_int`` (int64: the readout's potential after the last
    timestep) * readout_scale; ``codes``: recorded population -> [N, T, C, H, W], uint8, or int32
    where codes are signed or wider; ``counters``: totals over the N samples; ``mapped``: whether
    the Program had a mapping (else everything was counted on one core); ``weights``: plastic projection ->
    its weights after the run, int8, in the order of its synapses.
    """

    logits: np.ndarray
    logits_int: np.ndarray
    counters: Counters
    samples: int
    engine: str
    mapped: bool
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class EventResult:
    """Result of ``run_events``.

    ``events``: recorded population -> its events; ``potentials``: probed population -> (u, v), each
    int64 [steps, probed somas] after the update of every timestep; ``counters``: totals over ``steps``;
    ``weights``: as in RunResult.
    """

    events: dict[str, Events]
    counters: Counters
    steps: int
    engine: str
    mapped: bool
    potentials: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
