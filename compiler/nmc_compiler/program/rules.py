"""How a broken rule of the Program is reported, and the checks that several rules share."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from nmc_compiler.errors import VerifyError

NUMBER_LIMIT = 2**20  # timesteps, levels, delays, kernel sizes: far above any use, far below overflow


def fail(path: str, text: str) -> NoReturn:
    """Raise VerifyError for the field at `path` (as in program.json)."""
    raise VerifyError(f"Program field {path}: {text}")


def check_range(path: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        fail(path, f"{value} is outside {low}..{high}")


def check_text(path: str, text: str) -> None:
    """Names end up in terminals, file names and keys of npz files."""
    if not 1 <= len(text) <= 200 or not text.isprintable() or not text.isascii() or set(text) & set('/\\"'):
        fail(path, f"{ascii(text)[:60]} is not a name: 1 to 200 printable ASCII characters, no / \\ or quotes")


def check_shape(path: str, shape: tuple[int, ...]) -> None:
    for size in shape:
        check_range(path, size, 1, NUMBER_LIMIT)


def check_pair(path: str, pair: tuple[int, int], low: int) -> None:
    for value in pair:
        check_range(path, value, low, NUMBER_LIMIT)


def check_array(path: str, array: np.ndarray, dtype: Any, shape: tuple[int | None, ...]) -> None:
    """dtype and shape of an array; None in `shape` stands for any size of at least 1."""
    if array.dtype != np.dtype(dtype) or not array.dtype.isnative:
        fail(path, f"dtype {array.dtype}, expected {np.dtype(dtype)}")
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else have >= 1 for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        fail(path, f"shape {list(array.shape)}, expected [{wanted}]")


def check_values(path: str, array: np.ndarray, low: int, high: int) -> None:
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        fail(path, f"values {int(array.min())}..{int(array.max())} leave {low}..{high}")


def check_index(path: str, index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        fail(path, f"{what} {index}, but there are {count}")


def check_same(path: str, found: Any, expected: Any, why: str) -> None:
    if found != expected:
        fail(path, f"{found}, expected {expected}: {why}")
