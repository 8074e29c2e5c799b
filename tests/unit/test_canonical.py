"""Graphs that mean the same have one canonical text; graphs that do not, do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.graph import Attr, Graph, GraphBuilder, Node, Use, rebuild
from nmc_compiler.graph.canonical import canonical
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text

LIF = {"tau": 2.0, "theta": 1.0, "reset": "hard", "compare": "ge", "decay_input": True}


def text(graph: Graph) -> str:
    return to_text(canonical(graph))


def net(swap: bool = False, weight: float = 1.0, evidence: str = "trace", factor_first: bool = True) -> Graph:
    """Two layers whose currents add up, and a head with a factor and a bias."""
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=(3, 2, 1, 1)) for k in "ab"}
    b = GraphBuilder("net", 4, "float")
    x = b.add("input", id="x", shape=Attr((2, 2, 3), evidence))
    s = b.add("lif", b.add("conv2d", x, weight=b.tensor("w0", np.eye(2)[:, :, None, None])), name="s", **LIF)
    terms = [b.add("conv2d", s, weight=b.tensor(k, arrays[k] * (weight if k == "a" else 1.0))) for k in "ab"]
    total = b.add("add", *(reversed(terms) if swap else terms))
    t = b.add("lif", total, name="t", **LIF)
    b.add("conv2d", t, name="dead", weight=b.tensor("dead", np.ones((1, 3, 1, 1))))
    counts = b.add("sum_positions", t)
    head = {"weight": b.tensor("head", rng.normal(size=(4, 3, 1, 1)))}
    bias = b.tensor("bias", np.arange(4.0) / 6)
    if factor_first:
        b.add("readout", b.add("conv2d", b.add("scale", counts, factor=0.5), **head, bias=bias), name="head")
    else:
        b.add("readout", b.add("scale", b.add("conv2d", counts, **head), factor=0.5), name="head", bias=bias)
    return b.build()


@pytest.mark.parametrize("change", [{"swap": True}, {"evidence": "config"}, {"factor_first": False}])
def test_what_does_not_matter(change: dict[str, object]) -> None:
    assert text(net(**change)) == text(net())  # type: ignore[arg-type]


def test_what_matters() -> None:
    others = [net(weight=1.0000001)]
    for attr in ({"theta": Attr(0.5)}, {"reset": Attr("soft")}, {"gain": Attr(2.0)}):
        graph = net()
        others.append(rebuild(graph, [n.with_attrs(**attr) if n.name == "s" else n for n in graph]))
    renamed = net()
    others.append(rebuild(renamed, [replace(n, name="u") if n.name == "s" else n for n in renamed]))
    assert len({text(g) for g in [net(), *others]}) == len(others) + 1


def test_single_precision_weights_are_their_double_copies() -> None:
    graph = net()
    single = {k: v.astype(np.float32) for k, v in graph.tensors.items()}
    double = {k: v.astype(np.float64) for k, v in single.items()}
    assert text(replace(graph, tensors=single)) == text(replace(graph, tensors=double))


def test_it_computes_the_same() -> None:
    images = np.random.default_rng(1).normal(1.0, 1.0, (5, 2, 2, 3))
    for graph in (net(), net(factor_first=False)):
        before, after = interpret(graph, images, record="all"), interpret(canonical(graph), images, record="all")
        np.testing.assert_allclose(before.logits, after.logits, rtol=0, atol=1e-12)
        assert all(np.array_equal(before.codes[k], after.codes[k]) for k in before.codes)


def test_canonical_is_canonical() -> None:
    once = canonical(net())
    assert to_text(canonical(once)) == to_text(once)


def _shuffled(graph: Graph, order: Callable[[list[str]], str], names: dict[str, str]) -> Graph:
    """The same nodes under other ids, in another order that keeps operands first."""
    waiting, nodes = {n.id: n for n in graph}, list[Node]()
    while waiting:
        ready = [i for i, n in waiting.items() if not any(u.node in waiting and not u.lag for u in n.inputs)]
        found = waiting.pop(order(ready))
        inputs = tuple(Use(names[u.node], u.lag) for u in found.inputs)
        nodes.append(replace(found, id=names[found.id], inputs=inputs))
    return replace(graph, nodes=tuple(nodes))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ids_and_order_do_not_matter(data: st.DataObject) -> None:
    graph = net(swap=data.draw(st.booleans()), factor_first=data.draw(st.booleans()))
    ids = [n.id for n in graph]
    fresh = data.draw(st.permutations([f"v{k}" for k in range(len(ids))]))
    other = _shuffled(graph, lambda ready: data.draw(st.sampled_from(ready)), dict(zip(ids, fresh, strict=True)))
    assert text(other) == text(net())
