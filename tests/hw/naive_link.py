"""The device of docs/link.md in plain Python, on the memories of hw/tb/mesh_model.sv: the meaning of the link's RTL."""

from __future__ import annotations

import struct

from nmc_compiler.neurocore import Sizes, memories
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op, Status

FIXED = {1: 4, 2: 0, 3: 5, 4: 5, 5: 10, 6: 4, 7: 4, 8: 3, 9: 0, 10: 4}
NEEDS_IDLE = (Op.READ, Op.WRITE, Op.FILL, Op.INJECT, Op.RESTART)


class Refused(Exception):
    """Carries the status."""


class NaiveDevice:
    """`take` gives the reply to the bytes of one frame, delimiter included, or nothing to an empty one.

    A step logs as many spikes as item 15 of memory 14 of core 0 says; one that does not fit into the log stays under
    way until it does.
    """

    def __init__(
        self, sizes: Sizes, log: int = 1024, credit: int = 2048, build: int = 0, clock: int = 0, rate: int = 0
    ):
        self.sizes, self.table = sizes, memories(sizes)
        self.log, self.credit, self.build, self.clock, self.rate = log, credit, build, clock, rate
        self.items = [[[0] * m.items for m in self.table] for _ in range(sizes.cores)]
        self.expected = self.damaged = self.unordered = 0
        self.step = self.acked = self.logged = 0
        self.records: list[int] = []
        self.busy = False

    def take(self, line: bytes) -> bytes:
        assert line.endswith(b"\0") and line.count(0) == 1
        if line == b"\0":
            return b""
        body = protocol.unseal(line[:-1])
        if body is None:
            self.damaged = (self.damaged + 1) % 65536
            return protocol.seal(bytes([self.expected, 0, Status.CRC]))
        seq, op, payload = body[0], body[1], body[2:]
        hello = op == Op.HELLO and len(payload) == 4
        if not hello and seq not in (self.expected, (self.expected - 1) % 256):
            self.unordered = (self.unordered + 1) % 65536
            return protocol.seal(bytes([self.expected, op, Status.SEQ]))
        try:
            reply = self._do(op, payload)
        except Refused as refused:
            return protocol.seal(bytes([seq, op, refused.args[0]]))
        self.expected = (seq + 1) % 256
        return protocol.seal(bytes([seq, op, Status.OK]) + (self._state(op) if reply is None else reply))

    def _do(self, op: int, payload: bytes) -> bytes | None:
        """Payload of the reply; None: the state."""
        if op not in FIXED:
            raise Refused(Status.FORMAT)
        extra = len(payload) - FIXED[op]
        if extra < 0 or (extra and op not in (Op.WRITE, Op.INJECT)):
            raise Refused(Status.FORMAT)
        if op in NEEDS_IDLE and self.busy:
            raise Refused(Status.BUSY)
        if op in (Op.READ, Op.WRITE, Op.FILL):
            return self._memory(op, payload)
        return getattr(self, f"_{Op(op).name.lower()}")(payload)

    def _state(self, op: int) -> bytes:
        held = self.logged - self.acked
        flags = self.busy | (self.busy and held == self.log) << 1 | (held >= self.log * 3 // 4) << 2
        state = struct.pack("<BIH", flags, self.step, self.logged % 65536)
        if op == Op.STATUS:
            state += struct.pack("<HHH", self.acked % 65536, self.damaged, self.unordered)
        return state

    def _memory(self, op: int, payload: bytes) -> bytes:
        where, first, last = struct.unpack_from("<BHH", payload)
        mem, core = self.table[where & 15], where >> 4
        if core >= self.sizes.cores or last >= mem.items or first > last:
            raise Refused(Status.RANGE)
        items, rest, width = self.items[core][mem.id], payload[5:], mem.bytes
        if op == Op.READ:
            count = min(last - first + 1, (244 - 3) // width + 1)
            return b"".join(item.to_bytes(5, "little")[:width] for item in items[first : first + count])
        if op == Op.WRITE:
            if len(rest) != width * (last - first + 1):
                raise Refused(Status.FORMAT)
            for number in range(last - first + 1):
                items[first + number] = int.from_bytes(rest[number * width : (number + 1) * width], "little")
        else:
            items[first : last + 1] = [int.from_bytes(rest, "little")] * (last - first + 1)
        return b""

    def _inject(self, payload: bytes) -> bytes:
        step = int.from_bytes(payload[:4], "little")
        if (step - self.step) % 2**32 >= 16:
            raise Refused(Status.RANGE)
        events = [int.from_bytes(payload[i : i + 2], "little") for i in range(4, len(payload), 2)]
        whole = events if len(payload) % 2 == 0 else events[:-1]
        if any(event >> 11 >= self.sizes.cores or (event & 2047) >= self.sizes.axons for event in whole):
            raise Refused(Status.RANGE)
        if len(payload) % 2:
            raise Refused(Status.FORMAT)
        for event in events:
            word = step % 16 * (self.sizes.axons // 32) + (event & 2047) // 32
            self.items[event >> 11][12][word] |= 1 << (event & 31)
        return b""

    def _run(self, payload: bytes) -> None:
        until = int.from_bytes(payload, "little")
        while not self.busy and (until - self.step - 1) % 2**32 < 2**31 - 1 and self._held() < self.log * 3 // 4:
            self.busy, self.left = True, self.items[0][14][15]
            self._go_on()

    def _held(self) -> int:
        return self.logged - self.acked

    def _go_on(self) -> None:
        """Log what there is room for; the step ends with its last spike."""
        burst, cores, neurons = self.items[0][14][15], self.sizes.cores, self.sizes.neurons
        while self.left and self._held() < self.log:
            number = burst - self.left
            self.records.append(self.step % 2**20 << 12 | number % cores << 10 | number % neurons)
            self.logged += 1
            self.left -= 1
        if not self.left:
            self.busy, self.step = False, self.step + 1

    def _events(self, payload: bytes) -> bytes:
        first = self.acked + (int.from_bytes(payload[:2], "little") - self.acked) % 65536
        if first > self.logged:
            raise Refused(Status.RANGE)
        self.acked = first
        state = self._state(Op.EVENTS)
        last = min(self.logged, first + 59, first + payload[2] % 64)
        reply = state + b"".join(r.to_bytes(4, "little") for r in self.records[first:last])
        if self.busy:
            self._go_on()
        return reply

    def _restart(self, payload: bytes) -> None:
        self.step = self.acked = self.logged = 0
        self.records = []

    def _status(self, payload: bytes) -> None:
        pass

    def _baud(self, payload: bytes) -> bytes:
        if not 1 <= int.from_bytes(payload, "little") <= 2**18:
            raise Refused(Status.RANGE)
        return b""

    def _hello(self, payload: bytes) -> bytes:
        self.acked = self.logged = 0
        self.records = []
        if self.busy:
            self.busy, self.left, self.step = False, 0, self.step + 1
        s = self.sizes
        logs = bytes(size.bit_length() - 1 for size in (s.neurons, s.axons, s.words, s.types, s.geoms))
        tail = struct.pack("<BIHHI", s.x | s.y << 4, self.clock, self.credit, self.log, self.rate)
        return payload + b"NMC\1" + self.build.to_bytes(8, "little") + logs + tail
