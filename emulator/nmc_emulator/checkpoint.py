"""Checkpoints of a run: a file that only grows, so that whatever was recorded survives any end.

A line of magic, a line of JSON that says which run it belongs to, then records. A record is
(samples, bytes) as two little-endian uint64, the sha256 of the bytes, and the bytes: zlib over the state after
those samples and over the samples' arrays, whose types and shapes the run knows. A record that was cut off, by
SIGKILL say, is the last one; it is dropped when the file is opened again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from nmc_compiler.errors import ArtefactError, UsageError

MAGIC = b"nmc.checkpoint/1\n"
HEAD = struct.Struct("<QQ32s")
MAX_HEADER = 1 << 16
SYNC_SECONDS = 2.0  # a power cut, unlike SIGKILL, may take what was written since the last sync

Fields = list[tuple[np.dtype, tuple[int, ...]]]


def _same(path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    other = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if other:
        told = ", ".join(f"{k} {_short(theirs.get(k))} instead of {_short(ours.get(k))}" for k in other)
        raise UsageError(
            f"{path}: belongs to another run: {told}; give the same command again, another --checkpoint, or remove it"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else text[:17] + '..."'


class Log:
    """A file of records that only grows; only one process may have it open.

    about: JSON values that name the run; a file with others is refused (UsageError).  total: units of the run, which
    the records divide among them.  ``done``: units read or written.  ``dropped``: bytes of a record that was not
    finished.  ArtefactError where the file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any], total: int) -> None:
        self.path, self.total = Path(path), total
        self.about = json.loads(json.dumps(about))
        self.done, self.dropped, self.synced = 0, 0, time.monotonic()
        try:
            if not self.path.exists():
                self._create()
            self.file: IO[bytes] = self.path.open("r+b")
            self._lock()
            self._check_header()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> NoReturn:
        raise ArtefactError(f"{self.path}: {error.strerror or error}; choose another --checkpoint") from None

    def _create(self) -> None:
        """An empty checkpoint, whole or not at all; where another run makes it at the same time, one of them."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(MAGIC + json.dumps(self.about, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, self.path)
        part.unlink()

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another run is writing to it; wait, or choose another file") from None

    def _check_header(self) -> None:
        if self.file.read(len(MAGIC)) != MAGIC:
            raise UsageError(f"{self.path}: is there and is no checkpoint of this version; choose another file")
        line = self.file.readline(MAX_HEADER)
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not line.endswith(b"\n"):
            raise ArtefactError(f"{self.path}: its first lines are damaged; remove it and run again")
        _same(self.path, self.about, found)
        self.start = self.file.tell()

    # --- reading ---

    def most(self, count: int) -> int:
        """Bytes that a record of ``count`` units can hold."""
        raise NotImplementedError

    def read(self, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(units, bytes) of every whole record, up to ``end`` in the file; to be read before anything is added.

        What lies behind them is removed.
        """
        self.file.seek(self.start)
        size = os.fstat(self.file.fileno()).st_size if end is None else end
        while True:
            at = self.file.tell()
            found = self._record(size - at)
            if found is None:
                break
            yield found
            self.done += found[0]
        self.dropped = size - at
        self.file.seek(at)
        self.file.truncate()

    def _record(self, left: int) -> tuple[int, bytes] | None:
        """The record that starts here; None where the file ends, or was cut off, or does not hold what it should."""
        head = self.file.read(HEAD.size) if left >= HEAD.size else b""
        if len(head) < HEAD.size:
            return None
        count, size, digest = HEAD.unpack(head)
        if not 0 < count <= self.total - self.done or size > left - HEAD.size:
            return None
        packed = self.file.read(size)
        if hashlib.sha256(head[:16] + packed).digest() != digest:
            return None
        try:
            return count, zlib.decompressobj().decompress(packed, self.most(count) + 1)
        except zlib.error:
            return count, b""

    # --- writing ---

    def append(self, count: int, arrays: list[np.ndarray]) -> None:
        """A record of the next units. ArtefactError where the disk is full, say; what was there stays."""
        packer = zlib.compressobj(1)
        parts = [packer.compress(np.ascontiguousarray(a).tobytes()) for a in arrays]
        packed = b"".join([*parts, packer.flush()])
        head = struct.pack("<QQ", count, len(packed))
        try:
            self.file.write(head + hashlib.sha256(head + packed).digest() + packed)
            self.file.flush()
            if time.monotonic() - self.synced > SYNC_SECONDS:
                self.sync()
        except OSError as error:
            self._fail(error)
        self.done += count

    def sync(self) -> None:
        """See to it that what was written survives a power cut."""
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()

    def close(self, remove: bool = False) -> None:
        """Close it; ``remove``: the run is finished and written elsewhere."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.file.close()


class Checkpoint(Log):
    """A checkpoint of a run of images; every record has the state behind its samples.

    fields: dtype and shape per sample of the arrays of a record.  state_size: int64 numbers of the state.
    """

    def __init__(
        self, path: str | os.PathLike[str], about: dict[str, Any], samples: int, fields: Fields, state_size: int
    ) -> None:
        self.samples, self.fields, self.state_size = samples, fields, state_size
        self.state: np.ndarray | None = None
        super().__init__(path, about | {"samples": samples}, samples)

    def most(self, count: int) -> int:
        """Bytes of a record of ``count`` samples."""
        return 8 * self.state_size + sum(self._sizes(count))

    def _sizes(self, count: int) -> list[int]:
        return [count * math.prod(shape) * dtype.itemsize for dtype, shape in self.fields]

    def records(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """(first sample, arrays [n, ...]) of every whole record; to be read to the end before anything is added."""
        for count, data in self.read():
            wanted = self.most(count)
            if len(data) != wanted:
                raise ArtefactError(
                    f"{self.path}: a record holds {len(data)} bytes, not {wanted}; remove it and run again"
                )
            self.state, arrays = self._unpack(count, data)
            yield self.done, arrays

    def _unpack(self, count: int, data: bytes) -> tuple[np.ndarray, list[np.ndarray]]:
        at = 8 * self.state_size
        arrays = []
        for (dtype, shape), size in zip(self.fields, self._sizes(count), strict=True):
            arrays.append(np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(count, *shape))
            at += size
        return np.frombuffer(data, np.int64, self.state_size), arrays

    def add(self, arrays: list[np.ndarray], state: np.ndarray) -> None:
        """Append a record of the next samples. ArtefactError where the disk is full, say; what was there stays."""
        self.append(len(arrays[0]), [state, *arrays])
