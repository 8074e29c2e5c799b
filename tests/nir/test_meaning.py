"""Random networks of all primitives compute what NIR's equations say."""

from __future__ import annotations

import nir_naive
import numpy as np
from hypothesis import given, settings
from nir_nets import DT, networks, read

from nmc_compiler.graph.interpret import interpret

STEPS = 12


@settings(max_examples=100, deadline=None, derandomize=True)  # a potential may come within rounding of its threshold
@given(networks())
def test_networks_compute_what_nir_says(root):
    graph = read(root)
    shape = tuple(root["nodes"]["in"]["shape"])
    x = (np.random.default_rng(len(root["nodes"])).random((STEPS, *shape)) < 0.5).astype(float)
    want = nir_naive.run(root, x, DT)
    found = interpret(graph, x.reshape(1, STEPS, *graph.sources[0].type.shape)).outputs["out"]
    assert want[0].size == found[0].size
    assert np.allclose(found.reshape(STEPS, -1), want.reshape(STEPS, -1), 1e-4, 1e-4 * max(1.0, np.abs(want).max()))
