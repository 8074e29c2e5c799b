"""NIR graphs as the trees that their files hold, written by hand or at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.frontends.nir import NirOptions, build
from nmc_compiler.graph import Graph

DT = 1e-3


def graph(nodes: dict[str, Any], *edges: tuple[str, str]) -> dict[str, Any]:
    return {"type": "NIRGraph", "nodes": nodes, "edges": np.array(edges, object).reshape(-1, 2)}


def chain(**nodes: Any) -> dict[str, Any]:
    """Nodes one after the other."""
    names = list(nodes)
    return graph(nodes, *zip(names, names[1:], strict=False))


def node(type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, **fields}


def ends(shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    return node("Input", shape=np.array(shape)), node("Output", shape=np.array(out))


def lif(shape: tuple[int, ...] = (), tau: float = 5e-3, theta: float = 0.3, **more: Any) -> dict[str, Any]:
    full = {"tau": tau, "r": 1.0, "v_leak": 0.0, "v_threshold": theta, **more}
    return node("LIF", **{key: np.full(shape, value) for key, value in full.items()})


def conv(weight: np.ndarray, **more: Any) -> dict[str, Any]:
    dims = weight.ndim - 2
    usual = {"stride": [1] * dims, "padding": [0] * dims, "dilation": [1] * dims, "groups": 1}
    return node(f"Conv{dims}d", weight=weight, **{"bias": np.zeros(len(weight)), **usual, **more})


def tree(root: dict[str, Any]) -> Hdf5Group:
    return Hdf5Group.of("net.nir", {"version": "1.0.8", "node": root})


def read(root: dict[str, Any], dt: float | None = DT, name: str = "net", **options: Any) -> Graph:
    """The float graph of a NIR graph."""
    return entries(root, dt, name, **options)[0]


def entries(root: dict[str, Any], dt: float | None = DT, name: str = "net", **options: Any):
    """The float graph, the entries of the report by node, and the notes."""
    found, report, notes = build(tree(root), NirOptions(dt, **options), name)
    return found, {entry["layer"]: entry for entry in report}, notes


# ---- at random ----


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """Layers over images, signals or vectors, with branches, loops, delays and graphs within graphs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(4,), (3, 6), (2, 5, 4), (1, 1, 3)]))
    nodes: dict[str, Any] = {"in": node("Input", shape=np.array(shape))}
    edges: list[tuple[str, str]] = []
    at, neurons = "in", []
    for i in range(draw(st.integers(1, 6))):
        made = draw(st.sampled_from(_MAKERS))(draw, rng, shape)
        if made is None:
            continue
        item, out, fires = made
        name = f"{'n' if fires else 'x'}{i}"
        nodes[name] = _nested(item, shape, out) if draw(st.booleans()) and draw(st.booleans()) else item
        edges.append((at, name))
        if fires and draw(st.booleans()):
            edges += _loop(draw, rng, nodes, name, out)
        if neurons and draw(st.booleans()) and neurons[-1][1] == out and fires:
            edges.append((neurons[-1][0], name))  # a second way into the neuron
        neurons += [(name, out)] if fires else []
        at, shape = name, out
    nodes["out"] = node("Output", shape=np.array(shape))
    edges.append((at, "out"))
    return graph(nodes, *dict.fromkeys(edges))


def _nested(item: dict[str, Any], shape: tuple[int, ...], out: tuple[int, ...]) -> dict[str, Any]:
    first, last = ends(shape, out)
    return chain(input=first, it=item, output=last)


def _loop(draw: st.DrawFn, rng: np.random.Generator, nodes: dict[str, Any], name: str, shape: tuple[int, ...]):
    """From a neuron back to itself."""
    kind = draw(st.sampled_from(["self", "scale", "delay"]))
    if kind == "self":
        return [(name, name)]
    back = f"{name}back"
    late = draw(st.integers(1, 4)) * DT
    nodes[back] = (
        node("Scale", scale=rng.normal(size=shape)) if kind == "scale" else node("Delay", delay=np.full(shape, late))
    )
    return [(name, back), (back, name)]


def _parameter(
    draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float
) -> np.ndarray:
    form = draw(st.sampled_from(["one", "same", "each"]))
    if form == "each":
        return rng.uniform(low, high, shape)
    value = rng.uniform(low, high)
    return np.array(value, np.float32) if form == "one" else np.full(shape, value)


def _neuron(draw, rng, shape):
    kind = draw(st.sampled_from(["LIF", "IF", "CubaLIF", "Threshold", "LI", "I", "CubaLI"]))

    def given(low, high):
        return _parameter(draw, rng, shape, low, high)

    fields = {"r": given(-50.0, 400.0)} if kind != "Threshold" else {"threshold": given(-1.0, 1.0)}
    if kind in ("LIF", "LI"):
        fields |= {"tau": given(DT, 0.1), "v_leak": given(-0.5, 0.5) if draw(st.booleans()) else np.zeros(())}
    if kind.startswith("Cuba"):
        fields |= {"tau_mem": given(DT, 0.1), "tau_syn": given(DT, 10.0), "v_leak": np.zeros(())}
        fields |= {"w_in": given(0.1, 2.0)} if draw(st.booleans()) else {}
    if kind.endswith("IF"):
        fields |= {"v_threshold": given(0.1, 1.0)}
        fields |= {"v_reset": given(-0.3, 0.1)} if draw(st.booleans()) else {}
    return node(kind, **fields), shape, True


def _linear(draw, rng, shape):
    if len(shape) > 1:
        return None
    out = draw(st.integers(1, 5))
    weight = rng.normal(size=(out, shape[0])).astype(np.float32)
    if draw(st.booleans()):
        return node("Affine", weight=weight, bias=rng.normal(size=out).astype(np.float32)), (out,), False
    return node("Linear", weight=weight), (out,), False


def _conv(draw, rng, shape):
    if len(shape) == 1:
        return None
    dims = len(shape) - 1
    groups = shape[0] if draw(st.booleans()) else 1
    out = groups * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, min(3, n))) for n in shape[1:]]
    weight = rng.normal(size=(out, shape[0] // groups, *kernel)).astype(np.float32)
    if draw(st.booleans()):
        pad: Any = draw(st.sampled_from(["same", "valid"]))
        stride = [1] * dims
    else:
        pad, stride = [draw(st.integers(0, 1)) for _ in kernel], [draw(st.integers(1, 2)) for _ in kernel]
    extra = [0, 0] if isinstance(pad, str) else pad
    sizes = [
        n if pad == "same" else (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(shape[1:], kernel, stride, extra, strict=False)
    ]
    bias = rng.normal(size=out) if draw(st.booleans()) else np.zeros(out)
    fields = {"stride": stride, "padding": pad, "groups": groups, "bias": bias}
    return conv(weight, **fields), (out, *sizes), False


def _pool(draw, rng, shape):
    if len(shape) != 3 or min(shape[1:]) < 2:
        return None
    kind = draw(st.sampled_from(["SumPool2d", "AvgPool2d"]))
    fields = {"kernel_size": [2, 2], "stride": [2, 1], "padding": [draw(st.integers(0, 1)), 0]}
    out = ((shape[1] + 2 * fields["padding"][0] - 2) // 2 + 1, shape[2] - 1)
    return node(kind, **fields), (shape[0], *out), False


def _flatten(draw, rng, shape):
    start = draw(st.integers(0, len(shape) - 1))
    out = (*shape[:start], int(np.prod(shape[start:])))
    return node("Flatten", start_dim=start, end_dim=-1), out, False


def _scale(draw, rng, shape):
    return node("Scale", scale=_parameter(draw, rng, shape, -2.0, 2.0)), shape, False


def _delay(draw, rng, shape):
    return node("Delay", delay=rng.integers(0, 5, shape) * DT), shape, False


_MAKERS = [_neuron, _neuron, _neuron, _linear, _conv, _conv, _pool, _flatten, _scale, _delay]
