"""Metrics of a network as trained, as NeuroBench 2.3 and SpikingJelly's op_counter define them (docs/metrics.md).

They are counted from the float graph and from what its layers are given: in a run of the reference interpreter, or
with the codes that an emulated run recorded in place of what the neurons would emit. What was mapped has counters
of its own (docs/counters.md).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nmc.artefact import Compiled, load
from nmc.work import CONNECTIONS, Work, products_of, work_of
from nmc_compiler.errors import UsageError
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.graph import Graph, Node, Ref, label, op_spec
from nmc_compiler.graph.interpret import interpret

STRUCTURE = ("index", "indptr", "target", "extra", "table", "steps", "elements")  # arrays that say where, not how much
BUFFERS = ("mean", "var")  # statistics of a batch norm: stored, but not trained
READOUTS = ("readout", "int_readout")


@dataclass(frozen=True)
class Static:
    """What a graph holds. ``footprint``: bytes of its arrays as they are stored, each once however many layers share
    it, without those that only say where something is.  ``parameters``: numbers in them, without statistics of batch
    norms.  ``zeros``, ``weights``: of the weights of connections.
    """

    footprint: int
    parameters: int
    zeros: int
    weights: int

    @property
    def connection_sparsity(self) -> float:
        """Part of the weights of connections that are 0; 0.0 where there are none."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class LayerWork:
    """Work of one connection over a run: of calls whose input was 0 and 1 alone, -1 too, and of all others."""

    layer: str
    op: str
    binary: Work
    ternary: Work
    real: Work

    @property
    def work(self) -> Work:
        return self.binary + self.ternary + self.real


@dataclass(frozen=True)
class Metrics:
    """Totals over ``samples``. ``active`` of ``activations`` outputs of neurons were not zero.

    ``updates``: potentials that changed, as NeuroBench counts them; None where the codes were given, so that the
    potentials are not those of the network.  ``attention``: operations of products of q, k and v, by name.
    """

    samples: int
    static: Static
    layers: tuple[LayerWork, ...]
    active: int
    activations: int
    updates: int | None
    attention: Mapping[str, int]

    @property
    def activation_sparsity(self) -> float:
        """Part of the neurons' outputs that are 0; 0.0 where there are none."""
        return (self.activations - self.active) / self.activations if self.activations else 0.0

    def neurobench(self) -> dict[str, Any]:
        """By the names that NeuroBench gives them; operations and updates per sample."""
        n, layers = self.samples, self.layers
        return {
            "Footprint": self.static.footprint,
            "ParameterCount": self.static.parameters,
            "ConnectionSparsity": self.static.connection_sparsity,
            "ActivationSparsity": self.activation_sparsity,
            "MembraneUpdates": None if self.updates is None else self.updates / n,
            "SynapticOperations": {
                "Effective_MACs": sum(x.real.effective for x in layers) / n,
                "Effective_ACs": sum(x.binary.effective + x.ternary.effective for x in layers) / n,
                "Dense": sum(x.work.dense for x in layers) / n,
            },
        }

    def spikingjelly(self) -> dict[str, int]:
        """Of layers with weights, what SpikingJelly's op_counter counts in them; totals over the run.

        ``synop`` (and the part of ``ac`` that layers with weights have), ``mac``, and ``weight_reads``, words.
        """
        synops = sum(x.binary.synops for x in self.layers)
        macs = sum(x.ternary.padded + x.real.padded for x in self.layers)
        return {"synop": synops, "ac": synops, "mac": macs, "weight_reads": synops + macs}

    def as_json(self) -> dict[str, Any]:
        """Everything, per sample but for the static metrics."""
        n = self.samples
        rows = [
            {
                "layer": x.layer,
                "op": x.op,
                "effective_acs": (x.binary.effective + x.ternary.effective) / n,
                "effective_macs": x.real.effective / n,
                "dense": x.work.dense / n,
                "input_rate": x.work.nonzero / x.work.inputs if x.work.inputs else 0.0,
            }
            for x in self.layers
        ]
        attention = {name: count / n for name, count in self.attention.items()}
        return {"samples": n, **self.neurobench(), "attention_operations": attention, "layers": rows}


# ---- what a graph holds ----


def static_metrics(graph: Graph) -> Static:
    """Footprint, parameters and connection sparsity of a float graph."""
    kinds: dict[str, set[str]] = {}
    for node in graph:
        for name, attr in node.attrs.items():
            if isinstance(attr.value, Ref) and name not in STRUCTURE:
                kinds.setdefault(attr.value.key, set()).add(name)
    arrays = {key: graph.tensors[key] for key in kinds}
    trained = [array for key, array in arrays.items() if not kinds[key] <= set(BUFFERS)]
    weights = {node.attr("weight").key for node in graph if node.op in CONNECTIONS}
    return Static(
        sum(array.nbytes for array in arrays.values()),
        sum(array.size for array in trained),
        sum(int((arrays[key] == 0).sum()) for key in weights),
        sum(arrays[key].size for key in weights),
    )


# ---- what a run does ----


def metrics(
    model: Graph | Imported | Compiled | str | os.PathLike[str],
    x: np.ndarray | Mapping[str, np.ndarray],
    *,
    codes: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
    calls: Literal["step", "run"] = "step",
) -> Metrics:
    """Metrics of a network on samples.

    model: a float graph, what ``nmc.trace`` gave, or an artefact or its folder.  x: images [N, C, H, W], or
    [N, T, C, H, W] where the input has a time axis, as ``interpret`` takes them; of several inputs by name.

    codes: by population what it emitted, [N, T, C, H, W], as ``nmc.emulate(..., record="all")`` gives it in ``codes``;
    its readers get that; codes of gates and pools follow from it.  batch, calls: whether a layer is called
    timestep by timestep or once for all timesteps, with how many samples; a call whose input is 0, 1 and -1 alone
    counts additions, any other multiplications.

    Raises UsageError for no samples, VerifyError for samples that do not fit.
    """
    graph = _graph_of(model)
    if batch < 1 or calls not in ("step", "run"):
        raise UsageError(f"batch must be at least 1 and calls 'step' or 'run', got {batch} and {calls!r}")
    if graph.numbers != "float":
        raise UsageError("metrics are of a network as trained: give its float graph")
    first = x if isinstance(x, np.ndarray) else next(iter(x.values()))
    if not len(first):
        raise UsageError("metrics need at least one sample")
    if codes is not None:
        check_codes(graph, codes)
    counted = _Counted(graph, calls)
    for part, given in _batches(x, codes, batch):
        counted.add(part, given)
    return Metrics(len(first), static_metrics(graph), counted.layers(), *counted.totals(codes is not None))


def neurons_of(graph: Graph) -> list[Node]:
    """Neurons of a graph, integrators too, read-outs not."""
    return [node for node in graph if op_spec(node.op).neuron and node.op not in READOUTS]


def check_codes(graph: Graph, names: Collection[str]) -> None:
    """UsageError unless there are codes of every neuron that emits events."""
    missing = [label(node) for node in neurons_of(graph) if node.type.is_event and node.name not in names]
    if missing:
        raise UsageError(f"codes of {', '.join(missing[:6])} are missing: metrics of a run need all its neurons'")


def _graph_of(model: Any) -> Graph:
    if isinstance(model, Graph):
        return model
    if isinstance(model, Imported):
        return model.graph
    return (model if isinstance(model, Compiled) else load(model)).float_graph


Arrays = np.ndarray | dict[str, np.ndarray]


def _batches(
    x: np.ndarray | Mapping[str, np.ndarray], codes: Mapping[str, np.ndarray] | None, batch: int
) -> Iterator[tuple[Arrays, dict[str, np.ndarray] | None]]:
    """Samples, and what populations emitted on them [T, B, C, H, W], ``batch`` at a time."""
    n = len(x if isinstance(x, np.ndarray) else next(iter(x.values())))
    for at in (slice(i, i + batch) for i in range(0, n, batch)):
        part: Arrays = x[at] if isinstance(x, np.ndarray) else {name: array[at] for name, array in x.items()}
        yield part, None if codes is None else {name: np.moveaxis(c[at], 1, 0) for name, c in codes.items()}


class _Counted:
    """Counts of a run, batch by batch."""

    def __init__(self, graph: Graph, calls: str) -> None:
        self.graph, self.calls = graph, calls
        self.connections = [node for node in graph if node.op in CONNECTIONS]
        self.products = [node for node in graph if node.op == "attn"]
        self.neurons = neurons_of(graph)
        self.senders = [node for node in self.neurons if node.type.is_event]
        self.found = {node.id: [Work(), Work(), Work()] for node in self.connections}
        self.attention = {label(node): 0 for node in self.products}
        self.active = self.activations = self.updates = 0

    def add(self, x: Arrays, given: dict[str, np.ndarray] | None) -> None:
        """Run a batch, and count it."""
        read = {i for node in (*self.connections, *self.products) for i in node.operands}
        wanted = [*read, *(node.id for node in self.senders)]
        codes = None if given is None else {node.name: given[node.name] for node in self.senders}
        run = interpret(self.graph, x, values=wanted, states="all" if given is None else (), given=codes)
        for node in self.connections:
            self._connection(node, run.values)
        for node in self.products:
            for q, k, v in zip(*(_read(run.values, use) for use in node.inputs), strict=True):
                self.attention[label(node)] += products_of(node, q, k, v)
        for node in self.senders:
            self.active += int(np.count_nonzero(run.values[node.id]))
            self.activations += run.values[node.id].size
        for node in self.neurons if given is None else ():
            v = run.states[node.name or node.id].get("v")
            if v is not None:
                self.updates += v[0].size + int(np.count_nonzero(v[1:] != v[:-1]))

    def _connection(self, node: Node, values: dict[str, np.ndarray]) -> None:
        x, *sites = (_read(values, use) for use in node.inputs)
        kind = self.found[node.id]
        each = [_kind(step) for step in x] if self.calls == "step" else [_kind(x)] * len(x)
        for t, step in enumerate(x):
            places = (sites[0][t], sites[1][t]) if sites else None
            kind[each[t]] += work_of(self.graph, node, step, places)

    def layers(self) -> tuple[LayerWork, ...]:
        return tuple(LayerWork(label(node), node.op, *self.found[node.id]) for node in self.connections)

    def totals(self, given: bool) -> tuple[int, int, int | None, dict[str, int]]:
        return self.active, self.activations, None if given else self.updates, self.attention


def _read(values: dict[str, np.ndarray], use: Any) -> np.ndarray:
    """Values [T, B, ...] as an operand reads them: ``lag`` timesteps late, zeros before."""
    x = values[use.node]
    if not use.lag:
        return x
    late = np.zeros_like(x)
    late[use.lag :] = x[: -use.lag]
    return late


def _kind(x: np.ndarray) -> int:
    """0: zeros and ones alone; 1: with -1; 2: anything else."""
    if ((x == 0) | (x == 1)).all():
        return 0
    return 1 if (np.abs(x[x != 0]) == 1).all() else 2
