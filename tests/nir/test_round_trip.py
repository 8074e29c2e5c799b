"""From NIR and back to NIR: the same graph, its text and every number."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nir_nets import DT, networks, read

from nmc_compiler.export.nir import nir_bytes, nir_tree
from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.text import to_text
from nmc_compiler.nir.rules import RESETS, RULES, rule_of


def again(graph: Graph, rule: str, reset: str | None) -> Graph:
    """A graph that went to NIR and came back."""
    tree, _ = nir_tree(graph, rule_of(rule, reset), DT)
    return read(tree["node"], rule=rule, reset=reset)


def same(a: Graph, b: Graph) -> None:
    assert to_text(a) == to_text(b)
    assert a.tensors.keys() == b.tensors.keys()
    for key, array in a.tensors.items():
        assert array.dtype == b.tensors[key].dtype and np.array_equal(array, b.tensors[key]), key


@settings(max_examples=150, deadline=None)
@given(networks(), st.sampled_from(sorted(RULES)), st.sampled_from([None, *RESETS]))
def test_round_trip_is_the_identity(root, rule, reset):
    graph = read(root, rule=rule, reset=reset)
    same(graph, again(graph, rule, reset))


def beyond_nir(node: Node, graph: Graph) -> bool:
    """What nir 1.0.8's own type check gets wrong: convolutions in groups, and kernels that are not square."""
    if node.op != "conv2d":
        return False
    _, _, height, width = graph.tensor(node, "weight").shape
    return node.attr("groups", 1) > 1 or height != width


@settings(max_examples=60, deadline=None)
@given(networks())
def test_the_reference_reader_takes_it(root):
    nir = pytest.importorskip("nir.serialization", reason="the reference reader: pip install 'nmc[nir]'")
    graph = read(root)
    checked = not any(beyond_nir(n, graph) for n in graph)
    found = nir.read(io.BytesIO(nir_bytes(nir_tree(graph, rule_of("euler"), DT)[0])), type_check=checked)
    assert set(found.nodes) == {n.name for n in graph if n.name}
