"""Compiling a network that the host has a part of: inputs of the chip's part, and the whole around its integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering.host import host_facts
from nmc_compiler.passes.agreement import Inputs
from nmc_compiler.passes.host_join import joined
from nmc_compiler.passes.host_partition import UNREAD, Parted
from nmc_compiler.program.model import Program


def inputs_of(parted: Parted, inputs: Inputs | None) -> Inputs | None:
    """What the chip's part gets where the whole float network gets ``inputs``."""
    if inputs is None:
        return None
    whole, chip = parted.whole, parted.chip
    names = [n.name or n.id for n in whole.sources]
    given = inputs if isinstance(inputs, Mapping) else {names[0]: inputs}
    values = interpret(whole, given, values=parted.sent).values
    found = {}
    for node in chip.sources:
        name = node.name or node.id
        if node.id in values:
            found[name] = np.moveaxis(values[node.id], 0, 1)
        else:
            array = np.asarray(given[name])
            repeated = np.broadcast_to(array[:, None], (len(array), whole.timesteps, *array.shape[1:]))
            found[name] = array if whole.input_time else repeated
    return found


def with_host(parted: Parted, chip: Graph, program: Program) -> tuple[Program, Graph]:
    """The Program, which says what the host does, and the integer graph of the whole network."""
    graph = joined(parted, chip, program.meta["outputs"])
    reads = {*parted.reads.values(), UNREAD}
    meta = {**program.meta, "outputs": [o for o in program.meta["outputs"] if o["name"] not in reads]}
    return replace(program, meta=meta | {"host": host_facts(graph, program)}), graph
