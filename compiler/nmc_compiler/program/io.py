"""A Program on disk: ``program.json`` beside ``arrays.safetensors``.

Written beside the old files and then renamed, so that a full disk or a crash
leaves either the old Program or the new one. Loading trusts nothing: sizes,
schema, digest, dtypes, shapes and every index are checked before a Program exists.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.numpy

from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.program.codec import Arrays, decode
from nmc_compiler.program.digest import ARRAYS_FILE, digest_of, manifest
from nmc_compiler.program.model import SCHEMA, Program
from nmc_compiler.program.validate import validate_program

JSON_FILE = "program.json"
MAX_JSON_BYTES = 2**28  # a thousand populations take about 1 MB
MAX_JSON_DEPTH = 64  # the schema needs 5; the rest is for options and provenance
_OWN_KEYS = ("schema", "digest", "arrays")


def save_program(program: Program, folder: str | os.PathLike[str]) -> str:
    """Write `program` into `folder` (made if absent) and return its digest.

    Raises VerifyError for a Program that breaks its own rules, and ArtefactError where the
    files cannot be written; then the folder is as it was before.
    """
    validate_program(program)
    tree, blob = manifest(program)
    _check_types(tree, blob)
    write_files(Path(folder), {ARRAYS_FILE: blob, JSON_FILE: manifest_text(tree)})
    return tree["digest"]


def manifest_text(tree: dict[str, Any]) -> bytes:
    """A manifest as nmc writes it: sorted keys, ASCII, one value a line."""
    return (json.dumps(tree, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _check_types(tree: dict[str, Any], blob: bytes) -> None:
    """VerifyError where a field's type is not the one of the model, so that what is written can be read."""
    try:
        decode(_fields(tree), safetensors.numpy.load(blob))
    except ArtefactError as error:
        raise VerifyError(f"Program cannot be saved: {error}") from None


def _fields(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in _OWN_KEYS}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files or none: each beside its place first, then renamed in order.

    The last one should be the one that vouches for the others (here by its digest).
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    beside = {name: folder / f".{name}.{os.getpid()}.part" for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            _write(beside[name], data)
        for name in files:
            os.replace(beside[name], folder / name)
    except OSError as error:
        _remove(list(beside.values()), made)
        size = sum(map(len, files.values()))
        raise ArtefactError(
            f"{folder}: could not write {', '.join(files)} ({size} bytes): {error.strerror}; "
            "nothing was left behind. Free some space or choose another folder"
        ) from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())  # a full disk may show only here


def _remove(files: list[Path], folders: list[Path]) -> None:
    """Undo: delete partial files, then the folders made for them, innermost first."""
    for path in files:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            path.unlink()
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def load_program(folder: str | os.PathLike[str]) -> Program:
    """Program of a folder written by `save_program`.

    Raises ArtefactError for a missing, damaged, altered or foreign file, and VerifyError
    for a Program whose content breaks its rules even though the digest fits.
    """
    folder = Path(folder)
    tree, arrays = read_pair(folder, JSON_FILE, ARRAYS_FILE, SCHEMA)
    try:
        program = decode(_fields(tree), arrays)
    except ArtefactError as error:
        raise ArtefactError(f"{folder}: {error}") from None
    validate_program(program)
    return program


def read_pair(folder: Path, json_file: str, arrays_file: str, schema: str) -> tuple[dict[str, Any], Arrays]:
    """The JSON object and the arrays of two files that vouch for each other by sizes, dtypes, shapes and digest.

    Raises ArtefactError for anything else; sizes are checked before memory is taken.
    """
    tree = _read_json(folder / json_file, schema)
    table = _array_table(tree, folder / json_file, arrays_file)
    blob = _read(folder / arrays_file, exactly=table["bytes"], told_by=json_file)
    _check_digest(tree, blob, folder / json_file)
    return tree, _read_arrays(blob, table["tensors"], folder / arrays_file, json_file)


def _read(path: Path, at_most: int | None = None, exactly: int | None = None, told_by: str = "") -> bytes:
    """Bytes of a regular file whose size is checked before anything is read."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ArtefactError(f"{path}: not a regular file")
        if at_most is not None and info.st_size > at_most:
            raise ArtefactError(f"{path}: {info.st_size} bytes; nmc writes at most {at_most}")
        if exactly is not None and info.st_size != exactly:
            raise ArtefactError(
                f"{path}: {info.st_size} bytes, but {told_by} says {exactly}; "
                "the two are not of one compile: compile again"
            )
        with path.open("rb") as stream:
            return stream.read(info.st_size)
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}; give a folder that `nmc compile` wrote") from None


def _read_json(path: Path, schema: str) -> dict[str, Any]:
    try:
        tree = json.loads(
            _read(path, at_most=MAX_JSON_BYTES).decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not valid JSON ({_first_line(error)}); compile again") from None
    if _too_deep(tree):
        raise ArtefactError(f"{path}: nested deeper than {MAX_JSON_DEPTH} levels; is it the right file?")
    if not isinstance(tree, dict) or tree.get("schema") != schema:
        found = ascii(tree.get("schema"))[:60] if isinstance(tree, dict) else "no object"
        raise ArtefactError(f"{path}: schema {found}, but this nmc reads {schema!r}; compile again with this version")
    return tree


def _too_deep(tree: Any) -> bool:
    level = [tree]
    for _ in range(MAX_JSON_DEPTH):
        inside = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, (dict, list))]
        level = [item for items in inside for item in items]
    return bool(level)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return tree


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number beyond the range of a double")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _first_line(error: BaseException) -> str:
    return ascii(str(error).splitlines()[0] if str(error) else type(error).__name__)[1:-1][:120]


def _array_table(tree: dict[str, Any], path: Path, arrays_file: str) -> dict[str, Any]:
    """The manifest's description of the array file, with the types that reading it relies on."""
    table = tree.get("arrays")
    where = f"{path}: arrays"
    if not isinstance(table, dict) or set(table) != {"file", "bytes", "tensors"} or table["file"] != arrays_file:
        raise ArtefactError(f'{where}: expected {{"file": "{arrays_file}", "bytes": n, "tensors": {{...}}}}')
    size, tensors = table["bytes"], table["tensors"]
    if type(size) is not int or not isinstance(tensors, dict):
        raise ArtefactError(f"{where}: bytes must be an integer and tensors an object")
    return table


def _check_digest(tree: dict[str, Any], blob: bytes, path: Path) -> None:
    found, expected = digest_of(tree, blob), tree.get("digest")
    if found != expected:
        raise ArtefactError(
            f"{path.parent}: digest is {found}, but {path.name} says {ascii(expected)[:70]}; "
            "the files were altered or are not of one compile: compile again"
        )


def _read_arrays(blob: bytes, tensors: dict[str, Any], path: Path, told_by: str) -> Arrays:
    try:
        arrays = safetensors.numpy.load(blob)
    except Exception as error:  # hostile header: its own error, KeyError, MemoryError
        raise ArtefactError(f"{path}: not a safetensors file ({_first_line(error)})") from None
    found = {key: {"dtype": str(array.dtype), "shape": list(array.shape)} for key, array in arrays.items()}
    for key in sorted(found.keys() | tensors.keys()):
        if found.get(key) != tensors.get(key):
            raise ArtefactError(
                f"{path.parent}: array {ascii(key)[:80]} is {_shape(found.get(key))} in {path.name}, "
                f"but {told_by} says {_shape(tensors.get(key))}"
            )
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


def _shape(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "absent"
    return f"{ascii(entry.get('dtype'))[1:-1][:20]} {ascii(entry.get('shape'))[:60]}"
