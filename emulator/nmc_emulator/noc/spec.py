"""What the network on chip can carry, where the price profile does not say it."""

from __future__ import annotations

from dataclasses import dataclass

from nmc_compiler.errors import UsageError


@dataclass(frozen=True)
class NocSpec:
    """Bandwidth and buffers of the mesh; times of hops and cores come from the price profile.

    flit_ns: time in which a link carries one flit; a core takes flits from its router at the same rate.
    The default is one spike in 1/3.44 ns: "cross-section bandwidth 3.44 Gspike/s per tile link",
    Loihi 1, Davies et al., IEEE Micro 38(1), 2018, Table 2 (transcribed).
    flits: flits of a packet; 1, as that figure is given in spikes.
    buffer_flits: room at the far end of a link, and at a core's axon input. 16: ``link_buffer_size`` of
    SANA-FE, arch/loihi.yaml.
    crossing_ns: time of a link between chips. Nobody has published it: None refuses packets that cross.
    tick_limit_ns: a longer tick is an overload, reported with what chokes; None: no limit.
    """

    flit_ns: float = 1 / 3.44
    flits: int = 1
    buffer_flits: int = 16
    crossing_ns: float | None = None
    tick_limit_ns: float | None = None

    def __post_init__(self) -> None:
        if not 0.001 <= self.flit_ns <= 1e6:
            raise UsageError(f"flit_ns is {self.flit_ns}: a flit takes 0.001 to 1e6 ns")
        if not 1 <= self.flits <= self.buffer_flits <= 4096:
            raise UsageError(
                f"flits {self.flits}, buffer_flits {self.buffer_flits}: a buffer holds at least one whole packet,"
                " 1 <= flits <= buffer_flits <= 4096"
            )
        for name in ("crossing_ns", "tick_limit_ns"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1e9:
                raise UsageError(f"{name} is {value}: a time from 0 to 1e9 ns, or None")

    @property
    def slots(self) -> int:
        """Whole packets that a buffer holds."""
        return self.buffer_flits // self.flits
