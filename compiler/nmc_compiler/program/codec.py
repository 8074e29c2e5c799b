"""Program dataclasses as plain JSON values plus named arrays, and back.

The field types of `model.py` drive both directions, so that a field added there
travels without a word here. Decoding is strict: an unknown or missing field, a
wrong type or a stray array is an ArtefactError with the path of the field.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import types
import typing
from collections.abc import Mapping as MappingABC
from typing import Any, Literal

import numpy as np

from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.program import model

INT_LIMIT = 2**63
Arrays = dict[str, np.ndarray]


def encode(program: model.Program) -> tuple[dict[str, Any], Arrays]:
    """JSON object of `program` with array keys in place of arrays, and the arrays under those keys.

    Arrays of equal content are stored once. Raises VerifyError where `target` or `meta` hold
    something that JSON would change (a tuple, a NaN, a key that is not text).
    """
    arrays: Arrays = {}
    tree = _encode(program, "", arrays, {})
    return tree, arrays


def decode(tree: dict[str, Any], arrays: Arrays) -> model.Program:
    """Program of an encoded JSON object; raises ArtefactError where the two do not make one."""
    used: set[str] = set()
    program = _decode(model.Program, tree, "", arrays, used)
    unused = sorted(set(arrays) - used)
    if unused:
        raise ArtefactError(f"arrays.safetensors: {len(unused)} arrays that no field names, first {ascii(unused[0])}")
    return program


# --- encoding ---------------------------------------------------------------------------------------------


def _encode(value: Any, path: str, arrays: Arrays, seen: dict[tuple, str]) -> Any:
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if not _left_out(f, getattr(value, f.name))]
        return {name: _encode(getattr(value, name), _join(path, name), arrays, seen) for name in names}
    if isinstance(value, np.ndarray):
        return _store(value, path, arrays, seen)
    if isinstance(value, tuple):
        return [_encode(item, _join(path, str(i)), arrays, seen) for i, item in enumerate(value)]
    return plain(value, path)


def _left_out(field: dataclasses.Field, value: Any) -> bool:
    return field.metadata == model.LEFT_OUT and value is None


def _store(array: np.ndarray, path: str, arrays: Arrays, seen: dict[tuple, str]) -> str:
    array = np.ascontiguousarray(array)
    content = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
    key = seen.setdefault(content, path)
    arrays.setdefault(key, array)
    return key


def plain(value: Any, path: str) -> Any:
    """`value` itself as JSON gives it back; NumPy scalars become numbers. VerifyError where it would not."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return float(value)
    if isinstance(value, list):
        return [plain(item, _join(path, str(i))) for i, item in enumerate(value)]
    if isinstance(value, MappingABC) and all(isinstance(key, str) for key in value):
        return {key: plain(item, _join(path, key)) for key, item in value.items()}
    raise VerifyError(
        f"Program field {path}: {_show(value)} cannot be stored as JSON; "
        "use text, finite numbers, booleans, null, lists and objects with text keys"
    )


# --- decoding ---------------------------------------------------------------------------------------------


def _decode(kind: Any, value: Any, path: str, arrays: Arrays, used: set[str]) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):  # only "X | None" occurs
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return None if value is None else _decode(inner, value, path, arrays, used)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, path, arrays, used)
    if origin is Literal:
        return _one_of(typing.get_args(kind), value, path)
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, value, path, arrays, used)
    if kind is np.ndarray:
        return _fetch(value, path, arrays, used)
    return _decode_scalar(kind, value, path)


def _decode_record(kind: Any, value: Any, path: str, arrays: Arrays, used: set[str]) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict):
        raise _wrong(path, f"an object with the fields of {kind.__name__}", value)
    for name in value:
        if name not in hints:
            raise ArtefactError(f"program.json: {_join(path, name)!a}: unknown field; was it written by another nmc?")
    optional = {f.name for f in dataclasses.fields(kind) if f.metadata == model.LEFT_OUT}
    missing = [name for name in hints if name not in value and name not in optional]
    if missing:
        raise ArtefactError(f"program.json: {_join(path, missing[0])}: missing; the file is incomplete")
    for name in optional & value.keys():
        if value[name] is None:
            raise _wrong(_join(path, name), "an object, or no such field", None)
    return kind(**{n: _decode(hints[n], value[n], _join(path, n), arrays, used) for n in hints if n in value})


def _decode_tuple(args: tuple, value: Any, path: str, arrays: Arrays, used: set[str]) -> tuple:
    if not isinstance(value, list):
        raise _wrong(path, "a list", value)
    open_ended = len(args) == 2 and args[1] is Ellipsis
    if not open_ended and len(value) != len(args):
        raise ArtefactError(f"program.json: {path}: {len(value)} items, expected {len(args)}")
    items = [args[0]] * len(value) if open_ended else args
    return tuple(
        _decode(kind, item, _join(path, str(i)), arrays, used)
        for i, (kind, item) in enumerate(zip(items, value, strict=True))
    )


def _decode_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ArtefactError(f"program.json: {path}: {_show(value)} is out of range") from None
    if type(value) is not kind:
        raise _wrong(path, f"{kind.__name__}", value)
    if kind is int and not -INT_LIMIT <= value < INT_LIMIT:
        raise ArtefactError(f"program.json: {path}: {_show(value)} is out of range (64 bits)")
    return value


def _fetch(value: Any, path: str, arrays: Arrays, used: set[str]) -> np.ndarray:
    if not isinstance(value, str):
        raise _wrong(path, "the key of an array", value)
    if value not in arrays:
        raise ArtefactError(f"program.json: {path}: array {_show(value)} is not in arrays.safetensors")
    used.add(value)
    return arrays[value]


def _one_of(allowed: tuple, value: Any, path: str) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise _wrong(path, "one of " + ", ".join(map(repr, allowed)), value)
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, vars(model))


def _wrong(path: str, expected: str, value: Any) -> ArtefactError:
    return ArtefactError(f"program.json: {path or 'the file'}: expected {expected}, got {_show(value)}")


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _show(value: Any) -> str:
    """Short ASCII text of an untrusted value: huge numbers and odd characters do no harm in an error."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= INT_LIMIT:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
