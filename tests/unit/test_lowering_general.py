"""Lowering of general networks: levels, ticks per timestep, delays, what the host reads, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nmc_compiler.errors import LoweringError
from nmc_compiler.fitting import fit
from nmc_compiler.graph import Graph, GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.codec import decode, encode
from nmc_compiler.program.model import Program
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

LOIHI, OPTIONS = load_target("loihi2"), CompileOptions()
ONE = (2, 1, 1)


class Net(GraphBuilder):
    """An integer graph of somas with one weight each way."""

    def __init__(self, timesteps: int = 6, bits: int = 0) -> None:
        super().__init__("net", timesteps, "int", input_time=True)
        self.vth = self.tensor("vth", np.array([2, 2], np.int32))
        self.add("input", id="x", name="x", shape=ONE, bits=bits)

    def conv(self, source: str | Use, shift: int = 0, weight: int = 3) -> str:
        key = f"w{weight}"
        array = self.tensors.get(key, np.full((2, 2, 1, 1), weight, np.int16))
        return self.add("conv2d", source, weight=self.tensor(key, array), shift=shift)

    def soma(self, name: str, *currents: str, **more) -> str:
        total = currents[0] if len(currents) == 1 else self.add("add", *currents)
        return self.add("cuba_lif", total, id=name, name=name, dv=2048, vth=self.vth, **more)

    def later(self, name: str) -> None:
        self.declare(name, ValueType(Kind.SPIKE, ONE))

    def done(self, *outputs: str) -> Graph:
        for name in outputs:
            self.add("output", name, name=f"{name}.out")
        return self.build()


def chain(back: int, timesteps: int = 6) -> Graph:
    """x -> a -> b -> c, and c back to a after ``back`` timesteps."""
    net = Net(timesteps)
    net.later("c")
    a = net.soma("a", net.conv("x"), net.conv(Use("c", back), weight=-1))
    c = net.soma("c", net.conv(net.soma("b", net.conv(a))))
    return net.done(c)


def delays(program: Program) -> dict[tuple[str, str], tuple[int, int]]:
    at = {p.dendrite: p.name for p in program.populations}
    return {(program.populations[c.src].name, at[c.dst]): (c.delay, c.lag) for c in program.convs}


@pytest.mark.parametrize(("back", "ticks", "delay"), [(1, 3, 1), (2, 2, 2), (3, 1, 1), (5, 1, 3)])
def test_ticks_per_timestep_are_as_few_as_loops_allow(back: int, ticks: int, delay: int) -> None:
    program = lower(chain(back), LOIHI, OPTIONS)
    assert {p.name: p.level for p in program.populations} == {"x": 0, "a": 1, "b": 2, "c": 3}
    assert (program.ticks_per_step, program.interval) == (ticks, 6 * ticks + 3)
    assert delays(program) == {("x", "a"): (1, 0), ("a", "b"): (1, 0), ("b", "c"): (1, 0), ("c", "a"): (delay, back)}
    assert all(d.ring == 1 for d in program.dendrites)


@pytest.mark.parametrize("back", [1, 2, 5])
@pytest.mark.parametrize("timesteps", [0, 12])
def test_loops_run_as_they_are_interpreted(back: int, timesteps: int) -> None:
    graph = chain(back, timesteps)
    x = np.random.default_rng(back).integers(0, 2, (12, *ONE))
    truth = interpret(graph, x, record="all").codes
    program = fit(graph, LOIHI, OPTIONS, ConversionReport()).program
    got = Emulator(program, record=list("abc")).run_events({"x": x}, 12)
    for name in "abc":
        codes = np.zeros((12, 2), int)
        codes[got.events[name].step, got.events[name].soma] = 1
        assert np.array_equal(codes, truth[name].reshape(12, 2)) and codes.any()


def test_a_stream_has_no_interval_and_a_pipelined_one_no_drain() -> None:
    assert lower(chain(1, 0), LOIHI, OPTIONS).interval == 0
    assert lower(chain(1), LOIHI, replace(OPTIONS, pipelined=True)).interval == 18


def test_what_the_host_reads_and_encodes() -> None:
    b = GraphBuilder("ends", 5, "float", input_time=True)
    x = b.add("input", name="light", shape=ONE)
    w = b.tensor("w", np.eye(2)[:, :, None, None])
    beta = b.tensor("beta", np.array([0.5, 0.75]))
    n = b.add("neuron", b.add("conv2d", x, weight=w), name="n", beta=beta, theta=1.0, reset="hard", compare="gt")
    li = b.add("integrator", b.add("conv2d", n, weight=w), name="li", beta=0.5)
    b.add("output", n, name="spikes")
    b.add("output", b.add("reshape", li, shape=(1, 1, 2)), name="potential")
    b.add("output", b.add("conv2d", n, weight=w), name="current")
    graph = b.build()
    after = compile_graph(graph, LOIHI, OPTIONS, ConversionReport())
    program = lower(after, LOIHI, OPTIONS)
    assert program.meta["inputs"] == [{"population": "light", "scale": 255.0, "lo": 0, "hi": 255}]
    spikes, potential, current = program.meta["outputs"]
    part = {"what": "spikes", "scale": 1.0}
    parts = [{"population": f"n.{i}", "elements": [i], **part} for i in (0, 1)]
    assert spikes == {"name": "spikes", "shape": [2, 1, 1], "parts": parts}
    assert (potential["shape"], potential["parts"][0]["population"]) == ([1, 1, 2], "li")
    assert current["parts"][0]["population"] == "current"
    scale = next(n for n in after if n.name == "li").attr("scale")
    assert potential["parts"][0] == {"population": "li", "what": "potential", "scale": scale, "elements": None}


def test_the_outputs_of_a_program_are_those_of_the_model() -> None:
    """Codes in, spikes and potentials out, read as ``meta`` says, against the float interpreter."""
    rng = np.random.default_rng(1)
    b = GraphBuilder("whole", 20, "float", input_time=True)
    w, v = b.tensor("w", rng.normal(0.4, 0.3, (4, 3, 1, 1))), b.tensor("v", rng.normal(size=(2, 4, 1, 1)))
    beta = b.tensor("beta", np.array([0.5, 0.75, 0.5, 1.0]))
    x = b.add("conv2d", b.add("input", name="x", shape=(3, 1, 1)), weight=w)
    n = b.add("neuron", x, name="n", alpha=0.5, beta=beta, theta=1.0, reset="hard", compare="gt")
    li = b.add("integrator", b.add("conv2d", n, weight=v), name="li", beta=0.9)
    b.add("output", n, name="spikes")
    b.add("output", li, name="potential")
    graph = b.build()
    values = rng.random((20, 3, 1, 1))
    truth = interpret(graph, values).outputs
    program = fit(compile_graph(graph, LOIHI, OPTIONS, ConversionReport()), LOIHI, OPTIONS, ConversionReport()).program
    (given,), names = program.meta["inputs"], [p.name for p in program.populations]
    codes = np.rint(values * given["scale"]).astype(int)
    result = Emulator(program, record=names).run_events({"x": codes}, 20, probe={"li": None})
    for output in program.meta["outputs"]:
        full = np.zeros((20, int(np.prod(output["shape"]))))
        for part in output["parts"]:
            at = slice(None) if part["elements"] is None else part["elements"]
            if part["what"] == "potential":
                full[:, at] = result.potentials[part["population"]][1] * part["scale"]
            else:
                events = result.events[part["population"]]
                full[events.step, np.arange(full.shape[1])[at][events.soma]] = 1
        wanted = truth[output["name"]].reshape(20, -1)
        if output["name"] == "spikes":
            assert (full != wanted).sum() <= 1 and full.sum() > 20
        else:
            assert np.abs(full - wanted).max() < 0.05 * np.abs(wanted).max()


def test_weights_of_nine_bits_become_halves_and_wider_ones_two_convolutions() -> None:
    net = Net()
    graph = net.done(net.soma("a", net.conv("x", 2, weight=200), net.conv("x", 1, weight=1003)))
    program = lower(graph, LOIHI, OPTIONS)
    assert [(c.name, int(c.weight.flat[0]) << c.shift) for c in program.convs] == [
        ("conv2d1", 800), ("conv2d2", -42), ("conv2d2.high", 2048),
    ]  # fmt: skip


def test_the_sum_of_a_convolution_is_shifted_in_a_dendrite_of_its_own() -> None:
    net = Net(bits=4)
    shifted = net.add("rshift", net.conv("x", 1, weight=1003), shift=3)
    graph = net.done(net.soma("a", shifted, net.conv("x", weight=-5)))
    program = lower(graph, LOIHI, OPTIONS)
    assert [(t.name, t.src, t.dst, t.rshift, t.level) for t in program.transfers] == [("conv2d1.shift", 1, 0, 3, 1)]
    assert {(c.name, c.dst) for c in program.convs} == {("conv2d1", 1), ("conv2d1.high", 1), ("conv2d3", 0)}
    x = np.random.default_rng(0).integers(0, 16, (6, *ONE))
    truth = interpret(graph, x, states="all").states["a"]["u"].reshape(6, 2)
    for engine in ("events", "ticks"):
        found = Emulator(program, engine=engine).run_events({"x": x}, 6, probe={"a": None}).potentials["a"][0]
        assert np.array_equal(found, truth), engine


def test_the_same_projection_into_two_somas_is_two() -> None:
    net = Net()
    shared = net.conv("x")
    program = lower(net.done(net.soma("a", shared), net.soma("b", shared)), LOIHI, OPTIONS)
    assert [c.name for c in program.convs] == ["conv2d1", "conv2d1_"]


def test_features_do_not_take_delays_for_streams() -> None:
    net = Net()
    arrays = {"indptr": [0, 1, 2], "target": [0, 1], "weight": [5, 5], "extra": [0, 3]}
    refs = {k: net.tensor(k, np.array(v, np.int64)) for k, v in arrays.items()}
    program = lower(net.done(net.soma("a", net.add("sparse", "x", shape=ONE, **refs))), LOIHI, OPTIONS)
    assert program.dendrites[0].ring == 4
    assert "stream_accumulator" not in [f["feature"] for f in program.meta["features"]]


def test_the_netlist_is_written_and_read() -> None:
    program = replace(lower(chain(2), LOIHI, OPTIONS), meta={})
    assert encode(decode(*encode(program))) == encode(program)


def late(back: int, lag: int, extra: int) -> Graph:
    """x -> a -> b with synapses of many delays, and b back to a: ``back`` 1 makes two ticks per timestep."""
    rng = np.random.default_rng(lag)
    net = Net(200)
    net.later("b")
    a = net.soma("a", net.conv("x"), net.conv(Use("b", back), weight=-2))
    arrays = {"indptr": np.array([0, 40, 80]), "target": rng.integers(0, 2, 80), "weight": rng.integers(-3, 5, 80)}
    arrays["extra"] = rng.integers(0, extra + 1, 80).astype(np.uint8)
    refs = {k: net.tensor(k, v) for k, v in arrays.items()}
    return net.done(net.soma("b", net.add("sparse", Use(a, lag), name="s", shape=ONE, **refs)))


@pytest.mark.parametrize("back", [1, 2])
@pytest.mark.parametrize(("lag", "extra"), [(0, 63), (40, 10), (63, 63), (150, 63)])
def test_long_delays_are_handed_on(back: int, lag: int, extra: int) -> None:
    graph, x = late(back, lag, extra), np.random.default_rng(0).integers(0, 2, (200, *ONE))
    fitted = fit(graph, LOIHI, OPTIONS, ConversionReport())
    truth = interpret(graph, x, record="all").codes
    names = [p.name for p in fitted.program.populations]
    assert any(".late" in name for name in names) == (lag + extra > 63 or fitted.program.ticks_per_step > 1)
    got = Emulator(fitted.program, record=["a", "b"]).run_events({"x": x}, 200)
    for name in ("a", "b"):
        codes = np.zeros((200, 2), int)
        codes[got.events[name].step, got.events[name].soma] = 1
        assert np.array_equal(codes, truth[name].reshape(200, 2)) and codes.any()
    again = interpret(fitted.graph, x, record="all").codes
    assert all(np.array_equal(truth[name], again[name]) for name in truth)


def test_codes_are_not_handed_on() -> None:
    net = Net(bits=3)
    graph = net.done(net.soma("a", net.conv(Use("x", 70))))
    with pytest.raises(
        LoweringError, match="^'x' sends codes over more than the 64 ticks that loihi2 holds; only plain"
    ):
        fit(graph, LOIHI, OPTIONS, ConversionReport())


def refused() -> list[tuple[Graph, str]]:
    cases = []
    net = Net()
    li = net.add("int_integrator", net.conv("x"), id="li", name="li", dv=0)
    cases.append((net.done(net.soma("a", net.conv(li))), "int_integrator 'li' feeds a projection but emits no events"))
    net = Net()
    far = net.soma("a", net.conv(Use("x", 70)))
    text = (
        "'conv2d1' arrives up to 70 ticks after it was sent (70 timesteps of 1 ticks, 0 of synapses, 0 levels); loihi2"
    )
    cases.append((net.done(far), text))
    net = Net()
    net.soma("a", net.conv("x"))
    net.add("output", Use("a", 1), name="o")
    cases.append((net.build(), "output 'o' must read a neuron of the same timestep, not 'a'"))
    net = Net(bits=4)
    net.add("output", "x", name="o")
    net.soma("a", net.conv("x"))
    cases.append((net.build(), "output 'o' must read a neuron of the same timestep, not 'x'"))
    net = Net()
    moved = net.add("take", net.conv("x"), id="m", shape=ONE, index=net.tensor("at", np.array([1, 0])))
    cases.append((net.done(net.soma("a", moved)), "take '%m' cannot stand between projections and a neuron"))
    return cases


def test_sums_of_anything_are_shifted_and_pooled() -> None:
    """A sum of projections, synapses of different delays, a pool; read by somas and by level tables."""
    net = Net(20, bits=4)
    arrays = {"indptr": [0, 1, 2], "target": [0, 1], "weight": [5, -7], "extra": [0, 3]}
    refs = {k: net.tensor(k, np.array(v, np.int64)) for k, v in arrays.items()}
    late = net.add("rshift", net.add("sparse", "x", name="s", shape=ONE, **refs), shift=1)
    both = net.add("rshift", net.add("add", net.conv("x"), net.conv("x")), id="r", shift=2)
    pooled = net.add("maxpool2d", net.conv("x"), kernel=(1, 1))
    levels = net.tensor("levels", np.array([[64, 640, 6400]], np.int32))
    net.add("output", net.soma("a", net.add("add", late, both, pooled)), name="spikes")
    net.add("output", net.add("levels", pooled, id="l", name="l", thresholds=levels), name="o")
    graph = net.build()
    program = fit(graph, LOIHI, OPTIONS, ConversionReport()).program
    codes = np.random.default_rng(0).integers(0, 16, (20, *ONE))
    run = interpret(graph, {"x": codes}, record="all")
    found = Emulator(program, record="all", engine="ticks").run_events({"x": codes}, 20)
    for name in ("a", "l"):
        assert np.array_equal(codes_of(found.events[name], 20, ONE), run.codes[name][:, 0])
        assert run.codes[name].any()


@pytest.mark.parametrize("case", range(5))
def test_refusals(case: int) -> None:
    graph, message = refused()[case]
    with pytest.raises(LoweringError, match=f"^{re.escape(message)}"):
        lower(graph, LOIHI, OPTIONS)
