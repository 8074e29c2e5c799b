"""Neurons whose channels decay differently become one population for each pair of decays.

The decays of a population are one number each; ``join_linear`` has brought parameters down to one per channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Node, Use, label, rebuild
from nmc_compiler.graph.ops_cell import TABLES_OF_NEURONS
from nmc_compiler.graph.types import Shape
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.linear_maps import Kernel, LinearMap, Table, as_table
from nmc_compiler.passes.projections import map_of, node_of, projections_of, summed
from nmc_compiler.passes.report import ConversionReport

DECAY = 4096  # decays are compared as they will be rounded
PARAMETERS = (
    *("alpha", "beta", "leak", "theta", "start_u", "start_v"),
    *("v_min", "theta_decay", "theta_step", "step", "theta_low"),
)


@dataclass(frozen=True)
class SplitDecays:
    """``most``: populations that one may become; with "decay-groups" allowed, near decays are made equal for that."""

    name: ClassVar[str] = "split-decays"
    allow: tuple[str, ...] = ()
    most: int = 8

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        return Splitter(graph, self, report).run()


@dataclass(frozen=True)
class _Part:
    """Some channels of a neuron, as a neuron of its own."""

    node: Node
    channels: np.ndarray


class Splitter:
    def __init__(self, graph: Graph, options: SplitDecays, report: ConversionReport) -> None:
        self.graph, self.options, self.report, self.by_id = graph, options, report, graph.by_id()
        self.tensors = dict(graph.tensors)
        self.parts: dict[str, list[_Part]] = {}

    def run(self) -> Graph:
        for node in self.graph:
            if node.op in ("neuron", "integrator"):
                groups = self.groups(node)
                if len(groups) > 1:
                    self.parts[node.id] = [self.part(node, i, channels) for i, channels in enumerate(groups)]
        if not self.parts:
            return self.graph
        nodes = [new for node in self.graph for new in self._rewritten(node)]
        return rebuild(self.graph, nodes, self.tensors)

    # ---- which channels go together ----

    def groups(self, node: Node) -> list[np.ndarray]:
        """Channels by their rounded decays, in order of the first of each."""
        pairs = np.stack([np.rint(DECAY * self._channels(node, key)).astype(int) for key in ("alpha", "beta")], axis=1)
        _, first, member = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        if len(first) > self.options.most:
            if "decay-groups" in self.options.allow:
                return near_groups(pairs, self.options.most)
            low, high = pairs.min(axis=0) / DECAY, pairs.max(axis=0) / DECAY
            raise LoweringError(
                f"'{label(node)}' has {len(first)} different pairs of decays after rounding to 12 bits "
                f"(alpha {low[0]:.4g} to {high[0]:.4g}, beta {low[1]:.4g} to {high[1]:.4g}); a population has one, "
                f"and at most {self.options.most} populations are made of one; train with fewer, or allow the "
                f"approximation 'decay-groups', which makes near ones equal"
            )
        return [np.flatnonzero(member.reshape(-1) == k) for k in np.argsort(first)]

    def _channels(self, node: Node, key: str) -> np.ndarray:
        value = node.attr(key, 0.0)
        found = value if isinstance(value, (int, float)) else self.graph.tensors[value.key]
        return np.broadcast_to(np.asarray(found, np.float64), (node.type.shape[0],))

    def part(self, node: Node, number: int, channels: np.ndarray) -> _Part:
        """Some channels of a neuron, with parameters of their own and one decay; what it hears is not said."""
        _, h, w = node.type.shape
        reasons: list[str] = []
        attrs: dict[str, Attr] = {k: v for k, v in node.attrs.items() if not k.startswith("record_")}
        for key in (k for k in PARAMETERS if hasattr(node.attr(k), "key")):
            value = self.graph.tensors[node.attr(key).key][channels]
            if key in ("alpha", "beta"):
                attrs[key] = derived(self._one(node, key, value, reasons))
                continue
            same = key in ("leak", "theta") and (value == value[0]).all()
            attrs[key] = derived(float(value[0])) if same else stored(self.tensors, node.attr(key).key, value)
        for key in (k for k in TABLES_OF_NEURONS if k in node.attrs):
            table = self.graph.tensors[node.attr(key).key]
            if table.shape[1] > 1:
                attrs[key] = stored(self.tensors, node.attr(key).key, table[:, channels])
        key = f"{label(node).lstrip('%')}.{number}"
        attrs["part_of"] = derived(label(node))
        attrs["elements"] = stored(self.tensors, f"{key}.elements", _elements(channels, h * w))
        type_ = replace(node.type, shape=(len(channels), h, w))
        rating = "approximate" if reasons else "faithful"
        self.report.add(
            SplitDecays.name, key, part_of=label(node), channels=len(channels), rating=rating, reasons=reasons
        )  # fmt: skip
        return _Part(Node(f"{node.id}.{number}", node.op, (), attrs, type_, key), channels)

    def _one(self, node: Node, key: str, values: np.ndarray, reasons: list[str]) -> float:
        """The decay of a part: the mean of what it stands for."""
        mean = float(values.mean())
        if np.rint(DECAY * values.min()) != np.rint(DECAY * values.max()):
            reasons.append(f"decay-groups: {key} {mean:.6g} stands for {values.min():.6g} to {values.max():.6g}")
        return mean if reasons else float(values[0])

    # ---- the graph of the parts ----

    def _rewritten(self, node: Node) -> list[Node]:
        if node.op in ("neuron", "integrator", "sigma_delta"):
            parts = self.parts.get(node.id, [_Part(node, np.arange(node.type.shape[0]))])
            return [new for part in parts for new in self._projected(node, part)]
        if node.op in ("conv2d", "sparse", "add"):
            return []
        if node.op == "reshape" and node.inputs[0].node in self.parts:
            return [self._gathered(node, node.inputs[0].node)]
        if node.op == "output" and node.inputs[0].node in self.parts:
            source = self.by_id[node.inputs[0].node]
            whole = replace(source, id=f"{node.id}.parts", name="")
            return [self._gathered(whole, source.id), replace(node, inputs=(Use(whole.id),))]
        return [node]

    def _gathered(self, node: Node, source: str) -> Node:
        """The parts put together, in the shape of ``node``."""
        parts, (_, h, w) = self.parts[source], self.by_id[source].type.shape
        index = np.concatenate([_elements(p.channels, h * w) for p in parts])
        attrs = {"index": stored(self.tensors, f"{node.id}.index", index), "shape": derived(node.type.shape)}
        uses = tuple(Use(p.node.id) for p in parts)
        return Node(node.id, "gather", uses, attrs, node.type)

    def _projected(self, node: Node, part: _Part) -> list[Node]:
        found: list[Node] = []
        for projection in projections_of(node, self.by_id):
            use = projection.inputs[0]
            source = self.by_id[use.node]
            whole = map_of(self.graph, projection, source.type.shape)
            for piece in self.parts.get(source.id, [None]):  # type: ignore[list-item]
                from_ = None if piece is None else piece.channels
                into = part.channels if node.id in self.parts else None
                if from_ is None and into is None:
                    found.append(projection)
                    continue
                m = restricted(whole, from_, into)
                if isinstance(m, Table) and not len(m.src) and found:
                    continue
                number = f"part{len(found)}"
                name = f"{label(part.node).lstrip('%')}.{number}"
                reads = Use(source.id if piece is None else piece.node.id, use.lag)
                found.append(node_of(m, f"{part.node.id}.{number}", name, reads, self.tensors))
        return summed(part.node, found)


def near_groups(pairs: np.ndarray, most: int) -> list[np.ndarray]:
    """At most ``most`` groups of channels with near decays [C, 2], in order of their decays.

    k-means (Lloyd 1982) in (alpha, beta), begun at evenly spaced ranks; the same for the same decays.
    """
    points = pairs / DECAY
    order = np.lexsort((points[:, 0], points[:, 1]))
    centres = points[order[np.linspace(0, len(points) - 1, most).astype(int)]]
    for _ in range(100):
        member = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack([points[member == k].mean(axis=0) if (member == k).any() else centres[k] for k in range(most)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return [np.flatnonzero(member == k) for k in range(most) if (member == k).any()]


def restricted(m: LinearMap, sources: np.ndarray | None, targets: np.ndarray | None) -> LinearMap:
    """The map between some channels of its source and its target; None stands for all."""
    source, target = _cut(m.source, sources), _cut(m.target, targets)
    if isinstance(m, Kernel) and m.groups == 1:
        weight = m.weight if targets is None else m.weight[targets]
        weight = weight if sources is None else weight[:, sources]
        return replace(m, source=source, view=source, target=target, weight=weight)
    t = as_table(m)
    src, from_ = _renumbered(t.src, m.source, sources)
    dst, into = _renumbered(t.dst, m.target, targets)
    keep = from_ & into
    return Table(source, target, src[keep], dst[keep], t.weight[keep], t.extra[keep])


def _cut(shape: Shape, channels: np.ndarray | None) -> Shape:
    return shape if channels is None else (len(channels), *shape[1:])


def _renumbered(elements: np.ndarray, shape: Shape, channels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Elements counted among those of some channels, and which of them are there."""
    if channels is None:
        return elements, np.ones(len(elements), bool)
    size = shape[1] * shape[2]
    place = np.full(shape[0], -1)
    place[channels] = np.arange(len(channels))
    at = place[elements // size]
    return at * size + elements % size, at >= 0


def _elements(channels: np.ndarray, size: int) -> np.ndarray:
    """Elements of some channels in C order, channel by channel."""
    return (channels[:, None] * size + np.arange(size)[None, :]).reshape(-1)
