"""Attention tables that live longer than a timestep: their decay as 12 bits, and fraction bits below a count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.ops_attention import KEEP_ONE, MAX_FRACTION

ENTRY_MAX = (1 << 16) - 1  # of a table (docs/integers.md)
FRACTION = 8  # bits that a decay other than 2^-j is given


@dataclass(frozen=True)
class LastingTable:
    """keep int32 [heads], of 4096; ``frac`` bits below a count; ``exact``: no table ever loses a bit."""

    keep: np.ndarray
    frac: int
    exact: bool
    remark: str


def lasting(graph: Graph, node: Node) -> LastingTable | None:
    """What the table of an attention product needs; None where it lives for a timestep.

    LoweringError where an entry could leave its 16 bits.
    """
    if node.attr("lifetime", "step") == "step":
        return None
    value = node.attr("decay", 1.0)
    given = np.asarray(value if isinstance(value, (int, float)) else graph.tensors[value.key], np.float64)
    decay = np.broadcast_to(given, (node.attr("heads"),))
    keep = np.rint(KEEP_ONE * decay).astype(np.int32)
    wanted, halves = _wanted(decay, _steps(graph, node))
    whole = most_of(graph, node)
    if whole > ENTRY_MAX:
        raise LoweringError(
            f"the table of attention '{label(node)}' can come to {whole} within {_steps(graph, node)} timesteps, an "
            f"entry of 16 bits holds {ENTRY_MAX}; train it with fewer tokens, timesteps (block) or a stronger decay"
        )
    frac = min(wanted, MAX_FRACTION, int(math.log2(ENTRY_MAX / max(whole, 1))))
    exact = halves and frac >= wanted and bool((keep == KEEP_ONE * decay).all())
    remark = f"the table keeps {frac} bits below a count (wanted {wanted}), its decays are rounded to 12 bits"
    return LastingTable(keep, frac, exact, "" if exact else remark)


def _steps(graph: Graph, node: Node) -> int:
    """Timesteps that a table adds up."""
    return min(node.attr("block", graph.timesteps), graph.timesteps) or graph.timesteps


def _wanted(decay: np.ndarray, steps: int) -> tuple[int, bool]:
    """Fraction bits that lose nothing, and whether there are such."""
    powers = [-math.log2(d) for d in decay.tolist() if d > 0]
    if all(p == round(p) for p in powers):
        return int(max(powers, default=0.0)) * (steps - 1), True
    return FRACTION, False


def most_of(graph: Graph, node: Node) -> int:
    """Largest entry of a table, in counts: every k and v of every token at its largest code."""
    value = node.attr("decay", 1.0)
    given = np.asarray(value if isinstance(value, (int, float)) else graph.tensors[value.key], np.float64)
    steps, decay = _steps(graph, node), float(given.max())
    piled = steps if decay >= 1 else (1 - decay**steps) / (1 - decay)
    k, v = (graph.node(i).type for i in node.operands[1:])
    tops = [1 if t.kind is Kind.SPIKE else (1 << t.bits) - 1 for t in (k, v)]
    return math.ceil(k.shape[1] * k.shape[2] * tops[0] * tops[1] * piled)


def decays(graph: Graph, node: Node, by_id: dict[str, Node]) -> bool:
    """Whether a current of counts holds parts of counts: a table below it decays."""
    if node.op == "attn":
        table = lasting(graph, node)
        return table is not None and bool((table.keep != KEEP_ONE).any())
    inside = (by_id[i] for i in node.operands)
    return node.op in ("add", "sum_positions", "maxpool2d") and any(decays(graph, n, by_id) for n in inside)
