"""Fold evaluated batch norms into the convolution before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, Ref, label, rebuild
from nmc_compiler.graph.ops_linear import bn_affine
from nmc_compiler.passes.base import derived, redirect
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class FoldBatchNorm:
    """s = gamma/sqrt(var+eps); W' = s*W; b' = s*(b - mean) + beta (models.md section 6, float64)."""

    name: ClassVar[str] = "fold-batch-norm"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        tensors, by_id, users = dict(graph.tensors), graph.by_id(), graph.users()
        folded: dict[str, Node] = {}
        gone: dict[str, str] = {}
        for bn in (n for n in graph if n.op == "batch_norm"):
            conv = folded.get(bn.operands[0], by_id[bn.operands[0]])
            if conv.op != "conv2d" or len(users[conv.id]) != 1:
                raise LoweringError(
                    f"batch norm '{label(bn)}' follows {conv.op} '{label(conv)}' with {len(users[conv.id])} reader(s); "
                    f"it can be folded only into a convolution that nothing else reads"
                )
            folded[conv.id] = _fold(graph, conv, bn, tensors)
            gone[bn.id] = conv.id
            report.add(self.name, label(conv), batch_norm=label(bn), change="folded into weight and bias")
        nodes = [folded.get(n.id, n) for n in graph if n.id not in gone]
        return rebuild(graph, redirect(nodes, gone), tensors)


def _fold(graph: Graph, conv: Node, bn: Node, tensors: dict[str, np.ndarray]) -> Node:
    scale, offset = bn_affine(lambda key: graph.tensor(bn, key), bn.attr("eps"))
    weight, bias = graph.tensor(conv, "weight"), graph.tensor(conv, "bias")
    assert weight is not None
    key = f"{label(conv)}.folded"
    tensors[f"{key}.weight"] = weight.astype(np.float64) * scale[:, None, None, None]
    tensors[f"{key}.bias"] = (0.0 if bias is None else bias.astype(np.float64)) * scale + offset
    refs = {"weight": derived(Ref(f"{key}.weight")), "bias": derived(Ref(f"{key}.bias"))}
    return replace(conv, attrs={**conv.attrs, **refs})
