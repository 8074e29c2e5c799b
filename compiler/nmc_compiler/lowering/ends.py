"""What the host of a Program reads at every step, and how it encodes real inputs: meta "outputs" and "inputs"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.lowering.somas import Somas

INSIDE = ("int_integrator",)  # whose potential is the value


def ends_of(graph: Graph, somas: Somas) -> dict[str, Any]:
    """Nothing for a network that is read once, by its read-out.

    Of an output: name, shape and parts; of each part the population, "spikes" or "potential", the scale that makes a
    potential the trained model's, and which of the output's elements it holds, None for all in order.
    """
    if not graph.outputs:
        return {}
    inputs = []
    for node in (n for n in graph if n.op == "encode"):
        numbers = {"scale": float(node.attr("scale")), "lo": node.attr("lo"), "hi": node.attr("hi")}
        inputs.append({"population": somas.name(node), **numbers})
    return {"inputs": inputs, "outputs": [_output(graph, somas, n) for n in graph.outputs]}


def _output(graph: Graph, somas: Somas, node: Node) -> dict[str, Any]:
    by_id, use = graph.by_id(), node.inputs[0]
    source, lag = by_id[use.node], use.lag
    while source.op == "reshape":
        source, lag = by_id[source.inputs[0].node], lag + source.inputs[0].lag
    sources, places = [source], None
    if source.op in ("gather", "take"):
        lag += sum(u.lag for u in source.inputs)
        sources, index = [by_id[u.node] for u in source.inputs], graph.tensor(source, "index")
        assert index is not None
        places = index if source.op == "gather" else _places(index, sum(math.prod(s.type.shape) for s in sources))
        if source.op == "take" and (np.sort(places) != np.arange(len(places))).any():
            raise LoweringError(f"output '{label(node)}' takes elements twice or not at all; the host reads each once")
    parts, at = [], 0
    for part in sources:
        if not somas.is_population(part) or part.op in ("input", "encode", "int_readout") or lag:
            raise LoweringError(f"output '{label(node)}' must read a neuron of the same timestep, not '{label(part)}'")
        potential, size = part.op in INSIDE, math.prod(part.type.shape)
        parts.append(
            {
                "population": label(part),
                "what": "potential" if potential else "spikes",
                "scale": float(part.attr("scale", 1.0)) if potential else 1.0,
                "elements": None if places is None else places[at : at + size].tolist(),
            }
        )
        at += size
    return {"name": label(node).lstrip("%"), "shape": list(node.type.shape), "parts": parts}


def _places(index: np.ndarray, size: int) -> np.ndarray:
    """Where each element of the operands of a take is."""
    found = np.full(size, -1, np.int64)
    found[index[index >= 0]] = np.flatnonzero(index >= 0)
    return found
