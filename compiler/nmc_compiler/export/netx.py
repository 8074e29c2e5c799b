"""Integer graphs as the layers of lava-dl's ``.net`` files: a chain of them is written, the rest refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.graph import Node, label
from nmc_compiler.netx import (
    BIAS_EXP,
    CONV_LIMIT,
    DENSE_HIGH,
    DENSE_LOW,
    ENTRY,
    MAX_BIAS,
    MAX_DELAY,
    NEVER,
    SDNN_EXP,
    SDNN_STATE_EXP,
    Cuba,
    Layer,
    Sdnn,
)

SOMAS = ("cuba_lif", "int_integrator", "sigma_delta")
SYNAPSES = ("conv2d", "sparse")


def layers_of(graph: Graph, entry: tuple[int, int, int] = ENTRY) -> tuple[Layer, ...]:
    """The layers that netx would make ``graph`` of.

    entry: weight, bias and iDecay of an input layer, which change nothing that the graph computes.

    LoweringError, with the op and the node, for what netx has no layer for.
    """
    if graph.numbers != "int":
        raise LoweringError(
            f"graph '{graph.name}' has {graph.numbers} numbers; netx files hold integers: compile it first"
        )
    return _Chain(graph, entry).layers()


def refuse(node: Node, why: str, op: str = "") -> LoweringError:
    """The error for a node: its op and name, and why netx cannot say it."""
    return LoweringError(f"netx has no layer for op '{op or node.op}' of {label(node)}: {why}")


class _Chain:
    """Walks from the output to the input; every soma has one source."""

    def __init__(self, graph: Graph, entry: tuple[int, int, int]) -> None:
        self.graph, self.entry, self.nodes = graph, entry, graph.by_id()
        self.lags: set[int] = set()
        self.seen = {n.id for n in graph if n.op == "output"}

    def layers(self) -> tuple[Layer, ...]:
        self._check_chain()
        found: list[Layer] = []
        at: str | None = self.graph.outputs[0].operands[0]
        while at is not None:
            node = self._past_reshape(at)
            if node.op == "int_integrator" and found:
                raise refuse(node, "it never fires, and is not the last")
            parts, at = self._layer(node)
            found[:0] = parts
        if beside := [n for n in self.graph if n.id not in self.seen]:
            raise refuse(beside[0], "it is beside the one chain of layers that netx knows")
        if len(self.lags) > 1 or max(self.lags, default=0) > 1:
            lags = ", ".join(map(str, sorted(self.lags)))
            raise LoweringError(
                f"graph '{self.graph.name}' reads {lags} timesteps ago; connections of netx all take one"
            )
        return tuple(replace(layer, index=i) for i, layer in enumerate(found))

    def _check_chain(self) -> None:
        graph = self.graph
        if len(graph.outputs) != 1 or len(graph.sources) != 1:
            ends = f"{len(graph.sources)} inputs and {len(graph.outputs)} outputs"
            last = next((n for n in graph if n.op in ("readout", "int_readout")), None)
            if last is not None:
                raise refuse(last, "netx networks end with somas")
            raise LoweringError(f"graph '{graph.name}' has {ends}; netx networks are one chain of layers")
        for node in graph:
            if node.op not in (*SOMAS, *SYNAPSES, "add", "map", "reshape", "encode", "input", "output"):
                raise refuse(node, "it has dense, conv, input and flatten layers of CUBA and sigma-delta somas")

    def _past_reshape(self, at: str) -> Node:
        node = self.nodes[at]
        while node.op == "reshape":
            self.seen.add(node.id)
            node = self.nodes[node.operands[0]]
        return node

    # --- one soma and its synapses ---

    def _layer(self, node: Node) -> tuple[list[Layer], str | None]:
        """The layers of a soma or an input, and what comes before."""
        self.seen.add(node.id)
        if node.op == "input":
            return self._source(node), None
        if node.op not in SOMAS:
            raise refuse(node, "events come from somas")
        current = self.nodes[node.operands[0]]
        operands = [self.nodes[i] for i in current.operands] if current.op == "add" else [current]
        self.seen |= {current.id, *(n.id for n in operands)}
        if entry := self._entry(node, operands):
            return [entry], None
        own = [n for n in operands if any(use.node == node.id for use in n.inputs)]
        rest = [n for n in operands if n not in own]
        if len(rest) != 1 or len(own) > 1:
            raise refuse(current, f"{label(node)} takes {len(rest)} currents from elsewhere; a layer has one")
        layer = self._synapses(rest[0], node)
        if self._passes_on(node, own):
            layer = self._passed_on(node, layer, bool(own))
        else:
            layer = replace(layer, neuron=_neuron(self.graph, node), bias=self._bias(node))
            layer = self._recurrent(layer, own[0]) if own else layer
        source = rest[0].inputs[0]
        self.lags.add(source.lag)
        before = self.nodes[source.node]
        parts = [layer]
        if layer.kind != "conv" and before.type.shape[1:] != (1, 1):
            flat = (math.prod(before.type.shape), 1, 1)
            parts.insert(0, Layer(0, "flatten", flat))
        return parts, source.node

    def _recurrent(self, layer: Layer, synapses: Node) -> Layer:
        back = self._synapses(synapses, self.nodes[synapses.inputs[0].node])
        if synapses.inputs[0].lag != 1:
            raise refuse(synapses, f"its recurrent synapses read {synapses.inputs[0].lag} timesteps ago, netx's read 1")
        same = (layer.delay is None) == (back.delay is None)
        if layer.kind != "dense" or back.kind != "dense" or not same:
            raise refuse(synapses, "recurrent layers of netx are dense, with the same delays on both weights")
        if layer.delay is not None and back.delay is not None and not np.array_equal(layer.delay, back.delay):
            raise refuse(synapses, "netx has one set of delays for the input and the recurrent weights")
        return replace(layer, kind="dense_rec", weight_rec=back.weight)

    def _passes_on(self, node: Node, own: list[Node]) -> bool:
        """Whether a soma sends its current as it is; its only synapses with itself may be those of a sum."""
        vth = self.graph.tensor(node, "vth") if node.op == "sigma_delta" else None
        if vth is None or vth.any() or node.attr("relu") or node.attr("cumulative") or node.attr("out_shift", 0):
            return False
        return not own or (_identity(self.graph, own[0]) == (1, 0) and own[0].inputs[0].lag == 1)

    def _passed_on(self, node: Node, layer: Layer, own: bool) -> Layer:
        """Lava's Sigma, or sums of neighbours as lava-dl's average (of as many as it says)."""
        if own:
            return replace(layer, neuron=Sdnn(0, True), bias=None)
        assert layer.weight is not None
        size = max(layer.weight.shape[1] // layer.shape[0], 1)
        sums = np.kron(np.eye(layer.shape[0], dtype=np.int64), np.ones((1, size), np.int64))
        if layer.kind != "dense" or layer.delay is not None or not np.array_equal(layer.weight, sums):
            raise refuse(node, "it passes on sums that are no averages of neighbours")
        return Layer(0, "average", layer.shape)

    def _entry(self, node: Node, operands: list[Node]) -> Layer | None:
        """The input layer that a soma is, fed one to one by the input: `frontends.netx_graph` made it so."""
        one = [_identity(self.graph, n) for n in operands]
        if None in one:
            return None
        uses = {(operands[i].inputs[0].lag, *one[i]) for i in range(len(one))}  # type: ignore[misc]
        source = self.nodes[operands[0].inputs[0].node]
        if node.op == "cuba_lif" and source.op == "encode" and uses == {(0, 1, 0)} and node.attr("du", 4095) == 4095:
            self.seen |= {source.id, *source.operands}
            if source.attr("scale") != 1 or source.attr("lo") < -MAX_BIAS or source.attr("hi") >= MAX_BIAS:
                raise refuse(source, "netx feeds an input layer with whole bias mantissas of 13 bits")
            neuron = _neuron(self.graph, node)
            assert isinstance(neuron, Cuba)
            return Layer(0, "input", node.type.shape, replace(neuron, i_decay=self.entry[2]), transform=self.entry[:2])
        if node.op == "sigma_delta" and source.op == "input" and uses == {(0, 1, SDNN_EXP), (1, -1, SDNN_EXP)}:
            self.seen.add(source.id)
            delta = _neuron(self.graph, node, relu=False)
            return Layer(0, "input", node.type.shape, delta, transform=self.entry[:2])
        return None

    def _source(self, node: Node) -> list[Layer]:
        """An input layer without somas says the shape; a vector needs none (as lava-dl writes it)."""
        return [] if node.type.shape[1:] == (1, 1) else [Layer(0, "input", node.type.shape)]

    # --- synapses ---

    def _synapses(self, node: Node, soma: Node) -> Layer:
        if node.op not in SYNAPSES:
            raise refuse(node, f"{label(soma)} must take its current from synapses")
        source, shape = self.nodes[node.inputs[0].node], node.type.shape
        make: Callable[..., Layer] = self._sparse if node.op == "sparse" else self._conv
        return make(node, source.type.shape, shape)

    def _conv(self, node: Node, before: tuple[int, int, int], shape: tuple[int, int, int]) -> Layer:
        weight = self.graph.tensors[node.attrs["weight"].value.key].astype(np.int64) << node.attr("shift", 0)  # type: ignore[union-attr]
        stride, pad, dilation = (
            node.attr(k, d) for k, d in (("stride", (1, 1)), ("pad", (0, 0)), ("dilation", (1, 1)))
        )
        groups = node.attr("groups", 1)
        if "bias" in node.attrs:
            raise refuse(node, "a bias belongs to the somas")
        whole = pad == (0, 0) and groups == 1 and weight.shape[2:] == before[1:]
        if whole and ("stride" not in node.attrs or before[1:] == (1, 1)):
            return Layer(0, "dense", shape, weight=_dense(node, weight.reshape(len(weight), -1)))
        if weight.min() < -CONV_LIMIT or weight.max() >= CONV_LIMIT:
            raise refuse(node, f"its weights {weight.min()}..{weight.max()} leave 16 bits")
        return Layer(0, "conv", shape, weight=weight, stride=stride, pad=pad, dilation=dilation, groups=groups)

    def _sparse(self, node: Node, before: tuple[int, int, int], shape: tuple[int, int, int]) -> Layer:
        """Synapses one by one as a matrix; two of one pair cannot be told apart in it."""
        if shape[1:] != (1, 1):
            raise refuse(node, f"its targets have the shape {shape}, and dense layers of netx end in vectors")
        indptr, target, weight, extra = (
            None if node.attr(k) is None else self.graph.tensor(node, k)
            for k in ("indptr", "target", "weight", "extra")
        )
        assert indptr is not None and target is not None and weight is not None
        rows = np.searchsorted(indptr, np.arange(len(target)), side="right") - 1
        matrix = np.zeros((shape[0], math.prod(before)), np.int64)
        if len(np.unique(rows * shape[0] + target)) != len(rows):
            raise refuse(node, "two synapses join one pair of somas; a matrix has one")
        matrix[target, rows] = weight.astype(np.int64) << node.attr("shift", 0)
        late = None
        if extra is not None and extra.any():
            late = np.zeros_like(matrix)
            late[target, rows] = extra
            if late.max() > MAX_DELAY:
                raise refuse(node, f"a delay of {late.max()} timesteps; netx cuts beyond {MAX_DELAY}")
            late = _whole_rows(matrix, late)
        return Layer(0, "dense", shape, weight=_dense(node, matrix), delay=late)

    def _bias(self, node: Node) -> np.ndarray | None:
        bias = self.graph.tensor(node, "bias")
        if bias is None or not bias.any():
            return None
        exponent = SDNN_EXP if node.op == "sigma_delta" else BIAS_EXP
        mantissa = bias.astype(np.int64) >> exponent
        if ((mantissa << exponent) != bias).any():
            odd = int(bias[(mantissa << exponent) != bias][0])
            raise refuse(node, f"its bias {odd} is no multiple of {1 << exponent}, which netx multiplies biases by")
        if mantissa.min() < -MAX_BIAS or mantissa.max() >= MAX_BIAS:
            raise refuse(node, f"its bias mantissas {mantissa.min()}..{mantissa.max()} leave 13 bits")
        return mantissa


def _neuron(graph: Graph, node: Node, relu: bool = True) -> Cuba | Sdnn | None:
    """Parameters of a soma; netx has one of each for a layer."""
    for key in ("vth_low", "restart", "profile"):
        if key in node.attrs and node.attr(key) != "loihi2":
            raise refuse(node, f"netx has nothing like its {key}")
    for key in ("start_u", "start_v"):
        if key in node.attrs and np.any(graph.tensor(node, key)):
            raise refuse(node, f"somas of netx start at 0, and its {key} does not")
    if node.op == "int_integrator":
        return Cuba(node.attr("du", 4095) + 1, node.attr("dv"), NEVER)
    vth = graph.tensor(node, "vth")
    assert vth is not None
    if (vth != vth[0]).any():
        raise refuse(node, f"its channels have {len(np.unique(vth))} thresholds, and a layer of netx has one")
    value = int(vth[0])
    if node.op == "cuba_lif":
        if value < 0:
            raise refuse(node, f"its threshold {value} is below 0")
        return Cuba(node.attr("du", 4095) + 1, node.attr("dv"), value)
    wanted: dict[str, Any] = {"relu": relu, "cumulative": False, "out_shift": SDNN_STATE_EXP}
    for key, expected in wanted.items():
        if node.attr(key, 0) != expected:
            raise refuse(node, f"its {key} is {node.attr(key, 0)}, and netx has {expected}")
    if value % (1 << SDNN_EXP):
        raise refuse(
            node, f"its threshold {value} is no multiple of {1 << SDNN_EXP}, which netx multiplies thresholds by"
        )
    return Sdnn(value >> SDNN_EXP)


def _identity(graph: Graph, node: Node) -> tuple[int, int] | None:
    """(weight, shift) of a convolution that joins every element with itself alone; None for any other node."""
    if node.op != "conv2d" or node.attr("groups", 1) != node.type.shape[0]:
        return None
    weight = graph.tensors[node.attrs["weight"].value.key]  # type: ignore[union-attr]
    plain = node.attr("stride", (1, 1)) == (1, 1) and node.attr("pad", (0, 0)) == (0, 0)
    if weight.shape[1:] != (1, 1, 1) or not plain or (weight != weight.flat[0]).any() or abs(weight.flat[0]) != 1:
        return None
    return int(weight.flat[0]), int(node.attr("shift", 0))


def _dense(node: Node, weight: np.ndarray) -> np.ndarray:
    """A matrix within what netx leaves as it is."""
    low, high = int(weight.min()), int(weight.max())
    mixed = low < 0 < high
    bounds = (DENSE_LOW, DENSE_HIGH) if mixed else (-255, 255)
    if low < bounds[0] or high > bounds[1]:
        raise refuse(node, f"its weights {low}..{high} leave {bounds[0]}..{bounds[1]}, where netx cuts")
    return weight


def _whole_rows(weight: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Delays, those of zero weights filled in as their row has them, or their column, so that a list can hold them."""
    used = weight != 0
    for axis in (1, 0):
        line = np.where(used, late, -1).max(axis=axis, keepdims=True)
        if (np.where(used, late, line) == line).all():
            return np.broadcast_to(np.maximum(line, 0), weight.shape)
    return late
