"""Items of the neurocore's memories, field by field: packing and unpacking of whole arrays.

The positions are those of docs/neurocore.md; bit 0 is the lowest.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nmc_compiler.errors import VerifyError

FORMATS = ("NOP", "SPARSE", "DENSE", "CONV", "ONE", "GATE", "DELAY")
NOP, SPARSE, DENSE, CONV, ONE, GATE, DELAY = range(7)


class Field(NamedTuple):
    """Bits ``low`` to ``low + width - 1``; the number stored is the value less ``offset``."""

    low: int
    width: int
    signed: bool = False
    offset: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value."""
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return self.offset, self.offset + (1 << self.width) - 1


Layout = MappingProxyType[str, Field]


def _layout(**fields: tuple) -> Layout:
    return MappingProxyType({name: Field(*where) for name, where in fields.items()})


SPARSE_WORD = _layout(weight=(0, 8, True), target=(8, 10))
HEADER_WORD = _layout(first=(8, 10))
PAIR_WORD = _layout(low=(0, 8, True), high=(8, 8, True))
_HEAD = {"fmt": (0, 3), "more": (3, 1), "shift": (4, 3)}
_ROW = _HEAD | {"rule": (7, 3), "len": (10, 10, False, 1), "base": (20, 16)}
DESCRIPTORS = MappingProxyType(
    {
        NOP: _layout(**_HEAD),
        SPARSE: _layout(**_ROW),
        DENSE: _layout(**_ROW),
        CONV: _layout(**_HEAD, geom=(10, 4), y=(14, 6), x=(20, 6), base64=(26, 10)),
        ONE: _layout(**_HEAD, weight=(10, 8, True), target=(18, 10)),
        GATE: _layout(**_HEAD, neuron=(10, 10)),
        DELAY: _layout(**_HEAD, axon=(10, 11), d=(21, 4)),
    }
)
NEURON = _layout(bias=(0, 20, True), type=(20, 6))
ROUTE = _layout(axon=(0, 11), cores=(11, 4), log=(15, 1))
TYPE = (
    _layout(du=(0, 13), dv=(13, 13), refr=(26, 6), soft=(32, 1)),
    _layout(vth=(0, 24, True), gain=(24, 8), ishift=(32, 4)),
    _layout(leak=(0, 20), level=(20, 6)),
)
GEOMETRY = (
    _layout(kh=(0, 4), kw=(4, 4), sy=(8, 2), sx=(10, 2), dy=(12, 3), dx=(15, 3), cout=(18, 10)),
    _layout(oy=(0, 8, True), ox=(8, 8, True), ho=(16, 6), wo=(22, 6)),
    _layout(plane=(0, 10), first=(10, 10)),
)
RULE = (
    _layout(ap=(0, 8), am=(8, 8), sp=(16, 4), sm=(20, 4), rect=(24, 1)),
    _layout(wmin=(0, 8, True), wmax=(8, 8, True)),
)
TRACES = _layout(
    k_pre=(0, 4), k_post=(4, 4), inc_pre=(8, 8), inc_post=(16, 8), add_pre=(24, 1), add_post=(25, 1)
)  # register 2
V_ITEM = _layout(v=(0, 24, True), refr=(24, 6))
SIGNED24 = _layout(value=(0, 24, True))


def pack(layout: Layout, **values: Any) -> np.ndarray:
    """uint64 items of one layout; fields left out are 0. Values broadcast against each other.

    Raises VerifyError with the field, the value and its range where one does not fit.
    """
    arrays = {name: np.asarray(value, np.int64) for name, value in values.items()}
    out = np.zeros(np.broadcast_shapes(*(a.shape for a in arrays.values())), np.uint64)
    for name, array in arrays.items():
        field = layout[name]
        low, high = field.range
        bad = array[(array < low) | (array > high)]
        if bad.size:
            raise VerifyError(f"neurocore: {name} = {bad.flat[0]} does not fit its {field.width} bits: {low} to {high}")
        stored = (array - field.offset) & ((1 << field.width) - 1)
        out |= stored.astype(np.uint64) << np.uint64(field.low)
    return out


def unpack(layout: Layout, items: np.ndarray) -> dict[str, np.ndarray]:
    """int64 arrays of the fields, in the shape of ``items``."""
    bits = np.asarray(items, np.uint64)
    out = {}
    for name, field in layout.items():
        value = (bits >> np.uint64(field.low)).astype(np.int64) & ((1 << field.width) - 1)
        if field.signed:
            value -= (value >> field.width - 1) << field.width
        out[name] = value + field.offset
    return out


def descriptor(fmt: int, **values: Any) -> np.ndarray:
    """uint64 row descriptors of one format (fields of `DESCRIPTORS`)."""
    return pack(DESCRIPTORS[fmt], fmt=fmt, **values)


def sparse_words(target: Any, weight: Any) -> np.ndarray:
    """uint64 words of a SPARSE row, one synapse each."""
    return pack(SPARSE_WORD, target=target, weight=weight)


def dense_words(first: int, weights: np.ndarray) -> np.ndarray:
    """uint64 words of a DENSE row: the header and then two weights a word; an odd end is filled up with 0."""
    return np.concatenate([pack(HEADER_WORD, first=[first]), pair_words(weights)])


def pair_words(weights: np.ndarray) -> np.ndarray:
    """uint64 words of weights ``[..., n]``, two a word along the last axis: ``[..., ceil(n / 2)]``."""
    even = np.concatenate([weights, np.zeros((*weights.shape[:-1], weights.shape[-1] % 2), weights.dtype)], axis=-1)
    return pack(PAIR_WORD, low=even[..., 0::2], high=even[..., 1::2])


def group_items(layouts: tuple[Layout, ...], rows: list[dict[str, Any]]) -> np.ndarray:
    """uint64 items of types or geometries (four each) or rules (two each), one row after the other."""
    step = 2 if layouts is RULE else 4
    out = np.zeros(step * len(rows), np.uint64)
    for i, row in enumerate(rows):
        for j, layout in enumerate(layouts):
            out[step * i + j] = pack(layout, **{name: row[name] for name in layout if name in row}).item()
    return out
