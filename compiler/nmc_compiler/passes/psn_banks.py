"""Parallel spiking neurons whose filter differs by timestep, as one population that integrates for each timestep.

Row t of the weights is the gain, timestep by timestep, of bank t, which keeps all it hears and is compared with the
threshold at the timestep of output t alone. A population behind the banks sends whatever bank spikes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, Ref, Use, label, rebuild
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.report import ConversionReport

NEVER = 1e30  # a threshold beyond any potential


@dataclass(frozen=True)
class PsnBanks:
    """Those with equal diagonals and no latency are sliding, and left to ``plain-neurons``."""

    name: ClassVar[str] = "psn-banks"

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        tensors = dict(graph.tensors)
        banked = {n.id: _banks(graph, n, tensors, report) for n in graph if n.op == "psn" and not _slides(graph, n)}
        if not banked:
            return graph
        return rebuild(graph, [new for n in graph for new in banked.get(n.id, [n])], tensors)


def _slides(graph: Graph, node: Node) -> bool:
    weight = graph.tensor(node, "weight")
    if weight is None:
        return True
    if {"begins", "late"} & set(node.attrs):
        return False
    return all((np.diagonal(weight, -k) == weight[k, 0]).all() for k in range(len(weight)))


def _banks(graph: Graph, node: Node, tensors: dict[str, np.ndarray], report: ConversionReport) -> list[Node]:
    weight, theta = graph.tensor(node, "weight"), node.attr("theta")
    assert weight is not None
    steps, (channels, height, width) = len(weight), node.type.shape
    name, begins = label(node).lstrip("%"), node.attr("begins", 0)
    if not weight.any():
        raise LoweringError(f"'{name}' has weights of 0 only; it hears nothing; remove it")
    bounds = np.broadcast_to(graph.tensors[theta.key] if isinstance(theta, Ref) else theta, steps).astype(np.float64)
    gain, limit = np.zeros((graph.timesteps, steps)), np.full((graph.timesteps, steps), NEVER)
    gain[begins : begins + steps] = weight.T
    limit[begins + node.attr("late", 0) + np.arange(steps), np.arange(steps)] = bounds
    one = np.repeat(np.eye(channels), steps, axis=0)[:, :, None, None]  # bank t of channel c is channel c * steps + t
    shape = (channels * steps, height, width)
    current, spike = (replace(node.type, kind=Kind.CURRENT, shape=s) for s in (shape, node.type.shape)), node.type
    wide, narrow = current

    def kept(key: str, array: np.ndarray) -> Any:
        return stored(tensors, f"{name}.{key}@banks", array)

    def by_bank(table: np.ndarray) -> np.ndarray:
        return np.tile(table, (1, channels))

    attrs: dict[str, Any] = {
        "beta": derived(1.0), "theta": derived(float(np.abs(bounds).max()) or 1.0), "reset": derived("none"),
        "compare": node.attrs.get("compare", derived("ge")), "gain_t": kept("gain_t", by_bank(gain)),
        "theta_t": kept("theta_t", by_bank(limit)),
    }  # fmt: skip
    relay = {"beta": 0.0, "theta": 0.5, "reset": "hard", "compare": "ge"}
    record = {k: v for k, v in node.attrs.items() if k.startswith("record_")}
    report.add(
        PsnBanks.name,
        name,
        timesteps=steps,
        neurons=steps * channels * height * width,
        change=f"{steps} banks of integrating neurons, one for each timestep, and a population behind them",
    )
    return [
        Node(f"{node.id}.spread", "conv2d", node.inputs, {"weight": kept("spread", one)}, wide),
        Node(f"{node.id}.banks", "neuron", (Use(f"{node.id}.spread"),), attrs, replace(spike, shape=shape),
             f"{name}.banks"),
        Node(f"{node.id}.any", "conv2d", (Use(f"{node.id}.banks"),),
             {"weight": kept("any", one.transpose(1, 0, 2, 3))}, narrow),
        replace(node, op="neuron", inputs=(Use(f"{node.id}.any"),),
                attrs={k: derived(v) for k, v in relay.items()} | record),
    ]  # fmt: skip
