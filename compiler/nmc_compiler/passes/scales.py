"""Scale classes: currents that meet in a sum must share one integer scale.

A class is a set of current-valued nodes connected by add, max-pool and sum over positions.
Its scale S says how many synaptic units (the integers that arrive at a dendrite) one unit
of the trained model's current becomes: a = S*x. With kappa the reader's input gain,
membrane potential V = 64*S/kappa * h (the chip shifts currents left by 6), so the reader's
threshold is vth = S*theta/kappa.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.analysis import CONVOLUTIONS, is_neuron

JOINING = ("add", "maxpool2d", "sum_positions", "mean_sites")


PROJECTIONS = (*CONVOLUTIONS, "sparse")


@dataclass
class ScaleClass:
    """Leaves that produce currents of one class, and the neurons that read them."""

    index: int
    convs: list[Node] = field(default_factory=list)
    hosts: list[Node] = field(default_factory=list)
    counts: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)

    @property
    def is_counts(self) -> bool:
        return bool(self.counts) and not (self.convs or self.hosts)


def scale_classes(graph: Graph) -> list[ScaleClass]:
    """Classes in order of their first node, but those that relays send on before those they are sent to."""
    root = joined_currents(graph)
    classes: dict[str, ScaleClass] = {}
    by_id = graph.by_id()
    for node in graph:
        if is_neuron(node) and node.operands:
            source = by_id[node.operands[0]]
            if source.type.kind is not Kind.CURRENT:
                raise LoweringError(
                    f"neuron '{label(node)}' reads real values ('{label(source)}'); put a convolution between"
                )
            classes[root(source.id)].readers.append(node)
        elif node.type.kind is Kind.CURRENT:
            cls = classes.setdefault(root(node.id), ScaleClass(len(classes)))
            if node.op in PROJECTIONS:
                (cls.convs if by_id[node.operands[0]].type.is_event else cls.hosts).append(node)
            elif node.op in ("attn", "map"):
                cls.counts.append(node)
    return _senders_first(list(classes.values()))


def _senders_first(classes: list[ScaleClass]) -> list[ScaleClass]:
    """The scale of a relay's codes is known once its own class is planned; then come the convolutions of its codes."""
    sent = {r.id: c for c in classes for r in c.readers if r.op == "relay"}
    done: dict[int, ScaleClass] = {}

    def visit(cls: ScaleClass, path: tuple[int, ...]) -> None:
        for conv in (c for c in cls.convs if c.operands[0] in sent and cls.index not in done):
            before = sent[conv.operands[0]]
            if before.index in (*path, cls.index):
                raise LoweringError(
                    f"'{label(conv)}' adds what it makes of a relayed current to that same current: the scale of the "
                    f"codes would rest on itself; compile with --factors fold"
                )
            visit(before, (*path, cls.index))
        done.setdefault(cls.index, cls)

    for cls in classes:
        visit(cls, ())
    return list(done.values())


def joined_currents(graph: Graph) -> Callable[[str], str]:
    """For the id of a current, the id of one current of its class: those that meet in sums and pools."""
    parent, by_id = {n.id: n.id for n in graph}, graph.by_id()

    def root(i: str) -> str:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for node in graph:
        if node.op in JOINING and node.type.kind is Kind.CURRENT:
            for operand in node.operands:
                if by_id[operand].type.kind is not Kind.SITES:
                    parent[root(operand)] = root(node.id)
    return root


@dataclass(frozen=True)
class WeightRange:
    """Integers a weight may become: mantissa m in [lo, hi], value m << shift with shift in [least, most]."""

    lo: int
    hi: int
    least_shift: int
    most_shift: int

    def shift_for(self, largest: float) -> int:
        """Smallest shift at which a value of this size fits; may exceed ``most_shift``."""
        need = int(np.ceil(np.log2(max(largest, 1e-300) / self.hi))) if largest > 0 else self.least_shift
        return max(need, self.least_shift)

    def quantise(self, weight: np.ndarray, scale: float) -> tuple[np.ndarray, int]:
        """Mantissas (int8) and the shift for weights times ``scale``; round half to even."""
        shift = self.shift_for(float(np.abs(weight).max(initial=0.0)) * scale)
        m = np.rint(weight * (scale / 2.0**shift))
        return np.clip(m, self.lo, self.hi).astype(np.int8), shift

    def error(self, weight: np.ndarray, scale: float) -> float:
        """Mean squared error of the quantised weights, in units of the trained model."""
        m, shift = self.quantise(weight, scale)
        return float(np.mean((m.astype(np.float64) * (2.0**shift / scale) - weight) ** 2))


def best_scale(weights: list[np.ndarray], candidates: np.ndarray, allowed: WeightRange) -> float:
    """The candidate with the least summed squared weight error relative to each layer's own power."""
    weights = [w for w in weights if w.size]  # a part of a table may have no synapses
    best, best_cost = float(candidates[-1]), np.inf if weights else 0.0
    power = [float(np.mean(w**2)) or 1.0 for w in weights]
    for scale in candidates:
        cost = sum(allowed.error(w, float(scale)) / p for w, p in zip(weights, power, strict=True))
        if cost < best_cost * (1 - 1e-9):
            best, best_cost = float(scale), cost
    return best


def static_bound(
    graph: Graph, node: Node, real: Callable[[Node], np.ndarray], span: Callable[[Node], tuple[float, float]]
) -> np.ndarray:
    """Largest |current| each channel could ever reach, [C]: every input at its most harmful value.

    ``real(conv)`` gives a convolution's weights per code, ``span(node)`` the least (<= 0) and largest code of an
    event or value of the input.
    """
    by_id = graph.by_id()

    def sides(n: Node) -> tuple[np.ndarray, np.ndarray]:
        if n.op in CONVOLUTIONS:
            w, (least, top) = real(n).reshape(n.type.shape[0], -1), span(by_id[n.operands[0]])
            up, down = np.maximum(w, 0).sum(axis=1), np.minimum(w, 0).sum(axis=1)
            return up * top + down * least, down * top + up * least
        if n.op == "sparse":
            return _sides_of_table(graph, n, real(n), span(by_id[n.operands[0]]))
        if n.op not in JOINING:
            return np.zeros(n.type.shape[0]), np.zeros(n.type.shape[0])
        parts = [sides(by_id[i]) for i in n.operands if by_id[i].type.kind is not Kind.SITES]
        _, h, w_ = by_id[n.operands[0]].type.shape
        times = h * w_ if n.op in ("sum_positions", "mean_sites") else 1  # of a mean the core keeps the sum
        return np.sum([p[0] for p in parts], axis=0) * times, np.sum([p[1] for p in parts], axis=0) * times

    hi, lo = sides(node)
    return np.maximum(hi, -lo)


def _sides_of_table(
    graph: Graph, node: Node, weight: np.ndarray, ends: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Largest sums of synapses towards both signs, over the positions of each channel, [C]."""
    (least, top), (c, h, w), target = ends, node.type.shape, graph.tensor(node, "target")
    up, down = (
        np.bincount(target, part(weight, 0), c * h * w).reshape(c, -1)  # type: ignore[arg-type]
        for part in (np.maximum, np.minimum)
    )
    return (up * top + down * least).max(axis=1), (down * top + up * least).min(axis=1)
