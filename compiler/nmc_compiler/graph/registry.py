"""The op registry: an op is one ``OpSpec``; a new op is a new file that registers one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.types import Attr, Ref, ValueType


@dataclass
class Call:
    """What an op's meaning may look at: one timestep of a batch.

    ``inputs`` arrays [B, C, H, W] (float64 in float graphs, int64 in int graphs); ``state`` is a
    dict that lives as long as the sample.
    """

    inputs: list[np.ndarray]
    attrs: dict[str, Attr]
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]
    timestep: int
    timesteps: int
    integer: bool
    where: str
    overflow: Callable[[str, str, np.ndarray], None]
    batch: int = 1

    def attr(self, key: str, default: Any = None) -> Any:
        found = self.attrs.get(key)
        return default if found is None else found.value

    def tensor(self, key: str) -> np.ndarray | None:
        ref = self.attr(key)
        return None if ref is None else self.tensors[ref.key]


Infer = Callable[[list[ValueType], dict[str, Attr], dict[str, np.ndarray], str], ValueType]


@dataclass(frozen=True)
class OpSpec:
    """Name, operands, attributes, type rule and meaning of one op.

    ``arity`` is an exact count or None for one or more. ``attrs`` maps attribute -> allowed Python
    types; ``required`` names those that must be given. ``neuron`` ops emit events and have state; ``host`` ops are of
    real numbers and never on a core (docs/host.md).
    """

    name: str
    arity: int | None
    infer: Infer
    evaluate: Callable[[Call], np.ndarray]
    attrs: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    required: Sequence[str] = ()
    neuron: bool = False
    doc: str = ""
    host: bool = False

    def check_attrs(self, attrs: dict[str, Attr], where: str) -> None:
        for key, attr in attrs.items():
            if key not in self.attrs:
                known = ", ".join(sorted(self.attrs)) or "none"
                raise VerifyError(f"{where}: op '{self.name}' has no attribute '{key}' (it has: {known})")
            if not isinstance(attr.value, self.attrs[key]) or (
                isinstance(attr.value, bool) and bool not in self.attrs[key]
            ):
                raise VerifyError(f"{where}: attribute '{key}' cannot be {attr.value!r}")
            if isinstance(attr.value, tuple) and not all(type(v) is int for v in attr.value):
                raise VerifyError(f"{where}: attribute '{key}' must hold whole numbers, got {attr.value!r}")
        for key in self.required:
            if key not in attrs:
                raise VerifyError(f"{where}: attribute '{key}' is missing")

    def check_arity(self, given: int, where: str) -> None:
        if (self.arity is None and given < 1) or (self.arity is not None and given != self.arity):
            raise VerifyError(f"{where}: takes {self.arity or 'one or more'} operand(s), got {given}")


def check_shape(shape: tuple[int, ...], where: str) -> None:
    """A shape that an attribute gives; what it makes is held in memory, so it has bounds."""
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise VerifyError(
            f"{where}: shape must be (C, H, W), each >= 1 and at most {MAX_ELEMENTS} elements, got {shape}"
        )


_OPS: dict[str, OpSpec] = {}

MAX_ELEMENTS = 1 << 28  # of one value
NUMBER = (int, float)
TENSOR = (Ref,)


def register(spec: OpSpec) -> OpSpec:
    """Add an op; a name can be taken once."""
    if spec.name in _OPS:
        raise VerifyError(f"op '{spec.name}' is registered twice")
    _OPS[spec.name] = spec
    return spec


def op_spec(name: str) -> OpSpec:
    """Look an op up by name."""
    if name not in _OPS:
        raise VerifyError(f"unknown op '{name}'; known ops: {', '.join(sorted(_OPS))}")
    return _OPS[name]


def known_ops() -> list[OpSpec]:
    """Every registered op, by name."""
    return [_OPS[k] for k in sorted(_OPS)]
