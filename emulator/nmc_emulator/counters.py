"""Counters of a run, as defined in docs/counters.md: one integer table per counter.

A table is int64 [units, cores + 1]; a unit is a population, projection, transfer or host
current, and the last column is the host. Tables of two runs of one Program add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.program.model import Program

# counter -> what its rows are
TABLES: dict[str, str] = {
    "events": "population",
    "payload_sum": "population",
    "packets": "population",
    "packets_local": "population",
    "packets_in": "population",
    "hops_ew": "population",
    "hops_ns": "population",
    "chip_crossings": "population",
    "input_messages": "population",
    "neuron_updates": "population",
    "bias_events": "population",
    "synops_ac": "synaptic",
    "synops_mac": "synaptic",
    "synops_ac_dense": "synaptic",
    "synops_mac_dense": "synaptic",
    "map_ops": "map",
    "dyn_writes": "dynamic",
    "dyn_reads": "dynamic",
    "dyn_writes_dense": "dynamic",
    "dyn_reads_dense": "dynamic",
    "axon_reads": "projection",
    "waste_events": "projection",
    "pool_compares": "transfer",
    "accumulator_adds": "transfer",
    "current_messages": "current",
    "host_macs": "current",
}

BOUND = ("synops", "neuron_updates", "memory_reads", "link_packets")
OVERFLOW = ("accumulator", "u", "v", "payload")


def unit_count(program: Program, kind: str) -> int:
    """How many units of a kind a Program has; "synaptic" are Convs and then Sparses, "projection" all projections."""
    synaptic = len(program.convs) + len(program.sparses)
    return {
        "population": len(program.populations),
        "synaptic": synaptic,
        "map": len(program.maps),
        "dynamic": len(program.dynamics),
        "projection": synaptic + len(program.maps) + len(program.dynamics),
        "transfer": len(program.transfers),
        "current": len(program.host_currents),
    }[kind]


def _block(parts: dict[str, np.ndarray]) -> np.ndarray:
    """The memory that all tables of a kind are parts of."""
    base = next(iter(parts.values())).base
    if base is None:
        raise ValueError("counters were not made by Counters.zeros")
    return base


@dataclass(frozen=True, eq=False)
class Counters:
    """All counters of a run.

    ``tables``: name -> int64 [units, cores + 1], the last column for the host.
    ``bound``: critical op counts, summed over ticks.  ``overflow``: name -> int64 [populations].
    """

    tables: dict[str, np.ndarray]
    bound: dict[str, int]
    overflow: dict[str, np.ndarray]

    @staticmethod
    def zeros(program: Program, cores: int) -> Counters:
        """Tables of zeros for a Program on ``cores`` cores; they are parts of one block of memory."""
        rows = {n: unit_count(program, k) for n, k in TABLES.items()}
        block = np.zeros((sum(rows.values()), cores + 1), np.int64)
        return _parts(block, rows, np.zeros((len(program.populations), len(OVERFLOW)), np.int64))

    @property
    def flat(self) -> np.ndarray:
        """All tables as one array, int64 [cells]; writable."""
        return _block(self.tables).reshape(-1)

    def cell(self, name: str, unit: int, column: int) -> int:
        """Where a table's entry stands in ``flat``."""
        table = self.tables[name]
        first = sum(len(self.tables[n]) for n in list(TABLES)[: list(TABLES).index(name)])
        return (first + unit) * table.shape[1] + column % table.shape[1]

    def overflow_of(self, population: int) -> np.ndarray:
        """The overflow counts of one population, in the order of OVERFLOW; writable."""
        return _block(self.overflow)[population]

    def add(self, other: Counters, times: int) -> None:
        """Add the tables of ``other``, ``times`` times."""
        _block(self.tables)[:] += _block(other.tables) * times

    def take(self) -> Counters:
        """A copy of all counters, which start again from zero."""
        rows = {n: len(t) for n, t in self.tables.items()}
        taken = _parts(_block(self.tables).copy(), rows, _block(self.overflow).copy())
        taken.bound.update(self.bound)
        self.clear()
        return taken

    def clear(self) -> None:
        """Start again from zero."""
        _block(self.tables)[:] = 0
        _block(self.overflow)[:] = 0
        self.bound.update(dict.fromkeys(BOUND, 0))

    @property
    def cores(self) -> int:
        """Number of cores (columns without the host's)."""
        return self.tables["events"].shape[1] - 1

    def total(self, name: str) -> int:
        """Sum of a table over units, cores and host."""
        return int(self.tables[name].sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counters) and not self.differences(other)

    __hash__ = None  # type: ignore[assignment]

    def differences(self, other: Counters) -> list[str]:
        """Names of the counters that differ: tables, then ``bound.*``, then ``overflow.*``."""
        found = [n for n in TABLES if not np.array_equal(self.tables[n], other.tables[n])]
        found += [f"bound.{n}" for n in BOUND if self.bound[n] != other.bound[n]]
        return found + [f"overflow.{n}" for n in OVERFLOW if not np.array_equal(self.overflow[n], other.overflow[n])]


def _parts(block: np.ndarray, rows: dict[str, int], overflow: np.ndarray) -> Counters:
    """Counters that are views of ``block`` and ``overflow``."""
    tables, start = {}, 0
    for name, count in rows.items():
        tables[name] = block[start : start + count]
        start += count
    return Counters(tables, dict.fromkeys(BOUND, 0), {n: overflow[:, i] for i, n in enumerate(OVERFLOW)})
