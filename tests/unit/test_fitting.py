"""Relays are exact, and are put in only where a stream does not fit without them."""

from pathlib import Path

import numpy as np
import pytest
from mapping_nets import target_with

from nmc_compiler.errors import CapacityError
from nmc_compiler.fitting import fit
from nmc_compiler.frontends.checkpoint import import_checkpoint
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.relays import CutStreams, RelaySums
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
STREAM = CompileOptions(residual="stream")


def integer_graph(family: str):
    folder = FIXTURES / family
    graph = import_checkpoint(folder / "model.pt").graph
    images = np.load(folder / "vectors.npz")["images"][:2]
    return compile_graph(graph, load_target("loihi2"), STREAM, ConversionReport()), images


def assert_same_spikes(before, after, images):
    expected, got = interpret(before, images, record="all"), interpret(after, images, record="all")
    for name, codes in expected.codes.items():
        np.testing.assert_array_equal(codes, got.codes[name], err_msg=name)
    np.testing.assert_array_equal(expected.raw_logits, got.raw_logits)


@pytest.mark.parametrize("family", ["sdt_v1", "sdt_v3"])
@pytest.mark.parametrize("steps", [(RelaySums(),), (CutStreams(2),), (CutStreams(5), RelaySums())])
def test_relays_change_no_spike(family, steps):
    graph, images = integer_graph(family)
    after, log = graph, ConversionReport()
    for step in steps:
        after = step.apply(after, log)
        verify(after, event_driven=True)
    assert len(after.nodes) > len(graph.nodes) and log.entries
    assert all(e["messages_per_timestep"] > 0 for e in log.entries)
    assert_same_spikes(graph, after, images)


def test_a_net_without_streams_gets_no_relay():
    graph, _ = integer_graph("spikformer")
    for step in (RelaySums(), CutStreams(4)):
        assert len(step.apply(graph, ConversionReport()).nodes) == len(graph.nodes)


def test_what_fits_is_left_alone():
    graph, _ = integer_graph("sdt_v1")
    report = ConversionReport()
    fitted = fit(graph, load_target("loihi2"), STREAM, report)
    assert fitted.graph is graph and report.notes == []


def tight(words: int):
    """loihi2 with fewer words of synapse memory per core."""
    return target_with(synapse_words=words)


def test_a_stream_too_large_is_cut_and_says_so():
    graph, images = integer_graph("sdt_v3")
    plain = fit(graph, load_target("loihi2"), STREAM, ConversionReport())
    words = max(core["synapse_words"][0] for core in plain.mapping.utilisation)
    report = ConversionReport()
    for limit in range(words, 0, -max(words // 40, 1)):  # the first limit under which the plain graph does not fit
        report = ConversionReport()
        fitted = fit(graph, tight(limit), STREAM, report, chips="auto")
        if fitted.graph is not graph:
            break
    else:
        pytest.fail("no limit made the stream too large")
    assert any("made to fit by" in n and "layer" in n for n in report.notes), report.notes
    assert {e["pass"] for e in report.entries} <= {"relay-sums", "cut-streams"} and report.entries
    expected = interpret(graph, images, record="all")
    got = run(fitted.program, images, record="all", engine="ticks")
    for name, codes in expected.codes.items():
        np.testing.assert_array_equal(codes, got.codes[name].transpose(1, 0, 2, 3, 4), err_msg=name)


def test_pieces_on_request():
    graph, images = integer_graph("sdt_v1")
    report = ConversionReport()
    fitted = fit(graph, load_target("loihi2"), CompileOptions(stream_pieces=3), report)
    relays = [p for p in fitted.program.populations if p.model == "relay"]
    assert len(relays) >= 2 and {e["pass"] for e in report.entries} == {"cut-streams", "relay-sums"}
    assert_same_spikes(graph, fitted.graph, images)


def test_what_cannot_fit_is_refused_with_the_plain_reason():
    graph, _ = integer_graph("sdt_v1")
    with pytest.raises(CapacityError, match=r"layer '.*' needs|layer '.*': its smallest tile needs"):
        fit(graph, tight(4), CompileOptions(), ConversionReport(), chips="auto")


def test_a_sum_that_is_relayed_already_is_relayed_before_it_too():
    """The head of sdt_v3_large reads the relay of a mean over positions, which itself may not fit."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "zoo" / "sdt_v3_large"
    images = np.load(folder / "golden.npz")["images"][:1]
    graph = compile_graph(
        import_checkpoint(folder / "model.pt").graph, load_target("loihi2"), STREAM, ConversionReport()
    )
    after = RelaySums().apply(graph, ConversionReport())
    assert sum(n.op == "relay" for n in after) == sum(n.op == "relay" for n in graph) + 1
    assert_same_spikes(graph, after, images)
