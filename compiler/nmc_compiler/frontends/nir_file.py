"""The nodes and edges of a NIR file, each field checked before anything is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.hdf5 import Hdf5Group, some
from nmc_compiler.nir.schema import NODES, VERSION, Field, NirGraph, NirNode

MAX_DEPTH = 16  # of graphs within graphs
MAX_NODES, MAX_EDGES = 50_000, 200_000
MAX_NAME = 200
MAX_WHOLE = 1 << 31
IGNORED = ("type", "metadata")  # metadata are notes; nothing that runs may hang on them
DERIVED = ("input_type", "output_type")  # older versions of nir wrote what they had inferred


def read_graph(file: Hdf5Group) -> NirGraph:
    """The graph of a file that `hdf5.read_hdf5` gave. FrontendError for whatever NIR does not define."""
    if "node" not in file:
        raise FrontendError(
            f"{file.file}: not a NIR graph: it has {some(file.names)}, but no group 'node'; "
            "write it with nir.write (for a recording, nir.write_data, there is nothing to compile)"
        )
    root = file.group("node")
    if _type(root) != "NIRGraph":  # nir.write takes a node alone, too
        return NirGraph({"node": _node(root, "node")}, (), file.file)
    return _graph(root, file.file, 0, [0])


def _graph(group: Hdf5Group, where: str, depth: int, counted: list[int]) -> NirGraph:
    if depth > MAX_DEPTH:
        raise FrontendError(f"{where}: graphs are nested deeper than {MAX_DEPTH}")
    unknown = [n for n in group.names if n not in ("nodes", "edges", *IGNORED, *DERIVED)]
    if unknown:
        raise group.wrong(unknown[0], f"is no field of a NIRGraph of NIR {VERSION}, and would be lost; take it out")
    members = group.group("nodes")
    nodes: dict[str, NirNode | NirGraph] = {}
    for name in members.names:
        counted[0] += 1
        if counted[0] > MAX_NODES:
            raise FrontendError(f"{where}: more than {MAX_NODES} nodes")
        _check_name(group.file, name)
        member = members.group(name)
        if _type(member) == "NIRGraph":
            nodes[name] = _graph(member, f"{group.file}: graph '{name}'", depth + 1, counted)
        else:
            nodes[name] = _node(member, name)
    return NirGraph(nodes, _edges(group), where)


def _check_name(file: str, name: str) -> None:
    plain = name.isascii() and name.isprintable() and not set(name) & set("/\\\"'")
    if not plain or not 0 < len(name) <= MAX_NAME:
        raise FrontendError(
            f"{file}: a node is called {ascii(name)[:60]}; rename it to 1 to {MAX_NAME} printable ASCII characters, "
            "no / \\ or quotes"
        )


def _edges(group: Hdf5Group) -> tuple[tuple[str, str], ...]:
    if "edges" not in group:
        raise group.wrong("edges", "is missing")
    if isinstance(group.members["edges"], np.ndarray) and not group.members["edges"].size:
        return ()
    pairs = group.texts("edges")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) > MAX_EDGES:
        raise group.wrong(
            "edges", f"has shape {list(pairs.shape)}; pairs of node names were expected, at most {MAX_EDGES}"
        )
    return tuple((str(a), str(b)) for a, b in pairs)


def _type(group: Hdf5Group) -> str:
    return group.text("type")


def _node(group: Hdf5Group, name: str) -> NirNode:
    kind = _type(group)
    where = f"{group.file}: node '{name}' ({ascii(kind)[1:-1][:40]})"
    if kind not in NODES:
        raise FrontendError(f"{where}: unknown node type; NIR {VERSION} has {', '.join(NODES)} and NIRGraph")
    fields = NODES[kind]
    for key in group.names:
        if key not in fields and key not in (*IGNORED, *DERIVED):
            raise group.wrong(key, f"is no field of a {kind} of NIR {VERSION}, and would be lost; take it out")
    values = {}
    for key, form in fields.items():
        if key in group:
            values[key] = _value(group, key, form)
        elif form.needed:
            raise FrontendError(f"{where}: '{key}' is missing")
    return NirNode(name, kind, values, where)


def _value(group: Hdf5Group, key: str, form: Field) -> Any:
    if form.kind in ("real", "positive"):
        array = group.numbers(key)
        array = array.astype(np.float32) if array.dtype == np.float16 else array
        if form.kind == "positive" and array.size and not array.min() > 0:
            bad = int((~(array > 0)).sum())
            raise group.wrong(key, f"has {bad} of {array.size} values that are not positive, the least {array.min():g}")
        return array
    if form.kind == "pad" and _is_text(group, key):
        text = group.text(key)
        if text not in ("same", "valid"):
            raise group.wrong(key, f"is {ascii(text)[:40]}; 'same', 'valid' or numbers were expected")
        return text
    return _whole(group, key, form)


def _is_text(group: Hdf5Group, key: str) -> bool:
    found = group.members[key]
    return isinstance(found, np.ndarray) and found.dtype == object


def _whole(group: Hdf5Group, key: str, form: Field) -> Any:
    array = group.integers(key)
    if array.size and not -MAX_WHOLE <= array.min() <= array.max() <= MAX_WHOLE:
        raise group.wrong(key, f"has values {array.min()}..{array.max()}, far beyond any network")
    if form.kind == "whole":
        return group.integer(key, -MAX_WHOLE, MAX_WHOLE)
    if array.ndim > 1 or (form.kind in ("pair", "pad") and array.size not in (1, 2)) or array.size > 16:
        raise group.wrong(key, f"has shape {list(array.shape)}; one or two numbers were expected")
    return tuple(int(v) for v in np.atleast_1d(array))
