"""Elements of values in another place: concatenation, slices, crops, zero padding, upsampling, transposition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.registry import TENSOR, Call, OpSpec, check_shape, register
from nmc_compiler.graph.types import Kind, ValueType

NOTHING = -1  # index of an element that is always 0


def _take_infer(types, attrs, tensors, where):
    shape, index = attrs["shape"].value, tensors[attrs["index"].value.key]
    check_shape(shape, where)
    total = sum(math.prod(t.shape) for t in types)
    if index.dtype.kind not in "iu" or index.shape != (math.prod(shape),):
        raise VerifyError(
            f"{where}: index must be {math.prod(shape)} whole numbers, got {index.dtype} {list(index.shape)}"
        )
    if not NOTHING <= int(index.min()) <= int(index.max()) < total:
        raise VerifyError(
            f"{where}: index must lie in {NOTHING}..{total - 1}, the elements of its operands; "
            f"got {index.min()}..{index.max()}"
        )
    return replace(_common(types, where), shape=shape)


def _common(types: list[ValueType], where: str) -> ValueType:
    """The type of elements that come from any operand: events of the widest payload, or currents, or real values."""
    if not all(t.is_event for t in types):
        if any(t.is_event for t in types):
            raise VerifyError(f"{where}: cannot take from events and currents; put a projection between")
        kinds = {t.kind for t in types}
        return types[0] if len(kinds) == 1 else ValueType(Kind.CURRENT, types[0].shape)
    if len({t.signed for t in types}) != 1:
        raise VerifyError(f"{where}: cannot take from signed and unsigned codes")
    widest = max(types, key=lambda t: (t.kind is Kind.GRADED, t.bits))
    return widest


def _take_eval(c: Call) -> np.ndarray:
    """result.flat[k] = the operands, one behind the other in C order, at index[k]; 0 where index[k] = -1."""
    index = c.tensor("index")
    assert index is not None
    flat = np.concatenate([x.reshape(len(x), -1) for x in c.inputs], axis=1)
    out = np.where(index == NOTHING, 0, flat[:, index])
    return out.reshape(len(flat), *c.attr("shape"))


register(
    OpSpec(
        "take",
        None,
        _take_infer,
        _take_eval,
        {"index": TENSOR, "shape": (tuple,)},
        ("index", "shape"),
        doc="element k is element index[k] of the operands, one behind the other in C order; 0 where index[k] = -1",
    )
)
