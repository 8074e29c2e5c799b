"""When the host sends: behind the last of what it reads for that, one tick later; and what a Program says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.host_work import work_of
from nmc_compiler.graph.registry import op_spec
from nmc_compiler.program.model import Population, Program

STATE_BITS = 24  # of a potential


def sending_level(graph: Graph, node: Node, levels: Mapping[str, int]) -> int:
    """Level of what the host sends: 0, or one tick behind what it reads first.

    ``after``: pairs of an output that it reads, and the timesteps before.
    """
    by_id, level = graph.by_id(), 0
    for source, lag in _awaited(graph, by_id, node):
        if source not in levels and not lag:
            raise LoweringError(
                f"the host sends '{label(node)}' before it can read what that is made of; a loop without lag"
            )
        level = max(level, levels.get(source, 0) + 1 - lag)  # a loop with a lag: ``_check_times``
    return level


def _awaited(graph: Graph, by_id: Mapping[str, Node], node: Node) -> list[tuple[str, int]]:
    """Populations that the host reads before it sends, and how many timesteps before."""
    after, outputs = node.attr("after", ()), graph.outputs
    pairs = zip(after[::2], after[1::2], strict=True)
    return [(source, lag) for at, lag in pairs for source in _populations(by_id, outputs[at].operands[0])]


def in_sending_order(graph: Graph) -> Iterable[Node]:
    """The graph's nodes, what the host sends behind what it reads first."""
    if not any(n.attr("after") for n in graph if n.op == "input"):
        return graph
    by_id = graph.by_id()
    done: dict[str, Node] = {}
    for first in graph:
        stack = [first.id]
        while stack:
            at = by_id[stack[-1]]
            awaited = _awaited(graph, by_id, at) if at.op == "input" else []
            wanted = [*((u.node, u.lag) for u in at.inputs if not u.lag), *awaited]
            late = [i for i, lag in wanted if i not in done and not (lag and i in stack)]
            if not late or len(stack) > len(by_id):  # a loop: told by the level that is not there
                done.setdefault(stack.pop(), at)
            else:
                stack.append(late[0])
    return list(done.values())


def _populations(by_id: Mapping[str, Node], node_id: str) -> list[str]:
    """Neurons whose values an output puts together."""
    node = by_id[node_id]
    if is_neuron(node) or not node.operands:
        return [node_id]
    return [found for operand in node.operands for found in _populations(by_id, operand)]


def host_facts(graph: Graph, program: Program) -> dict[str, Any]:
    """``meta["host"]`` of a Program whose integer graph has nodes of the host.

    ``reads``: what of which population it reads in every timestep.  ``sends``: what input it makes of that.  ``steps``:
    its ops in order, with their work in a timestep.  LoweringError where an input would have to be sent before what it
    is made of has been read.
    """
    populations = {p.name: p for p in program.populations}
    steps = [n for n in graph if op_spec(n.op).host and n.op != "host_read"]
    sends = [p for p in program.populations if p.model == "input" and sending(graph, p.name) is not None]
    _check_times(graph, program, populations, sends)
    return {
        "reads": [_reads(graph, n, populations) for n in graph if n.op == "host_read"],
        "sends": [{"population": p.name, "values": math.prod(p.shape), "bits": p.payload_bits or 1, "level": p.level}
                  for p in sends],
        "steps": [_step(graph, n) for n in steps],
    }  # fmt: skip


def sending(graph: Graph, name: str) -> Node | None:
    """The host's node that makes an input population, which is called after it; None where it is the network's own."""
    return next((n for n in graph if op_spec(n.op).host and n.name == name and n.type.is_event), None)


def _reads(graph: Graph, node: Node, populations: Mapping[str, Population]) -> dict[str, Any]:
    p = populations[label(graph.node(node.operands[0]))]
    what = "spikes" if graph.node(node.operands[0]).type.is_event else "potential"
    bits = (p.payload_bits or 1) if what == "spikes" else STATE_BITS
    return {"population": p.name, "what": what, "values": math.prod(p.shape), "bits": bits, "level": p.level}


def _step(graph: Graph, node: Node) -> dict[str, Any]:
    operands = [graph.node(i).type for i in node.operands]
    return {"name": label(node).lstrip("%"), "op": node.op, "work": work_of(node.op, node.attrs, operands, node.type)}


def _check_times(
    graph: Graph, program: Program, populations: Mapping[str, Population], sends: list[Population]
) -> None:
    """Every read lies at least a tick before what is sent of it, lags counted."""
    ready: dict[str, int] = {}
    waiting = [n for n in graph if op_spec(n.op).host or n.op in ("take", "reshape")]
    for _ in range(len(waiting) + 1):  # lags may go round
        before = dict(ready)
        for node in waiting:
            if node.op == "host_read":
                ready[node.id] = populations[label(graph.node(node.operands[0]))].level
            else:
                late = [ready.get(u.node, -(1 << 40)) - u.lag * program.ticks_per_step for u in node.inputs]
                ready[node.id] = max(late, default=-(1 << 40))
        if ready == before:
            break
    for p in sends:
        sender = sending(graph, p.name)
        if sender is not None and ready[sender.id] >= p.level:
            raise LoweringError(
                f"the host sends '{p.name}' at level {p.level}, but what it is made of is read at {ready[sender.id]}: "
                f"a loop through the host, which takes more ticks than a timestep has ({program.ticks_per_step})"
            )
