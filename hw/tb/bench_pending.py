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
                **quiet)  # fmt: skip
    bits, offered = [0] * (16 * AXONS // 32), dict.fromkeys(SOURCES)
    events, quiet_for = dict.fromkeys(SOURCES, 0), 0
    taken: list[int] = []
    for clock in range(6000):
        slot, rush = clock // 500 % 16, rng.random() < 0.7
        for source in SOURCES:
            often = 0.03 if source == "inject" else 0.9 if rush else 0.1
            if offered[source] is None and offered["inject"] is None and rng.random() < often:
                ahead = rng.randint(1, 2 if rush else 15)  # often the same words again and again
                offered[source] = (slot + ahead) % 16 << 6 | rng.choice((rng.randrange(AXONS), 5, 6))
        take, clear = clock % 4 == 0 and rng.random() < 0.7, rng.random() < 0.5
        # events of the host come where nothing else does
        alone = not take and quiet_for > 8 and all(offered[source] is None for source in SOURCES[:3])
        for source in SOURCES:
            comes = offered[source] is not None and (alone or source != "inject")
            getattr(dut, f"{source}_valid").value = comes
            getattr(dut, f"{source}_bit").value = offered[source] or 0
        word = slot << 1 | clock >> 2 & 1  # the scan does not take a word again at once
        dut.take_valid.value, dut.take_clear.value, dut.take_addr.value = take, clear, word
        await RisingEdge(dut.clk)
        if dut.take_rvalid.value:
            assert int(dut.word.value) == taken.pop(0)
        if take:
            taken.append(bits[word])
            bits[word] = 0 if clear else bits[word]
        ready = [s for s in SOURCES[:3] if getattr(dut, f"{s}_ready").value and offered[s] is not None]
        quiet_for = 0 if ready else quiet_for + 1
        for source in [*ready, "inject"] if alone and offered["inject"] is not None else ready:
            bits[offered[source] >> 5] |= 1 << (offered[source] & 31)
            offered[source] = None
            events[source] += 1
        if clock % 500 == 499:  # the next slot is nobody's while it is taken
            for name in ("take_valid", *(f"{source}_valid" for source in SOURCES)):
                getattr(dut, name).value = 0
            for _ in range(8):
                await RisingEdge(dut.clk)
                if dut.take_rvalid.value:
                    assert int(dut.word.value) == taken.pop(0)
            offered = dict.fromkeys(SOURCES)
    assert not taken and not dut.working.value and min(events.values()) > 50, events
    for address, wanted in enumerate(bits):
        dut.bus_active.value, dut.bus_addr.value = 1, address
        await ClockCycles(dut.clk, 4)
        assert int(dut.word.value) == wanted, f"word {address}"
