"""Loads per tick: what each core and link has to do in the ticks of a block of samples."""

from __future__ import annotations

import numpy as np

from .counters import BOUND, Counters
from .kernels import tally
from .memory import require


class TickLoads:
    """A window of consecutive ticks that moves forward with the samples.

    synops, updates, axons: int64 [ticks, cores]; links: int64 [ticks, links]. ``settle`` adds the
    largest load of every finished tick to ``counters.bound`` and moves the window.
    """

    def __init__(self, ticks: int, cores: int, links: int) -> None:
        what = f"the loads of {ticks} ticks on {cores} cores and {links} links"
        require(ticks * (3 * cores + links) * 8, what, "choose a smaller batch, or a Program with a shorter interval")
        self.synops = np.zeros((ticks, cores), np.int64)
        self.updates = np.zeros((ticks, cores), np.int64)
        self.axons = np.zeros((ticks, cores), np.int64)
        self.links = np.zeros((ticks, links), np.int64)

    def settle(self, ticks: int, counters: Counters) -> None:
        """The first ``ticks`` ticks of the window are complete: book and drop them."""
        bound = np.zeros(len(BOUND), np.int64)
        tally.settle(min(ticks, len(self.synops)), self.synops, self.updates, self.axons, self.links, bound)
        for name, largest in zip(BOUND, bound.tolist(), strict=True):
            counters.bound[name] += largest

    def clear(self) -> None:
        """Drop all loads."""
        for array in self._all():
            array[:] = 0

    def _all(self) -> tuple[np.ndarray, ...]:
        return self.synops, self.updates, self.axons, self.links
