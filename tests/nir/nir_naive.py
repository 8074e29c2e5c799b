"""What a NIR graph computes, said a second time: node by node and timestep by timestep, from NIR's equations.

Forward Euler, reset to a value, strict threshold. A neuron that is asked for its own spikes while it is being
computed answers with those of the timestep before.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def run(root: dict[str, Any], x: np.ndarray, dt: float) -> np.ndarray:
    """The only output [T, ...] for the only input [T, ...]."""
    nodes, edges = _flat(root, "")
    twin = _Twin(nodes, edges, x, dt)
    [out] = [n for n, d in nodes.items() if d["type"] == "Output"]
    return np.stack([twin.value(out, t) for t in range(len(x))])


def _flat(root: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nested graphs are opened; their Inputs and Outputs hand on what they read."""
    nodes: dict[str, Any] = {}
    edges = []
    for name, item in root["nodes"].items():
        if item["type"] == "NIRGraph":
            inner, links = _flat(item, f"{prefix}{name}.")
            for key, node in inner.items():
                nodes[key] = {"type": "Pass"} if node["type"] in ("Input", "Output") else node
            edges += links
        else:
            nodes[prefix + name] = item
    for a, b in root["edges"]:
        source, target = root["nodes"][a], root["nodes"][b]
        start = f"{a}.output" if source["type"] == "NIRGraph" else a
        end = f"{b}.input" if target["type"] == "NIRGraph" else b
        edges.append((prefix + start, prefix + end))
    return nodes, edges


class _Twin:
    def __init__(self, nodes: dict[str, Any], edges: list[tuple[str, str]], x: np.ndarray, dt: float) -> None:
        self.nodes, self.x, self.dt = nodes, x, dt
        self.reads = {n: [a for a, b in edges if b == n] for n in nodes}
        self.known: dict[tuple[str, int], np.ndarray] = {}
        self.state: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self.busy: set[str] = set()

    def value(self, name: str, t: int) -> Any:
        if t < 0:
            return 0.0
        if (name, t) in self.known:
            return self.known[name, t]
        node = self.nodes[name]
        if name in self.busy:
            return self.value(name, t - 1)
        if node["type"] == "Input":
            return self.x[t]
        if node["type"] == "Delay":
            return self.delayed(name, node, t)
        self.busy.add(name)
        x = sum((np.asarray(self.value(s, t), float) for s in self.reads[name]), start=np.zeros(()))
        self.busy.discard(name)
        found = self.known[name, t] = self.apply(name, node, x, t)
        return found

    def delayed(self, name: str, node: dict[str, Any], t: int) -> np.ndarray:
        steps = np.rint(np.asarray(node["delay"]) / self.dt).astype(int)
        out = np.zeros(steps.shape)
        for k in np.unique(steps):
            past = sum((np.asarray(self.value(s, t - int(k)), float) for s in self.reads[name]), start=np.zeros(()))
            out[steps == k] = np.broadcast_to(past, steps.shape)[steps == k]
        return out

    def apply(self, name: str, node: dict[str, Any], x: np.ndarray, t: int) -> np.ndarray:
        kind = node["type"]
        if kind in ("Linear", "Affine"):
            return node["weight"].astype(float) @ x + node.get("bias", 0.0)
        if kind == "Scale":
            return x * node["scale"]
        if kind == "Flatten":
            start = node["start_dim"]
            return x.reshape(*x.shape[:start], -1)
        if kind.startswith("Conv"):
            return _conv(node, x)
        if kind.endswith("Pool2d"):
            return _pool(node, x)
        if kind in ("Output", "Pass"):
            return x
        if kind == "Threshold":
            return (x > node["threshold"]).astype(float)
        return self.neuron(name, node, x, t)

    def neuron(self, name: str, node: dict[str, Any], x: np.ndarray, t: int) -> np.ndarray:
        dt, kind = self.dt, node["type"]
        rest = node.get("v_leak", 0.0)
        old = self.state.get((name, t - 1), {"i": np.zeros(()), "v": np.asarray(rest, float)})
        i = x
        if kind.startswith("Cuba"):
            i = old["i"] + dt / node["tau_syn"] * (node.get("w_in", 1.0) * x - old["i"])
        tau = node.get("tau", node.get("tau_mem"))
        drive = node["r"] * i
        v = old["v"] + (dt * drive if tau is None else dt / tau * (rest - old["v"] + drive))
        if "v_threshold" not in node:
            self.state[name, t] = {"i": i, "v": v}
            return v
        fires = v > node["v_threshold"]
        self.state[name, t] = {"i": i, "v": np.where(fires, node.get("v_reset", 0.0), v)}
        return fires.astype(float)


def _conv(node: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """One output value after the other."""
    w, axes = node["weight"].astype(float), node["weight"].ndim - 2
    pad, groups = node["padding"], node["groups"]
    if isinstance(pad, str):
        total = [d * (k - 1) if pad == "same" else 0 for d, k in zip(node["dilation"], w.shape[2:], strict=True)]
        pads = [(n // 2, n - n // 2) for n in total]
    else:
        pads = [(p, p) for p in pad]
    xp = np.pad(x, [(0, 0), *pads])
    span = [d * (k - 1) + 1 for d, k in zip(node["dilation"], w.shape[2:], strict=True)]
    sizes = [(xp.shape[1 + a] - span[a]) // node["stride"][a] + 1 for a in range(axes)]
    out = np.zeros((len(w), *sizes))
    per = len(w) // groups
    for place in np.ndindex(*out.shape):
        first = (place[0] // per) * w.shape[1]
        for at in np.ndindex(*w.shape[1:]):
            where = [place[1 + a] * node["stride"][a] + at[1 + a] * node["dilation"][a] for a in range(axes)]
            out[place] += w[(place[0], *at)] * xp[(first + at[0], *where)]
    return out + np.asarray(node["bias"]).reshape(-1, *[1] * axes)


def _pool(node: dict[str, Any], x: np.ndarray) -> np.ndarray:
    (kh, kw), (sy, sx), (py, px) = node["kernel_size"], node["stride"], node["padding"]
    xp = np.pad(x, [(0, 0), (py, py), (px, px)])
    rows, columns = (xp.shape[1] - kh) // sy + 1, (xp.shape[2] - kw) // sx + 1
    out = np.array(
        [
            [xp[:, r * sy : r * sy + kh, c * sx : c * sx + kw].sum(axis=(1, 2)) for c in range(columns)]
            for r in range(rows)
        ]
    )
    return out.transpose(2, 0, 1) / (kh * kw if node["type"] == "AvgPool2d" else 1)
