"""Bit Budget, S-ACE and the traffic of residual streams: numbers that papers leave out or count in bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nmc.formula import FormulaRow
from nmc_compiler.graph import Graph

SOURCE = (
    "Shen et al., CVPR 2024; the formula is recalled, not verified: S-ACE = sum of rate * ops * b_s * b_w, over all "
    "timesteps, NS-ACE with rate 1; Bit Budget = T * b_s * b_w, here the mean over layers, weighted by their ops"
)


@dataclass(frozen=True)
class Effort:
    """``s_ace`` and ``ns_ace`` in bit operations per sample; ``bit_budget``, their mean T * b_s * b_w.

    ``missing``: layers whose rate of events nobody knows, so that ``s_ace`` is None.
    """

    bit_budget: float
    s_ace: float | None
    ns_ace: float
    missing: tuple[str, ...]


def effort(rows: list[FormulaRow], events: Mapping[str, float], weights: int, inputs: int) -> Effort:
    """Of the rows of ``nmc.formula``. weights, inputs: bits of a weight, and of an element of a real input.

    events: by layer, nonzero elements of its input per element and timestep; a row of spikes has it as its rate.
    Real inputs count as nonzero.
    """
    full, spent, missing = list[float](), list[float](), list[str]()
    for row in rows:
        bits = inputs if row.bits is None else row.bits
        full.append(row.ops * bits * weights)
        rate = 1.0 if row.bits is None else row.rate if row.bits == 1 else events.get(row.layer)
        if rate is None:
            missing.append(row.layer)
        else:
            spent.append(full[-1] * rate)
    ops, ns_ace = math.fsum(row.ops / row.steps for row in rows), math.fsum(full)
    return Effort(ns_ace / ops if ops else 0.0, None if missing else math.fsum(spent), ns_ace, tuple(missing))


def residual_words(graph: Graph) -> int:
    """Words of the residual stream that a sample reads and writes (of a stream, one timestep): no paper counts them.

    For every sum of currents each operand but the first is added to it: one word read and one written for each of its
    elements and timesteps. What a chip does of it says ``accumulator_adds`` of the mapped network.
    """
    sums = (n for n in graph if n.op == "add" and not n.type.is_event)
    return sum(2 * (len(n.operands) - 1) * math.prod(n.type.shape) for n in sums) * max(graph.timesteps, 1)
