"""The reference interpreter: slow, obvious, and the meaning of every op.

It runs float and integer graphs alike, one timestep after the other, over a batch.
Nothing fast may define what a graph means; everything fast is compared with this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.graph import Graph, Node
from nmc_compiler.graph.registry import Call, op_spec


class OverflowInGraph(VerifyError):
    """A 24-bit register of the integer semantics was left (strict mode)."""


@dataclass
class Interpretation:
    """What one run gave.

    ``logits`` [B, classes] (float; integer graphs scale the read-out), ``codes``: population name ->
    [T, B, C, H, W] integer codes, ``overflows``: "node: register" -> count, ``currents``: per node id the
    values [T, B, ...] where asked for.
    """

    logits: np.ndarray
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    overflows: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    raw_logits: np.ndarray | None = None


def interpret(
    graph: Graph,
    images: np.ndarray,
    record: str | Iterable[str] = (),
    values: Iterable[str] = (),
    strict: bool = False,
) -> Interpretation:
    """Run a graph on ``images`` [B, C, H, W], or [B, T, C, H, W] where the input has a time axis.

    ``record``: "all" or population names; ``values``: node ids whose values to keep.
    ``strict``: an overflow of the integer semantics raises instead of being counted.
    """
    run = _Run(graph, strict)
    wanted = _wanted(graph, record)
    keep = set(values)
    codes: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    kept: dict[str, list[np.ndarray]] = {node: [] for node in keep}
    for t in range(graph.timesteps):
        now = run.step(t, _frame(graph, images, t))
        for name, node in wanted.items():
            codes[name].append(to_codes(node, now[node.id]))
        for node_id in keep:
            kept[node_id].append(now[node_id])
    result = Interpretation(
        np.zeros((len(images), 0)),
        {k: np.stack(v) for k, v in codes.items()},
        run.overflows,
        {k: np.stack(v) for k, v in kept.items()},
    )
    _read_out(graph, now, result)
    return result


def to_codes(node: Node, value: np.ndarray) -> np.ndarray:
    """Integer codes of a neuron's output (float graphs carry code/norm)."""
    return np.rint(value * node.attr("norm", 1)).astype(np.int32)


def _wanted(graph: Graph, record: str | Iterable[str]) -> dict[str, Node]:
    events = {n.name: n for n in graph if n.name and op_spec(n.op).neuron and n.type.is_event}
    if record == "all":
        return events
    missing = [name for name in record if name not in events]
    if missing:
        raise VerifyError(f"graph '{graph.name}' has no population {', '.join(map(repr, missing))}")
    return {name: events[name] for name in record}


def _frame(graph: Graph, images: np.ndarray, t: int) -> np.ndarray:
    if not graph.input_time:
        return images.astype(np.float64)
    if images.ndim != 5 or images.shape[1] != graph.timesteps:
        raise VerifyError(
            f"graph '{graph.name}' wants images [N, T={graph.timesteps}, C, H, W], got shape {images.shape}"
        )
    return images[:, t].astype(np.float64)


def _read_out(graph: Graph, now: dict[str, np.ndarray], result: Interpretation) -> None:
    outs = [n for n in graph if n.op in ("readout", "int_readout")]
    if len(outs) != 1:
        raise VerifyError(f"graph '{graph.name}' has {len(outs)} read-outs; one is expected")
    raw = now[outs[0].id][:, :, 0, 0]
    result.raw_logits = raw
    result.logits = raw * outs[0].attr("scale") if outs[0].op == "int_readout" else raw


class _Run:
    """State of a run: per-node state dicts and last timestep's values for lagged edges."""

    def __init__(self, graph: Graph, strict: bool) -> None:
        self.graph, self.strict = graph, strict
        self.integer = graph.numbers == "int"
        self.state: dict[str, dict] = {n.id: {} for n in graph}
        self.history: list[dict[str, np.ndarray]] = []
        self.max_lag = max((use.lag for n in graph for use in n.inputs), default=0)
        self.overflows: dict[str, int] = {}

    def step(self, t: int, frame: np.ndarray) -> dict[str, np.ndarray]:
        now: dict[str, np.ndarray] = {}
        for node in self.graph:
            if node.op == "input":
                self._check_frame(node, frame)
                now[node.id] = frame
                continue
            now[node.id] = op_spec(node.op).evaluate(self._call(node, now, t, len(frame)))
        self.history = ([now] + self.history)[: self.max_lag]
        return now

    def _check_frame(self, node: Node, frame: np.ndarray) -> None:
        if frame.shape[1:] != node.type.shape:
            raise VerifyError(f"input wants samples of shape {node.type.shape}, got {frame.shape[1:]}")

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
