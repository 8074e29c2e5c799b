"""Relays in residual streams change where currents live, never a spike: random integer graphs, and a hand-made one."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Kinds, Net, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.mapping import map_program
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.relays import CutStreams, RelaySums
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
TARGET, OPTIONS = load_target("loihi2"), CompileOptions(residual="stream")
KINDS = Kinds(layers=(6, 10))


def same_spikes(before: Graph, after: Graph, images: np.ndarray) -> None:
    """Every population of the first, in the interpreter and in the emulator of the second, and the read-out."""
    verify(after, event_driven=True)
    want, moved = interpret(before, images, record="all"), interpret(after, images, record="all")
    got = run(lower(after, TARGET, OPTIONS), images, record="all")
    for logits in (moved.raw_logits, got.logits_int):
        np.testing.assert_array_equal(logits, want.raw_logits)
    for name, codes in want.codes.items():
        np.testing.assert_array_equal(moved.codes[name], codes, err_msg=name)
        np.testing.assert_array_equal(got.codes[name], codes.swapaxes(0, 1), err_msg=name)


@given(st.integers(0, 10**6), st.sampled_from((RelaySums(), CutStreams(2), CutStreams(3))))
@SETTINGS
def test_relays_keep_every_spike(seed: int, step) -> None:
    graph = compile_graph(random_graph(seed, KINDS), TARGET, OPTIONS, ConversionReport())
    report = ConversionReport()
    after = step.apply(graph, report)
    assert len(report.of(step.name)) == sum(n.op == "relay" for n in after)
    same_spikes(graph, after, random_images(graph, seed, 3))


def deep(blocks: int = 5) -> Graph:
    net = Net(3)
    x = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    for i in range(blocks):
        x = net.sum(x, net.conv(net.lif(x, f"s{i}", theta=0.4), 3))
    graph = net.readout(net.lif(net.mean(x), "last", theta=0.2))
    return compile_graph(graph, TARGET, OPTIONS, ConversionReport())


@pytest.mark.parametrize(("pieces", "relays", "rings"), [(1, 0, 1), (2, 1, 2), (3, 2, 3), (9, 4, 4)])
def test_a_stream_is_cut_into_so_many_pieces(pieces: int, relays: int, rings: int) -> None:
    """Five sums take four cuts at most; the first two neurons stay together, the last reads a mean."""
    graph = deep()
    report = ConversionReport()
    after = CutStreams(pieces).apply(graph, report)
    assert [e["messages_per_timestep"] for e in report.of("cut-streams")] == [48] * relays
    images = random_images(graph, 0, 4)
    same_spikes(graph, after, images)
    program, _ = map_program(lower(after, TARGET, OPTIONS), TARGET)
    spiking = [p for p in program.populations if p.name.startswith("s")]
    assert len({p.dendrite for p in spiking}) == rings
    got = run(program, images, engine="ticks")
    np.testing.assert_array_equal(got.logits_int, interpret(graph, images).raw_logits)


def test_a_relayed_sum_frees_the_stream_from_one_core() -> None:
    graph = deep()
    program = lower(graph, TARGET, OPTIONS)
    relayed = lower(RelaySums().apply(graph, ConversionReport()), TARGET, OPTIONS)
    assert [t.mode for t in program.transfers if t.mode == "sum"] == ["sum"]
    assert [t.mode for t in relayed.transfers if t.mode == "sum"] == []
    assert [m.mode for m in relayed.maps] == ["reduce"]
