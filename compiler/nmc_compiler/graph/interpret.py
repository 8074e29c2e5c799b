"""The reference interpreter: slow, obvious, and the meaning of every op.

It runs float and integer graphs alike, one timestep after the other, over a batch.
Nothing fast may define what a graph means; everything fast is compared with this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.graph import Graph, Node
from nmc_compiler.graph.ops_sites import active, home, site_count
from nmc_compiler.graph.registry import Call, op_spec


class OverflowInGraph(VerifyError):
    """A 24-bit register of the integer semantics was left (strict mode)."""


@dataclass
class Interpretation:
    """What one run gave.

    ``logits`` [B, classes] (float; integer graphs scale the read-out), ``codes``: population name ->
    [T, B, C, H, W] integer codes (the values themselves where a float graph sends real changes),
    ``overflows``: "node: register" -> count, ``values``: per node id the values [T, B, ...] where asked for,
    ``outputs``: output name -> values [T, B, C, H, W], ``states``: neuron name -> register ("u" the current, "v" the
    potential, as they are kept for the next timestep) -> [T, B, C, H, W].
    """

    logits: np.ndarray
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    overflows: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    raw_logits: np.ndarray | None = None
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    states: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def interpret(
    graph: Graph,
    images: np.ndarray | Mapping[str, np.ndarray],
    record: str | Iterable[str] = (),
    values: Iterable[str] = (),
    strict: bool = False,
    states: str | Iterable[str] = (),
    given: Mapping[str, np.ndarray] | None = None,
) -> Interpretation:
    """Run a graph on ``images`` [B, C, H, W], or [B, T, C, H, W] where the input has a time axis.

    Graphs with several inputs take one array per input name. Graphs with outputs take [T, C, H, W] too, one sample.
    ``record``: "all" or population names; ``values``: node ids whose values to keep; ``states``: "all" or names
    of neurons whose current and potential to keep. ``given``: population name -> codes [T, B, C, H, W] that its
    readers get in place of what it emits, which is still what is recorded of it: every layer by itself.
    ``strict``: an overflow of the integer semantics raises instead of being counted.
    """
    frames = _Frames(graph, images)
    run = _Run(graph, strict, {node.id: (given or {})[name] for name, node in _wanted(graph, given or ()).items()})
    wanted, watched = _wanted(graph, record), _watched(graph, states)
    keep = {*values, *(n.id for n in graph.outputs)}
    codes: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    kept: dict[str, list[np.ndarray]] = {node: [] for node in keep}
    seen: dict[str, dict[str, list[np.ndarray]]] = {name: {"u": [], "v": []} for name in watched}
    for t in range(frames.steps):
        now = run.step(t, frames.at(t), frames.batch)
        for name, node in wanted.items():
            codes[name].append(to_codes(node, run.emitted.get(node.id, now[node.id])))
        for node_id in keep:
            kept[node_id].append(now[node_id])
        for name, node in watched.items():
            for register, found in seen[name].items():
                found += [run.state[node.id][register]] if register in run.state[node.id] else []
    result = Interpretation(
        np.zeros((frames.batch, 0)),
        {k: np.stack(v) for k, v in codes.items()},
        run.overflows,
        {k: np.stack(kept[k]) for k in values},
        outputs={n.name or n.id: np.stack(kept[n.id]) for n in graph.outputs},
        states={name: {k: np.stack(v) for k, v in found.items() if v} for name, found in seen.items()},
    )
    if not graph.outputs or any(n.op in ("readout", "int_readout") for n in graph):
        _read_out(graph, now, result)
    return result


class _Frames:
    """What the inputs show, timestep by timestep."""

    def __init__(self, graph: Graph, images: np.ndarray | Mapping[str, np.ndarray]) -> None:
        self.graph = graph
        given = images if isinstance(images, Mapping) else self._only(images)
        names = [n.name or n.id for n in graph.sources]
        if set(given) != set(names):
            raise VerifyError(f"graph '{graph.name}' has the inputs {', '.join(names)}; given: {', '.join(given)}")
        self.arrays = {n.id: self._whole(n, np.asarray(given[n.name or n.id])) for n in graph.sources}
        first = next(iter(self.arrays.values()))
        self.batch = len(first)
        self.steps = graph.timesteps or first.shape[1]
        for array in self.arrays.values():
            lengths = array.shape[: 1 + graph.input_time]
            if lengths != first.shape[: len(lengths)]:
                raise VerifyError(f"graph '{graph.name}': inputs of {first.shape} and {array.shape} do not go together")

    def at(self, t: int) -> dict[str, np.ndarray]:
        return {node: array[:, t] if self.graph.input_time else array for node, array in self.arrays.items()}

    def _only(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if len(self.graph.sources) != 1:
            raise VerifyError(f"graph '{self.graph.name}' has {len(self.graph.sources)} inputs; give an array for each")
        return {self.graph.sources[0].name or self.graph.sources[0].id: images}

    def _whole(self, node: Node, array: np.ndarray) -> np.ndarray:
        """Float64 samples of one input, with their batch axis; events are checked against their payload."""
        graph, steps = self.graph, self.graph.timesteps
        array = array[None] if graph.outputs and graph.input_time and array.ndim == 4 else array
        if graph.input_time and (array.ndim != 5 or not array.shape[1] or (steps and array.shape[1] != steps)):
            raise VerifyError(
                f"graph '{graph.name}' wants images [N, T{f'={steps}' if steps else ''}, C, H, W], "
                f"got shape {array.shape}"
            )
        if array.shape[1 + graph.input_time :] != node.type.shape:
            raise VerifyError(
                f"input wants samples of shape {node.type.shape}, got {array.shape[1 + graph.input_time :]}"
            )
        if node.type.is_event:
            bits = max(node.type.bits, 1)
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if node.type.signed else (0, (1 << bits) - 1)
            if array.size and ((array != np.rint(array)).any() or array.min() < low or array.max() > high):
                raise VerifyError(f"input '{node.name or node.id}' takes whole codes in {low}..{high}")
            return array.astype(np.int64 if graph.numbers == "int" else np.float64)
        return array.astype(np.float64)


def to_codes(node: Node, value: np.ndarray) -> np.ndarray:
    """Integer codes of a neuron's output (float graphs carry code/norm); a float sigma-delta sends real values."""
    if node.op == "sigma_delta" and value.dtype.kind == "f":
        return value
    return np.rint(value * node.attr("norm", 1)).astype(np.int32)


def _wanted(graph: Graph, record: str | Iterable[str]) -> dict[str, Node]:
    events = {n.name: n for n in graph if n.name and op_spec(n.op).neuron and n.type.is_event}
    return _chosen(graph, events, record, "population")


def _watched(graph: Graph, states: str | Iterable[str]) -> dict[str, Node]:
    return _chosen(graph, {n.name or n.id: n for n in graph if op_spec(n.op).neuron}, states, "neuron")


def _chosen(graph: Graph, known: dict[str, Node], names: str | Iterable[str], what: str) -> dict[str, Node]:
    """Those of ``known`` that ``names`` names, or "all"; VerifyError for one that is not there."""
    if names == "all":
        return known
    missing = [name for name in names if name not in known]
    if missing:
        raise VerifyError(f"graph '{graph.name}' has no {what} {', '.join(map(repr, missing))}")
    return {name: known[name] for name in names}


def _read_out(graph: Graph, now: dict[str, np.ndarray], result: Interpretation) -> None:
    outs = [n for n in graph if n.op in ("readout", "int_readout")]
    if len(outs) != 1:
        raise VerifyError(f"graph '{graph.name}' has {len(outs)} read-outs; one is expected")
    raw = now[outs[0].id][:, :, 0, 0]
    result.raw_logits = raw
    result.logits = raw if outs[0].op == "readout" else _logits(graph, outs[0], raw, now)


def _logits(graph: Graph, node: Node, raw: np.ndarray, now: dict[str, np.ndarray]) -> np.ndarray:
    """v * scale, and of a mean over sites (v / number of sites + offset) * scale."""
    source, scale = graph.node(node.operands[0]), node.attr("scale")
    if source.op == "rshift":
        source = graph.node(source.operands[0])
    if source.op != "sum_sites":
        return raw * scale
    return (raw / site_count(now[source.operands[1]])[:, None] + graph.tensor(node, "offset")) * scale


class _Run:
    """State of a run: per-node state dicts and last timestep's values for lagged edges."""

    def __init__(self, graph: Graph, strict: bool, given: dict[str, np.ndarray]) -> None:
        self.graph, self.strict, self.given = graph, strict, given
        self.emitted: dict[str, np.ndarray] = {}
        self.integer = graph.numbers == "int"
        self.state: dict[str, dict] = {n.id: {} for n in graph}
        self.history: list[dict[str, np.ndarray]] = []
        self.max_lag = max((use.lag for n in graph for use in n.inputs), default=0)
        self.overflows: dict[str, int] = {}
        by_id = graph.by_id()
        self.homes = {n.id: home(by_id, n) for n in graph if op_spec(n.op).neuron and n.type.is_event}

    def step(self, t: int, frames: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        now: dict[str, np.ndarray] = {}
        for node in self.graph:
            if node.op == "input":
                now[node.id] = frames[node.id]
                continue
            value = op_spec(node.op).evaluate(self._call(node, now, t, batch))
            sites = self.homes.get(node.id)
            now[node.id] = value if sites is None else value * active(now[sites])  # no site, no event
            if node.id in self.given:
                self.emitted[node.id] = now[node.id]
                now[node.id] = self._given(node, t, now[node.id])
        self.history = ([now] + self.history)[: self.max_lag]
        return now

    def _given(self, node: Node, t: int, own: np.ndarray) -> np.ndarray:
        codes = self.given[node.id]
        if codes.shape[1:] != own.shape or t >= len(codes):
            raise VerifyError(f"codes given for '{node.name}' have shape {codes.shape}, not [T, {own.shape}]")
        return codes[t].astype(own.dtype) if self.integer else codes[t] / float(node.attr("norm", 1))

    def _call(self, node: Node, now: dict[str, np.ndarray], t: int, batch: int) -> Call:
        inputs = [self._operand(use.node, use.lag, now, batch) for use in node.inputs]
        where = node.name or f"%{node.id}"
        return Call(
            inputs,
            node.attrs,
            self.graph.tensors,
            self.state[node.id],
            t,
            self.graph.timesteps,
            self.integer,
            where,
            self._overflow,
            batch,
        )

    def _operand(self, node_id: str, lag: int, now: dict[str, np.ndarray], batch: int) -> np.ndarray:
        if not lag:
            return now[node_id]
        if lag <= len(self.history):
            return self.history[lag - 1][node_id]
        dtype = np.int64 if self.integer else np.float64
        return np.zeros((batch, *self.graph.node(node_id).type.shape), dtype)

    def _overflow(self, where: str, register: str, mask: np.ndarray) -> None:
        count = int(np.count_nonzero(mask))
        if not count:
            return
        if self.strict:
            raise OverflowInGraph(f"{where}: {register} left its 24-bit range at {count} neuron(s)")
        key = f"{where}: {register}"
        self.overflows[key] = self.overflows.get(key, 0) + count
