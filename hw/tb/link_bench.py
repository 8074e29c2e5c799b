"""What the link's benches share: clock and reset, seeded numbers, and the host's end of a serial line."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

SEED = int(os.environ.get("NMC_SEED", "1"))


def numbers(name: str) -> random.Random:
    """A generator of its own for each bench."""
    return random.Random(f"{name} {SEED}")


async def start(dut: Any, **inputs: int) -> None:
    """Start the clock, drive the inputs, and reset where there is a reset."""
    for name, value in inputs.items():
        getattr(dut, name).value = value
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    if hasattr(dut, "rst"):
        dut.rst.value = 1
        await ClockCycles(dut.clk, 3)
        dut.rst.value = 0
    await RisingEdge(dut.clk)


def some_bytes(rng: random.Random, most: int, least: int = 0) -> bytes:
    """Random bytes, often with many zeros or none, or many 255s."""
    kind = rng.choice(((0, 1, 255), range(256), range(1, 256), (0,), (255,)))
    return bytes(rng.choice(kind) for _ in range(rng.randint(least, most)))
