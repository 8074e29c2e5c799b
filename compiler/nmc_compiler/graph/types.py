"""Value kinds and types of SpikeGraph.

Every value of one timestep has the canonical shape (C, H, W): tokens are (C, H, W) with
N = H*W in row-major order, a vector is (C, 1, 1). The authors' own layout, where it
differs, is a ``record`` attribute of the neuron that made the spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Shape = tuple[int, int, int]


class Kind(StrEnum):
    """What flows along an edge."""

    REAL = "real"  # before the first neuron or after the last
    CURRENT = "current"  # accumulated input of a neuron
    SPIKE = "spike"  # 0 or 1
    GRADED = "graded"  # a small integer payload
    SITES = "sites"  # coordinates of the active sites of a volume (ops_sites)


@dataclass(frozen=True)
class ValueType:
    """Kind, shape, and for graded spikes the payload width in bits and its sign."""

    kind: Kind
    shape: Shape
    bits: int = 0
    signed: bool = False

    @property
    def is_event(self) -> bool:
        return self.kind in (Kind.SPIKE, Kind.GRADED)

    def __str__(self) -> str:
        suffix = f":{'s' if self.signed else 'u'}{self.bits}" if self.kind is Kind.GRADED else ""
        return f"{self.kind.value}[{','.join(map(str, self.shape))}]{suffix}"


EVIDENCE = ("checkpoint", "config", "family", "trace", "default", "derived", "target")


@dataclass(frozen=True)
class Ref:
    """Name of an array in the graph's tensor table."""

    key: str


AttrValue = int | float | str | bool | tuple | Ref


@dataclass(frozen=True)
class Attr:
    """One attribute with the place its value came from (one of EVIDENCE)."""

    value: AttrValue
    evidence: str = "derived"
