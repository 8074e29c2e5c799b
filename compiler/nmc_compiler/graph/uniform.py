"""Arrays of one value: any shape, no memory. Arithmetic among them gives another one, at the cost of one number.

With them a network is built and quantised from its shapes alone: the passes run as they do on weights. Whatever NumPy
does with one that is not known here gives an ordinary array, with the right values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHORT = 1 << 14
_SAME = ("maximum", "minimum", "logical_and", "logical_or")  # reductions to the value itself

# Functions that are views, or made of ufuncs: those may see it as it is.
_KNOWN = {np.clip, np.mean, np.sum, np.max, np.min, np.any, np.all, np.moveaxis, np.transpose, np.reshape, np.squeeze}


class Uniform(np.ndarray):
    """A read-only view of one number, every stride 0; made by `uniform`."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        given = [_plain(x) for x in inputs]
        if all(x is None for x in _outputs(options)):
            options.pop("out", None)
        if not options.keys() - {"dtype", "casting"} and method == "__call__" and all(map(_is_uniform, given)):
            found = _called(ufunc, given, options)
            if found is not None:
                return found
        if method == "reduce" and given[0].size and _is_uniform(given[0]):
            found = _reduced(ufunc, given[0], *inputs[1:], **options)
            if found is not None:
                return found
        if "out" in options:
            options["out"] = tuple(_plain(x) for x in _outputs(options))
        return getattr(ufunc, method)(*given, **options)

    def __array_function__(self, func: Any, types: Any, args: Any, options: Any) -> Any:
        if func is np.tensordot and options == {"axes": (1, 0)} and all(_is_uniform(_plain(x)) for x in args):
            a, b = (_plain(x) for x in args)
            if a.ndim > 1 and b.ndim and a.size and b.size and a.shape[1] == b.shape[0]:
                shape = (a.shape[0], *a.shape[2:], *b.shape[1:])
                return uniform(_value(a) * _value(b) * a.shape[1], shape)
        if func in _KNOWN:
            return super().__array_function__(func, types, args, options)
        return func(*map(_all_plain, args), **{k: _all_plain(v) for k, v in options.items()})

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Another type, still without memory of its own."""
        plain = _plain(self)
        if not plain.size or not _is_uniform(plain):
            return plain.astype(dtype, *args, **options)
        return uniform(plain.flat[0].astype(dtype), plain.shape)

    def copy(self, order: Any = "C") -> Any:
        """Itself: nobody can write to it."""
        return self if self.size and _is_uniform(self) else _plain(self).copy(order)


def uniform(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array of ``shape`` of one NumPy number."""
    return np.broadcast_to(np.asarray(value), shape).view(Uniform)


def _all_plain(x: Any) -> Any:
    return type(x)(map(_all_plain, x)) if isinstance(x, (list, tuple)) else _plain(x)


def _outputs(options: dict[str, Any]) -> tuple[Any, ...]:
    out = options.get("out")
    return out if isinstance(out, tuple) else (out,)


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Uniform) else x


def _is_uniform(x: Any) -> bool:
    """Whether an operand holds one value, as its strides tell, or a look at a short one (a number per channel)."""
    if not isinstance(x, np.ndarray):
        return np.ndim(x) == 0
    if x.size <= 1 or all(stride == 0 or n == 1 for stride, n in zip(x.strides, x.shape, strict=True)):
        return True
    return x.size <= SHORT and x.dtype.kind in "biuf" and bool((x == x.flat[0]).all())


def _value(x: Any) -> Any:
    """The number itself, an array of no axes; Python numbers keep their weak type."""
    return x.reshape(-1)[:1].reshape(()) if isinstance(x, np.ndarray) and x.size else x


def _called(ufunc: np.ufunc, given: list[Any], options: dict[str, Any]) -> Any:
    if ufunc.nout != 1 or any(isinstance(x, np.ndarray) and not x.size for x in given):
        return None
    if ufunc is np.matmul:
        return _product(given)
    if ufunc.signature is not None:
        return None
    shape = np.broadcast_shapes(*(np.shape(x) for x in given))
    found = ufunc(*(_value(x) for x in given), **options)
    return found if shape == () else uniform(found, shape)


def _product(given: list[Any]) -> Any:
    a, b = given
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        return None  # NumPy computes it, or says what is wrong
    return uniform(_value(a) * _value(b) * a.shape[1], (a.shape[0], b.shape[1]))


def _reduced(ufunc: np.ufunc, x: np.ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, **options: Any) -> Any:
    """Sums and extremes along axes; None for what is not known."""
    known = ufunc.__name__ in _SAME or ufunc is np.add
    if not known or (out is not None and out != (None,)) or options.get("where", True) is not True:
        return None
    axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis).tolist()]
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    keep = bool(options.get("keepdims", False))
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes)
    found = ufunc.reduce(x.reshape(-1)[:1], dtype=dtype)
    if ufunc is np.add:
        found = found * found.dtype.type(count)
    initial = options.get("initial")
    if initial is not None and initial is not np._NoValue:
        found = ufunc(found, initial)
    return found if shape == () else uniform(found, shape)
