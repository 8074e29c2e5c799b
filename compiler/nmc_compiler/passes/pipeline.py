"""The pass pipeline: float graph in, integer event-driven graph out, verified after every pass."""

from __future__ import annotations

import time
from collections.abc import Callable

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Attr, Graph, label, op_spec, rebuild
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import Inputs
from nmc_compiler.passes.base import Pass
from nmc_compiler.passes.distribute import DistributeSums
from nmc_compiler.passes.drop_dead import DropDead
from nmc_compiler.passes.fold_batch_norm import FoldBatchNorm
from nmc_compiler.passes.fold_convs import FoldConvs
from nmc_compiler.passes.fold_scale import FoldScale
from nmc_compiler.passes.fold_sites import FoldSites
from nmc_compiler.passes.fold_time import FoldTime
from nmc_compiler.passes.gates import RecogniseGates
from nmc_compiler.passes.hoist_bias import HoistBias
from nmc_compiler.passes.host_partition import ALLOW, refuse
from nmc_compiler.passes.join_linear import JoinLinear
from nmc_compiler.passes.plain_neurons import APPROXIMATIONS, PlainNeurons
from nmc_compiler.passes.pool_codes import PoolCodes
from nmc_compiler.passes.psn_banks import PsnBanks
from nmc_compiler.passes.quantize import Quantize
from nmc_compiler.passes.quantize_all import QuantizeAll
from nmc_compiler.passes.relay_factors import RelayFactors
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.split_decays import SplitDecays
from nmc_compiler.passes.split_neurons import SplitNeurons
from nmc_compiler.target import Target

PASSES: tuple[type, ...] = (
    DropDead,
    PoolCodes,
    PsnBanks,
    FoldTime,
    PlainNeurons,
    SplitNeurons,
    JoinLinear,  # what the folding passes have no rule for; they take the rest
    SplitDecays,
    FoldBatchNorm,
    FoldScale,  # before FoldConvs: a LayerScale may stand between two convolutions
    RelayFactors,
    FoldConvs,
    FoldSites,
    HoistBias,
    DistributeSums,
    RecogniseGates,
    QuantizeAll,
)

Observer = Callable[[str, Graph, float], None]


def passes_for(target: Target, options: CompileOptions, calibration: Inputs | None = None) -> list[Pass]:
    """The passes in order, with the numbers of the target; what ``calibration`` reaches sets scales of general neurons.

    UsageError for an approximation that none of them knows.
    """
    known = (*APPROXIMATIONS, "decay-groups")
    unknown = next((name for name in options.allow if name not in (*known, ALLOW)), None)
    if unknown is not None:
        raise UsageError(
            f"cannot allow '{unknown}'; approximations of neurons are {', '.join(known)}; '{ALLOW}' leaves ops of real "
            f"numbers to the host"
        )
    made: dict[type, Pass] = {
        PlainNeurons: PlainNeurons(options.allow, target.features.microcoded_neuron.supported),
        SplitNeurons: SplitNeurons(options.allow),
        SplitDecays: SplitDecays(options.allow),
        RelayFactors: RelayFactors(options.factors, target.features.graded_spikes.supported),
        QuantizeAll: QuantizeAll(_quantize(target, options), calibration),
    }
    return [made[p] if p in made else p() for p in PASSES]


def _under_profile(graph: Graph, target: Target) -> Graph:
    """An integer graph with the integer rules of the target; one that was made for other rules is refused."""
    nodes = []
    for node in graph:
        if "profile" in op_spec(node.op).attrs and node.attr("profile", "loihi2") != target.profile:
            if "profile" in node.attrs:
                raise LoweringError(
                    f"'{label(node)}' follows the integer rules of {node.attr('profile')}, "
                    f"target '{target.name}' those of {target.profile}"
                )
            node = node.with_attrs(profile=Attr(target.profile, "target"))
        nodes.append(node)
    return rebuild(graph, nodes)


def _quantize(target: Target, options: CompileOptions) -> Quantize:
    core = target.core
    return Quantize(
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
        cells=target.features.microcoded_neuron.supported,
    )


def compile_graph(
    graph: Graph,
    target: Target,
    options: CompileOptions,
    report: ConversionReport,
    observer: Observer | None = None,
    calibration: Inputs | None = None,
) -> Graph:
    """Run every pass; ``observer(pass name, graph after it, seconds)`` is called after each.

    Graphs with outputs take the passes of general networks, and inputs for ``calibration`` as ``interpret`` takes them;
    an integer graph with outputs is left as it is, but for the integer rules of the target.
    """
    verify(graph)
    refuse(graph)
    if graph.numbers == "int" and options.weight_bits is not None:
        raise UsageError(
            f"--weight-bits {options.weight_bits}: the weights of '{graph.name}' are integers already; leave it out"
        )
    if graph.numbers == "int" and graph.outputs:
        verify(graph, event_driven=True)
        return _under_profile(graph, target)
    for step in passes_for(target, options, calibration):
        start = time.perf_counter()
        graph = step.apply(graph, report)
        verify(graph, event_driven=step.name == Quantize.name)
        if observer is not None:
            observer(step.name, graph, time.perf_counter() - start)
    return graph
