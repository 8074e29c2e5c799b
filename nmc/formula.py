"""The energy formula of papers, as its authors apply it: 4.6 pJ per MAC, 0.9 pJ per AC, operations times firing rate.

E = E_MAC * sum MAC + E_AC * sum AC, with AC = rate * ops of a layer whose input is spikes, MAC = ops of one whose
input is real. Prices: Horowitz 2014 (profile ``cmos45-horowitz``); who counts what: docs/report.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.types import Kind
from nmc_emulator.cost import FORMULA_PROFILE
from nmc_emulator.price_profile import load_profile


@dataclass(frozen=True)
class Variant:
    """What is counted. ``bias``: an addition per output and timestep; ``first``: the first layer in every timestep.

    ``attention``: products of q, k and v.
    """

    name: str
    bias: bool
    first: bool
    attention: bool


VARIANTS = {
    v.name: v
    for v in (
        Variant("papers", bias=False, first=False, attention=True),
        Variant("spikingformer", bias=True, first=True, attention=True),  # the published logs of its authors
    )
}


@dataclass(frozen=True)
class FormulaRow:
    """One layer: ``ops`` with every input active in every timestep, of them ``acs`` or ``macs``; the ``rate``."""

    layer: str
    ops: float
    acs: float
    macs: float
    rate: float


@dataclass(frozen=True)
class FormulaEnergy:
    """Rows, products of attention in AC, and the energy of all in pJ."""

    rows: list[FormulaRow]
    attention_acs: float

    @property
    def macs(self) -> float:
        return math.fsum(row.macs for row in self.rows)

    @property
    def acs(self) -> float:
        return math.fsum([*(row.acs for row in self.rows), self.attention_acs])

    @property
    def picojoules(self) -> float:
        prices = load_profile(FORMULA_PROFILE)
        return prices.energy({"mac_fp32": self.macs, "ac_fp32": self.acs}).total_pj


def dense_ops(graph: Graph, node: Node, variant: Variant) -> int:
    """Operations of a convolution over all timesteps of a sample, every input active, padding counted as input."""
    weight = graph.tensor(node, "weight")
    assert weight is not None
    positions = math.prod(node.type.shape[1:])
    ops = int(weight.size) * positions
    end = _readout_behind(graph, node)
    if variant.bias and (node.attr("bias") is not None or (end is not None and end.attr("bias") is not None)):
        ops += node.type.shape[0] * positions
    source = graph.by_id()[node.operands[0]]
    once = source.type.kind is Kind.REAL and not variant.first and not graph.input_time
    # A linear read-out of what no neuron made spikes of stands behind the mean over time, and is computed once.
    once |= end is not None and not source.type.is_event
    return ops * (1 if once else max(graph.timesteps, 1))


def _readout_behind(graph: Graph, node: Node) -> Node | None:
    """The read-out that a layer goes to, itself or scaled."""
    users = graph.users()
    readers = users[node.id]
    while len(readers) == 1 and readers[0].op == "scale":
        readers = users[readers[0].id]
    return readers[0] if [r.op for r in readers] == ["readout"] else None


def formula(graph: Graph, rates: Mapping[str, float], variant: str = "papers") -> FormulaEnergy:
    """Apply the formula to a float graph.

    rates: by layer, mean input per element and timestep where that is events; by ``NAME.q``, ``NAME.k``, ``NAME.v`` of
    each attention product.  UsageError for an unknown variant or a rate that is missing.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no variant '{variant}' of the formula; choose of {', '.join(VARIANTS)}")
    kind, rows, attention = VARIANTS[variant], [], 0.0
    for node in graph:
        if node.op == "conv2d":
            rows.append(_row(graph, node, rates, kind))
        elif node.op == "attn" and kind.attention:
            attention += _attention(graph, node, rates)
    return FormulaEnergy(rows, attention)


def _row(graph: Graph, node: Node, rates: Mapping[str, float], kind: Variant) -> FormulaRow:
    name, ops = label(node), dense_ops(graph, node, kind)
    if not graph.by_id()[node.operands[0]].type.is_event:
        return FormulaRow(name, ops, 0.0, ops, 1.0)
    rate = _rate(rates, name)
    return FormulaRow(name, ops, ops * rate, 0.0, rate)


def _attention(graph: Graph, node: Node, rates: Mapping[str, float]) -> float:
    """T h N d^2 (min(r_k, r_v) + r_q): k^T v and then q of it, as the authors of Spikingformer count."""
    q, _, v = (graph.by_id()[i].type.shape for i in node.operands)
    heads, tokens, name = int(node.attr("heads")), math.prod(q[1:]), label(node).lstrip("%")
    rq, rk, rv = (_rate(rates, f"{name}.{role}") for role in "qkv")
    products = tokens * (q[0] // heads) * (v[0] // heads) * heads
    return max(graph.timesteps, 1) * products * (min(rk, rv) + rq)


def _rate(rates: Mapping[str, float], name: str) -> float:
    if name not in rates or not np.isfinite(rates[name]) or rates[name] < 0:
        raise UsageError(f"the formula needs the rate of the input of '{name}', got {rates.get(name)}")
    return float(rates[name])
