"""The whole device over its two pins (nc_top on mesh_model): requests, another rate, and the way back from it."""

import struct

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, Timer
from link_bench import start
from naive_link import NaiveDevice

from nmc_compiler.neurocore import Sizes
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op

SIZES = Sizes(64, 64, 128, 2, 2, 1, 1)
CLOCK_PS, SLOW, FAST = 10_000, 8, 4  # clocks per bit after reset, and later


class Pins:
    """The host's UART."""

    def __init__(self, dut):
        self.dut, self.bit_ps, self.got = dut, SLOW * CLOCK_PS, bytearray()
        self.twin = NaiveDevice(SIZES, clock=100_000_000, rate=2**20 // SLOW)
        cocotb.start_soon(self._listen())

    async def _listen(self):
        while True:
            await FallingEdge(self.dut.tx)
            await Timer(self.bit_ps * 3 // 2, "ps")
            byte = 0
            for bit in range(8):
                byte |= int(self.dut.tx.value) << bit
                await Timer(self.bit_ps, "ps")
            if self.dut.tx.value:  # the stop bit
                self.got.append(byte)

    async def send(self, line: bytes) -> bytes:
        self.got.clear()
        for byte in line:
            for bit in (0, *(byte >> i & 1 for i in range(8)), 1):
                self.dut.rx.value = bit
                await Timer(self.bit_ps, "ps")
        await ClockCycles(self.dut.clk, 20)
        for _ in range(4000):  # not until nothing goes on: a rate on trial is something
            if b"\0" in self.got or not (self.dut.active.value or self.dut.tx.value == 0):
                break
            await ClockCycles(self.dut.clk, 20)
        await Timer(2 * self.bit_ps, "ps")
        return bytes(self.got)

    async def same(self, line: bytes) -> None:
        wanted, got = self.twin.take(line), await self.send(line)
        assert got == wanted, (line.hex(" "), got.hex(" "), wanted.hex(" "))


@cocotb.test()
async def requests_over_the_pins(dut):
    await start(dut, rx=1)
    pins = Pins(dut)
    await pins.same(protocol.request(200, Op.HELLO, b"\xff\0\1\xfe"))
    await pins.same(protocol.request(201, Op.WRITE, protocol.place(0, 0, 118, 127) + bytes(range(30))))
    await pins.same(protocol.request(202, Op.INJECT, protocol.pack_events(3, [0, 0], [5, 63])))
    await pins.same(protocol.request(203, Op.READ, protocol.place(0, 0, 115, 127)))
    await pins.same(protocol.request(204, Op.READ, protocol.place(12, 0, 6, 7)))
    await pins.same(protocol.request(205, Op.WRITE, protocol.place(14, 0, 15, 15) + struct.pack("<I", 9)))
    await pins.same(protocol.request(206, Op.RUN, struct.pack("<I", 4)))
    await pins.same(protocol.request(207, Op.EVENTS, struct.pack("<HB", 2, 5)))


@cocotb.test()
async def another_rate_and_back(dut):
    await start(dut, rx=1)
    pins = Pins(dut)
    await pins.same(protocol.request(0, Op.BAUD, struct.pack("<I", 2**20 // FAST)))
    pins.bit_ps = FAST * CLOCK_PS
    await pins.same(protocol.request(1, Op.STATUS))
    await pins.same(protocol.request(2, Op.WRITE, protocol.place(1, 0, 0, 11) + bytes(range(60))))
    await pins.same(protocol.request(3, Op.READ, protocol.place(1, 0, 0, 11)))
    await ClockCycles(dut.clk, 4400)  # silence alone changes nothing; RETURN is 4,000 clocks here
    await pins.same(protocol.request(4, Op.STATUS))
    pins.bit_ps = SLOW * CLOCK_PS  # another host, which knows nothing of the rate
    pins.got.clear()
    for _ in range(2):
        await pins.send(b"\0" + protocol.request(0, Op.HELLO, b"new!"))
    await ClockCycles(dut.clk, 4000)
    await pins.send(b"\0")
    pins.got.clear()
    pins.twin.expected = 0
    await pins.same(protocol.request(5, Op.HELLO, b"new!"))
    await pins.same(protocol.request(6, Op.READ, protocol.place(1, 0, 0, 5)))


@cocotb.test()
async def a_rate_at_which_nobody_comes_is_left(dut):
    await start(dut, rx=1)
    pins = Pins(dut)
    await pins.same(protocol.request(0, Op.BAUD, struct.pack("<I", 2**20 // FAST)))
    await ClockCycles(dut.clk, 5000)
    await pins.same(protocol.request(1, Op.STATUS))
