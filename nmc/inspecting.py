"""nmc.inspect: what a network is made of, layer by layer, and what becomes of each part on a chip."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nmc.artefact import from_meta, load
from nmc_compiler.frontends.checkpoint import import_checkpoint
from nmc_compiler.graph import Graph, Node, Ref
from nmc_compiler.graph.verify import findings

SCHEMA = "nmc.inspect/1"
BUFFERS = ("mean", "var")  # statistics of a batch norm: stored, but not trained


@dataclass(frozen=True)
class Layer:
    """One node of the graph. ``place`` is core, host, folded or refused; ``values`` are the node's numbers,
    each with the place it came from; ``evidence`` that of its arrays."""

    layer: str
    op: str
    gives: str
    parameters: int
    place: str
    event_driven: bool
    reason: str
    values: dict[str, dict[str, Any]]
    arrays: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Inspection:
    """Layers in the order of the data flow, the settings with their evidence, and notes of the front end."""

    name: str
    timesteps: int
    numbers: str
    notes: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers, each array once however many layers share it."""
        sizes = {a["key"]: a["size"] for layer in self.layers for k, a in layer.arrays.items() if k not in BUFFERS}
        return sum(sizes.values())

    @property
    def refused(self) -> list[Layer]:
        """Layers that neither cores nor the host can run."""
        return [layer for layer in self.layers if layer.place == "refused"]

    def as_json(self) -> dict[str, Any]:
        totals = {"parameters": self.parameters, "refused": len(self.refused)}
        return {"schema": SCHEMA, **asdict(self), **totals}


def inspect(
    model: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    family: str | None = None,
) -> Inspection:
    """Inspect a checkpoint, or the integer graph of a folder that ``nmc compile`` wrote.

    Raises FrontendError for a checkpoint that cannot be understood, ArtefactError for a damaged folder.
    """
    path = Path(model)
    if path.is_dir():
        compiled = load(path)
        values = _settings(from_meta(compiled.program, "config"))
        return _inspection(compiled.int_graph, tuple(compiled.conversion.get("notes", ())), values)
    imported = import_checkpoint(path, None if config is None else Path(config), family)
    values = {key: {"value": a.value, "evidence": a.evidence} for key, a in imported.config.values.items()}
    return _inspection(imported.graph, imported.notes, values)


def _settings(stored: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings as a Program keeps them; whatever is not of that form is left out."""
    return {k: v for k, v in stored.items() if isinstance(v, dict) and {"value", "evidence"} <= v.keys()}


def _inspection(graph: Graph, notes: tuple[str, ...], settings: dict[str, dict[str, Any]]) -> Inspection:
    layers = tuple(
        _layer(graph, node, finding.place, finding.event_driven, finding.reason)
        for node, finding in zip(graph, findings(graph), strict=True)
    )
    return Inspection(graph.name, graph.timesteps, graph.numbers, notes, settings, layers)


def _layer(graph: Graph, node: Node, place: str, event_driven: bool, reason: str) -> Layer:
    values: dict[str, dict[str, Any]] = {}
    arrays: dict[str, dict[str, Any]] = {}
    for key, attr in node.attrs.items():
        if isinstance(attr.value, Ref):
            array = graph.tensors[attr.value.key]
            arrays[key] = {
                "key": attr.value.key,
                "shape": list(array.shape),
                "size": int(array.size),
                "evidence": attr.evidence,
            }
        elif not key.startswith("record_"):
            values[key] = {"value": attr.value, "evidence": attr.evidence}
    parameters = sum(int(a["size"]) for key, a in arrays.items() if key not in BUFFERS)
    name = node.name or f"%{node.id}"
    return Layer(name, node.op, str(node.type), parameters, place, event_driven, reason, values, arrays)
