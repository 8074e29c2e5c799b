"""Arrays of one value: equal to ordinary arrays of that value in all that NumPy does, and without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from nmc_compiler.graph.uniform import Uniform, uniform

SHAPES = ((4,), (2, 3), (3, 1, 2), (2, 3, 1, 1), (1,), (0, 3), ())
VALUES = (0.0, 0.37, -2.5, 3.0, 1e-3)

Op = Callable[[Any, Any], Any]
OPS: dict[str, Op] = {
    "times": lambda a, b: a * b,
    "plus number": lambda a, b: a + 2.5,
    "over": lambda a, b: a / (np.abs(b) + 1),
    "half to even": lambda a, b: np.rint(a),
    "clip": lambda a, b: np.clip(a, -1, 2),
    "int8": lambda a, b: np.clip(np.rint(a), -8, 7).astype(np.int8),
    "float32": lambda a, b: a.astype(np.float32),
    "compare": lambda a, b: a > b,
    "where": lambda a, b: np.where(a > 0, a, b),
    "sum": lambda a, b: a.sum(),
    "sum of rows": lambda a, b: a.reshape(len(a), -1).sum(axis=1) if a.size and a.ndim else a,
    "sum kept": lambda a, b: a.sum(axis=-1, keepdims=True) if a.ndim else a,
    "max": lambda a, b: np.abs(a).max(initial=0.0),
    "max of rows": lambda a, b: np.abs(a).reshape(len(a), -1).max(axis=1) if a.size and a.ndim else a,
    "mean": lambda a, b: a.mean() if a.size else 0.0,
    "any": lambda a, b: bool(a.any()),
    "count": lambda a, b: np.count_nonzero(a),
    "matrix product": lambda a, b: a.reshape(len(a), -1).T @ b.reshape(len(b), -1) if a.ndim and a.size else a,
    "tensordot": lambda a, b: np.tensordot(a.reshape(len(a), -1).T, b, axes=(1, 0)) if a.ndim and a.size else a,
    "transpose": lambda a, b: a.T.copy(),
    "concatenate": lambda a, b: np.concatenate([a, b]) if a.ndim else a,
    "per channel": lambda a, b: a * np.arange(1.0, 1 + len(a)).reshape(-1, *[1] * (a.ndim - 1)) if a.ndim else a,
    "shifted": lambda a, b: np.rint(a * 8).astype(np.int64) << 3,
    "sort": lambda a, b: np.sort(a) if a.ndim else a,
}


@given(st.sampled_from(SHAPES), st.sampled_from(VALUES), st.sampled_from(VALUES), st.sampled_from(sorted(OPS)))
def test_it_is_what_an_ordinary_array_is(shape: tuple[int, ...], x: float, y: float, name: str) -> None:
    got = OPS[name](uniform(np.float64(x), shape), uniform(np.float64(y), shape))
    want = OPS[name](np.full(shape, x), np.full(shape, y))
    assert np.shape(got) == np.shape(want) and np.asarray(got).dtype == np.asarray(want).dtype
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-12)  # a sum is a product here


SHAPED = ("times", "over", "int8", "compare", "sum of rows", "max of rows", "matrix product", "tensordot", "transpose")


@pytest.mark.parametrize("name", SHAPED)
def test_it_takes_no_memory(name: str) -> None:
    """2^40 numbers in, as many out, or sums over them."""
    a, b = uniform(np.float64(0.5), (1 << 20, 1 << 20)), uniform(np.float64(2.0), (1 << 20, 1 << 20))
    got = OPS[name](a, b)
    assert isinstance(got, Uniform) and not any(got.strides)


def test_nobody_writes_to_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        uniform(np.float64(1), (3,))[0] = 2.0


def test_results_written_elsewhere_are_written() -> None:
    out = np.zeros(3)
    np.add(uniform(np.float64(1), (3,)), 1.0, out=out)
    assert out.tolist() == [2, 2, 2]
