"""Chains of row descriptors, and the axon numbers at which they stand.

A route names one axon for all cores that it reaches, so the chains of one soma stand at the same number everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nmc_compiler.errors import CapacityError
from nmc_compiler.neurocore import items

HOP = 15  # steps of one DELAY descriptor
MORE = 1 << 3

Parts = Mapping[int, list[int]]  # delay in steps, at least 1 -> descriptors


class Axons:
    """Descriptor memories of all cores of a mesh."""

    def __init__(self, cores: int, limit: int) -> None:
        self.items = np.zeros((cores, limit), np.uint64)
        self.free = np.ones((cores, limit), bool)
        self.limit = limit

    @property
    def used(self) -> list[int]:
        return (~self.free).sum(axis=1).tolist()

    def place(self, chains: Mapping[int, Parts], where: str) -> int:
        """Axon number of a soma whose events do ``chains[core]``. Raises CapacityError where no number is left."""
        lengths = {core: _length(parts) for core, parts in chains.items()}
        axon = self._fit(lengths, where)
        for core, length in lengths.items():
            self.free[core, axon : axon + length] = False
        for core, parts in chains.items():
            rows = list(parts.get(1, []))
            for delay in sorted(d for d in parts if d > 1):
                rows.append(self._delayed(core, delay - 1, parts[delay], where))
            self._write(core, axon, rows)
        return axon

    def _delayed(self, core: int, steps: int, rows: list[int], where: str) -> int:
        """A DELAY descriptor after which ``rows`` happen that many steps later."""
        if steps > HOP:
            rows = [self._delayed(core, steps - HOP, rows, where)]
        axon = self._fit({core: len(rows)}, where)
        self.free[core, axon : axon + len(rows)] = False
        self._write(core, axon, rows)
        return int(items.descriptor(items.DELAY, axon=axon, d=min(steps, HOP)))

    def _fit(self, lengths: Mapping[int, int], where: str) -> int:
        """Lowest number from which every core has as many free descriptors as it needs."""
        good = np.ones(self.limit, bool)
        for core, length in lengths.items():
            taken = np.concatenate([[0], np.cumsum(~self.free[core])])
            last = self.limit - length + 1
            good[:last] &= taken[length : length + last] == taken[:last]
            good[max(last, 0) :] = False
        if not good.any():
            raise self._full(lengths, where)
        return int(good.argmax())

    def _full(self, lengths: Mapping[int, int], where: str) -> CapacityError:
        core = max(lengths, key=lambda c: lengths[c] - int(self.free[c].sum()))
        used, need = self.used[core], lengths[core]
        if used + need > self.limit:
            return CapacityError(
                f"core {core}: row descriptors: {need} more for '{where}' on top of {used}/{self.limit}. "
                "Use fewer source neurons per core, shorter delays, or a larger mesh"
            )
        cores = ", ".join(map(str, sorted(lengths)))
        return CapacityError(
            f"cores {cores}: no axon number is free on all of them for '{where}' ({used}/{self.limit} descriptors of "
            f"core {core} are used). Use fewer source neurons that reach several cores, or a larger mesh"
        )

    def _write(self, core: int, axon: int, rows: list[int]) -> None:
        chain = np.array(rows, np.uint64)
        chain[:-1] |= np.uint64(MORE)
        self.items[core, axon : axon + len(rows)] = chain


def _length(parts: Parts) -> int:
    return len(parts.get(1, [])) + sum(delay > 1 for delay in parts)
