"""Published neurons as ops of the graph: against their recurrences, and to the letter in integers of small numbers."""

from __future__ import annotations

import math
import re

import naive
import numpy as np
import pytest
from test_general_passes import PLAIN, Net, integers, node, ones
from test_graph_ops import call

from nmc_compiler.errors import LoweringError, VerifyError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import agreement
from nmc_compiler.target import load_target
from nmc_emulator import Emulator

T = 12
DRIVE = np.random.default_rng(3).integers(-6, 18, T) / 4.0  # currents, dyadic


def network(op: str, timesteps: int = T, **attrs) -> Graph:
    """x, codes of quarters, through a weight of 1/4 into one neuron."""
    net = Net(1, 1, 1, timesteps=timesteps, bits=8, signed=True)
    given = {k: net.array(v) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    current = net.conv(net.x, ones(1, 1) / 4)
    return net.done(net.add(op, current, id="n", name="n", **given))


def sent(graph: Graph, drive: np.ndarray = DRIVE) -> list[float]:
    codes = np.rint(drive * 4).astype(int).reshape(1, -1, 1, 1, 1)
    return interpret(graph, codes, record=["n"]).codes["n"].ravel().tolist()


def ilif(beta: float, divided: bool) -> list[int]:
    """N7: m = (m - s)/4 + x, s = round(clamp(m, 0, 4)); N7a: s = round(clamp(m, 0, 4)) / 4, and 4 s is subtracted."""
    m, s, found = 0.0, 0.0, []
    for x in DRIVE:
        m = (m - s * (4 if divided else 1)) * beta + x
        s = round(min(max(m, 0), 4)) / (4 if divided else 1)
        found.append(int(s * 4) if divided else int(s))
    return found


@pytest.mark.parametrize("norm", [1, 4])
def test_integer_lif_of_spikeyolo_and_sdtrack(norm: int) -> None:
    graph = network("ilif", beta=0.25, theta=1.0, levels=4, rounding="half_even", norm=norm)
    assert sent(graph) == ilif(0.25, norm == 4) and max(sent(graph)) == 4


def test_integer_lif_of_spikingjelly() -> None:
    """N7b: H = (1 - 1/tau) V + X; C = round(clip(H / theta, 0, D)); V = H - C theta."""
    v, want = 0.0, []
    for x in DRIVE:
        h = (1 - 1 / (4 / 3)) * v + x
        c = round(min(max(h / 0.5, 0), 4))
        v = h - c * 0.5
        want.append(c)
    assert sent(network("ilif", beta=0.25, theta=0.5, levels=4, rounding="half_even")) == want


def test_q_if_subtracts_another_threshold_than_it_compares_with() -> None:
    """N8: V += X; s = round(clamp(V, 0, 4)); V -= s theta."""
    v, want = 0.0, []
    for x in DRIVE:
        v += x
        s = round(min(max(v, 0), 4))
        v -= s * 0.75
        want.append(s)
    assert sent(network("ilif", beta=1.0, theta=1.0, step=0.75, levels=4, rounding="half_even", norm=8)) == want


@pytest.mark.parametrize("strict", [False, True])
def test_adaptive_lif_with_a_reset_one_step_late(strict: bool) -> None:
    """N11: b = rho b + (1 - rho) s; B = b0 + 1.5 b; m = alpha m + (1 - alpha) x - B s; s = m > B."""
    m, b, s, rho, alpha, want = 0.0, 0.0, 0.0, 0.75, 0.5, []
    for x in 4 * DRIVE:
        b = rho * b + (1 - rho) * s
        threshold = 0.25 + 1.5 * b
        m = alpha * m + (1 - alpha) * x - threshold * s
        s = float(m > threshold if strict else m >= threshold)
        want.append(int(s))
    graph = network("neuron", beta=alpha, gain=1 - alpha, theta=0.25, theta_decay=rho, theta_step=1.5 * (1 - rho),
                    reset="soft", reset_at="next_end", compare="gt" if strict else "ge")  # fmt: skip
    assert sent(graph, 4 * DRIVE) == want


@pytest.mark.parametrize("scaled", [False, True])
def test_klif(scaled: bool) -> None:
    """N14: h = relu(k (v + (x - v)/2)), then a soft reset; with scale_reset v is h / k."""
    v, k, want = 0.0, 1.5, []
    for x in DRIVE:
        h = max(k * (v + (x - v) / 2), 0.0)
        s = int(h >= 1)
        v = (h - s) / k if scaled else h - s
        want.append(s)
    form = {"beta": 0.5, "gain": 0.5, "theta": 1 / k} if scaled else {"beta": k / 2, "gain": k / 2, "theta": 1.0}
    assert sent(network("neuron", reset="soft", compare="ge", v_min=0.0, **form)) == want


def test_signed_spikes_of_a_bounded_sum() -> None:
    """N16: +1 at v >= theta while the sum is below its top, -1 at v < 0 while it is above 0; v starts at 1/2."""
    v, total, want = 0.5, 0, []
    for x in DRIVE:
        v += x
        s = int(v >= 1 and total < 3) - int(v < 0 and total > 0)
        v, total = v - s, total + s
        want.append(s)
    graph = network("neuron", beta=1.0, theta=1.0, theta_low=0.0, sum_low=0, sum_high=3, start_v=0.5, reset="soft",
                    compare="ge")  # fmt: skip
    assert sent(graph) == want and {-1, 1} <= set(want)


def test_several_spikes_a_step() -> None:
    """Sinabs: as many spikes as whole thresholds are in v."""
    v, want = 0.0, []
    for x in DRIVE:
        v = 0.5 * v + x
        s = max(int(np.floor(v / 0.5)), 0)
        v -= 0.5 * s
        want.append(s)
    assert sent(network("ilif", beta=0.5, theta=0.5, levels=40, rounding="down")) == want


def test_gains_and_offsets_by_timestep() -> None:
    gain, bias = np.arange(1, T + 1) / 8, np.arange(T)[::-1] / 16
    net = Net(1, 1, 1, timesteps=T, bits=8, signed=True)
    x = net.add("time_affine", net.conv(net.x, ones(1, 1) / 4), gain=net.array(gain), bias=net.array(bias[:, None]))
    graph = net.done(net.lif(x, beta=0.0, compare="ge"))
    assert sent(graph) == (DRIVE * gain + bias >= 1).astype(int).tolist()
    after, report = integers(graph)
    assert sent(after) == sent(graph)
    assert [e["change"] if "change" in e else e.get("into") for e in report.of("fold-time")][0] == ["n"]


def test_parallel_spiking_neurons() -> None:
    taps = np.array([0.5, -0.25, 1.0])
    want = [int(sum(w * DRIVE[t - i] for i, w in enumerate(taps) if t >= i) >= 0.75) for t in range(T)]
    weight = sum(np.diag(np.full(T - i, w), -i) for i, w in enumerate(taps))
    for form in ({"taps": taps}, {"weight": weight}):
        graph = network("psn", theta=0.75, **form)
        after, _ = integers(graph)
        assert sent(graph) == want == sent(after)


def naive_psn(weight: np.ndarray, theta: np.ndarray, drive: np.ndarray) -> list[int]:
    return [int(sum(w * x for w, x in zip(weight[t], drive, strict=True)) >= theta[t]) for t in range(len(theta))]


@pytest.mark.parametrize("ahead", [0, 1, T - 1])
def test_parallel_spiking_neurons_of_any_weights(ahead: int) -> None:
    """Rows that differ, up to ``ahead`` timesteps above the diagonal: a bank for each timestep, and as late."""
    rng = np.random.default_rng(ahead)
    weight = np.tril(rng.integers(-8, 9, (T, T)) / 8.0, ahead)
    theta, begins = rng.integers(-4, 12, T) / 4.0, 2
    late = {"begins": begins, "late": ahead}
    graph = network("psn", timesteps=T + begins + ahead, theta=theta, weight=weight, **late)
    drive = np.concatenate([[9.0] * begins, DRIVE, [9.0] * ahead])  # what comes outside is not heard
    want = [0] * (begins + ahead) + naive_psn(weight, theta, DRIVE)
    assert 0 < sum(want) < T
    after, report = integers(graph)
    assert sent(graph, drive) == want == sent(after, drive)
    (entry,) = report.of("psn-banks")
    assert (entry["timesteps"], entry["neurons"]) == (T, T)
    program, codes = lower(after, load_target("loihi2"), CompileOptions()), np.rint(drive * 4).astype(int)
    events = Emulator(program, record=["n"]).run_events({"x": codes.reshape(-1, 1, 1, 1)}, len(codes)).events["n"]
    assert events.step.tolist() == np.flatnonzero(want).tolist()


def test_parallel_spiking_neurons_that_mean_nothing() -> None:
    later = r"depend on inputs up to 11 timesteps later .* has only 11 timesteps late; late is 0"
    with pytest.raises(VerifyError, match=later):
        verify(network("psn", theta=0.75, weight=np.triu(np.ones((T, T)))))
    with pytest.raises(VerifyError, match="late is a number of timesteps, at least 0, and goes with weight"):
        network("psn", theta=0.75, taps=np.ones(2), late=1)
    with pytest.raises(LoweringError, match="'n' has weights of 0 only; it hears nothing; remove it"):
        integers(network("psn", timesteps=T + 1, theta=0.75, weight=np.zeros((T, T)), late=1))
    with pytest.raises(VerifyError, match="weight has rows for 12 timesteps, 1 timesteps late, the graph has T = 12"):
        verify(network("psn", theta=0.75, weight=np.eye(T), late=1))


# ---- ops by themselves, one output number at a time ----

STEPS, SHAPE = 5, (2, 3, 2, 2)


def over_time(op: str, x: np.ndarray, integer: bool = False, **attrs) -> np.ndarray:
    """An op over x [T, B, C, H, W], from rest."""
    state: dict = {}
    return np.stack([call(op, [x[t]], integer, state, t=t, timesteps=len(x), **attrs) for t in range(len(x))])


def test_ilif_op() -> None:
    rng = np.random.default_rng(1)
    x, theta, bias = rng.normal(size=(STEPS, *SHAPE)) * 2, np.array([0.5, 1.0, 2.0]), rng.normal(size=3)
    got = over_time("ilif", x, beta=0.25, theta=theta, levels=3, rounding="half_up", norm=3, gain=1.5, bias=bias)
    for b, c, h, w in np.ndindex(SHAPE):
        v = 0.0
        for t in range(STEPS):
            v = 0.25 * v + 1.5 * (x[t, b, c, h, w] + bias[c])
            code = math.floor(min(max(v / theta[c], 0), 3) + 0.5)
            v -= code * theta[c]
            assert got[t, b, c, h, w] == code / 3


def test_time_affine_op() -> None:
    rng = np.random.default_rng(2)
    x, gain, bias = rng.normal(size=(STEPS, *SHAPE)), rng.normal(size=STEPS), rng.normal(size=(STEPS, 3))
    got = call("time_affine", [x[3]], gain=gain, bias=bias, t=3)
    for b, c, h, w in np.ndindex(SHAPE):
        assert got[b, c, h, w] == x[3, b, c, h, w] * gain[3] + bias[3, c]


def test_psn_op() -> None:
    rng = np.random.default_rng(3)
    x, weight, theta = (
        rng.normal(size=(STEPS, *SHAPE)),
        np.tril(rng.normal(size=(STEPS, STEPS))),
        rng.normal(size=STEPS),
    )
    got = over_time("psn", x, weight=weight, theta=theta, compare="gt")
    for t, b, c, h, w in np.ndindex(STEPS, *SHAPE):
        total = sum(weight[t, j] * x[j, b, c, h, w] for j in range(t + 1))
        assert got[t, b, c, h, w] == (total > theta[t])
    late = over_time("psn", x, taps=np.array([0.5, 2.0]), theta=0.25)
    assert late[3, 0, 1, 0, 1] == (0.5 * x[3, 0, 1, 0, 1] + 2 * x[2, 0, 1, 0, 1] >= 0.25)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_cell_op(reset: str, late: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(-400, 600, (STEPS, *SHAPE))
    table = np.sort(rng.integers(6000, 40000, (3, 2)), axis=1)
    channel = {k: rng.integers(-3000, 9000, 3) for k in ("step", "jump", "bias")} | {
        "low": rng.integers(-20000, 0, 3), "floor": rng.integers(-30000, -9000, 3),
    }  # fmt: skip
    timed = {"gain_t": rng.integers(1000, 9000, (STEPS, 1)), "rise_t": rng.integers(-2000, 2000, (STEPS, 3))}
    form = {"du": 2000, "dv": 700, "db": 1300, "sums": (-1, 2), "reset": reset, "late": late}
    got = over_time("cell", x, True, thresholds=table, **form, **channel, **timed)
    for b, c, h, w in np.ndindex(SHAPE):
        u = v = raised = sent = total = 0
        for t in range(STEPS):
            u = naive.decay(u, 2001) + (int(x[t, b, c, h, w]) * int(timed["gain_t"][t, 0]) >> 6)
            raised = naive.decay(raised, 1300) + sent * int(channel["jump"][c])
            r = raised + int(timed["rise_t"][t, c])

            def after(x: int, code: int, r: int = r, c: int = c) -> int:
                subtracted = x - code * (int(channel["step"][c]) + r)
                return {"hard": 0 if code else x, "soft": subtracted, "none": x}[reset]

            v = naive.decay(v, 700) + u + int(channel["bias"][c])
            v = after(v, sent) if late else v
            code = sum(v >= int(n) + r for n in table[c]) - int(v < int(channel["low"][c]))
            code = min(max(code, -1 - total), 2 - total)
            v = max(v if late else after(v, code), int(channel["floor"][c]))
            sent, total = code, total + code
            assert got[t, b, c, h, w] == code, (t, b, c, h, w)


# ---- integers: nothing is rounded, so nothing differs ----

SOFT = {"beta": 0.5, "theta": 1.0, "reset": "soft", "compare": "ge"}
EXACT = {
    "soft": ("neuron", SOFT),
    "strict": ("neuron", SOFT | {"compare": "gt"}),
    "late": ("neuron", SOFT | {"reset_at": "next_end"}),
    "late to zero": ("neuron", SOFT | {"reset": "hard", "reset_at": "next_end"}),
    "before the next": ("neuron", SOFT | {"reset_at": "next_start"}),
    "never": ("neuron", SOFT | {"reset": "none"}),
    "bounded": ("neuron", SOFT | {"v_min": -0.25}),
    "to a value, bounded": ("neuron", SOFT | {"reset": "hard", "v_reset": 0.25, "v_min": -0.25}),
    "adaptive": ("neuron", SOFT | {"theta_decay": 0.5, "theta_step": 0.5}),
    "signed": ("neuron", SOFT | {"theta_low": -0.5}),
    "by timestep": ("neuron", SOFT | {"theta_t": np.arange(1, T + 1) / 4, "gain_t": np.arange(T, 0, -1) / 4}),
    "levels": ("ilif", {"beta": 0.25, "theta": 1.0, "levels": 4, "rounding": "half_even"}),
    "half up": ("ilif", {"beta": 0.25, "theta": 1.0, "levels": 4, "rounding": "half_up"}),
    "down": ("ilif", {"beta": 0.5, "theta": 0.5, "levels": 9, "rounding": "down"}),
}


@pytest.mark.parametrize("name", EXACT)
def test_small_numbers_are_met_to_the_letter(name: str) -> None:
    """Ties included: potentials of the float network land on thresholds."""
    op, attrs = EXACT[name]
    graph = network(op, timesteps=6 if "theta_t" not in attrs else T, **attrs)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 7, (400, graph.timesteps, 1, 1, 1))
    after, report = integers(graph)
    (found,) = agreement(graph, after, x)
    assert found.different == 0 and found.spikes_float > 100 and node(after, "n").op == "cell"
    assert report.of("quantize")[-1]["reasons"] == []
    program = lower(after, load_target("loihi2"), CompileOptions())
    got = Emulator(program, record=["n"]).run_events({"x": x[0]}, graph.timesteps).events["n"]
    codes = interpret(after, x[:1], record=["n"]).codes["n"].ravel()
    assert got.step.tolist() == np.flatnonzero(codes).tolist()


def test_the_report_says_what_rounding_cost() -> None:
    form = {"beta": 0.3, "theta": 0.7, "reset": "soft", "compare": "ge", "theta_decay": 0.9, "theta_step": 0.123}
    entry = integers(network("neuron", **form))[1].of("quantize")[-1]
    assert entry["rating"] == "approximate"
    assert [re.sub(r"\d[\d.e-]*", "N", r) for r in entry["reasons"]] == [
        "beta N becomes N (time constant N -> N steps)",
        "theta_decay N becomes N",
        "what a spike raises the threshold by is rounded by up to N",
    ]


WRONG = {
    "theta_decay and theta_step, an adaptive threshold, go together": {"theta_decay": 0.5},
    r"theta_decay must lie in 0..1 \(what is kept of a step\)": {"theta_decay": 1.5, "theta_step": 1.0},
    "levels must lie in 1..255 and norm must be > 0": {"levels": 300, "rounding": "down"},
    "levels and rounding go together": {"levels": 3},
    "levels go with no lower threshold, bounds of a sum, or threshold": {
        "levels": 3, "rounding": "down", "theta_low": 0.0
    },
    "levels count thresholds from 0, so that v_reset must be 0": {
        "levels": 3, "rounding": "down", "v_reset": 0.5, "reset": "hard"
    },
    "sum_low and sum_high go together": {"sum_low": 0},
    "sum_low must be at most 0 and sum_high at least 0": {"sum_low": 1, "sum_high": 2},
    r"gain_t must have shape \[T\], \[T, 1\] or \[T, 1\], got \[12, 2\]": {"gain_t": np.ones((12, 2))},
    "tables by timestep have 3, 12 rows; T is one number": {"gain_t": np.ones(12), "bias_t": np.ones(3)},
    "gain_t has rows for 3 timesteps, the graph has T = 12": {"gain_t": np.ones(3)},
    "rounding must be half_even, half_up or down": {"levels": 3, "rounding": "up"},
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_attributes_that_do_not_go_together(text: str) -> None:
    with pytest.raises(VerifyError, match=text):
        verify(network("neuron", **(SOFT | WRONG[text])))


def test_tables_need_a_last_timestep() -> None:
    with pytest.raises(VerifyError, match=r"gain_t is a table by timestep, but the graph is a stream \(T = 0\)"):
        verify(network("neuron", timesteps=0, **SOFT, gain_t=np.ones(4)))


def test_a_table_on_a_shared_current_is_refused() -> None:
    net = Net(1, 1, 1, timesteps=4)
    x = net.add("time_affine", net.conv(net.x, ones(1, 1)), gain=net.array(np.ones(4)))
    net.lif(net.add("add", x, net.conv(net.x, ones(1, 1))))
    with pytest.raises(LoweringError, match="^time_affine '%time_affine2' has numbers for each timestep and add '%add"):
        integers(net.done("n"))


def test_ilif_without_microcode_is_refused() -> None:
    with pytest.raises(LoweringError, match="^neuron 'n' keeps what is left of a potential behind a code, which takes"):
        integers(network("ilif", beta=0.25, theta=1.0, levels=4, rounding="down"), PLAIN)
