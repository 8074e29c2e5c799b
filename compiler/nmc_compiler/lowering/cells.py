"""The graph's ``cell`` as fields of a population."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.graph import Graph, Node
from nmc_compiler.program.model import Cell

TENSORS = {"step": "step", "low": "low", "floor": "floor", "jump": "jump"}
TABLES = {"gain": "gain_t", "bias": "bias_t", "rise": "rise_t"}


def cell_fields(graph: Graph, node: Node) -> dict[str, Any]:
    """Everything of a population of the model cell but its name, shape, place and bias."""
    arrays = {name: graph.tensor(node, key) for name, key in (TENSORS | TABLES).items()}
    for name in TABLES:
        table = arrays[name]
        if table is not None and table.ndim == 1:
            arrays[name] = table[:, None]
    if arrays["bias"] is not None:
        arrays["bias"] = np.repeat(arrays["bias"], node.type.shape[0] // arrays["bias"].shape[1], axis=1)
    cell = Cell(
        soft=node.attr("reset") != "hard",
        late=node.attr("late", False),
        sums=node.attr("sums"),
        db=node.attr("db", 0),
        **arrays,
    )
    return {
        "model": "cell",
        "du": node.attr("du", 4095),
        "dv": node.attr("dv"),
        "thresholds": graph.tensor(node, "thresholds"),
        "start_u": graph.tensor(node, "start_u"),
        "start_v": graph.tensor(node, "start_v"),
        "payload_bits": node.type.bits,
        "signed": node.type.signed,
        "cell": cell,
    }
