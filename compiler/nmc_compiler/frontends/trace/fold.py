"""From timesteps one after the other to one timestep with state: the steps of a trace must be the same graph."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.host_values import HOST_OPS
from nmc_compiler.frontends.trace.steps import WAITING
from nmc_compiler.frontends.trace.tape import Const, Tape, Value, constant
from nmc_compiler.graph.types import Kind, Shape


@dataclass(frozen=True)
class Ref:
    """A node, ``lag`` timesteps ago. ``over``: not its value, but this many times its mean over all timesteps."""

    node: int
    lag: int = 0
    over: float | None = None


@dataclass
class Node:
    """One value of the folded timestep."""

    op: str
    operands: tuple[Ref, ...]
    attrs: tuple[tuple[str, Any], ...]
    shape: Shape
    kind: Kind
    module: str
    line: str

    def attr(self, key: str, default: Any = None) -> Any:
        return next((v for k, v in self.attrs if k == key), default)

    @property
    def is_event(self) -> bool:
        return self.kind in (Kind.SPIKE, Kind.GRADED)


@dataclass
class Folder:
    """``steps``: timesteps that the trace went through."""

    tape: Tape
    steps: int
    nodes: list[Node] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)
    seen: dict[tuple[int, int | None], Ref] = field(default_factory=dict)
    first: dict[int, Value] = field(default_factory=dict)  # neuron -> its value at the first timestep
    checked: set[int] = field(default_factory=set)

    # ---- values ----

    def ref(self, number: int, at: int | None) -> Ref:
        """A value as something at timestep ``at`` sees it."""
        value = self.tape.values[number]
        at = None if value.time is None else at
        key = (number, at)
        if key not in self.seen:
            self.seen[key] = self._ref(value, at)
        return self.seen[key]

    def _ref(self, value: Value, at: int | None) -> Ref:
        if value.op == "refused":
            raise FrontendError(value.attr("why"))
        if value.op in WAITING:
            raise FrontendError(
                f"{value.line}: {WAITING[value.op]} is neither a neuron (round of a clamp) nor a part of (q k^T) v; "
                f"alone it is nothing that a core computes"
            )
        if value.op in ("stateful", "state"):
            return self._lagged(value, self._neuron(value), at)
        if value.op == "before":
            return Ref(self.ref(value.attr("of"), self.tape.values[value.attr("of")].time).node, value.attr("lag"))
        if value.op in HOST_OPS and at != value.time:
            return self._lagged(value, self.ref(value.number, value.time).node, at)
        if value.op == "input" or value.op == "stateless" and at != value.time:
            if value.op == "input":
                return self._lagged(value, self._node(value, ()), at)
            return self._lagged(value, self.ref(value.number, value.time).node, at)
        if value.op == "over_time":
            return self._over([(value.attr("weight"), n) for n in value.operands], value)
        terms = self._terms(value.number)
        if len(terms) == self.steps > 1 and self._all_steps(terms):
            return self._over(terms, value)
        refs = tuple(self.ref(n, at) for n in value.operands)
        return self._mean(value, refs) if any(r.over is not None for r in refs) else Ref(self._node(value, refs))

    def _lagged(self, value: Value, node: int, at: int | None) -> Ref:
        lag = 0 if at is None or value.time is None else at - value.time
        if lag < 0:
            raise FrontendError(f"{value.line}: timestep {at} reads timestep {value.time}, which is later")
        return Ref(node, lag)

    def _node(self, value: Value, refs: tuple[Ref, ...], **changed: Any) -> int:
        attrs = tuple((k, v) for k, v in (dict(value.attrs) | changed).items() if v is not None and k != "what")
        key = (value.op, refs, attrs, value.shape)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(Node(value.op, refs, attrs, value.shape, value.kind, value.module, value.line))
        return self.known[key]

    # ---- neurons ----

    def _neuron(self, value: Value) -> int:
        """A neuron, or its state; it must read the same at every timestep."""
        if value.op == "state":
            return self._state(value)
        name = value.attr("name")
        key = ("stateful", name)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(Node("stateful", (), value.attrs, value.shape, value.kind, value.module, value.line))
            for other in self.tape.values:
                if other.op == "stateful" and other.attr("name") == name:
                    self._step(self.known[key], other)
        return self.known[key]

    def _step(self, node: int, value: Value) -> None:
        known, name = self.nodes[node], value.attr("name")
        if value.attrs != known.attrs or value.shape != known.shape:
            raise FrontendError(f"{value.line}: '{name}' changes between timesteps (at {value.time})")
        (found,) = (self.ref(n, value.time) for n in value.operands)
        if found.over is not None:
            raise FrontendError(f"{value.line}: '{name}' reads a sum over timesteps; a neuron reads one at a time")
        if not value.time:
            self.first[node] = value
        if known.operands == (found,) or not known.operands:
            known.operands = (found,)
        elif value.time == 1 and self._starts(self.first[node].operands[0], value.operands[0]):
            known.operands = (found,)  # at the first timestep, what it reads a timestep late is still zero
        else:
            raise FrontendError(
                f"{value.line}: '{name}' reads {self._told(found)} at timestep {value.time} and "
                f"{self._told(known.operands[0])} before; the timesteps of a network must do the same"
            )

    def _told(self, ref: Ref) -> str:
        node = self.nodes[ref.node]
        return f"{node.op} of {node.line}" + (f", {ref.lag} timesteps late" if ref.lag else "")

    def _state(self, value: Value) -> int:
        """The potential of a neuron that never resets: an integrator beside it."""
        neuron = self.nodes[self._neuron(self.tape.values[value.operands[0]])]
        attrs, what = dict(neuron.attr("attrs")), value.attr("what")
        if what != "v" or attrs.get("reset", "none") != "none":
            raise FrontendError(
                f"{value.line}: reads the {'potential' if what == 'v' else 'current'} of '{value.attr('name')}', which "
                f"fires and resets; only the potential of a neuron without reset can be read"
            )
        kept = {k: v for k, v in attrs.items() if k not in ("reset", "reset_at", "theta", "compare", "v_reset", "fire")}
        key = ("state", value.attr("name"))
        if key not in self.known:
            given = (("attrs", tuple(kept.items())), ("name", value.attr("name")), ("neuron", "integrator"))
            self.known[key] = len(self.nodes)
            self.nodes.append(
                Node("stateful", neuron.operands, given, value.shape, Kind.REAL, value.module, value.line)
            )
        return self.known[key]

    # ---- the first timestep of a loop ----

    def _starts(self, before: int, after: int) -> bool:
        """Whether ``before`` (first timestep) is ``after`` (second) with zeros for what that reads a timestep late."""
        a, b = self.tape.values[before], self.tape.values[after]
        if self.ref(before, 0) == self.ref(after, 1):
            return True
        if b.op == "add":
            for x, y in (b.operands, b.operands[::-1]):
                rest = self._from_zeros(y)
                if rest is not None and self._plus(before, rest, x):
                    return True
        same = a.op == b.op and a.attrs == b.attrs and len(a.operands) == len(b.operands) > 0
        return same and all(self._starts(x, y) for x, y in zip(a.operands, b.operands, strict=True))

    def _plus(self, before: int, rest: np.ndarray, x: int) -> bool:
        a = self.tape.values[before]
        if not rest.any():
            return self._starts(before, x)
        if a.op != "bias":
            return False
        by = a.attr("by")
        given = np.asarray(by.array if isinstance(by, Const) else by, np.float64)
        given = given[:, None, None] if given.ndim == 1 else given
        return bool(np.allclose(np.broadcast_to(given, a.shape), rest)) and self._starts(a.operands[0], x)

    def _from_zeros(self, number: int) -> np.ndarray | None:
        """What a value of the second timestep is where all spikes of the first were zero; None if it reads others."""
        value = self.tape.values[number]
        if value.is_event:
            return np.zeros(value.shape) if value.time == 0 else None
        found = [self._from_zeros(n) for n in value.operands]
        if not found or any(x is None for x in found):
            return None
        if value.op == "conv2d":
            bias = value.attr("bias")
            zero = np.zeros(value.shape)
            return zero if bias is None or found[0].any() else zero + bias.array[:, None, None]  # type: ignore[union-attr]
        if value.op in ("reshape", "add"):
            return sum(x.reshape(value.shape) for x in found if x is not None)  # type: ignore[return-value]
        return None

    # ---- sums over time ----

    def _terms(self, number: int) -> list[tuple[float, int]]:
        """A sum of values of different timesteps, term by term; a value of one timestep is a term of itself."""
        value = self.tape.values[number]
        if value.op == "scale" and isinstance(value.attr("by"), float) and self._mixes(value.operands[0]):
            return [(w * value.attr("by"), n) for w, n in self._terms(value.operands[0])]
        if not self._mixes(number):
            return [(1.0, number)]
        return [term for n in value.operands for term in self._terms(n)]

    def _mixes(self, number: int) -> bool:
        value = self.tape.values[number]
        times = {self.tape.values[n].time for n in value.operands}
        return value.op == "add" and len(times) > 1 and None not in times

    def _all_steps(self, terms: list[tuple[float, int]]) -> bool:
        times = sorted(t for t in (self.tape.values[n].time for _, n in terms) if t is not None)
        return times == list(range(self.steps)) and len({w for w, _ in terms}) == 1

    def _over(self, terms: list[tuple[float, int]], value: Value) -> Ref:
        if not self._all_steps(terms):
            times = [self.tape.values[n].time for _, n in terms]
            raise FrontendError(f"{value.line}: adds up the timesteps {times} of {self.steps}; all of them are needed")
        refs = {self.ref(n, self.tape.values[n].time) for _, n in terms}
        if len(refs) != 1 or (only := refs.pop()).lag or only.over is not None:
            raise FrontendError(f"{value.line}: adds up timesteps that do not compute the same")
        return Ref(only.node, 0, terms[0][0] * self.steps)

    def _mean(self, value: Value, refs: tuple[Ref, ...]) -> Ref:
        """An op on a mean over timesteps, put in front of the mean; linear ops alone allow that."""
        factors = {r.over for r in refs}
        plain = tuple(Ref(r.node) for r in refs)
        if len(factors) != 1 or None in factors:
            raise FrontendError(f"{value.line}: joins a mean over timesteps with single timesteps")
        over = factors.pop()
        assert over is not None
        if value.op in ("scale", "reshape", "take", "sum_positions", "add", "sumpool2d"):
            return Ref(self._node(value, plain), 0, over)
        if value.op == "conv2d":
            bias = value.attr("bias")
            if bias is not None and over != 1.0:
                bias = constant(bias.array.astype(np.float64) / over, f"{bias.name}@over")
            return Ref(self._node(value, plain, bias=bias), 0, over)
        if value.op == "bias":
            by = value.attr("by")
            if over != 1.0:
                by = constant(by.array / over, by.name) if isinstance(by, Const) else by / over
            return Ref(self._node(value, plain, by=by), 0, over)
        if value.op == "batch_norm" and over == 1.0:
            return Ref(self._node(value, plain), 0, over)
        raise FrontendError(f"{value.line}: {value.op} of a sum over timesteps; only linear ops can follow one")


@contextmanager
def deep(values: int) -> Iterator[None]:
    """Folding goes down a network one value at a time."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20 * values + 1000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
