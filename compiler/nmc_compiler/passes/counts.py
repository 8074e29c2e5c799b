"""Exact integer forms of neurons that read counts (attention products, gates)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Node, label
from nmc_compiler.passes.gates import input_gain

GRAIN = 6  # vth and currents are in units of 2^6 membrane units


@dataclass(frozen=True)
class CountNeuron:
    """How a neuron reads counts: a = min(count, saturate) << shift."""

    shift: int
    saturate: int
    vth: int = 0
    dv: int = 4096
    thresholds: tuple[int, ...] = ()
    exact: bool = True
    remark: str = ""


def decay_constant(node: Node) -> tuple[int, bool]:
    """12-bit dv for (1 - 1/tau), and whether it is exact."""
    exact = 4096.0 / float(node.attr("tau"))
    return int(round(exact)), exact == round(exact)


def lif_on_counts(node: Node, step: float, timesteps: int, vth_max: int) -> CountNeuron:
    """Fire where W = lambda*W + count reaches K = theta/(kappa*step) (models.md, fact E2).

    For lambda = 2^-j, W is a multiple of 2^-j(T-1); with counts scaled by that power every potential lies on the
    64-grain, and W >= K is V > vth << 6 with vth = ceil(K * 2^shift) - 1.  Counts only add, and from
    K on one count fires whatever v was, so saturating at or above K changes nothing.
    """
    if node.attr("reset") != "hard" or node.attr("v_reset", 0.0) != 0.0:
        raise LoweringError(
            f"neuron '{label(node)}' reads counts with reset {node.attr('reset')!r}; only hard to 0 is lowered"
        )
    k = float(node.attr("theta")) / (input_gain(node) * step)
    dv, dv_exact = decay_constant(node)
    keep = 1.0 - dv / 4096.0
    halvings = 0 if keep == 0 else -math.log2(keep)
    wanted = int(round(halvings)) * (timesteps - 1) if halvings == round(halvings) else 2 * (timesteps - 1)
    room = int(math.floor(math.log2(vth_max / max(k, 1.0))))
    if room < 0:
        raise LoweringError(
            f"neuron '{label(node)}' fires at a count of {k:g}, above the largest threshold {vth_max} of the target"
        )
    shift = max(0, min(wanted, room))
    scaled = k * 2**shift
    vth = math.ceil(scaled) - 1 if node.attr("compare") == "ge" else math.floor(scaled)
    exact = dv_exact and halvings == round(halvings) and shift >= wanted
    remark = (
        ""
        if exact
        else f"potentials within 2^-{shift} of the threshold {k:g} may differ (wanted {wanted} fraction bits)"
    )
    return CountNeuron(shift, vth_max >> shift, vth, dv, exact=exact, remark=remark)


def levels_on_counts(node: Node, step: float, vth_max: int) -> CountNeuron:
    """Smallest count of each level of round(clamp(count*step*gain, 0, D)) (models.md, fact E6)."""
    factor = step * float(node.attr("gain", 1.0))
    firsts = tuple(_first_count(n, factor, node.attr("rounding")) for n in range(1, node.attr("levels") + 1))
    if firsts[-1] > vth_max:
        raise LoweringError(
            f"neuron '{label(node)}' reaches its last level at a count of {firsts[-1]}, above {vth_max}"
        )
    return CountNeuron(0, vth_max, thresholds=tuple(c << GRAIN for c in firsts))


def _first_count(level: int, factor: float, rounding: str) -> int:
    near = int((level - 0.5) / factor)
    for count in range(max(near - 1, 0), near + 3):
        x = count * factor
        if (np.rint(x) if rounding == "half_even" else math.floor(x + 0.5)) >= level:
            return count
    raise LoweringError(f"no count near {near} reaches level {level} at {factor:g} per count")
