"""The pass pipeline: float graph in, integer event-driven graph out, verified after every pass."""

from __future__ import annotations

import time
from collections.abc import Callable

from nmc_compiler.graph import Graph
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.base import Pass, refuse_lags
from nmc_compiler.passes.distribute import DistributeSums
from nmc_compiler.passes.drop_dead import DropDead
from nmc_compiler.passes.fold_batch_norm import FoldBatchNorm
from nmc_compiler.passes.fold_convs import FoldConvs
from nmc_compiler.passes.fold_scale import FoldScale
from nmc_compiler.passes.gates import RecogniseGates
from nmc_compiler.passes.hoist_bias import HoistBias
from nmc_compiler.passes.quantize import Quantize
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import Target

PASSES: tuple[type, ...] = (
    DropDead,
    FoldBatchNorm,
    FoldScale,  # before FoldConvs: a LayerScale may stand between two convolutions
    FoldConvs,
    HoistBias,
    DistributeSums,
    RecogniseGates,
    Quantize,
)

Observer = Callable[[str, Graph, float], None]


def passes_for(target: Target, options: CompileOptions) -> list[Pass]:
    """The passes in order, with the numbers of the target."""
    core = target.core
    quantize = Quantize(
        weight_bits=core.weight_bits.value,
        weight_exp_max=core.weight_exp.value[1],
        rshift_max=-core.weight_exp.value[0],
        bias_mant_bits=core.bias_mant_bits.value,
        bias_exp_max=core.bias_exp.value[1],
        vth_bits=core.vth_bits.value,
        state_bits=core.state_bits.value,
        accumulator_bits=target.packing.accumulator_bits.value,
        channel_bins=min(options.channel_bins, core.neuron_groups.value),
        input_encoding=options.input_encoding,
        input_range=options.input_range,
        attn_order=options.attn_order,
        profile=target.profile,
    )
    return [*(p() for p in PASSES[:-1]), quantize]


def compile_graph(
    graph: Graph,
    target: Target,
    options: CompileOptions,
    report: ConversionReport,
    observer: Observer | None = None,
) -> Graph:
    """Run every pass; ``observer(pass name, graph after it, seconds)`` is called after each."""
    verify(graph)
    refuse_lags(graph)
    for step in passes_for(target, options):
        start = time.perf_counter()
        graph = step.apply(graph, report)
        verify(graph, event_driven=step.name == Quantize.name)
        if observer is not None:
            observer(step.name, graph, time.perf_counter() - start)
    return graph
