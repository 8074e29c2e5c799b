"""The energy formula of papers, as its authors apply it: 4.6 pJ per MAC, 0.9 pJ per AC, operations times firing rate.

E = E_MAC * sum MAC + E_AC * sum AC, with AC = rate * ops of a layer whose input is spikes, MAC = ops of one whose
input is real. Prices: Horowitz 2014 (profile ``cmos45-horowitz``); who counts what: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nmc.work import CONNECTIONS
from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.ops_sites import EMPTY, pairs
from nmc_compiler.graph.types import Kind, ValueType
from nmc_emulator.cost import FORMULA_PROFILE
from nmc_emulator.price_profile import load_profile

NUMBERS = ("fp32", "fp16", "int32", "int8")  # of which the profile has prices


@dataclass(frozen=True)
class Variant:
    """What is counted.

    ``bias``: an addition per output and timestep.  ``first``: the first layer in every timestep, though its image
    stands still.  ``codes``: inputs of more than one bit are as many binary spikes as their sum ("spikes": T x D
    virtual timesteps of a binary rate), or dense multiplications ("macs").  ``attention``: products of q, k and v, as
    T h N d^2 (min(r_k, r_v) + r_q).  ``masks``: sums over tokens behind a mask (SDSA-1), as T r N C.  ``dense``: the
    network without spikes: every layer once, in multiplications.  ``pairs``: of convolutions between active sites
    alone, 2 pairs C_in C_out - N_out of them at the price of a MAC.
    """

    name: str
    what: str
    bias: bool = False
    first: bool = False
    codes: str = "spikes"
    attention: bool = True
    masks: bool = False
    dense: bool = False
    pairs: bool = False


VARIANTS = {
    v.name: v
    for v in (
        Variant(
            "papers",
            "as most papers count: no biases, the first layer once, a code of several bits as so many binary spikes "
            "(T x D timesteps of a binary rate), products of q, k and v; no norms, pools, masks, neurons or memory",
        ),
        Variant(
            "spikingformer",
            "as the published logs of Spikingformer: an addition per bias, the first layer in every timestep, inputs "
            "of more than one bit in dense multiplications, products of q, k and v",
            bias=True,
            first=True,
            codes="macs",
        ),
        Variant(
            "sdt_v1",
            "as 'papers', and T r N C additions of each mask of SDSA-1, r the rate of what is summed over tokens "
            "(our reading of the paper, not verified)",
            masks=True,
        ),
        Variant(
            "ann",
            "the same layers without spikes: each once, in dense multiplications; the products of q, k and v as "
            "2 h N d^2",
            dense=True,
        ),
        Variant(
            "e3dsnn",
            "as the comments in the code of E-3DSNN: of convolutions between active sites alone 2 pairs C_in C_out - "
            "N_out operations, each at the price of a multiplication: an ANN's figure",
            attention=False,
            pairs=True,
        ),
    )
}

ON_HOST = ("real_linear", "real_matmul", "gated_table", "window_attention")  # their MACs are in the report's "host"


@dataclass(frozen=True)
class FormulaRow:
    """One layer: ``ops`` with every input active in every timestep, of them ``acs`` or ``macs``; the ``rate``.

    ``bits`` of its input: 1 of spikes, None of real values.  ``steps``: how many times it is computed for a sample.
    ``node``: its id in the graph.
    """

    layer: str
    ops: float
    acs: float
    macs: float
    rate: float
    bits: int | None = None
    steps: int = 1
    node: str = ""


@dataclass(frozen=True)
class FormulaEnergy:
    """Rows of layers with weights, and of products of attention and sums behind masks.

    ``missing``: what has operations that nobody knows, so that every number is a lower bound.
    """

    rows: list[FormulaRow]
    products: list[FormulaRow]
    missing: tuple[str, ...] = ()

    @property
    def macs(self) -> float:
        return math.fsum(row.macs for row in (*self.rows, *self.products))

    @property
    def acs(self) -> float:
        return math.fsum(row.acs for row in (*self.rows, *self.products))

    @property
    def picojoules(self) -> float:
        """With prices of fp32, as papers have it."""
        return self.priced("fp32")

    def priced(self, numbers: str) -> float:
        """pJ with prices of fp32, fp16, int32 or int8; UsageError for any other."""
        if numbers not in NUMBERS:
            raise UsageError(f"no prices of {numbers} in {FORMULA_PROFILE}; choose of {', '.join(NUMBERS)}")
        prices = load_profile(FORMULA_PROFILE)
        return prices.energy({f"mac_{numbers}": self.macs, f"ac_{numbers}": self.acs}).total_pj


def formula(graph: Graph, rates: Mapping[str, float], variant: str = "papers", partial: bool = False) -> FormulaEnergy:
    """Apply the formula to a float graph; of a stream (0 timesteps) to one timestep.

    rates: by layer, mean code of its input per element and timestep where that is events; by ``NAME.q``, ``NAME.k``,
    ``NAME.v`` of each attention product; of a convolution between sites that a run finds ``NAME.pairs`` of active sites
    and ``NAME.out``, the sites behind it.  partial: what has no rate is left out and named in ``missing``.

    UsageError for an unknown variant, one that counts nothing in this network, or a rate that is missing.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no variant '{variant}' of the formula; choose of {', '.join(VARIANTS)}")
    kind, known, missing = VARIANTS[variant], _Rates(graph, rates), list[str]()
    if not applies(graph, kind):
        raise UsageError(f"variant '{variant}' counts nothing in '{graph.name}': {kind.what}")
    rows, products = list[FormulaRow](), list[FormulaRow]()
    for node in graph:
        try:
            if node.op in CONNECTIONS and (node.op == "sparse_conv3d" or not kind.pairs):
                rows.append(_row(graph, node, known, kind))
            elif node.op == "attn" and kind.attention:
                products.append(_attention(graph, node, known, kind))
            elif node.op in ON_HOST:
                missing.append(label(node))
            elif kind.masks and is_masked_sum(graph, node):
                products.append(_masked(graph, node, known))
        except UsageError:
            if not partial:
                raise
            missing.append(label(node))
    return FormulaEnergy(rows, products, tuple(missing))


def applies(graph: Graph, variant: Variant) -> bool:
    """Whether a network has what a variant is about."""
    if variant.pairs:
        return any(node.op == "sparse_conv3d" for node in graph)
    return not variant.masks or any(is_masked_sum(graph, node) for node in graph)


def is_masked_sum(graph: Graph, node: Node) -> bool:
    """Whether a node sums over the tokens of spikes behind a mask, as SDSA-1 does."""
    reduces = node.op == "sum_positions" or (node.op == "map" and node.attr("mode") == "reduce")
    return reduces and _source(graph, node).op == "mul"


def input_of(graph: Graph, node: Node) -> Node:
    """What a layer reads, with constant factors left out: spikes times 1/2 are spikes."""
    source = _source(graph, node)
    while source.op == "scale":
        source = _source(graph, source)
    return source if source.type.is_event else _source(graph, node)


def _source(graph: Graph, node: Node) -> Node:
    return graph.by_id()[node.operands[0]]


@dataclass(frozen=True)
class _Rates:
    """Rates by name; UsageError for one that is missing."""

    graph: Graph
    rates: Mapping[str, float]

    def of(self, node: Node, part: str = "") -> float:
        name = f"{label(node).lstrip('%')}.{part}" if part else label(node)
        if name not in self.rates or not np.isfinite(self.rates[name]) or self.rates[name] < 0:
            raise UsageError(f"the formula needs the rate of the input of '{name}', got {self.rates.get(name)}")
        return float(self.rates[name])

    def pairs(self, node: Node) -> float:
        """Pairs of active sites of a convolution between sites: of a fixed cloud as they are."""
        source, target = (self._table(i) for i in node.operands[1:])
        if source is None or target is None:
            return self.of(node, "pairs")
        one = (1, 1, 1)
        window = (node.attr("kernel"), node.attr("stride", one), node.attr("pad", (0, 0, 0)))
        return float(len(pairs(source, target, *window, node.attr("inverse", False))))

    def positions(self, node: Node) -> float:
        """Positions of a layer's output: of a convolution between sites, those that have one."""
        if node.op != "sparse_conv3d":
            return float(math.prod(node.type.shape[1:]))
        target = self._table(node.operands[2])
        return self.of(node, "out") if target is None else float((target[0] != EMPTY).sum())

    def _table(self, node_id: str) -> np.ndarray | None:
        """Coordinates [3, S] of a fixed cloud; None where the input has them."""
        node = self.graph.by_id()[node_id]
        return np.asarray(self.graph.tensor(node, "table")).T if node.op == "cloud" else None


def _layer_ops(graph: Graph, node: Node, rates: _Rates, variant: Variant) -> tuple[float, int]:
    """Operations of a connection, every input active, padding counted as input; how many times a sample needs them."""
    weight = graph.tensor(node, "weight")
    assert weight is not None
    if node.op == "sparse_conv3d":
        ops = rates.pairs(node) * weight.shape[0] * weight.shape[1]
    elif node.op == "sparse":
        indptr = graph.tensor(node, "indptr")
        assert indptr is not None
        ops = float(indptr[-1])
    else:
        ops = weight.size * rates.positions(node)
    if variant.pairs:
        return 2 * ops - rates.positions(node), 1
    end = _readout_behind(graph, node)
    if variant.bias and (node.attr("bias") is not None or (end is not None and end.attr("bias") is not None)):
        ops += node.type.shape[0] * rates.positions(node)
    source = input_of(graph, node)
    once = source.type.kind is Kind.REAL and not variant.first and not graph.input_time
    # A linear read-out of what no neuron made spikes of stands behind the mean over time, and is computed once.
    once |= end is not None and not source.type.is_event
    return ops, 1 if once or variant.dense else max(graph.timesteps, 1)


def _readout_behind(graph: Graph, node: Node) -> Node | None:
    """The read-out that a layer goes to, itself or scaled."""
    users = graph.users()
    readers = users[node.id]
    while len(readers) == 1 and readers[0].op == "scale":
        readers = users[readers[0].id]
    return readers[0] if [r.op for r in readers] == ["readout"] else None


def input_bits(type_: ValueType) -> int | None:
    """Bits of an event: 1 of spikes, 2 of -1, 0 and 1; None of real values and currents."""
    return None if not type_.is_event else 1 if type_.kind is Kind.SPIKE else max(type_.bits, 1)


def _row(graph: Graph, node: Node, rates: _Rates, kind: Variant) -> FormulaRow:
    name, bits = label(node), input_bits(input_of(graph, node).type)
    each, steps = _layer_ops(graph, node, rates, kind)
    ops = each * steps
    if bits is None or kind.dense or kind.pairs or (kind.codes == "macs" and bits > 1):
        return FormulaRow(name, ops, 0.0, ops, 1.0, bits, steps, node.id)
    rate = rates.of(node)
    return FormulaRow(name, ops, ops * rate, 0.0, rate, bits, steps, node.id)


def _masked(graph: Graph, node: Node, rates: _Rates) -> FormulaRow:
    """T r N C: an addition for each event behind the mask."""
    steps, rate = max(graph.timesteps, 1), rates.of(node)
    ops = float(steps * math.prod(_source(graph, node).type.shape))
    return FormulaRow(label(node), ops, ops * rate, 0.0, rate, 1, steps, node.id)


def _attention(graph: Graph, node: Node, rates: _Rates, kind: Variant) -> FormulaRow:
    """T h N d^2 (min(r_k, r_v) + r_q): k^T v and then q of it, as the authors of Spikingformer count."""
    q, _, v = (graph.by_id()[i].type.shape for i in node.operands)
    heads, tokens = int(node.attr("heads")), math.prod(q[1:])
    products = tokens * (q[0] // heads) * (v[0] // heads) * heads
    steps = 1 if kind.dense else max(graph.timesteps, 1)
    ops = 2.0 * products * steps
    if kind.dense:
        return FormulaRow(label(node), ops, 0.0, ops, 1.0, None, steps, node.id)
    rq, rk, rv = (rates.of(node, role) for role in "qkv")
    rate = (min(rk, rv) + rq) / 2
    return FormulaRow(label(node), ops, ops * rate, 0.0, rate, 1, steps, node.id)
