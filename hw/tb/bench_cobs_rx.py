"""nc_cobs_rx: whole frames come out in order and as they were; all else leaves nothing but `bad`."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, some_bytes, start

from nmc_hw.link import protocol

QUIET = {"valid": 0, "broken": 0, "data": 0, "index": 0, "drop": 0, "length": 0}


class Line:
    """Feeds bytes, and counts the pulses of `good` and `bad`."""

    def __init__(self, dut):
        self.dut, self.good, self.bad = dut, 0, 0
        cocotb.start_soon(self._watch())

    async def _watch(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.good += int(self.dut.good.value)
            self.bad += int(self.dut.bad.value)

    async def send(self, data: bytes) -> None:
        for byte in data:
            self.dut.valid.value, self.dut.data.value = 1, byte
            while True:
                await RisingEdge(self.dut.clk)
                if self.dut.ready.value:
                    break
        self.dut.valid.value = 0
        await ClockCycles(self.dut.clk, 3)


async def take(dut) -> bytes:
    """The oldest frame, by its bytes, and drop it."""
    read = []
    while not read or len(read) <= read[0]:
        dut.index.value = len(read)
        await ClockCycles(dut.clk, 2)
        await RisingEdge(dut.clk)
        read.append(int(dut.value.value))
    dut.length.value, dut.drop.value = read[0], 1
    await RisingEdge(dut.clk)
    dut.drop.value = 0
    await ClockCycles(dut.clk, 2)
    return bytes(read[1:])


@cocotb.test()
async def frames_among_garbage(dut):
    rng = numbers("cobs rx")
    await start(dut, **QUIET)
    line, bad = Line(dut), 0
    for _ in range(25):
        waiting = []
        for _ in range(rng.randint(1, 3)):
            body = some_bytes(rng, 60, 2)
            sent = protocol.seal(body)
            kind = rng.choice(("whole", "whole", "whole", "cut", "flipped", "garbage", "joined", "empty"))
            if kind == "whole":
                waiting.append(body)
            elif kind == "cut":
                sent = sent[: rng.randint(1, len(sent) - 2)] + b"\0"
            elif kind == "flipped":
                at, flip = rng.randrange(len(sent) - 1), rng.randint(1, 255)
                sent = sent[:at] + bytes([sent[at] ^ flip]) + sent[at + 1 :]
            elif kind == "garbage":
                sent = bytes(rng.randint(1, 255) for _ in range(rng.randint(1, 300))) + b"\0"
            elif kind == "joined":
                sent = sent[:-1] + protocol.seal(some_bytes(rng, 30, 2))
            else:
                sent = b"\0" * rng.randint(1, 3)
            bad += {"whole": 0, "empty": 0}.get(kind, sum(1 for part in sent.split(b"\0") if part))
            if kind == "flipped" and protocol.unseal(sent[:-1]):
                waiting.append(body)
            await line.send(sent)
        for body in waiting:
            assert dut.frame.value
            assert await take(dut) == body
        assert not dut.frame.value
    assert line.bad == bad


@cocotb.test()
async def lengths_at_the_edges(dut):
    await start(dut, **QUIET)
    line = Line(dut)
    for size in (2, 3, 248, 249):
        await line.send(protocol.seal(b"\1" * size))
        assert await take(dut) == b"\1" * size
    assert line.bad == 0
    for body in (b"", b"\1", b"\1" * 250, b"\0" * 250):  # too short, too long
        await line.send(protocol.stuff(body + protocol.zlib.crc32(body).to_bytes(4, "little")))
        assert not dut.frame.value
    assert line.bad == 4


@cocotb.test()
async def a_lost_byte_spoils_its_frame_only(dut):
    await start(dut, **QUIET)
    line = Line(dut)
    sent = protocol.seal(b"abcdef")
    await line.send(sent[:4])
    dut.broken.value = 1
    await RisingEdge(dut.clk)
    dut.broken.value = 0
    await line.send(sent[4:] + sent)
    assert await take(dut) == b"abcdef"
    assert (line.good, line.bad) == (1, 1)


@cocotb.test()
async def what_does_not_fit_is_dropped_whole(dut):
    rng = numbers("overrun")
    await start(dut, **QUIET)
    line, depth = Line(dut), 512  # as the test builds it
    bodies = [some_bytes(rng, 249, 100) for _ in range(5)]
    kept, used = [], 0
    for body in bodies:
        await line.send(protocol.seal(body))
        if used + 1 + len(body) + 4 <= depth:  # its CRC needs room until it has been looked at
            kept.append(body)
            used += 1 + len(body)
    assert (line.good, line.bad) == (len(kept), 5 - len(kept)) and 0 < len(kept) < 5
    for body in kept:
        assert await take(dut) == body
    assert not dut.frame.value
    await line.send(protocol.seal(bodies[0]))
    assert await take(dut) == bodies[0]
