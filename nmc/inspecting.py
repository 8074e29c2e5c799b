"""nmc.inspect: what a network is made of, layer by layer, and what becomes of each part on a chip."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nmc.artefact import from_meta, load
from nmc.importing import ModelOptions, import_model
from nmc_compiler.graph import Graph, Node, Ref
from nmc_compiler.graph.verify import findings
from nmc_compiler.program.model import Conv, Program, Sparse
from nmc_emulator.timing import edges_of
from nmc_emulator.trace import coded

SCHEMA = "nmc.inspect/1"
OWN = {  # numbers of a soma, by its model
    "lif": ("du", "dv", "restart"),
    "cell": ("du", "dv"),
    "sigma_delta": ("relu", "cumulative"),
}
BUFFERS = ("mean", "var", "value")  # statistics of a batch norm, and what it makes of zeros: not trained


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
    """Layers in the order of the data flow, the settings with their evidence, and notes of the front end.

    ``conversion``: what became of each node of a NIR file, rated faithful or approximate.
    """

    name: str
    timesteps: int
    numbers: str
    notes: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    layers: tuple[Layer, ...]
    conversion: tuple[dict[str, Any], ...] = ()

    @property
    def parameters(self) -> int:
        """Trained numbers, each array once however many layers share it."""
        return _parameters(self.layers)

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
    **options: Any,
) -> Inspection:
    """Inspect a model file, the integer graph of a folder that ``nmc compile`` wrote, or any other Program.

    options: timesteps, dt, nir_rule, nir_reset and nir_input, as ``nmc.compile`` takes them.
    Raises FrontendError for a file that cannot be understood, ArtefactError for a damaged folder.
    """
    path = Path(model)
    if path.is_dir():
        compiled = load(path)
        if "graphs" not in compiled.program.meta:
            return _of_program(compiled.program)
        values = _settings(from_meta(compiled.program, "config"))
        return _inspection(compiled.int_graph, tuple(compiled.conversion.get("notes", ())), values)
    asked = ModelOptions(config, family, **options)
    imported = import_model(path, replace(asked, host=True))  # what would be the host's is shown as such
    values = {key: {"value": a.value, "evidence": a.evidence} for key, a in imported.config.values.items()}
    return replace(_inspection(imported.graph, imported.notes, values), conversion=imported.entries)


def parameters_of(graph: Graph) -> int:
    """Trained numbers of a graph, as ``Inspection.parameters`` counts them."""
    return _parameters(tuple(_layer(graph, node, "", False, "") for node in graph))


def _parameters(layers: tuple[Layer, ...]) -> int:
    sizes = {a["key"]: a["size"] for layer in layers for k, a in layer.arrays.items() if k not in BUFFERS}
    return sum(sizes.values())


def _of_program(program: Program) -> Inspection:
    """A Program that was made from no graph: its populations, and the projections into them."""
    layers = tuple(_population(program, i) for i in range(len(program.populations)))
    notes = ("made from no graph: these are the populations of the Program, each with the projections that it reads",)
    return Inspection(program.name, program.timesteps, "integer", notes, {}, layers)


def _population(program: Program, i: int) -> Layer:
    p, origin = program.populations[i], "program"
    sums = _dendrites(program, p.dendrite)
    arrays: dict[str, dict[str, Any]] = {}
    weighted: list[Conv | Sparse] = [*program.convs, *program.sparses]
    for item in (item for item in weighted if item.dst in sums):
        key = (item.weight_key if isinstance(item, Conv) else "") or item.name
        of = {"key": key, "shape": list(item.weight.shape), "size": int(item.weight.size)}
        arrays[item.name] = of | {"evidence": origin}
    told = {name: getattr(p, name) for name in OWN.get(p.model, ())}
    if p.cell is not None:
        told |= {name: getattr(p.cell, name) for name in ("soft", "late", "db", "sums")}
    values = {name: {"value": value, "evidence": origin} for name, value in told.items() if value is not None}
    sources = ", ".join(dict.fromkeys(program.populations[e.src].name for e in edges_of(program) if e.dst in sums))
    reason = f"driven by events of {sources}" if sources else "reads no events"
    reason, place = ("its events are given", "host") if p.model == "input" else (reason, "core")
    gives = "values" if p.model == "readout" else "codes" if coded(p) else "spikes"
    parameters = sum(a["size"] for a in arrays.values())
    shape = "x".join(map(str, p.shape))
    return Layer(p.name, p.model, f"{gives} {shape}", parameters, place, True, reason, values, arrays)


def _dendrites(program: Program, dendrite: int) -> set[int]:
    """A dendrite and those whose sums are moved to it."""
    found = {dendrite}
    return found.union(*(_dendrites(program, t.src) for t in program.transfers if t.dst == dendrite))


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
