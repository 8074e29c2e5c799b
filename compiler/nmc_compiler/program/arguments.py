"""Arguments of the network builder: what they may be, and the arrays that a Program stores for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import Shape
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


def checked_pair(where: str, pair: Any, low: int) -> tuple[int, int]:
    found = (pair, pair) if isinstance(pair, (int, np.integer)) else tuple(pair)
    if len(found) != 2:
        raise UsageError(f"{where} {pair!r}: expected a number, or one for rows and one for columns")
    for value in found:
        check_within(where, value, low, NUMBER_LIMIT)
    return int(found[0]), int(found[1])


def check_conv(
    where: str,
    weight: tuple[int, ...],
    source: Shape,
    target: Shape,
    groups: int,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """UsageError where weights, groups and window do not lead from `source` to `target`."""
    check_within(f"{where}: groups", groups, 1, source[0])
    if len(weight) != 4 or weight[2] * groups != source[0] or weight[3] != target[0] or weight[3] % groups:
        raise UsageError(
            f"{where}: weight {list(weight)} in {groups} group{'s' * (groups > 1)}, from {source[0]} to {target[0]} "
            "channels; expected [rows, columns, C_in / groups, C_out]"
        )
    grid = tuple(conv_out(source[1 + a], weight[a], stride[a], pad[a], dilation[a]) for a in (0, 1))
    if grid != target[1:]:
        raise UsageError(
            f"{where}: kernel {list(weight[:2])}, stride {list(stride)}, pad {list(pad)}, dilation {list(dilation)} "
            f"on {list(source[1:])} positions give {list(grid)}, but the target has {list(target[1:])}"
        )


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
