"""A float SpikeGraph in NIR's words: nodes, fields and edges, or a reason why a node cannot be said.

The inverse of the NIR front end: read back under the same rule and timestep, it is the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label
from nmc_compiler.nir.rules import RESETS, Rule, input_factor, time_constants

Fields = dict[str, Any]
DEFAULT_CONV = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1)}
_STATE = ("alpha", "beta", "gain", "gain_v", "leak", "start_v", "current")
KNOWN = {  # attributes that are said, or left out because the front end puts them back
    "input": ("shape", "bits", "signed"),
    "output": (),
    "conv2d": ("weight", "bias", "groups", *DEFAULT_CONV),
    "scale": ("factor",),
    "sumpool2d": ("kernel", "stride", "pad"),
    "reshape": ("shape",),
    "delay": ("steps",),
    "neuron": (*_STATE, "theta", "v_reset", "reset", "reset_at", "compare", "fire"),
    "integrator": _STATE,
}


class Unsaid(Exception):
    """NIR has no words for a node; the text continues "NODE ..."."""


@dataclass
class Said:
    """Nodes and edges in NIR's words. ``unsaid``: by node id, why it is missing there. ``notes`` for the user."""

    nodes: dict[str, Fields] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    unsaid: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def say(graph: Graph, rule: Rule, dt: float) -> Said:
    """Every node that NIR has words for, and the edges among them."""
    return _Speaker(graph, rule, dt).run()


def name_of(node: Node) -> str:
    return node.name or node.id


class _Speaker:
    def __init__(self, graph: Graph, rule: Rule, dt: float) -> None:
        self.graph, self.rule, self.dt = graph, rule, dt
        self.by_id, self.readers = graph.by_id(), graph.users()
        self.said = Said()
        self.signals = self._are_signals()
        self.hidden = {n.id for n in graph if self._is_hidden(n)}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for node in graph:
            self.shapes[node.id] = self._shape(node)

    def run(self) -> Said:
        for node in self.graph:
            if node.id in self.hidden:
                continue
            try:
                if name_of(node) in self.said.nodes:
                    raise Unsaid(f"has the name of another node, '{name_of(node)}'")
                self.said.nodes[name_of(node)] = self._fields(node)
            except Unsaid as why:
                self.said.unsaid[node.id] = str(why)
        self._edges()
        return self.said

    # ---- what NIR leaves unsaid ----

    def _is_hidden(self, node: Node) -> bool:
        """Nodes without a name of their own that the front end puts back: sums, and values read in another shape."""
        if node.name:
            return False
        if node.op == "add":
            return True
        if node.op == "map":
            return node.attr("mode") == "same" and all(r.op == "add" for r in self.readers[node.id])
        if node.op == "reshape":
            return len(self.readers[node.id]) == 1
        return node.op == "sumpool2d" and self._average_of(node) is not None

    def _average_of(self, pool: Node) -> Node | None:
        """The scale that makes an average of a sum pool."""
        readers = self.readers[pool.id]
        if len(readers) != 1 or readers[0].op != "scale" or readers[0].inputs[0].lag:
            return None
        return readers[0] if readers[0].attr("factor") == 1.0 / math.prod(pool.attr("kernel")) else None

    def _edges(self) -> None:
        """Edges between nodes, through hidden ones."""
        edges: set[tuple[str, str]] = set()
        for node in self.graph:
            if node.id in self.hidden:
                continue
            for use in node.inputs:
                for source in self._origins(use.node):
                    edge = (name_of(self.by_id[source]), name_of(node))
                    if edge in edges:
                        self.said.unsaid.setdefault(node.id, f"reads '{edge[0]}' twice")
                    edges.add(edge)
        self.said.edges = sorted(edges)

    def _origins(self, node_id: str) -> list[str]:
        if node_id not in self.hidden:
            return [node_id]
        return [o for use in self.by_id[node_id].inputs for o in self._origins(use.node)]

    # ---- shapes ----

    def _are_signals(self) -> bool:
        """Whether everything with H = 1 is made of 1D convolutions, so that its shape can be said as (C, L)."""
        for node in self.graph:
            shapes = [self.by_id[use.node].type.shape for use in node.inputs]
            flat = any(shape[1] == 1 < shape[2] for shape in shapes)
            if flat and (node.op in ("sumpool2d", "maxpool2d") or (node.op == "conv2d" and not self._one_row(node))):
                return False
        return True

    def _one_row(self, node: Node) -> bool:
        weight = self.graph.tensor(node, "weight")
        assert weight is not None
        plain = all(node.attr(key, usual)[0] == usual[0] for key, usual in DEFAULT_CONV.items())
        return plain and weight.shape[2] == 1

    def _shape(self, node: Node) -> tuple[int, ...]:
        """What NIR says a node gives: (N,), (C, L) or (C, H, W), as its kind and what it reads have it."""
        weight = self.graph.tensor(node, "weight") if node.op == "conv2d" else None
        if weight is not None:
            axes = self._axes(node)
            return node.type.shape[:1] if axes == 1 else (len(weight), *node.type.shape[4 - axes :])
        if node.op == "sumpool2d":
            return node.type.shape
        if node.op == "reshape":
            flat = self._flattening(node)
            return self._plain(node.type.shape) if flat is None or node.id in self.hidden else flat[2]
        read = [
            self.shapes[u.node] for u in node.inputs if not u.lag and self.by_id[u.node].type.shape == node.type.shape
        ]
        return read[0] if read else self._plain(node.type.shape)

    def _plain(self, canonical: tuple[int, int, int]) -> tuple[int, ...]:
        """Where nothing else tells."""
        c, h, w = canonical
        if h == w == 1:
            return (c,)
        return (c, w) if h == 1 and self.signals else (c, h, w)

    def _read(self, node: Node) -> tuple[int, ...]:
        """The shape of a node's operand."""
        use = node.inputs[0]
        return self.shapes.get(use.node) or self._plain(self.by_id[use.node].type.shape)

    def _axes(self, node: Node) -> int:
        """1 where a convolution is a matrix, 2 where it is one of signals, else 3."""
        weight, read = self.graph.tensor(node, "weight"), self._read(node)
        assert weight is not None
        plain = {key: node.attr(key, usual) for key, usual in DEFAULT_CONV.items()} == DEFAULT_CONV
        if len(read) == 1 and weight.shape[2:] == (1, 1) and plain and node.attr("groups", 1) == 1:
            return 1
        return 2 if len(read) == 2 and self._one_row(node) else 3

    def _flattening(self, node: Node) -> tuple[int, int, tuple[int, ...]] | None:
        """First and last axis that a reshape joins, and what comes out; as few axes as can be."""
        read = self._read(node)
        found = [
            (start, end, (*read[:start], math.prod(read[start : end + 1]), *read[end + 1 :]))
            for start in range(len(read))
            for end in range(start, len(read))
        ]
        fitting = [item for item in found if _canonical(item[2]) == node.type.shape]
        return min(fitting, key=lambda item: len(item[2]), default=None)

    def source(self, node: Node) -> Node:
        return self.by_id[node.inputs[0].node]

    # ---- nodes ----

    def _fields(self, node: Node) -> Fields:
        speak: dict[str, Callable[[Node], Fields]] = {
            "input": lambda n: {"type": "Input", "shape": self._numbers(self.shapes[n.id])},
            "output": lambda n: {"type": "Output", "shape": self._numbers(self.shapes[n.id])},
            "conv2d": self._conv,
            "scale": self._scale,
            "sumpool2d": lambda n: {"type": "SumPool2d", **self._window(n)},
            "reshape": self._flatten,
            "delay": self._delay,
            "neuron": self._neuron,
            "integrator": self._integrator,
        }
        if node.op not in speak:
            raise Unsaid(f"is a '{node.op}', which NIR has no node for")
        odd = next((key for key in node.attrs if key not in KNOWN[node.op]), None)
        if odd is not None:
            raise Unsaid(f"has {odd}, for which NIR has no field")
        if node.op not in ("input", "neuron", "integrator", "delay") and any(u.lag for u in node.inputs):
            self._check_lag(node)
        return speak[node.op](node)

    def _check_lag(self, node: Node) -> None:
        if any(u.lag > 1 for u in node.inputs):
            raise Unsaid(f"reads a value {max(u.lag for u in node.inputs)} timesteps late; NIR says that with a Delay")

    @staticmethod
    def _numbers(values: tuple[int, ...]) -> np.ndarray:
        return np.array(values, np.int64)

    def _bias(self, node: Node) -> np.ndarray:
        weight, bias = self.graph.tensor(node, "weight"), self.graph.tensor(node, "bias")
        assert weight is not None
        return np.zeros(len(weight), weight.dtype) if bias is None else bias

    def _conv(self, node: Node) -> Fields:
        weight, bias = self.graph.tensor(node, "weight"), self._bias(node)
        assert weight is not None
        axes, source = self._axes(node), self.source(node).type.shape
        if axes == 1:
            matrix = weight[:, :, 0, 0]
            if self.graph.tensor(node, "bias") is None:
                return {"type": "Linear", "weight": matrix}
            return {"type": "Affine", "weight": matrix, "bias": bias}
        one = axes == 2
        keys = {"stride": "stride", "padding": "pad", "dilation": "dilation"}
        shape: Fields = {key: self._numbers(node.attr(attr, DEFAULT_CONV[attr])[one:]) for key, attr in keys.items()}
        fields: Fields = {"type": "Conv1d", "weight": weight[:, :, 0]} if one else {"type": "Conv2d", "weight": weight}
        if one:
            shape = {key: int(value[0]) for key, value in shape.items()}
        size = int(source[2]) if one else self._numbers(source[1:])
        return fields | {"bias": bias, "groups": int(node.attr("groups", 1)), "input_shape": size, **shape}

    def _window(self, node: Node) -> Fields:
        stride, pad = node.attr("stride", (1, 1)), node.attr("pad", (0, 0))
        attrs = {"kernel_size": node.attr("kernel"), "stride": stride, "padding": pad}
        return {key: self._numbers(value) for key, value in attrs.items()}

    def _scale(self, node: Node) -> Fields:
        source = self.source(node)
        if source.id in self.hidden and source.op == "sumpool2d":
            return {"type": "AvgPool2d", **self._window(source)}
        return {"type": "Scale", "scale": self._full(node, "factor")}

    def _flatten(self, node: Node) -> Fields:
        read, found = self._read(node), self._flattening(node)
        if found is None:
            raise Unsaid(f"reshapes {list(read)} to {list(self._plain(node.type.shape))}; NIR can only flatten")
        start, end, _ = found
        ends = {"start_dim": start, "end_dim": end - len(read)}
        return {"type": "Flatten", **ends, "input_type": self._numbers(read)}

    def _delay(self, node: Node) -> Fields:
        steps = self._full(node, "steps", np.int64) + node.inputs[0].lag
        return {"type": "Delay", "delay": steps * self.dt}

    # ---- neurons ----

    def _value(self, node: Node, key: str, default: float) -> np.ndarray:
        """A parameter as [1] or [C, H, W]."""
        value = node.attr(key, default)
        if isinstance(value, (int, float)):
            return np.array([float(value)])
        array = self.graph.tensors[value.key].astype(np.float64)
        return array[:, None, None] if array.ndim == 1 else array

    def _full(self, node: Node, key: str, dtype: Any = np.float64) -> np.ndarray:
        return self._spread(node, self._value(node, key, 0.0)).astype(dtype)

    def _spread(self, node: Node, value: np.ndarray) -> np.ndarray:
        """One value per element, in NIR's shape."""
        whole = np.broadcast_to(value, node.type.shape) if value.ndim == 3 else np.full(node.type.shape, value[0])
        return np.ascontiguousarray(whole.reshape(self.shapes[node.id]))

    def _neuron(self, node: Node) -> Fields:
        self._check_lag(node)
        rule, threshold = self.rule, node.attr("reset") == "none"
        if node.attr("compare") != rule.compare:
            what = {"ge": "at its threshold, too", "gt": "above its threshold only"}[node.attr("compare")]
            raise Unsaid(f"fires {what}; the rule {rule.name} reads it otherwise (--nir-rule)")
        if node.attr("fire", "new") == "old":
            raise Unsaid("fires on its potential before the update, for which NIR has no field")
        if threshold:
            if set(node.attrs) - {"beta", "theta", "reset", "compare"} or node.attr("beta") != 0.0:
                raise Unsaid("keeps its potential when it fires (reset none)")
            return {"type": "Threshold", "threshold": self._full(node, "theta")}
        have = (node.attr("reset"), node.attr("reset_at", "same"))
        if have != RESETS[rule.reset]:
            names = [name for name, kind in RESETS.items() if kind == have]
            how = f"resets by '{names[0]}'" if names else f"resets {have[0]}, at {have[1]}"
            fix = f" (--nir-reset {names[0]} writes it for readers that do so)" if names else ""
            raise Unsaid(f"{how}, which NIR cannot say: under the rule {rule.name} it means '{rule.reset}'{fix}")
        fires = {"v_threshold": self._full(node, "theta"), "v_reset": self._full(node, "v_reset")}
        if have[0] == "soft" and fires["v_reset"].any():
            raise Unsaid("subtracts its threshold and has a v_reset")
        return self._dynamics(node, ("IF", "LIF", "CubaLIF")) | fires

    def _integrator(self, node: Node) -> Fields:
        self._check_lag(node)
        return self._dynamics(node, ("I", "LI", "CubaLI"))

    def _dynamics(self, node: Node, types: tuple[str, str, str]) -> Fields:
        plain, leaky, cuba = types
        if node.attr("current", "new") == "old":
            raise Unsaid("uses the current of the timestep before, for which NIR has no field")
        beta, leak = self._value(node, "beta", 0.0), self._value(node, "leak", 0.0)
        if "alpha" not in node.attrs:
            if "gain_v" in node.attrs:
                raise Unsaid("has a gain for a current that it does not keep (gain_v without alpha)")
            if node.attr("beta") == 1.0 and not leak.any():
                self._check_start(node, np.zeros(1))
                gain = self._full(node, "gain") if "gain" in node.attrs else self._spread(node, np.ones(1))
                return {"type": plain, "r": gain / (self.dt if self.rule.integrate == "dt" else 1.0)}
        lost, tau = self._time_constant(node, beta)
        self._check_start(node, _single(leak / lost))
        kind = self.rule.leaky_gain if leaky == "LI" and "alpha" not in node.attrs else self.rule.gain
        into = self._value(node, "gain_v" if "alpha" in node.attrs else "gain", 1.0)
        fields: Fields = {
            "r": self._spread(node, into / self._factor(node, kind, lost, tau)),
            "v_leak": self._spread(node, leak / lost),
        }
        if "alpha" not in node.attrs:
            return {"type": leaky, "tau": self._spread(node, tau), **fields}
        lost_syn, tau_syn = self._time_constant(node, self._value(node, "alpha", 0.0))
        w_in = self._value(node, "gain", 1.0) / self._factor(node, self.rule.synapse, lost_syn, tau_syn)
        times = {"tau_mem": self._spread(node, tau), "tau_syn": self._spread(node, tau_syn)}
        return {"type": cuba, **times, **fields, "w_in": self._spread(node, w_in)}

    def _time_constant(self, node: Node, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lost = 1.0 - kept
        tau = time_constants(self.rule, lost, self.dt)
        if not (np.isfinite(tau).all() and (tau > 0).all()):
            raise Unsaid(
                f"keeps {kept.min():g}..{kept.max():g} of a state per timestep; the rule {self.rule.name} has no time "
                "constants for that"
            )
        return lost, tau

    def _factor(self, node: Node, kind: str, lost: np.ndarray, tau: np.ndarray) -> np.ndarray:
        factor = input_factor(kind, lost, tau, self.dt)
        if not factor.all():
            raise Unsaid(f"keeps nothing of its input; the rule {self.rule.name} has no resistance for that")
        return factor

    def _check_start(self, node: Node, rest: np.ndarray) -> None:
        """NIR does not say where a potential starts; the front end starts it where it rests."""
        start = self._value(node, "start_v", 0.0)
        if not np.array_equal(np.broadcast_to(start, node.type.shape), np.broadcast_to(rest, node.type.shape)):
            raise Unsaid("starts at another potential (start_v) than it rests at, for which NIR has no field")


def _canonical(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    c, h, w = (*shape, 1, 1, 1)[:3]
    return c, h, w


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def refuse(graph: Graph, said: Said) -> None:
    """LoweringError for the first node that NIR has no words for."""
    if graph.numbers != "float":
        raise LoweringError(
            f"graph '{graph.name}' is one of integers, and NIR has real numbers and no rounding; "
            "--nir-extension writes it for nmc alone"
        )
    if not said.unsaid:
        return
    by_id = graph.by_id()
    first = by_id[next(iter(said.unsaid))]
    more = f" (and {len(said.unsaid) - 1} more nodes)" if len(said.unsaid) > 1 else ""
    raise LoweringError(
        f"'{label(first)}' {said.unsaid[first.id]}{more}; --nir-extension writes a file that other readers refuse"
    )


def input_kind_of(node: Node) -> str:
    """What an input carries, as --nir-input says it."""
    if node.type.kind is Kind.REAL:
        return "real"
    return f"{'s' if node.type.signed else 'u'}{node.type.bits}" if node.type.bits else "spikes"
