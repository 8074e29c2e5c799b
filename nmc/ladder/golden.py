"""Golden vectors: what the authors' own code computed, read and checked against the graph it should fit."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from nmc.inputs import Samples, read_samples, shape_of_graph
from nmc.npz import Npz
from nmc_compiler.errors import FrontendError
from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.analysis import populations

PREFIX = "spikes/"
LARGEST_CODE = 255


@dataclass(frozen=True)
class Golden:
    """``samples`` with labels, ``logits`` float64 [N, classes], and the recorded codes of the first
    ``recorded`` images: population -> whole numbers [T, recorded, C, H, W]."""

    samples: Samples
    logits: np.ndarray
    codes: dict[str, np.ndarray]
    recorded: int


def read_golden(path: str | os.PathLike[str], graph: Graph, limit: int | None = None) -> Golden:
    """Read golden vectors for ``graph``; of images without recorded spikes only the first ``limit``.

    FrontendError where a part is missing or does not fit, and where there is nothing to compare:
    no recorded population, a recorded name that no population has, not one spike.
    """
    nodes = {n.name: n for n in populations(graph)}
    with Npz(path) as file:
        names = [n.removeprefix(PREFIX) for n in file.names if n.startswith(PREFIX)]
        _check_names(names, nodes, str(path))
        recorded = _recorded(file, names, nodes, graph)
        codes = {name: _codes(file, name, nodes[name], graph, recorded) for name in names}
        if not any(code.any() for code in codes.values()):
            raise FrontendError(f"{path}: {len(names)} populations are recorded, but not one spike in them")
    samples = read_samples(path, shape_of_graph(graph), None if limit is None else max(limit, recorded))
    if len(samples.images) < recorded:
        raise FrontendError(f"{path}: spikes of {recorded} images are recorded, but {len(samples.images)} images")
    if samples.labels is None:
        raise FrontendError(f"{path}: has no labels, which the accuracy rung needs; add an array 'labels' [N]")
    with Npz(path) as file:
        logits = _logits(file, file.header("images").shape[0], shape_of_graph(graph).classes)
    return Golden(samples, logits[: len(samples.images)], codes, recorded)


def _check_names(names: list[str], nodes: dict[str, Node], path: str) -> None:
    if not names:
        raise FrontendError(
            f"{path}: no recorded spikes (arrays 'spikes/<module>'), so there is nothing to compare; "
            "record them with the authors' code"
        )
    unknown = [name for name in names if name not in nodes]
    if unknown:
        raise FrontendError(
            f"{path}: recorded {unknown[0]!r} is no population of the network ({len(unknown)} such); "
            f"it has {', '.join(list(nodes)[:4])}, ...: is it the same model?"
        )


def _recorded(file: Npz, names: list[str], nodes: dict[str, Node], graph: Graph) -> int:
    """How many images were recorded: all arrays must say the same."""
    found = {}
    for name in names:
        shape = file.header(PREFIX + name).shape
        expected = record_shape(nodes[name])
        lead = shape[: len(shape) - len(expected)]
        _, count = record_window(nodes[name], graph)
        steps = (count,) if graph.record_time else ()
        if _images_last(shape, nodes[name], graph):
            lead = (count, shape[-1])
            shape = (*lead, *expected)
        elif any(steps) and len(lead) == 1 and lead[0] % count == 0:  # a module that got both as one axis
            lead = (count, lead[0] // count)
        if shape[len(shape) - len(expected) :] != expected or lead[:-1] != steps or len(lead) != len(steps) + 1:
            axes = [*(["T"] if graph.record_time else []), "images", *map(str, expected)]
            raise FrontendError(
                f"{file.path}: {PREFIX}{name} has shape {list(shape)}, expected [{', '.join(axes)}]"
                + (f" with T = {count}" if graph.record_time else "")
            )
        found[name] = lead[-1]
    counts = set(found.values())
    if len(counts) != 1 or 0 in counts:
        raise FrontendError(f"{file.path}: populations are recorded for {sorted(counts)} images; give one number >= 1")
    return counts.pop()


def _images_last(shape: tuple[int, ...], node: Node, graph: Graph) -> bool:
    """Whether an array is [T, channels, images] (LMUFormer's modules), and not [T, images, channels]."""
    if not graph.record_time or len(shape) != 3 or len(record_shape(node)) != 1:
        return False
    _, count = record_window(node, graph)
    (channels,) = record_shape(node)
    return shape[:2] == (count, channels) and shape[2] != channels


def record_shape(node: Node) -> tuple[int, ...]:
    """Shape of one timestep of a population as its authors lay it out."""
    return tuple(node.attr("record_shape", node.type.shape))


def record_window(node: Node, graph: Graph) -> tuple[int, int]:
    """The first timestep of a population that its authors' module has, and how many; outside it is silent."""
    return node.attr("record_window", (0, graph.timesteps))  # type: ignore[no-any-return]


def _codes(file: Npz, name: str, node: Node, graph: Graph, recorded: int) -> np.ndarray:
    stored = file.read(PREFIX + name)
    if stored.dtype.kind not in "biu":
        raise FrontendError(f"{file.path}: {PREFIX}{name} has dtype {stored.dtype}; codes are whole numbers")
    if stored.max() > LARGEST_CODE or stored.min() < 0:
        raise FrontendError(f"{file.path}: {PREFIX}{name} holds {stored.min()} to {stored.max()}; codes are 0 to 255")
    stored = np.moveaxis(stored, 2, 1) if _images_last(stored.shape, node, graph) else stored
    perm = node.attr("record_perm", (0, 1, 2))
    first, count = record_window(node, graph) if graph.record_time else (0, 1)
    laid = stored.reshape(count, recorded, *(node.type.shape[axis] for axis in perm))
    back = [2 + perm.index(axis) for axis in range(3)]
    silent = (first, graph.timesteps - first - count) if graph.record_time else (0, 0)
    return np.pad(laid.transpose(0, 1, *back), (silent, *[(0, 0)] * 4))


def _logits(file: Npz, samples: int, classes: int) -> np.ndarray:
    logits = file.read("logits").astype(np.float64)
    if logits.shape != (samples, classes):
        raise FrontendError(f"{file.path}: logits have shape {list(logits.shape)}, expected [{samples}, {classes}]")
    if not np.isfinite(logits).all():
        raise FrontendError(f"{file.path}: logits hold NaN or infinity; record them again")
    return logits
