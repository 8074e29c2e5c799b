"""Buffers and steps of the layer engine's plan, and the block of samples it works on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .bounds import INT32, Bounds
from .kernels.conv import value_type
from .kernels.events import LANES
from .memory import Ref, Step


@dataclass
class Block:
    """The samples being computed: what changes from block to block. A frame is a timestep of a sample."""

    window: np.ndarray  # int64 [2] frames to work on
    tick: np.ndarray  # int64 [F] tick of level 0, counted from the start of the block's first sample
    images: np.ndarray = field(default_factory=lambda: np.empty(0))  # [samples, T or 1, C, H, W]
    first: int = 0  # index of the first sample

    def frames_of(self, sample: int, steps: int) -> range:
        """Frames of one sample of the block that are in the window."""
        return range(max(sample * steps, self.window[0]), min((sample + 1) * steps, self.window[1]))


def _zero(window: np.ndarray, array: np.ndarray) -> None:
    array[window[0] : window[1]] = 0


def code_type(program: Program, bounds: Bounds, population: int) -> type:
    """uint8 where codes are 0..255, else int32 or, for relays that could need it, int64."""
    bound, p = bounds.code[population], program.populations[population]
    given = [h for h in program.host_codes if h.population == population]
    signed = any(h.lo < 0 for h in given) if given else p.signed or p.vth_low is not None
    if p.model in ("relay", "sigma_delta") or signed or bound > 255:
        return np.int32 if bound <= INT32 else np.int64
    return np.uint8


class Workspace:
    """Collects the steps of a plan and the buffers that they name.

    Codes and accumulators are [frames, positions, channels]; ``flat`` makes that [frames, all].
    """

    def __init__(self, program: Program, bounds: Bounds, batch: int) -> None:
        self.program, self.bounds = program, bounds
        self.T, self.frames = program.timesteps, batch * program.timesteps
        self.steps: list[Step] = []
        self.shapes: dict[Hashable, tuple[tuple[int, ...], type]] = {}
        ticks = [b * program.interval + t * program.ticks_per_step for b in range(batch) for t in range(self.T)]
        self.block = Block(np.array([0, self.frames], np.int64), np.array(ticks, np.int64))
        self._started: set[int] = set()

    def step(self, call: Callable[..., Any], *args: Any) -> None:
        """Append a call; ``Ref`` arguments are bound to arrays later."""
        self.steps.append(Step(call, args))

    def buffer(self, key: Hashable, shape: tuple[int, ...], dtype: type) -> Ref:
        """A buffer of its own name."""
        self.shapes[key] = (shape, dtype)
        return Ref(key)

    def dtype(self, ref: Ref) -> type:
        """Element type of a buffer."""
        return self.shapes[ref.key][1]

    def codes(self, population: int, flat: bool = False) -> Ref:
        """Codes of a population."""
        c, h, w = self.program.populations[population].shape
        key = ("codes", population)
        self.buffer(key, (self.frames, h * w, c), code_type(self.program, self.bounds, population))
        return Ref(key, flat)

    def fresh(self, dendrite: int) -> bool:
        """Whether nothing was added yet; if so the caller, the first to add, must write every accumulator."""
        fresh = dendrite not in self._started
        self._started.add(dendrite)
        return fresh

    def acc(self, dendrite: int, flat: bool = False) -> Ref:
        """Accumulators of a dendrite; zeroed before their first use if that is not a ``fresh`` one."""
        c, h, w = self.program.dendrites[dendrite].shape
        key = ("acc", dendrite)
        dtype = np.int32 if self.bounds.accumulator[dendrite] <= INT32 else np.int64
        ref = self.buffer(key, (self.frames, h * w, c), dtype)
        if self.fresh(dendrite):
            self.step(_zero, self.block.window, ref)
        return Ref(key, flat)

    def plain(self, population: int) -> bool:
        """Whether every event of a population has code 1."""
        small = self.bounds.code[population] <= 1
        return small and code_type(self.program, self.bounds, population) is np.uint8

    def events(self, population: int) -> tuple[Ref, Ref, Ref | None]:
        """Event lists of a population: ptr, index, value (None for plain spikes)."""
        c, h, w = self.program.populations[population].shape
        size = self.frames * h * w * c + LANES
        if size > INT32:
            raise UsageError(
                f"population '{self.program.populations[population].name}' has {size} codes in a batch,"
                f" beyond {INT32}; choose a smaller batch"
            )
        ptr = self.buffer(("ptr", population), (self.frames * h * w + 1,), np.int32)
        index = self.buffer(("index", population), (size,), np.int32)
        if self.plain(population):
            return ptr, index, None
        return ptr, index, self.buffer(("value", population), (size,), value_type(self.bounds.code[population]))
