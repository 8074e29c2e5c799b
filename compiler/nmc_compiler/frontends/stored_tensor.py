"""Tensors as a checkpoint file describes them, and the NumPy arrays they are.

A `StoredTensor` is a description (storage, dtype, offset, shape, strides) that is checked against the size of
its storage when it is made, before anything is allocated. `to_array` turns it into an array: a read-only view
of the file's mapping where the dtype and the alignment permit, else a copy.
"""

import math
from dataclasses import dataclass
from mmap import mmap

import numpy as np

from nmc_compiler.errors import FrontendError

MAX_DIMENSIONS = 32
"""NumPy 1.x stops here; no layer has more than 7."""

_NUMPY = {
    "float16": "f2",
    "float32": "f4",
    "float64": "f8",
    "bfloat16": "u2",  # widened to float32 below: NumPy has no bfloat16
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "u1",  # checked to be 0 or 1 before it becomes bool
    "complex64": "c8",
    "complex128": "c16",
}

_NO_NUMPY = {
    **{"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1},
    **{"float8_e5m2": 1, "float8_e4m3fn": 1, "float8_e5m2fnuz": 1, "float8_e4m3fnuz": 1, "float8_e8m0fnu": 1},
    **{"float4_e2m1fn_x2": 1, "complex32": 4},
    **{"bits8": 1, "bits16": 2, "bits1x8": 1, "bits2x4": 1, "bits4x2": 1},
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
}

ITEM_BYTES: dict[str, int] = {name: np.dtype(code).itemsize for name, code in _NUMPY.items()} | _NO_NUMPY
"""Bytes per element of every dtype that a PyTorch 2.13 file may name, by its name without `torch.`."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A run of bytes in the file: `nbytes` bytes from byte `start` of the record `key`."""

    key: str
    dtype: str
    nbytes: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Lazy:
    """Operations that PyTorch has put off: the stored numbers are those before them."""

    conjugated: bool = False
    negated: bool = False


_AS_STORED = Lazy()


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """One tensor of a file; offset and strides count elements. Make it with `stored_tensor`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    lazy: Lazy

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as an array of its own: prod(shape) x bytes per element."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def stored_tensor(
    storage: Storage, dtype: str, offset: object, shape: object, strides: object, lazy: Lazy = _AS_STORED
) -> StoredTensor:
    """Checks a description from a file; raises FrontendError if it reaches outside `storage`."""
    sizes, steps = _counts(shape, "sizes"), _counts(strides, "strides")
    if type(offset) is not int or not 0 <= offset < 2**63:
        raise FrontendError(f"a tensor starts at element {_short(offset)} of storage {storage.key!r}")
    if len(sizes) != len(steps):
        raise FrontendError(f"a tensor has {len(sizes)} sizes and {len(steps)} strides: they must be as many")
    tensor = StoredTensor(storage, dtype, offset, sizes, steps, lazy)
    _check_extent(tensor)
    return tensor


def _counts(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise FrontendError(f"the {what} of a tensor are a {type(values).__name__}, not a tuple")
    if len(values) > MAX_DIMENSIONS:
        raise FrontendError(f"a tensor has {len(values)} {what}: at most {MAX_DIMENSIONS} are read")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**63:
            raise FrontendError(f"the {what} of a tensor hold {_short(value)}: counts below 2^63 are due")
    return tuple(values)


def _short(value: object) -> str:
    """Text of a value from the file, of bounded length (an int may have 600 digits, a list any number)."""
    return repr(value)[:40] if isinstance(value, int | float | str | None) else f"a {type(value).__name__}"


def _check_extent(tensor: StoredTensor) -> None:
    item, shape, storage = ITEM_BYTES[tensor.dtype], tensor.shape, tensor.storage
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, tensor.strides, strict=True))
    needed = 0 if 0 in shape else (last + 1) * item
    if needed > storage.nbytes:
        raise FrontendError(
            f"a tensor of shape {_short_shape(shape)} {tensor.dtype} needs {_short(needed)} bytes of storage "
            f"{storage.key!r}, which has {storage.nbytes}: the file is damaged or was made to mislead"
        )
    if math.prod(max(size, 1) for size in shape) * item > 2**62:
        raise FrontendError(f"a tensor of shape {_short_shape(shape)} is larger than any memory")


def _short_shape(shape: tuple[int, ...]) -> str:
    return "x".join(_short(size) for size in shape) or "()"


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def to_array(tensor: StoredTensor, data: bytes | mmap, base: int, big_endian: bool) -> np.ndarray:
    """The tensor as a read-only array; `base` is the byte of `data` where the record of its storage starts.

    bfloat16 is widened to float32, which is exact. Raises FrontendError for a dtype that NumPy does not have.
    """
    if big_endian and tensor.dtype != tensor.storage.dtype and ITEM_BYTES[tensor.dtype] > 1:
        raise FrontendError(
            f"it is {tensor.dtype} in untyped storage of a big-endian file, which torch.load misreads: "
            "save it again on a little-endian machine"
        )
    code = _NUMPY.get(tensor.dtype)
    if code is None:
        raise FrontendError(f"its dtype is torch.{tensor.dtype}: {_advice(tensor.dtype)}")
    array = _convert(_view(tensor, np.dtype(code).newbyteorder(">" if big_endian else "<"), data, base), tensor.dtype)
    if tensor.lazy.conjugated:
        array = np.conjugate(array)
    if tensor.lazy.negated:
        array = np.negative(array)
    array = np.asarray(array)  # NumPy turns results of shape () into scalars
    array.flags.writeable = False
    return array


def _advice(dtype: str) -> str:
    if dtype.startswith(("qint", "quint")):
        return "quantized tensors are not read; save tensor.dequantize(), or the float model"
    return "NumPy has no such type; save tensor.to(torch.float32)"


def _view(tensor: StoredTensor, dtype: np.dtype, data: bytes | mmap, base: int) -> np.ndarray:
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    start = base + tensor.storage.start + tensor.offset * dtype.itemsize
    strides = tuple(step * dtype.itemsize for step in tensor.strides)
    return np.ndarray(tensor.shape, dtype, data, start, _harmless(tensor.shape, strides))


def _harmless(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of axes with one element are never used, may be anything in a file, and must fit NumPy's."""
    return tuple(0 if size == 1 else step for size, step in zip(shape, strides, strict=True))


def _convert(view: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return (view.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)
    if dtype == "bool":
        if view.size and view.max() > 1:
            raise FrontendError(f"a bool tensor holds the byte {view.max()}: the file is damaged")
        return view.view(np.bool_)
    if view.dtype.isnative and view.flags.aligned:
        return view
    return view.astype(view.dtype.newbyteorder("="), order="C")
