"""Neurons written as loops over time: what a module without layers computes says which neuron op it is.

A module of a class that nobody registered is run by itself, on addresses of a few elements, with inputs that are
another value at every timestep. What it fires on is a polynomial of its input, and of the potential and the spikes of
the timestep before. Where that is the same polynomial at every timestep, and the one of a neuron op, the module is that
neuron: for all inputs, in real numbers, and not for a sample of them. Everything else is left to the trace of the
network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nmc_compiler.frontends.trace.places import owner
from nmc_compiler.frontends.trace.registry import Neuron, find
from nmc_compiler.frontends.trace.symbol import Symbol
from nmc_compiler.frontends.trace.tape import MASK, Tape, Value, addresses
from nmc_compiler.graph.types import Kind

Poly = dict[tuple[str, ...], float]  # coefficients of products of X (input), M (potential fired on) and S (spikes)
CALLS = {"step": None, "sequence": 0, "batch, sequence": 1}
SPIKING = ("stateless", "gate", "clamp", "round", "floor")
FEW = 3  # elements along an axis are enough to see what a module does to each
STEPS = 4  # calls of a module that computes one timestep


class _Unknown(Exception):
    """Not a polynomial of this timestep's input and the last one's potential and spikes."""


def candidates(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Modules of users that may be neurons: of no known class, with numbers for parameters, and none inside."""
    return [(name, m) for name, m in module.named_modules() if _may_be(m)]


def _may_be(module: torch.nn.Module) -> bool:
    if type(module).__module__.startswith("torch."):
        return False
    numbers = [*module.parameters(), *module.buffers()]
    return all(t.numel() == 1 for t in numbers) and not any(find(m) or "forward" in vars(m) for m in module.modules())


def recognise(tracer: Any, module: torch.nn.Module, x: Symbol) -> tuple[Neuron | None, bool]:
    """The neuron that a module is when it is called with ``x``; None where it is none that an op computes.

    The flag: whether it compares or rounds, and is more than a function of each element, so that it may be a neuron.
    """
    stack, inside, spikes = list(tracer.stack), tracer.tape.module, False
    for call, axis in CALLS.items():
        if axis is not None and (x.ndim <= axis + 1 or x.shape[axis] < 2):
            continue
        few = tuple(n if i == axis else min(n, FEW) for i, n in enumerate(x.shape))
        for shape in dict.fromkeys((few, tuple(x.shape))):
            tape = Tape(products=True)
            try:
                values, again = _matched(tape, *_fired(tracer, tape, module, x, shape, axis)), False
            except _Unknown:
                values, again = None, False
            except Exception:  # whatever it is that the module does, it is no neuron of that many elements
                values, again = None, True
            tracer.stack[:], tracer.tape.module = stack, inside
            if values is not None:
                return (Neuron(str(values.pop("op")), values, call) if values else None), False
            spikes = spikes or any(v.op in SPIKING for v in tape.values)
            if not again:
                break
    return None, spikes


def _fired(
    tracer: Any, tape: Tape, module: torch.nn.Module, x: Symbol, size: tuple[int, ...], axis: int | None
) -> tuple[list[Value], list[Value]]:
    """Inputs of each timestep, together of shape ``size``, and what the module makes of each of their elements."""
    alone = copy.deepcopy(module)
    for part in alone.modules():
        vars(part).pop("forward", None)
    inner = type(tracer)(alone)
    inner.alone, inner.tape, tape.where = True, tape, inner.here
    shape = [n for i, n in enumerate(size) if i != axis]
    count = STEPS if axis is None else size[axis]
    inputs = [tape.add("input", (), (math.prod(shape), 1, 1), Kind.REAL, time=t) for t in range(count)]
    given = [addresses(v).reshape(shape) for v in inputs]
    with inner, torch.no_grad():
        if axis is None:
            made, held = [], []
            for addr in given:
                made.append(_addresses(alone(inner.symbol(addr, x))))
                held.append(_numbers(alone))
            if held[0] != held[-1]:  # it counts its calls, and may do something else at a later one
                raise _Unknown
        else:
            made = list(np.moveaxis(_addresses(alone(inner.symbol(np.stack(given, axis), x))), axis, 0))
    inner.done = True
    if len(made) != count or any(m.shape != g.shape for m, g in zip(made, given, strict=True)):
        raise _Unknown
    fired = []
    for got, own in zip(made, given, strict=True):
        value = owner(tape, got)
        if value is None or value.op != "stateless" or not np.array_equal(got & MASK, own & MASK):
            raise _Unknown
        fired.append(value)
    return inputs, fired


def _numbers(module: torch.nn.Module) -> list[Any]:
    """The plain numbers that a module and its parts hold."""
    return [(k, v) for m in module.modules() for k, v in sorted(vars(m).items()) if isinstance(v, (int, float))]


def _addresses(result: Any) -> np.ndarray:
    if not isinstance(result, Symbol) or result.refused:
        raise _Unknown
    return result.addr.numpy()


# ---- what it fires on ----


def _matched(tape: Tape, inputs: list[Value], fired: list[Value]) -> dict[str, Any] | None:
    """Attributes of the neuron op, its name under "op"; none where it keeps nothing from one timestep to the next."""
    kind = {(f.attr("neuron"), tuple((k, v) for k, v in f.attr("attrs") if k != "theta")) for f in fired}
    thetas = [dict(f.attr("attrs")).get("theta", 0.0) for f in fired]
    if len(kind) != 1:
        return None
    ((op, attrs),) = kind
    polys, known, before = [], dict[int, Poly](), -1
    for value, given, theta in zip(fired, inputs, thetas, strict=True):
        above = thetas[-1] - theta  # a constant that was added there went into the threshold
        poly = _Step(tape, known, before, given.number, op == "neuron").of(value.operands[0])
        polys.append(_sum(poly, {(): above}) if above else poly)
        before, known = value.operands[0], _potential(tape, value.operands[0], -above)
    first, *rest = polys
    if all(set(p) <= {("X",), ()} for p in polys):
        return {}
    if any(p != rest[0] for p in rest):
        return None
    return _spiking(rest[0], first, thetas[-1], dict(attrs)) if op == "neuron" else _levels(rest[0], first, dict(attrs))


def _potential(tape: Tape, number: int, offset: float) -> dict[int, Poly]:
    """What is fired on, M + offset, and the values that it is a factor and a constant of, in terms of M."""
    found: dict[int, Poly] = {}
    factor = 1.0  # the value is factor * M + offset
    while True:
        found[number] = {("M",): factor} | ({(): offset} if offset else {})
        value = tape.values[number]
        by = value.attr("by")
        if value.op not in ("scale", "bias") or not isinstance(by, float) or not by:
            return found
        if value.op == "scale":
            factor, offset = factor / by, offset / by
        else:
            offset -= by
        (number,) = value.operands


class _Step:
    """Values of one timestep as polynomials. ``known``: those of the timestep before; ``binary``: S S is S."""

    def __init__(self, tape: Tape, known: dict[int, Poly], before: int, given: int, binary: bool) -> None:
        self.tape, self.known, self.before, self.given, self.binary = tape, dict(known), before, given, binary

    def of(self, number: int) -> Poly:
        if number not in self.known:
            self.known[number] = {k: v for k, v in self._of(self.tape.values[number]).items() if v}
        return self.known[number]

    def _of(self, value: Value) -> Poly:
        if value.number == self.given:
            return {("X",): 1.0}
        if value.op == "stateless" and value.operands[0] == self.before:
            return {("S",): 1.0 / dict(value.attr("attrs")).get("norm", 1)}
        by = value.attr("by")
        if value.op == "scale" and isinstance(by, float):
            return {term: by * c for term, c in self.of(value.operands[0]).items()}
        if value.op == "bias" and isinstance(by, float):
            return _sum(self.of(value.operands[0]), {(): by})
        if value.op == "add":
            return _sum(*(self.of(n) for n in value.operands))
        if value.op == "gate":
            return self._product(*(self.of(n) for n in value.operands))
        raise _Unknown

    def _product(self, a: Poly, b: Poly) -> Poly:
        out: Poly = {}
        for one, p in a.items():
            for two, q in b.items():
                term = tuple(sorted((*one, *two)))
                if self.binary and term.count("S") > 1:
                    term = tuple(t for t in term if t != "S") + ("S",)
                if len(term) > 2:
                    raise _Unknown
                out[term] = out.get(term, 0.0) + p * q
        return out


def _sum(*parts: Poly) -> Poly:
    out: Poly = {}
    for part in parts:
        for term, c in part.items():
            out[term] = out.get(term, 0.0) + c
    return out


# ---- which neuron that is ----

_same: Callable[[float, float], bool] = lambda a, b: math.isclose(a, b, rel_tol=1e-12, abs_tol=0.0)  # noqa: E731


def _parts(p: Poly, first: Poly) -> tuple[float, float, float, float] | None:
    """gain, beta, leak, and the potential at the start; None where these are none of a neuron's."""
    gain, beta, leak = p.get(("X",), 0.0), p.get(("M",), 0.0), p.get((), 0.0)
    if not gain > 0 or not 0 < beta <= 1 or first.get(("X",)) != gain or set(first) - {("X",), ()}:
        return None
    return gain, beta, leak, (first.get((), 0.0) - leak) / beta


def _levels(p: Poly, first: Poly, attrs: dict[str, Any]) -> dict[str, Any] | None:
    """Integer spikes: H = beta (H' - code') + gain x; code = round(clip(H, 0, D))."""
    parts = _parts(p, first)
    if parts is None or set(p) != {("X",), ("M",), ("S",)} or any(parts[2:]) or not _same(p[("S",)], -parts[1]):
        return None
    gain, beta, *_ = parts
    return {"op": "ilif", "beta": beta, "theta": 1.0, **attrs, **({"gain": gain} if gain != 1.0 else {})}


def _spiking(p: Poly, first: Poly, theta: float, attrs: dict[str, Any]) -> dict[str, Any] | None:
    """Binary spikes: h = beta v + gain x + leak, and a reset that is linear in the spikes."""
    parts = _parts(p, first)
    if parts is None:
        return None
    gain, beta, leak, start = parts
    reset = _reset(p, beta, gain, leak, theta)
    if reset is None:
        return None
    values = {"theta": theta, "compare": attrs["compare"], **reset}
    rest = float(reset.get("v_reset", 0.0))
    leaky = beta < 1 and "reset_at" not in reset and reset["reset"] != "none" and _same(start, rest)
    for decays in (True, False) if leaky else ():
        tau = _tau(gain if decays else 1.0 - beta, beta)
        fits = _same(gain, 1.0 - beta) if decays else gain == 1.0
        if tau and fits and (_same(leak, rest / tau) if rest else not leak):
            return {"op": "lif", "tau": tau, "decay_input": decays, **values}
    more = {"gain": gain, "leak": leak, "start_v": start}
    kept = {k: v for k, v in more.items() if v != (1.0 if k == "gain" else 0.0)}
    return {"op": "neuron", "beta": beta, **kept, **values}


def _tau(lost: float, beta: float) -> float | None:
    """The time constant with 1 - 1/tau = beta, to the last digit."""
    exact = 1.0 / lost
    return next((tau for tau in (round(exact, 9), exact) if 1.0 - 1.0 / tau == beta), None)


def _reset(p: Poly, beta: float, gain: float, leak: float, theta: float) -> dict[str, Any] | None:
    """How spikes of the timestep before enter: where potentials go (hard), by how much they fall (soft), or not."""
    terms, by = set(p) - {("X",), ("M",), ()}, p.get(("S",), 0.0)
    gated = p.get(("M", "S"), 0.0)
    if terms <= {("S",), ("M", "S")} and _same(gated, -beta):
        return {"reset": "hard"} | ({"v_reset": by / beta} if by else {})
    late = p.get(("S", "X"), 0.0)
    if terms == {("M", "S"), ("S", "X")} and _same(gated, -beta) and _same(late, -gain) and not leak:
        return {"reset": "hard", "reset_at": "next_end"}
    if not terms:
        return {"reset": "none"}
    if terms == {("S",)} and _same(by, -beta * theta):
        return {"reset": "soft"}
    return {"reset": "soft", "reset_at": "next_end"} if terms == {("S",)} and _same(by, -theta) else None
