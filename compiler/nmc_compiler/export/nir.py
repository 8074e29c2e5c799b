"""Graphs as NIR files (docs/nir.md)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from nmc_compiler.errors import ToolNotFound
from nmc_compiler.graph import Graph
from nmc_compiler.nir.extension import GRAPH, extend
from nmc_compiler.nir.rules import Rule
from nmc_compiler.nir.say import Said, refuse, say
from nmc_compiler.nir.schema import VERSION

PACKED = 64  # bytes from which gzip is worth it


def nir_tree(graph: Graph, rule: Rule, dt: float, extension: bool = False) -> tuple[dict[str, Any], Said]:
    """The content of the file, and how it was said.

    ``extension``: what NIR has no words for is written as docs/nir.md says, in a file that other readers refuse.
    LoweringError for the first such node where it is not allowed.
    """
    said = say(graph, rule, dt)
    more: dict[str, Any] = {}
    if not extension:
        refuse(graph, said)
    elif said.unsaid or graph.numbers != "float":
        more = {GRAPH: extend(graph, said, dt, rule.name, rule.reset)}
    edges = np.array(said.edges, object).reshape(-1, 2)
    about = {"nmc_dt": dt, "nmc_rule": rule.name, "nmc_reset": rule.reset}
    root = {"type": "NIRGraph", "nodes": said.nodes, "edges": edges, "metadata": about, **more}
    return {"version": VERSION, "node": root}, said


def nir_bytes(tree: Mapping[str, Any]) -> bytes:
    """The file; equal trees give equal bytes under one version of HDF5. ToolNotFound without h5py."""
    try:
        import h5py
    except ImportError:
        raise ToolNotFound("writing NIR files needs h5py; get it with: pip install 'nmc[nir]'") from None
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        _write(file, tree, h5py.string_dtype())
    return buffer.getvalue()


def _write(group: Any, tree: Mapping[str, Any], text: Any) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            _write(group.create_group(name), value, text)
            continue
        array = np.asarray(value)
        if array.dtype.kind in "UO":
            group.create_dataset(name, data=array.astype(object) if array.ndim else value, dtype=text)
        elif array.ndim and array.nbytes >= PACKED:
            group.create_dataset(name, data=array, compression="gzip")
        else:
            group.create_dataset(name, data=value)
