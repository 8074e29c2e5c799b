"""NIR files with nmc's extension: the graph is in its text form, and NIR's own nodes must agree with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError, UsageError, VerifyError
from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.graph import Graph
from nmc_compiler.graph.text import from_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.nir.extension import FIELDS, GRAPH, OP, PREFIX, differences, extend, tensor_of
from nmc_compiler.nir.rules import rule_of
from nmc_compiler.nir.say import say

AGAIN = "write the file again with nmc export"


def extended(root: Hdf5Group) -> bool:
    """Whether a graph has nmc's extension. FrontendError for one of another version."""
    found = [name for name in root.names if name.startswith(PREFIX)]
    for name in found:
        if name != GRAPH:
            raise root.wrong(name, f"is an extension that this version of nmc does not know (it knows {GRAPH})")
    return bool(found)


def read_extended(root: Hdf5Group, dt: float, timesteps: int) -> tuple[Graph, list[dict[str, Any]], tuple[str, ...]]:
    """Graph, report entries and notes. FrontendError where the file contradicts itself."""
    group = root.group(GRAPH)
    if sorted(group.names) != sorted(FIELDS):
        raise FrontendError(f"{group.where} has {', '.join(group.names)}; {', '.join(FIELDS)} were expected; {AGAIN}")
    if group.numbers("dt").size != 1:
        raise group.wrong("dt", f"is no single number; {AGAIN}")
    stored = float(group.numbers("dt").item())
    if stored != dt:
        raise UsageError(f"{root.file}: --dt {dt:g}: its numbers are those of dt = {stored!r}; give that")
    try:
        graph = from_text(group.text("text"), _tensors(root, group))
        verify(graph)
    except VerifyError as error:
        raise FrontendError(f"{group.where}: {error}; {AGAIN}") from None
    _check(root, graph, dt, group.text("rule"), group.text("reset"))
    if timesteps and timesteps != graph.timesteps:
        if not graph.outputs:
            raise UsageError(f"{root.file}: --timesteps {timesteps}, but it is a model of T = {graph.timesteps}")
        graph = replace(graph, timesteps=timesteps)
    notes = (f"NIR graph with {GRAPH}, at dt = {dt:g} s: what stands there counts; rules and kinds of input do not",)
    return graph, [], notes


def _tensors(root: Hdf5Group, group: Hdf5Group) -> dict[str, np.ndarray]:
    keys, places = group.texts("keys").reshape(-1), group.texts("at").reshape(-1)
    if len(keys) != len(places) or len(set(keys)) != len(keys):
        raise FrontendError(f"{group.where}: {len(keys)} keys, {len(places)} places; {AGAIN}")
    arrays, nodes = group.group("arrays"), root.group("nodes")
    out = {}
    for i, (key, place) in enumerate(zip(keys, places, strict=True)):
        node, _, field = str(place).rpartition("/")
        array = nodes.group(node).numbers(field) if place else arrays.numbers(str(i))
        if field == "weight" and not 2 <= array.ndim <= 4:
            raise nodes.group(node).wrong(field, f"has shape {list(array.shape)}; {AGAIN}")
        out[str(key)] = np.ascontiguousarray(tensor_of(array, field))
    return out


def _check(root: Hdf5Group, graph: Graph, dt: float, rule: str, reset: str) -> None:
    """NIR's own nodes say what the graph says: whoever changed one of the two alone hears of it."""
    said = say(graph, rule_of(rule, reset), dt)
    extend(graph, said, dt, rule, reset)
    nodes = root.group("nodes")
    found: dict[str, dict[str, Any]] = {}
    for name in nodes.names:
        node = nodes.group(name)
        fields = {k: v for k, v in node.members.items() if k != "metadata"}
        odd = next((k for k, v in fields.items() if not isinstance(v, np.ndarray)), None)
        if odd is not None:
            raise node.wrong(odd, f"is no field of NIR, nor of {OP}; {AGAIN}")
        found[name] = fields
    pairs = root.texts("edges")
    edges = {(str(a), str(b)) for a, b in pairs.reshape(-1, 2)} if pairs.size % 2 == 0 else set()
    wrong = differences(said, found, edges)
    if wrong:
        raise FrontendError(f"{root.file}: {wrong}; {AGAIN}")
