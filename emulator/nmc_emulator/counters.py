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
    "synops_ac": "conv",
    "synops_mac": "conv",
    "synops_ac_dense": "conv",
    "synops_mac_dense": "conv",
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
    """How many units of a kind ("population", "conv", "map", ...) a Program has."""
    return {
        "population": len(program.populations),
        "conv": len(program.convs),
        "map": len(program.maps),
        "dynamic": len(program.dynamics),
        "projection": len(program.convs) + len(program.maps) + len(program.dynamics),
        "transfer": len(program.transfers),
        "current": len(program.host_currents),
    }[kind]


@dataclass(frozen=True)
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
        """Tables of zeros for a Program on ``cores`` cores."""
        return Counters(
            {n: np.zeros((unit_count(program, k), cores + 1), np.int64) for n, k in TABLES.items()},
            dict.fromkeys(BOUND, 0),
            {n: np.zeros(len(program.populations), np.int64) for n in OVERFLOW},
        )

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
