"""Sizes of a neurocore and the memories that follow from them (docs/neurocore.md)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from nmc_compiler.errors import UsageError

SLOTS = 16  # of the pending memory: a delay is at most 15 steps
RULES = 8  # plasticity rules, rule 0 included


@dataclass(frozen=True)
class Sizes:
    """Generic parameters of the RTL. Raises UsageError outside the ranges of the specification."""

    neurons: int = 1024
    axons: int = 2048
    words: int = 65536
    types: int = 16
    geoms: int = 16
    x: int = 1
    y: int = 1

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high or value & (value - 1):
                raise UsageError(f"neurocore: {name} = {value!r}; expected a power of two from {low} to {high}")

    @property
    def cores(self) -> int:
        return self.x * self.y

    def as_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)


_RANGES = (
    ("neurons", 64, 1024),
    ("axons", 64, 2048),
    ("words", 64, 65536),
    ("types", 2, 64),
    ("geoms", 2, 16),
    ("x", 1, 2),
    ("y", 1, 2),
)


class Memory(NamedTuple):
    """One memory as the host sees it: how many items of how many bits, sent as `bytes` whole bytes each."""

    id: int
    name: str
    items: int
    bits: int

    @property
    def bytes(self) -> int:
        return (self.bits + 7) // 8


SYNAPSES, DESCRIPTORS, NEURONS, ROUTES, TYPES, GEOMETRIES, RULE_ITEMS = range(7)
U, V, ACCUMULATORS, POST, PRE, PENDING, FIRED, REGISTERS, COUNTERS = range(7, 16)
REGISTER_WINDOW, REGISTER_LEARN, REGISTER_TRACES, REGISTER_STEP = range(4)


def memories(sizes: Sizes) -> tuple[Memory, ...]:
    """All memories of one core, by id."""
    n, a = sizes.neurons, sizes.axons
    rows = (
        ("synapse words", sizes.words, 18),
        ("row descriptors", a, 36),
        ("neuron parameters", n, 26),
        ("routes", n, 16),
        ("types", 4 * sizes.types, 36),
        ("geometries", 4 * sizes.geoms, 36),
        ("rules", 2 * RULES, 25),
        ("u", n, 24),
        ("v and refr", n, 30),
        ("accumulators", n, 24),
        ("post traces", n, 8),
        ("pre traces", a, 8),
        ("pending", SLOTS * a // 32, 32),
        ("fired", n // 32, 32),
        ("registers", 16, 32),
        ("counters", 16, 32),
    )
    return tuple(Memory(i, name, items, bits) for i, (name, items, bits) in enumerate(rows))
