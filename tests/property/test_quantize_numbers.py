"""What quantisation chose, recomputed from the float graph: mantissas, thresholds, biases, level tables, fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from graphs import Kinds, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text
from nmc_compiler.graph.verify import verify
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import passes_for
from nmc_compiler.passes.quantize import Quantize
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
ENCODINGS = st.sampled_from(("host-current", "graded8"))
BITS = st.sampled_from((8, 8, 4, 2))
TARGET = load_target("loihi2")
MOST = 2**17 - 1


def float_form(seed: int) -> Graph:
    """A random graph after every pass but the last."""
    graph = random_graph(seed)
    for step in passes_for(TARGET, CompileOptions())[:-1]:
        graph = step.apply(graph, ConversionReport())
    return graph


class Quantised:
    """A float graph, its integer form and the report, with the scale of every channel worked out again."""

    def __init__(self, graph: Graph, **options: Any) -> None:
        self.options = Quantize(**options)
        self.report = ConversionReport()
        self.real, self.int = graph, self.options.apply(graph, self.report)
        verify(self.int, event_driven=True)
        self.nodes, self.ints = self.real.by_id(), self.int.by_id()
        self.entries: dict[str, dict] = {}
        for entry in self.report.of("quantize"):
            assert entry["layer"] not in self.entries
            self.entries[entry["layer"]] = entry

    def readers(self) -> list[Node]:
        """Neurons of weighted currents."""
        return [n for n in self.real if is_neuron(n) and self.entries[label(n)]["kind"] != "counts"]

    def leaves(self, node_id: str) -> list[Node]:
        node = self.nodes[node_id]
        return [node] if node.op == "conv2d" else [x for i in node.operands for x in self.leaves(i)]

    def unit(self, reader: Node) -> float:
        """What a LIF compares with, in units of its input; the last level's lower end; 1 for a read-out."""
        gain = reader.attr("gain", 1.0)
        if reader.op == "lif":
            kappa = gain / reader.attr("tau") if reader.attr("decay_input") else gain
            return (reader.attr("theta") - reader.attr("v_reset", 0.0)) / kappa
        return (reader.attr("levels") - 0.5) / gain if reader.op == "multilevel" else 1.0

    def bins(self, reader: Node) -> np.ndarray:
        """Each channel's extra power of two, read off its threshold."""
        base, channels = self.entries[label(reader)]["scale"], reader.type.shape[0]
        if reader.op == "readout":
            return np.zeros(channels)
        made = self.ints[reader.id]
        if reader.op == "lif":
            last = self.int.tensor(made, "vth")
        else:
            last = np.broadcast_to(self.int.tensor(made, "thresholds")[:, -1] / 64, channels)
        ratio = np.log2(last / (base * self.unit(reader)))
        return np.rint(ratio)

    def norm(self, conv: Node) -> float:
        """Codes per unit of value of a convolution's source."""
        source = self.nodes[conv.operands[0]]
        while source.op == "maxpool2d":
            source = self.nodes[source.operands[0]]
        if source.op == "input":
            lo, hi = self.options.input_range
            graded = 255 / hi if lo >= 0 else 127 / max(-lo, hi)
            return graded if self.options.input_encoding == "graded8" else 1.0
        return source.attr("norm", 1)


def check_weights(q: Quantised, reader: Node) -> None:
    """Every mantissa within half a step of the weight; host weights within half a unit of 2^-bits."""
    entry = q.entries[label(reader)]
    scale = entry["scale"] * 2.0 ** entry["rshift"] * 2.0 ** q.bins(reader)
    half = 1 << (q.options.weight_bits - 1)
    for conv in q.leaves(reader.operands[0]):
        made, facts = q.ints[conv.id], q.entries[label(conv)]
        weight = q.real.tensor(conv, "weight") / q.norm(conv)
        m, shift = q.int.tensor(made, "weight").astype(np.float64), made.attr("shift")
        ideal = weight * scale[:, None, None, None]
        if made.op == "host_conv2d":
            assert made.attr("frac") == 16 and np.abs(m / 2.0 ** (shift - 16) - ideal).max() <= 0.5 / 2.0 ** (
                shift - 16
            )
            assert np.abs(m).max() <= 2**22 and 0 <= shift <= 31
            assert np.abs(m).max() >= 2**20 or shift == 31
            continue
        assert -half <= m.min() and m.max() <= half - 1
        least = 9 - q.options.weight_bits
        assert least <= shift <= least + q.options.weight_exp_max
        error = np.abs(m * 2.0**shift - ideal)
        assert error.max() <= 2.0 ** (shift - 1) * (1 + 1e-9)
        in_model = (error / scale[:, None, None, None]).max()
        assert facts["worst_error"] == pytest.approx(in_model, rel=1e-6, abs=1e-12)
        assert facts["shift"] == shift and sum(facts["channels_per_bin"]) == conv.type.shape[0]
        assert len(facts["channels_per_bin"]) <= q.options.channel_bins


def check_bias(q: Quantised, reader: Node, scale: np.ndarray) -> None:
    made, entry = q.int.tensor(q.ints[reader.id], "bias"), q.entries[label(reader)]
    want = q.real.tensor(reader, "bias")
    if want is None:
        assert made is None
        return
    step = 2 ** entry["bias_exp"]
    assert (made % step == 0).all() and np.abs(made // step).max() <= 4095 and entry["bias_exp"] <= 7
    assert np.abs(made - want * 64 * scale).max() <= step / 2 * (1 + 1e-9)


def check_thresholds(q: Quantised, reader: Node, scale: np.ndarray) -> None:
    made = q.ints[reader.id]
    if reader.op == "lif":
        vth = q.int.tensor(made, "vth")
        wanted = scale * q.unit(reader)
        if q.entries[label(reader)].get("exact"):
            np.testing.assert_array_equal(
                vth, np.ceil(wanted) - 1 if reader.attr("compare") == "ge" else np.floor(wanted)
            )
        assert np.abs(vth - wanted).max() <= (1 if q.entries[label(reader)].get("exact") else 0.5)
        assert vth.min() >= 0 and vth.max() <= MOST
        assert made.attr("dv") == round(4096 / reader.attr("tau"))
        assert len(np.unique(vth)) <= q.options.channel_bins
    elif reader.op == "multilevel":
        check_levels(q, reader, scale)
    else:
        want = reader.attr("gain", 1.0) / (64 * scale[0] * q.real.timesteps)
        assert made.attr("scale") == pytest.approx(want)


def check_levels(q: Quantised, reader: Node, scale: np.ndarray) -> None:
    """Each threshold is the first potential v whose code, rounded as the float neuron does, is the level."""
    table = q.int.tensor(q.ints[reader.id], "thresholds").astype(np.float64)
    rounded = np.rint if reader.attr("rounding") == "half_even" else lambda x: np.floor(x + 0.5)
    levels = np.arange(1, reader.attr("levels") + 1)
    per_v = np.array(reader.attr("gain", 1.0) / (64 * scale))[:, None]
    at, below = np.broadcast_to(table, (len(scale), len(levels))) * per_v, None
    below = at - per_v
    eps = 1e-9
    assert (rounded(at + eps) >= levels).all() and (rounded(below - eps) < levels).all()


@given(SEEDS, ENCODINGS, BITS, st.sampled_from((1, 4)))
@SETTINGS
def test_the_integers_are_the_nearest_to_the_trained_numbers(seed: int, encoding: str, bits: int, bins: int) -> None:
    q = Quantised(float_form(seed), input_encoding=encoding, weight_bits=bits, channel_bins=bins)
    for reader in q.readers():
        found = q.bins(reader)
        assert (found >= 0).all() and (found <= bins - 1).all()
        scale = q.entries[label(reader)]["scale"] * 2.0**found
        check_weights(q, reader)
        check_bias(q, reader, scale)
        check_thresholds(q, reader, scale)
        assert 0 <= q.entries[label(reader)]["rshift"] <= 8


@given(SEEDS, ENCODINGS)
@SETTINGS
def test_every_layer_is_in_the_report(seed: int, encoding: str) -> None:
    q = Quantised(float_form(seed), input_encoding=encoding)
    assert set(q.entries) == {label(n) for n in q.real if n.op == "conv2d" or is_neuron(n)}
    kinds = {label(n): q.entries[label(n)]["kind"] for n in q.real if label(n) in q.entries}
    for n in q.real:
        if n.op == "conv2d":
            host = q.nodes[n.operands[0]].type.kind is Kind.REAL and encoding == "host-current"
            assert kinds[label(n)] == ("host" if host else "weights")
        elif is_neuron(n):
            assert kinds[label(n)] in (n.op, "counts")


@given(SEEDS, ENCODINGS)
@SETTINGS
def test_a_neuron_that_cannot_overflow_never_does(seed: int, encoding: str) -> None:
    """And its static bound holds for the currents it really gets."""
    q = Quantised(float_form(seed), input_encoding=encoding)
    images = random_images(q.real, seed, 4)
    images[0], images[1] = images[0] > 0.5, 1.0
    operands = {n.name: q.ints[n.id].operands[0] for n in q.readers()}
    run = interpret(q.int, images, values=operands.values())
    for name, operand in operands.items():
        entry = q.entries[name]
        assert np.abs(run.values[operand]).max() <= entry["static_bound"]
        overflows = sum(count for where, count in run.overflows.items() if where.startswith(f"{name}:"))
        assert entry["can_overflow"] or not overflows


@given(SEEDS)
@SETTINGS
def test_first_layer_currents_stay_near_the_float_ones(seed: int) -> None:
    """The host rounds the input to 2^-16, the weights to 2^-bits and the result once: no more is lost."""
    q = Quantised(float_form(seed), input_encoding="host-current")
    hosts = [n for n in q.int if n.op == "host_conv2d"]
    images = random_images(q.real, seed, 2)
    real = interpret(q.real, images, values=[n.id for n in hosts])
    made = interpret(q.int, images, values=[n.id for n in hosts])
    for n in hosts:
        reader = next(r for r in q.readers() if n.id in [x.id for x in q.leaves(r.operands[0])])
        entry = q.entries[label(reader)]
        scale = (entry["scale"] * 2.0 ** (entry["rshift"] + q.bins(reader)))[:, None, None]
        fan_in = math.prod(q.int.tensor(n, "weight").shape[1:])
        largest = np.abs(q.real.tensor(q.nodes[n.id], "weight")).max() * scale.max()
        per_input = 0.5 / 2.0 ** (n.attr("shift") - 16) + largest / 2**17
        assert np.abs(made.values[n.id] - real.values[n.id] * scale).max() <= 0.5 + fan_in * per_input


@pytest.mark.parametrize("encoding", ["host-current", "graded8"])
def test_quantisation_is_deterministic(encoding: str) -> None:
    for seed in range(5):
        graph = float_form(seed)
        one, two = (Quantised(graph, input_encoding=encoding) for _ in range(2))
        assert to_text(one.int) == to_text(two.int) and one.report.as_json() == two.report.as_json()
        assert all(np.array_equal(v, two.int.tensors[k]) for k, v in one.int.tensors.items())


def whole(seed: int) -> tuple[Graph, np.ndarray]:
    """A network whose every number is small and dyadic, on inputs 0, 1 and 2."""
    kinds = Kinds(timesteps=(1, 2, 3), dyadic=True, norms=False, chains=False, attention=False, taus=(1.0, 2.0))
    graph = random_graph(seed, kinds)
    return graph, np.random.default_rng(seed).integers(0, 3, random_images(graph, seed, 6).shape).astype(np.float32)


def test_small_whole_numbers_stay_exact_ties_included() -> None:
    """`>=` on the grain: where no number is rounded every spike is that of the float network, also at the threshold."""
    ties = exact = 0
    for seed in range(60):
        graph, images = whole(seed)
        for step in passes_for(TARGET, CompileOptions())[:-1]:
            graph = step.apply(graph, ConversionReport())
        q = Quantised(graph, input_encoding="graded8", input_range=(0.0, 255.0), channel_bins=1)
        lifs = [n for n in q.readers() if n.op == "lif"]
        if not lifs or not all(q.entries[n.name].get("exact") for n in lifs):
            continue
        exact += 1
        real = interpret(q.real, images, record="all", values=[n.operands[0] for n in lifs])
        made = interpret(q.int, images, record=real.codes)
        for name, codes in real.codes.items():
            np.testing.assert_array_equal(made.codes[name], codes, err_msg=f"{seed} {name}")
        for n in lifs:
            bias = q.real.tensor(n, "bias")
            x = real.values[n.operands[0]][0] + (0 if bias is None else bias[:, None, None])
            ties += int((x == q.unit(n)).sum())
    assert exact > 10 and ties > 50, (exact, ties)
