"""Lowering of random graphs: each soma finds in its dendrite exactly what its node adds up, when it looks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from graphs import random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.clusters import base_dendrites
from nmc_compiler.program.model import Dynamic, Program
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import load_target
from nmc_emulator import run

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
TARGETS = {name: load_target(name) for name in ("loihi2", "generic-mesh")}
Terms = Counter[Any]  # what is added up -> how often


def lowered(seed: int, target: str = "loihi2", **options) -> tuple[Graph, Program]:
    chosen = CompileOptions(input_encoding=("host-current", "graded8")[seed % 2], **options)
    graph = compile_graph(random_graph(seed), TARGETS[target], chosen, ConversionReport())
    return graph, lower(graph, TARGETS[target], chosen)


# --- what a neuron adds up, read from the graph -------------------------------------------------------------


def summed(terms: Terms) -> Terms:
    """The sum over positions is linear in what it sums."""
    return Counter({("sum", term): times for term, times in terms.items()})


def frozen(terms: Terms) -> frozenset:
    return frozenset(terms.items())


def wanted(graph: Graph, node_id: str) -> Terms:
    node = graph.node(node_id)
    inner = [wanted(graph, i) for i in node.operands if not graph.node(i).type.is_event and node.op != "host_conv2d"]
    if node.op == "add":
        return sum(inner, start=Counter())
    if node.op == "sum_positions":
        return summed(inner[0])
    if node.op == "rshift":
        return Counter({("shift", node.attr("shift"), frozen(inner[0])): 1})
    if node.op == "maxpool2d":
        window = tuple(node.attr(k, d) for k, d in (("kernel", None), ("stride", (1, 1)), ("pad", (0, 0))))
        return Counter({("max", window, frozen(inner[0])): 1})
    return Counter({label(node).lstrip("%"): 1})


# --- and what its dendrite holds at its level, read from the Program ----------------------------------------


def level_of(program: Program, item: Any) -> int:
    if isinstance(item, Dynamic):
        return max(program.arrival(getattr(item, r), getattr(item, f"delay_{r}")) for r in "qkv")
    return program.arrival(item.src, item.delay) if hasattr(item, "delay") else item.level


def found(program: Program, dendrite: int, level: int) -> Terms:
    terms: Terms = Counter()
    for item in (*program.convs, *program.maps, *program.dynamics, *program.host_currents):
        if item.dst == dendrite and level_of(program, item) <= level:
            name = item.name.lstrip("%")
            terms[("sum", name) if getattr(item, "collapse", False) else name] += 1
    for item in program.transfers:
        if item.dst == dendrite and item.level <= level:
            inner = found(program, item.src, item.level)
            if item.mode == "sum":
                inner = summed(inner)
            if item.kernel != (1, 1):
                inner = Counter({("max", (item.kernel, item.stride, item.pad), frozen(inner)): 1})
            terms += Counter({("shift", item.rshift, frozen(inner)): 1}) if item.rshift else inner
    return terms


@given(SEEDS, st.sampled_from(("stream", "duplicate")), st.sampled_from(tuple(TARGETS)), st.booleans())
@SETTINGS
def test_every_soma_reads_what_its_node_reads(seed: int, residual: str, target: str, pipelined: bool) -> None:
    graph, program = lowered(seed, target, residual=residual, pipelined=pipelined)
    validate_program(program)
    base_dendrites(program)  # every cluster can be cut into tiles
    index = {p.name: i for i, p in enumerate(program.populations)}
    for node in (n for n in graph if is_neuron(n)):
        soma = program.populations[index[label(node)]]
        assert found(program, soma.dendrite, soma.level) == wanted(graph, node.operands[0]), soma.name
    relays = [p for p in program.populations if p.role == "relay"]
    assert len(program.populations) - len(relays) == sum(is_neuron(n) or n.op == "encode" for n in graph)
    most = TARGETS[target].core.delay_max.value + 1
    delays = [x.delay for x in (*program.convs, *program.maps)]
    delays += [getattr(x, f"delay_{r}") for x in program.dynamics for r in "qkv"]
    assert all(1 <= d <= most for d in delays)


@given(SEEDS)
@SETTINGS
def test_duplicated_fan_in_computes_what_streams_compute(seed: int) -> None:
    graph, shared = lowered(seed, residual="stream")
    _, plain = lowered(seed, residual="duplicate")
    _, chosen = lowered(seed)
    readers = Counter(p.dendrite for p in plain.populations if p.dendrite >= 0)
    assert max(readers.values()) == 1 and all(d.ring == 1 for d in plain.dendrites)
    images = random_images(graph, seed)
    runs = [run(p, images, record="all") for p in (shared, plain, chosen)]
    for other in runs[1:]:
        np.testing.assert_array_equal(other.logits_int, runs[0].logits_int)
        assert all(np.array_equal(codes, runs[0].codes[name]) for name, codes in other.codes.items())
    np.testing.assert_array_equal(runs[0].logits_int, interpret(graph, images).raw_logits)


def test_the_seeds_above_hold_streams_transfers_and_both_kinds_of_sums() -> None:
    programs = [lowered(seed, residual="stream")[1] for seed in range(60)]
    readers = [Counter(p.dendrite for p in q.populations if p.dendrite >= 0) for q in programs]
    assert sum(max(r.values()) > 1 for r in readers) > 10
    assert sum(any(d.ring > 1 for d in p.dendrites) for p in programs) > 10
    transfers = [t for p in programs for t in p.transfers]
    assert {t.mode for t in transfers} == {"maxpool", "sum"} and any(t.rshift for t in transfers)
    assert any(c.collapse for p in programs for c in p.convs)
    assert any(p.dynamics for p in programs) and any(p.maps for p in programs)


@pytest.mark.parametrize("residual", ["stream", "duplicate"])
def test_lowering_is_deterministic(residual: str) -> None:
    for seed in range(10):
        one, two = (lowered(seed, residual=residual)[1] for _ in range(2))
        for kind in ("populations", "dendrites", "convs", "maps", "dynamics", "transfers"):
            names = [[x.name for x in getattr(p, kind)] for p in (one, two)]
            assert names[0] == names[1]
