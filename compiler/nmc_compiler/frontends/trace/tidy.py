"""Factors put where lowering folds them: into an attention, a norm of codes, or behind a convolution of counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nmc_compiler.frontends.trace.fold import Node, Ref
from nmc_compiler.graph.types import Kind

LINEAR = ("conv2d", "reshape", "take", "sum_positions")


def tidy(nodes: list[Node], ends: list[Ref]) -> tuple[list[Node], list[Ref]]:
    """The same network; ``ends`` are what it gives."""
    work = _Tidy(list(nodes), list(ends))
    work.run()
    return work.nodes, work.ends


class _Tidy:
    def __init__(self, nodes: list[Node], ends: list[Ref]) -> None:
        self.nodes, self.ends = nodes, ends

    def run(self) -> None:
        for index in range(len(self.nodes)):
            if self.nodes[index].op == "scale" and isinstance(self.nodes[index].attr("by"), float):
                self._into_operand(index)
        index = 0
        while index < len(self.nodes):  # sinking appends nodes, which may sink further
            self._behind_linear(index)
            index += 1

    def _readers(self, index: int) -> list[int]:
        live = self._live()
        return [i for i in live for r in self.nodes[i].operands if r.node == index]

    def _live(self) -> list[int]:
        seen: set[int] = set()
        stack = [r.node for r in self.ends]
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                stack += [r.node for r in self.nodes[index].operands]
        return sorted(seen)

    def _into_operand(self, index: int) -> None:
        """A factor of an attention becomes its scale, where nothing else reads the attention."""
        node = self.nodes[index]
        (ref,) = node.operands
        source, by = self.nodes[ref.node], node.attr("by")
        readers = self._readers(ref.node)
        if source.op == "attn" and readers == [index]:
            self.nodes[index] = _with(source, scale=source.attr("scale", 1.0) * by)

    def _behind_linear(self, index: int) -> None:
        """conv(f * events) is f * conv(events): a convolution of codes, then a factor that folds."""
        node = self.nodes[index]
        if node.op not in LINEAR or len(node.operands) != 1:
            return
        (ref,) = node.operands
        source = self.nodes[ref.node]
        if source.op != "scale" or not isinstance(source.attr("by"), float) or ref.lag:
            return
        below = source.operands[0]
        events = self.nodes[below.node].is_event or self.nodes[below.node].op == "sumpool2d" and node.op == "conv2d"
        if not events:
            return
        kind = self.nodes[below.node].kind if node.op in ("reshape", "take") else node.kind
        if node.op == "sum_positions":
            kind = Kind.GRADED if self.nodes[below.node].is_event else node.kind
        bias = node.attr("bias")
        inner = replace(_without(node, "bias"), operands=(below,), kind=kind)
        self.nodes.append(inner)
        scaled = replace(source, operands=(Ref(len(self.nodes) - 1),), shape=node.shape, kind=Kind.CURRENT,
                         module=node.module, line=node.line)  # fmt: skip
        if bias is None:
            self.nodes[index] = scaled
            return
        self.nodes.append(scaled)
        given = (("by", bias),)
        self.nodes[index] = replace(node, op="bias", operands=(Ref(len(self.nodes) - 1),), attrs=given)


def _with(node: Node, **changed: Any) -> Node:
    attrs = dict(node.attrs) | changed
    return replace(node, attrs=tuple(sorted((k, v) for k, v in attrs.items() if v is not None)))


def _without(node: Node, key: str) -> Node:
    return replace(node, attrs=tuple((k, v) for k, v in node.attrs if k != key))
