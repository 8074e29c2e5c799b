"""Comparing recorded codes, and the first place where two of them part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Place:
    """One neuron at one timestep of one image, with what the two sides say it emitted."""

    layer: str
    image: int
    timestep: int
    neuron: tuple[int, int, int]  # c, y, x
    expected: int
    got: int


@dataclass(frozen=True)
class Comparison:
    """``compared`` codes, of which ``different`` differ, in images ``images``; ``first`` in time and in data flow."""

    compared: int
    different: int
    first: Place | None
    images: frozenset[int] = frozenset()


def compare_codes(pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Comparison:
    """Compare (layer, expected, got), codes [T, images, C, H, W], layers in the order of the data flow.

    The first difference is the earliest timestep, there the earliest layer: what comes later may
    only follow from it.
    """
    compared = different = 0
    first: Place | None = None
    images: set[int] = set()
    for layer, expected, got in pairs:
        compared += expected.size
        wrong = expected != got
        count = int(np.count_nonzero(wrong))
        if not count:
            continue
        different += count
        images.update(np.flatnonzero(wrong.any(axis=(0, 2, 3, 4))).tolist())
        t, image, c, y, x = (int(i) for i in np.argwhere(wrong)[0])
        if first is None or t < first.timestep:
            at = (t, image, c, y, x)
            first = Place(layer, image, t, (c, y, x), int(expected[at]), int(got[at]))
    return Comparison(compared, different, first, frozenset(images))


def describe(place: Place, shape: tuple[int, int, int], tick: int | None, **more: Any) -> dict[str, Any]:
    """A mismatch as JSON; ``index`` is the neuron's number in its layer, ``tick`` counts from the sample's first."""
    c, y, x = place.neuron
    return {
        "image": place.image,
        "timestep": place.timestep,
        "tick": tick,
        "layer": place.layer,
        "neuron": [c, y, x],
        "index": (c * shape[1] + y) * shape[2] + x,
        "expected": place.expected,
        "got": place.got,
        **more,
    }
