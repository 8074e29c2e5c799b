"""A board as the host sees it: memories, events in, steps, spikes out. The same methods as the emulator's machine."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np

from nmc_compiler.errors import LinkError, UsageError
from nmc_compiler.neurocore import memories
from nmc_compiler.neurocore.sizes import COUNTERS, REGISTER_STEP, REGISTER_WINDOW, REGISTERS, ROUTES, SLOTS
from nmc_hw.link import protocol
from nmc_hw.link.protocol import Op
from nmc_hw.link.session import Request, Session
from nmc_hw.link.stream import Link

STUCK_SECONDS = 60.0  # a step that takes longer hangs
STRIDE = 1 << 16  # steps of one RUN at most: the log has to be read before its steps are ambiguous
Progress = Callable[[int], object]


def nothing(done: int) -> None:
    """The progress that nobody looks at."""


class Board:
    """Takes over the board at a link. LinkError where there is none or it fails, UsageError for bad addresses."""

    def __init__(self, link: Link) -> None:
        self.link, self.session = link, Session(link)
        self.identity = self.session.hello()
        self.sizes = self.identity.sizes
        self.memories = memories(self.sizes)
        self._events: list[np.ndarray] = []  # int64 [n, 3] of step, core, neuron; read and not yet asked for
        self._records = 0  # read since RESTART
        self._step = self._settled().step

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.link.close()

    @property
    def step_count(self) -> int:
        """The sample's step about to run."""
        return self._step

    def _settled(self) -> protocol.State:
        """State between steps: one that another host began ends by itself."""
        end = time.monotonic() + STUCK_SECONDS
        while True:
            state = self.state()
            if not state.busy:
                return state
            if time.monotonic() > end:
                raise self._stuck(state)

    def state(self) -> protocol.State:
        """Flags, step and records."""
        return protocol.parse_state(
            self._long_enough(self.session.call(Op.STATUS, b"", "STATUS"), protocol.STATE_BYTES)
        )

    def set_baud(self, baud: int) -> None:
        """Change the rate of both ends. Raises LinkError where the board does not answer at the new one."""
        identity, first = self.identity, self.identity.baud
        if not identity.rate:
            return  # a byte stream
        rate = round(baud * 2**20 / identity.clock)
        if not 1 <= rate <= 2**18 or abs(rate * identity.clock / 2**20 - baud) > 0.01 * baud:
            raise UsageError(
                f"--baud {baud}: the board's clock of {identity.clock / 1e6:g} MHz gives up to "
                f"{identity.clock // 4} baud, to within 1 %; choose another"
            )
        self.session.call(Op.BAUD, struct.pack("<I", rate), f"BAUD {baud}")
        self.link.set_baud(baud)
        try:
            self.session.call(Op.STATUS, b"", f"STATUS at {baud} baud")
            self.session.forget_losses()
        except LinkError:
            self.link.set_baud(round(first))
            raise LinkError(
                f"{self.link.name}: no answer at {baud} baud; the board goes back to {first:.0f} by itself: "
                "choose a lower --baud, or a shorter cable"
            ) from None

    # -- memories --------------------------------------------------------------------------------

    def write(self, core: int, mem: int, address: int, items: np.ndarray, progress: Progress = nothing) -> None:
        """Write items of memory ``mem`` from ``address`` on; bits beyond an item's width are ignored."""
        values = np.asarray(items).astype(np.uint64).reshape(-1)
        self._check(core, mem, address, len(values))
        values &= np.uint64((1 << self.memories[mem].bits) - 1)
        self.session.send(self._writes(core, mem, address, values, progress))

    def _writes(self, core: int, mem: int, address: int, values: np.ndarray, progress: Progress) -> Iterator[Request]:
        memory, at = self.memories[mem], 0
        while at < len(values):
            count = min(len(values) - at, max(1, (self.session.payload - 5) // memory.bytes))
            payload = protocol.place(mem, core, address + at, address + at + count - 1)
            payload += protocol.pack_items(values[at : at + count], memory.bytes)
            yield Request(Op.WRITE, payload, self._where("WRITE", core, mem, address + at, count))
            progress(count)
            at += count

    def fill(self, core: int, mem: int, address: int, count: int, item: int) -> None:
        """Write the same item ``count`` times."""
        self._check(core, mem, address, count)
        if count:
            payload = protocol.place(mem, core, address, address + count - 1) + item.to_bytes(5, "little")
            self.session.send([Request(Op.FILL, payload, self._where("FILL", core, mem, address, count))])

    def read(
        self, core: int, mem: int, address: int = 0, count: int | None = None, progress: Progress = nothing
    ) -> np.ndarray:
        """uint64 items of memory ``mem``: ``count`` of them from ``address`` on, or all that follow."""
        memory = self.memories[self._known(mem)]
        count = memory.items - address if count is None else count
        self._check(core, mem, address, count)
        items, missing = np.zeros(count, np.uint64), [(0, count)]
        tries = 0
        while missing:
            tries += 1
            pieces = [piece for start, end in missing for piece in self._pieces(start, end, memory.bytes)]
            asked = [
                Request(
                    Op.READ,
                    protocol.place(mem, core, address + start, address + end - 1),
                    self._where("READ", core, mem, address + start, end - start),
                )
                for start, end in pieces[:64]
            ]
            missing = pieces[64:]
            for (start, end), reply in zip(pieces, self.session.ask(asked), strict=False):
                got = protocol.unpack_items(reply or b"", memory.bytes)[: end - start]
                items[start : start + len(got)] = got
                progress(len(got))
                tries = 0 if len(got) else tries
                if start + len(got) < end:
                    missing.append((start + len(got), end))
            if tries > 64:
                raise LinkError(
                    f"{self.link.name}: {self._where('READ', core, mem, address, count)}: no reply comes whole"
                )
        return items

    def _pieces(self, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
        """Items that a reply of the length worth asking for holds."""
        size = max(1, min(self.session.payload, 244) // width)
        yield from ((at, min(end, at + size)) for at in range(start, end, size))

    # -- steps -----------------------------------------------------------------------------------

    def inject(self, core: int, axons: np.ndarray, slot: int) -> None:
        """Make axons of one core active in the next step whose number is ``slot`` modulo 16."""
        axons = np.asarray(axons, np.int64).reshape(-1)
        self.inject_at(self._step + (slot - self._step) % SLOTS, np.full(len(axons), core), axons)

    def inject_at(self, step: int, cores: np.ndarray, axons: np.ndarray) -> None:
        """Make axons active in step ``step``, which has not begun and is less than 16 ahead."""
        self.session.send(self._injections(step, np.asarray(cores, np.int64), np.asarray(axons, np.int64)))

    def _injections(self, step: int, cores: np.ndarray, axons: np.ndarray) -> Iterator[Request]:
        if not 0 <= step - self._step < protocol.AHEAD:
            raise UsageError(f"events for step {step}: step {self._step} is next, and 15 ahead is the most")
        bad = (cores < 0) | (cores >= self.sizes.cores) | (axons < 0) | (axons >= self.sizes.axons)
        if bad.any():
            first = int(bad.argmax())
            raise UsageError(
                f"event for core {cores[first]}, axon {axons[first]}: the board has {self.sizes.cores} cores of "
                f"{self.sizes.axons} axons"
            )
        at = 0
        while at < len(cores):
            count = max(1, (self.session.payload - 4) // 2)
            payload = protocol.pack_events(step, cores[at : at + count], axons[at : at + count])
            yield Request(Op.INJECT, payload, f"INJECT into step {step}")
            at += count

    def run_until(self, step: int) -> np.ndarray:
        """Take steps until ``step``; int64 [n, 3] of the spikes logged since the last call: step, core, neuron.

        Steps ascend; within one, spikes are sorted by core and neuron.
        """
        while self._step < step:
            self._run(min(step, self._step + STRIDE))
        self._drain()
        found, self._events = np.concatenate([np.zeros((0, 3), np.int64), *self._events]), []
        return found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]

    def _run(self, until: int) -> None:
        stuck, before = time.monotonic() + STUCK_SECONDS, (-1, -1)
        while True:
            state = self._state_of(self.session.call(Op.RUN, struct.pack("<I", until), f"RUN until step {until}"))
            if state.stalled or state.nearly_full:
                self._drain()
            if not state.busy and state.step >= until:
                self._step = state.step
                return
            if (now := (state.step, state.records)) != before:
                stuck, before = time.monotonic() + STUCK_SECONDS, now
            elif time.monotonic() > stuck:
                raise self._stuck(state)

    def _state_of(self, reply: bytes) -> protocol.State:
        return protocol.parse_state(self._long_enough(reply, protocol.STATE_BYTES))

    def _drain(self) -> None:
        """Read the log until it is empty."""
        while True:
            most = max(1, min(63, self.session.payload // 4 - 2))
            reply = self.session.call(Op.EVENTS, struct.pack("<HB", self._records % 65536, most), "EVENTS")
            state = self._state_of(reply)
            records = protocol.unpack_records(reply[protocol.STATE_BYTES :], state.step)
            if len(records):
                self._events.append(records)
                self._records += len(records)
            if (state.records - self._records) % 65536 == 0:
                return

    def step(self) -> np.ndarray:
        """Run one step; int32 [k, 2] of the logged (core, neuron), in ascending order."""
        events = self.run_until(self._step + 1)
        return events[events[:, 0] == self._step - 1][:, 1:].astype(np.int32)

    def run(self, steps: int, events: np.ndarray) -> np.ndarray:
        """Run steps with events int64 [n, 3] of (step from now, core, axon), sorted by step.

        Returns uint8 [steps, cores, N]: the spikes of neurons that log theirs.
        """
        begin, logged = self._step, []
        events = np.asarray(events, np.int64).reshape(-1, 3)
        at = np.searchsorted(events[:, 0], np.arange(0, steps + protocol.AHEAD, protocol.AHEAD))
        for number, first in enumerate(range(0, steps, protocol.AHEAD)):
            rows = events[at[number] : at[number + 1]]
            for step in np.unique(rows[:, 0]):
                here = rows[rows[:, 0] == step]
                self.inject_at(begin + int(step), here[:, 1], here[:, 2])
            logged.append(self.run_until(begin + min(steps, first + protocol.AHEAD)))
        fired = np.zeros((steps, self.sizes.cores, self.sizes.neurons), np.uint8)
        found = np.concatenate([np.zeros((0, 3), np.int64), *logged])
        fired[found[:, 0] - begin, found[:, 1], found[:, 2]] = 1
        return fired

    def restart(self) -> None:
        """Step 0 and zero state; weights, tables and counters stay."""
        self.session.call(Op.RESTART, b"", "RESTART")
        self._events, self._records, self._step = [], 0, 0

    def over(self) -> None:
        """Nobody counts here which neuron left its range; counters 10 and 11 say how many did."""

    # -- several at once -------------------------------------------------------------------------

    def counters(self) -> np.ndarray:
        """uint64 [cores, 16], as they are now."""
        return np.stack([self.read(core, COUNTERS) for core in range(self.sizes.cores)])

    def snapshot(self) -> dict[int, np.ndarray]:
        """All memories but the counters: uint64 [cores, items] by id. The step is in the registers."""
        cores = range(self.sizes.cores)
        return {m: np.stack([self.read(core, m) for core in cores]) for m in range(COUNTERS)}

    def restore(self, snapshot: dict[int, np.ndarray]) -> None:
        """Bring back what `snapshot` gave. The step can only be counted up: idle steps lead to it."""
        cores = range(self.sizes.cores)
        self.restart()
        for core in cores:
            self.fill(core, ROUTES, 0, self.sizes.neurons, 0)  # no spike goes anywhere
            self.write(core, REGISTERS, REGISTER_WINDOW, np.array([1, 0]))  # and learning is off
        self.run_until(int(snapshot[REGISTERS][0, REGISTER_STEP]))
        for mem, items in sorted(snapshot.items()):
            for core in cores:
                self.write(core, mem, 0, items[core])

    # -- checks ----------------------------------------------------------------------------------

    def _known(self, mem: int) -> int:
        if not 0 <= mem < len(self.memories):
            raise UsageError(f"memory {mem}: there are {len(self.memories)}")
        return mem

    def _check(self, core: int, mem: int, address: int, count: int) -> None:
        memory = self.memories[self._known(mem)]
        if not 0 <= core < self.sizes.cores or address < 0 or count < 0 or address + count > memory.items:
            raise UsageError(
                f"core {core}, {memory.name}, items {address} to {address + count - 1}: the board has "
                f"{self.sizes.cores} cores, each with {memory.items} of them"
            )

    def _where(self, op: str, core: int, mem: int, address: int, count: int) -> str:
        return f"{op} of core {core}, {self.memories[mem].name}, items {address} to {address + count - 1}"

    def _long_enough(self, reply: bytes, size: int) -> bytes:
        if len(reply) < size:
            raise LinkError(
                f"{self.link.name}: a reply of {len(reply)} bytes where {size} are due; is it this protocol?"
            )
        return reply

    def _stuck(self, state: protocol.State) -> LinkError:
        return LinkError(
            f"{self.link.name}: step {state.step} has not ended within {STUCK_SECONDS:.0f} s; reset the board, and "
            "tell the maintainers which image does this"
        )
