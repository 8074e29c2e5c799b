"""Random networks with loops and delays: passes keep their meaning, and integers are run as they are interpreted."""

import dataclasses

import numpy as np
import pytest
from general_graphs import random_general_graph, random_inputs

from nmc_compiler.fitting import fit
from nmc_compiler.graph import Graph, GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import agreement
from nmc_compiler.passes.pipeline import compile_graph, passes_for
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.program.synapses import rows_of
from nmc_compiler.target import load_target
from nmc_emulator import Emulator

TARGET, OPTIONS, STEPS = load_target("loihi2"), CompileOptions(), 10


def whole(graph: Graph, run: Interpretation) -> dict[str, np.ndarray]:
    """Codes [T, N, elements] by population, those of parts under the name of what was split."""
    found = {name: code.reshape(*code.shape[:2], -1) for name, code in run.codes.items()}
    for node in graph:
        name = node.attr("part_of")
        if name is not None and node.name in found:
            elements = graph.tensor(node, "elements")
            total = sum(len(graph.tensor(n, "elements")) for n in graph if n.attr("part_of") == name)
            full = found.setdefault(name, np.zeros((*found[node.name].shape[:2], total), int))
            full[..., elements] = found[node.name]
    return found


@pytest.mark.parametrize("seed", range(60))
def test_every_pass_before_quantisation_keeps_every_spike(seed: int) -> None:
    graph = random_general_graph(seed, STEPS)
    assert from_text(to_text(graph), graph.tensors).nodes == graph.nodes
    inputs = random_inputs(graph, seed)
    truth, step_graph, live = interpret(graph, inputs, record="all"), graph, []
    for step in passes_for(TARGET, OPTIONS)[:-1]:
        step_graph = step.apply(step_graph, ConversionReport())
        verify(step_graph)
        run = interpret(step_graph, inputs, record="all")
        codes = whole(step_graph, run)
        left = [name for name in truth.codes if name in codes]
        assert step.name == "drop-dead" or left == live, step.name
        live = left
        for name in live:
            assert np.array_equal(codes[name], truth.codes[name].reshape(codes[name].shape)), (step.name, name)
        for name, value in truth.outputs.items():
            assert run.outputs[name].shape == value.shape
            np.testing.assert_allclose(run.outputs[name], value, rtol=1e-12, atol=1e-12, err_msg=step.name)


def same_as_interpreted(graph: Graph, program: Program, inputs: dict[str, np.ndarray], engine: str) -> int:
    """Spikes, currents and potentials of a run of the Program are those of the interpreter; returns its spikes."""
    run, spikes = interpret(graph, inputs, record="all", states="all"), 0
    names = [p.name for p in program.populations if p.model != "input"]
    emulator = Emulator(program, record=names, engine=engine)
    steps = next(iter(inputs.values())).shape[1]
    scales = {given["population"]: given["scale"] for given in program.meta["inputs"]}
    codes_in = {k: np.rint(v * scales.get(k, 1)).astype(int) for k, v in inputs.items()}
    for n in range(len(next(iter(inputs.values())))):
        probe = {p.name: None for p in program.populations if p.model == "lif"}
        got = emulator.run_events({k: v[n] for k, v in codes_in.items()}, steps, probe=probe)
        for name in names:
            codes = np.zeros((steps, program_size(program, name)), int)
            events = got.events[name]
            codes[events.step, events.soma] = 1 if events.code is None else events.code
            if name in run.codes:
                assert np.array_equal(codes, run.codes[name][:, n].reshape(steps, -1)), name
                spikes += int(np.count_nonzero(codes))
        for name, found in got.potentials.items():
            for register, values in zip("uv", found, strict=True):
                if register in run.states.get(name, {}):
                    assert np.array_equal(values, run.states[name][register][:, n].reshape(steps, -1)), (name, register)
    return spikes


def program_size(program: Program, name: str) -> int:
    return int(np.prod(next(p.shape for p in program.populations if p.name == name)))


@pytest.mark.parametrize("engine", ["events", "ticks"])
def test_quantised_networks_run_as_they_are_interpreted(engine: str) -> None:
    ticks, spikes = set(), 0
    for seed in range(30):
        graph = random_general_graph(seed, STEPS)
        inputs = random_inputs(graph, seed, samples=1)
        calibration = inputs if seed % 2 else None
        integers = compile_graph(graph, TARGET, OPTIONS, ConversionReport(), calibration=calibration)
        assert from_text(to_text(integers), integers.tensors).nodes == integers.nodes
        program = lower(integers, TARGET, OPTIONS)
        ticks.add(program.ticks_per_step)
        spikes += same_as_interpreted(integers, program, inputs, engine)
    assert ticks >= {1, 2} and spikes > 300


@pytest.mark.parametrize("pipelined", [False, True])
def test_windows_one_behind_the_other_do_not_mix(pipelined: bool) -> None:
    """Three samples of five timesteps in one run are three runs; no lagged event reaches the next sample."""
    options = CompileOptions(pipelined=pipelined)
    for seed in range(12):
        graph = random_general_graph(seed, 5, codes=False)
        inputs = random_inputs(graph, seed, samples=3)
        integers = compile_graph(graph, TARGET, options, ConversionReport())
        program = lower(integers, TARGET, options)
        codes = {k: v.reshape(15, *v.shape[2:]).astype(int) for k, v in inputs.items()}
        truth = interpret(integers, inputs, record="all").codes
        got = Emulator(program, record=list(truth)).run_events(codes, 15)
        for name, code in truth.items():
            found = np.zeros((15, program_size(program, name)), int)
            found[got.events[name].step, got.events[name].soma] = 1
            assert np.array_equal(found, np.moveaxis(code, 0, 1).reshape(15, -1)), (seed, name)


@pytest.mark.parametrize("name", ["loihi1", "generic-mesh"])
def test_other_targets(name: str) -> None:
    target, spikes = load_target(name), 0
    for seed in range(12):
        graph = random_general_graph(seed, STEPS, codes=False)
        inputs = random_inputs(graph, seed, samples=1)
        fitted = fit(compile_graph(graph, target, OPTIONS, ConversionReport()), target, OPTIONS, ConversionReport())
        assert fitted.program.target["profile"] == target.profile
        spikes += same_as_interpreted(fitted.graph, fitted.program, inputs, "events")
    assert spikes > 50


def test_few_spikes_change() -> None:
    different = compared = 0
    for seed in range(30):
        graph = random_general_graph(seed, STEPS, "plain")
        inputs = random_inputs(graph, seed)
        integers = compile_graph(graph, TARGET, OPTIONS, ConversionReport())
        for found in agreement(graph, integers, inputs):
            different += found.different
            compared += found.neurons * found.steps * found.samples
    assert compared > 5000 and different < 0.02 * compared


# ---- integer graphs as front ends build them ----


def pair(seed: int, timesteps: int) -> tuple[Graph, Network]:
    """A random network of Lava's somas as an integer graph, every edge with a lag of 1, and as its builder has it."""
    rng = np.random.default_rng(seed)
    b, net = GraphBuilder("pair", timesteps, "int", input_time=True), Network("pair", timesteps)
    b.add("input", id="in", name="in", shape=(4, 1, 1), bits=3)
    index, sizes = {"in": net.input("in", 4, payload_bits=3)}, {"in": 4}
    names = [f"p{i}" for i in range(int(rng.integers(1, 4)))]
    kinds = {name: str(rng.choice(["lif", "ternary", "sigma_delta"])) for name in names}
    for name in names:
        sizes[name] = int(rng.integers(1, 6))
        kind = {"lif": (Kind.SPIKE,), "ternary": (Kind.GRADED, 2, True), "sigma_delta": (Kind.GRADED, 24, True)}
        first, *rest = kind[kinds[name]]
        b.declare(name, ValueType(first, (sizes[name], 1, 1), *rest))
    projections = []
    for name in names:
        total = []
        for k in range(int(rng.integers(1, 4))):
            src = str(rng.choice(["in", *names])) if k else "in"
            key, exponent, graded = f"{name}.{k}", int(rng.integers(-2, 4)), bool(rng.random() < 0.7)
            matrix = rng.integers(-127, 128, (sizes[name], sizes[src])) * (rng.random((sizes[name], sizes[src])) < 0.7)
            indptr, target, source = rows_of(matrix)
            late = rng.integers(0, 5, len(target)).astype(np.uint8) if exponent >= 0 and rng.random() < 0.5 else None
            arrays = {"indptr": indptr, "target": target, "weight": matrix[target, source], "extra": late}
            refs = {a: b.tensor(f"{key}.{a}", v) for a, v in arrays.items() if v is not None}
            shift = {"shift": exponent} if exponent > 0 else {}
            x = b.add(
                "sparse", Use(src, 1), id=key, name=key, shape=(sizes[name], 1, 1), graded=graded, **shift, **refs
            )
            total.append(b.add("rshift", x, shift=-exponent) if exponent < 0 else x)
            rows = (indptr, target, matrix[target, source])
            projections.append((key, src, name, rows, exponent, 0 if late is None else late, graded))
        current = total[0] if len(total) == 1 else b.add("add", *total)
        soma(b, net, index, name, kinds[name], sizes[name], current, rng)
        b.add("output", name, name=f"{name}.out")
    for key, src, dst, rows, exponent, delay, graded in projections:
        net.sparse(key, index[src], index[dst], *rows, exponent=exponent, delay=delay, graded=graded)
    return b.build(), net


def soma(b: GraphBuilder, net: Network, index: dict, name: str, kind: str, n: int, current: str, rng) -> None:
    vth, bias = rng.integers(0, 400, n), rng.integers(-60, 200, n)
    refs = {"vth": b.tensor(f"{name}.vth", vth), "bias": b.tensor(f"{name}.bias", bias)}
    if kind == "sigma_delta":
        form = {"relu": bool(rng.integers(2)), "cumulative": bool(rng.integers(2))}
        b.add("sigma_delta", current, id=name, name=name, **refs, **form)
        index[name] = net.sigma_delta(name, n, vth=vth, bias=bias, **form)
        return
    du, dv = int(rng.choice([0, 409, 4095])), int(rng.choice([0, 205, 4096]))
    more, same = {}, {}
    if kind == "ternary":
        low = -rng.integers(1, 300, n)
        more["vth_low"], same["vth_low"] = low, b.tensor(f"{name}.low", low)
    if rng.random() < 0.5:
        start = rng.integers(-(2**20), 2**20, (n, 1, 1))
        more |= {"start_u": start, "start_v": -start}
        same |= {"start_u": b.tensor(f"{name}.u", start), "start_v": b.tensor(f"{name}.v", -start)}
    if rng.random() < 0.3:
        more["restart"] = same["restart"] = (3, 1)
    b.add("cuba_lif", current, id=name, name=name, du=du, dv=dv, **refs, **same)
    index[name] = net.lif(name, n, du=du, dv=dv, vth=vth, bias=bias, **more)


def fields(item) -> dict:
    return {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}


def test_integer_graphs_of_lava_are_what_the_builder_makes() -> None:
    spikes = 0
    for seed in range(25):
        graph, net = pair(seed, 12)
        verify(graph, event_driven=True)
        program, built = lower(graph, TARGET, CompileOptions(pipelined=True)), net.program()
        for kind in ("populations", "dendrites", "sparses", "transfers"):
            ours, theirs = (sorted(getattr(p, kind), key=lambda x: x.name) for p in (program, built))
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                assert all(np.array_equal(x, y) for x, y in zip(fields(a).values(), fields(b).values(), strict=True)), a
        assert (program.ticks_per_step, program.interval) == (1, 12)
        spikes += same_as_interpreted(graph, program, random_inputs(graph, seed, samples=1), "ticks")
    assert spikes > 300
