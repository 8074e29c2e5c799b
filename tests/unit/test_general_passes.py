"""General networks on their way to integers: what is folded, shifted, split, rounded, refused, and what reports say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Kind, Node, Use, ValueType
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import agreement
from nmc_compiler.passes.join_linear import JoinLinear
from nmc_compiler.passes.linear_maps import Kernel, Table, as_table, identity, reshaped, settled, then, window_sum
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.plain_neurons import MOVED, PlainNeurons
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.split_decays import SplitDecays
from nmc_compiler.target import Target, load_target

LOIHI = load_target("loihi2")
PLAIN = load_target("loihi1")  # which has no microcoded neurons
LIF = {"beta": 0.5, "theta": 1.0, "reset": "hard", "compare": "gt"}


class Net(GraphBuilder):
    """x (events) -> whatever is added -> output."""

    def __init__(self, *shape: int, timesteps: int = 8, **x) -> None:
        super().__init__("net", timesteps, "float", input_time=True)
        self.x = self.add(
            "input", id="x", name="x", shape=tuple(shape), **({"bits": 0} | x if x != {"bits": None} else {})
        )

    def array(self, values) -> Attr:
        return Attr(self.tensor(f"t{len(self.tensors)}", np.asarray(values)), "checkpoint")

    def conv(self, x: str | Use, weight, **more) -> str:
        return self.add("conv2d", x, weight=self.array(np.asarray(weight, float)), **more)

    def lif(self, x: str, name: str = "n", **changes) -> str:
        return self.add("neuron", x, id=name, name=name, **(LIF | changes))

    def done(self, last: str) -> Graph:
        self.add("output", last, name="o")
        return self.build()


def ones(out: int, inputs: int) -> np.ndarray:
    return np.ones((out, inputs, 1, 1))


def integers(graph: Graph, target: Target = LOIHI, **options) -> tuple[Graph, ConversionReport]:
    report = ConversionReport()
    return compile_graph(graph, target, CompileOptions(**options), report), report


def node(graph: Graph, name: str) -> Node:
    return next(n for n in graph if n.name == name)


# ---- linear maps ----


def test_pool_and_convolution_are_one_convolution() -> None:
    rng = np.random.default_rng(0)
    pool = window_sum((2, 6, 4), (2, 3, 2), (2, 2), (2, 2), (0, 0))
    conv = Kernel((2, 3, 2), (2, 3, 2), (3, 3, 2), rng.normal(size=(3, 2, 3, 3)), pad=(1, 1))
    both = then(pool, conv)
    assert isinstance(both, Kernel)
    assert (both.stride, both.pad, both.weight.shape) == ((2, 2), (2, 2), (3, 2, 6, 6))
    ragged = then(window_sum((2, 7, 4), (2, 3, 2), (2, 2), (2, 2), (0, 0)), conv)
    assert isinstance(ragged, Table)  # the last row belongs to no window: padding would find it
    plain = Kernel((2, 3, 2), (2, 3, 2), (3, 2, 1), rng.normal(size=(3, 2, 2, 2)))
    assert isinstance(then(window_sum((2, 7, 4), (2, 3, 2), (2, 2), (2, 2), (0, 0)), plain), Kernel)


def test_weights_of_a_flat_vector_are_a_kernel_of_the_whole_source() -> None:
    flat = reshaped(identity((2, 3, 2)), (12, 1, 1))
    dense = Kernel((12, 1, 1), (12, 1, 1), (4, 1, 1), np.arange(48.0).reshape(4, 12, 1, 1))
    whole = settled(then(flat, dense))
    assert isinstance(whole, Kernel) and whole.weight.shape == (4, 2, 3, 2)
    table = as_table(whole)
    assert np.array_equal(table.weight[(table.src == 7) & (table.dst == 2)], [2 * 12 + 7])


def test_what_is_one_convolution_stays_one() -> None:
    net = Net(2, 6, 6)
    x = net.add("batch_norm", net.conv(net.x, np.ones((3, 2, 3, 3)), pad=(1, 1)), mean=net.array([1.0, 0, 0]),
                var=net.array([4.0, 1, 1]), eps=0.0)  # fmt: skip
    graph = JoinLinear().apply(net.done(net.lif(net.add("scale", x, factor=2.0))), ConversionReport())
    assert [n.op for n in graph] == ["input", "conv2d", "neuron", "output"]
    weight = graph.tensor(graph.node("n.in0"), "weight")
    assert np.array_equal(weight[:, 0, 0, 0], [1.0, 2.0, 2.0])
    assert np.array_equal(graph.tensor(graph.node("n"), "leak"), [-1.0, 0, 0])


# ---- neurons ----


def test_a_reset_value_moves_the_origin() -> None:
    """w = v + 0.5: threshold 1.5, leak 0.1 - (1 - 0.75)(-0.5), start 0.3 + 0.5."""
    net = Net(1, 1, 1)
    n = net.lif(net.conv(net.x, ones(1, 1)), beta=0.75, v_reset=-0.5, leak=0.125, start_v=0.25)
    plain = PlainNeurons().apply(net.done(n), ConversionReport()).node("n")
    assert [plain.attr(k) for k in ("theta", "leak", "start_v", "v_reset")] == [1.5, 0.25, 0.75, None]


def test_thresholds_that_differ_become_weights() -> None:
    net = Net(2, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(2, 2)), theta=net.array([2.0, 0.5])))
    plain, report = integers(graph)
    assert len(set(plain.tensor(node(plain, "n"), "vth").tolist())) == 1
    assert report.of("plain-neurons")[0]["remarks"] == ["potential and weights are counted in thresholds, which differ"]


REFUSED = [
    (
        {"reset": "soft"},
        "'n' subtracts its threshold at a spike; a soma resets to 0; allow the approximation 'soft-reset'",
    ),
    (
        {"reset_at": "next_end"},
        "'n' resets after its next update; a soma resets at once; allow the approximation 'late-",
    ),
    ({"v_min": -1.0}, "'n' keeps its potential above a lower bound; a soma has none; allow the approximation 'v-min'"),
    ({"reset": "none"}, "'n' keeps its potential when it fires (reset none); a soma resets to 0"),
    ({"fire": "old"}, "'n' fires on the potential before its update; a soma compares after it; no rewriting is exact"),
    ({"current": "old", "start_u": 0.5}, "'n' starts with a current that it has no decay (alpha) for"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[next(iter(c)) for c, _ in REFUSED])
def test_neurons_that_no_soma_is(change: dict, message: str) -> None:
    net = Net(1, 1, 1)
    with pytest.raises(LoweringError, match=f"^{re.escape(message)}"):
        integers(net.done(net.lif(net.conv(net.x, ones(1, 1)), **change)), PLAIN)


NEEDS = [
    {"theta_decay": 0.5, "theta_step": 0.25},
    {"theta_low": -1.0},
    {"levels": 4, "rounding": "half_up"},
]


@pytest.mark.parametrize("change", NEEDS, ids=[next(iter(c)) for c in NEEDS])
def test_what_only_microcode_does_is_refused_by_name_elsewhere(change: dict) -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1)), **change))
    text = f"^'n' has {next(k for k in MOVED if k in change)}, for which a soma that is not microcoded has no register"
    with pytest.raises(LoweringError, match=text):
        integers(graph, PLAIN)
    assert node(integers(graph)[0], "n").op == "cell"


def test_a_late_reset_by_a_threshold_that_moves_is_no_soma() -> None:
    net = Net(1, 1, 1)
    change = {"reset": "soft", "reset_at": "next_start", "theta_decay": 0.5, "theta_step": 0.25}
    with pytest.raises(LoweringError, match="^'n' resets before its next update, by a threshold that moves"):
        integers(net.done(net.lif(net.conv(net.x, ones(1, 1)), **change)))


def test_one_error_names_all_that_are_refused_and_the_report_rates_them() -> None:
    net, report = Net(1, 1, 1), ConversionReport()
    first = net.lif(net.conv(net.x, ones(1, 1)), "a", reset="soft")
    second = net.lif(net.conv(first, ones(1, 1)), "b")
    third = net.lif(net.conv(second, ones(1, 1)), "c", v_min=-1.0)
    with pytest.raises(LoweringError, match="^'a' subtracts .* train it otherwise; refused as well: 'c'$"):
        compile_graph(net.done(third), PLAIN, CompileOptions(), report)
    ratings = [(e["layer"], e["rating"]) for e in report.of("plain-neurons")]
    assert ratings == [("a", "refused"), ("b", "faithful"), ("c", "refused")]


def test_only_known_approximations_can_be_allowed() -> None:
    net = Net(1, 1, 1)
    text = "cannot allow 'soft'; approximations of neurons are soft-reset, late-reset, v-min, decay-groups"
    with pytest.raises(UsageError, match=f"^{text}; 'host' leaves ops of real numbers to the host$"):
        integers(net.done(net.lif(net.conv(net.x, ones(1, 1)))), allow=("soft",))


@pytest.mark.parametrize("change", [{"reset": "none"}, {"reset": "soft"}, {"v_min": -1.0}])
def test_a_neuron_without_memory_needs_no_reset(change: dict) -> None:
    net = Net(1, 1, 1)
    _, report = integers(net.done(net.lif(net.conv(net.x, ones(1, 1)), **({"beta": 0.0} | change))))
    assert report.of("plain-neurons")[0]["rating"] == "faithful"


def test_an_approximation_that_is_allowed_is_said() -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1)), reset="soft", reset_at="next_end"))
    after, report = integers(graph, PLAIN, allow=("soft-reset", "late-reset"))
    entry = report.of("plain-neurons")[0]
    assert entry["rating"] == "approximate" and [r.split(":")[0] for r in entry["reasons"]] == [
        "soft-reset",
        "late-reset",
    ]
    assert node(after, "n").op == "cuba_lif"
    exact, report = integers(graph, allow=("soft-reset", "late-reset"))
    entry = report.of("plain-neurons")[0]
    assert entry["rating"] == "faithful" and node(exact, "n").op == "cell"


def test_max_pool_of_spikes_is_a_gate() -> None:
    net = Net(1, 2, 2)
    pooled = net.add("maxpool2d", net.x, kernel=(2, 2), name="pool")
    graph = net.done(net.lif(net.add("scale", pooled, factor=1.0)))
    x = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).reshape(3, 1, 2, 2)
    after, _ = integers(Graph(**{**vars(graph), "timesteps": 3}))
    assert interpret(after, x, record=["pool"]).codes["pool"].ravel().tolist() == [0, 1, 1]


# ---- wiring ----


def test_a_loop_without_a_neuron_is_refused() -> None:
    net = Net(1, 1, 1)
    net.declare("sum", ValueType(Kind.CURRENT, (1, 1, 1)))
    back = net.add("scale", Use("sum", 1), factor=0.5)
    total = net.add("add", net.conv(net.x, ones(1, 1)), back, id="sum")
    with pytest.raises(LoweringError, match="hears itself without a neuron between; put one into the loop$"):
        integers(net.done(net.lif(total)))


def test_only_outputs_read_integrators() -> None:
    net = Net(1, 1, 1)
    li = net.add("integrator", net.conv(net.x, ones(1, 1)), name="li", beta=0.5)
    with pytest.raises(LoweringError, match="^integrator 'li' is read inside the network; its real values cannot be"):
        integers(net.done(net.lif(net.conv(li, ones(1, 1)))))


def test_what_is_not_linear_is_refused_by_name() -> None:
    net = Net(1, 1, 1)
    summed = net.add("add", net.x, net.x, id="sum")
    masked = net.add("attn", summed, net.x, net.x, heads=1)
    with pytest.raises(LoweringError, match="^add '%sum' is a sum of spikes that attn '%attn[0-9]' reads; only linear"):
        integers(net.done(net.lif(masked)))


def test_delays_further_apart_than_synapses_hold_are_two_projections() -> None:
    net = Net(2, 1, 1)
    late = net.add("delay", net.conv(net.x, ones(2, 2)), steps=net.array([1, 65]))
    graph = JoinLinear().apply(net.done(net.lif(late)), ConversionReport())
    assert [n.inputs[0] for n in graph if n.op == "sparse"] == [Use("x", 1), Use("x", 65)]


def test_a_common_delay_is_a_lag_and_others_are_the_synapses_own() -> None:
    net = Net(2, 1, 1)
    late = net.add("delay", net.conv(net.x, ones(2, 2)), steps=net.array([2, 5]))
    graph = JoinLinear().apply(net.done(net.lif(net.add("delay", late, steps=1))), ConversionReport())
    projection = graph.node("n.in0")
    assert projection.inputs == (Use("x", 3),)
    assert graph.tensor(projection, "extra").tolist() == [0, 3, 0, 3]


def test_the_bias_of_a_current_that_lasts_comes_from_a_source_of_its_own() -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1), bias=net.array([0.25])), alpha=0.5))
    after, _ = integers(graph)
    assert [n.op for n in after] == ["input", "constant", "conv2d", "sparse", "add", "cuba_lif", "output"]
    run = interpret(after, np.zeros((8, 1, 1, 1)), states="all")
    u = run.states["n"]["u"].ravel() / (64 / node(after, "n").attr("scale") / 64)
    np.testing.assert_allclose(u[:3], [0.25, 0.375, 0.4375], rtol=1e-3)


# ---- decays ----


def test_decays_that_differ_make_populations() -> None:
    net = Net(3, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, np.eye(3)[:, :, None, None]), beta=net.array([0.5, 0.9, 0.5])))
    after, report = integers(graph)
    assert [(n.name, n.type.shape, n.attr("dv")) for n in after if n.op == "cuba_lif"] == [
        ("n.0", (2, 1, 1), 2048), ("n.1", (1, 1, 1), 410),
    ]  # fmt: skip
    assert [after.tensor(node(after, f"n.{i}"), "elements").tolist() for i in (0, 1)] == [[0, 2], [1]]
    assert [e["channels"] for e in report.of("split-decays")] == [2, 1]
    x = np.zeros((8, 3, 1, 1))
    x[0, 1] = x[3, 2] = 1
    full = interpret(after, x).outputs["o"]
    assert np.array_equal(full, interpret(graph, x).outputs["o"])


def test_too_many_decays_are_refused_with_their_range() -> None:
    net = Net(9, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(9, 9)), beta=net.array(np.linspace(0.5, 0.9, 9))))
    message = (
        "'n' has 9 different pairs of decays after rounding to 12 bits (alpha 0 to 0, beta 0.5 to 0.8999); "
        "a population has one, and at most 8 populations are made of one; train with fewer, or allow the "
        "approximation 'decay-groups', which makes near ones equal"
    )
    with pytest.raises(LoweringError, match=f"^{re.escape(message)}$"):
        integers(graph)
    assert SplitDecays(most=9).apply(JoinLinear().apply(graph, ConversionReport()), ConversionReport()).node("n.8")


def test_near_decays_are_made_equal_where_that_is_allowed() -> None:
    net = Net(9, 1, 1)
    beta = np.array([0.5, 0.9, 0.55, 0.6, 0.65, 0.7, 0.75, 0.9001, 0.8])
    graph = net.done(net.lif(net.conv(net.x, ones(9, 9)), beta=net.array(beta)))
    after, report = integers(graph, allow=("decay-groups",))
    (joined,) = [e for e in report.of("split-decays") if e["rating"] == "approximate"]
    assert joined["reasons"] == ["decay-groups: beta 0.90005 stands for 0.9 to 0.9001"]
    assert after.tensor(node(after, joined["layer"]), "elements").tolist() == [1, 7]


# ---- numbers ----


def test_the_integers_of_a_neuron() -> None:
    """Weights 1 and -0.5, theta 1: S = 126 puts 1 at 63 << 1; dv = 4096/4, du = 4096 * 0.1 - 1; leak 0.01 * 64 * S."""
    net = Net(2, 1, 1)
    weight = np.array([1.0, -0.5]).reshape(1, 2, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, weight), beta=0.75, alpha=0.9, leak=0.015625, start_v=0.5, compare="ge"))
    after, report = integers(graph)
    n, entry = node(after, "n"), next(e for e in report.of("quantize") if e["layer"] == "n")
    scale = entry["scale"]
    assert (n.attr("dv"), n.attr("du")) == (1024, 409)
    assert after.tensor(n, "vth").tolist() == [round(scale)]
    w, shift = after.tensor(after.node("n.in0"), "weight").ravel().astype(int), after.node("n.in0").attr("shift")
    assert (w << shift).tolist() == [scale, -scale / 2]
    assert after.tensor(n, "bias").tolist() == [scale] and after.tensor(n, "start_v").ravel().tolist() == [32 * scale]
    assert entry["rating"] == "approximate"
    assert entry["reasons"] == ["alpha 0.9 becomes 0.899902 (time constant 9.491 -> 9.481 steps)", ">= becomes >"]


@pytest.mark.parametrize(("compare", "first"), [("ge", 2), ("gt", 3)])
def test_on_whole_units_the_compare_is_met_to_the_letter(compare: str, first: int) -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1) * 0.5), beta=1.0, compare=compare))
    after, report = integers(graph)
    codes = interpret(after, np.ones((8, 1, 1, 1))).outputs["o"].ravel()
    assert codes.argmax() == first - 1 and np.array_equal(
        codes, interpret(graph, np.ones((8, 1, 1, 1))).outputs["o"].ravel()
    )
    assert report.of("quantize")[-1]["rating"] == "faithful"


def test_thresholds_below_a_unit_are_refused() -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1) * 2.0**20), theta=0.5))
    with pytest.raises(LoweringError, match="^threshold of 'n' would be .* units of its current, whose largest value"):
        integers(graph)


def test_calibration_data_give_weights_their_bits_back() -> None:
    """200 inputs that all matter statically, of which the data show one at a time."""
    net = Net(200, 1, 1, timesteps=30)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 200)), alpha=0.99, beta=0.99, theta=8.0))
    x = np.zeros((30, 200, 1, 1))
    x[np.arange(30), np.arange(30)] = 1
    plain, measured = ConversionReport(), ConversionReport()
    compile_graph(graph, LOIHI, CompileOptions(), plain)
    compile_graph(graph, LOIHI, CompileOptions(), measured, calibration=x)
    assert measured.of("quantize")[-1]["scale"] > plain.of("quantize")[-1]["scale"]
    assert not measured.of("quantize")[-1]["can_overflow"]


def test_real_inputs_become_codes() -> None:
    net = Net(2, 1, 1, bits=None)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 2) * 0.75), beta=1.0))
    after, report = integers(graph, input_range=(-1.0, 1.0))
    encode = next(n for n in after if n.op == "encode")
    assert (encode.attr("scale"), encode.attr("lo"), encode.attr("hi")) == (127.0, -127, 127)
    assert report.notes == ["input 'x' becomes codes of 8 bits, 0.007874 each, from -1 to 1"]
    x = np.random.default_rng(0).uniform(-0.2, 1.0, (5, 8, 2, 1, 1))
    (found,) = agreement(graph, after, x)
    assert found.spikes_float > 10 and found.different <= 1


# ---- agreement ----


def test_agreement_tells_spikes_and_thresholds() -> None:
    net = Net(4, 1, 1, timesteps=40)
    rng = np.random.default_rng(3)
    n = net.lif(net.conv(net.x, rng.normal(0.3, 0.5, (5, 4, 1, 1))), alpha=0.8, beta=0.9, v_reset=-0.25)
    li = net.add("integrator", net.conv(n, rng.normal(size=(2, 5, 1, 1))), name="li", beta=0.95)
    graph, x = net.done(li), rng.integers(0, 2, (6, 40, 4, 1, 1))
    after, _ = integers(graph)
    neuron, integrator = agreement(graph, after, x)
    real, whole = (interpret(g, x, record="all", states="all") for g in (graph, after))
    assert (neuron.layer, neuron.neurons, neuron.steps, neuron.samples) == ("n", 5, 40, 6)
    assert neuron.spikes_float == real.codes["n"].sum() and neuron.spikes_int == whole.codes["n"].sum()
    apart = real.codes["n"] != whole.codes["n"]
    assert neuron.different == apart.sum()
    quiet = (real.codes["n"] == 0) & (whole.codes["n"] == 0)
    vth = after.tensor(node(after, "n"), "vth")[0]
    error = np.abs(whole.states["n"]["v"] / (64 * vth) - (real.states["n"]["v"] + 0.25) / 1.25)[quiet]
    assert neuron.worst == pytest.approx(error.max()) and neuron.mean == pytest.approx(error.mean())
    assert neuron.mean < 0.1 and integrator.kind == "integrator" and integrator.mean < 0.1
    assert neuron.as_json()["layer"] == "n"


def test_agreement_names_the_first_spike_that_differs() -> None:
    net = Net(1, 1, 1)
    graph = net.done(net.lif(net.conv(net.x, ones(1, 1)), beta=0.75, reset="soft"))
    after, _ = integers(graph, PLAIN, allow=("soft-reset",))
    (found,) = agreement(graph, after, np.ones((2, 8, 1, 1, 1)))
    real, whole = (interpret(g, np.ones((2, 8, 1, 1, 1))).outputs["o"] for g in (graph, after))
    t, n = np.argwhere(real != whole)[0][:2]
    assert found.first == (n, t, 0) and found.different == (real != whole).sum() > 0
