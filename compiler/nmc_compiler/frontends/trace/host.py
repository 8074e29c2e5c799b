"""Ops of real numbers on addresses: what a traced module leaves to the host, where that is allowed (docs/host.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace import ops
from nmc_compiler.frontends.trace.host_values import (
    affine,
    binary,
    by_channel,
    elementwise,
    is_input,
    is_real,
    is_traced,
    kinds_of,
    read_late,
    split,
)
from nmc_compiler.frontends.trace.places import owners, rearranged
from nmc_compiler.frontends.trace.steps import and_not
from nmc_compiler.frontends.trace.tape import LOCAL, MASK, Tape, Value, constant
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.graph.types import Kind

BITS = 16  # of codes whose range nothing tells


def _real_args(tracer: Any, *args: Any) -> bool:
    return any(is_real(tracer, a) for a in args)


def _sum(function: str) -> Callable[..., Any]:
    def made(tracer: Any, a: Any, b: Any, alpha: float = 1) -> Any:
        if not _real_args(tracer, a, b):
            return NotImplemented
        if is_traced(a) and is_traced(b):
            b = b if alpha == 1 else affine(tracer, "factor", b, alpha)
            return binary(tracer, function, a, b)
        x, numbers = (a, b) if is_traced(a) else (b, a)
        if is_input(tracer, x):
            return NotImplemented
        numbers = numbers if alpha == 1 or not is_traced(a) else numbers * alpha
        if function == "add":
            return affine(tracer, "offset", x, numbers)
        if is_traced(a):
            return affine(tracer, "offset", x, -numbers)
        return affine(tracer, "offset", affine(tracer, "factor", x, -float(alpha)), numbers)

    return made


def _rsub(tracer: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    return _sum("sub")(tracer, b, a, alpha)


def _mul(tracer: Any, a: Any, b: Any) -> Any:
    if is_traced(a) and is_traced(b):
        kinds = kinds_of(tracer, a) | kinds_of(tracer, b)
        if kinds <= {Kind.SPIKE, Kind.GRADED}:
            return NotImplemented
        if (gate := and_not(tracer.tape, tracer.addr(a), tracer.addr(b))) is not None:
            return tracer.symbol(gate, a)
        made = binary(tracer, "mul", a, b)
        for codes, factor in ((a, b), (b, a)):
            events = kinds_of(tracer, codes) <= {Kind.SPIKE, Kind.GRADED}
            if events and factor.ndim == codes.ndim and factor.shape[-1] == 1:
                tracer.products[made.addr.data_ptr()] = (made, codes, factor)
        return made
    x, numbers = (a, b) if is_traced(a) else (b, a)
    return NotImplemented if not is_real(tracer, x) or is_input(tracer, x) else affine(tracer, "factor", x, numbers)


def _div(tracer: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode:
        return NotImplemented
    if is_traced(a) and is_traced(b):
        return binary(tracer, "div", a, b)
    if is_traced(b):
        return affine(tracer, "factor", elementwise(tracer, "unary", b, function="reciprocal"), a)
    if not is_real(tracer, a) or is_input(tracer, a):
        return NotImplemented
    b = b.double() if isinstance(b, torch.Tensor) else float(b)
    return affine(tracer, "factor", a, 1.0 / b)


def _neg(tracer: Any, x: Any) -> Any:
    return affine(tracer, "factor", x, -1.0) if is_real(tracer, x) else NotImplemented


def _unary(function: str, always: bool = True) -> Callable[..., Any]:
    def made(tracer: Any, x: Any, *_: Any, **__: Any) -> Any:
        if not always and kinds_of(tracer, x) <= {Kind.SPIKE, Kind.GRADED}:
            return NotImplemented
        return elementwise(tracer, "unary", x, function=function)

    return made


def _pow(tracer: Any, x: Any, power: Any) -> Any:
    known = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if is_traced(power) or not is_traced(x) or float(power) not in known:
        return NotImplemented
    return elementwise(tracer, "unary", x, function=known[float(power)])


def _clamp(tracer: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    if any(isinstance(v, torch.Tensor) for v in (min, max)):
        return NotImplemented
    if None not in (min, max) and all(tracer.tape.values[n].op == "codes" for n in owners(tracer.addr(x))):
        return _clamped_codes(tracer, x, float(min), float(max))
    one = (min is None) != (max is None)  # a neuron of several levels has both
    current = one and not kinds_of(tracer, x) & {Kind.SPIKE, Kind.GRADED}
    if not is_real(tracer, x) and not current:
        return NotImplemented
    ends = {"lo": None if min is None else float(min), "hi": None if max is None else float(max)}
    return elementwise(tracer, "clip", x, **ends)


def _clamped_codes(tracer: Any, x: Any, low: float, high: float) -> Any:
    """clamp(round(y), low, high) is round(clamp(y, low, high)): whole ends, and bits for these."""
    if (low, high) != (math.ceil(low), math.floor(high)):
        return NotImplemented
    tape, addr = tracer.tape, tracer.addr(x).copy()
    bits = max(int(max(-low, high)).bit_length() + 1, 2)
    for n in owners(addr):
        value = tape.values[n]
        below = tape.values[value.operands[0]]
        inner = tape.add("clip", (below.number,), below.shape, Kind.REAL, lo=low, hi=high)
        made = tape.add("codes", (inner.number,), value.shape, Kind.GRADED, unit=1.0, bits=bits)
        mine = addr >> LOCAL == n
        addr[mine] = ops.at(made, addr[mine] & MASK)
    return tracer.symbol(addr, x)


def _clamp_max(tracer: Any, x: Any, max: Any) -> Any:
    return _clamp(tracer, x, None, max)


def _relu(tracer: Any, x: Any) -> Any:
    events = kinds_of(tracer, x) <= {Kind.SPIKE, Kind.GRADED}
    return NotImplemented if events else elementwise(tracer, "unary", x, function="relu")


def _round(tracer: Any, x: Any) -> Any:
    """Whole codes of real values, which go to a core as events."""
    if not is_real(tracer, x):
        return NotImplemented
    found = [_bound(tracer.tape, tracer.tape.values[n]) for n in owners(tracer.addr(x))]
    known = [most for most in found if most is not None]
    bits = max(math.ceil(max(known)).bit_length() + 1, 2) if len(known) == len(found) else BITS
    return elementwise(tracer, "codes", x, unit=1.0, bits=bits)


def _bound(tape: Tape, value: Value) -> float | None:
    """The largest |x / (f mean|x|)| is n / f for n channels (models.md N17); None for any other value."""
    if value.op != "binary" or value.attr("function") != "div":
        return None
    top, below = (tape.values[n] for n in value.operands)
    factor = 1.0
    while below.op in ("take", "reshape", "clip", "real_affine"):
        if below.op == "real_affine" and not isinstance(below.attr("factor"), float):
            return None
        if below.op == "clip" and below.attr("hi") is not None and below.attr("hi") < 1e4:
            return None
        factor *= below.attr("factor", 1.0) if below.op == "real_affine" else 1.0
        below = tape.values[below.operands[0]]
    if below.op != "reduce" or below.attr("function") != "mean" or below.shape[1:] != (1, 1):
        return None
    size = tape.values[below.operands[0]]
    same = size.op == "unary" and size.attr("function") == "abs" and size.operands[0] == top.number
    return size.shape[0] / factor if same and factor > 0 else None


def _compare(tracer: Any, x: Any, threshold: Any) -> Any:
    plain = not is_traced(threshold) and not isinstance(threshold, torch.Tensor)
    if not (is_traced(x) and is_real(tracer, x) and plain) or is_input(tracer, x):
        return NotImplemented
    return elementwise(tracer, "host_spikes", x, theta=float(threshold))


def _linear(tracer: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    if not is_traced(x) or is_traced(weight) or not is_real(tracer, x):
        return NotImplemented
    known = tracer.products.get(x.addr.data_ptr())
    if known is not None and known[0].shape == x.shape:
        _, codes, factor = known  # a linear layer of codes times one number is the number times that of the codes
        made = binary(tracer, "mul", torch.nn.functional.linear(codes, weight), factor)
        return made if bias is None else affine(tracer, "offset", made, bias)
    if is_input(tracer, x):
        return NotImplemented
    kernel, offset = tracer.const(weight, "weight"), tracer.const(bias, "bias")
    return by_channel(tracer, "real_linear", x, -1, len(weight), weight=kernel, bias=offset)


def _matmul(tracer: Any, a: Any, b: Any) -> Any:
    if not (is_traced(a) and is_traced(b)):
        x, w = (a, b) if is_traced(a) else (b, a)
        return _linear(tracer, x, w.t()) if x is a and w.ndim == 2 else NotImplemented
    kinds = kinds_of(tracer, a) | kinds_of(tracer, b)
    if kinds <= {Kind.SPIKE, Kind.GRADED} or a.ndim < 2 or b.ndim < 2:
        return NotImplemented
    return _real_product(tracer, a, b)


def _real_product(tracer: Any, a: Any, b: Any) -> Any:
    tape = tracer.tape
    batch = np.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    one = np.broadcast_to(tracer.addr(a), (*batch, *a.shape[-2:]))
    two = np.broadcast_to(tracer.addr(b), (*batch, *b.shape[-2:]))
    ends = (one.ndim - 2, one.ndim - 1)
    left, firsts = split(tape, [one], keep=ends)
    _, seconds = split(tape, [two], keep=ends)
    if len(firsts) != len(seconds):
        raise FrontendError(f"{tracer.here()}: a product of a value of every timestep with one of all timesteps")
    (m, k), n, results = one.shape[-2:], two.shape[-1], []
    for (x,), (y,) in zip(firsts, seconds, strict=True):
        groups = x.size // (m * k)
        first, second = rearranged(tape, x, (groups, m, k)), rearranged(tape, y, (groups, k, n))
        made = tape.add("real_matmul", (first.number, second.number), (groups, m, n), Kind.REAL)
        results.append(ops.at(made, np.arange(groups * m * n).reshape(*x.shape[:-2], m, n)))
    return tracer.symbol(left.join(results), a)


def _reduce(function: str) -> Callable[..., Any]:
    def made(tracer: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
        dims = [dim] if isinstance(dim, int) else list(dim or [])
        if not is_real(tracer, x) or len(dims) != 1 or _is_time(tracer, x, dims[0]):
            return NotImplemented
        kept = by_channel(tracer, "reduce", x, dims[0], 1, function=function)
        return kept if keepdim else kept.squeeze(dims[0])

    return made


def _is_time(tracer: Any, x: Any, dim: int) -> bool:
    parts = find_axes(tracer.tape, [tracer.addr(x)]).parts[dim % x.ndim]
    return any(timed for size, timed in parts if size > 1) and len({*_times(tracer, x)}) > 1


def _times(tracer: Any, x: Any) -> list[int | None]:
    return [tracer.tape.values[n].time for n in owners(tracer.addr(x))]


def _softmax(tracer: Any, x: Any, dim: int, *_: Any, **__: Any) -> Any:
    if _is_time(tracer, x, dim):
        raise FrontendError(
            f"{tracer.here()}: softmax over timesteps: a timestep would need later ones; a module that attends to the "
            f"tokens before it is one for nmc.register_host (docs/host.md)"
        )
    return by_channel(tracer, "softmax_channels", x, dim)


def _norm(op: str) -> Callable[..., Any]:
    def made(tracer: Any, x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float | None = 1e-5) -> Any:
        if len(tuple(shape)) != 1 or is_traced(weight) or is_traced(bias):
            return NotImplemented
        eps = float(torch.finfo(torch.float32).eps) if eps is None else float(eps)
        attrs = {"weight": tracer.const(weight, "weight"), "bias": tracer.const(bias, "bias"), "eps": eps}
        return by_channel(tracer, op, x, -1, **attrs)

    return made


def _rms_norm(tracer: Any, x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    return _norm("rms_norm")(tracer, x, shape, weight, None, eps)


def _native_layer_norm(tracer: Any, *args: Any) -> Any:
    return _norm("layer_norm")(tracer, *args), None, None


def _layer_norm(tracer: Any, *args: Any, **kwargs: Any) -> Any:
    return _norm("layer_norm")(tracer, *args, **{k: v for k, v in kwargs.items() if k != "cudnn_enable"})


def _embedding(tracer: Any, tokens: Any, weight: Any, *_: Any, **__: Any) -> Any:
    """Rows of a table, by the number of a token; tokens [...] become [..., C]."""
    if not is_traced(tokens) or is_traced(weight):
        return NotImplemented
    tape, addr = tracer.tape, tracer.addr(tokens)[..., None]
    axes, steps = split(tape, [addr], keep=(addr.ndim - 1,))
    table, results = tracer.const(weight, "weight"), []
    for (step,) in steps:
        if step.size != 1:
            raise FrontendError(f"{tracer.here()}: an embedding of {step.size} tokens in one timestep; one is lowered")
        value = rearranged(tape, step, (1, 1, 1))
        made = tape.add("embedding", (value.number,), (weight.shape[1], 1, 1), Kind.REAL, weight=table)
        results.append(ops.at(made, np.arange(weight.shape[1]).reshape(*step.shape[:-1], -1)))
    return tracer.symbol(axes.join(results), tokens, weight.dtype)


_aten: dict[str, Callable[..., Any]] = {
    "add": _sum("add"),
    "sub": _sum("sub"),
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "relu": _relu,
    "round": _round,
    "ge": _compare,
    "linear": _linear,
    "mm": _matmul,
    "bmm": _matmul,
    "matmul": _matmul,
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("max"),
    "_softmax": _softmax,
    "softmax": _softmax,
    "native_layer_norm": _native_layer_norm,
    "maximum": lambda tracer, a, b: binary(tracer, "max", a, b) if is_traced(a) and is_traced(b) else NotImplemented,
    "minimum": lambda tracer, a, b: binary(tracer, "min", a, b) if is_traced(a) and is_traced(b) else NotImplemented,
    "abs": _unary("abs", always=False),
    **{f: _unary(f) for f in ("exp", "reciprocal", "rsqrt", "sigmoid", "silu", "sqrt", "square", "tanh")},
}
AT_HOST: dict[Any, Callable[..., Any]] = {f"aten.{name}": handler for name, handler in _aten.items()} | {
    torch.nn.functional.linear: _linear,
    torch.matmul: _matmul,
    torch.bmm: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.nn.functional.layer_norm: _layer_norm,
    torch.nn.functional.rms_norm: _rms_norm,
    torch.nn.functional.embedding: _embedding,
}


# ---- modules ----


def module_call(tracer: Any, op: str, call: str, values: dict[str, Any], operands: tuple[Any, ...]) -> Any:
    """A registered module: an op of one token in each timestep, [B, C] in front of which ``call`` says what stands."""
    tape = tracer.tape
    axis = {"step": None, "sequence": 0, "batch, sequence": 1}[call]
    arrays = [tracer.addr(x) for x in operands]
    steps = [a[None] if axis is None else read_late(tape, np.moveaxis(a, axis, 0)) for a in arrays]
    attrs = {k: constant(v, f"{tape.module}.{k}") if isinstance(v, np.ndarray) else v for k, v in values.items()}
    results = []
    for now in zip(*steps, strict=True):
        made = [rearranged(tape, step, (step.size, 1, 1)) for step in now]
        size = made[2 if op == "gated_table" else 0].size
        value = tape.add(op, tuple(v.number for v in made), (size, 1, 1), Kind.REAL, **attrs)
        results.append(ops.at(value, np.arange(size).reshape(*now[0].shape[:-1], size)))
    return tracer.symbol(results[0] if axis is None else np.stack(results, axis), operands[0])


def check_kept(kept: list[str]) -> None:
    """FrontendError where a module of which a call is one timestep keeps a value for the next call, which no trace of
    one call sees."""
    for name in kept:
        raise FrontendError(
            f"'{name}' keeps a value from one call to the next, and one call is traced: "
            f"show all timesteps in one call, [T, B, ...] (-T 1 if a call is a whole sample)"
        )


def kept_values(module: torch.nn.Module) -> list[str]:
    """Attributes of modules that hold a value of the call that was traced."""
    return [
        f"{name}.{key}".lstrip(".")
        for name, inner in module.named_modules()
        for key, value in {**vars(inner), **inner._buffers}.items()
        if is_traced(value)
    ]
