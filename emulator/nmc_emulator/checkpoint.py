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


class Checkpoint:
    """An open checkpoint; only one process may have it open.

    about: JSON values that name the run; a file with others is refused (UsageError).  fields: dtype and shape per
    sample of the arrays of a record.  state_size: int64 numbers of the state.  ``dropped``: bytes of a record that
    was not finished.  ArtefactError where the file cannot be read or written.
    """

    def __init__(
        self, path: str | os.PathLike[str], about: dict[str, Any], samples: int, fields: Fields, state_size: int
    ) -> None:
        self.path, self.samples, self.fields, self.state_size = Path(path), samples, fields, state_size
        self.about = json.loads(json.dumps(about | {"samples": samples}))
        self.done, self.dropped, self.synced = 0, 0, time.monotonic()
        self.state: np.ndarray | None = None
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

    def records(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """(first sample, arrays [n, ...]) of every whole record; to be read to the end before anything is added."""
        self.file.seek(self.start)
        size = os.fstat(self.file.fileno()).st_size
        while True:
            at = self.file.tell()
            found = self._record(size - at)
            if found is None:
                break
            count, self.state, arrays = found
            yield self.done, arrays
            self.done += count
        self.dropped = size - at
        self.file.seek(at)
        self.file.truncate()

    def _record(self, left: int) -> tuple[int, np.ndarray, list[np.ndarray]] | None:
        """The record that starts here; None where the file ends, or was cut off, or does not hold what it should."""
        head = self.file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        count, size, digest = HEAD.unpack(head)
        if not 0 < count <= self.samples - self.done or size > left - HEAD.size:
            return None
        packed = self.file.read(size)
        if hashlib.sha256(head[:16] + packed).digest() != digest:
            return None
        sizes = [count * math.prod(shape) * dtype.itemsize for dtype, shape in self.fields]
        wanted = 8 * self.state_size + sum(sizes)
        try:
            data = zlib.decompressobj().decompress(packed, wanted + 1)
        except zlib.error:
            data = b""
        if len(data) != wanted:
            raise ArtefactError(f"{self.path}: a record holds {len(data)} bytes, not {wanted}; remove it and run again")
        return count, *self._unpack(count, data, sizes)

    def _unpack(self, count: int, data: bytes, sizes: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        at = 8 * self.state_size
        arrays = []
        for (dtype, shape), size in zip(self.fields, sizes, strict=True):
            arrays.append(np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(count, *shape))
            at += size
        return np.frombuffer(data, np.int64, self.state_size), arrays

    # --- writing ---

    def add(self, arrays: list[np.ndarray], state: np.ndarray) -> None:
        """Append a record of the next samples. ArtefactError where the disk is full, say; what was there stays."""
        packer = zlib.compressobj(1)
        parts = [packer.compress(np.ascontiguousarray(a).tobytes()) for a in (state, *arrays)]
        packed = b"".join([*parts, packer.flush()])
        count = len(arrays[0])
        head = struct.pack("<QQ", count, len(packed))
        try:
            self.file.write(head + hashlib.sha256(head + packed).digest() + packed)
            self.file.flush()
            if time.monotonic() - self.synced > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            self._fail(error)
        self.done += count

    def _sync(self) -> None:
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()

    def close(self, remove: bool = False) -> None:
        """Close it; ``remove``: the run is finished and written elsewhere."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.file.close()
