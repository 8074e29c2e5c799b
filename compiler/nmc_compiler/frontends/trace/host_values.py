"""Real values on addresses: operands of a timestep, some of them late, and the shapes that ops of the host have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace import ops
from nmc_compiler.frontends.trace.places import channels_first, owners, rearranged, whole
from nmc_compiler.frontends.trace.tape import LOCAL, MASK, NOTHING, Tape, Value, constant
from nmc_compiler.frontends.trace.timesteps import Axes, find_axes
from nmc_compiler.graph.registry import known_ops
from nmc_compiler.graph.types import Kind

Addr = np.ndarray
HOST_OPS = frozenset(spec.name for spec in known_ops() if spec.host)


def is_real(tracer: Any, x: Any) -> bool:
    """Whether a traced tensor has real values: of the input, or of the host."""
    return is_traced(x) and bool(kinds_of(tracer, x) & {Kind.REAL})


def kinds_of(tracer: Any, x: Any) -> set[Kind]:
    return {tracer.tape.values[n].kind for n in owners(tracer.addr(x))}


def is_input(tracer: Any, x: Any) -> bool:
    """Whether it is the network's input, or a rearrangement of it."""

    def raw(number: int) -> bool:
        value = tracer.tape.values[number]
        return value.op == "input" or (value.op in ("take", "reshape") and all(raw(n) for n in value.operands))

    return all(raw(n) for n in owners(tracer.addr(x)))


# ---- timesteps ----


def split(
    tape: Tape, arrays: list[Addr], keep: tuple[int, ...] = (), plain: tuple[np.ndarray, ...] = ()
) -> tuple[Axes, list[list[Addr]]]:
    """Operands of one shape, timestep by timestep; what is shifted in time is read as late as it is."""
    axes = find_axes(tape, arrays, keep, plain)
    parts = [read_late(tape, axes.split(a)) for a in arrays]
    return axes, [[part[t] for part in parts] for t in range(len(parts[0]))]


def read_late(tape: Tape, part: Addr) -> Addr:
    """[timesteps, ...] where zeros come first and then, each ``lag`` timesteps late, values: these, read late."""
    lag = next((t for t, step in enumerate(part) if (step != NOTHING).any()), 0)
    times = [{tape.values[n].time for n in owners(step)} for step in part[lag:]]
    if not lag or times != [{t} for t in range(len(times))]:
        return part
    found = part.copy()
    for t in range(len(part)):
        source = part[max(t, lag)]
        found[t] = source
        for n in owners(source):
            value = tape.values[n]
            made = tape.add("before", (), value.shape, value.kind, time=t, of=n, lag=lag)
            mine = source >> LOCAL == n
            found[t][mine] = ops.at(made, source[mine] & MASK)
    return found


# ---- shapes of ops ----


def elementwise(tracer: Any, op: str, x: Any, **attrs: Any) -> Any:
    """A function of each element."""
    tape = tracer.tape
    axes, steps = split(tape, [tracer.addr(x)])
    results = []
    for (step,) in steps:
        value, local = whole(tape, step)
        kind = {"codes": Kind.GRADED, "host_spikes": Kind.SPIKE}.get(op, Kind.REAL)
        results.append(ops.at(tape.add(op, (value.number,), value.shape, kind, **attrs), local))
    return tracer.symbol(axes.join(results), x)


def binary(tracer: Any, function: str, a: Any, b: Any) -> Any:
    """Of two traced tensors, which broadcast."""
    tape = tracer.tape
    one, two = np.broadcast_arrays(tracer.addr(a), tracer.addr(b))
    axes, steps = split(tape, [one, two])
    results = []
    for x, y in steps:
        if (x == NOTHING).all() or (y == NOTHING).all():
            results.append(_with_zeros(tracer, function, x, y))
            continue
        first, second, local = _aligned(tape, x, y)
        made = tape.add("binary", (first.number, second.number), first.shape, Kind.REAL, function=function)
        results.append(ops.at(made, local))
    return tracer.symbol(axes.join(results), a)


def _with_zeros(tracer: Any, function: str, x: Addr, y: Addr) -> Addr:
    zero = (x == NOTHING).all()
    if function == "add":
        return y if zero else x
    if function == "sub" and not zero:
        return x
    if function in ("mul", "div") and zero or function == "mul":
        return np.full(x.shape, NOTHING)
    raise FrontendError(f"{tracer.here()}: {function} of nothing but zeros")


def _aligned(tape: Tape, one: Addr, two: Addr) -> tuple[Value, Value, np.ndarray]:
    """Two operands as values of one shape and order, the first of them as it stands."""
    base, local = whole(tape, one)
    ordered = np.empty(base.size, np.int64)
    ordered[local.reshape(-1)] = two.reshape(-1)
    return base, rearranged(tape, ordered.reshape(base.shape), base.shape), local


def affine(tracer: Any, key: str, x: Any, numbers: Any) -> Any:
    """Times (``factor``) or plus (``offset``) numbers that broadcast over it."""
    name = tracer._use(numbers) if isinstance(numbers, torch.Tensor) else ""
    array = numbers.detach().double().cpu().numpy() if isinstance(numbers, torch.Tensor) else np.float64(numbers)
    tape = tracer.tape
    shape = np.broadcast_shapes(tuple(x.shape), np.shape(array))
    addr, full = np.broadcast_to(tracer.addr(x), shape), np.broadcast_to(array, shape)
    if (full == (1 if key == "factor" else 0)).all():
        return tracer.symbol(addr, x)
    axes, steps = split(tape, [addr], plain=(full,))
    results = []
    for (step,), values in zip(steps, axes.split(full), strict=True):
        value, local = whole(tape, step)
        ordered = np.empty(value.size)
        ordered[local.reshape(-1)] = values.reshape(-1)
        given = ops.compact(ordered.reshape(value.shape))
        by = given if isinstance(given, float) else constant(given, name)
        results.append(
            ops.at(tape.add("real_affine", (value.number,), value.shape, Kind.REAL, attributes={key: by}), local)
        )
    return tracer.symbol(axes.join(results), x)


def by_channel(tracer: Any, op: str, x: Any, dim: int, out: int | None = None, **attrs: Any) -> Any:
    """An op over one axis, whose length becomes ``out``."""
    tape, dim = tracer.tape, dim % x.ndim
    axes, steps = split(tape, [tracer.addr(x)], keep=(dim,))
    channel = sum(1 for parts in axes.parts[:dim] for _, timed in parts if not timed)
    results = []
    for (step,) in steps:
        value, place = channels_first(tape, np.moveaxis(step, channel, 0))
        shape = (out or value.shape[0], *value.shape[1:])
        made = tape.add(op, (value.number,), shape, Kind.REAL, **attrs)
        local = np.arange(shape[0]).reshape(-1, *[1] * place.ndim) * math.prod(shape[1:]) + place
        results.append(np.moveaxis(ops.at(made, local), 0, channel))
    return tracer.symbol(axes.join(results), x)


def is_traced(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and hasattr(x, "tracer")
