"""The command engine, log and framing together (nc_top_bytes on mesh_model) against the device in plain Python."""

import random
import struct

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly, RisingEdge, with_timeout
from link_bench import numbers, some_bytes, start
from naive_link import NaiveDevice

from nmc_compiler.neurocore import Sizes
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op

SIZES = Sizes(64, 64, 128, 2, 2, 2, 1)  # as the test builds it
LOG = 64
QUIET = {"in_valid": 0, "in_broken": 0, "in_data": 0, "out_ready": 1, "out_quiet": 1}


class Host:
    """Sends bytes and waits until nothing goes on any more."""

    def __init__(self, dut):
        self.dut, self.got = dut, bytearray()
        self.twin = NaiveDevice(SIZES, log=LOG)
        cocotb.start_soon(self._listen())

    async def _listen(self):
        while True:
            await RisingEdge(self.dut.out_valid)  # falls between two bytes
            await ReadOnly()
            self.got.append(int(self.dut.out_data.value))

    async def send(self, line: bytes) -> bytes:
        self.got.clear()
        for byte in line:
            self.dut.in_valid.value, self.dut.in_data.value = 1, byte
            if not self.dut.in_ready.value:
                await RisingEdge(self.dut.in_ready)
            await RisingEdge(self.dut.clk)
            self.dut.in_valid.value = 0
            await RisingEdge(self.dut.clk)
        await ClockCycles(self.dut.clk, 4)
        while self.dut.active.value:
            await with_timeout(FallingEdge(self.dut.active), 1, "ms")
            await ClockCycles(self.dut.clk, 2)  # it may have been a glitch
        return bytes(self.got)

    async def same(self, line: bytes) -> bytes:
        """Send to both, compare, and give the reply's body."""
        wanted, got = self.twin.take(line), await self.send(line)
        assert got == wanted, (line.hex(" "), show(got), show(wanted), vars(self.twin).get("step"))
        return got


def show(line: bytes) -> str:
    bodies = [protocol.unseal(part) for part in line.split(b"\0")[:-1]]
    return " / ".join("damaged" if body is None else body.hex(" ") for body in bodies)


def random_request(rng: random.Random, twin: NaiveDevice) -> bytes:
    """Payload with op in front; mostly one that can be done."""
    op = rng.choice((1, 2, 3, 3, 3, 4, 4, 4, 5, 6, 6, 7, 7, 8, 8, 9, 10))
    mem = rng.choice(twin.table)
    core = rng.randrange(SIZES.cores)
    first = rng.randrange(mem.items)
    last = min(mem.items - 1, first + rng.choice((0, 1, 5, 300)))
    where = protocol.place(mem.id, core, first, last)
    item = (1 << rng.randrange(mem.bits + 1)) - 1 if (mem.id, core) != (14, 0) else rng.choice((0, 3, 40))
    if op == Op.WRITE:
        last = min(last, first + 242 // mem.bytes - 1)
        items = b"".join(some_item(rng, mem, core).to_bytes(mem.bytes, "little") for _ in range(last - first + 1))
        payload = protocol.place(mem.id, core, first, last) + items
    elif op in (Op.READ, Op.FILL):
        payload = where + (item.to_bytes(5, "little") if op == Op.FILL else b"")
    elif op == Op.INJECT:
        events = [rng.randrange(2) << 11 | rng.randrange(SIZES.axons) for _ in range(rng.randint(0, 20))]
        payload = struct.pack(f"<I{len(events)}H", twin.step + rng.choice((0, 1, 15, 15, 16)), *events)
    else:
        payload = {
            Op.HELLO: struct.pack("<I", rng.randrange(2**32)),
            Op.RUN: struct.pack("<I", twin.step + rng.choice((0, 1, 2, 3))),
            Op.EVENTS: struct.pack(
                "<HB", (twin.logged if rng.random() < 0.5 else twin.acked) % 65536, rng.choice((0, 1, 9, 63, 255))
            ),
            Op.BAUD: struct.pack("<I", rng.choice((0, 1, 2**18, 2**18 + 1, 2**20))),
        }.get(op, b"")
    return bytes([op]) + payload


def some_item(rng: random.Random, mem, core: int) -> int:
    return rng.choice((0, 3, 40)) if (mem.id, core) == (14, 0) else rng.getrandbits(mem.bits)


@cocotb.test()
async def random_requests(dut):
    rng = numbers("link")
    await start(dut, **QUIET)
    host = Host(dut)
    for _ in range(150):
        body = random_request(rng, host.twin)
        spoil = rng.random()
        if spoil < 0.04:
            body = body[:1] + some_bytes(rng, 30)
        elif spoil < 0.08:
            body = body[:-1] or b"\7"
        elif spoil < 0.12:
            body = body + b"\3"
        elif spoil < 0.2 and len(body) > 3:
            at = rng.randrange(1, len(body))
            body = body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]
        if body[0] == Op.RUN and len(body) == 5 and int.from_bytes(body[1:], "little") - host.twin.step > 50:
            continue  # a spoilt one that would take for ever
        if host.twin.busy and body[0] not in (Op.EVENTS, Op.READ, Op.WRITE):
            body = bytes([Op.EVENTS]) + struct.pack("<HB", host.twin.logged % 65536, 63)
        seq = (host.twin.expected - rng.choice((0,) * 8 + (1, 2, 255))) % 256
        line = protocol.seal(bytes([seq]) + body[:248])
        if rng.random() < 0.05:
            line = bytes([line[0] ^ 1 | 2]) + line[1:]
            line = line.replace(b"\0", b"\1")[:-1] + b"\0"
        await host.same(b"\0" if rng.random() < 0.03 else line)
    await host.same(protocol.request(host.twin.expected, Op.STATUS))
    assert host.twin.unordered > 2 and host.twin.damaged > 2


@cocotb.test()
async def many_requests_at_once(dut):
    await start(dut, **QUIET)
    host = Host(dut)
    for core in (0, 1):  # the memories are as the last test left them
        await host.same(protocol.request(core, Op.FILL, protocol.place(0, core, 0, 127) + bytes(5)))
    await host.same(protocol.request(9, Op.HELLO, b"\0\1\2\3"))
    lines = [
        protocol.request(10 + n, Op.WRITE, protocol.place(0, n % 2, 3 * n, 3 * n + 2) + bytes(range(n, n + 9)))
        for n in range(30)
    ]
    lines[17] = lines[17][:5] + lines[17][6:]  # a byte is lost; all behind it are refused
    wanted = b"".join(host.twin.take(line) for line in lines if line is not lines[17])
    got = await host.send(b"".join(lines))
    bodies = [protocol.unseal(part) for part in got.split(b"\0")[:-1]]
    assert sorted(b for b in bodies if b[2] != 4) == sorted(protocol.unseal(part) for part in wanted.split(b"\0")[:-1])
    assert [b for b in bodies if b[2] == 4] == [bytes([27, 0, 4])]
    host.twin.damaged += 1
    await host.same(protocol.request(27, Op.STATUS))
    for core in (0, 1):
        await host.same(protocol.request(host.twin.expected, Op.READ, protocol.place(0, core, 0, 127)))


@cocotb.test()
async def a_step_waits_for_the_log(dut):
    """More spikes in one step than the log holds: nothing is lost, and nothing hangs."""
    await start(dut, **QUIET)
    host = Host(dut)
    await host.same(protocol.request(0, Op.WRITE, protocol.place(14, 0, 15, 15) + struct.pack("<I", 150)))
    await host.same(protocol.request(1, Op.RUN, struct.pack("<I", 2)))
    assert host.twin.busy and host.twin.logged == LOG
    await host.same(protocol.request(2, Op.READ, protocol.place(0, 0, 0, 0)))  # BUSY
    got, number = [], 0
    while host.twin.step < 2 or number < 300:
        number += 1 if host.twin.expected % 2 else 0
        seq = host.twin.expected
        reply = await host.send(protocol.request(seq, Op.EVENTS, struct.pack("<HB", len(got) % 65536, 63)))
        body = protocol.unseal(reply[:-1])
        assert body[:3] == bytes([seq, Op.EVENTS, 0])
        got += [body[i : i + 4] for i in range(10, len(body), 4)]
        host.twin.expected = (seq + 1) % 256
        state = protocol.parse_state(body[3:])
        if state.step == 2 and len(got) == state.records:
            break
        if not state.busy:
            await host.send(protocol.request(host.twin.expected, Op.RUN, struct.pack("<I", 2)))
            host.twin.expected = (host.twin.expected + 1) % 256
    words = [int.from_bytes(record, "little") for record in got]
    assert words == [step << 12 | n % 2 << 10 | n % 64 for step in (0, 1) for n in range(150)]


@cocotb.test()
async def hello_ends_what_another_host_began(dut):
    await start(dut, **QUIET)
    host = Host(dut)
    await host.same(protocol.request(0, Op.WRITE, protocol.place(14, 0, 15, 15) + struct.pack("<I", 150)))
    await host.same(protocol.request(1, Op.RUN, struct.pack("<I", 1)))
    assert host.twin.busy
    await host.send(b"\5half a frame\0")
    host.twin.damaged += 1
    await host.same(protocol.request(77, Op.HELLO, b"abcd"))
    await ClockCycles(dut.clk, 400)
    await host.same(protocol.request(78, Op.STATUS))
    assert (host.twin.step, host.twin.busy) == (1, False)
    await host.same(protocol.request(79, Op.RESTART))
