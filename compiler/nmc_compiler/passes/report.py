"""Conversion report: what each pass changed, layer by layer, and which entries speak of which population."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.types import Attr

DECAY = 4096
WEIGHTED = ("conv2d", "host_conv2d", "sparse", "sparse_conv3d", "host_sparse_conv3d")
HELPERS = ("pool", "and")  # populations that stand for a node of the model that is no neuron


@dataclass
class ConversionReport:
    """Entries in the order they happened: pass name, layer (module name), and plain facts."""

    notes: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, pass_name: str, layer: str, **facts: Any) -> None:
        self.entries.append({"pass": pass_name, "layer": layer, **facts})

    def of(self, pass_name: str) -> list[dict[str, Any]]:
        return [e for e in self.entries if e["pass"] == pass_name]

    @property
    def exact(self) -> set[str]:
        """Neurons whose compare is met to the letter, ties included."""
        return {e["layer"] for e in self.of("quantize") if e.get("exact")}

    def as_json(self) -> dict[str, Any]:
        return {"schema": "nmc.conversion/1", "notes": self.notes, "entries": self.entries}


def layers_of(float_graph: Graph, int_graph: Graph) -> list[dict[str, Any]]:
    """Populations of the integer graph in its order: ``layer``, ``kind``, ``reads`` (layers whose weights it sums).

    ``theta``: the threshold as trained, the largest of them, where there is one.
    ``decay``: what is kept of a step, as trained and as the chip has it, where the model has one and they differ.
    """
    trained = {label(n): n for n in float_graph if is_neuron(n)}
    by_id = int_graph.by_id()
    found = []
    for node in int_graph:
        if not is_neuron(node) or node.attr("role") in HELPERS:
            continue
        about: dict[str, Any] = {"layer": label(node), "kind": node.op, "reads": _reads(node, by_id)}
        model = trained.get(str(node.attr("part_of", label(node))))
        if model is not None and model.op != node.op:
            about["kind"] = model.op
            about["decay"] = _decays(float_graph, int_graph, model, node)
            theta = _own((float_graph, int_graph), model, node, model.attrs.get("theta"))
            about |= {} if theta is None else {"theta": float(theta.max())}
        found.append(about)
    return found


def _reads(node: Node, by_id: dict[str, Node]) -> list[str]:
    """Labels of the weighted nodes whose sum a population takes in."""
    found: list[str] = []
    waiting = list(node.operands)
    seen: set[str] = set()
    while waiting:
        at = by_id[waiting.pop(0)]
        if at.id in seen or is_neuron(at):
            continue
        seen.add(at.id)
        if at.op in WEIGHTED:
            found.append(label(at))
        else:
            waiting += at.operands
    return found


def _decays(float_graph: Graph, int_graph: Graph, model: Node, node: Node) -> dict[str, list[float]]:
    """What is kept of current (alpha) and potential (beta) in a step: as trained, and in steps of 1/4096."""
    if node.op not in ("cuba_lif", "cell", "int_integrator") or node.attr("role") == "or":  # a gate remembers nothing
        return {}
    kept = {"alpha": 1 - (node.attr("du", DECAY - 1) + 1) / DECAY, "beta": 1 - node.attr("dv") / DECAY}
    wanted = {"alpha": model.attrs.get("alpha"), "beta": model.attrs.get("beta")}
    if model.op == "lif":
        wanted = {"alpha": None, "beta": Attr(1.0 - 1.0 / model.attr("tau"))}
    found = {}
    for key, attr in wanted.items():
        value = _own((float_graph, int_graph), model, node, attr)
        if value is not None and (value != kept[key]).any():
            furthest = float(value[np.argmax(np.abs(value - kept[key]))])
            found[key] = [furthest, float(kept[key])]
    return found


def _own(graphs: tuple[Graph, Graph], model: Node, node: Node, attr: Attr | None) -> np.ndarray | None:
    """The values of a parameter that belong to a population, or to the part of one that it is."""
    if attr is None or isinstance(attr.value, (int, float)):
        return None if attr is None else np.array([attr.value], np.float64)
    array = graphs[0].tensors[attr.value.key].astype(np.float64)  # type: ignore[union-attr]
    if model.op == "psn":  # a threshold for each timestep
        return np.unique(array)
    array = array[:, None, None] if array.ndim == 1 else array
    values, at = np.broadcast_to(array, model.type.shape).reshape(-1), graphs[1].tensor(node, "elements")
    return np.unique(values if at is None else values[at])
