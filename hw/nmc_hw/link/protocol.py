"""The protocol of docs/link.md as bytes: frames, requests, replies. No waiting and no deciding here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nmc_compiler.errors import LinkError, UsageError
from nmc_compiler.neurocore import Sizes

MAGIC, VERSION = b"NMC", 1
LONGEST = 253  # bytes of a frame, CRC included
REQUEST_BYTES = 247  # most of a request's payload
REPLY_BYTES = 246
OVERHEAD = 8  # bytes on the line beside the payload of a request: number, op, CRC, code, delimiter
WINDOW = 32  # most frames under way
STEP_BITS = 20  # of a record
AHEAD = 16  # an event is injected into a step less than this far ahead


class Op(IntEnum):
    """What a request asks for."""

    HELLO = 1
    STATUS = 2
    READ = 3
    WRITE = 4
    FILL = 5
    INJECT = 6
    RUN = 7
    EVENTS = 8
    RESTART = 9
    BAUD = 10


class Status(IntEnum):
    """How a reply begins."""

    OK = 0
    BUSY = 1
    RANGE = 2
    FORMAT = 3
    CRC = 4
    SEQ = 5


REASONS: dict[int, str] = {
    Status.BUSY: "a step is going on",
    Status.RANGE: "a memory, core, item, axon, step, record or rate that the board does not have",
    Status.FORMAT: "an op that the board does not know, or a payload of the wrong length",
}


def stuff(body: bytes) -> bytes:
    """Bytes without a zero, then a zero (COBS). ``body`` is at most LONGEST bytes long.

    >>> stuff(b"ab\\0c").hex(" ")
    '03 61 62 02 63 00'
    """
    return b"".join(bytes([len(part) + 1]) + part for part in body.split(b"\0")) + b"\0"


def unstuff(line: bytes) -> bytes | None:
    """What `stuff` was given, from its result without the last zero; None where that cannot be.

    >>> unstuff(bytes.fromhex("0361620263"))
    b'ab\\x00c'
    """
    parts, at = [], 0
    while at < len(line):
        code = line[at]
        if code in (0, 255) or at + code > len(line):
            return None
        parts.append(line[at + 1 : at + code])
        at += code
    return b"\0".join(parts) if parts else None


def seal(body: bytes) -> bytes:
    """A frame on the line: CRC behind it, stuffed, delimiter."""
    return stuff(body + zlib.crc32(body).to_bytes(4, "little"))


def unseal(line: bytes) -> bytes | None:
    """Body of a frame as it came, without its delimiter; None where it is damaged."""
    frame = unstuff(line)
    if frame is None or not 6 <= len(frame) <= LONGEST:
        return None
    return frame[:-4] if zlib.crc32(frame[:-4]).to_bytes(4, "little") == frame[-4:] else None


def request(seq: int, op: int, payload: bytes = b"") -> bytes:
    """A request on the line."""
    return seal(bytes([seq, op]) + payload)


@dataclass(frozen=True)
class Reply:
    """One reply: the number it answers (CRC, SEQ: the number the device expects), its op, status and payload."""

    seq: int
    op: int
    status: int
    payload: bytes = b""


class Decoder:
    """Replies out of the bytes of a line; ``damaged`` counts what was no reply."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self.damaged = 0

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that end in ``data``."""
        *lines, rest = bytes(self._rest + data).split(b"\0")
        self._rest = bytearray(rest[-2 * LONGEST :])  # garbage without an end must not grow
        for line in lines:
            body = unseal(line) if line else None
            if body is not None and len(body) >= 3:
                yield Reply(body[0], body[1], body[2], body[3:])
            else:
                self.damaged += bool(line)

    def clear(self) -> None:
        """Forget what has come of a frame."""
        self._rest.clear()


@dataclass(frozen=True)
class Identity:
    """What a board says of itself; ``rate`` after reset, in 2^-20 of the clock, 0 without a UART."""

    build: int
    sizes: Sizes
    clock: int
    credit: int
    log: int
    rate: int

    @property
    def baud(self) -> float:
        """Rate of the UART after reset."""
        return self.clock * self.rate / 2**20


def parse_identity(payload: bytes) -> Identity:
    """Identity of a HELLO's reply. Raises LinkError for anything but a board of this protocol version."""
    if len(payload) != 34 or payload[4:7] != MAGIC:
        raise LinkError(
            f"what answers is no neurocore: its HELLO is {payload[:12].hex(' ')} ({len(payload)} bytes), "
            f"expected {MAGIC!r} and 34 bytes; choose another port, or load the bitstream first"
        )
    if payload[7] != VERSION:
        raise LinkError(
            f"the board speaks version {payload[7]} of the link protocol, this nmc version {VERSION}; "
            "load a bitstream of this nmc's hw/rtl, or use the nmc that it was made with"
        )
    build, *logs, xy, clock, credit, log, rate = struct.unpack("<Q6BIHHI", payload[8:])
    n, a, w, types, geoms = (1 << bits for bits in logs)
    try:
        sizes = Sizes(n, a, w, types, geoms, xy & 15, xy >> 4)
    except UsageError as error:
        raise LinkError(f"the board says of itself what cannot be: {error}; load a bitstream of hw/rtl") from None
    return Identity(build, sizes, clock, credit, log, rate)


@dataclass(frozen=True)
class State:
    """Where the device is: flags, steps since RESTART, records logged since then modulo 2^16."""

    busy: bool
    stalled: bool
    nearly_full: bool
    step: int
    records: int


STATE_BYTES = 7


def parse_state(payload: bytes) -> State:
    """State at the begin of a payload."""
    flags, step, records = struct.unpack_from("<BIH", payload)
    return State(bool(flags & 1), bool(flags & 2), bool(flags & 4), step, records)


def place(mem: int, core: int, first: int, last: int) -> bytes:
    """Begin of READ, WRITE and FILL."""
    return struct.pack("<BHH", mem | core << 4, first, last)


def halves(op: int, payload: bytes) -> list[bytes]:
    """The payloads of two requests that do the same; of WRITE and INJECT, others stay as they are."""
    if op == Op.INJECT and len(payload) > 6:
        cut = 4 + (len(payload) - 4) // 4 * 2
        return [payload[:cut], payload[:4] + payload[cut:]]
    if op == Op.WRITE:
        where, first, last = struct.unpack_from("<BHH", payload)
        count = last - first + 1
        if count > 1:
            middle, width = first + count // 2, (len(payload) - 5) // count
            cut = 5 + (middle - first) * width
            heads = struct.pack("<BHH", where, first, middle - 1), struct.pack("<BHH", where, middle, last)
            return [heads[0] + payload[5:cut], heads[1] + payload[cut:]]
    return [payload]


def pack_items(items: np.ndarray, width: int) -> bytes:
    """uint64 items as ``width`` bytes each, lowest first."""
    return np.ascontiguousarray(items, "<u8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def unpack_items(data: bytes, width: int) -> np.ndarray:
    """uint64 items of ``width`` bytes each."""
    wide = np.zeros((len(data) // width, 8), np.uint8)
    wide[:, :width] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return wide.view("<u8").reshape(-1).astype(np.uint64)


def pack_events(step: int, cores: np.ndarray, axons: np.ndarray) -> bytes:
    """Payload of an INJECT."""
    events = (np.asarray(cores, np.uint16) << np.uint16(11) | np.asarray(axons, np.uint16)).astype("<u2")
    return struct.pack("<I", step) + events.tobytes()


def unpack_records(data: bytes, step: int) -> np.ndarray:
    """int64 [n, 3] of step, core, neuron; ``step``: one that is not before any of theirs, nor 2^20 behind."""
    words = np.frombuffer(data, "<u4").astype(np.int64)
    behind = (step - (words >> 12)) % (1 << STEP_BITS)
    return np.stack([step - behind, words >> 10 & 3, words & 1023], axis=1)
