"""Memory of the engines: what a machine cannot hold is refused, and buffers never alive together share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError

ALIGN = 64  # bytes: a cache line, and the widest vector


def require(size: int, what: str, remedy: str) -> None:
    """UsageError where ``size`` bytes are more than the machine has: to be called before they are allocated."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UsageError(f"{what} need {size} bytes, more than the {memory} of this machine; {remedy}")


@dataclass(frozen=True)
class Ref:
    """Names a planned buffer among the arguments of a step; ``flat``: as [first axis, all others]."""

    key: Hashable
    flat: bool = False


@dataclass(frozen=True)
class Step:
    """One call of the plan; ``Ref`` arguments become arrays when the plan is bound."""

    call: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass
class _Span:
    key: Hashable
    size: int
    first: int
    last: int
    offset: int = 0


def _spans(steps: list[Step], sizes: dict[Hashable, int], forever: bool) -> list[_Span]:
    alive: dict[Hashable, _Span] = {}
    for at, step in enumerate(steps):
        for arg in step.args:
            if isinstance(arg, Ref):
                span = alive.setdefault(arg.key, _Span(arg.key, sizes[arg.key], at, at))
                span.last = at
    for span in alive.values():
        if forever:
            span.first, span.last = 0, len(steps)
    return list(alive.values())


def _place(spans: list[_Span]) -> int:
    """First fit, largest first: offsets such that spans alive together do not overlap; bytes needed."""
    placed: list[_Span] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        rivals = [p for p in placed if p.first <= span.last and span.first <= p.last]
        offset = 0
        for rival in sorted(rivals, key=lambda p: p.offset):
            if offset + span.size <= rival.offset:
                break
            offset = max(offset, rival.offset + rival.size)
        span.offset = offset
        placed.append(span)
    return max((s.offset + s.size for s in spans), default=0)


def bind(
    steps: list[Step], shapes: dict[Hashable, tuple[tuple[int, ...], type]], forever: bool
) -> tuple[list[Step], int]:
    """Allocate one block for all buffers and put arrays in place of references; bytes allocated.

    shapes: key -> (shape, dtype).  forever: buffers live from the first step to the last, as
    networks with lagged projections need, which go through the plan once per timestep.
    """
    sizes = {k: -(-math.prod(s) * np.dtype(t).itemsize // ALIGN) * ALIGN for k, (s, t) in shapes.items()}
    spans = _spans(steps, sizes, forever)
    total = _place(spans)
    require(total, f"the {len(spans)} buffers of a batch", "choose a smaller batch, or the engine 'events' or 'ticks'")
    block = np.empty(total + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    arrays: dict[Hashable, np.ndarray] = {}
    for span in spans:
        shape, dtype = shapes[span.key]
        count = math.prod(shape) * np.dtype(dtype).itemsize
        raw = block[start + span.offset : start + span.offset + count]
        arrays[span.key] = raw.view(dtype).reshape(shape)

    def value(arg: Any) -> Any:
        if not isinstance(arg, Ref):
            return arg
        array = arrays[arg.key]
        return array.reshape(len(array), -1) if arg.flat else array

    return [Step(s.call, tuple(map(value, s.args))) for s in steps], total
