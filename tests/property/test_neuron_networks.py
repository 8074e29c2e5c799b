"""Random networks of neurons that take a soma of microcode: passes keep every spike, and integers run as they mean."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from general_graphs import random_general_graph, random_inputs
from test_general_graphs import OPTIONS, STEPS, TARGET, same_as_interpreted, whole

from nmc_compiler.graph import Graph, ops_cell, registry
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.passes.agreement import agreement
from nmc_compiler.passes.pipeline import compile_graph, passes_for
from nmc_compiler.passes.report import ConversionReport
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of


@pytest.mark.parametrize("seed", range(30))
def test_every_pass_before_quantisation_keeps_every_spike(seed: int) -> None:
    graph = random_general_graph(seed, STEPS, "cells")
    assert from_text(to_text(graph), graph.tensors).nodes == graph.nodes
    inputs = random_inputs(graph, seed)
    truth, now = interpret(graph, inputs, record="all"), graph
    for step in passes_for(TARGET, OPTIONS)[:-1]:
        now = step.apply(now, ConversionReport())
        verify(now)
        run = interpret(now, inputs, record="all")
        codes = whole(now, run)
        for name in set(truth.codes) & set(codes):
            assert np.array_equal(codes[name], truth.codes[name].reshape(codes[name].shape)), (step.name, name)
        for name, value in truth.outputs.items():
            np.testing.assert_allclose(run.outputs[name], value, rtol=1e-12, atol=1e-12, err_msg=step.name)


@pytest.mark.parametrize("engine", ["events", "ticks"])
def test_quantised_networks_run_as_they_are_interpreted(engine: str) -> None:
    spikes, cells = 0, 0
    for seed in range(25):
        graph = random_general_graph(seed, STEPS, "cells")
        inputs = random_inputs(graph, seed, samples=1)
        integers = compile_graph(graph, TARGET, OPTIONS, ConversionReport(), calibration=inputs if seed % 2 else None)
        assert from_text(to_text(integers), integers.tensors).nodes == integers.nodes
        program = lower(integers, TARGET, OPTIONS)
        cells += sum(p.model == "cell" for p in program.populations)
        spikes += same_as_interpreted(integers, program, inputs, engine)
    assert cells > 20 and spikes > 300


def test_few_spikes_change() -> None:
    different = compared = 0
    for seed in range(30):
        graph = random_general_graph(seed, STEPS, "cells")
        integers = compile_graph(graph, TARGET, OPTIONS, ConversionReport())
        for found in agreement(graph, integers, random_inputs(graph, seed)):
            different += found.own
            compared += found.neurons * found.steps * found.samples
    assert compared > 5000 and different < 0.02 * compared


# ---- mutations of the interpreter's cell ----


def rewritten(function: Callable, old: str, new: str) -> Callable:
    """The function with a piece of its source exchanged."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__name__} no longer holds {old!r}"
    scope = dict(function.__globals__)
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


MUTATIONS = {
    "strictly above": ("_cell_eval", ">= ladder", "> ladder"),
    "the lower threshold too": ("_cell_eval", '(v < column(c.tensor("low")))', '(v <= column(c.tensor("low")))'),
    "no lower bound": ("_cell_eval", 'np.maximum(v, column(c.tensor("floor")))', "v"),
    "sums are free": ("_cell_eval", "np.clip(code, least - total, most - total)", "code"),
    "the sum forgets": ("_cell_eval", '"total": total + code', '"total": code'),
    "a step without what raises": ("_cell_eval", 'column(c.tensor("step")) + rise', 'column(c.tensor("step"))'),
    "what raises stays": ("_cell_eval", 'decayed(c.state.get("b", zero), c.attr("db", 0))', 'c.state.get("b", zero)'),
    "codes raise twice": ("_cell_eval", 'before * column(c.tensor("jump"))', '2 * before * column(c.tensor("jump"))'),
    "late resets are early": ("_cell_eval", 'if not c.attr("late"):', "if True:"),
    "gains round to zero": ("_charged", ">> 6", "// 64 + 1"),
    "a late reset in front of the input": ("_charged", "_reset(c, h, before, unit) if c.attr", "h if c.attr"),
    "biases come late": ("_charged", '_row(c, "bias_t", 0) if', "0 if"),
    "a soft reset is hard": ("_reset", "h - code * unit", "np.where(code != 0, 0, h)"),
    "a code subtracts once": ("_reset", "code * unit", "np.sign(code) * unit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> list[tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Integer graphs, inputs, and what the emulator made of them."""
    found = []
    for seed in (*range(28), 31, 34, 38, 41, 45):  # the latter: soft resets by thresholds that move
        graph = random_general_graph(seed, STEPS, "cells")
        integers = compile_graph(graph, TARGET, OPTIONS, ConversionReport())
        inputs, program = random_inputs(graph, seed, samples=1), lower(integers, TARGET, OPTIONS)
        names = [p.name for p in program.populations if p.model == "cell"]
        scales = {given["population"]: given["scale"] for given in program.meta["inputs"]}
        codes = {k: np.rint(v[0] * scales.get(k, 1)).astype(int) for k, v in inputs.items()}
        events = Emulator(program, record=names).run_events(codes, STEPS).events
        shapes = {p.name: p.shape for p in program.populations}
        sent = {name: codes_of(e, STEPS, shapes[name]).reshape(STEPS, -1) for name, e in events.items()}
        found.append((integers, inputs, sent))
    return found


def caught(cases) -> bool:
    for graph, inputs, sent in cases:
        codes = interpret(graph, inputs, record=list(sent)).codes
        if any(not np.array_equal(codes[name][:, 0].reshape(STEPS, -1), want) for name, want in sent.items()):
            return True
    return False


def test_the_unmutated_cell_is_not_caught(cases) -> None:
    assert not caught(cases)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_cell_is_caught(name: str, cases, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, old, new = MUTATIONS[name]
    mutated = rewritten(getattr(ops_cell, attribute), old, new)
    if attribute == "_cell_eval":
        monkeypatch.setitem(registry._OPS, "cell", replace(registry.op_spec("cell"), evaluate=mutated))
    else:
        monkeypatch.setattr(ops_cell, attribute, mutated)
    assert caught(cases)
