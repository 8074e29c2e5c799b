"""Loads per tick: what each core and link has to do in the ticks of a block of samples."""

from __future__ import annotations

import numpy as np

from .counters import Counters


class TickLoads:
    """A window of consecutive ticks that moves forward with the samples.

    synops, updates, axons: int64 [ticks, cores]; links: int64 [ticks, links]. ``settle`` adds the
    largest load of every finished tick to ``counters.bound`` and moves the window.
    """

    def __init__(self, ticks: int, cores: int, links: int) -> None:
        self.synops = np.zeros((ticks, cores), np.int64)
        self.updates = np.zeros((ticks, cores), np.int64)
        self.axons = np.zeros((ticks, cores), np.int64)
        self.links = np.zeros((ticks, links), np.int64)

    def settle(self, ticks: int, counters: Counters) -> None:
        """The first ``ticks`` ticks of the window are complete: book and drop them."""
        ticks = min(ticks, len(self.synops))
        loads = {
            "synops": self.synops[:ticks],
            "neuron_updates": self.updates[:ticks],
            "memory_reads": self.axons[:ticks] + self.synops[:ticks],
            "link_packets": self.links[:ticks],
        }
        for name, load in loads.items():
            if load.size:
                counters.bound[name] += int(load.max(axis=1).sum())
        for array in self._all():
            rest = len(array) - ticks
            if rest:
                array[:rest] = array[ticks:].copy()
            array[rest:] = 0

    def clear(self) -> None:
        """Drop all loads."""
        for array in self._all():
            array[:] = 0

    def _all(self) -> tuple[np.ndarray, ...]:
        return self.synops, self.updates, self.axons, self.links
