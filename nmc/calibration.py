"""Calibration data: inputs on which the float and the integer network are compared, and what came of it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nmc.inputs import read_samples, shape_of_graph
from nmc.npz import Npz
from nmc_compiler.errors import FrontendError
from nmc_compiler.graph import Graph, Node
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import Inputs, agreement
from nmc_compiler.passes.cause import with_fewer_bits, worst_layer
from nmc_compiler.target import Target

SAMPLES = 16  # enough to weigh one core pair against another, and to see spikes differ
STEPS = 1 << 12  # of a stream
ALONE = "images"  # what the array of an only input may be called


def read_calibration(path: str | os.PathLike[str], graph: Graph) -> Inputs:
    """The first samples of an .npz as ``interpret`` takes them: ``images``, or an array for every input by its name.

    FrontendError for a file that is damaged, hostile, or does not fit the network.
    """
    if not graph.outputs:
        return read_samples(path, shape_of_graph(graph), SAMPLES).images
    with Npz(path) as file:
        return {n.name or n.id: _read(file, n, graph) for n in graph.sources}


def _read(file: Npz, node: Node, graph: Graph) -> np.ndarray:
    name = node.name or node.id
    key = name if name in file or len(graph.sources) > 1 else ALONE
    shape = file.header(key).shape
    inner = (graph.timesteps, *node.type.shape) if graph.input_time else node.type.shape
    one = graph.input_time and len(shape) == 4 and shape[1:] == node.type.shape
    fits = one and graph.timesteps in (0, shape[0])
    fits |= len(shape) == len(inner) + 1 and all(n in (0, m) for n, m in zip(inner, shape[1:], strict=True))
    if not fits or 0 in shape:
        wanted = ", ".join(str(n) if n else "T" for n in inner)
        raise FrontendError(
            f"{file.path}: {key} have shape {list(shape)}, but input '{name}' takes [N, {wanted}]; "
            "give calibration data as for nmc emulate"
        )
    found = file.read(key, STEPS if one else SAMPLES)
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise FrontendError(f"{file.path}: {key} have values that are NaN or infinite; clean the input")
    return found if one or not graph.input_time else found[:, :STEPS]


def compared(
    float_graph: Graph, int_graph: Graph, inputs: Inputs, target: Target, options: CompileOptions, exact: set[str]
) -> dict[str, Any]:
    """What quantisation did to spikes: one entry per population, and the experiment on the worst of them.

    Integers that came in as such are compared with nothing.
    """
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else np.asarray(inputs)
    about: dict[str, Any] = {"samples": 1 if first.ndim == 4 and float_graph.input_time else len(first)}
    if float_graph.numbers == "int":
        return about | {"populations": [], "worst": None}
    found = agreement(float_graph, int_graph, inputs, exact)
    worst = worst_layer(found)
    told: dict[str, Any] | None = None
    if worst is not None:
        told = {"layer": worst.layer, "weight_bits": target.core.weight_bits.value}
        if fewer := with_fewer_bits(float_graph, worst.layer, inputs, target, options):
            told |= {"fewer_bits": fewer[0], "own_with_fewer_bits": fewer[1]}
    return about | {"populations": [a.as_json() for a in found], "worst": told}
