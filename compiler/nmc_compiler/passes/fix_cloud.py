"""Compile for one cloud: the sites of every sample become those of a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Kind, Node, rebuild
from nmc_compiler.graph.ops_sites import Site, check_sites, made_sites, made_window, sites_of
from nmc_compiler.passes.base import derived, drop_attrs, redirect, stored


def fix_cloud(graph: Graph, voxels: np.ndarray) -> Graph:
    """A graph on the sites of each sample as one on ``voxels`` [n, 3], in their order; its input is features [F, n, 1].

    LoweringError where the graph has no sites, or those of a fixed cloud already; VerifyError for voxels that are not
    whole, not in the extent, or not different.
    """
    roots = [n for n in graph if n.op == "sites"]
    if len(roots) != 1:
        raise LoweringError(f"graph '{graph.name}' has {len(roots)} inputs with sites; a cloud is fixed for one")
    check_sites(voxels.T, roots[0].attr("extent"), "fixed cloud")
    tensors, nodes, gone = dict(graph.tensors), list[Node](), dict[str, str]()
    sites: dict[str, list[Site]] = {}
    for node in graph:
        if node.op == "features":
            gone[node.id] = node.operands[0]
            continue
        if node.op == "input":
            channels = node.type.shape[0] - 3
            node = node.with_attrs(shape=Attr((channels, len(voxels), 1), node.attrs["shape"].evidence))
        elif node.op == "sites":
            table = np.ascontiguousarray(voxels.astype(np.int32))
            sites[node.id] = sites_of(table.T)
            attrs = {"table": stored(tensors, f"{node.id}.table", table), "extent": node.attrs["extent"]}
            node = replace(node, op="cloud", inputs=(), attrs=attrs)
        elif node.op == "down_sites":
            node = _made(node, sites)
        nodes.append(node if node.type.kind is Kind.SITES or node.op == "input" else _reshaped(node))
    return rebuild(graph, redirect(nodes, gone), tensors)


def _made(node: Node, sites: dict[str, list[Site]]) -> Node:
    made = made_sites(sites[node.operands[0]], *made_window(node))
    if not made:
        raise LoweringError(f"the fixed cloud leaves no site in '{node.name or node.id}'; choose smaller voxels")
    sites[node.id] = made
    return node.with_attrs(slots=derived(len(made)))


def _reshaped(node: Node) -> Node:
    """A record shape names the old number of slots."""
    return drop_attrs(node, "record_perm", "record_shape")
