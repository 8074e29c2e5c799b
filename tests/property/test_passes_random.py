"""Float passes on random graphs: the meaning stays to the last spike, and each pass leaves what it promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
from graphs import Kinds, flips, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, Kind
from nmc_compiler.graph.analysis import is_neuron, populations
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph, passes_for
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
TARGET, OPTIONS = load_target("loihi2"), CompileOptions()


def events_are_read_one_by_one(graph: Graph) -> bool:
    return not any(n.type.is_event and n.op in ("add", "sum_positions") for n in graph)


def convolutions_read_events_or_the_input(graph: Graph) -> bool:
    by_id = graph.by_id()
    sources = [by_id[n.operands[0]] for n in graph if n.op == "conv2d"]
    return all(s.type.kind is not Kind.CURRENT for s in sources)


PROMISES = {
    "fold-batch-norm": lambda g: all(n.op != "batch_norm" for n in g),
    "fold-scale": lambda g: all(n.op != "scale" for n in g),
    "fold-convs": lambda g: convolutions_read_events_or_the_input(g) and all(n.op != "pad2d" for n in g),
    "hoist-bias": lambda g: all("bias" not in n.attrs for n in g if not is_neuron(n)),
    "distribute-sums": events_are_read_one_by_one,
}


@given(SEEDS)
@SETTINGS
def test_every_float_pass_keeps_every_spike(seed: int) -> None:
    graph = random_graph(seed)
    verify(graph)
    images, names = random_images(graph, seed), {n.name for n in populations(graph)}
    kept = []
    for step in passes_for(TARGET, OPTIONS)[:-1]:
        after = step.apply(graph, ConversionReport())
        verify(after)
        assert flips(graph, after, images) == 0, step.name
        assert {n.name for n in populations(after)} <= names
        graph = after
        kept += [promise for promise in [PROMISES.get(step.name)] if promise]
        assert all(promise(graph) for promise in kept), step.name


@given(SEEDS)
@SETTINGS
def test_the_text_form_and_a_second_compilation_are_the_same(seed: int) -> None:
    """Nothing depends on the order of a set, and every graph between passes can be written and read."""
    graph = random_graph(seed)
    steps: list[list[tuple[str, Graph]]] = [[], []]
    reports = [ConversionReport(), ConversionReport()]
    for found, report in zip(steps, reports, strict=True):
        note = found.append
        compile_graph(graph, TARGET, OPTIONS, report, lambda name, g, s, note=note: note((name, g)))
    for (name, first), (_, second) in zip(*steps, strict=True):
        assert to_text(first) == to_text(second), name
        assert first.tensors.keys() == second.tensors.keys()
        assert all(np.array_equal(v, second.tensors[k]) for k, v in first.tensors.items())
        assert to_text(from_text(to_text(first), first.tensors)) == to_text(first)
    assert reports[0].as_json() == reports[1].as_json()


def test_the_random_graphs_hold_every_op_and_are_alive() -> None:
    """A property on graphs that do nothing shows nothing."""
    ops: Counter[str] = Counter()
    rates = []
    for seed in range(60):
        graph = random_graph(seed)
        ops.update(n.op for n in graph)
        run = interpret(graph, random_images(graph, seed), record="all")
        rates += [float((codes > 0).mean()) for codes in run.codes.values()]
    assert set(ops) == {
        "input", "conv2d", "batch_norm", "scale", "pad2d", "add", "sum_positions", "maxpool2d", "map", "mul", "attn",
        "lif", "multilevel", "readout",
    }  # fmt: skip
    assert min(ops.values()) >= 10
    rates = np.array(rates)
    assert 0.2 < np.median(rates) < 0.7
    assert (rates == 0).mean() < 0.2 and (rates == 1).mean() < 0.2


def test_a_seed_gives_one_graph() -> None:
    kinds = Kinds(timesteps=(2,), neurons=("levels",), attention=False)
    assert to_text(random_graph(5, kinds)) == to_text(random_graph(5, kinds))
    assert to_text(random_graph(5, kinds)) != to_text(random_graph(6, kinds))
