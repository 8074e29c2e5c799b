"""Fold evaluated batch norms into the convolution before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label, rebuild
from nmc_compiler.graph.analysis import CONVOLUTIONS
from nmc_compiler.graph.ops_linear import bn_affine
from nmc_compiler.passes.base import redirect, stored
from nmc_compiler.passes.fold_scale import factor_of
from nmc_compiler.passes.report import ConversionReport


@dataclass(frozen=True)
class FoldBatchNorm:
    """s = gamma/sqrt(var+eps); W' = s*W; b' = s*(b - mean) + beta (models.md section 6, float64).

    A factor f between the two (a mean of tokens, LayerScale) makes it W' = s*f*W and b' = s*(f*b - mean) + beta.
    """

    name: ClassVar[str] = "fold-batch-norm"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        tensors, by_id, users = dict(graph.tensors), graph.by_id(), graph.users()
        folded: dict[str, Node] = {}
        gone: dict[str, str] = {}
        for bn in (n for n in graph if n.op == "batch_norm"):
            source, factor = by_id[bn.operands[0]], np.ones(1)
            scales: list[str] = []
            while source.op == "scale" and len(users[source.id]) == 1:
                scales, factor = [*scales, source.id], factor * factor_of(graph, source)
                source = by_id[source.operands[0]]
            conv = by_id[gone.get(source.id, source.id)]
            if conv.op not in CONVOLUTIONS or len(users[source.id]) != 1:
                raise LoweringError(
                    f"batch norm '{label(bn)}' follows {source.op} '{label(source)}' with {len(users[source.id])} "
                    f"reader(s); it can be folded only into a convolution that nothing else reads"
                )
            conv = folded.get(conv.id, conv)
            folded[conv.id] = _fold(graph, conv, bn, factor, tensors)  # also behind another batch norm (RepConv)
            gone |= dict.fromkeys((*scales, bn.id), conv.id)
            report.add(self.name, label(conv), batch_norm=label(bn), change="folded into weight and bias")
        nodes = [folded.get(n.id, n) for n in graph if n.id not in gone]
        return rebuild(graph, redirect(nodes, gone), tensors)


def _fold(graph: Graph, conv: Node, bn: Node, factor: np.ndarray, tensors: dict[str, np.ndarray]) -> Node:
    scale, offset = bn_affine(lambda key: graph.tensor(bn, key), bn.attr("eps"))
    scale = scale * factor
    weight, bias = (tensors[conv.attr(k).key] if k in conv.attrs else np.zeros(1) for k in ("weight", "bias"))
    folded = {
        "weight": weight.astype(np.float64) * scale[:, None, None, None],
        "bias": bias.astype(np.float64) * scale + offset,
    }
    return conv.with_attrs(**{k: stored(tensors, f"{label(conv)}.folded.{k}", v) for k, v in folded.items()})
