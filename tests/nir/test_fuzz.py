"""Whatever a NIR file holds: a graph, or one error of nmc; no crash, no hang."""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nir_nets import DT, networks, tree

from nmc_compiler.errors import NmcError
from nmc_compiler.export.nir import nir_bytes, nir_tree
from nmc_compiler.frontends.nir import NirOptions, build, import_nir
from nmc_compiler.graph import Graph
from nmc_compiler.graph.verify import verify
from nmc_compiler.nir.rules import rule_of

pytest.importorskip("h5py", reason="writes and reads NIR files: pip install 'nmc[nir]'")
RUNS = int(os.environ.get("NMC_FUZZ", 150))  # NMC_FUZZ=20000 takes a few minutes


def junk(rng: random.Random) -> Any:
    """Anything that a dataset can be."""
    if rng.random() < 0.3:
        return rng.choice(["", "same", "LIF", "NIRGraph", "é", "a/b", "x" * 500, {}, {"type": "LIF"}, {"nodes": {}}])
    shape = tuple(rng.choice([0, 1, 1, 2, 3, 5]) for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 4, 5])))
    numbers = np.random.default_rng(rng.randrange(2**32))
    value = numbers.normal(size=shape) * 10.0 ** rng.choice([-300, -30, -3, 0, 0, 3, 30, 300])
    kind = rng.choice(["f8", "f4", "f2", "i8", "i1", "u8", "?"])
    with np.errstate(all="ignore"):
        array = np.asarray(value).astype(kind)
    if array.size and array.dtype.kind == "f" and rng.random() < 0.2:
        array.flat[0] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    return array


def groups_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [item, *(g for v in item.values() if isinstance(v, dict) for g in groups_of(v))]


def spoiled(root: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The tree with a few things changed, taken out, moved or added."""
    root = copy.deepcopy(root)
    for _ in range(rng.choice([1, 1, 2, 4])):
        group = rng.choice(groups_of(root))
        names = [*group]
        what = rng.random()
        if "edges" in group and what < 0.4:
            nodes, now = group.get("nodes"), group["edges"]
            ends = [*(nodes if isinstance(nodes, dict) else {}), "nowhere"]
            whole = isinstance(now, np.ndarray) and now.dtype == object and now.ndim == 2
            edges = [tuple(e) for e in now] if whole else []
            edges = rng.sample(edges, rng.randrange(len(edges) + 1))
            edges += [(rng.choice(ends), rng.choice(ends)) for _ in range(rng.randrange(3))]
            group["edges"] = np.array(edges, object).reshape(-1, 2)
        elif names and what < 0.6:
            group[rng.choice(names)] = junk(rng)
        elif names and what < 0.75:
            del group[rng.choice(names)]
        elif names and what < 0.9:
            group[rng.choice(names)] = group[rng.choice(names)]
        else:
            group[rng.choice(["r", "tau", "type", "n", "nmc:graph@1", "nmc:graph@2", "metadata"])] = junk(rng)
    return root


def outcome(root: Any, options: NirOptions) -> Graph | None:
    """The graph, verified, or None where nmc refused it."""
    try:
        graph = build(tree(root) if isinstance(root, dict) else root, options, "net")[0]
    except NmcError as error:
        assert str(error) and len(str(error)) < 2000
        return None
    verify(graph)
    return graph


@settings(max_examples=RUNS, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.randoms(use_true_random=False), st.sampled_from([DT, 1.0, 1e-9]))
def test_spoiled_graphs(root, rng, dt):
    outcome(spoiled(root, rng), NirOptions(dt))


@settings(max_examples=RUNS, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.randoms(use_true_random=False))
def test_spoiled_extensions(root, rng):
    """Files with nmc's extension, too: their text and their arrays."""
    graph = outcome(root, NirOptions(DT, rule="snntorch"))
    assert graph is not None
    content, _ = nir_tree(graph, rule_of("spikingjelly"), DT, extension=True)
    outcome(spoiled(content["node"], rng), NirOptions(DT))


def bent(data: bytes, rng: random.Random) -> bytes:
    """A file with bytes changed, taken out or put in."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 2, 8, 40])):
        at = rng.randrange(len(out))
        what = rng.random()
        if what < 0.8:
            out[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif what < 0.9:
            del out[at : at + rng.choice([1, 8, 500])]
        else:
            out[at:at] = rng.randbytes(rng.choice([1, 8]))
    return bytes(out)


@pytest.mark.parametrize("seed", range(RUNS // 12))
def test_bent_files(tmp_path, seed):
    """Bytes of a file changed: the HDF5 library itself crashes on some, in a process of its own."""
    rng = random.Random(seed)
    data = nir_bytes({"version": "1.0.8", "node": networks_of(seed)})
    path = tmp_path / "net.nir"
    path.write_bytes(bent(data, rng))
    read_file(path)


def networks_of(seed: int) -> dict[str, Any]:
    from nir_nets import chain, ends, lif, node

    rng = np.random.default_rng(seed)
    first, last = ends((4,), (3,))
    return chain(i=first, w=node("Linear", weight=rng.normal(size=(3, 4))), n=lif((3,)), o=last)


def read_file(path: Path) -> None:
    try:
        verify(import_nir(path, NirOptions(DT)).graph)
    except NmcError as error:
        assert str(path) in str(error) and len(str(error)) < 2000
