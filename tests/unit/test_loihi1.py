"""Loihi 1: what compiles for it, what it refuses, its delays, and how its currents wrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import Net, random_images

from nmc_compiler.errors import CapacityError, LoweringError, VerifyError
from nmc_compiler.graph import Graph, GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.lowering import lower
from nmc_compiler.mapping import find_problems, map_program, split_evenly
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import load_target
from nmc_emulator import Emulator, run
from nmc_emulator.report import make_report

LOIHI1, LOIHI2 = load_target("loihi1"), load_target("loihi2")
BRIEF = "Intel, Taking Neuromorphic Computing to the Next Level with Loihi 2, technology brief (2021)"


def compiled(graph: Graph, **options) -> tuple[Graph, Program]:
    chosen = CompileOptions(**options)
    made = compile_graph(graph, LOIHI1, chosen, ConversionReport())
    program = lower(made, LOIHI1, chosen)
    validate_program(program)
    return made, program


def residual() -> Graph:
    """Plain spikes with a residual connection, which a shared accumulator or fan-in per reader can carry."""
    net = Net(4)
    x = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    y = net.sum(x, net.conv(net.lif(x, "a", theta=0.4), 3))
    z = net.lif(net.sum(y, net.conv(net.lif(y, "b", theta=0.4), 3)), "c", theta=0.4)
    return net.readout(net.add("sum_positions", net.conv(z, 3)))


# -- models ------------------------------------------------------------------------------------


def test_plain_spikes_compile_and_both_engines_compute_the_graph():
    graph, program = compiled(residual())
    assert {f["feature"]: f["evidence"] for f in program.meta["features"]} == {
        "conv_synapses": "code", "host_current": "assumed",
    }  # fmt: skip
    assert all(n.attr("profile") == "loihi1" for n in graph if n.op in ("cuba_lif", "levels", "int_readout"))
    mapped, _ = map_program(program, LOIHI1, "auto")
    assert mapped.modular and mapped.target["profile"] == "loihi1" and not find_problems(mapped, LOIHI1).problems
    images = random_images(graph, 0, 4)
    want = interpret(graph, images, record="all")
    for engine in ("layers", "ticks"):
        got = run(mapped, images, record="all", engine=engine)
        assert np.array_equal(got.logits_int, want.raw_logits)
        assert all(np.array_equal(got.codes[n], c.swapaxes(0, 1)) and c.any() for n, c in want.codes.items())


def test_the_profile_is_written_into_the_graph_and_read_back():
    graph, _ = compiled(residual())
    assert "profile=" in to_text(graph) and to_text(from_text(to_text(graph), graph.tensors)) == to_text(graph)


def pooled(net: Net, x: str) -> str:
    return net.lif(net.pool(x), "s", theta=0.4)


def attended(net: Net, x: str) -> str:
    s = net.lif(x, "q", theta=0.4)
    return net.lif(net.attn(s, s, s), "s", theta=0.3)


def levelled(net: Net, x: str) -> str:
    return net.levels(x, "s")


REFUSED = {
    "pooled currents": (
        pooled, {}, f"current pool, which target 'loihi1' has not ({BRIEF}); "
        "train with pooling on plain spikes, or choose a target that has it",
    ),
    "attention": (
        attended, {}, "dynamic synapse, which target 'loihi1' has not (nmc, for want of any publication); "
        "choose a target that has it",
    ),
    "levels": (
        levelled, {}, f"graded spikes, which target 'loihi1' has not ({BRIEF}); "
        "train with plain spikes, or choose a target that has it",
    ),
    "graded input": (
        lambda net, x: net.lif(x, "s"), {"input_encoding": "graded8"},
        f"graded input, which target 'loihi1' has not ({BRIEF}); compile with --input-encoding host-current",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_has_not_is_refused_by_name_with_a_way_out(case):
    build, options, text = REFUSED[case]
    net = Net(2)
    neurons = build(net, net.conv(net.input(1, 4, 4), 3, 3, pad=1))
    graph = net.readout(net.add("sum_positions", net.conv(neurons, 3)))
    with pytest.raises(LoweringError) as error:
        compiled(graph, **options)
    assert str(error.value).partition(" needs ")[2] == text


def test_a_model_that_neither_way_of_residuals_carries_is_not_told_to_duplicate():
    net = Net(2)
    x = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    y = net.sum(x, net.conv(net.lif(x, "a", theta=0.4), 3))
    graph = net.readout(net.add("sum_positions", net.conv(pooled(net, y), 3)))
    with pytest.raises(LoweringError, match="needs current pool, which target 'loihi1' has not"):
        compiled(graph)


# -- networks ----------------------------------------------------------------------------------


def delayed(extra: int) -> Program:
    net = Network("delayed")
    source, cells = net.input("in", 2), net.lif("cells", 2, vth=0)
    net.dense("w", source, cells, [[2, 0], [0, 2]], delay=[[extra, 0], [0, 0]])
    return net.program()


def test_delays_up_to_62():
    program, _ = map_program(delayed(62), LOIHI1)
    codes = np.zeros((65, 2, 1, 1), int)
    codes[0] = 1
    events = Emulator(program, record="all").run_events({"in": codes}, 65).events["cells"]
    assert (events.step.tolist(), events.soma.tolist()) == ([1, 63], [1, 0])
    with pytest.raises(CapacityError) as error:
        map_program(delayed(63), LOIHI1)
    assert str(error.value) == (
        "projection 'w' needs a delay of 64 ticks, but loihi1 has 63 (delay 64/63). "
        "Insert relay populations, or use a target with longer delays"
    )
    with pytest.raises(VerifyError, match="extra: up to 63 timesteps after 1 ticks, 64 in all of 63"):
        validate_program(replace(delayed(63), target=target_facts(LOIHI1)))
    map_program(delayed(63), LOIHI2)


def test_codes_are_refused():
    net = Network("graded")
    source, cells = net.input("in", 2, payload_bits=3), net.lif("cells", 2, vth=0)
    net.dense("w", source, cells, [[2, 0], [0, 2]], graded=True)
    with pytest.raises(LoweringError) as error:
        map_program(net.program(), LOIHI1)
    assert str(error.value) == (
        "'in' sends codes of 3 bits, but events of loihi1 are plain spikes; choose another target or another lowering"
    )


def test_a_plain_recurrent_network_runs_alike_in_the_engines_with_currents_that_wrap():
    rng, n = np.random.default_rng(3), 24
    net = Network("wild")
    source = net.input("in", 16)
    cells = net.lif("cells", n, du=300, dv=100, vth=60_000, bias=0)
    net.dense("drive", source, cells, rng.integers(60, 128, (n, 16)) * 2, exponent=7)  # beyond two turns
    net.dense("back", cells, cells, rng.integers(-20, 128, (n, n)) * 2, exponent=7, delay=rng.integers(0, 5, (n, n)))
    codes, found = (rng.random((60, 16, 1, 1)) < 0.8).astype(int), {}
    for target in (LOIHI1, LOIHI2):
        program = split_evenly(net.program(), 3, target)
        fast, slow = (
            Emulator(program, record="all", engine=e).run_events({"in": codes}, 60, probe={"cells": None})
            for e in ("events", "ticks")
        )
        assert not fast.counters.differences(slow.counters) and slow.counters.overflow["u"].sum() > 100
        for a, b in zip(fast.potentials["cells"], slow.potentials["cells"], strict=True):
            assert np.array_equal(a, b)
        found[target.name] = slow.potentials["cells"][0]
    assert found["loihi1"].min() >= -(2**23) and found["loihi1"].max() < 2**23
    assert not np.array_equal(*found.values())


def test_its_report_has_its_own_prices_and_rates():
    _, program = compiled(residual())
    mapped, _ = map_program(program, LOIHI1, "auto")
    report = make_report(mapped, run(mapped, np.random.default_rng(0).random((2, 1, 4, 4))))
    assert {e["profile"]: e["label"] for e in report["energy"]}["loihi1-davies2018"] == "Loihi 1 prices"
    assert report["seconds"]["profile"] == "loihi1-sanafe-rates" and report["seconds"]["run"] > 0
    said = "; ".join(report["assumptions"])
    assert "of another chip" not in said and "extrapolated" not in said
    assert "loihi1 is assumed, not documented, to do host_current (first used by " in said


# -- what is refused in a Program or a graph ---------------------------------------------------


def test_a_start_of_u_lies_in_the_range_of_its_profile():
    net = Network("start")
    net.lif("cells", 2, vth=0, start_u=0, start_v=0)
    program = net.program()
    for value, target, fits in (
        (2**23, LOIHI2, True), (-(2**23), LOIHI2, False), (2**23, LOIHI1, False), (-(2**23), LOIHI1, True),
    ):  # fmt: skip
        cells = replace(program.populations[0], start_u=np.full((2, 1, 1), value, np.int32))
        made = replace(program, populations=(cells,), target=target_facts(target))
        if fits:
            validate_program(made)
        else:
            with pytest.raises(VerifyError, match="populations/0/start_u"):
                validate_program(made)


@pytest.mark.parametrize("profile", ["loihi3", None, ["loihi1"]])
def test_unknown_integer_rules_are_refused(profile):
    with pytest.raises(VerifyError) as error:
        validate_program(replace(delayed(0), target={"profile": profile}))
    text = f"target/profile: {profile!r} is none of the integer rules loihi1, loihi2, neurocore"
    assert str(error.value).endswith(text)
    if isinstance(profile, str):
        b = GraphBuilder("int", 3, "int")
        c = b.add("map", b.add("encode", b.add("input", shape=(1, 1, 1)), scale=1.0, lo=0, hi=1), mode="same")
        with pytest.raises(VerifyError, match="profile must be one of loihi1, loihi2, neurocore, got 'loihi3'"):
            b.add("cuba_lif", c, name="s", dv=0, vth=b.tensor("vth", np.array([1])), profile=profile)
