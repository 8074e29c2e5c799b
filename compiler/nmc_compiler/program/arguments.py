"""Arguments of the network builder: what they may be, and the arrays that a Program stores for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import Depth, Shape
from nmc_compiler.program.rules import NUMBER_LIMIT, check_text
from nmc_compiler.program.shapes import conv_out
from nmc_compiler.program.synapses import Stored, bounds, integers, store_weights
from nmc_compiler.program.validate_edges import MAX_RSHIFT, MAX_SHIFT

STATE = 2**23 - 1  # membrane units


def checked_name(network: str, kind: str, name: str) -> str:
    """Where something is, for errors; UsageError for a name that cannot be kept."""
    try:
        check_text("name", name)
    except (VerifyError, TypeError, AttributeError):
        raise UsageError(
            f"{network}: {ascii(name)[:60]} is no name for a {kind}; use 1 to 200 printable ASCII characters, "
            "no / \\ or quotes"
        ) from None
    return f"{network}, {kind} {name!r}"


def check_within(where: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise UsageError(f"{where} {value!r}: expected a whole number in {low}..{high}")


def plastic_weights(where: str, weights: np.ndarray, exponent: Any) -> Stored:
    """Weights of 8 bits as they are: what learning adds to must not be rescaled."""
    check_within(f"{where}: exponent of a plastic projection", exponent, 0, MAX_SHIFT)
    low, high = bounds(weights)
    if weights.size and not -128 <= low <= high <= 127:
        raise UsageError(f"{where}: plastic weights {low}..{high}: expected values in -128..127")
    return Stored(weights.astype(np.int8), int(exponent), 0)


def per_channel(where: str, value: Any, shape: Shape, low: int, high: int) -> np.ndarray:
    found = integers(where, value)
    least, greatest = bounds(found)
    if not low <= least <= greatest <= high:
        raise UsageError(f"{where} {least}..{greatest}: expected values in {low}..{high}")
    if found.shape not in ((), (shape[0],)):
        raise UsageError(f"{where} has shape {list(found.shape)}, expected one number or one per channel ({shape[0]})")
    return np.broadcast_to(found, (shape[0],)).astype(np.int32)


def bias_array(where: str, value: Any, shape: Shape, limit: int) -> np.ndarray | None:
    """Bias of each channel, None where all are 0."""
    found = per_channel(where, value, shape, -limit, limit)
    return found if found.any() else None


def shifted(values: np.ndarray | None, up: int) -> np.ndarray | None:
    return None if values is None else values << np.int32(up)


def per_soma(where: str, value: Any, shape: Shape) -> np.ndarray | None:
    if value is None:
        return None
    found = integers(where, value)
    low, high = bounds(found)
    if not -STATE <= low <= high <= STATE:
        raise UsageError(f"{where} {low}..{high}: expected values in {-STATE}..{STATE}")
    if found.shape not in ((), shape) and found.shape != (math.prod(shape),):
        raise UsageError(f"{where} has shape {list(found.shape)}, expected one number or one per soma, {list(shape)}")
    full = np.broadcast_to(found if found.shape else found.reshape(1), (math.prod(shape),) if found.ndim < 2 else shape)
    return full.reshape(shape).astype(np.int32)


def checked_restart(where: str, restart: Any) -> tuple[int, int] | None:
    if restart is None:
        return None
    if not isinstance(restart, (tuple, list)) or len(restart) != 2:
        raise UsageError(f"{where}: restart {restart!r}: expected (interval, offset) in timesteps")
    check_within(f"{where}: restart interval", restart[0], 1, NUMBER_LIMIT)
    check_within(f"{where}: restart offset", restart[1], 0, NUMBER_LIMIT)
    return int(restart[0]), int(restart[1])


def stored_weights(where: str, weights: np.ndarray, exponent: int) -> Stored:
    check_within(f"{where}: exponent", exponent, -MAX_RSHIFT, MAX_SHIFT - 1)
    return store_weights(where, weights, int(exponent))


def per_axis(where: str, given: Any, low: int, axes: int) -> tuple[int, int, int]:
    """One number for slices, rows and columns each; ``axes`` 2: of slices ``low`` or 1, whichever does nothing."""
    found = (given,) * axes if isinstance(given, (int, np.integer)) else tuple(given)
    if len(found) != axes:
        one_each = "one for rows and one for columns" if axes == 2 else "one each for slices, rows and columns"
        raise UsageError(f"{where} {given!r}: expected a number, or {one_each}")
    for value in found:
        check_within(where, value, low, NUMBER_LIMIT)
    return tuple(int(value) for value in ((low, *found) if axes == 2 else found))  # type: ignore[return-value]


def conv_form(
    where: str,
    weight: tuple[int, ...],
    ends: tuple[Shape, Shape],
    groups: int,
    slices: int | None,
    windows: tuple[Any, Any, Any],
) -> dict[str, Any]:
    """The fields of a Conv that say where its taps lie, of weights of that shape; ``windows``: stride, pad, dilation.

    UsageError where weights, groups and window do not lead from one end to the other.
    """
    axes, (source, target) = 2 if slices is None else 3, ends
    stride, pad, dilation = (
        per_axis(f"{where}: {name}", given, low, axes)
        for name, given, low in zip(("stride", "pad", "dilation"), windows, (1, 0, 1), strict=True)
    )
    check_within(f"{where}: groups", groups, 1, source[0])
    if len(weight) != axes + 2 or weight[-2] * groups != source[0] or weight[-1] != target[0] or weight[-1] % groups:
        raise UsageError(
            f"{where}: weight {list(weight)} in {groups} group{'s' * (groups > 1)}, from {source[0]} to {target[0]} "
            f"channels; expected [{'slices, ' * (axes == 3)}rows, columns, C_in / groups, C_out]"
        )
    kernel, (deep, height) = ((1,) * (3 - axes) + weight)[:3], _slices(where, slices, source[1])
    sizes = deep, height, source[2]
    grid = tuple(map(conv_out, sizes, kernel, stride, pad, dilation))
    if min(grid) < 1 or (grid[0] * grid[1], grid[2]) != target[1:]:
        shown = (list(values)[3 - axes :] for values in (kernel, stride, pad, dilation, sizes, grid))
        raise UsageError(
            "{}: kernel {}, stride {}, pad {}, dilation {} on {} positions give {}, ".format(where, *shown)
            + f"but the target has {list(target[1:])}"
        )
    depth = None if slices is None else Depth(deep, grid[0], kernel[0], stride[0], pad[0], dilation[0])
    form = {"stride": stride[1:], "pad": pad[1:], "dilation": dilation[1:]}
    return {**form, "groups": int(groups), "out_hw": target[1:], "depth": depth}


def _slices(where: str, slices: int | None, rows: int) -> tuple[int, int]:
    """Slices and the rows of each."""
    if slices is None:
        return 1, rows
    check_within(f"{where}: slices", slices, 1, rows)
    if rows % slices:
        raise UsageError(f"{where}: {slices} slices of the {rows} rows of the source: they must be of equal height")
    return int(slices), rows // slices


def weight_bytes(where: str, weights: np.ndarray) -> list[tuple[str, np.ndarray, int]]:
    """Name suffix, int8 weights and shift of each convolution whose sum has these weights."""
    stored = store_weights(where, weights)
    if stored.values.dtype == np.int8:
        return [("", stored.values, stored.shift)]
    low = ((weights.astype(np.int64) + 128) & 255) - 128
    high = (weights - low) >> 8
    if bounds(high)[1] > 127:
        raise UsageError(f"{where}: weights up to {bounds(weights)[1]}, at most {127 * 256 + 127}; give smaller ones")
    return [("", low.astype(np.int8), 0), (".high", high.astype(np.int8), 8)]
