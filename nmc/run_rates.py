"""Rates of a run for the papers' formula: what every layer of the float graph was given, from the counters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc.formula import input_of, is_masked_sum
from nmc.work import CONNECTIONS
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import pool_name
from nmc_compiler.program.model import Program
from nmc_emulator.counters import Counters


@dataclass(frozen=True)
class Rates:
    """``means``: what ``nmc.formula`` takes.  ``events``: by layer, nonzero codes per element and timestep of its input
    where that is known: of a sum of several populations it is not, as two of their events may meet in one code.
    """

    means: dict[str, float]
    events: dict[str, float]


@dataclass(frozen=True)
class _Given:
    """Mean code of an element in a timestep, and how often it is not 0."""

    mean: float
    events: float | None


def rates_of_run(graph: Graph, program: Program, counters: Counters, samples: int, steps: int) -> Rates:
    """Rates of the inputs of all layers of the float graph of a Program; those that counters do not tell are left out.

    steps: timesteps of the run, over all samples.
    """
    run = _Run(graph, program, counters, steps, samples)
    means, events = dict[str, float](), dict[str, float]()
    for node in graph:
        if node.op == "attn":
            for role, operand in zip("qkv", node.operands, strict=True):
                found = run.given(graph.by_id()[operand])
                if found is not None:
                    means[f"{label(node).lstrip('%')}.{role}"] = found.mean
        elif node.op == "sparse_conv3d":
            found_pairs = run.between_sites(node)
            means |= found_pairs.means
            events |= found_pairs.events
        elif node.op in CONNECTIONS or is_masked_sum(graph, node):
            source = input_of(graph, node) if node.op in CONNECTIONS else graph.by_id()[node.operands[0]]
            found = run.given(source) if source.type.is_event else None
            if found is not None:
                means[label(node)] = found.mean
                events |= {} if found.events is None else {label(node): found.events}
    return Rates(means, events)


class _Run:
    """Counters by population, read for nodes of a float graph."""

    def __init__(self, graph: Graph, program: Program, counters: Counters, steps: int, samples: int) -> None:
        self.graph, self.program, self.counters, self.samples = graph, program, counters, samples
        self.by_id, self.known = graph.by_id(), dict[str, _Given | None]()
        self.populations = {p.name: (i, math.prod(p.shape)) for i, p in enumerate(program.populations)}
        self.steps = steps

    def given(self, node: Node) -> _Given | None:
        """What an event of the graph carries; None where no counter tells."""
        if node.id not in self.known:
            self.known[node.id] = None  # what a loop reads of itself is asked for by its name, before this is seen
            self.known[node.id] = self._population(node) or self._made(node)
        return self.known[node.id]

    def _population(self, node: Node) -> _Given | None:
        names = [pool_name(self.graph, node) if node.op == "maxpool2d" else node.name or node.id]
        if names[0] not in self.populations:  # a neuron that became one population for each of its parts
            names = [n for n in self.populations if n.startswith(f"{names[0]}.") and n[len(names[0]) + 1 :].isdigit()]
        found = [self.populations[name] for name in names if name in self.populations]
        size = math.prod(node.type.shape)
        if not found or sum(somas for _, somas in found) != size:
            return None
        codes, events = (
            sum(int(self.counters.tables[table][i].sum()) for i, _ in found) / (size * self.steps)
            for table in ("payload_sum", "events")
        )
        return _Given(codes, events)

    def _made(self, node: Node) -> _Given | None:
        """What is made of the events of populations without one of its own."""
        parts = [self.given(self.by_id[i]) for i in node.operands]
        if not parts or node.op not in ("add", "reshape", "delay", "sum_positions", "take"):
            return None
        means = [part.mean for part in parts if part is not None]
        if len(means) < len(parts):
            return None
        if node.op in ("reshape", "delay"):
            return parts[0]
        if node.op == "add":
            return _Given(sum(means), None)
        if node.op == "sum_positions":
            return _Given(means[0] * math.prod(self.by_id[node.operands[0]].type.shape[1:]), None)
        return self._taken(node, means)

    def _taken(self, node: Node, means: list[float]) -> _Given | None:
        """A concatenation or permutation, zeros between: each element once. Of a part of them the rate is not known."""
        sizes = [math.prod(self.by_id[i].type.shape) for i in node.operands]
        index = self.graph.tensor(node, "index")
        assert index is not None
        if not np.array_equal(np.sort(index[index >= 0], axis=None), np.arange(sum(sizes))):
            return None
        total = math.fsum(mean * size for mean, size in zip(means, sizes, strict=True))
        return _Given(total / math.prod(node.type.shape), None)

    def between_sites(self, node: Node) -> Rates:
        """Pairs of active sites of a convolution and the mean code over them, of what its projection counted.

        Nothing where the projection is not that convolution alone (another was folded into it).
        """
        weight, name, tables = self.graph.tensor(node, "weight"), label(node), self.counters.tables
        assert weight is not None
        each, pairs = weight.shape[0] * weight.shape[1], f"{name.lstrip('%')}.pairs"
        for i, current in enumerate(self.program.host_currents):
            if current.name == name and current.weight.size == weight.size:  # once a sample
                return Rates({pairs: int(tables["host_macs"][i].sum()) / (each * self.samples)}, {})
        for i, conv in enumerate(self.program.convs):
            if conv.name != name or conv.weight.size != weight.size:
                continue
            done, dense = (
                sum(int(tables[f"synops_{kind}{end}"][i].sum()) for kind in ("ac", "mac")) for end in ("", "_dense")
            )
            codes, events = (int(tables[table][conv.src].sum()) for table in ("payload_sum", "events"))
            rate = done / dense if dense else 0.0
            mean = rate * codes / events if events else 0.0
            return Rates({pairs: dense / (each * self.steps), name: mean}, {name: rate})
        return Rates({}, {})
