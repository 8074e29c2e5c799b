"""Times of the operations of one Program, in whole picoseconds, from a price profile of kind latency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program

from .cost import MAP_TERMS, conv_format, owners
from .price_profile import PriceProfile
from .statics import biased

PS = 1000  # picoseconds in a nanosecond


@dataclass(frozen=True)
class Rates:
    """ps per operation. ``conv``, ``map``, ``sparse``: per SynOp or map operation of each projection.

    floor: the least time of a tick, 0 where the profile has none.
    """

    active: int
    inactive: int
    spike_out: int
    axon_out: int
    axon_in: int
    hop_ew: int
    hop_ns: int
    bias: int
    compare: int
    add: int
    dyn_read: int
    dyn_write: int
    barrier: int
    floor: int
    conv: tuple[int, ...]
    map: tuple[int, ...]
    sparse: tuple[int, ...]


def _lookup(program: Program, profile: PriceProfile) -> Callable[[str, bool], int]:
    """Time of a term in ps; a term that is needed and that nobody has published is refused."""

    def find(term: str, needed: bool = True) -> int:
        value = profile.price(term) if needed else 0.0
        if value is None:
            raise UsageError(
                f"price profile {profile.name} has no time for '{term}', which Program '{program.name}' needs:"
                f" {profile.prices[term].note or 'not stated'} Choose a profile that assumes one, such as"
                " loihi2-assumed-rates, or write your own (docs/timing.md)"
            )
        return round(value * PS)

    return find


def rates_of(program: Program, profile: PriceProfile) -> Rates:
    """Times of everything a Program does; UsageError for a profile of energies or a missing time."""
    if profile.kind != "latency":
        raise UsageError(
            f"price profile {profile.name} holds energies, not times; choose one of kind latency,"
            " such as loihi2-extrapolated-rates"
        )
    find, p = _lookup(program, profile), program
    roles = [p.populations[i].role for i in owners(p)["map"]]
    moves = [t.mode for t in p.transfers]
    return Rates(
        active=find("neuron_active", True),
        inactive=find("neuron_inactive", True),
        spike_out=find("spike_out", True),
        axon_out=find("axon_out", True),
        axon_in=find("axon_in", True),
        hop_ew=find("hop_ew", True),
        hop_ns=find("hop_ns", True),
        bias=find("bias_event", any(biased(q).any() for q in p.populations)),
        compare=find("pool_compare", "maxpool" in moves),
        add=find("accumulator_add", bool(moves)),
        dyn_read=find("dyn_read", bool(p.dynamics)),
        dyn_write=find("dyn_write", bool(p.dynamics)),
        barrier=find("barrier", True),
        floor=round((profile.price("timestep_floor") or 0.0) * PS),
        conv=tuple(find(conv_format(p, c), True) for c in p.convs),
        map=tuple(find(MAP_TERMS.get(role, "accumulator_add"), True) for role in roles),
        sparse=tuple(find("synop_sparse", True) for _ in p.sparses),
    )
