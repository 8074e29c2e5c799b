"""What a traced module computes, value by value, with its timesteps unrolled.

A *value* is one array of one timestep, in the canonical (C, H, W) of the graph. Every element has an *address*: the
number of its value in the upper 32 bits, its place in C order in the lower ones; -1 stands for zero. Views,
permutations, slices, concatenations are rearrangements of addresses and need no values of their own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.graph.registry import MAX_ELEMENTS
from nmc_compiler.graph.types import Kind, Shape

LOCAL = 32  # bits of a place within a value
MASK = (1 << LOCAL) - 1
STREAM = "one call of the module is one timestep; without a number of them it is a stream (-T N)"
NOTHING = -1  # the address of a zero
MAX_OPS = 400_000  # of PyTorch in a trace: more is a loop that does not end, even where nothing is computed anew
MAX_VALUES = 50_000  # of a trace: more is a loop that does not end, or timesteps by the thousand


class StopTrace(FrontendError):
    """An error that ends a trace at once; others are told only where what they concern is part of the network."""


@dataclass(frozen=True, eq=False)
class Const:
    """Numbers that a value is computed with; equal numbers are equal. ``name``: the parameter they are."""

    array: np.ndarray
    name: str
    digest: str

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and other.digest == self.digest


def constant(array: np.ndarray, name: str = "") -> Const:
    array = np.ascontiguousarray(array)
    head = f"{array.dtype}{array.shape}".encode()
    return Const(array, name, hashlib.sha256(head + array.tobytes()).hexdigest())


@dataclass(frozen=True)
class Value:
    """One value: ``op`` with ``attrs`` of ``operands`` (numbers of values).

    ``time``: its timestep, None where it is the same in all. ``module`` and ``line``: where in the user's code it came
    to be; ``axes``: of a neuron, how the authors' layout orders (C, H, W).
    """

    number: int
    op: str
    operands: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...]
    shape: Shape
    kind: Kind
    time: int | None
    module: str
    line: str

    def attr(self, key: str, default: Any = None) -> Any:
        return next((v for k, v in self.attrs if k == key), default)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_event(self) -> bool:
        return self.kind in (Kind.SPIKE, Kind.GRADED)


@dataclass
class Tape:
    """All values of a trace, in the order in which they were made; equal ones are made once."""

    values: list[Value] = field(default_factory=list)
    module: str = ""
    where: Any = None
    products: bool = False  # whether currents times spikes are values, for a loop that is looked at by itself
    known: dict[Any, int] = field(default_factory=dict)

    def add(
        self,
        op: str,
        operands: tuple[int, ...],
        shape: Shape,
        kind: Kind,
        time: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        **attrs: Any,
    ) -> Value:
        """The value, a new one where there is no equal one. Without ``time`` it is the latest of its operands'.

        ``attributes`` and ``attrs`` are the same, None left out.
        """
        given = tuple(sorted((k, v) for k, v in {**(attributes or {}), **attrs}.items() if v is not None))
        times = [t for t in (self.values[o].time for o in operands) if t is not None]
        at = max(times, default=None) if time is None else time
        key = (op, operands, given, shape, at)
        if key in self.known:
            return self.values[self.known[key]]
        if math.prod(shape) > MAX_ELEMENTS:
            raise FrontendError(f"{self.line()}: a value of {shape} has more than {MAX_ELEMENTS} elements")
        if len(self.values) >= MAX_VALUES:
            raise StopTrace(
                f"{self.line()}: more than {MAX_VALUES} values were computed: a loop that does not end, or too many "
                f"timesteps to unroll; trace one timestep"
            )
        value = Value(len(self.values), op, operands, given, shape, kind, at, self.module, self.line())
        self.values.append(value)
        self.known[key] = value.number
        return value

    def line(self) -> str:
        return "?" if self.where is None else self.where()


def addresses(value: Value) -> np.ndarray:
    """Addresses of a value's elements, [C, H, W]."""
    return (np.int64(value.number) << LOCAL) + np.arange(value.size, dtype=np.int64).reshape(value.shape)
