"""What nmc writes beside NIR's own words, version 1 (docs/nir.md).

A node of type ``nmc:op@1`` stands for an op that NIR has no words for, and the group ``nmc:graph@1`` holds the text
form of the whole graph and the arrays that no node of NIR's own holds. `nir.read` refuses both, so that nothing is
lost in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nmc_compiler.graph import Graph, Ref
from nmc_compiler.graph.text import to_text
from nmc_compiler.nir.say import Said, name_of

GRAPH, OP = "nmc:graph@1", "nmc:op@1"
PREFIX = "nmc:"
FIELDS = ("text", "dt", "rule", "reset", "keys", "at", "arrays")


def extend(graph: Graph, said: Said, dt: float, rule: str, reset: str) -> dict[str, Any]:
    """The group ``nmc:graph@1``; nodes that NIR has no words for are added to ``said``."""
    by_id = graph.by_id()
    for node_id in said.unsaid:
        node = by_id[node_id]
        name = name_of(node)
        while name in said.nodes:
            name += "+"
        operands = [name_of(by_id[use.node]) for use in node.inputs]
        lags = np.array([use.lag for use in node.inputs], np.int64)
        said.nodes[name] = {"type": OP, "op": node.op, "operands": operands, "lags": lags}
    places = _places(graph, said)
    keys = sorted(graph.tensors)
    arrays = {str(i): graph.tensors[key] for i, key in enumerate(keys) if key not in places}
    about = {"text": to_text(graph), "dt": dt, "rule": rule, "reset": reset}
    return {**about, "keys": keys, "at": [places.get(key, "") for key in keys], "arrays": arrays}


def _places(graph: Graph, said: Said) -> dict[str, str]:
    """Tensors that stand in a node of NIR's own, as "node/field"."""
    out: dict[str, str] = {}
    for node in graph:
        fields = said.nodes.get(name_of(node), {})
        if node.op != "conv2d" or fields.get("type") not in ("Linear", "Affine", "Conv1d", "Conv2d"):
            continue
        for key in ("weight", "bias"):
            ref = node.attr(key)
            if isinstance(ref, Ref) and key in fields:
                out.setdefault(ref.key, f"{name_of(node)}/{key}")
    return out


def tensor_of(array: np.ndarray, field: str) -> np.ndarray:
    """A weight [O, I], [O, I, L] or [O, I, H, W] as [O, I, H, W]; other fields as they are."""
    if field != "weight" or array.ndim == 4:
        return array
    return array[:, :, None, None] if array.ndim == 2 else array[:, :, None, :]


def differences(said: Said, found: Mapping[str, Mapping[str, Any]], edges: set[tuple[str, str]]) -> str:
    """The first way in which the nodes of a file are not those of its graph; empty where they are.

    ``found``: of every node in the file, its fields: arrays, or text.
    """
    for name in sorted(set(said.nodes) | set(found)):
        if (name in said.nodes) != (name in found):
            return f"node '{name}' is in the {'graph' if name in said.nodes else 'file'} only"
        mine, theirs = said.nodes[name], found[name]
        for key in sorted(set(mine) | set(theirs)):
            if key not in mine or key not in theirs or not _equal(mine[key], theirs[key]):
                return f"'{key}' of node '{name}' is not what {GRAPH} says"
    return "" if set(said.edges) == edges else f"edges are not what {GRAPH} says"


def _equal(a: Any, b: Any) -> bool:
    left, right = np.asarray(a), np.asarray(b)
    if left.dtype.kind in "US" or right.dtype.kind in "USO":
        return bool(left.astype(object).tolist() == right.astype(object).tolist())
    return left.shape == right.shape and bool(np.array_equal(left, right))
