"""nc_pending: bits of four sources at once, words that are taken meanwhile; every bit is set, no other."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, start

AXONS = 64
SOURCES = ("delay", "local", "mesh", "inject")


@cocotb.test()
async def bits_are_neither_lost_nor_made_up(dut):
    rng = numbers("pending")
    quiet = {f"{source}_{part}": 0 for source in SOURCES for part in ("valid", "bit")}
    await start(dut, take_valid=0, take_clear=0, take_addr=0, bus_active=0, bus_addr=0, bus_we=0, bus_wdata=0,
                zero_we=0, zero_addr=0, **quiet)  # fmt: skip
    bits, offered = [0] * (16 * AXONS // 32), dict.fromkeys(SOURCES)
    taken: list[int] = []
    for clock in range(6000):
        slot, rush = clock // 500 % 16, rng.random() < 0.7
        for source in SOURCES:
            if offered[source] is None and rng.random() < (0.9 if rush else 0.1):
                ahead = rng.randint(1, 2 if rush else 15)  # often the same words again and again
                offered[source] = (slot + ahead) % 16 << 6 | rng.choice((rng.randrange(AXONS), 5, 6))
            getattr(dut, f"{source}_valid").value = offered[source] is not None
            getattr(dut, f"{source}_bit").value = offered[source] or 0
        word = slot << 1 | clock >> 2 & 1  # the scan does not take a word again at once
        take, clear = clock % 4 == 0 and rng.random() < 0.7, rng.random() < 0.5
        dut.take_valid.value, dut.take_clear.value, dut.take_addr.value = take, clear, word
        await RisingEdge(dut.clk)
        if dut.take_rvalid.value:
            assert int(dut.word.value) == taken.pop(0)
        if take:
            taken.append(bits[word])
            bits[word] = 0 if clear else bits[word]
        ready = [source for source in SOURCES if getattr(dut, f"{source}_ready").value and offered[source] is not None]
        for source in ready[:1]:
            bits[offered[source] >> 5] |= 1 << (offered[source] & 31)
            offered[source] = None
        if clock % 500 == 499:  # the next slot is nobody's while it is taken
            for name in ("take_valid", *(f"{source}_valid" for source in SOURCES)):
                getattr(dut, name).value = 0
            for _ in range(8):
                await RisingEdge(dut.clk)
                if dut.take_rvalid.value:
                    assert int(dut.word.value) == taken.pop(0)
            offered = dict.fromkeys(SOURCES)
    assert not taken and not dut.working.value
    for address, wanted in enumerate(bits):
        dut.bus_active.value, dut.bus_addr.value = 1, address
        await ClockCycles(dut.clk, 4)
        assert int(dut.word.value) == wanted, f"word {address}"
