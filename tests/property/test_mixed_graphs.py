"""Networks of any mix (attention, gates, pools, streams, loops, delays, averages, moved elements, general neurons, a
read-out and outputs): passes keep every spike, and the mapped Program sends what the integer interpreter says."""

from __future__ import annotations

import numpy as np
import pytest
from mixed_graphs import random_events, random_mixed_graph
from naive import run as naive_run

from nmc.ladder.explain import Reader, explain_program
from nmc_compiler.errors import LoweringError
from nmc_compiler.fitting import fit
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph, passes_for
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

TARGET, OPTIONS = load_target("loihi2"), CompileOptions()
REFUSED = "has a current that lasts"  # of a neuron on a pool, which this generator draws now and then


def steps_of(graph: Graph) -> list[tuple[str, Graph]]:
    """The graph after every pass; nothing where a neuron is refused by name."""
    found = []
    try:
        for step in passes_for(TARGET, OPTIONS):
            graph = step.apply(graph, ConversionReport())
            verify(graph, event_driven=step.name == "quantize")
            found.append((step.name, graph))
    except LoweringError as error:
        if REFUSED not in str(error):
            raise
    return found


@pytest.mark.parametrize("seed", range(24))
def test_every_pass_before_quantisation_keeps_every_spike(seed: int) -> None:
    graph = random_mixed_graph(seed)
    assert from_text(to_text(graph), graph.tensors).nodes == graph.nodes
    events = random_events(graph, seed)
    truth = interpret(graph, events, record="all")
    for name, after in steps_of(graph):
        if name == "quantize":
            continue
        run = interpret(after, events, record="all")
        for layer in truth.codes.keys() & run.codes.keys():
            assert np.array_equal(run.codes[layer], truth.codes[layer]), (name, layer)
        for output, value in truth.outputs.items():
            np.testing.assert_allclose(run.outputs[output], value, rtol=0, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(run.logits, truth.logits, rtol=0, atol=1e-9, err_msg=name)


def same_as_interpreted(graph: Graph, seed: int, engine: str, **options) -> int:
    """Codes, potentials and read-out of the Program are those of the interpreter; how many events there were."""
    chosen = CompileOptions(**options)
    program = fit(graph, TARGET, chosen, ConversionReport()).program
    events = random_events(graph, seed, samples=3)
    run = interpret(graph, events, record="all", states="all")
    (samples, steps), seen = events.shape[:2], 0
    emulator = Emulator(program, record="all", engine=engine)
    probe = {p.name: None for p in program.populations if p.model == "lif"}
    flat = events.reshape(-1, *events.shape[2:])
    found = emulator.run_events({"x": flat}, len(flat), probe=probe)
    for p in program.populations:
        if p.name in run.codes and p.model != "input":
            codes = codes_of(found.events[p.name], len(flat), p.shape).reshape(samples, steps, *p.shape)
            assert np.array_equal(np.moveaxis(codes, 0, 1), run.codes[p.name]), p.name
            seen += int(np.count_nonzero(codes))
    for name, (_, v) in found.potentials.items():
        if name in run.states and "v" in run.states[name]:
            truth = np.moveaxis(run.states[name]["v"], 0, 1)
            assert np.array_equal(v, truth.reshape(len(flat), -1)), name
    if run.raw_logits is not None:
        logits = emulator.engine.logits  # type: ignore[union-attr]
        assert np.array_equal(logits[:samples], run.raw_logits)
    if engine == "layers":
        ticks = Emulator(program, engine="ticks").run_events({"x": flat[:steps]}, steps).counters
        layers = Emulator(program, engine="layers").run_events({"x": flat[:steps]}, steps).counters
        assert ticks.differences(layers) == []
    return seen


@pytest.mark.parametrize(("engine", "residual"), [("layers", "auto"), ("ticks", "auto"), ("layers", "duplicate")])
def test_programs_send_what_the_interpreter_says(engine: str, residual: str) -> None:
    seen = 0
    for seed in range(0, 20) if (engine, residual) == ("layers", "auto") else range(1, 30, 5):
        made = steps_of(random_mixed_graph(seed))
        if made and made[-1][0] == "quantize":
            seen += same_as_interpreted(made[-1][1], seed, engine, residual=residual)
    assert seen > 300


def test_engines_and_the_naive_twin_agree_on_images() -> None:
    """Layers = ticks, codes and counters, = the brute-force twin; all codes those of the interpreter."""
    lasting = sparse = 0
    for seed in range(20):
        graph = random_mixed_graph(seed, images=True)
        made = steps_of(graph)
        if not made or made[-1][0] != "quantize":
            continue
        integers, options = made[-1][1], CompileOptions(pipelined=bool(seed % 2))
        program = fit(integers, TARGET, options, ConversionReport()).program
        shape = (2, graph.timesteps, *graph.sources[0].type.shape)
        images = np.random.default_rng(seed).integers(0, 9, shape) / 8
        truth = interpret(integers, images, record="all")
        ticks = Emulator(program, record="all", engine="ticks").run(images)
        assert np.array_equal(ticks.logits_int.reshape(truth.raw_logits.shape), truth.raw_logits)
        for name, codes in truth.codes.items():
            assert np.array_equal(
                np.moveaxis(ticks.codes[name], 0, 1), codes.reshape(graph.timesteps, 2, *codes.shape[2:])
            )
        layers = Emulator(program, record="all", batch=2, engine="layers").run(images)
        assert np.array_equal(ticks.logits_int, layers.logits_int)
        assert all(np.array_equal(ticks.codes[k], layers.codes[k]) for k in ticks.codes)
        assert ticks.counters.differences(layers.counters) == []
        lasting += any(d.lasting is not None for d in program.dynamics)
        sparse += bool(program.sparses)
        if seed < 6:
            naive = naive_run(program, images[:1])
            for i, p in enumerate(program.populations):
                if p.model != "readout":
                    assert np.array_equal(naive.codes[i][0], ticks.codes[p.name][0]), p.name
    assert lasting > 1 and sparse > 5


def test_samples_one_behind_the_other_do_not_mix() -> None:
    seen = 0
    for seed in (3, 8, 15, 21):
        made = steps_of(random_mixed_graph(seed))
        seen += same_as_interpreted(made[-1][1], seed, "layers", pipelined=True)
    assert seen > 100


def test_the_same_graph_gives_the_same_integers() -> None:
    first, second = (compile_graph(random_mixed_graph(5), TARGET, OPTIONS, ConversionReport()) for _ in range(2))
    assert to_text(first) == to_text(second)
    assert all(np.array_equal(first.tensors[k], second.tensors[k]) for k in first.tensors)


def test_what_reaches_a_neuron_is_explained_to_the_last_unit() -> None:
    """``nmc verify`` says of a neuron that differs what its current was made of: sparse, late and lasting parts too."""
    seen = lasting = sparse = 0
    for seed in range(8):
        made = steps_of(random_mixed_graph(seed, images=True))
        if not made or made[-1][0] != "quantize":
            continue
        integers = made[-1][1]
        program = fit(integers, TARGET, OPTIONS, ConversionReport()).program
        shape = (1, integers.timesteps, *integers.sources[0].type.shape)
        images = np.random.default_rng(seed).integers(0, 9, shape) / 8
        codes = Emulator(program, record="all").run(images).codes
        reader = Reader(program, {name: c[0] for name, c in codes.items()}, images[0])
        truth = interpret(integers, images, states="all").states
        for p in (p for p in program.populations if p.model == "lif" and p.du == 4095 and "u" in truth.get(p.name, {})):
            at = tuple(n - 1 for n in p.shape)
            told = explain_program(reader, p.name, at, integers.timesteps - 1)["currents"]  # type: ignore[arg-type]
            wanted = truth[p.name]["u"][(slice(None), 0, *at)] >> 6
            if np.abs(wanted).max() < 1 << 16:
                assert told == wanted.tolist(), p.name
                seen += 1
        sparse += bool(program.sparses)
        lasting += any(d.lasting is not None for d in program.dynamics)
    assert seen > 10 and sparse > 1 and lasting > 0
