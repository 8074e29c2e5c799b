"""Each attention kind against its closed formula, in whole numbers, on random codes.

The nodes under test are cut out of the graphs that the families build: random codes stand in for the q, k
and v neurons, and everything between them and the attention's own neuron is what a checkpoint gets.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Attr, Graph, GraphBuilder, Node, Use
from nmc_compiler.graph.interpret import interpret

RATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Form:
    """An attention kind: the family it comes from, its q, k, v and output modules, levels of a code, v's width."""

    family: str
    block: str
    neuron: str  # q{neuron}, k{neuron}, v{neuron}
    out: str
    levels: int
    v_ratio: int


SDSA1 = Form("sdt_v1", "block.0.attn", "_lif", "qkv", 1, 1)
SSA = Form("spikformer", "block.0.attn", "_lif", "attn_lif", 1, 1)
ESDSA = Form("sdt_v3", "block3.0.attn", "_spike", "attn_spike", 4, 4)
FORMS = {"sdsa1": SDSA1, "ssa": SSA, "esdsa": ESDSA}


def family_graph(form: Form, heads: int, d: int, timesteps: int) -> Graph:
    """The family's own graph with ``heads`` heads of width ``d``."""
    channels = heads * d
    if form.family == "sdt_v3":
        dims = (4, 4, channels, 2 * heads)
        return tiny_models.graph("sdt_v3", tiny_models.sdt_v3(dims=dims, mlp_ratio=1), num_heads=heads)
    width = 8 * channels  # the stem narrows by 8; only the block is looked at
    state = {"sdt_v1": tiny_models.sdt_v1, "spikformer": tiny_models.spikformer}[form.family]
    more = {"heads": 8 * heads} if form.family == "sdt_v1" else {}
    return tiny_models.graph(form.family, state(width=width, mlp_ratio=1, **more), num_heads=8 * heads, T=timesteps)


def between(graph: Graph, form: Form) -> list[Node]:
    """Nodes from (not including) q, k and v up to the attention's output, in order."""
    by_id = graph.by_id()
    by_name = {n.name: n for n in graph if n.name.startswith(form.block)}
    stop = {by_name[f"{form.block}.{n}{form.neuron}"].id for n in "qkv"}
    wanted, todo = set(), [by_name[f"{form.block}.{form.out}"].id]
    while todo:
        node_id = todo.pop()
        if node_id not in wanted and node_id not in stop:
            wanted.add(node_id)
            todo += by_id[node_id].operands
    return [n for n in graph if n.id in wanted]


def cut(form: Form, heads: int, d: int, size: tuple[int, int], timesteps: int) -> tuple[Graph, str]:
    """A graph whose input [T, (q | k | v) codes] becomes events that feed the family's attention nodes.

    Of a node's attributes only the recording layout (which names a size) is left out and the heads are set.
    """
    graph = family_graph(form, heads, d, timesteps)
    c = heads * d
    widths = {"q": c, "k": c, "v": c * form.v_ratio}
    b = GraphBuilder("attention", timesteps, "float", input_time=True)
    x = b.add("input", id="x", shape=(sum(widths.values()), *size))
    names = {n.name: n for n in graph}
    renamed, start = {}, 0
    for n, width in widths.items():
        pick = np.zeros((width, sum(widths.values()), 1, 1))
        pick[np.arange(width), start + np.arange(width), 0, 0] = 1.0
        start += width
        source = names[f"{form.block}.{n}{form.neuron}"]
        current = b.add("conv2d", x, id=f"{n}_in", weight=b.tensor(f"{n}.pick", pick))
        renamed[source.id] = codes_as_events(b, current, source, n)
    for node in between(graph, form):
        attrs = {k: a for k, a in node.attrs.items() if not k.startswith("record")}
        if "heads" in attrs:
            attrs["heads"] = Attr(heads)
        uses = [Use(renamed[u.node], u.lag) for u in node.inputs]
        renamed[node.id] = b.add(node.op, *uses, name=node.name, **attrs)
    out = renamed[names[f"{form.block}.{form.out}"].id]
    b.add("readout", b.add("map", out, id="sum", mode="reduce"), id="read")
    return b.build(), out


def codes_as_events(b: GraphBuilder, current: str, source: Node, name: str) -> str:
    """A neuron that passes codes on as they are: a memoryless LIF, or the family's own multi-level spike."""
    if source.op == "multilevel":
        attrs = {k: a for k, a in source.attrs.items() if not k.startswith("record")}
        return b.add("multilevel", current, id=name, name=name, **attrs)
    return b.add("lif", current, id=name, name=name, tau=1.0, theta=0.5, reset="hard", compare="ge", decay_input=True)


def random_codes(form: Form, heads: int, d: int, size: tuple[int, int], timesteps: int, rates, seed: int) -> np.ndarray:
    """[B, T, q | k | v, H, W] codes: sample b is active at rate ``rates[b]``, an active code is 1..levels."""
    rng = np.random.default_rng(seed)
    shape = (timesteps, heads * d * (2 + form.v_ratio), *size)
    return np.stack([(rng.random(shape) < r) * rng.integers(1, form.levels + 1, shape) for r in rates])


def attend(form: Form, codes: np.ndarray, heads: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Output codes [B, T, C', N] of the interpreter and of the closed formula."""
    graph, out = cut(form, heads, d, codes.shape[3:], codes.shape[1])
    node = graph.node(out)
    value = interpret(graph, codes, values=[out]).values[out]
    got = np.rint(value * node.attr("norm", 1)).astype(int).swapaxes(0, 1)
    c = heads * d
    flat = codes.reshape(*codes.shape[:3], -1)
    q, k, v = flat[:, :, :c], flat[:, :, c : 2 * c], flat[:, :, 2 * c :]
    return got.reshape(*got.shape[:3], -1), CLOSED[form.family](q, k, v, heads)


# ---- closed formulas, in whole numbers ----


def sdsa1(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """A1 with E1: o[n, c] = q[n, c] and (or over tokens m of (k[m, c] and v[m, c])); heads do not mix channels."""
    return q & (k & v).any(axis=3, keepdims=True)


def counts(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """(q k^T) v per head, token by token; [B, T, C', N] whole numbers."""
    b, t, _, n = q.shape
    q, k, v = (x.reshape(b, t, heads, -1, n) for x in (q, k, v))
    scores = np.einsum("bthin,bthim->bthnm", q, k)
    return np.einsum("bthnm,bthjm->bthjn", scores, v).reshape(b, t, -1, n)


def ssa(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """A7: LIF (tau 2, theta 1/2, hard reset) of counts/8. In units of 2^-(T+3) every potential is whole."""
    total = counts(q, k, v, heads)
    steps = total.shape[1]
    unit = 1 << steps
    potential, out = np.zeros_like(total[:, 0]), []
    for t in range(steps):
        potential = (potential + total[:, t] * unit) // 2  # exact: both are multiples of 2^(T-t)
        fired = potential >= 4 * unit  # 1/2 = 4/8
        potential = np.where(fired, 0, potential)
        out.append(fired.astype(int))
    return np.stack(out, axis=1)


def esdsa(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """A8 with E6: codes of counts/64 * 2/sqrt(d), level by level: x >= n - 1/2 squared, ties to the even code."""
    total = counts(q, k, v, heads)
    d = q.shape[2] // heads
    code = np.zeros_like(total)
    for n in range(1, 5):
        left, right = (4 * total) ** 2, (2 * n - 1) ** 2 * 64**2 * d  # (2x)^2 and (2n - 1)^2, times 64^2*d
        code += (left > right) | ((left == right) & (n % 2 == 0))
    return code


CLOSED = {"sdt_v1": sdsa1, "spikformer": ssa, "sdt_v3": esdsa}

SIZES = {1: (1, 1), 7: (1, 7), 36: (4, 9), 196: (14, 14)}
WIDTHS = [(1, 12), (2, 24), (3, 7)]  # heads, d: never a square


@pytest.mark.parametrize("kind", list(FORMS))
@pytest.mark.parametrize("tokens", list(SIZES))
@pytest.mark.parametrize(("heads", "d"), WIDTHS)
def test_closed_form(kind: str, tokens: int, heads: int, d: int) -> None:
    """Rates from 5 to 90 %, one sample loud, T = 4: equal, active in every timestep, every code reached."""
    form = FORMS[kind]
    rates = np.repeat(RATES, 2 if tokens > 20 else 12)
    codes = random_codes(form, heads, d, SIZES[tokens], 4, rates, seed=tokens * 100 + d)
    codes[-1] = np.where(codes[-1] > 0, form.levels, 0)
    got, want = attend(form, codes, heads, d)
    assert np.array_equal(got, want)
    assert set(np.unique(got)) == set(range(1 + form.levels))
    first = 1 if (kind, tokens, d) == ("ssa", 1, 7) else 0  # a count of at most 7 of 8 needs two timesteps
    assert got.any(axis=(0, 2, 3))[first:].all()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(list(FORMS)),
    h=st.integers(1, 14),
    w=st.integers(1, 14),
    heads=st.integers(1, 3),
    d=st.integers(1, 20),
    timesteps=st.integers(3, 6),
    rate=st.floats(0.05, 0.9),
    seed=st.integers(0, 2**31),
)
def test_closed_form_anywhere(kind, h, w, heads, d, timesteps, rate, seed) -> None:
    form = FORMS[kind]
    codes = random_codes(form, heads, d, (h, w), timesteps, [rate, rate / 2], seed)
    got, want = attend(form, codes, heads, d)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("d", [4, 16])
def test_exact_ties_go_to_the_even_code(d: int) -> None:
    """For square d some counts lie exactly between two codes: with d = 16, 64 -> 0 and 320 -> 2 (E6)."""
    codes = random_codes(ESDSA, 1, d, (4, 5), 4, [0.3] * 20, seed=d)
    got, want = attend(ESDSA, codes, 1, d)
    assert np.array_equal(got, want)
    c = codes.reshape(*codes.shape[:3], -1)
    total = counts(c[:, :, :d], c[:, :, d : 2 * d], c[:, :, 2 * d :], 1)
    step = int(64 * np.sqrt(d) / 2)
    assert (total == step // 2).any()
    assert set(got[total == step // 2]) == {0}
    assert set(got[total == 5 * step // 2]) <= {2}
    assert set(got[total == 3 * step // 2]) <= {2}


def test_the_mask_has_no_memory() -> None:
    """E1: the theta-1/2 LIF over counts is an OR of this timestep, whatever came before."""
    rng = np.random.default_rng(3)
    codes = random_codes(SDSA1, 2, 5, (2, 2), 8, [0.3] * 40, seed=5)
    shuffled = codes[:, rng.permutation(8)]
    for one in (codes, shuffled):
        got, want = attend(SDSA1, one, 2, 5)
        assert np.array_equal(got, want)
        assert 0 < want.mean() < 0.3


# ---- removing the attention is noticed ----


@pytest.mark.parametrize("kind", list(FORMS))
@pytest.mark.parametrize(
    "broken", ["output is q", "k is all on", "one head", "q and k exchanged", "v of the next head"]
)
def test_a_broken_attention_is_noticed(kind: str, broken: str) -> None:
    """The closed form of something less: it must not equal what the graph computes."""
    form, heads, d = FORMS[kind], 2, 6
    codes = random_codes(form, heads, d, (3, 4), 4, np.repeat(RATES, 6), seed=11)
    got, want = attend(form, codes, heads, d)
    assert np.array_equal(got, want)
    c = heads * d
    flat = codes.reshape(*codes.shape[:3], -1)
    q, k, v = flat[:, :, :c], flat[:, :, c : 2 * c], flat[:, :, 2 * c :]
    closed = CLOSED[form.family]
    if broken == "output is q":
        wrong = np.tile(q, (1, 1, form.v_ratio, 1))
    elif broken == "k is all on":
        wrong = closed(q, np.full_like(k, form.levels), v, heads)
    elif broken == "q and k exchanged":
        wrong = closed(k, q, v, heads)
    elif broken == "v of the next head":
        wrong = closed(q, k, np.roll(v, v.shape[2] // heads, axis=2), heads)
    elif form is SDSA1:  # its heads are a layout only: any split gives the same
        assert np.array_equal(closed(q, k, v, 1), want)
        return
    else:
        wrong = closed(q, k, v, 1)
    assert (wrong != got).mean() > 1e-3


@pytest.mark.parametrize("kind", list(FORMS))
def test_the_graph_without_its_attention_computes_something_else(kind: str) -> None:
    """The readers of the attention's output are given q (or v) instead: population and logits change."""
    form = FORMS[kind]
    graph = tiny_models.graph(form.family)
    names = {n.name: n for n in graph}
    out = names[f"{form.block}.{form.out}"]
    q, v = (names[f"{form.block}.{n}{form.neuron}"] for n in "qv")
    stand_in = q if q.type == out.type else v
    uses = {out.id: stand_in.id}
    nodes = tuple(replace(n, inputs=tuple(Use(uses.get(u.node, u.node), u.lag) for u in n.inputs)) for n in graph)
    images = tiny_models.images(form.family, 6)
    a, b = interpret(graph, images, record="all"), interpret(replace(graph, nodes=nodes), images, record="all")
    changed = [name for name in a.codes if not np.array_equal(a.codes[name], b.codes[name])]
    after = list(a.codes).index(out.name if out.name in a.codes else f"{form.block}.talking_heads_lif")
    assert changed
    assert all(list(a.codes).index(name) > after for name in changed)
    assert np.abs(a.logits - b.logits).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "ops"),
    [("sdsa1", ["mul", "map", "lif", "mul"]), ("ssa", ["attn", "lif"]), ("esdsa", ["attn", "multilevel"])],
)
def test_what_is_tested_is_what_the_family_builds(kind: str, ops: list[str]) -> None:
    nodes = between(tiny_models.graph(FORMS[kind].family), FORMS[kind])
    assert [n.op for n in nodes] == ops
