"""A pass is a frozen dataclass: its fields are its options, ``name`` its CLI name, valid in -> valid out."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Protocol

import numpy as np

from nmc_compiler.graph import Attr, Graph, Node, Ref, Use
from nmc_compiler.passes.report import ConversionReport


class Pass(Protocol):
    """One rewriting of a graph."""

    name: ClassVar[str]

    def apply(self, graph: Graph, report: ConversionReport) -> Graph: ...


def redirect(nodes: list[Node], mapping: dict[str, str]) -> list[Node]:
    """Nodes whose operands are renamed by ``mapping`` (chains are followed)."""

    def final(node_id: str) -> str:
        while node_id in mapping:
            node_id = mapping[node_id]
        return node_id

    return [replace(n, inputs=tuple(Use(final(u.node), u.lag) for u in n.inputs)) for n in nodes]


def stored(tensors: dict[str, np.ndarray], key: str, array: np.ndarray) -> Attr:
    """Put a new array into ``tensors`` and refer to it; a key that is taken (shared names) gets a number."""
    free, number = key, 2
    while free in tensors:
        free, number = f"{key}#{number}", number + 1
    tensors[free] = array
    return derived(Ref(free))


def drop_attrs(node: Node, *keys: str) -> Node:
    return replace(node, attrs={k: v for k, v in node.attrs.items() if k not in keys})


def derived(value: object) -> Attr:
    return Attr(value, "derived")  # type: ignore[arg-type]
