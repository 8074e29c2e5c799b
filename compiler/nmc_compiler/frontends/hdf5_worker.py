"""Reads one HDF5 file in a process of its own: `hdf5.read_hdf5` starts it, nobody imports it.

    python hdf5_worker.py FILE OUT SECONDS

The HDF5 library is C, and damaged files make it crash, loop or take memory; here that ends this process and no other.
OUT gets a JSON header of as many bytes as its first eight say, and behind it the arrays, one after the other.
The last line on standard output is a JSON object: ``error``, or ``done``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

SECONDS = 20  # of computing: 2 GiB inflate in half of it
MEMORY = 6 << 30  # of addresses, the libraries' own included
MAX_BYTES = 2 << 30  # of all arrays together
MAX_OBJECTS, MAX_DEPTH = 100_000, 24
MAX_STRINGS, MAX_TEXT = 200_000, 1 << 24
INFLATED = 1100  # deflate makes at most 1032 bytes of one
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # what h5py writes and every h5py reads


class Refused(Exception):
    """A file that is not read; the text says why and what to do."""


class Reader:
    """Walks a file; what it found is in ``entries``, array bytes go to ``stream`` as they are read."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.entries: list[list[Any]] = []
        self.seen: set[int] = set()
        self.bytes = self.strings = self.text = 0

    def group(self, group: Any, path: str, depth: int) -> None:
        """All members of a group, in the order of their names."""
        import h5py

        self._count(group, path or "/")
        if depth > MAX_DEPTH:
            raise Refused(f"groups are nested deeper than {MAX_DEPTH} ({path[:80]}...)")
        self.entries.append(["group", path])
        for name in group:
            where = f"{path}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refused(f"'{where}' is a link into another file, which is never followed; copy the data into it")
            if not isinstance(link, h5py.HardLink):
                raise Refused(f"'{where}' is a soft link, which is never followed; write the data in its place")
            member = group[name]
            if isinstance(member, h5py.Group):
                self.group(member, where, depth + 1)
            elif isinstance(member, h5py.Dataset):
                self.dataset(member, where)
            else:
                self.entries.append(["odd", where, "is a type, no data"])

    def dataset(self, data: Any, path: str) -> None:
        """One dataset: numbers, texts, or a reason why it is neither."""
        import h5py

        self._count(data, path)
        create = data.id.get_create_plist()
        if create.get_external_count() or data.is_virtual:
            raise Refused(f"'{path}' keeps its data in another file, which is never opened; copy the data into it")
        for n in range(create.get_nfilters()):
            if create.get_filter(n)[0] not in FILTERS:
                raise Refused(f"'{path}' is packed by filter {create.get_filter(n)[0]}; repack it with gzip")
        if data.shape is None:
            self.entries.append(["odd", path, "is empty"])
        elif h5py.check_string_dtype(data.dtype) is not None:
            self._texts(data, path)
        elif data.dtype.kind in "biuf" and data.dtype.itemsize <= 8:
            self._numbers(data, path)
        else:
            self.entries.append(["odd", path, f"holds {data.dtype}, neither numbers nor text"])

    def _count(self, item: Any, path: str) -> None:
        import h5py

        if len(self.seen) >= MAX_OBJECTS:
            raise Refused(f"more than {MAX_OBJECTS} groups and datasets")
        address = h5py.h5o.get_info(item.id).addr
        if address in self.seen:
            raise Refused(f"'{path}' is in the file under two names; write it once for each")
        self.seen.add(address)

    def _room(self, data: Any, path: str) -> int:
        """Bytes of a dataset, none of them read. Refused where the file cannot hold them."""
        import h5py

        size, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
        chunked = data.id.get_create_plist().get_layout() == h5py.h5d.CHUNKED
        if size > stored * (INFLATED if chunked else 1):
            raise Refused(
                f"'{path}' of shape {list(data.shape)} needs {size} bytes, but {stored} are in the file: "
                "it is truncated or altered"
            )
        return size

    def _numbers(self, data: Any, path: str) -> None:
        import numpy as np

        self.bytes += self._room(data, path)
        if self.bytes > MAX_BYTES:
            raise Refused(f"its arrays need more than {MAX_BYTES} bytes ('{path}' has shape {list(data.shape)})")
        array = np.ascontiguousarray(data[()], data.dtype.newbyteorder("<"))
        self.entries.append(["numbers", path, array.dtype.str, list(data.shape), self.stream.tell()])
        self.stream.write(array.tobytes())

    def _texts(self, data: Any, path: str) -> None:
        self._room(data, path)
        self.strings += data.size
        self.text += data.size * (data.dtype.itemsize if data.dtype.kind == "S" else 0)
        if self.strings > MAX_STRINGS or self.text > MAX_TEXT:
            raise Refused(f"more than {MAX_STRINGS} strings or {MAX_TEXT} bytes of text ('{path}')")
        try:
            found = [s.decode() if isinstance(s, bytes) else str(s) for s in [*_flat(data[()])]]
        except UnicodeDecodeError:
            self.entries.append(["odd", path, "holds text that is not UTF-8"])
            return
        self.text += sum(map(len, found)) if data.dtype.kind == "O" else 0
        if self.text > MAX_TEXT:
            raise Refused(f"more than {MAX_TEXT} characters of text ('{path}')")
        self.entries.append(["texts", path, list(data.shape), found])


def _flat(value: Any) -> Any:
    return value.ravel() if hasattr(value, "ravel") else [value]


def read(path: str, out: str) -> None:
    """Read the file at ``path`` into ``out``."""
    import h5py

    if not h5py.is_hdf5(path):
        raise Refused("not an HDF5 file, or its beginning is damaged")
    body = Path(f"{out}.body")
    with h5py.File(path, "r", locking=False) as file, body.open("w+b") as stream:
        reader = Reader(stream)
        reader.group(file, "", 0)
        header = json.dumps(reader.entries).encode()
        with Path(out).open("wb") as target:
            target.write(len(header).to_bytes(8, "little") + header)
            stream.seek(0)
            while piece := stream.read(1 << 24):
                target.write(piece)
    body.unlink()


def main(path: str, out: str, seconds: str) -> None:
    """Limits first, then the file; the outcome as one line of JSON."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))  # SIGXCPU, then SIGKILL
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        read(path, out)
    except Refused as error:
        said: dict[str, Any] = {"error": str(error)}
    except MemoryError:
        said = {"error": f"reading it takes more than {MEMORY} bytes of memory"}
    except Exception as error:  # h5py turns what it finds wrong with a file into exceptions of many kinds
        said = {"error": f"damaged ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"}
    else:
        said = {"done": True}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
