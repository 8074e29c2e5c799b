"""Gains and offsets that a current has at each timestep become those of the neurons that read it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, Ref, label, op_spec, rebuild
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.passes.base import derived, drop_attrs, redirect, stored
from nmc_compiler.passes.report import ConversionReport

TABLES = {"gain_t", "bias_t", "theta_t"}


@dataclass(frozen=True)
class FoldTime:
    """Afterwards there is no ``time_affine``, and the greatest gain by timestep of a neuron is at most 1.

    With G the next power of two, gain_t / G goes with G times the neuron's own gain, and what is added behind it with
    1 / G: exact.
    """

    name: ClassVar[str] = "fold-time"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        while (affine := next((n for n in graph if n.op == "time_affine"), None)) is not None:
            graph = _fold(graph, affine, report)
        tensors = dict(graph.tensors)
        nodes = [_normed(graph, n, tensors, report) if set(n.attrs) & TABLES else n for n in graph]
        return rebuild(graph, nodes, tensors) if any(set(n.attrs) & TABLES for n in graph) else graph


def _fold(graph: Graph, affine: Node, report: ConversionReport) -> Graph:
    """gain_t (gain x + bias) + bias_t = (gain_t gain) x + (gain_t bias + bias_t)."""
    by_id, tensors, users = graph.by_id(), dict(graph.tensors), graph.users()[affine.id]
    gain, bias = (_table(graph, affine, key) for key in ("gain", "bias"))
    folded: dict[str, Node] = {}
    for user in users:
        if not is_neuron(user) or "gain_t" not in op_spec(user.op).attrs or "alpha" in user.attrs:
            raise LoweringError(
                f"time_affine '{label(affine)}' has numbers for each timestep and {user.op} '{label(user)}' reads it; "
                f"only neurons whose current keeps nothing take them"
            )
        after, offset = (_table(graph, user, key) for key in ("gain_t", "bias_t"))
        one = 1.0 if after is None else after
        total = _added(None if bias is None else one * bias, offset)
        if graph.tensor(user, "bias") is not None:  # a neuron's bias is in front of its gain
            own = graph.tensors[user.attr("bias").key].astype(np.float64)[None]
            total, user = _added(total, one * own), drop_attrs(user, "bias")
        folded[user.id] = _with(user, tensors, gain_t=one * gain if gain is not None else after, bias_t=total)
    report.add(FoldTime.name, label(affine), into=[label(n) for n in folded.values()])
    nodes = [folded.get(n.id, n) for n in graph if n.id != affine.id]
    return rebuild(graph, redirect(nodes, {affine.id: by_id[affine.id].operands[0]}), tensors)


def _normed(graph: Graph, node: Node, tensors: dict[str, np.ndarray], report: ConversionReport) -> Node:
    gain, bias = (_table(graph, node, key) for key in ("gain_t", "bias_t"))
    if gain is not None and not gain.any():
        raise LoweringError(f"neuron '{label(node)}' reads a current times 0 at every timestep; remove it")
    most = 1.0 if gain is None else 2.0 ** math.ceil(math.log2(float(np.abs(gain).max())))
    scaled_gain, scaled_bias = (None if t is None else t / most for t in (gain, bias))
    new = _with(node, tensors, gain_t=scaled_gain, bias_t=scaled_bias, theta_t=_table(graph, node, "theta_t"))
    if most == 1.0:
        return new
    own = node.attr("gain", 1.0)
    scaled = own * most if not isinstance(own, Ref) else graph.tensors[own.key] * most
    report.add(FoldTime.name, label(node), greatest_gain=most)
    if isinstance(own, Ref):
        return new.with_attrs(gain=stored(tensors, f"{label(node)}.gain@time", scaled))
    return new.with_attrs(gain=derived(float(scaled)))


def _table(graph: Graph, node: Node, key: str) -> np.ndarray | None:
    """[T, 1 or C]."""
    table = graph.tensor(node, key)
    return None if table is None else table.astype(np.float64).reshape(len(table), -1)


def _added(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _with(node: Node, tensors: dict[str, np.ndarray], **tables: np.ndarray | None) -> Node:
    """The node with these tables, [T, 1] or [T, C]."""
    channels, attrs = node.type.shape[0], {}
    for key, table in tables.items():
        if table is None:
            continue
        table = table if table.shape[1] in (1, channels) else np.repeat(table, channels, axis=1)
        attrs[key] = stored(tensors, f"{label(node).lstrip('%')}.{key}@time", np.ascontiguousarray(table))
    return drop_attrs(node, *attrs).with_attrs(**attrs)
