"""Exact integer forms of neurons that read counts (attention products, gates)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Node, label
from nmc_compiler.graph.types import Kind
from nmc_compiler.passes.gates import input_gain

GRAIN = 6  # vth and currents are in units of 2^6 membrane units
STREAM_BITS = 24  # below a count where potentials live on without end
ROUNDING = 2.0**-21  # a few units in the last place of float32, in which models are trained: closer is a tie


@dataclass(frozen=True)
class CountNeuron:
    """How a neuron reads counts: a = min(count, saturate) << shift; ``cell``: attributes of a soma of microcode."""

    shift: int
    saturate: int
    vth: int = 0
    dv: int = 4096
    thresholds: tuple[int, ...] = ()
    exact: bool = True
    remark: str = ""
    cell: dict[str, Attr] | None = None


@dataclass(frozen=True)
class CountBound:
    """Largest count at a neuron: ``tables`` attention products, each saturated, plus ``fixed`` from maps."""

    tables: int
    fixed: int

    def of(self, saturate: int) -> int:
        return self.tables * saturate + self.fixed


def table_bound(node: Node, by_id: dict[str, Node]) -> int:
    """Largest sum that an attention product below a current can give; 0 where there is none."""
    if node.op != "attn":
        return max((table_bound(by_id[i], by_id) for i in node.operands if not by_id[i].type.is_event), default=0)
    if node.attr("lifetime", "step") != "step":
        raise LoweringError(
            f"attention '{label(node)}' has a table that lasts, and its neuron keeps what a spike leaves; not lowered; "
            f"train the neuron with a hard reset"
        )
    parts = [by_id[i].type for i in node.operands]
    channels, h, w = parts[0].shape
    tops = [1 if t.kind is Kind.SPIKE else (1 << t.bits) - 1 for t in parts]
    return channels // int(node.attr("heads")) * h * w * math.prod(tops)


def count_bound(node: Node, by_id: dict[str, Node]) -> CountBound:
    """What the leaves below a current of counts can sum to."""
    if node.op == "attn":
        return CountBound(1, 0)
    if node.op == "map":
        source = by_id[node.operands[0]].type
        top = 1 if source.kind is Kind.SPIKE else (1 << source.bits) - 1
        block = (source.shape[0] // node.type.shape[0], 1)
        windows = {"reduce": source.shape[1:], "window": node.attr("kernel"), "reduce_channels": block}
        window = windows.get(node.attr("mode"), (1, 1))
        return CountBound(0, top * math.prod(window))
    parts = [count_bound(by_id[i], by_id) for i in node.operands]
    times = math.prod(by_id[node.operands[0]].type.shape[1:]) if node.op == "sum_positions" else 1
    return CountBound(times * sum(p.tables for p in parts), times * sum(p.fixed for p in parts))


def decay_constant(node: Node) -> tuple[int, bool]:
    """12-bit dv for (1 - 1/tau), and whether it is exact."""
    exact = 4096.0 / float(node.attr("tau"))
    return int(round(exact)), exact == round(exact)


def halvings_of(dv: int, exact: bool) -> int | None:
    """j where a decay keeps 2^-j of a potential (0 also where it keeps nothing), None for any other decay."""
    keep = 4096 - dv
    if not exact or keep & (keep - 1):
        return None
    return 13 - keep.bit_length() if keep else 0


def check_neuron(node: Node) -> None:
    """Refuse thresholds or gains that are not above 0."""
    gain = float(node.attr("gain", 1.0))
    if node.op == "multilevel" and gain <= 0:
        raise LoweringError(f"neuron '{label(node)}' has an input gain of {gain:g}; it must be above 0 on this target")
    theta = float(node.attr("theta", 1.0)) - float(node.attr("v_reset", 0.0))
    if node.op == "lif" and (gain <= 0 or theta <= 0):
        raise LoweringError(
            f"neuron '{label(node)}' has a threshold {theta:g} above its reset and an input gain of {gain:g}; "
            f"both must be above 0 on this target"
        )


def or_on_counts(node: Node, bound: CountBound, current_max: int) -> CountNeuron:
    """Any count fires (models.md, fact E1): V = 2*count against a threshold of 1."""
    room_for(node, bound.of(1), 1, current_max)
    return CountNeuron(1, 1, vth=1)


def lif_on_counts(
    node: Node,
    step: float,
    timesteps: int,
    bound: CountBound,
    current_max: int,
    kept: tuple[float, tuple[int, bool]] | None = None,
) -> CountNeuron:
    """Fire where W = lambda*W + count reaches K = theta/(kappa*step) (models.md, fact E2).

    For lambda = 2^-j, W is a multiple of 2^-j(T-1); with counts scaled by that power every potential lies on the
    64-grain, and W >= K is V > vth << 6 with vth = ceil(K * 2^shift) - 1.  Counts only add, and from
    K on one count fires whatever v was, so saturating there changes nothing.

    kept: kappa and decay of other neurons than a lif.
    """
    if node.attr("v_reset", 0.0) != 0.0:
        raise LoweringError(
            f"neuron '{label(node)}' reads counts and resets to {node.attr('v_reset'):g}; only 0 is lowered"
        )
    kappa, (dv, exact) = kept or (input_gain(node), decay_constant(node))
    k = float(node.attr("theta")) / (kappa * step)
    halvings = halvings_of(dv, exact)
    wanted = (2 if halvings is None else halvings) * (timesteps - 1) if timesteps else STREAM_BITS
    first = first_above(k, node.attr("compare"))
    shift = min(wanted, room_for(node, bound.of(first) + math.ceil(first * (4096 - dv) / 4096), 0, current_max))
    scaled, tie = _settled(k * 2**shift)
    clear = not tie or _short(step, node.attr("theta"), node.attr("gain", 1.0))
    exact = halvings is not None and (shift >= wanted and timesteps > 0 or halvings == 0) and clear
    remark = (
        ""
        if exact
        else f"potentials within 2^-{shift} of the threshold {k:g} may differ (wanted {wanted} fraction bits)"
    )
    return CountNeuron(shift, first, first_above(scaled, node.attr("compare")) - 1, dv, exact=exact, remark=remark)


def levels_on_counts(node: Node, step: float, bound: CountBound, current_max: int) -> CountNeuron:
    """Smallest count of each level of round(clamp(count*step*gain, 0, D)) (models.md, fact E6)."""
    factor = step * float(node.attr("gain", 1.0))
    levels = range(1, node.attr("levels") + 1)
    firsts = tuple(_first_count(n, factor, node.attr("rounding")) for n in levels)
    room_for(node, bound.of(firsts[-1]), 0, current_max)
    ties = [n for n in levels if _settled((n - 0.5) / factor)[1] and not _short(factor)]
    remark = f"the count at which level {ties[0]} starts depends on how {factor:g} is rounded" if ties else ""
    thresholds = tuple(c << GRAIN for c in firsts)
    return CountNeuron(0, firsts[-1], thresholds=thresholds, exact=not ties, remark=remark)


def room_for(node: Node, largest: int, least: int, current_max: int) -> int:
    """Largest shift at which that count stays in its register."""
    room = (current_max // max(largest, 1)).bit_length() - 1
    if room < least:
        raise LoweringError(
            f"neuron '{label(node)}' reads counts up to {largest}, which shifted by {least} exceed the "
            f"{current_max} of this target's current register"
        )
    return room


def first_above(k: float, compare: str) -> int:
    """Smallest whole number that is >= k ("ge"), or > k ("gt"); k within float32 rounding of a whole one is that."""
    k, _ = _settled(k)
    return math.ceil(k) if compare == "ge" else math.floor(k) + 1


def _settled(k: float) -> tuple[float, bool]:
    """A number within float32 rounding of a whole one is that whole one, a tie."""
    near = float(round(k))
    tie = abs(k - near) <= ROUNDING * max(abs(k), 1.0)
    return (near, True) if tie else (k, False)


def _short(*values: float) -> bool:
    """Whether all have so few mantissa bits that products with counts are exact in float32."""
    return all(abs(math.frexp(float(v))[0]) * 2**8 % 1 == 0 for v in values)


def _first_count(level: int, factor: float, rounding: str) -> int:
    near = int((level - 0.5) / factor)
    for count in range(max(near - 1, 0), near + 3):
        x = count * factor
        if (np.rint(x) if rounding == "half_even" else math.floor(x + 0.5)) >= level:
            return count
    raise LoweringError(f"no count near {near} reaches level {level} at {factor:g} per count")
