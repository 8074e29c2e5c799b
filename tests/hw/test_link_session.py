"""The host's end of the protocol against the device in plain Python: lines with faults, and boards that fail."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_link import NaiveDevice

from boards import NaiveLink
from nmc_compiler.errors import ArtefactError, LinkError, UsageError
from nmc_compiler.neurocore import Sizes
from nmc_hw.link import protocol
from nmc_hw.link.board import Board
from nmc_hw.link.replay import Recorder, Replay
from nmc_hw.link.session import Session
from nmc_hw.link.simulated import Faults, parse_faults

SIZES = Sizes(64, 128, 1024, 2, 2, 2, 1)


def work(board: Board, seed: int) -> tuple[list, list]:
    """Some of everything; what it gave, and what it should have."""
    rng, got, wanted = np.random.default_rng(seed), [], []
    for core in range(2):
        words = rng.integers(0, 2**18, 300, dtype=np.uint64)
        board.write(core, 0, 50, words)
        board.fill(core, 2, 3, 40, 12345 + core)
        got += [board.read(core, 0, 50, 300).tolist(), board.read(core, 2, 0, 50).tolist()]
        wanted += [words.tolist(), [0] * 3 + [12345 + core] * 40 + [0] * 7]
    board.write(0, 14, 15, np.array([200]))  # spikes of a step
    board.inject_at(3, np.array([0, 1, 1]), np.array([5, 40, 127]))
    got.append(board.read(1, 12, 3 * 4, 4).tolist())
    wanted.append([0, 1 << 8, 0, 1 << 31])
    logged = [(step, *pair) for step in range(7) for pair in sorted((n % 2, n % 64) for n in range(200))]
    got.append(board.run_until(7).tolist())
    wanted.append([list(row) for row in logged])
    board.restart()
    got.append(board.step_count)
    return got, [*wanted, 0]


def test_a_clean_line_loses_nothing() -> None:
    board = Board(NaiveLink(NaiveDevice(SIZES)))
    got, wanted = work(board, 1)
    assert got == wanted
    assert (board.session.losses.resent, board.session.payload) == (0, protocol.REQUEST_BYTES)


@given(st.integers(0, 2**32), st.sampled_from([(0.01, 0, 0), (0, 0.01, 0), (0, 0, 0.01), (0.01, 0.01, 0.01)]))
@settings(max_examples=12, deadline=None)
def test_lost_changed_and_doubled_bytes_change_nothing(seed: int, chances: tuple[float, float, float]) -> None:
    device = NaiveDevice(SIZES)
    try:
        board = Board(NaiveLink(device, Faults(*chances, seed=seed)))
        got, wanted = work(board, seed)
    except LinkError:
        return  # said so
    assert got == wanted


def test_a_mute_port_is_told(monkeypatch) -> None:
    link = NaiveLink(NaiveDevice(SIZES), Faults(drop=1.0))
    with pytest.raises(LinkError, match=r"^naive board: no answer to HELLO, 17 times: the board is silent; is it"):
        Board(link)


def test_a_board_that_falls_silent_is_told() -> None:
    link = NaiveLink(NaiveDevice(SIZES))
    board = Board(link)
    link.faults = Faults(drop=1.0)
    with pytest.raises(
        LinkError,
        match=r"^naive board: no answer to WRITE of core 1, synapse words, items 0 to 9 within [\d.]+ s: the board has "
        r"fallen silent \(\d+ frames sent again, 0 replies damaged so far\); check the cable and the rate",
    ):
        board.write(1, 0, 0, np.zeros(10))


def test_a_port_that_sends_garbage_for_ever_is_told() -> None:
    class Garbage(NaiveLink):
        def read(self, seconds: float) -> bytes:
            return b"\x07garbage\0" * 100

    with pytest.raises(LinkError, match=r"no board of this protocol: it sends 07 67 .* without end; choose"):
        Board(Garbage(NaiveDevice(SIZES)))


def test_garbage_that_begins_later_is_told() -> None:
    link = NaiveLink(NaiveDevice(SIZES))
    board = Board(link)
    link.read = lambda seconds: b"\x07garbage\0" * 100  # type: ignore[method-assign]
    with pytest.raises(LinkError, match=r"sent 401 times, it never got through whole"):
        board.read(0, 0)


def test_a_refusal_names_the_request() -> None:
    board = Board(NaiveLink(NaiveDevice(SIZES)))
    board.sizes = Sizes(64, 2048, 1024, 2, 2, 2, 1)  # a host that believes in other sizes
    with pytest.raises(
        LinkError,
        match=r"the board refused INJECT into step 2: a memory, core, item, axon, step, record or rate that the board "
        r"does not have \(status 2\); is the image of this board's sizes, and nobody else at the port\?",
    ):
        board.inject_at(2, np.array([0]), np.array([999]))
    board.sizes = SIZES
    board.inject_at(2, np.array([0]), np.array([99]))  # the refused one is not in the way
    assert board.read(0, 12, 2 * 4 + 3, 1).tolist() == [1 << 3]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda b: b.read(2, 0),
            r"^core 2, synapse words, items 0 to 1023: the board has 2 cores, each with 1024",
        ),
        (
            lambda b: b.write(0, 3, 60, np.zeros(5)),
            r"^core 0, routes, items 60 to 64: the board has 2 cores",
        ),
        (lambda b: b.read(0, 16), r"^memory 16: there are 16"),
        (
            lambda b: b.inject_at(16, np.array([0]), np.array([0])),
            r"^events for step 16: step 0 is next, and 15",
        ),
        (
            lambda b: b.inject_at(0, np.array([0]), np.array([128])),
            r"^event for core 0, axon 128: the board has 2",
        ),
    ],
)
def test_bad_addresses_do_not_reach_the_line(call, text: str) -> None:
    board = Board(NaiveLink(NaiveDevice(SIZES)))
    sent: list[bytes] = []
    board.link.write = sent.append  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=text):
        call(board)
    assert sent == []


def test_what_another_host_left_is_no_obstacle() -> None:
    device = NaiveDevice(SIZES)
    link = NaiveLink(device)
    first = Board(link)
    first.write(0, 14, 15, np.array([3000]))  # a step that the log cannot hold
    link.write(protocol.request(first.session._seq, protocol.Op.RUN, (5).to_bytes(4, "little")))
    link.write(b"\5half a fra")
    assert device.busy
    second = Board(link)
    second.write(0, 14, 15, np.array([0]))
    second.restart()
    assert second.run_until(4).tolist() == [] and second.step_count == 4


def test_the_window_keeps_to_the_credit() -> None:
    link = NaiveLink(NaiveDevice(SIZES))
    board = Board(link)
    under_way = []

    class Careful(NaiveLink):
        def write(self, data: bytes) -> None:
            under_way.append(len(data))
            super().write(data)

        def read(self, seconds: float) -> bytes:
            under_way.clear()
            return super().read(seconds)

    careful = Careful(link.device)
    board.link = board.session.link = careful
    board.session.credit, most = 600, 0
    original = careful.write

    def note(data: bytes) -> None:
        nonlocal most
        original(data)
        most = max(most, sum(under_way))

    careful.write = note  # type: ignore[method-assign]
    board.write(0, 0, 0, np.arange(1024))
    assert 500 < most <= 600


def test_a_recording_plays_again(tmp_path) -> None:
    file = tmp_path / "session.jsonl"
    recorder = Recorder(NaiveLink(NaiveDevice(SIZES), Faults(0.002, 0.002, 0.002, seed=3)), file)
    board = Board(recorder)
    got, wanted = work(board, 5)
    recorder.close()
    assert got == wanted
    again, _ = work(Board(Replay(file)), 5)
    assert again == wanted
    with pytest.raises(LinkError, match=r"session.jsonl: line \d+ recorded \{\"sent\": .*, but here comes sent"):
        work(Board(Replay(file)), 6)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], r"is no recording of a link \(nmc.link/1\)$"),
        ([{"schema": "other"}], r"is no recording of a link"),
        ([{"schema": "nmc.link/1", "nonce": 1}, {"sent": "xy"}], r"line 2 is damaged; record again$"),
        ([{"schema": "nmc.link/1", "nonce": 1}, [1]], r"line 2 is damaged"),
    ],
)
def test_a_file_that_is_no_recording(tmp_path, lines: list, text: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ArtefactError, match=text):
        Replay(file)


def test_a_recording_that_is_missing_or_no_text(tmp_path) -> None:
    with pytest.raises(ArtefactError, match=r"none: cannot be read: No such file"):
        Replay(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\0{")
    with pytest.raises(ArtefactError, match=r"not JSON lines$"):
        Replay(tmp_path / "bytes")


def test_faults_are_parsed_and_checked() -> None:
    assert parse_faults("drop=0.01,flip=0.5,seed=9") == Faults(0.01, 0.5, 0.0, 9)
    for text, said in (("x=1", "'x=1'; expected drop="), ("drop=a", "'drop=a'"), ("drop=2", "chances from 0 to 1")):
        with pytest.raises(UsageError, match=said):
            parse_faults(text)


def test_a_session_never_sends_an_unknown_answer_twice_under_one_number() -> None:
    """A request is cut anew only after a probe has told that it was not done."""
    sent: dict[int, bytes] = {}
    done: list[bytes] = []

    class Watching(NaiveDevice):
        def take(self, line: bytes) -> bytes:
            body = protocol.unseal(line[:-1]) if line != b"\0" else None
            fresh = body is not None and body[0] == self.expected and body[1] == protocol.Op.WRITE
            reply = super().take(line)
            if fresh and body is not None:
                sent[self.expected] = body
                done.append(body)
            return reply

    device = Watching(SIZES)
    board = Board(NaiveLink(device, Faults(0.01, 0.01, 0.01, seed=11)))
    words = np.random.default_rng(2).integers(0, 2**18, 1024, dtype=np.uint64)
    board.write(0, 0, 0, words)
    assert device.items[0][0] == words.tolist()
    covered = [i for b in done for i in range(int.from_bytes(b[3:5], "little"), int.from_bytes(b[5:7], "little") + 1)]
    assert sorted(covered) == list(range(1024))  # every item exactly once


class SlowLink(NaiveLink):
    """Loses nothing, but now and then takes its time for a line. ``now``: seconds of its own clock."""

    def __init__(self, device: NaiveDevice, seed: int, stalls: float) -> None:
        super().__init__(device)
        self.lines: list[bytes] = []
        self.chance, self.stalls, self.now = random.Random(seed), stalls, 0.0
        self.ready = 0.0  # when the first of the lines will have been dealt with

    def _takes(self) -> float:
        return self.chance.uniform(0, 0.7) if self.chance.random() < self.stalls else 0.001

    def write(self, data: bytes) -> None:
        if not self.lines:
            self.ready = self.now + self._takes()
        self.lines += [line + b"\0" for line in data.split(b"\0")[:-1]]

    def read(self, seconds: float) -> bytes:
        end, reply = self.now + seconds, b""
        while self.lines and self.ready <= end and not reply:
            self.now, reply = max(self.now, self.ready), self.device.take(self.lines.pop(0))
            self.ready = self.now + self._takes()
        self.now = self.now if reply else end
        return reply


@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.1, 0.5]))
@settings(max_examples=40, deadline=None)
def test_a_slow_board_is_no_other_host(seed: int, stalls: float) -> None:
    """Answers to what was sent again, and to probes, come when nobody waits for them any more."""
    link = SlowLink(NaiveDevice(SIZES), seed, stalls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nmc_hw.link.session.time.monotonic", lambda: link.now)
        got, wanted = work(Board(link), seed)
    assert got == wanted


def test_session_before_hello_is_modest() -> None:
    assert Session(NaiveLink(NaiveDevice(SIZES))).credit == 256
