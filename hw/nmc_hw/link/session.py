"""Requests in order and exactly once over a line that loses, changes and doubles bytes (docs/link.md).

What happens depends on what `Link.read` gives and on nothing else, so that a recorded session plays again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nmc_compiler.errors import LinkError
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op, Reply, Status
from nmc_hw.link.stream import Link

SILENCES = 16  # reads in a row without a byte before a board is given up
ROUNDS = 400  # times of sending again without progress before a line is given up
FIRST_WAIT, LEAST_WAIT, MOST_WAIT = 0.5, 0.02, 1.0  # seconds for a reply
GROW_AFTER = 16  # requests in a row without loss before frames become longer
LEAST_PAYLOAD = 16
MOST_NOISE = 1 << 14  # bytes without progress
PROBES = 128  # ops from here on are probes


@dataclass(frozen=True)
class Request:
    """``what`` names it in messages."""

    op: Op
    payload: bytes
    what: str

    def within(self, size: int) -> list[Request]:
        """Requests that do the same, with payloads up to ``size`` as far as that can be."""
        parts = protocol.halves(self.op, self.payload) if len(self.payload) > size else [self.payload]
        if len(parts) == 1:
            return [self]
        return [small for part in parts for small in Request(self.op, part, self.what).within(size)]


@dataclass
class Losses:
    """What went wrong on the line and was mended."""

    silences: int = 0
    refused: int = 0  # replies CRC and SEQ
    resent: int = 0  # frames


class Session:
    """One host's end of the protocol. `payload` is the longest payload worth sending at the moment."""

    def __init__(self, link: Link) -> None:
        self.link, self.losses = link, Losses()
        self.payload = protocol.REQUEST_BYTES
        self.credit = 256  # until HELLO tells
        self._window = protocol.WINDOW
        self._decoder = protocol.Decoder()
        self._seq, self._nonce = 0, link.nonce
        self._wait, self._calm = FIRST_WAIT, 0
        self._probe = 0  # of probes so far: an answer that comes late is told from that to the next

    @property
    def damaged(self) -> int:
        """Frames from the board that were no whole replies."""
        return self._decoder.damaged

    # -- the requests ----------------------------------------------------------------------------

    def hello(self) -> protocol.Identity:
        """Take the board over: reset the link and learn what the board is. Raises LinkError."""
        self.link.discard()
        self._decoder.clear()
        silences = 0
        for attempt in range(4 * SILENCES):
            self._nonce = (self._nonce + 1) % 2**32
            nonce = self._nonce.to_bytes(4, "little")
            self.link.write(b"\0" + protocol.request(0, Op.HELLO, nonce))
            heard = b""
            while data := self.link.read(min(self._wait, 0.05 * 2**attempt)):
                heard += data
                for reply in self._decoder.feed(data):
                    if (reply.op, reply.status, reply.payload[:4]) == (Op.HELLO, Status.OK, nonce):
                        identity = protocol.parse_identity(reply.payload)
                        self._seq, self.credit = 1, identity.credit
                        return identity
                if len(heard) > 1 << 16:
                    raise LinkError(
                        f"{self.link.name}: no board of this protocol: it sends {heard[:8].hex(' ')} ... without end; "
                        "choose another port or --baud"
                    )
            silences = 0 if heard else silences + 1
            if silences > SILENCES:
                break
        said = f"sent {len(heard)} bytes that are no reply" if heard else "is silent"
        raise LinkError(
            f"{self.link.name}: no answer to HELLO, {attempt + 1} times: the board {said}; is it the right port, is "
            "the bitstream loaded, is --baud the board's rate after reset?"
        )

    def call(self, op: Op, payload: bytes, what: str) -> bytes:
        """Payload of the reply to one request. Raises LinkError where the board refuses or does not answer."""
        [reply] = self._exchange(iter([Request(op, payload, what)]), answered=True)
        assert reply is not None
        return reply

    def send(self, requests: Iterable[Request]) -> None:
        """Requests whose replies say nothing, many under way at a time. ``requests`` is drawn from as they leave."""
        self._exchange(iter(requests), answered=False)

    def ask(self, requests: list[Request]) -> list[bytes | None]:
        """Payloads of the replies to requests that change nothing; None where a reply was lost: ask again."""
        return self._exchange(iter(requests), answered=False)

    # -- in order, exactly once ------------------------------------------------------------------

    def _exchange(self, requests: Iterator[Request], answered: bool) -> list[bytes | None]:
        """Go-back-N; with ``answered`` the last reply itself must come, not only the news that there was one."""
        flight = _Flight(self, requests, answered)
        while flight.fill():
            data = self.link.read(flight.patience())
            if data:
                flight.take(self._decoder.feed(data), len(data))
            else:
                flight.silent()
        self._seq = (self._seq + flight.done) % 256
        return flight.replies

    def forget_losses(self) -> None:
        """The line is another one: begin with long frames again."""
        self.payload, self._window, self._calm = protocol.REQUEST_BYTES, protocol.WINDOW, 0
        self._wait = 2 * LEAST_WAIT  # a board that hears damage and then nothing goes back to its first rate

    def _lossless(self) -> None:
        self._calm += 1
        if self._calm % GROW_AFTER == 0:
            self.payload = min(protocol.REQUEST_BYTES, self.payload * 5 // 4)
            self._window = min(protocol.WINDOW, self._window + 1)

    def _lossy(self) -> None:
        if self._calm < 4:  # one loss after a calm time says little
            self.payload = max(LEAST_PAYLOAD, self.payload // 2)
            self._window = max(2, self._window // 2)
        self._calm = 0

    def _timed(self, seconds: float) -> None:
        """A reply took so long: the next may take a few times that."""
        self._wait = min(MOST_WAIT, max(LEAST_WAIT, 0.75 * self._wait, 4 * seconds))


class _Flight:
    """Requests on their way: those not yet vouched for, and how many of them have been sent since the last loss."""

    def __init__(self, session: Session, requests: Iterator[Request], answered: bool) -> None:
        self.s, self.requests, self.answered = session, requests, answered
        self.waiting: list[tuple[Request, bytes]] = []  # the oldest first
        self.sent = self.bytes = self.done = 0
        self.replies: list[bytes | None] = []
        self.stale = 0  # refusals to come of frames behind one that was lost
        self.silences = self.rounds = self.noise = 0
        self.back: list[Request] = []  # drawn, not done, and cut anew
        self.probe = 0  # op of a request that asks for nothing but which number is expected
        self.twice = 0  # of those waiting, how many have been sent twice: their times say nothing
        self.began = time.monotonic()
        self.first = self.began
        self.over = False

    def fill(self) -> bool:
        """Send what may be sent; False when everything is done."""
        s, out = self.s, b""
        if not self.waiting:
            self.probe = 0  # there is nothing that it could tell
        while self.sent < s._window and not self.probe:
            if self.sent == len(self.waiting) and not self._draw():
                break
            line = self.waiting[self.sent][1]
            if self.sent and self.bytes + len(line) > s.credit:
                break
            self.sent, self.bytes, out = self.sent + 1, self.bytes + len(line), out + line
        if out:
            self.began = time.monotonic()
            s.link.write(out)
        return bool(self.waiting)

    def _draw(self) -> bool:
        request = self.back.pop(0) if self.back else None if self.over else next(self.requests, None)
        if request is None:
            self.over = True
            return False
        seq = (self.s._seq + self.done + len(self.waiting)) % 256
        self.waiting.append((request, protocol.request(seq, request.op, request.payload)))
        return True

    def patience(self) -> float:
        """Seconds to wait for the next byte."""
        return min(MOST_WAIT, self.s._wait * 2**self.silences)

    def take(self, replies: Iterator[Reply], size: int) -> None:
        if self.silences > 1:  # not a loss but a board that is slow: what it took is waited for from now on
            self.s._wait = self.patience()
        self.silences, self.noise = 0, self.noise + size
        if self.noise > MOST_NOISE:
            self.noise = 0
            self._again(b"\0")
        for reply in replies:
            ahead = (reply.seq - self.s._seq - self.done) % 256
            if reply.op >= PROBES and reply.status == Status.SEQ:
                if reply.op == self.probe:  # else it was asked long ago
                    self._probed(ahead)
            elif reply.status in (Status.CRC, Status.SEQ):
                self._refused(ahead)
            elif ahead < len(self.waiting) and reply.op == self.waiting[ahead][0].op:
                self._answered(ahead, reply)

    def _answered(self, ahead: int, reply: Reply) -> None:
        if reply.status != Status.OK:
            raise LinkError(self._why(ahead, reply.status))
        if not self.twice:
            self.s._timed(time.monotonic() - self.began)
        self._vouched(ahead)
        self._vouched(1, reply.payload)

    def _vouched(self, count: int, payload: bytes | None = None) -> None:
        """The oldest ``count`` have been done."""
        for number, (_, line) in enumerate(self.waiting[:count]):
            self.bytes -= len(line) if number < self.sent else 0
            self.s._lossless()
        self.replies += [payload] * count
        del self.waiting[:count]
        self.sent, self.twice = max(0, self.sent - count), max(0, self.twice - count)
        self.done += count
        if count:
            self.rounds = self.noise = 0

    def _refused(self, ahead: int) -> None:
        """The device expects the request ``ahead`` of the oldest."""
        if ahead > len(self.waiting) or self.probe:
            return  # of another time; or the probe will tell
        if ahead and self.answered and self.over and ahead == len(self.waiting):
            ahead -= 1  # done, but its reply was lost: it may be asked once more
        fresh = ahead > 0
        self._vouched(ahead)
        self.s.losses.refused += 1
        if fresh:
            self.stale = 0
        if self.stale:
            self.stale -= 1
        else:
            self._again()

    def silent(self) -> None:
        """Nothing came in time."""
        self.silences += 1
        self.s.losses.silences += 1
        if self.silences > SILENCES:
            raise LinkError(self._lost("the board has fallen silent"))
        self._again(b"\0")  # whatever was cut short ends here

    def _again(self, before: bytes = b"") -> None:
        """Send everything again that has not been vouched for."""
        self.rounds += 1
        if self.rounds > ROUNDS:
            raise LinkError(self._lost(f"sent {self.rounds} times, it never got through whole"))
        if not self.waiting:
            return
        self.s._lossy()
        self.s.losses.resent += self.sent
        self.stale = max(0, self.sent - 1) if not before else 0
        self.twice, self.sent, self.bytes = max(self.twice, self.sent), 0, 0
        request = self.waiting[0][0]
        if self.probe or (self.rounds > 2 and (len(request.payload) > self.s.payload or request.op == Op.READ)):
            self._send_probe()
        elif before:
            self.s.link.write(before)

    def _send_probe(self) -> None:
        """Ask which number is expected, with one that is not: what was sent before has been dealt with when it answers.

        Only then may requests that nothing is known of be cut into shorter ones under the same numbers.
        """
        self.s._probe = (self.s._probe + 1) % PROBES
        self.probe = PROBES + self.s._probe
        self.s.link.write(b"\0" + protocol.request((self.s._seq + self.done - 100) % 256, self.probe))

    def _probed(self, ahead: int) -> None:
        self.probe = self.stale = self.twice = 0
        if ahead > len(self.waiting):
            raise LinkError(self._lost("another host is at the same board"))
        self._vouched(ahead)
        self.back = [small for r, _ in self.waiting for small in r.within(self.s.payload)] + self.back
        self.waiting, self.sent, self.bytes = [], 0, 0

    def _lost(self, how: str) -> str:
        what = self.waiting[0][0].what if self.waiting else "a request"
        seconds, resent, damaged = time.monotonic() - self.first, self.s.losses.resent, self.s.damaged
        return (
            f"{self.s.link.name}: no answer to {what} within {seconds:.1f} s: {how} ({resent} frames sent again, "
            f"{damaged} replies damaged so far); check the cable and the rate (--baud), then run the command again"
        )

    def _why(self, ahead: int, status: int) -> str:
        reason = protocol.REASONS.get(status, "for a reason that this nmc does not know")
        return (
            f"{self.s.link.name}: the board refused {self.waiting[ahead][0].what}: {reason} (status {status}); is the "
            "image of this board's sizes, and nobody else at the port?"
        )
