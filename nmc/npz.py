"""Read .npz files of strangers: headers first, then only what fits, and never a pickle."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy

from nmc_compiler.errors import FrontendError

MAX_MEMBERS = 100_000
READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_HEADER = 10_000  # bytes of one array's header; NumPy writes about 100


@dataclass(frozen=True)
class Header:
    """Shape, dtype and order of one array, known before any of its bytes are read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def nbytes(self) -> int:
        return _product(self.shape) * self.dtype.itemsize


class Npz:
    """An open .npz: names, headers, and arrays one at a time. FrontendError says what is wrong with a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise FrontendError(f"{self.path}: not a regular file; give an .npz file")
            self._zip = zipfile.ZipFile(self.path)
        except OSError as error:
            raise FrontendError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise FrontendError(f"{self.path}: not a whole .npz file ({error}); write it with numpy.savez") from None
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise FrontendError(f"{self.path}: {len(infos)} arrays; at most {MAX_MEMBERS} are read")
        packed = next((i.filename for i in infos if i.compress_type not in READ_METHODS), None)
        if packed is not None:
            raise FrontendError(f"{self.path}: {ascii(packed)[:80]} is packed in a way NumPy never uses")
        self._members = {i.filename.removesuffix(".npy"): i for i in infos if i.filename.endswith(".npy")}
        if len(self._members) != len(infos):
            odd = next((i.filename for i in infos if not i.filename.endswith(".npy")), "an array given twice")
            raise FrontendError(f"{self.path}: {ascii(odd)[:80]} in it is not one array; write it with numpy.savez")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in the order of the file."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def header(self, name: str) -> Header:
        """Shape and dtype of one array; FrontendError where they are not those of plain numbers."""
        with self._open(name) as stream:
            return self._header(name, stream)

    def read(self, name: str, first: int | None = None) -> np.ndarray:
        """One array, or only its ``first`` rows. Sizes are checked before memory is taken."""
        with self._open(name) as stream:
            header = self._header(name, stream)
            if first is None or not header.shape:
                return self._array(name, stream, header, header.shape)
            if header.fortran:  # the first rows are not the first bytes
                return self._array(name, stream, header, header.shape)[:first]
            rows = min(max(first, 0), header.shape[0])
            return self._array(name, stream, header, (rows, *header.shape[1:]))

    def rows(self, name: str, size: int, fields: tuple[str, ...] = ()) -> Iterator[np.ndarray]:
        """A one-dimensional array in parts of up to ``size`` rows, never all of it in memory.

        fields: the array is one of records that have at least these numbers.
        """
        with self._open(name) as stream:
            header = self._header(name, stream, fields)
            if len(header.shape) != 1:
                raise FrontendError(f"{self.path}: array {name!r} has shape {header.shape}; a plain list is needed")
            left = header.shape[0]
            while left:
                part = np.empty(min(size, left), header.dtype)
                try:
                    got = _fill(stream, part.view(np.uint8), last=left == len(part))
                except FILE_ERRORS as error:
                    raise self._damaged(name, error) from None
                if got != part.nbytes:
                    raise FrontendError(f"{self.path}: array {name!r} ends too early: it is truncated")
                left -= len(part)
                yield part

    def _open(self, name: str) -> IO[bytes]:
        if name not in self._members:
            raise FrontendError(f"{self.path}: has no array {name!r}; it has {_some(self.names)}")
        try:
            return self._zip.open(self._members[name])
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError) as error:
            raise self._damaged(name, error) from None

    def _header(self, name: str, stream: IO[bytes], fields: tuple[str, ...] = ()) -> Header:
        try:
            version = npy.read_magic(stream)
            if version == (1, 0):
                shape, fortran, dtype = npy.read_array_header_1_0(stream, MAX_HEADER)
            elif version == (2, 0):
                shape, fortran, dtype = npy.read_array_header_2_0(stream, MAX_HEADER)
            else:
                raise ValueError(f"format version {version}")
        except Exception as error:  # NumPy parses the header as Python text: a hostile one makes it raise anything
            raise self._damaged(name, error) from None
        if dtype.hasobject:
            raise FrontendError(
                f"{self.path}: array {name!r} holds pickled Python objects, which are never loaded; "
                "save numbers, for example with array.astype('float32')"
            )
        if dtype.kind not in "biuf" and not _is_record(dtype, fields):
            raise FrontendError(f"{self.path}: array {name!r} has dtype {dtype}; real numbers are needed")
        if any(not 0 <= n < 2**62 for n in shape):
            raise FrontendError(f"{self.path}: array {name!r} has a side that is negative or beyond 62 bits")
        return Header(tuple(int(n) for n in shape), dtype, bool(fortran))

    def _array(self, name: str, stream: IO[bytes], header: Header, shape: tuple[int, ...]) -> np.ndarray:
        size = _product(shape) * header.dtype.itemsize
        have = self._members[name].file_size
        if header.nbytes > have:
            raise FrontendError(
                f"{self.path}: array {name!r} of shape {header.shape} needs {header.nbytes} bytes, "
                f"but {have} are in the file: it is truncated or altered"
            )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > memory:
            raise FrontendError(
                f"{self.path}: array {name!r} needs {size} bytes, more than the {memory} of this machine; "
                "read fewer with --limit N"
            )
        data = np.empty(_product(shape), header.dtype)
        try:
            got = _fill(stream, data.view(np.uint8))
        except FILE_ERRORS as error:
            raise self._damaged(name, error) from None
        if got != size:
            raise FrontendError(f"{self.path}: array {name!r} ends after {got} of {size} bytes: it is truncated")
        return data.reshape(shape, order="F" if header.fortran else "C")

    def _damaged(self, name: str, error: BaseException) -> FrontendError:
        text = ascii(str(error).splitlines()[0] if str(error) else type(error).__name__)[1:-1][:120]
        return FrontendError(f"{self.path}: array {ascii(name)[1:-1][:80]!r} is damaged ({text}); write the file again")


FILE_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


def _is_record(dtype: np.dtype, fields: tuple[str, ...]) -> bool:
    """Whether a dtype is one of records that have these fields, all of them plain numbers."""
    own: Any = dtype.fields or {}
    return bool(fields) and set(fields) <= own.keys() and all(own[f][0].kind in "biu" for f in fields)


def _fill(stream: IO[bytes], buffer: np.ndarray, last: bool = True) -> int:
    """Read until ``buffer`` (bytes) is full or the stream ends; bytes read. ``last``: nothing more is wanted."""
    at = 0
    while at < len(buffer):
        piece = stream.read(min(len(buffer) - at, 1 << 20))
        if not piece:
            return at
        buffer[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if last:
        stream.read(1)  # at the end of the member zipfile compares the checksum
    return at


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _some(names: list[str]) -> str:
    shown = ", ".join(ascii(n)[:60] for n in names[:6]) or "nothing"
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
