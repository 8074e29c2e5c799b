"""Weights of plastic projections, read back from the cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore.image import Image
from nmc_compiler.neurocore.sizes import SYNAPSES
from nmc_compiler.program.model import Program

Reader = Callable[[int, int], np.ndarray]  # core, memory -> uint64 items


def learned_weights(program: Program, image: Image, read: Reader) -> dict[str, np.ndarray]:
    """int8 weights of every plastic projection by name, in the order of its synapses. ``read``: of a machine."""
    words = {core: read(core, SYNAPSES) for core in np.unique(image.weights[:, 2]).tolist()}
    found = {}
    for number, item in enumerate(program.sparses):
        if item.rule is None:
            continue
        rows = image.weights[image.weights[:, 0] == number]
        weight = item.weight.copy()
        for core, memory in words.items():
            here = rows[rows[:, 2] == core]
            bits = memory[here[:, 3]] >> here[:, 4].astype(np.uint64)
            weight[here[:, 1]] = bits.astype(np.uint8).view(np.int8)
        found[item.name] = weight
    return found


def with_weights(program: Program, weights: dict[str, np.ndarray]) -> Program:
    """The Program with those weights in its plastic projections. UsageError where they do not fit."""
    plastic = {item.name: item for item in program.sparses if item.rule is not None}
    for name, weight in weights.items():
        if name not in plastic:
            raise UsageError(f"weights of '{name}': Program '{program.name}' has no plastic projection of that name")
        if weight.dtype != np.int8 or weight.shape != plastic[name].weight.shape:
            raise UsageError(
                f"weights of '{name}' are {weight.dtype} {list(weight.shape)}, expected int8 "
                f"{list(plastic[name].weight.shape)}"
            )
    new = (dataclasses.replace(x, weight=weights[x.name]) if x.name in weights else x for x in program.sparses)
    return dataclasses.replace(program, sparses=tuple(new))
