"""A mesh of neurocores as the host sees it: memories by id, events in, steps, logged spikes out."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Image, memories
from nmc_compiler.neurocore.sizes import (
    ACCUMULATORS,
    COUNTERS,
    FIRED,
    PENDING,
    POST,
    PRE,
    REGISTER_STEP,
    REGISTERS,
    RULE_ITEMS,
    SLOTS,
    TYPES,
    U,
    V,
)
from nmc_emulator.neurocore.kernels import SYNOPS, State, advance, run, spread_types

_KEPT_PACKED = ("words", "rows", "params", "routes", "types", "geoms", "rules")  # memories 0 to 6
_MEANT = {  # bits that mean something, item after item; the others read as 0
    TYPES: [(1 << 33) - 1, (1 << 36) - 1, (1 << 26) - 1, 0],
    RULE_ITEMS: [(1 << 25) - 1, (1 << 16) - 1],
    REGISTERS: [(1 << 32) - 1, 1, (1 << 26) - 1, *[(1 << 32) - 1] * 13],
}
_RESTARTED = ("u", "v", "refr", "acc", "post", "pre", "pending", "fired")
_WRITABLE_REGISTERS = 3


class Machine:
    """Runs an image exactly; the same interface as the simulated RTL. Addresses are items, as on the board's bus."""

    def __init__(self, image: Image) -> None:
        self.sizes = image.sizes
        self.memories = memories(image.sizes)
        self.state = _zero(image)
        self._log = np.zeros((self.sizes.cores * self.sizes.neurons, 2), np.int32)
        for mem in sorted(image.memories):
            for core in range(self.sizes.cores):
                self.write(core, mem, 0, image.memories[mem][core])

    @property
    def step_count(self) -> int:
        """The sample's step about to run."""
        return int(self.state.registers[0, REGISTER_STEP])

    def write(self, core: int, mem: int, address: int, items: np.ndarray) -> None:
        """Write items of memory ``mem`` from ``address`` on; bits beyond an item's width are ignored."""
        values = np.asarray(items).astype(np.uint64)
        self._check(core, mem, address, values.size)
        values = (values & np.uint64((1 << self.memories[mem].bits) - 1)).astype(np.int64)
        s, place = self.state, slice(address, address + values.size)
        if mem in _MEANT:
            values &= np.array(_MEANT[mem])[np.arange(address, address + values.size) % len(_MEANT[mem])]
        if mem < len(_KEPT_PACKED):
            getattr(s, _KEPT_PACKED[mem])[core, place] = values
            if mem == TYPES:
                spread_types(s)
        elif mem == V:
            s.v[core, place], s.refr[core, place] = _sign24(values), values >> 24
        elif mem in (U, ACCUMULATORS):
            {U: s.u, ACCUMULATORS: s.acc}[mem][core, place] = _sign24(values)
        elif mem == FIRED:
            bits = values[:, None] >> np.arange(32) & 1
            s.fired[core, 32 * address : 32 * (address + values.size)] = bits.reshape(-1)
        elif mem == REGISTERS:
            count = max(0, min(values.size, _WRITABLE_REGISTERS - address))
            s.registers[core, address : address + count] = values[:count]
        elif mem == COUNTERS:
            s.counts[core], s.over[core] = 0, 0
        else:
            {POST: s.post, PRE: s.pre, PENDING: s.pending.reshape(s.pending.shape[0], -1)}[mem][core, place] = values

    def read(self, core: int, mem: int, address: int = 0, count: int | None = None) -> np.ndarray:
        """uint64 items of memory ``mem``: ``count`` of them from ``address`` on, or all that follow."""
        count = self.memories[mem].items - address if count is None else count
        self._check(core, mem, address, count)
        return self._items(core, mem)[address : address + count].astype(np.uint64)

    def _items(self, core: int, mem: int) -> np.ndarray:
        s = self.state
        if mem < len(_KEPT_PACKED):
            return getattr(s, _KEPT_PACKED[mem])[core]
        if mem == V:
            return s.v[core] & 0xFFFFFF | s.refr[core] << 24
        if mem == FIRED:
            return (s.fired[core].astype(np.int64).reshape(-1, 32) << np.arange(32)).sum(axis=1)
        if mem == COUNTERS:
            counts = s.counts[core] & 0xFFFFFFFF
            counts[1] = s.counts[core, SYNOPS] >> 32 & 0xFFFFFFFF
            return counts
        arrays = {ACCUMULATORS: s.acc, U: s.u, POST: s.post, PRE: s.pre, PENDING: s.pending, REGISTERS: s.registers}
        items = arrays[mem][core].reshape(-1)
        return items & 0xFFFFFF if mem in (ACCUMULATORS, U) else items

    def _check(self, core: int, mem: int, address: int, count: int) -> None:
        if not 0 <= core < self.sizes.cores or not 0 <= mem < len(self.memories):
            raise UsageError(f"neurocore: core {core}, memory {mem}; there are {self.sizes.cores} cores, 16 memories")
        if address < 0 or count < 0 or address + count > self.memories[mem].items:
            raise UsageError(
                f"neurocore: items {address} to {address + count} of {self.memories[mem].name}, "
                f"which has {self.memories[mem].items}"
            )

    def inject(self, core: int, axons: np.ndarray, slot: int) -> None:
        """Set the bits of ``axons`` in ``slot`` (step modulo 16) of one core."""
        if not 0 <= core < self.sizes.cores:
            raise UsageError(f"neurocore: core {core}; there are {self.sizes.cores}")
        axons = np.asarray(axons, np.int64).reshape(-1) % self.sizes.axons
        np.bitwise_or.at(self.state.pending[core, slot % SLOTS], axons >> 5, np.int64(1) << (axons & 31))

    def step(self) -> np.ndarray:
        """Run one step; int32 [k, 2] of the logged (core, neuron), in ascending order."""
        return self._log[: advance(self.state, self._log)].copy()

    def run(self, steps: int, events: np.ndarray) -> np.ndarray:
        """Run steps with events int64 [n, 3] of (step from now, core, axon), sorted by step.

        Returns uint8 [steps, cores, N]: every neuron's spikes, logged or not.
        """
        fired = np.zeros((steps, *self.state.fired.shape), np.uint8)
        run(self.state, steps, np.ascontiguousarray(events, np.int64).reshape(-1, 3), 0, fired, self._log)
        return fired

    def over(self) -> np.ndarray:
        """What left its range since the counters were zeroed: int64 [cores, N, 3] of sums, u and v."""
        return self.state.over

    def restart(self) -> None:
        """Step 0 and zero state; weights, tables and counters stay."""
        for name in _RESTARTED:
            getattr(self.state, name)[:] = 0
        self.state.registers[:, REGISTER_STEP] = 0


def _sign24(values: np.ndarray) -> np.ndarray:
    low = values & 0xFFFFFF
    return low - (low >> 23 << 24)


def _zero(image: Image) -> State:
    sizes, table = image.sizes, memories(image.sizes)

    def zeros(*shape: int, dtype: type = np.int64) -> np.ndarray:
        return np.zeros((sizes.cores, *shape), dtype)

    packed = {name: zeros(table[mem].items) for mem, name in enumerate(_KEPT_PACKED)}
    somas = {name: zeros(sizes.neurons) for name in ("u", "v", "refr", "acc", "post")}
    return State(
        **packed,
        **somas,
        pre=zeros(sizes.axons),
        pending=zeros(SLOTS, sizes.axons // 32),
        fired=zeros(sizes.neurons, dtype=np.uint8),
        registers=zeros(16),
        counts=zeros(16),
        table=zeros(sizes.types, 9),
        over=zeros(sizes.neurons, 3),
    )
