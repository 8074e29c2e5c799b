"""Why spikes differ: the layer that differs most by itself, and whether fewer weight bits make it worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nmc_compiler.graph import Graph
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import Agreement, Inputs, agreement
from nmc_compiler.passes.pipeline import passes_for
from nmc_compiler.passes.quantize_all import QuantizeAll
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import Target


def worst_layer(found: list[Agreement]) -> Agreement | None:
    """The layer of which the largest share of neurons and timesteps differs by itself; the first of equals.

    None where no layer differs by itself.
    """
    differing = [a for a in found if a.own]
    return max(differing, key=lambda a: a.own / (a.neurons * a.steps * a.samples), default=None)


def with_fewer_bits(
    graph: Graph, layer: str, inputs: Inputs, target: Target, options: CompileOptions
) -> tuple[int, int] | None:
    """(weight bits less one, how many spikes of ``layer`` then differ by itself); None where the target has but 2."""
    bits = target.core.weight_bits.value - 1
    if bits < 2:
        return None
    report, coarse = ConversionReport(), graph
    for step in passes_for(target, options, inputs):
        coarse = _narrow(step, bits).apply(coarse, report)
    found = next(a for a in agreement(graph, coarse, inputs, report.exact) if a.layer == layer)
    return bits, found.own


def _narrow(step: Any, bits: int) -> Any:
    if isinstance(step, QuantizeAll):
        return replace(step, chip=replace(step.chip, weight_bits=bits))
    return step
