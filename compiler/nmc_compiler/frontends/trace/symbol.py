"""Tensors that carry addresses instead of numbers, and what each op of PyTorch does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map_only

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace import ops, pools, products, steps
from nmc_compiler.frontends.trace.host import AT_HOST
from nmc_compiler.frontends.trace.tape import LOCAL, NOTHING, StopTrace
from nmc_compiler.graph.types import Kind

aten = torch.ops.aten
MAX_ADDRESSES = 1 << 28


class Symbol(torch.Tensor):
    """A tensor of a trace: ``addr`` holds the address of each element, in an int64 tensor of the same shape.

    ``refused``: why it cannot be computed by anything in a graph; an error only where the network needs it.
    """

    addr: torch.Tensor
    tracer: Any
    refused: str | None = None

    @staticmethod
    def __new__(cls, addr: torch.Tensor, tracer: Any, dtype: torch.dtype = torch.float32) -> Symbol:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, addr.shape, strides=addr.stride(), dtype=dtype, device="cpu"
        )
        made.addr, made.tracer = addr, tracer
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"<traced {tuple(self.shape)}>"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tracer = next(x.tracer for x in tree_flatten((args, kwargs))[0] if isinstance(x, Symbol))
        handler = chosen(tracer, func, FUNCTIONS.get(func))
        with torch._C.DisableTorchFunctionSubclass():
            result = NotImplemented if handler is None else tried(tracer, handler, func, args, kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tracer = next(x.tracer for x in tree_flatten((args, kwargs))[0] if isinstance(x, Symbol))
        return dispatch(tracer, func, args, kwargs or {})


def dispatch(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One op of PyTorch with a traced operand."""
    name = str(func.overloadpacket)
    if tracer.done:
        raise FrontendError(f"{name}: a traced value is used after its trace has ended")
    if name in MOVES:
        return _move(tracer, func, args, kwargs)
    if name in IN_PLACE:
        plain = IN_PLACE[name]
        result = tried(tracer, chosen(tracer, plain, OPS[plain]), getattr(aten, name[5:-1]), args, kwargs)
        _check_written(tracer, args[0])
        args[0].addr.copy_(result.addr.expand(args[0].shape))
        args[0].refused = result.refused
        return args[0]
    return tried(tracer, chosen(tracer, name, OPS.get(name)), func, args, kwargs)


def chosen(tracer: Any, key: Any, handler: Any) -> Any:
    """What an op is where the host may compute: real values go there, everything else is what it always is."""
    host = AT_HOST.get(key) if tracer.host else None
    if host is None:
        return handler

    def either(tracer: Any, *args: Any, **kwargs: Any) -> Any:
        made = host(tracer, *args, **kwargs)
        if made is not NotImplemented or not isinstance(key, str):
            return made if made is not NotImplemented or handler is None else handler(tracer, *args, **kwargs)
        if handler is None:
            raise FrontendError(tracer.refusal(key))
        return handler(tracer, *args, **kwargs)

    return either


def tried(tracer: Any, handler: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a handler makes of an op; what it refuses is an error only where the network needs it."""
    refused = next((x.refused for x in tree_flatten((args, kwargs))[0] if isinstance(x, Symbol) and x.refused), None)
    if handler in NOW or refused is None and handler is not None:
        try:
            return handler(tracer, *args, **kwargs)
        except StopTrace:
            raise
        except FrontendError as error:
            if handler in NOW:
                raise
            refused = str(error)
    return _refused(tracer, func, args, kwargs, refused or tracer.refusal(str(getattr(func, "overloadpacket", func))))


def _refused(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], why: str) -> Any:
    """Tensors of the shapes that the op would give, which hold nothing but the reason."""
    given = tree_map_only(torch.Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype, device="meta"), (args, kwargs))
    try:
        with torch._C._DisableTorchDispatch():
            shaped = func(*given[0], **given[1])
    except Exception:
        raise FrontendError(why) from None
    return tree_map_only(torch.Tensor, lambda x: _empty(tracer, x, why), shaped)


def _empty(tracer: Any, like: torch.Tensor, why: str) -> Symbol:
    made = tracer.tape.add("refused", (), (max(like.numel(), 1), 1, 1), Kind.CURRENT, why=why)
    addr = (made.number << LOCAL) + torch.arange(like.numel(), dtype=torch.int64)
    symbol = Symbol(addr.reshape(like.shape), tracer, like.dtype)
    symbol.refused = why
    return symbol


# ---- rearrangements: PyTorch does to the addresses what it was asked to do to the tensors ----

_MOVES = """view _unsafe_view reshape _reshape_alias permute transpose t expand squeeze unsqueeze select slice
split split_with_sizes chunk unbind cat stack clone contiguous repeat flip roll index_select index gather alias
detach unfold narrow pixel_shuffle pixel_unshuffle channel_shuffle diagonal movedim lift_fresh lift_fresh_copy
    tile repeat_interleave view_as"""
MOVES = {f"aten.{name}" for name in _MOVES.split()}


def _move(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name, dtype = str(func.overloadpacket), _dtype(args)
    kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory")}
    if name in ("aten.repeat", "aten.cat", "aten.stack", "aten.clone", "aten.index", "aten.gather"):
        _check_size(tracer, args)
    joins = name in ("aten.cat", "aten.stack")
    taken = tree_map_only(torch.Tensor, lambda x: _addr_of(tracer, x, joins), args)
    moved = func(*taken, **kwargs)
    refused = next((x.refused for x in tree_flatten(args)[0] if isinstance(x, Symbol) and x.refused), None)
    return tree_map_only(torch.Tensor, lambda x: _moved(x, tracer, dtype, refused), moved)


def _moved(addr: torch.Tensor, tracer: Any, dtype: torch.dtype, refused: str | None) -> Symbol:
    if addr.numel() > MAX_ADDRESSES:
        raise StopTrace(f"{tracer.tape.line()}: a tensor of {addr.numel()} elements, more than {MAX_ADDRESSES}")
    symbol = Symbol(addr, tracer, dtype)
    symbol.refused = refused
    return symbol


def _addr_of(tracer: Any, x: torch.Tensor, joins: bool) -> torch.Tensor:
    """Addresses of an operand: numbers that are joined with traced values get some too; others are indices."""
    if isinstance(x, Symbol):
        return x.addr
    return tracer.plain(x) if joins else x


def _check_size(tracer: Any, args: tuple[Any, ...]) -> None:
    total = sum(x.numel() for x in tree_flatten(args)[0] if isinstance(x, torch.Tensor))
    if len(args) > 1 and isinstance(args[1], (list, tuple)) and all(isinstance(n, int) for n in args[1]):
        for n in args[1]:
            total *= max(int(n), 1)
    if total > MAX_ADDRESSES:
        raise FrontendError(f"{tracer.tape.line()}: a tensor of {total} elements, more than {MAX_ADDRESSES}")


def _dtype(args: Any) -> torch.dtype:
    return next(x.dtype for x in tree_flatten(args)[0] if isinstance(x, Symbol))


def _fill(value: float) -> Callable[..., Any]:
    """zeros_like and its kin; other numbers give an ordinary tensor."""

    def made(tracer: Any, x: Symbol, *args: Any, **kwargs: Any) -> torch.Tensor:
        size = tuple(args[0]) if args and isinstance(args[0], (list, tuple, torch.Size)) else tuple(x.shape)
        dtype = kwargs.get("dtype") or x.dtype
        if value == 0:
            return Symbol(torch.full(size, NOTHING, dtype=torch.int64), tracer, dtype)
        return torch.full(size, value, dtype=dtype)

    return made


def _full_like(tracer: Any, x: Symbol, value: float, **kwargs: Any) -> torch.Tensor:
    return _fill(float(value))(tracer, x, **kwargs)


def _new_full(tracer: Any, x: Symbol, size: Any, value: float, **kwargs: Any) -> torch.Tensor:
    return _fill(float(value))(tracer, x, size, **kwargs)


def _check_written(tracer: Any, into: Any) -> None:
    """FrontendError where a plain tensor, of which no trace is kept, would be written to."""
    if not isinstance(into, Symbol):
        raise FrontendError(
            f"{tracer.tape.line()}: writes a traced value into a plain tensor; make it with torch.zeros_like(x) or "
            f"collect values in a list for torch.stack"
        )


def _copy(tracer: Any, into: Any, source: Any, *_: Any) -> Any:
    _check_written(tracer, into)
    into.addr.copy_(source.addr if isinstance(source, Symbol) else tracer.plain(source))
    return into


def _to(tracer: Any, x: Symbol, **kwargs: Any) -> Symbol:
    return Symbol(x.addr, tracer, kwargs.get("dtype") or x.dtype)


def _pad(tracer: Any, x: Symbol, pad: list[int], value: float = 0.0) -> Symbol:
    """F.pad with a constant; negative pads crop."""
    before, after = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    shape = [n + a + b for n, a, b in zip(x.shape, before, after, strict=True)]
    whole = tracer.plain(torch.full((), float(value))).expand(shape).clone()
    into = tuple(slice(max(a, 0), n + a + min(b, 0)) for n, a, b in zip(x.shape, before, after, strict=True))
    kept = tuple(slice(max(-a, 0), n + min(b, 0)) for n, a, b in zip(x.shape, before, after, strict=True))
    whole[into] = x.addr[kept]
    return Symbol(whole, tracer, x.dtype)


def _upsample(tracer: Any, x: Symbol, size: Any, *scales: Any) -> Symbol:
    """Nearest neighbours: addresses are whole numbers below 2^53, so PyTorch may pick them as doubles."""
    if size is None:
        size = [int(n * s) for n, s in zip(x.shape[2:], scales[0], strict=True)]
    taken = torch.nn.functional.interpolate(torch.arange(x[0].numel()).reshape(x.shape[1:])[None].double(), tuple(size))
    flat = x.addr.reshape(len(x), -1)
    return Symbol(flat[:, taken.long().reshape(-1)].reshape(len(x), *taken.shape[1:]), tracer, x.dtype)


def _where(tracer: Any, chosen: Any, a: Any, b: Any) -> Any:
    """``a`` where ``chosen``, which are numbers, or spikes c: c a + (b - c b)."""
    if not isinstance(chosen, Symbol):
        one, two = (torch.as_tensor(x) if not isinstance(x, torch.Tensor) else x for x in (a, b))
        taken = torch.where(chosen, *(_addr_of(tracer, x, True) for x in (one, two)))
        return Symbol(taken, tracer, _dtype((one, two)))
    dtype = next((x.dtype for x in (a, b) if isinstance(x, Symbol)), torch.float32)
    spikes = Symbol(chosen.addr, tracer, dtype)
    here, elsewhere = (_mul(tracer, spikes, x) if _some(x) else None for x in (a, b))
    rest = b if elsewhere is None else _sub(tracer, b, elsewhere)
    if here is None:
        return rest if isinstance(rest, Symbol) else _fill(0.0)(tracer, spikes)
    return _add(tracer, here, rest) if isinstance(rest, Symbol) or _some(rest) else here


def _some(x: Any) -> bool:
    """Whether a traced value, a tensor or a number is not just zero."""
    return isinstance(x, Symbol) or (bool(x.any()) if isinstance(x, torch.Tensor) else float(x) != 0)


def _masked_fill(tracer: Any, x: Symbol, mask: torch.Tensor, value: Any) -> Any:
    if isinstance(mask, Symbol):
        return _where(tracer, mask, value, x)
    if float(value) != 0:
        raise FrontendError(tracer.refusal("aten.masked_fill"))
    return Symbol(x.addr.masked_fill(mask, NOTHING), tracer, x.dtype)


# ---- arithmetic ----


def _add(tracer: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    if alpha != 1:
        b = _mul(tracer, b, alpha) if isinstance(b, Symbol) else b * alpha
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        return tracer.symbol(ops.add(tracer.tape, tracer.addr(a), tracer.addr(b)), a)
    x, numbers = (a, b) if isinstance(a, Symbol) else (b, a)
    return tracer.affine("bias", x, numbers)


def _sub(tracer: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    return _add(tracer, a, b, -alpha)


def _rsub(tracer: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    return _add(tracer, b, a, -alpha)


def _neg(tracer: Any, x: Symbol) -> Symbol:
    return tracer.affine("scale", x, -1.0)


def _mul(tracer: Any, a: Any, b: Any) -> Any:
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        operands = (tracer.tape, tracer.addr(a), tracer.addr(b))
        both = steps.and_not(*operands)
        return tracer.symbol(ops.multiply(*operands) if both is None else both, a)
    x, numbers = (a, b) if isinstance(a, Symbol) else (b, a)
    return tracer.affine("scale", x, numbers)


def _div(tracer: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if isinstance(b, Symbol) or rounding_mode:
        raise FrontendError(tracer.refusal("aten.div"))
    b = b.double() if isinstance(b, torch.Tensor) else float(b)
    return tracer.affine("scale", a, 1.0 / b)


def _convolution(
    tracer: Any, x: Symbol, weight: Any, bias: Any, stride: Any, pad: Any, dilation: Any, transposed: bool,
    output_pad: Any, groups: int,
) -> Symbol:  # fmt: skip
    if transposed:
        raise FrontendError(tracer.refusal("aten.convolution (transposed)"))
    if isinstance(weight, Symbol):
        raise FrontendError(tracer.refusal("aten.convolution with traced weights"))
    made = ops.convolution(
        tracer.tape,
        tracer.addr(x),
        tracer.const(weight, "weight"),
        tracer.const(bias, "bias"),
        stride=_ints(stride, x.ndim - 2),
        pad=_ints(pad, x.ndim - 2),
        dilation=_ints(dilation, x.ndim - 2),
        groups=groups,
    )
    return tracer.symbol(made, x)


def _ints(values: Any, count: int) -> tuple[int, ...]:
    found = tuple(int(v) for v in values)
    return found * count if len(found) == 1 else found


def _linear(tracer: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(x, Symbol) or isinstance(weight, Symbol):
        raise FrontendError(tracer.refusal("aten.linear with traced weights"))
    made = ops.linear(tracer.tape, tracer.addr(x), tracer.const(weight, "weight"), tracer.const(bias, "bias"))
    return tracer.symbol(made, x)


def _matmul(tracer: Any, a: Any, b: Any) -> Any:
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        if a.ndim < 2 or b.ndim < 2:
            raise FrontendError(tracer.refusal("aten.matmul of a vector"))
        return tracer.symbol(products.matmul(tracer.tape, tracer.addr(a), tracer.addr(b)), a)
    if isinstance(a, Symbol) and b.ndim == 2:
        return _linear(tracer, a, b.t())
    if isinstance(b, Symbol) and a.ndim == 2 and b.ndim >= 2:  # W x, column by column
        return _linear(tracer, b.transpose(-1, -2), a).transpose(-1, -2)
    raise FrontendError(tracer.refusal("aten.matmul of this shape"))


def _addmm(tracer: Any, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Any:
    if isinstance(bias, torch.Tensor) and bias.ndim == 1 and isinstance(a, Symbol) and beta == alpha == 1:
        return _linear(tracer, a, b.t(), bias)
    return _add(tracer, _mul(tracer, _matmul(tracer, a, b), alpha), bias * beta)


def _baddbmm(tracer: Any, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Any:
    product = _mul(tracer, _matmul(tracer, a, b), alpha)
    return product if beta == 0 else _add(tracer, product, bias * beta)


def _batch_norm(
    tracer: Any, x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if training or mean is None:
        raise FrontendError(
            f"{tracer.here()}: batch norm in training mode, or without running statistics, depends on the batch; "
            f"call model.eval() and keep track_running_stats=True"
        )
    if any(isinstance(t, Symbol) for t in (mean, var, weight, bias)):
        return NotImplemented
    arrays = {
        "mean": tracer.const(mean, "running_mean"),
        "var": tracer.const(var, "running_var"),
        "weight": tracer.const(weight, "weight"),
        "bias": tracer.const(bias, "bias"),
    }
    return tracer.symbol(ops.batch_norm(tracer.tape, tracer.addr(x), float(eps), **arrays), x)


def _native_batch_norm(
    tracer: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> tuple[Any, Any, Any]:
    training, eps = (rest[0], rest[2]) if len(rest) == 3 else (False, rest[-1])
    return _batch_norm(tracer, x, mean, var, weight, bias, training, 0.1, eps), None, None


# ---- pools and sums ----


def _mean(tracer: Any, x: Symbol, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Symbol:
    return tracer.symbol(pools.reduce(tracer.tape, tracer.addr(x), _dims(dim), keepdim, True), x)


def _sum(tracer: Any, x: Symbol, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Symbol:
    return tracer.symbol(pools.reduce(tracer.tape, tracer.addr(x), _dims(dim), keepdim, False), x)


def _dims(dim: Any) -> tuple[int, ...]:
    return () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


def _two(value: Any, default: Any = None) -> tuple[int, int]:
    found = tuple(int(v) for v in (value if isinstance(value, (list, tuple)) else (value,))) if value != [] else default
    return (found[0], found[0]) if len(found) == 1 else (found[0], found[1])


def _max_pool(
    tracer: Any, x: Symbol, kernel: Any, stride: Any = (), pad: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Symbol, Symbol]:
    size = _two(kernel)
    step = _two(stride) if stride else size
    made = pools.max_pool(tracer.tape, tracer.addr(x), size, step, _two(pad), _two(dilation), ceil_mode)
    return tracer.symbol(made, x), _indices(tracer, made, x)


def _max_pool3d(
    tracer: Any, x: Symbol, kernel: Any, stride: Any = (), pad: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Symbol, Symbol]:
    """A pool over the last two axes alone, written as one over three."""
    size, step, edge, wide = (_three(v) for v in (kernel, stride or kernel, pad, dilation))
    if (size[0], step[0], edge[0]) != (1, 1, 0) or x.ndim != 5:
        raise FrontendError(tracer.refusal("aten.max_pool3d over three axes"))
    made = pools.max_pool(tracer.tape, tracer.addr(x), size[1:], step[1:], edge[1:], wide[1:], ceil_mode)  # type: ignore[arg-type]
    return tracer.symbol(made, x), _indices(tracer, made, x)


def _indices(tracer: Any, pooled: np.ndarray, x: Symbol) -> Symbol:
    """Where the largest values are, which PyTorch gives whether asked or not: refused only where they are used."""
    why = f"{tracer.tape.line()}: uses the indices of a max-pool; only its values are lowered"
    return tracer.symbol(ops.elementwise(tracer.tape, "refused", pooled, Kind.REAL, why=why), x, torch.int64)


def _three(value: Any) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return found * 3 if len(found) == 1 else found


def _avg_pool(
    tracer: Any, x: Symbol, kernel: Any, stride: Any = (), pad: Any = 0, ceil: bool = False, count_pad: bool = True,
    divisor: int | None = None,
) -> Symbol:  # fmt: skip
    size = _two(kernel)
    step = _two(stride) if stride else size
    made = pools.average_pool(tracer.tape, tracer.addr(x), size, step, _two(pad), ceil, count_pad, divisor)
    return tracer.symbol(made, x)


def _adaptive_avg_pool(tracer: Any, x: Symbol, size: Any) -> Symbol:
    out = _two(size)
    if any(n % m for n, m in zip(x.shape[-2:], out, strict=True)):
        raise FrontendError(
            f"{tracer.tape.line()}: adaptive average pool of {tuple(x.shape[-2:])} to {out}: windows differ in size"
        )
    window = [n // m for n, m in zip(x.shape[-2:], out, strict=True)]
    return _avg_pool(tracer, x, window, window)


# ---- neurons of plain functions ----


def _step(op: str) -> Callable[..., Symbol]:
    def applied(tracer: Any, x: Symbol) -> Symbol:
        tracer.rank = max(tracer.rank, x.ndim)
        return tracer.symbol(steps.apply(tracer.tape, op, tracer.addr(x)), x)

    return applied


def _clamp(tracer: Any, x: Symbol, min: Any = None, max: Any = None) -> Symbol:
    low, high = (default if v is None else float(v) for v, default in ((min, -np.inf), (max, np.inf)))
    return tracer.symbol(steps.apply(tracer.tape, "clamp", tracer.addr(x), low, high), x)


def _clamp_max(tracer: Any, x: Symbol, max: Any) -> Symbol:
    return _clamp(tracer, x, None, max)


def _compare(how: str, negated: bool = False) -> Callable[..., Any]:
    def compared(tracer: Any, x: Any, threshold: Any) -> Any:
        if negated or isinstance(threshold, Symbol) or not isinstance(x, Symbol):
            raise FrontendError(tracer.refusal(f"aten.{how} of this kind"))
        level = np.asarray(threshold.double().numpy() if isinstance(threshold, torch.Tensor) else float(threshold))
        return tracer.symbol(steps.compare(tracer.tape, tracer.addr(x), level, how), x, torch.bool)

    return compared


class Unread(float):
    """A number that code asked for where nothing may depend on it: it may be kept, but nothing be decided by it."""

    def _read(self, *_: Any) -> Any:
        raise FrontendError("what the module does depends on its data")

    __bool__ = __int__ = __index__ = __hash__ = _read  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _read  # type: ignore[assignment]


def _item(tracer: Any, x: Any, *_: Any) -> Any:
    if tracer.alone:
        return Unread("nan")
    raise FrontendError(
        f"{tracer.here()}: the code asks for the number of a traced value (if, while, .item()): what it computes "
        f"depends on the data; nmc compiles what is the same for every input"
    )


def _same(tracer: Any, x: Symbol, *_: Any, **__: Any) -> Symbol:
    return x


OPS: dict[str, Callable[..., Any]] = {
    "aten.add": _add,
    "aten.sub": _sub,
    "aten.rsub": _rsub,
    "aten.neg": _neg,
    "aten.mul": _mul,
    "aten.div": _div,
    "aten.convolution": _convolution,
    "aten.linear": _linear,
    "aten.mm": _matmul,
    "aten.bmm": _matmul,
    "aten.matmul": _matmul,
    "aten.addmm": _addmm,
    "aten.baddbmm": _baddbmm,
    "aten.native_batch_norm": _native_batch_norm,
    "aten._native_batch_norm_legit_no_training": _native_batch_norm,
    "aten.cudnn_batch_norm": _native_batch_norm,
    "aten.mean": _mean,
    "aten.sum": _sum,
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.max_pool3d_with_indices": _max_pool3d,
    "aten.avg_pool2d": _avg_pool,
    "aten._adaptive_avg_pool2d": _adaptive_avg_pool,
    "aten.clamp": _clamp,
    "aten.clamp_min": _clamp,
    "aten.clamp_max": _clamp_max,
    "aten.hardtanh": _clamp,
    "aten.round": _step("round"),
    "aten.floor": _step("floor"),
    "aten.ge": _compare("ge"),
    "aten.gt": _compare("gt"),
    "aten._to_copy": _to,
    "aten.zeros_like": _fill(0.0),
    "aten.empty_like": _fill(0.0),
    "aten.ones_like": _fill(1.0),
    "aten.full_like": _full_like,
    "aten.new_zeros": _fill(0.0),
    "aten.new_empty": _fill(0.0),
    "aten.new_ones": _fill(1.0),
    "aten.new_full": _new_full,
    "aten.copy_": _copy,
    "aten.fill_": lambda tracer, x, value: _copy(tracer, x, torch.full((), float(value)).expand(x.shape)),
    "aten.zero_": lambda tracer, x: _copy(tracer, x, torch.zeros(()).expand(x.shape)),
    "aten.constant_pad_nd": _pad,
    "aten.upsample_nearest1d": _upsample,
    "aten.upsample_nearest2d": _upsample,
    "aten.upsample_nearest3d": _upsample,
    "aten.masked_fill": _masked_fill,
    "aten.where": _where,
    "aten._local_scalar_dense": _item,
    "aten.item": _item,
    "aten.is_nonzero": _item,
    "aten.equal": _item,
    "aten.nonzero": _item,
    "aten.relu": lambda tracer, x: _clamp(tracer, x, 0.0, None),
    "aten.dropout": _same,
}
_IN_PLACE = "add sub mul div clamp clamp_min clamp_max round floor relu"
IN_PLACE = {f"aten.{name}_": f"aten.{name}" for name in _IN_PLACE.split()}

NOW = (_item, _copy)
"""What the next line of code needs, or hides, so that it is refused at once."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.linear: _linear,
    torch.matmul: _matmul,
    torch.bmm: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.Tensor.__rmatmul__: lambda tracer, a, b: _matmul(tracer, b, a),
    torch.nn.functional.batch_norm: _batch_norm,
    torch.Tensor.item: _item,
    torch.Tensor.tolist: _item,
    torch.Tensor.numpy: _item,
    torch.Tensor.__bool__: _item,
    torch.Tensor.__float__: _item,
    torch.Tensor.__int__: _item,
}
