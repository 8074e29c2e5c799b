"""nc_cobs_tx: what comes out is what the host's own framing makes of the same bytes."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, some_bytes, start

from nmc_hw.link import protocol


@cocotb.test()
async def frames_as_the_host_would_make_them(dut):
    rng = numbers("cobs tx")
    await start(dut, valid=0, data=0, close=0, out_ready=0)
    got = bytearray()

    async def listen() -> None:
        while True:
            await RisingEdge(dut.clk)
            if dut.out_valid.value and dut.out_ready.value:
                got.append(int(dut.out_data.value))
            dut.out_ready.value = rng.random() < 0.05  # slower than frames are made: the ring fills up

    cocotb.start_soon(listen())
    wanted = b""
    for number in range(7):
        body = some_bytes(rng, 249, 240) if number % 4 else some_bytes(rng, 30, 1)
        wanted += protocol.seal(body)
        while not dut.room.value:
            await RisingEdge(dut.clk)
        for byte in body:
            dut.valid.value, dut.data.value = 1, byte
            while True:
                await RisingEdge(dut.clk)
                if dut.ready.value:
                    break
            if rng.random() < 0.1:
                dut.valid.value = 0
                await ClockCycles(dut.clk, rng.randint(1, 12))
        dut.valid.value, dut.close.value = 0, 1
        await RisingEdge(dut.clk)
        dut.close.value = 0
        await ClockCycles(dut.clk, rng.randint(0, 3))  # the next frame may come while this one is being closed
    while not dut.idle.value:
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, 3)
    assert bytes(got) == wanted
