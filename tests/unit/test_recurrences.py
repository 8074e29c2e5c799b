"""Linear recurrences: retention as a table that lasts, a memory with a fixed matrix as delays of synapses."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net

from nmc_compiler.errors import LoweringError, VerifyError
from nmc_compiler.fitting import fit
from nmc_compiler.graph import Attr, Graph, GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

LOIHI, STEPS = load_target("loihi2"), 6


def retention(decay: float | list[float], tokens: int = 1, theta: float = 1.0, **attrs) -> Graph:
    """q, k and v of spikes, two heads of two channels; a LIF on what the table gives."""
    net = Net(STEPS, seed=2, input_time=True)
    q, k, v = (net.add("input", id=n, name=n, shape=(4, tokens, 1), bits=0) for n in "qkv")
    gamma = decay if isinstance(decay, float) else net.array(decay)
    o = net.add("attn", q, k, v, heads=2, scale=0.5, lifetime="sample", decay=gamma, **attrs)
    net.add("output", o, id="o", name="current")
    net.add("output", net.lif(o, "s", theta=theta), name="spikes")
    return net.build()


def events(graph: Graph, seed: int, rate: float = 0.6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n.name: (rng.random((3, STEPS, *n.type.shape)) < rate).astype(int) for n in graph.sources}


def test_a_table_that_decays_is_attention_under_a_mask_of_powers() -> None:
    """sum_{s <= t} decay^(t - s) (q_t . k_s) v_s, the parallel form of retention."""
    decay = [0.5, 0.875]
    graph = retention(decay)
    given = events(graph, 0)
    found = interpret(graph, given).outputs["current"][..., 0, 0]  # [T, N, C]
    q, k, v = (given[n].reshape(3, STEPS, 2, 2) for n in "qkv")
    for n, t, h, j in np.ndindex(3, STEPS, 2, 2):
        wanted = sum(decay[h] ** (t - s) * float(q[n, t, h] @ k[n, s, h]) * v[n, s, h, j] for s in range(t + 1))
        assert found[t, n, h * 2 + j] == pytest.approx(0.5 * wanted, abs=1e-12)


@pytest.mark.parametrize(("decay", "exact"), [(0.5, True), (1.0, True), ([0.25, 0.5], True), (0.9, False)])
def test_decays_of_halves_are_exact(decay, exact: bool) -> None:
    graph = retention(decay, tokens=2, theta=0.5)
    graph = Graph(graph.name, graph.timesteps, tuple(n for n in graph if n.id != "o"), graph.tensors, input_time=True)
    report, given = ConversionReport(), events(graph, 1)
    integers = compile_graph(graph, LOIHI, CompileOptions(), report)
    (entry,) = (e for e in report.of("quantize") if e["layer"] == "s")
    assert entry["exact"] is exact and ("12 bits" in entry["remark"]) is not exact
    real, whole = (interpret(g, given, record=["s"]).codes["s"] for g in (graph, integers))
    assert real.any() and (not exact or np.array_equal(real, whole))
    program = fit(integers, LOIHI, CompileOptions(), report).program
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in given.items()}
    found = Emulator(program, record=["s"], engine="ticks").run_events(flat, 3 * STEPS).events["s"]
    codes = codes_of(found, 3 * STEPS, (4, 2, 1)).reshape(3, STEPS, 4, 2, 1)
    assert np.array_equal(np.moveaxis(codes, 0, 1), whole)


def test_a_table_that_may_leave_its_bits_is_refused() -> None:
    net = Net(400, input_time=True)
    x = net.add("input", id="x", name="x", shape=(2, 20, 20), bits=0)
    graph = net.readout(net.lif(net.add("attn", x, x, x, heads=1, lifetime="sample"), "s"))
    text = "can come to 160000 within 400 timesteps, an entry of 16 bits holds 65535; train it with fewer tokens, "
    with pytest.raises(LoweringError, match=text):
        compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())


STATES = [
    ({"decay": 0.5}, "'decay' is of tables that live longer than a step"),
    ({"lifetime": "batch"}, "lifetime must be 'step' or 'sample', not 'batch'"),
    ({"lifetime": "sample", "order": "qk"}, "a table that lives for the sample is k^T v"),
    ({"lifetime": "sample", "decay": 1.5}, "decay must be a number or one per head (2), each in 0..1"),
    ({"lifetime": "sample", "block": 0}, "block must be >= 1 timesteps, got 0"),
]


@pytest.mark.parametrize(("attrs", "message"), STATES, ids=range(len(STATES)))
def test_states_that_mean_nothing(attrs: dict, message: str) -> None:
    net = GraphBuilder("g", 2)
    x = net.add("input", shape=(2, 1, 1), bits=0)
    with pytest.raises(VerifyError) as error:
        net.add("attn", x, x, x, heads=2, **attrs)
    assert message in str(error.value)


def test_a_memory_with_a_fixed_matrix_is_delays_of_synapses() -> None:
    """m_t = A m_{t-1} + B u_t of spikes u is sum_k A^k B u_{t-k} (LMU): one synapse for each delay."""
    rng, size, steps = np.random.default_rng(3), 4, 12
    a, b = rng.normal(size=(size, size)), rng.normal(size=(size, 1))
    a *= 0.8 / np.abs(np.linalg.eigvals(a)).max()
    response = [np.linalg.matrix_power(a, k) @ b for k in range(steps)]
    net = Net(steps, input_time=True)
    u = net.add("input", id="u", name="u", shape=(1, 1, 1), bits=0)
    late = np.repeat(np.arange(steps), size).astype(np.uint8)
    arrays = {"indptr": np.array([0, steps * size]), "target": np.tile(np.arange(size), steps), "extra": late}
    refs = {k: Attr(net.tensor(k, v)) for k, v in arrays.items()} | {
        "weight": net.array(np.concatenate(response)[:, 0])
    }
    m = net.add("sparse", u, shape=(size, 1, 1), **refs)
    s = net.lif(m, "s", theta=0.5)
    net.add("output", m, name="m")
    graph = net.readout(net.lif(net.attn(s, s, s), "o", theta=0.05))  # attention beside it: a mixed network
    given = (rng.random((2, steps, 1, 1, 1)) < 0.4).astype(int)
    found, state = interpret(graph, given).outputs["m"], np.zeros((2, size))
    for t in range(steps):
        state = state @ a.T + given[:, t, 0, 0, 0][:, None] * b[:, 0]
        np.testing.assert_allclose(found[t, :, :, 0, 0], state, atol=1e-12)
    integers = compile_graph(graph, LOIHI, CompileOptions(), ConversionReport())
    program = fit(integers, LOIHI, CompileOptions(), ConversionReport()).program
    truth = interpret(integers, given, record="all").codes
    assert truth["s"].any()
    ran = Emulator(program, record="all").run_events({"u": given.reshape(-1, 1, 1, 1)}, 2 * steps)
    for name in ("s", "o"):
        codes = codes_of(ran.events[name], 2 * steps, (size, 1, 1)).reshape(2, steps, size, 1, 1)
        assert np.array_equal(np.moveaxis(codes, 0, 1), truth[name])
