"""nc_uart_rx at several rates, the host's clock two percent off, with glitches and broken bytes."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge, Timer
from link_bench import numbers, start

CLOCK_PS = 10_000


async def send(dut, byte: int, bit_ps: float, stop: int = 1) -> None:
    sent = 0
    for number, level in enumerate([0, *(byte >> i & 1 for i in range(8)), stop], start=1):
        dut.rx.value = level
        await Timer(round(bit_ps * number) - sent, "ps")
        sent = round(bit_ps * number)


@cocotb.test()
async def bytes_of_a_host_that_is_a_little_off(dut):
    rng = numbers("uart rx")
    await start(dut, rx=1, rate=0)
    got, broken = [], []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            if dut.valid.value:
                got.append(int(dut.data.value))
            if dut.broken.value:
                broken.append(1)

    cocotb.start_soon(watch())
    for clocks_per_bit in (4.0, 8.68, 16.67, 40.0):
        dut.rate.value = round(2**20 / clocks_per_bit)
        await ClockCycles(dut.clk, 100)
        for off in (0.98, 1.0, 1.02) if clocks_per_bit > 4 else (0.995, 1.0, 1.005):
            got.clear()
            data = [rng.randrange(256) for _ in range(20)]
            for byte in data:
                await send(dut, byte, clocks_per_bit * CLOCK_PS * off)
            await Timer(round(3 * clocks_per_bit * CLOCK_PS), "ps")
            assert (got, broken) == (data, [])


@cocotb.test()
async def a_byte_without_its_stop_bit_is_not_given_out(dut):
    await start(dut, rx=1, rate=2**20 // 16)
    bit_ps, seen = 16 * CLOCK_PS, []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            seen.extend([int(dut.data.value)] if dut.valid.value else ["broken"] if dut.broken.value else [])

    cocotb.start_soon(watch())
    await ClockCycles(dut.clk, 20)
    await send(dut, 0x55, bit_ps, stop=0)
    dut.rx.value = 1
    await Timer(2 * bit_ps, "ps")
    dut.rx.value = 0  # a glitch of a quarter of a bit is no start bit
    await Timer(bit_ps // 4, "ps")
    dut.rx.value = 1
    await Timer(12 * bit_ps, "ps")
    await send(dut, 0xA7, bit_ps)
    await Timer(2 * bit_ps, "ps")
    assert seen == ["broken", 0xA7]
