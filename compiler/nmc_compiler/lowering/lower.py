"""Lower an integer, event-driven SpikeGraph to the netlist of a Program."""

from __future__ import annotations

from dataclasses import replace

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind
from nmc_compiler.graph.analysis import check_acyclic
from nmc_compiler.lowering.features import check_features
from nmc_compiler.lowering.netlist import Netlist
from nmc_compiler.options import CompileOptions
from nmc_compiler.program.model import Program
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target

DUPLICATION_PRICE = 4.0  # most synaptic work, against shared streams, that "auto" pays for documented features
POOLS = ("maxpool2d", "sum_positions", "sum_sites")


def lower(graph: Graph, target: Target, options: CompileOptions) -> Program:
    """Populations, dendrites and projections with levels and delays; ``mapping`` is left None.

    Raises LoweringError where the graph asks for what a Program or the target has not. Of a network with outputs
    ``meta["outputs"]`` says what the host reads, ``meta["inputs"]`` how it encodes real inputs (``lowering.ends``).
    """
    check_acyclic(graph)
    if graph.numbers != "int":
        raise LoweringError(f"graph '{graph.name}' is not an integer graph; run the passes first")
    if options.residual != "auto" or (graph.outputs and not _shares(graph)):
        return _lower(graph, target, options)
    plain = _attempt(graph, target, replace(options, residual="duplicate"))
    shared = _attempt(graph, target, replace(options, residual="stream"))
    if isinstance(shared, LoweringError):
        if isinstance(plain, LoweringError):
            raise plain  # the error of sharing may only say: duplicate
        return plain
    if isinstance(plain, LoweringError) or not _rests_on_documents(plain) or _rests_on_documents(shared):
        return shared
    price = synaptic_work(plain) / synaptic_work(shared)
    if price > DUPLICATION_PRICE:
        return shared
    note = (
        f"residual streams are duplicated: so the network needs only what {target.name} is documented to do, at "
        f"{price:.2f} times the synaptic work of shared accumulators (--residual stream)"
    )
    return replace(plain, meta={**plain.meta, "notes": [note]})


def _attempt(graph: Graph, target: Target, options: CompileOptions) -> Program | LoweringError:
    try:
        return _lower(graph, target, options)
    except LoweringError as error:
        return error


def _rests_on_documents(program: Program) -> bool:
    return all(f["evidence"] != "assumed" for f in program.meta["features"])


def synaptic_work(program: Program) -> int:
    """Weights times source positions over all convolutions: SynOps of one timestep with every input active."""
    work = 0
    for conv in program.convs:
        _, h, w = program.populations[conv.src].shape
        work += conv.weight.size * h * w
    return work


def _lower(graph: Graph, target: Target, options: CompileOptions) -> Program:
    program = Netlist(graph, target, options).program()
    validate_program(program)
    about = {"features": check_features(program, target), "options": options.as_json(), "graph": graph.name}
    return replace(program, meta=about | program.meta)


def _shares(graph: Graph) -> bool:
    """Whether accumulators of the graph could have several readers: sums that are read twice, or by a pool or sum."""
    users = graph.users()
    return any(
        n.type.kind is Kind.CURRENT and (len(users[n.id]) > 1 or any(u.op in POOLS for u in users[n.id])) for n in graph
    )
