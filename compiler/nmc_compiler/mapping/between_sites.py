"""Which source slots reach which target slots of a convolution between sites, for the mapper.

The sites of a fixed cloud are known, and so are all pairs. Where every sample has sites of its own any source slot may
reach any target slot: an event goes to every tile of the target, and the core that finds no site drops it.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.mapping.intervals import constant
from nmc_compiler.program.model import Conv, Program
from nmc_compiler.program.sites import NOBODY, neighbours


class Between:
    """Pairs of slots of one convolution; ``known`` False: those of each sample."""

    def __init__(self, program: Program, conv: Conv) -> None:
        assert conv.sites is not None
        items = program.sites or ()
        source, target = items[conv.sites.source], items[conv.sites.target]
        self.sources, self.targets = source.slots, target.slots
        self.taps, self.extent = conv.weight.shape[0], target.extent
        self.known = source.table is not None and target.table is not None
        near = np.zeros((0, self.taps), np.int32)
        if source.table is not None and target.table is not None:
            near = neighbours(source.table, target.table, conv.sites)
        of, tap = np.nonzero(near != NOBODY)
        self.target, self.source = of.astype(np.int64), near[of, tap].astype(np.int64)  # ascending by target
        self._found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def reaching(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intervals [m, 2] of source slots with a synapse onto a span [n, 2] of target slots, and the span of each."""
        if not self.known:
            return constant(spans, 0, self.sources), np.arange(len(spans))
        key = spans.tobytes()
        if key not in self._found:  # cuts are weighed again and again
            self._found[key] = self._reaching(spans)
        return self._found[key]

    def _reaching(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, last = np.searchsorted(self.target, spans).T
        counts = np.maximum(last - first, 0)
        owner = np.repeat(np.arange(len(spans)), counts)
        pair = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        width = self.sources + 1  # so that the last slot of a span and the first of the next are no neighbours
        slots = np.unique(owner * width + self.source[pair])
        starts = np.flatnonzero(np.diff(slots, prepend=-2) > 1)
        ends = np.append(starts[1:], len(slots)) - 1
        of, low = np.divmod(slots[starts], width)
        return np.stack([low, slots[ends] % width + 1], axis=1).astype(np.int64), of

    def pairs(self, spans: np.ndarray) -> np.ndarray:
        """Pairs of a fixed cloud onto each span [n, 2] of target slots."""
        first, last = np.searchsorted(self.target, spans).T
        return np.maximum(last - first, 0).astype(np.int64)

    def bits(self, spans: np.ndarray) -> np.ndarray:
        """Core memory in bits for addressing each span of target slots. No chip documents such a table: assumed.

        A fixed cloud has a rulebook, one entry (tap, target slot of the tile) per pair; else a hash table, at most
        half full, of the coordinates and numbers of the sites that the tile holds.
        """
        held = np.maximum(spans[:, 1] - spans[:, 0], 0).astype(np.int64)
        slot = np.ceil(np.log2(np.maximum(held, 2))).astype(np.int64)
        if self.known:
            return self.pairs(spans) * (max(self.taps - 1, 1).bit_length() + slot)
        places = sum(max(n - 1, 1).bit_length() for n in self.extent)
        return 2 * held * (places + slot)
