"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .counters import Counters


@dataclass(frozen=True)
class RunResult:
    """Result of ``run``.

    ``logits`` float64 [N, classes] = ``logits_int`` (int64: the readout's potential after the last
    timestep) * readout_scale; ``codes``: recorded population -> [N, T, C, H, W], uint8, or int32
    where codes are signed or wider; ``counters``: totals over the N samples; ``mapped``: whether
    the Program had a mapping (else everything was counted on one core).
    """

    logits: np.ndarray
    logits_int: np.ndarray
    counters: Counters
    samples: int
    engine: str
    mapped: bool
    codes: dict[str, np.ndarray] = field(default_factory=dict)
