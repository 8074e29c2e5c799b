"""nc_crc32 against zlib."""

import zlib

import cocotb
from cocotb.triggers import RisingEdge
from link_bench import numbers, some_bytes, start


async def feed(dut, byte: int, emit: int = 0) -> None:
    dut.valid.value, dut.data.value, dut.emit.value = 1, byte, emit
    while True:
        await RisingEdge(dut.clk)
        if dut.ready.value:
            break
    dut.valid.value = 0
    await RisingEdge(dut.clk)
    while not dut.ready.value:
        await RisingEdge(dut.clk)


@cocotb.test()
async def crc_of_random_bytes(dut):
    rng = numbers("crc")
    await start(dut, clear=1, valid=0, emit=0, data=0)
    for _ in range(12):
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        data = some_bytes(rng, 40)
        for byte in data:
            await feed(dut, byte)
        await RisingEdge(dut.clk)
        assert int(dut.value.value) ^ 0xFFFFFFFF == zlib.crc32(data)
        out = []
        for _ in range(4):
            out.append(~int(dut.value.value) & 255)
            await feed(dut, rng.randrange(256), emit=1)
        assert bytes(out) == zlib.crc32(data).to_bytes(4, "little")
