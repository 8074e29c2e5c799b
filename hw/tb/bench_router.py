"""Four routers under random back-pressure: every event arrives once, at its core, in order per pair; none stays."""

from collections import defaultdict, deque

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, start

EVENTS = 300  # of each core
PATIENCE = 20000  # clocks


async def run(dut, send: float, take: float, to: int | None = None) -> None:
    """Send `EVENTS` of each core; send, take: chances of a clock; to: the only core that is sent to."""
    rng = numbers(f"router {send} {take} {to}")
    await start(dut, in_valid=0, in_event=0, out_ready=0)
    waiting, expected = [deque() for _ in range(4)], defaultdict(deque)
    for source in range(4):
        others = [c for c in range(4) if c != source and to in (None, c)]
        for number in range(EVENTS if others else 0):
            target = rng.choice(others)
            waiting[source].append(target << 11 | source << 9 | number)
            expected[source, target].append(number)
    offered: list[int | None] = [None] * 4
    for _ in range(PATIENCE):
        for c in range(4):
            if offered[c] is None and waiting[c] and rng.random() < send:
                offered[c] = waiting[c].popleft()
        takes = sum((rng.random() < take) << c for c in range(4))
        dut.in_valid.value = sum((offered[c] is not None) << c for c in range(4))
        dut.in_event.value = sum((offered[c] or 0) << 13 * c for c in range(4))
        dut.out_ready.value = takes
        await RisingEdge(dut.clk)
        ready, arrived = int(dut.in_ready.value), int(dut.out_valid.value) & takes
        for c in range(4):
            if ready >> c & 1:
                offered[c] = None
            if arrived >> c & 1:
                axon = int(dut.out_axon.value) >> 11 * c & 0x7FF
                source, number = axon >> 9, axon & 0x1FF
                assert expected[source, c], f"core {c} got {number} of {source}, which sent it nothing more"
                assert expected[source, c].popleft() == number, f"core {c} got {number} of {source} too early"
        if not any(expected.values()):
            break
    left = {pair: len(events) for pair, events in expected.items() if events}
    assert not left, f"after {PATIENCE} clocks still on their way: {left}"
    dut.in_valid.value = 0
    await ClockCycles(dut.clk, 3)
    assert dut.empty.value == 1 and dut.out_valid.value == 0


@cocotb.test()
async def everybody_to_everybody(dut):
    await run(dut, 1.0, 1.0)


@cocotb.test()
async def slow_cores_stop_nobody_for_ever(dut):
    await run(dut, 1.0, 0.1)


@cocotb.test()
async def little_traffic(dut):
    await run(dut, 0.1, 0.9)


@cocotb.test()
async def all_to_one(dut):
    await run(dut, 1.0, 0.5, to=3)
