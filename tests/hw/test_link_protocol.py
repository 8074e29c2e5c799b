"""Frames, requests and replies as bytes."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmc_compiler.errors import LinkError
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op

BODIES = st.one_of(st.binary(max_size=253), st.lists(st.sampled_from([0, 1, 255]), max_size=253).map(bytes))


@given(BODIES)
def test_stuffing_comes_back_and_holds_no_zero(body: bytes) -> None:
    line = protocol.stuff(body)
    assert line.endswith(b"\0") and line.count(0) == 1 and len(line) == len(body) + 2
    assert protocol.unstuff(line[:-1]) == body


@given(st.binary(max_size=300))
def test_any_line_is_a_frame_or_none(line: bytes) -> None:
    body = protocol.unseal(line.replace(b"\0", b""))
    assert body is None or protocol.seal(body)[:-1] == line.replace(b"\0", b"")


@given(BODIES.filter(lambda b: 2 <= len(b) <= 249), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(body: bytes, at: int, change: int) -> None:
    line = bytearray(protocol.seal(body))
    line[at % (len(line) - 1)] ^= change
    assert all(protocol.unseal(part) is None for part in bytes(line).split(b"\0"))


@given(st.lists(st.binary(min_size=3, max_size=60), max_size=6), st.lists(st.integers(0, 400), max_size=12))
def test_replies_come_out_however_the_bytes_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream, decoder, got, before = b"".join(map(protocol.seal, bodies)), protocol.Decoder(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        got += decoder.feed(stream[before:cut])
        before = max(before, cut)
    assert [bytes([r.seq, r.op, r.status]) + r.payload for r in got] == bodies
    assert decoder.damaged == 0


def test_garbage_without_an_end_is_not_kept() -> None:
    decoder = protocol.Decoder()
    for _ in range(100):
        assert list(decoder.feed(b"\1" * 1000)) == []
    assert len(decoder._rest) <= 2 * protocol.LONGEST


@given(st.integers(1, 5), st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=40), st.integers(1, 60))
def test_cutting_a_write_loses_nothing(width: int, items: list[int], size: int) -> None:
    values = np.array(items, np.uint64) & np.uint64((1 << 8 * width) - 1)
    payload = protocol.place(3, 1, 100, 99 + len(items)) + protocol.pack_items(values, width)
    got = {}
    todo = [payload]
    while todo:
        part = todo.pop()
        halves = protocol.halves(Op.WRITE, part) if len(part) > size else [part]
        if len(halves) == 2:
            todo += halves
            continue
        first = int.from_bytes(part[1:3], "little")
        got |= {first + i: int(v) for i, v in enumerate(protocol.unpack_items(part[5:], width))}
        assert int.from_bytes(part[3:5], "little") == first + len(part[5:]) // width - 1
    assert got == {100 + i: int(v) for i, v in enumerate(values)}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2047)), min_size=1, max_size=60))
def test_cutting_an_injection_loses_nothing(events: list[tuple[int, int]]) -> None:
    cores, axons = np.array(events).T
    payload = protocol.pack_events(77, cores, axons)
    halves = protocol.halves(Op.INJECT, payload)
    assert all(half[:4] == payload[:4] for half in halves)
    assert b"".join(half[4:] for half in halves) == payload[4:]
    assert len(halves) == (2 if len(events) > 1 else 1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20 - 1), st.integers(0, 3), st.integers(0, 1023))
def test_records_find_their_step(now: int, behind: int, core: int, neuron: int) -> None:
    step = max(0, now - behind)
    word = (step % 2**20) << 12 | core << 10 | neuron
    assert protocol.unpack_records(word.to_bytes(4, "little"), now).tolist() == [[step, core, neuron]]


def test_what_answers_must_be_a_board() -> None:
    good = b"abcdNMC\1" + bytes(8) + bytes([10, 11, 16, 4, 4, 0x11]) + bytes(12)
    assert protocol.parse_identity(good).sizes.words == 65536
    with pytest.raises(LinkError, match=r"^what answers is no neurocore: its HELLO is 68 65 6c 6c 6f \(5 bytes\), exp"):
        protocol.parse_identity(b"hello")
    with pytest.raises(LinkError, match=r"the board speaks version 2 of the link protocol, this nmc version 1; load"):
        protocol.parse_identity(good[:7] + b"\2" + good[8:])
    with pytest.raises(LinkError, match=r"says of itself what cannot be: neurocore: neurons = \d+; expected a power"):
        protocol.parse_identity(good[:16] + b"\xff" + good[17:])


def test_the_crc_is_that_of_zlib() -> None:
    assert protocol.unstuff(protocol.seal(b"ab")[:-1]) == b"ab" + zlib.crc32(b"ab").to_bytes(4, "little")
