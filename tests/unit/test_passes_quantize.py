"""Quantisation and the pipeline on graphs written by hand: refusals, encodings, shared weights, limits of a target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graphs import Net, named, random_graph, random_images

from nmc_compiler.errors import LoweringError, UsageError, VerifyError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import PASSES, compile_graph, passes_for
from nmc_compiler.passes.quantize import Quantize
from nmc_compiler.passes.quantize_all import QuantizeAll
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.scales import WeightRange, best_scale, scale_classes, static_bound
from nmc_compiler.target import Target, load_target
from nmc_emulator import run

LOIHI = load_target("loihi2")


def compiled(graph: Graph, target: Target = LOIHI, **options) -> tuple[Graph, dict[str, dict]]:
    report = ConversionReport()
    after = compile_graph(graph, target, CompileOptions(**options), report)
    return after, {e["layer"]: e for e in report.of("quantize")}


def spikes(timesteps: int = 2) -> tuple[Net, str]:
    net = Net(timesteps)
    return net, net.lif(net.conv(net.input(2, 4, 4), 3, 3, pad=1), "first", theta=0.4)


# --- the pipeline -------------------------------------------------------------------------------------------


def test_the_passes_in_order() -> None:
    names = [p.name for p in PASSES]
    assert names == [
        "drop-dead", "pool-codes", "psn-banks", "fold-time", "plain-neurons", "split-neurons", "join-linear",
        "split-decays", "fold-batch-norm", "fold-scale", "relay-factors", "fold-convs", "fold-sites", "hoist-bias",
        "distribute-sums", "recognise-gates", "quantize",
    ]  # fmt: skip
    seen: list[str] = []
    graph = random_graph(3)
    after = compile_graph(graph, LOIHI, CompileOptions(), ConversionReport(), lambda name, g, s: seen.append(name))
    assert seen == names and after.numbers == "int"
    verify(after, event_driven=True)


def test_the_numbers_of_the_target_reach_quantisation() -> None:
    last = passes_for(load_target("generic-mesh"), CompileOptions(channel_bins=9, input_encoding="graded8"))[-1]
    assert isinstance(last, QuantizeAll)
    last = last.chip
    core = load_target("generic-mesh").core
    assert last.channel_bins == core.neuron_groups.value < 9 and last.input_encoding == "graded8"
    assert last.rshift_max == -core.weight_exp.value[0] and last.weight_exp_max == core.weight_exp.value[1]
    assert (last.vth_max, last.current_max, last.accumulator_max) == (2**17 - 1, 2**17 - 1, 2**23 - 1)


def test_a_graph_that_is_not_valid_is_refused_first() -> None:
    graph = random_graph(0)
    nodes = tuple(n for n in graph if n.op != "readout")
    with pytest.raises(VerifyError, match="must have one readout, has 0"):
        compile_graph(Graph(graph.name, 1, nodes, graph.tensors), LOIHI, CompileOptions(), ConversionReport())


def test_a_report_is_plain_json() -> None:
    import json

    report = ConversionReport(notes=["a note"])
    compile_graph(random_graph(1), LOIHI, CompileOptions(), report)
    assert json.loads(json.dumps(report.as_json())) == report.as_json()
    assert report.as_json()["schema"] == "nmc.conversion/1"


# --- what is refused ----------------------------------------------------------------------------------------


def one_lif(**lif) -> Graph:
    net, s = spikes()
    return net.readout(net.lif(net.conv(s, 3, weight=0.5), "last", **lif))


def negative_scale(kind: str) -> Graph:
    net, s = spikes()
    y = net.add("scale", net.sum(net.conv(s, 3), net.conv(s, 3)), factor=-0.5)
    return net.readout(net.lif(y, "last") if kind == "lif" else net.levels(y, "last"))


def counts(extra: str) -> Graph:
    net, s = spikes()
    y = net.attn(s, s, s, scale=-0.125 if extra == "negative" else 0.125)
    if extra == "weights":
        y = net.sum(y, net.conv(s, 3))
    if extra == "steps":
        y = net.sum(y, net.attn(s, s, s, scale=0.25))
    if extra == "readers":
        net.lif(y, "beside")
        return net.readout(net.sum(net.conv(net.lif(y, "last"), 3), net.conv("lif4", 3)))
    if extra == "readout":
        return net.readout(net.add("sum_positions", y))
    attrs = {"reset": "soft"} if extra == "soft" else {}
    return net.readout(net.lif(y, "last", **attrs, **({"bias": net.array(0.1, 3)} if extra == "bias" else {})))


def direct() -> Graph:
    net = Net(1)
    return net.readout(net.lif(net.input(2, 3, 3), "first"))


def drowned() -> Graph:
    """Thousands of inputs of weight 1 against a threshold of a thousandth."""
    net, s = spikes()
    return net.readout(net.lif(net.mean(net.conv(s, 3, weight=1.0)), "last", theta=1e-6))


NOT_ABOVE_0 = (
    "neuron 'last' has a threshold {} above its reset and an input gain of {}; both must be above 0 on this target"
)
REFUSED = [
    (one_lif, {"theta": 0.0}, NOT_ABOVE_0.format(0, 1)),
    (one_lif, {"theta": 0.5, "v_reset": 1.0}, NOT_ABOVE_0.format(-0.5, 1)),
    (negative_scale, {"kind": "lif"}, NOT_ABOVE_0.format(1, -0.5)),
    (negative_scale, {"kind": "levels"}, "neuron 'last' has an input gain of -0.5; it must be above 0 on this target"),
    (counts, {"extra": "weights"}, "'%attn3' (a count) is added to weighted currents; no neuron here does that"),
    (counts, {"extra": "steps"}, "counts of '%attn3' have 2 different steps and 1 reader(s); one of each is lowered"),
    (counts, {"extra": "readers"}, "counts of '%attn3' have 1 different steps and 2 reader(s); one of each is lowered"),
    (counts, {"extra": "negative"}, "counts of '%attn3' are scaled by -0.125; a factor above 0 is lowered"),
    (counts, {"extra": "bias"}, "neuron 'last' reads counts and has a bias; not lowered"),
    (counts, {"extra": "readout"}, "readout 'head' reads counts; only lif and multilevel are lowered"),
    (direct, {}, "neuron 'first' reads real values ('%input0'); put a convolution between"),
]


@pytest.mark.parametrize("graph", [one_lif(reset="soft"), one_lif(reset="none"), counts("soft")])
def test_what_only_microcode_does_is_refused_by_name_elsewhere(graph: Graph) -> None:
    text = "^neuron 'last' has reset (soft|none), which takes a microcoded neuron, and the target has none; choose a "
    with pytest.raises(LoweringError, match=text):
        compiled(graph, load_target("loihi1"))
    assert next(n for n in compiled(graph)[0] if n.name == "last").op == "cell"


@pytest.mark.parametrize(("make", "arguments", "text"), REFUSED)
def test_what_the_integer_neurons_cannot_do_is_refused(make, arguments: dict, text: str) -> None:
    with pytest.raises(LoweringError) as error:
        compiled(make(**arguments))
    assert str(error.value) == text


def test_a_threshold_below_one_unit_of_the_current_is_refused() -> None:
    with pytest.raises(LoweringError) as error:
        compiled(drowned())
    assert str(error.value) == (
        "threshold of 'last' would be 0.0081 units of its current, whose largest value is 1.5e+06 thresholds and fills "
        "the register; retrain with smaller weights before this neuron"
    )


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"input_encoding": "rate"}, LoweringError, "unknown input encoding 'rate'; known: host-current, graded8"),
        (
            {"input_range": (1.0, 1.0)}, UsageError,
            "input range (1.0, 1.0) is empty; give its least and largest value",
        ),
        ({"weight_bits": 16}, LoweringError, "target has weights of 16 bits; nmc quantises to 2 to 8 bits"),
        ({"weight_bits": 1}, LoweringError, "target has weights of 1 bits; nmc quantises to 2 to 8 bits"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options: dict, kind: type, text: str) -> None:
    with pytest.raises(kind) as error:
        Quantize(**options).apply(one_lif(), ConversionReport())
    assert str(error.value) == text


# --- the first layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "scale", "codes"),
    [(0.0, 1.0, 255.0, (0, 255)), (0.0, 0.5, 510.0, (0, 255)), (-1.0, 2.0, 63.5, (-127, 127))],
)
def test_graded_input_codes(low: float, high: float, scale: float, codes: tuple[int, int]) -> None:
    graph = one_lif()
    after, _ = compiled(graph, input_encoding="graded8", input_range=(low, high))
    encode = next(n for n in after if n.op == "encode")
    assert encode.attr("scale") == scale and (encode.attr("lo"), encode.attr("hi")) == codes
    images = low + (high - low) * random_images(graph, 0, 30)
    real = interpret(graph, images, record=["first"])
    made = interpret(after, images, record=["first"], values=[encode.id])
    assert (real.codes["first"] != made.codes["first"]).mean() < 0.02
    np.testing.assert_array_equal(made.values[encode.id][0], np.rint(images.astype(np.float64) * scale))


def test_an_input_outside_its_range_is_refused_by_the_encoder() -> None:
    after, _ = compiled(one_lif(), input_encoding="graded8")
    with pytest.raises(VerifyError, match="input values encode to 510..510, outside 0..255"):
        interpret(after, np.full((1, 2, 4, 4), 2.0))


def test_one_filter_bank_at_two_scales_stays_two() -> None:
    """Two neurons with their own thresholds behind the same host weights."""
    net = Net(2)
    x = net.input(2, 4, 4)
    weight = net.array(np.random.default_rng(0).normal(size=(3, 2, 3, 3)))
    a, b = (net.add("conv2d", x, weight=weight, pad=(1, 1)) for _ in range(2))
    s, r = net.lif(a, "s", theta=0.8), net.lif(net.sum(b, net.conv(net.lif(a, "z"), 3)), "r", theta=0.1)
    graph = net.readout(net.sum(net.conv(s, 3), net.conv(r, 3)))
    after, entries = compiled(graph)
    hosts = [n for n in after if n.op == "host_conv2d"]
    assert entries["s"]["scale"] != entries["r"]["scale"]
    assert len({n.attr("weight").key for n in hosts}) == 2
    images = random_images(graph, 0, 40)
    real, made = interpret(graph, images, record=["s"]), interpret(after, images, record=["s"])
    assert (real.codes["s"] != made.codes["s"]).mean() < 0.002


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e4])
def test_host_weights_of_any_size_fit_their_shift(size: float) -> None:
    net = Net(1)
    y = net.conv(net.input(2, 4, 4), 3, 3, weight=size * np.random.default_rng(0).normal(size=(3, 2, 3, 3)))
    graph = net.readout(net.lif(y, "s", theta=size))
    after, _ = compiled(graph)
    host = next(n for n in after if n.op == "host_conv2d")
    images = random_images(graph, 0, 40)
    real, made = interpret(graph, images, record="all"), interpret(after, images, record="all")
    assert 0 <= host.attr("shift") <= 31 and 0.1 < real.codes["s"].mean() < 0.9
    assert (real.codes["s"] != made.codes["s"]).mean() < 0.005


# --- weights and scales -------------------------------------------------------------------------------------


def test_one_weight_for_codes_of_unlike_norms_becomes_two() -> None:
    """conv(s + m): a spike is 1, a code of norm 4 a quarter."""
    net, s = spikes()
    m = net.levels(net.conv(s, 3), "m")
    graph = net.readout(net.lif(net.conv(net.sum(s, m), 4, 3, pad=1), "last", theta=0.8))
    after, _ = compiled(graph)
    parts = [n for n in after if n.id.startswith("conv2d6.")]
    assert len({n.attr("weight").key for n in parts}) == 2
    images = random_images(graph, 0, 40)
    real, made = interpret(graph, images, record="all"), interpret(after, images, record="all")
    alike = (real.codes["first"] == made.codes["first"]).all() and (real.codes["m"] == made.codes["m"]).mean() > 0.9
    assert alike and (real.codes["last"] != made.codes["last"]).mean() < 0.05


def test_four_bit_weights() -> None:
    core = LOIHI.core.model_copy(update={"weight_bits": LOIHI.core.weight_bits.model_copy(update={"value": 4})})
    after, entries = compiled(one_lif(), LOIHI.model_copy(update={"core": core}))
    for n in (n for n in after if n.op == "conv2d"):
        weight = after.tensor(n, "weight")
        assert weight.dtype == np.int8 and 4 <= np.abs(weight).max() <= 7 and n.attr("shift") >= 5
    assert {e["bits"] for e in entries.values() if e["kind"] == "weights"} == {4}


def test_a_lone_reader_of_a_large_current_takes_it_shifted_right() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(4, 8, 8), 32, 3, pad=1), "first", theta=0.2)
    graph = net.readout(net.lif(net.mean(net.conv(s, 8, weight=1.0)), "mean", theta=0.5))
    after, entries = compiled(graph)
    entry = entries["mean"]
    shift = after.node(named(after, "mean").operands[0])
    assert entry["rshift"] == shift.attr("shift") >= 1 and shift.op == "rshift"
    assert 2**15 < entry["static_bound"] <= 2**17 - 1


def test_weight_ranges() -> None:
    allowed = Quantize(weight_bits=8).weights
    assert allowed == WeightRange(-128, 127, 1, 8) and Quantize(weight_bits=4).weights == WeightRange(-8, 7, 5, 12)
    assert allowed.quantise(np.array([0.0, 0.0]), 5.0) == (pytest.approx([0, 0]), 1)
    mantissa, shift = allowed.quantise(np.array([254.0, -1.0, 3.0, 5.0]), 1.0)
    assert shift == 1 and mantissa.tolist() == [127, 0, 2, 2]  # 1/2, 3/2 and 5/2 go to even
    assert allowed.quantise(np.array([254.001]), 1.0)[1] == 2


def test_a_table_without_synapses_does_not_move_the_scale() -> None:
    weight, candidates = np.random.default_rng(0).normal(size=(4, 3)), np.arange(50.0, 90.0)
    allowed = Quantize().weights
    assert best_scale([np.zeros(0), weight], candidates, allowed) == best_scale([weight], candidates, allowed)
    assert best_scale([np.zeros(0)], candidates, allowed) == 89.0


def test_the_static_bound_is_what_the_worst_input_gives() -> None:
    """Brute force over every binary input, and every corner of a signed one."""
    for low, high in ((0.0, 1.0), (-1.0, 0.5)):
        net = Net(1, seed=3)
        x = net.input(2, 2, 2)
        y = net.sum(net.pool(net.conv(x, 3, 2), 1, 1, 0), net.conv(x, 3, 2))
        graph = net.readout(net.lif(y, "s"))
        corners = np.array(list(itertools.product((low, high), repeat=8))).reshape(-1, 2, 2, 2)
        worst = np.abs(interpret(graph, corners, values=[y]).values[y]).max(axis=(0, 1, 3, 4))
        parts = [n.id for n in graph if n.op == "conv2d"][:2]
        sizes = [np.abs(interpret(graph, corners, values=[p]).values[p]) for p in parts]
        span = (low, high)
        bound = static_bound(graph, graph.node(y), lambda n, g=graph: g.tensor(n, "weight"), lambda n, s=span: s)
        assert (bound >= worst - 1e-12).all()
        np.testing.assert_array_less(bound, sum(s.max(axis=(0, 1, 3, 4)) for s in sizes) + 1e-9)


def test_levels_that_no_current_can_reach_stay_out_of_reach() -> None:
    """A last level far beyond the register must not wrap round into an always reached one."""
    net, s = spikes()
    y = net.conv(s, 3, weight=[[[[1e-3]]] * 3, [[[1e-6]]] * 3, [[[1.0]]] * 3])
    graph = net.readout(net.levels(y, "codes", gain=1e-4))
    after, _ = compiled(graph)
    table = after.tensor(named(after, "codes"), "thresholds")
    assert (np.diff(table, axis=1) >= 0).all() and table.min() > 0 and table.max() == 2**23
    assert interpret(after, random_images(graph, 0, 4), record=["codes"]).codes["codes"].max() == 0


def test_sums_that_meet_share_a_scale() -> None:
    net, s = spikes()
    a, b = net.conv(s, 3), net.conv(s, 3)
    pooled = net.pool(net.sum(a, b), 1, 1, 0)
    first = net.lif(pooled, "first reader")
    c = net.conv(first, 3)
    second = net.lif(net.sum(pooled, c), "second reader")
    alone = net.lif(net.conv(first, 3), "alone")
    graph = net.readout(net.sum(net.conv(second, 3), net.conv(alone, 3)))
    classes = scale_classes(graph)
    by_reader = {n.name: cls for cls in classes for n in cls.readers}
    assert by_reader["first reader"] is by_reader["second reader"] is not by_reader["alone"]
    assert [n.id for n in by_reader["first reader"].convs] == [a, b, c]
    assert not by_reader["first reader"].is_counts


# --- gates and pools ----------------------------------------------------------------------------------------


def test_two_pools_of_one_population_have_names_of_their_own() -> None:
    net, s = spikes()
    two = [net.conv(net.pool(s, k, 1, 0), 3) for k in (2, 3)]
    graph = net.readout(net.sum(*(net.add("sum_positions", y) for y in two)))
    after, _ = compiled(graph)
    assert [n.name for n in after if n.attr("role") == "pool"] == ["first.pool", "first.pool.maxpool2d5"]
    images = random_images(graph, 0, 5)
    made = run(lower(after, LOIHI, CompileOptions()), images, record="all")
    want = interpret(after, images, record="all")
    assert all(np.array_equal(made.codes[k], v.swapaxes(0, 1)) for k, v in want.codes.items())


@pytest.mark.parametrize("window", [{"kernel": 3, "stride": 2, "pad": 1}, {"kernel": 2, "stride": 1, "pad": 0}])
def test_a_pool_of_spikes_is_an_or_and_a_mask_an_and(window: dict) -> None:
    net, s = spikes(3)
    t = net.lif(net.conv(s, 3, 3, pad=1), "second", theta=0.3)
    both = net.add("mul", net.pool(s, **window, name="or"), net.pool(t, **window, name="or2"), name="and")
    graph = net.readout(both)
    images = random_images(graph, 0, 20)
    after, _ = compiled(graph)
    real = interpret(graph, images, values=[n.id for n in graph if n.type.is_event], record="all")
    made = interpret(after, images, record="all").codes
    if all((real.codes[n] == made[n]).all() for n in ("first", "second")):
        for n in ("or", "or2", "and"):
            np.testing.assert_array_equal(made[n], real.values[named(graph, n).id])
    np.testing.assert_array_equal(made["and"], made["or"] & made["or2"])
    padded = np.pad(made["first"], [(0, 0)] * 3 + [(window["pad"],) * 2] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window["kernel"],) * 2, axis=(3, 4))
    step = window["stride"]
    np.testing.assert_array_equal(made["or"], windows[:, :, :, ::step, ::step].max(axis=(5, 6)))
    assert 0.05 < made["and"].mean() < 0.95
