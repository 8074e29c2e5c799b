"""Integer interpreter = emulator, bit for bit: random graphs compiled, lowered and mapped; and mutations that show it.

The interpreter and the kernels implement docs/integers.md without each other. A mutation of the interpreter's
rounding, compare, reset or saturation must therefore show as a difference; on graphs of small numbers, where ties and
borders are common, each of them does.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graphs import Kinds, random_graph, random_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import CapacityError
from nmc_compiler.graph import Attr, Graph, GraphBuilder, ops_attention, ops_linear, ops_neuron, registry
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.mapping import map_program
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Program
from nmc_compiler.target import load_target
from nmc_emulator import RunResult, run

SETTINGS = settings(max_examples=70, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
TARGETS = {name: load_target(name) for name in ("loihi2", "generic-mesh")}
OPTIONS = st.builds(
    CompileOptions,
    input_encoding=st.sampled_from(("host-current", "graded8")),
    residual=st.sampled_from(("stream", "duplicate", "auto")),
    attn_order=st.sampled_from(("auto", "kv", "qk")),
    channel_bins=st.sampled_from((1, 2, 4)),
    pipelined=st.booleans(),
)
KINDS = st.sampled_from(
    (
        Kinds(),
        Kinds(neurons=("lif",)),
        Kinds(neurons=("levels",)),
        Kinds(timesteps=(1, 3), dyadic=True),
        Kinds(timesteps=(4,), layers=(8, 12)),
        Kinds(neurons=("cell", "lif", "levels")),
    )
)


def mapped(program: Program, target: str) -> Program | None:
    """None where a core is too small for a layer: the mapper says so with a CapacityError."""
    try:
        return map_program(program, TARGETS[target], "auto")[0]
    except CapacityError:
        return None


def differences(want: Interpretation, got: RunResult) -> list[str]:
    """Names of what differs; everything the interpreter recorded must be there."""
    found = [name for name, codes in want.codes.items() if not np.array_equal(got.codes[name], codes.swapaxes(0, 1))]
    return found + ([] if np.array_equal(got.logits_int, want.raw_logits) else ["logits"])


def overflows(want: Interpretation) -> dict[str, int]:
    u, v = (sum(n for k, n in want.overflows.items() if k.endswith(what)) for what in ("current u", "potential v"))
    return {"u": u, "v": v}


@given(SEEDS, KINDS, OPTIONS, st.sampled_from(tuple(TARGETS)))
@SETTINGS
def test_both_engines_compute_what_the_interpreter_computes(
    seed: int, kinds: Kinds, options: CompileOptions, target: str
) -> None:
    graph = compile_graph(random_graph(seed, kinds), TARGETS[target], options, ConversionReport())
    images = random_images(graph, seed, 3)
    want = interpret(graph, images, record="all")
    program = lower(graph, TARGETS[target], options)
    for made in (program, mapped(program, target)):
        for engine, batch in (("layers", 1), ("layers", 3), ("ticks", 1)):
            if made is None or (engine == "ticks" and made.mapping is None):
                continue
            got = run(made, images, record="all", engine=engine, batch=batch)
            assert differences(want, got) == []
            assert {k: int(got.counters.overflow[k].sum()) for k in ("u", "v")} == overflows(want)


def test_nearly_every_random_graph_can_be_mapped() -> None:
    """The property above is not about the few that can."""
    graphs = [
        compile_graph(random_graph(s), TARGETS["loihi2"], CompileOptions(), ConversionReport()) for s in range(12)
    ]
    programs = [lower(g, TARGETS["loihi2"], CompileOptions()) for g in graphs]
    assert all(mapped(p, "loihi2") is not None for p in programs)


# --- graphs of small numbers --------------------------------------------------------------------------------------


class Small(GraphBuilder):
    """Integer layers with weights, thresholds and biases of a few units: every border is met often."""

    def __init__(self, timesteps: int, seed: int) -> None:
        super().__init__("small", timesteps, "int", input_time=True)
        self.random = np.random.default_rng(seed)

    def table(self, array: np.ndarray):
        return self.tensor(f"t{len(self.tensors)}", array)

    def draw(self, low: int, high: int, *shape: int, dtype: type = np.int32):
        return self.table(self.random.integers(low, high + 1, shape).astype(dtype))

    def conv(self, x: str, out: int, kernel: int = 3, top: int = 3, **attrs) -> str:
        shape = (out, self.nodes[x].type.shape[0], kernel, kernel)
        pads = {"pad": (kernel // 2, kernel // 2), "shift": 0}
        return self.add("conv2d", x, weight=self.draw(-top, top, *shape, dtype=np.int8), **{**pads, **attrs})

    def lif(self, x: str, name: str, dv: int, low: int, high: int, bias: int = 0) -> str:
        channels = self.nodes[x].type.shape[0]
        extra = {"bias": self.draw(-bias, bias, channels)} if bias else {}
        return self.add("cuba_lif", x, name=name, dv=dv, vth=self.draw(low, high, channels), **extra)

    def levels(self, x: str, name: str, *starts: int, bias: int = 0) -> str:
        extra = {"bias": self.draw(-bias, bias, self.nodes[x].type.shape[0])} if bias else {}
        return self.add("levels", x, name=name, thresholds=self.table(np.array([starts], np.int32) * 64), **extra)


def small(timesteps: int = 6) -> Graph:
    """One of everything, at 7x7 positions."""
    b = Small(timesteps, 1)
    real = b.add("input", shape=(2, 7, 7))
    x = b.add("encode", real, scale=3.0, lo=-3, hi=3)
    host = b.add(
        "host_conv2d", real, weight=b.draw(-9, 9, 4, 2, 3, 3), bias=b.table(np.zeros(4, np.int64)), frac=3, shift=5,
        pad=(1, 1),
    )  # fmt: skip
    a = b.lif(b.conv(x, 4, top=1), "a", dv=1500, low=0, high=2, bias=40)
    c = b.lif(b.add("add", host, b.conv(a, 4)), "c", dv=2048, low=1, high=3)
    m = b.levels(host, "m", 1, 2, 4, 6, bias=64)
    pooled = b.add("maxpool2d", b.conv(m, 3, top=2), kernel=(3, 3), stride=(2, 2), pad=(1, 1))
    d = b.levels(pooled, "d", -2, 0, 1)
    e = b.lif(b.add("rshift", b.conv(c, 3, top=9), shift=2), "e", dv=3000, low=0, high=2)
    q, k = b.levels(b.conv(a, 4, 1), "q", 1, 3), b.levels(b.conv(c, 4, 1), "k", 1, 3)
    attended = b.add("attn", q, k, m, heads=2, saturate=30, shift=1)
    f = b.lif(attended, "f", dv=1024, low=20, high=90)
    reduced = b.lif(b.add("map", c, mode="reduce", shift=0), "g", dv=2048, low=5, high=30)
    wide = b.add("map", reduced, mode="broadcast", size=(7, 7), shift=1)
    h = b.lif(b.add("add", wide, b.add("map", a, mode="same", shift=1)), "h", dv=4096, low=3, high=3)
    window = b.add("map", h, mode="window", kernel=(2, 2), stride=(1, 1), pad=(1, 1), shift=0)
    i = b.lif(window, "i", dv=700, low=1, high=4)
    heads = [b.add("sum_positions", b.conv(s, 3, 1, top=9)) for s in (d, e, f, i)]
    b.add("int_readout", b.add("add", *heads), name="head", scale=1.0, bias=b.draw(-99, 99, 3))
    return b.build()


def overflowing() -> Graph:
    """Currents and potentials at and beyond the ends of 24 bits."""
    b = Small(4, 2)
    x = b.add("encode", b.add("input", shape=(2, 5, 5)), scale=3.0, lo=-3, hi=3)
    a = b.lif(b.conv(x, 4, 1, top=4, shift=14), "a", dv=1, low=1, high=2**16)
    c = b.lif(b.conv(x, 4, 1, top=2, shift=15), "c", dv=200, low=-(2**16), high=2**17 - 1)
    m = b.levels(b.conv(x, 4, 1, top=4, shift=14), "m", -(2**16), 0, 2**16, 2**17 - 1)
    heads = [b.add("sum_positions", b.conv(s, 3, 1, shift=9, top=9)) for s in (a, c, m)]
    b.add("int_readout", b.add("add", *heads), name="head", scale=1.0)
    return b.build()


def half_codes(graph: Graph, count: int) -> np.ndarray:
    """Samples on the grid of a sixth: half of the codes of scale 3 are ties, and few host inputs are whole eighths."""
    shape = next(n for n in graph if n.op == "input").type.shape
    return np.random.default_rng(0).integers(-6, 7, (count, graph.timesteps, *shape)) / 6


def under_loihi1(graph: Graph) -> Graph:
    """The graph with currents that wrap in two's complement."""
    wraps = ("cuba_lif", "levels", "int_readout")
    return replace(
        graph, nodes=tuple(n.with_attrs(profile=Attr("loihi1", "target")) if n.op in wraps else n for n in graph)
    )


@pytest.fixture(scope="module", params=["small", "overflowing", "overflowing, loihi1"])
def case(request: pytest.FixtureRequest) -> tuple[Graph, np.ndarray, RunResult]:
    if request.param.endswith("loihi1"):
        return emulated(under_loihi1(overflowing()), "loihi1")
    graph = {"small": small, "overflowing": overflowing}[request.param]()
    return emulated(graph)


def emulated(graph: Graph, profile: str = "loihi2") -> tuple[Graph, np.ndarray, RunResult]:
    verify(graph, event_driven=True)
    images = half_codes(graph, 24)
    program = mapped(lower(graph, TARGETS["loihi2"], CompileOptions(residual="stream", pipelined=True)), "loihi2")
    assert program is not None
    program = replace(program, target={**program.target, "profile": profile})
    return graph, images, run(program, images, record="all")


def test_small_numbers_agree_too(case) -> None:
    graph, images, got = case
    want = interpret(graph, images, record="all")
    assert differences(want, got) == []
    assert {k: int(got.counters.overflow[k].sum()) for k in ("u", "v")} == overflows(want)
    assert all((codes != 0).mean() > 0.005 and len(np.unique(codes)) > 1 for codes in want.codes.values())
    if any(n.name == "c" and n.attr("dv") == 200 for n in graph):
        assert min(overflows(want).values()) > 100
    program = mapped(lower(graph, TARGETS["loihi2"], CompileOptions(residual="duplicate")), "loihi2")
    assert program is not None
    profile = "loihi1" if any(n.attr("profile") for n in graph) else "loihi2"
    program = replace(program, target={**program.target, "profile": profile})
    assert differences(want, run(program, images, record="all", engine="ticks")) == []


# --- mutations -----------------------------------------------------------------------------------------------------


def rewritten(function: Callable, old: str, new: str) -> Callable:
    """The function with a piece of its source exchanged."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__name__} no longer holds {old!r}"
    scope = dict(function.__globals__)
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


def toward_zero(c: registry.Call) -> np.ndarray:
    return np.sign(c.inputs[0]) * (np.abs(c.inputs[0]) >> c.attr("shift"))


def nearest(c: registry.Call) -> np.ndarray:
    half = (1 << c.attr("shift")) >> 1
    return (c.inputs[0] + half) >> c.attr("shift")


N, L = ops_neuron, ops_linear
OP_MUTATIONS = {
    "compare at or above": ("cuba_lif", rewritten(N._cuba_eval, "v > (", "v >= (")),
    "reset by subtraction": (
        "cuba_lif",
        rewritten(N._cuba_eval, "!= 0, 0, v)", '!= 0, v - (column(c.tensor("vth")) << 6), v)'),
    ),
    "no reset": ("cuba_lif", rewritten(N._cuba_eval, "np.where(code != 0, 0, v)", "v")),
    "reset to the bias": (
        "cuba_lif",
        rewritten(N._cuba_eval, "np.where(code != 0, 0, v)", 'np.where(code != 0, column(c.tensor("bias")), v)'),
    ),
    "levels strictly above": ("levels", rewritten(N._levels_eval, ">= thresholds", "> thresholds")),
    "levels without bias": ("levels", rewritten(N._levels_eval, 'u + column(c.tensor("bias"))', "u")),
    "read-out forgets": ("int_readout", rewritten(N._int_readout_eval, 'c.state.get("v", np.zeros_like(u))', "0")),
    "codes round down": ("encode", rewritten(N._encode_eval, "np.rint(c.inputs[0]", "np.floor(c.inputs[0]")),
    "codes round half up": (
        "encode",
        rewritten(N._encode_eval, "np.rint(c.inputs[0] * ", "np.floor(0.5 + c.inputs[0] * "),
    ),
    "the host rounds down": ("host_conv2d", rewritten(L._host_eval, "1 << (shift - 1) if shift else 0", "0")),
    "the host rounds its input down": ("host_conv2d", rewritten(L._host_eval, "np.rint(", "np.floor(")),
    "the kernel is flipped": (
        "conv2d",
        rewritten(L._conv_eval, "weight.astype(np.float64)", "weight[:, :, ::-1, ::-1].astype(np.float64)"),
    ),
    "a shift rounds toward zero": ("rshift", toward_zero),
    "a shift rounds to nearest": ("rshift", nearest),
    "attention does not saturate": (
        "attn",
        rewritten(ops_attention._eval, 'np.minimum(exact_int(out), c.attr("saturate"))', "exact_int(out)"),
    ),
    "attention saturates behind its shift": (
        "attn",
        rewritten(
            ops_attention._eval,
            'np.minimum(exact_int(out), c.attr("saturate")) << c.attr("shift", 0)',
            'np.minimum(exact_int(out) << c.attr("shift", 0), c.attr("saturate"))',
        ),
    ),
    "padding wins a max-pool": ("maxpool2d", rewritten(L._maxpool_eval, "np.iinfo(np.int64).min", "0")),
}  # fmt: skip
HELPER_MUTATIONS: dict[str, tuple[str, Callable]] = {
    "bias decays too": (
        "cuba_update",
        rewritten(
            N.cuba_update,
            'decayed(v, c.attr("dv")) + c.state["u"] + column(c.tensor("bias"))',
            'decayed(v + column(c.tensor("bias")), c.attr("dv")) + c.state["u"]',
        ),
    ),
    "input decays too": (
        "cuba_update",
        rewritten(
            N.cuba_update,
            'decayed(v, c.attr("dv")) + c.state["u"]',
            'decayed(v + c.state["u"], c.attr("dv"))',
        ),
    ),
    "decay rounds down": ("decayed", lambda x, d: (x * (4096 - d)) >> 12),
    "decay rounds to nearest": ("decayed", lambda x, d: np.sign(x) * ((np.abs(x) * (4096 - d) + 2048) >> 12)),
    "decay is one unit off": ("decayed", lambda x, d: np.sign(x) * ((np.abs(x) * (4095 - d)) >> 12)),
    "u saturates": ("wrap24", lambda c, u: np.clip(u, -(2**23) + 1, 2**23)),
    "u wraps as two's complement": ("wrap24", lambda c, u: (u + 2**23) % 2**24 - 2**23),
    "v wraps": ("clip24", lambda c, v: (v + 2**23) % 2**24 - 2**23),
    "v saturates one unit later": ("clip24", lambda c, v: np.clip(v, -(2**23), 2**23)),
}


@pytest.fixture(scope="module")
def cases() -> list[tuple[Graph, np.ndarray, RunResult]]:
    return [emulated(small()), emulated(overflowing())]


def caught(cases: list[tuple[Graph, np.ndarray, RunResult]]) -> bool:
    return any(differences(interpret(graph, images, record="all"), got) for graph, images, got in cases)


def test_the_unmutated_interpreter_is_not_caught(cases) -> None:
    assert not caught(cases)


@pytest.mark.parametrize("name", OP_MUTATIONS)
def test_a_mutated_op_is_caught(name: str, cases, monkeypatch: pytest.MonkeyPatch) -> None:
    op, evaluate = OP_MUTATIONS[name]
    monkeypatch.setitem(registry._OPS, op, replace(registry.op_spec(op), evaluate=evaluate))
    assert caught(cases)


@pytest.mark.parametrize("name", HELPER_MUTATIONS)
def test_mutated_arithmetic_is_caught(name: str, cases, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, function = HELPER_MUTATIONS[name]
    monkeypatch.setattr(ops_neuron, attribute, function)
    assert caught(cases)


def test_a_missing_attention_is_caught(cases, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(registry.op_spec("attn"), evaluate=lambda c: 0 * c.inputs[2].astype(np.int64))
    monkeypatch.setitem(registry._OPS, "attn", without)
    assert caught(cases)
