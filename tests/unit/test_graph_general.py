"""Graphs of any spiking network: every op against a plain loop, recurrent edges, inputs, outputs, errors."""

import itertools
import re

import numpy as np
import pytest
from naive import wrap32
from test_graph_ops import call

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.interpret import OverflowInGraph, interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify

RNG = np.random.default_rng(5)
SHAPE = (3, 2, 2)
RESETS, COMPARES, NEW_OLD = ("hard", "soft", "none"), ("ge", "gt"), ("new", "old")
AT = ("same", "next_start", "next_end")


def drawn(low: float, high: float):
    """A parameter: a number, or one per channel or element."""
    shape = [(), (SHAPE[0],), SHAPE][RNG.integers(3)]
    value = RNG.uniform(low, high, shape)
    return float(value) if shape == () else value


def at(value, i) -> float:
    value = np.asarray(value)
    return float(value if value.ndim == 0 else value[i[0]] if value.ndim == 1 else value[i])


def lone_neuron(p: dict, xs: list[float], i: tuple[int, ...]):
    """(spike, u, v) of one neuron at every step, as docs and textbooks write it."""
    g = {k: v if isinstance(v, str) else at(v, i) for k, v in p.items()}
    u, v, s = g.get("start_u", 0.0), g.get("start_v", 0.0), False

    def reset(v, s):
        if not s:
            return v
        return {"hard": g.get("v_reset", 0.0), "soft": v - g["theta"], "none": v}[g["reset"]]

    for x in xs:
        when = g.get("reset_at", "same")
        if when == "next_start":
            v = reset(v, s)
        before = u
        u = g.get("alpha", 0.0) * u + g.get("gain", 1.0) * x
        drive = before if g.get("current") == "old" else u
        h = g["beta"] * v + g.get("gain_v", 1.0) * drive + g.get("leak", 0.0)
        if when == "next_end":
            h = reset(h, s)
        seen = v if g.get("fire") == "old" else h
        s = seen >= g["theta"] if g["compare"] == "ge" else seen > g["theta"]
        v = reset(h, s) if when == "same" else h
        v = max(v, g.get("v_min", -np.inf))
        yield s, u, v


@pytest.mark.parametrize(
    ("reset", "reset_at", "compare", "current", "fire"), [*itertools.product(RESETS, AT, COMPARES, NEW_OLD, NEW_OLD)]
)
def test_neuron(reset, reset_at, compare, current, fire) -> None:
    p = {"beta": drawn(0, 1), "theta": drawn(0.5, 1), "reset": reset, "compare": compare}
    p |= {"reset_at": reset_at, "current": current, "fire": fire}
    optional = {"alpha": (0, 1), "gain": (0.5, 2), "gain_v": (0.5, 2), "leak": (-0.2, 0.2), "v_reset": (-0.3, 0.3)}
    optional |= {"start_u": (-1, 1), "start_v": (-1, 1), "v_min": (-0.5, -0.1)}
    p |= {k: drawn(*ends) for k, ends in optional.items() if RNG.random() < 0.6}
    x, state = RNG.normal(size=(8, 2, *SHAPE)), {}
    twins = {i: lone_neuron(p, [x[(t, *i)] for t in range(8)], i[1:]) for i in np.ndindex(2, *SHAPE)}
    for t in range(8):
        got = call("neuron", [x[t]], False, state, t=t, **p)
        for i, twin in twins.items():
            s, u, v = next(twin)
            assert got[i] == s
            np.testing.assert_allclose([state["u"][i], state["v"][i]], [u, v], rtol=1e-12, atol=1e-14)


def test_neuron_compares_on_the_threshold() -> None:
    one = np.ones((1, 1, 1, 1))
    for compare, spike in (("ge", 1), ("gt", 0)):
        assert call("neuron", [one], beta=0.0, theta=1.0, reset="none", compare=compare).item() == spike


def test_integrator() -> None:
    p = {"alpha": drawn(0, 1), "beta": drawn(0, 1), "gain": drawn(0, 2), "leak": drawn(-1, 1)}
    x, state = RNG.normal(size=(6, 2, *SHAPE)), {}
    never = p | {"theta": 1e9, "reset": "none", "compare": "gt"}
    twins = {i: lone_neuron(never, [x[(t, *i)] for t in range(6)], i[1:]) for i in np.ndindex(2, *SHAPE)}
    for t in range(6):
        got = call("integrator", [x[t]], False, state, t=t, **p)
        for i, twin in twins.items():
            np.testing.assert_allclose(got[i], next(twin)[2], rtol=1e-12)


def decay(v: int, d: int) -> int:
    size = abs(v) * (4096 - d) // 4096
    return -size if v < 0 else size


@pytest.mark.parametrize("op", ["cuba_lif", "int_integrator"])
@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("restart", [None, (3, 1)])
def test_somas_with_a_current(op, ternary, restart) -> None:
    """docs/integers.md, "A current that lasts"."""
    p = {"du": 409, "dv": 205, "bias": np.array([-40, 0, 7]), "start_u": RNG.integers(-999, 999, SHAPE)}
    p["start_v"] = RNG.integers(-999, 999, SHAPE)
    fires = op == "cuba_lif"
    if fires:
        p |= {"vth": np.array([60, 9, 200])} | ({"vth_low": np.array([-50, 2, -9])} if ternary else {})
        p |= {"restart": restart} if restart else {}
    x, state = RNG.integers(-60, 90, (9, 2, *SHAPE)), {}
    u, v = (np.broadcast_to(p[k], (2, *SHAPE)).astype(object) for k in ("start_u", "start_v"))
    for t in range(9):
        got = call("cuba_lif", [x[t]], True, state, t=t, **p) if fires else call("int_integrator", [x[t]], True, state, t=t, **p)  # fmt: skip  # noqa: E501
        for i in np.ndindex(*u.shape):
            if fires and restart and (t + 1) % 3 == 1:
                u[i] = v[i] = 0
            u[i] = decay(int(u[i]), 410) + int(x[(t, *i)]) * 64
            h, code = decay(int(v[i]), 205) + u[i] + int(p["bias"][i[1]]), 0
            if fires:
                code = int(h > int(p["vth"][i[1]]) * 64) - int(ternary and h < int(p["vth_low"][i[1]]) * 64)
            v[i] = 0 if code else h
            assert got[i] == (code if fires else v[i])
            assert (state["u"][i], state["v"][i]) == (u[i], v[i])


def test_an_integer_integrator_that_leaves_what_a_soma_can_hold_is_told_of() -> None:
    top = 2**17 - 1
    for a in (top, top - 1):
        assert call("int_integrator", [np.full((1, 1, 1, 1), a)], True, dv=0).item() == a * 64
    with pytest.raises(OverflowInGraph, match="integrated potential v at 1"):
        call("int_integrator", [np.full((1, 1, 1, 1), top)], True, dv=0, bias=np.array([1]))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("integer", [False, True])
def test_sigma_delta(relu, cumulative, integer) -> None:
    bias = np.array([2, -1, 0])
    p = {"vth": np.array([24, 3, 0]), "bias": bias, "out_shift": 2} if integer else {"theta": np.array([2.0, 0.3, 0])}
    state: dict = {}
    sums = [[0, 0, 0, 0] for _ in range(3)]
    for t in range(12):
        a = RNG.integers(-20, 21, (1, 3, 1, 1)) if integer else RNG.normal(size=(1, 3, 1, 1))
        got = call("sigma_delta", [a], integer, state, t=t, relu=relu, cumulative=cumulative, **p)
        for c, (sigma, act, residue, error) in enumerate(sums):
            sigma += a[0, c, 0, 0]
            new = sigma + (bias[c] if integer else 0)
            new = max(new, 0) if relu else new
            delta = new - act + residue
            error += delta if cumulative else 0
            fire = abs(error if cumulative else delta) >= (p["vth"] if integer else p["theta"])[c]
            sent = delta if fire else 0
            sums[c] = [sigma, new, delta - sent, 0 if fire else error]
            assert got[0, c, 0, 0] == (int(sent) >> 2 if integer else sent)


def test_sigma_delta_wraps_32_bits_and_says_so() -> None:
    big = np.full((1, 1, 1, 1), 2**31 - 1)
    with pytest.raises(OverflowInGraph, match="32-bit state at 1"):
        call("sigma_delta", [big], True, vth=np.array([2**31 - 1]), bias=np.array([1]))
    assert wrap32(2**31) == -(2**31)


@pytest.mark.parametrize("steps", [0, 3, np.array([0, 1, 5]), RNG.integers(0, 4, SHAPE)])
def test_delay(steps) -> None:
    x, state = RNG.normal(size=(7, 2, *SHAPE)), {}
    full = np.broadcast_to(steps[:, None, None] if np.ndim(steps) == 1 else steps, SHAPE)
    for t in range(7):
        got = call("delay", [x[t]], False, state, t=t, steps=steps)
        for i in np.ndindex(2, *SHAPE):
            past = t - int(full[i[1:]])
            assert got[i] == (x[(past, *i)] if past >= 0 else 0.0)


def test_reshape_and_output() -> None:
    x = RNG.normal(size=(2, 3, 2, 2))
    assert np.array_equal(call("reshape", [x], shape=(12, 1, 1))[:, :, 0, 0], [list(n.flat) for n in x])
    assert np.array_equal(call("output", [x]), x)


def test_constant_fires_always() -> None:
    b = GraphBuilder("g", 3, "float", input_time=True)
    b.add("input", name="x", shape=(2, 1, 1))
    b.add("output", b.add("constant", id="one", name="one", shape=(2, 1, 1)), name="o")
    got = interpret(b.build(), np.zeros((4, 3, 2, 1, 1)), record=["one"])
    assert (got.outputs["o"] == 1).all() and got.codes["one"].shape == (3, 4, 2, 1, 1)
    assert np.array_equal(call("constant", [], shape=(2, 1, 3)), np.ones((1, 2, 1, 3)))


def test_gather_puts_parts_in_place() -> None:
    a, b, index = RNG.normal(size=(2, 2, 1, 2)), RNG.normal(size=(2, 1, 1, 2)), np.array([5, 0, 2, 1, 4, 3])
    got = call("gather", [a, b], index=index, shape=(3, 1, 2)).reshape(2, 6)
    for n in range(2):
        parts = [*a[n].flat, *b[n].flat]
        assert [got[n, index[k]] for k in range(6)] == parts


@pytest.mark.parametrize("geometry", [{}, {"stride": (2, 1)}, {"stride": (2, 2), "pad": (1, 0)}])
def test_sumpool2d(geometry) -> None:
    x = RNG.normal(size=(2, 3, 5, 4))
    got = call("sumpool2d", [x], kernel=(3, 2), **geometry)
    (sy, sx), (py, px) = geometry.get("stride", (1, 1)), geometry.get("pad", (0, 0))
    for n, c, y, z in np.ndindex(*got.shape):
        rows = range(max(y * sy - py, 0), min(y * sy - py + 3, 5))
        columns = range(max(z * sx - px, 0), min(z * sx - px + 2, 4))
        assert np.isclose(got[n, c, y, z], sum(x[n, c, a, b] for a in rows for b in columns))


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_sparse(integer, graded, late) -> None:
    sources, shape = 12, (2, 1, 3)
    counts = RNG.integers(0, 5, sources)
    p = {"indptr": np.concatenate([[0], np.cumsum(counts)]), "target": RNG.integers(0, 6, counts.sum())}
    p["weight"] = RNG.integers(-9, 9, counts.sum()) if integer else RNG.normal(size=counts.sum())
    p |= {"extra": RNG.integers(0, 4, counts.sum())} if late else {}
    x, state, due = RNG.integers(-2, 3, (6, 2, *SHAPE)), {}, np.zeros((12, 2, 6))
    x = x if integer else x.astype(np.float64)
    for t in range(6):
        more = {"shift": 3} if integer else {}
        got = call("sparse", [x[t]], integer, state, t=t, shape=shape, graded=graded, **p, **more)
        flat = x[t].reshape(2, -1)
        for n, s in np.ndindex(*flat.shape):
            for j in range(p["indptr"][s], p["indptr"][s + 1]):
                value = flat[n, s] if graded else flat[n, s] != 0
                due[t + (p["extra"][j] if late else 0), n, p["target"][j]] += p["weight"][j] * value * 8**integer
        np.testing.assert_allclose(got.reshape(2, -1), due[t], rtol=1e-12, atol=1e-12)


def test_scale_of_elements_and_of_events() -> None:
    x, factor = RNG.normal(size=(2, *SHAPE)), RNG.normal(size=SHAPE)
    assert np.array_equal(call("scale", [x], factor=factor), x * factor)
    b = GraphBuilder("g", 2, "float", input_time=True)
    spikes = b.add("input", shape=(2, 1, 1), bits=0)
    assert b.nodes[b.add("scale", spikes, factor=0.5)].type == ValueType(Kind.CURRENT, (2, 1, 1))


# ---- whole graphs ----


def recurrent(timesteps: int = 0) -> Graph:
    """Two inputs, a layer that hears itself and the next one, a slow read-out: two outputs."""
    b = GraphBuilder("loop", timesteps, "float", input_time=True)
    x = b.add("input", name="spikes", shape=(3, 1, 1), bits=0)
    y = b.add("input", name="drive", shape=(2, 1, 1))
    b.declare("a", ValueType(Kind.SPIKE, (2, 1, 1)))
    b.declare("b", ValueType(Kind.SPIKE, (2, 1, 1)))
    w = b.tensor("w", np.array([[1.0, 0.5, -0.25], [0.5, 1.0, 0.25]])[:, :, None, None])
    back = b.tensor("back", np.array([[0.0, -0.5], [0.75, 0.0]])[:, :, None, None])
    total = b.add("add", b.add("conv2d", x, weight=w), y, b.add("conv2d", Use("a", 1), weight=back),
                  b.add("conv2d", Use("b", 2), weight=back))  # fmt: skip
    a = b.add("neuron", total, id="a", name="a", alpha=0.5, beta=0.75, theta=1.0, reset="soft", compare="gt")
    n = b.add("neuron", b.add("map", a, mode="same"), id="b", name="b", beta=0.5, theta=1.0, reset="hard", compare="ge")
    li = b.add("integrator", n, name="li", beta=0.9)
    b.add("output", a, name="fast")
    b.add("output", li, name="slow")
    graph = b.build()
    verify(graph)
    return graph


def drive(steps: int, samples: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "spikes": rng.integers(0, 2, (samples, steps, 3, 1, 1)),
        "drive": rng.normal(size=(samples, steps, 2, 1, 1)),
    }


def test_a_recurrent_network_is_what_a_plain_loop_gives() -> None:
    inputs = drive(20)
    got = interpret(recurrent(), inputs, record="all", states="all")
    w, back = np.array([[1.0, 0.5, -0.25], [0.5, 1.0, 0.25]]), np.array([[0.0, -0.5], [0.75, 0.0]])
    for n in range(2):
        u, va, vb, li = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2)
        a, b_before, b = np.zeros(2), np.zeros(2), np.zeros(2)
        for t in range(20):
            x = w @ inputs["spikes"][n, t, :, 0, 0] + inputs["drive"][n, t, :, 0, 0] + back @ a + back @ b_before
            u = 0.5 * u + x
            va = 0.75 * va + u
            a = (va > 1).astype(float)
            va = va - a
            vb = 0.5 * vb + a
            b_before, b = b, (vb >= 1).astype(float)
            vb = np.where(b > 0, 0, vb)
            li = 0.9 * li + b
            assert np.array_equal(got.codes["a"][t, n, :, 0, 0], a)
            np.testing.assert_allclose(got.outputs["slow"][t, n, :, 0, 0], li, rtol=1e-12)
            np.testing.assert_allclose(got.states["a"]["v"][t, n, :, 0, 0], va, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(got.states["a"]["u"][t, n, :, 0, 0], u, rtol=1e-9, atol=1e-12)
    assert np.array_equal(got.outputs["fast"], got.codes["a"])
    assert got.codes["a"].any() and got.codes["b"].any()


def test_the_text_of_general_graphs_round_trips() -> None:
    for graph in (recurrent(), recurrent(7)):
        again = from_text(to_text(graph), graph.tensors)
        assert (again.nodes, again.timesteps) == (graph.nodes, graph.timesteps)
    assert "conv2d(%a[-1]) weight=@back" in to_text(graph)


def test_one_sample_needs_no_batch_axis_and_a_window_its_steps() -> None:
    one = {k: v[0] for k, v in drive(7).items()}
    both = interpret(recurrent(7), drive(7)).outputs["slow"]
    assert np.array_equal(interpret(recurrent(7), one).outputs["slow"], both[:, :1])
    assert np.array_equal(interpret(recurrent(), one).outputs["slow"], both[:, :1])
    with pytest.raises(VerifyError, match=re.escape("wants images [N, T=7, C, H, W], got shape (2, 6, 3, 1, 1)")):
        interpret(recurrent(7), drive(6))


INPUT_ERRORS = [
    ({"spikes": 0}, "graph 'loop' has the inputs spikes, drive; given: spikes"),
    ({"spikes": np.full((2, 4, 3, 1, 1), 2)}, "input 'spikes' takes whole codes in 0..1"),
    ({"spikes": np.full((2, 4, 3, 1, 1), 0.5)}, "input 'spikes' takes whole codes in 0..1"),
    ({"spikes": np.zeros((2, 5, 3, 1, 1))}, "inputs of (2, 5, 3, 1, 1) and (2, 4, 2, 1, 1) do not go together"),
    ({"spikes": np.zeros((3, 4, 3, 1, 1))}, "inputs of (3, 4, 3, 1, 1) and (2, 4, 2, 1, 1) do not go together"),
    ({"spikes": np.zeros((2, 4, 2, 1, 1))}, "input wants samples of shape (3, 1, 1), got (2, 1, 1)"),
    ({"spikes": np.zeros((2, 0, 3, 1, 1))}, "wants images [N, T, C, H, W], got shape (2, 0, 3, 1, 1)"),
]


@pytest.mark.parametrize(("change", "message"), INPUT_ERRORS, ids=[str(i) for i in range(len(INPUT_ERRORS))])
def test_inputs_that_do_not_fit(change, message) -> None:
    given = drive(4) | change if isinstance(change["spikes"], np.ndarray) else change
    with pytest.raises(VerifyError, match=re.escape(message)):
        interpret(recurrent(), given)


def test_several_inputs_are_given_by_name() -> None:
    with pytest.raises(VerifyError, match="^graph 'loop' has 2 inputs; give an array for each$"):
        interpret(recurrent(), drive(4)["drive"])
    with pytest.raises(VerifyError, match="^graph 'loop' has no neuron 'c'$"):
        interpret(recurrent(), drive(4), states=["c"])


ENDS = [
    ((("output", "s", "o", {}), ("output", "s", "o", {})), "graph 'g' has two outputs called 'o'"),
    ((("output", "s", "o", {}), ("input", (), "x", {"shape": (1, 1, 1)})), "graph 'g' has two inputs called 'x'"),
    ((("output", "s", "o", {}), ("input", (), "s", {"shape": (1, 1, 1)})), "every population needs a name of its own"),
    (
        tuple(
            (("map", "s", "", {"mode": "same"}), *(("readout", "map2", n, {}) for n in "pq"), ("output", "s", "o", {}))
        ),
        "graph 'g' can have one readout, has 2 (%readout3, %readout4)",
    ),
]


@pytest.mark.parametrize(("last", "message"), ENDS, ids=[str(i) for i in range(len(ENDS))])
def test_ends_of_a_general_graph(last, message) -> None:
    b = GraphBuilder("g", 3, "float", input_time=True)
    b.add("input", id="x", name="x", shape=(2, 1, 1), bits=0)
    b.add("neuron", "x", id="s", name="s", beta=0.5, theta=1.0, reset="hard", compare="gt")
    for op, operand, name, attrs in last:
        b.add(op, *([operand] if operand else []), name=name, **attrs)
    with pytest.raises(VerifyError, match=re.escape(message)):
        verify(b.build())


def test_a_stream_needs_a_time_axis_and_an_output() -> None:
    with pytest.raises(VerifyError, match="T = 0, a stream, but its input has no time axis"):
        verify(Graph("g", 0, recurrent().nodes, recurrent().tensors))


def test_declared_nodes_must_come_and_be_what_was_said() -> None:
    b = GraphBuilder("g", 3)
    x = b.add("input", shape=(2, 1, 1))
    b.declare("s", ValueType(Kind.SPIKE, (3, 1, 1)))
    with pytest.raises(VerifyError, match="operand %s is not defined before its use"):
        b.add("map", "s", mode="same")
    b.add("map", Use("s", 1), mode="same")
    with pytest.raises(VerifyError, match="^graph 'g': %s is declared but never added$"):
        b.build()
    with pytest.raises(VerifyError, match=r"declared as spike\[3,1,1\], but the op gives spike\[2,1,1\]$"):
        b.add("neuron", x, id="s", beta=0.5, theta=1.0, reset="hard", compare="gt")


N = {"beta": 0.5, "theta": 1.0, "reset": "hard", "compare": "gt"}
SPARSE = {"indptr": np.array([0, 1, 2]), "target": np.array([0, 1]), "weight": np.ones(2), "shape": (2, 1, 1)}
BAD = [
    ("neuron", N | {"beta": 1.5}, "beta must lie in 0..1 (what is kept of a step), got 1.5..1.5"),
    ("neuron", N | {"alpha": np.array([0.5, -1])}, "alpha must lie in 0..1 (what is kept of a step), got -1..0.5"),
    ("neuron", N | {"leak": np.zeros(3)}, "leak must be a number or have shape (2,) or (2, 1, 1), got (3,)"),
    ("neuron", N | {"reset": "zero"}, "reset must be hard, soft or none"),
    ("neuron", N | {"reset_at": "later"}, "reset_at must be same, next_start or next_end"),
    ("neuron", N | {"current": "late"}, "current must be new or old"),
    ("delay", {"steps": -1}, "steps must lie in 0..65536, got -1..-1"),
    ("delay", {"steps": np.ones(2)}, "steps must be whole numbers of timesteps, got float64"),
    ("delay", {"steps": np.ones(5, int)}, "steps must be a number or have shape (2,) or (2, 1, 1), got (5,)"),
    ("reshape", {"shape": (3, 1, 1)}, "shape must be (C, H, W) with 2 elements, got (3, 1, 1)"),
    ("sparse", SPARSE | {"indptr": np.array([0, 2])}, "indptr must be 3 whole numbers that rise from 0"),
    ("sparse", SPARSE | {"indptr": np.array([0, 3, 2])}, "indptr must be 3 whole numbers that rise from 0"),
    ("sparse", SPARSE | {"target": np.array([0, 2])}, "targets 0..2 of 2 elements"),
    ("sparse", SPARSE | {"weight": np.ones(3)}, "2 synapses, but target (2,) and weight (3,)"),
    ("sparse", SPARSE | {"extra": np.array([0, 64])}, "extra delays lie in 0..63 steps, got 0..64"),
    ("sparse", SPARSE | {"extra": np.array([0.0, 1])}, "extra must be 2 whole numbers, got float64 (2,)"),
    (
        "sparse",
        SPARSE | {"shape": (0, 1, 1)},
        "shape must be (C, H, W), each >= 1 and at most 268435456 elements, got (0, 1, 1)",
    ),
    (
        "constant",
        {"shape": (0, 1, 1)},
        "shape must be (C, H, W), each >= 1 and at most 268435456 elements, got (0, 1, 1)",
    ),
    ("constant", {"shape": (2**20, 2**20, 1)}, "at most 268435456 elements, got (1048576, 1048576, 1)"),
    ("gather", {"shape": (3, 1, 1), "index": np.arange(2)}, "shape must be (C, H, W) with 2 elements, got (3, 1, 1)"),
    ("gather", {"shape": (2, 1, 1), "index": np.array([1, 1])}, "index must hold each of 0..1 once"),
    ("sigma_delta", {}, "give theta in a graph of float numbers, vth in one of int numbers"),
    ("sigma_delta", {"theta": 1.0, "out_shift": 32}, "out_shift must lie in 0..31, got 32"),
    ("cuba_lif", {"dv": 0, "vth": np.ones(2, int), "du": 4096}, "du must lie in 0..4095, got 4096"),
    ("cuba_lif", {"dv": 0, "vth": np.ones(2, int), "restart": (0, 1)}, "restart must be (interval >= 1, offset >= 0)"),
    ("cuba_lif", {"dv": 0, "vth": np.ones(2, int), "vth_low": np.ones(2, int)}, "vth_low must be below vth"),
    ("cuba_lif", {"dv": 0, "vth": np.ones(2, int), "start_u": np.ones(2, int)}, "start_u must have shape (2, 1, 1)"),
    ("input", {"shape": (2, 1, 1), "signed": True}, "signed goes with bits, the payload of the input's events"),
    ("input", {"shape": (2, 1, 1), "signed": True, "bits": 1}, "bits must lie in 2..24, got 1"),
]


@pytest.mark.parametrize(("op", "attrs", "message"), BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_attributes_that_cannot_be_meant(op, attrs, message) -> None:
    b = GraphBuilder("g", 3)
    x = b.add("scale", b.add("input", shape=(2, 1, 1)), factor=1.0)
    given = {k: Attr(b.tensor(k, v)) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    with pytest.raises(VerifyError, match=re.escape(message)):
        b.add(op, *([] if op in ("input", "constant") else [x]), **given)
