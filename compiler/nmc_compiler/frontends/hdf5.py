"""HDF5 files of strangers as plain trees: bounded in size, without links out of the file, safe from crashes.

The HDF5 library is C and trusts what it reads, so it runs in a process of its own (`hdf5_worker`) with limits on
time and memory. What comes back is checked here and is plain: groups, arrays of numbers, arrays of text.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError, ToolNotFound
from nmc_compiler.frontends import hdf5_worker

WAIT = 10  # times the seconds of computing: the disk may be slow, the machine busy
WHOLE = 1 << 53  # integers that a float64 holds exactly


@dataclass(frozen=True)
class Odd:
    """A dataset that is neither numbers nor text; ``why`` continues "FILE: /PATH ..."."""

    why: str


Leaf = np.ndarray | Odd


@dataclass(frozen=True)
class Hdf5Group:
    """A group: its place in the file, for errors, and its members by name.

    Leaves are arrays of numbers (bool, int, float), arrays of text (dtype object), or `Odd`.
    """

    file: str
    path: str
    members: dict[str, Hdf5Group | Leaf] = field(repr=False)

    @classmethod
    def of(cls, file: str, tree: Mapping[str, Any], path: str = "") -> Hdf5Group:
        """The group that a file with this content would give: nested dicts of arrays, numbers and texts.

        >>> group = Hdf5Group.of("a.net", {"layer": {"0": {"type": "dense", "shape": [3]}}})
        >>> group.group("layer").group("0").text("type")
        'dense'
        """
        members: dict[str, Hdf5Group | Leaf] = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                members[name] = cls.of(file, value, f"{path}/{name}")
            else:
                array = np.asarray(value)
                members[name] = array.astype(object) if array.dtype.kind in "US" else array
        return cls(file, path, members)

    @property
    def where(self) -> str:
        """How errors name the group."""
        return f"{self.file}: {plain(self.path) or '/'}"

    @property
    def names(self) -> list[str]:
        """Names of the members, in the order of the file."""
        return list(self.members)

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def wrong(self, name: str, text: str) -> FrontendError:
        """An error about a member: "FILE: /PATH/NAME TEXT"."""
        return FrontendError(f"{self.file}: {plain(self.path)}/{plain(name)} {text}")

    def group(self, name: str) -> Hdf5Group:
        """A member that is a group. FrontendError where it is missing or a dataset."""
        found = self._member(name)
        if not isinstance(found, Hdf5Group):
            raise self.wrong(name, "is a dataset; a group was expected")
        return found

    def numbers(self, name: str) -> np.ndarray:
        """A dataset of finite numbers, any shape. FrontendError where it is missing, text, or has NaN."""
        array = self._dataset(name)
        if array.dtype == object:
            raise self.wrong(name, "holds text; numbers were expected")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise self.wrong(name, f"has {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
        return array

    def integers(self, name: str) -> np.ndarray:
        """A dataset of whole numbers, as int64 whatever its type. FrontendError for fractions, with the first."""
        array = self.numbers(name)
        if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and array.max() >= 1 << 63:
            raise self.wrong(name, f"has the value {array.max()}, which is beyond 63 bits")
        if array.dtype.kind == "f":
            bad = (array != np.floor(array)) | (np.abs(array.astype(np.float64)) > WHOLE)
            if bad.any():
                raise self.wrong(
                    name, f"has {int(bad.sum())} values that are not whole numbers, the first {array[bad].flat[0]:g}"
                )
        return array.astype(np.int64)

    def integer(self, name: str, low: int, high: int) -> int:
        """A dataset of one whole number within limits."""
        array = self.integers(name)
        if array.size != 1:
            raise self.wrong(name, f"has shape {list(array.shape)}; one number was expected")
        value = int(array.reshape(()))
        if not low <= value <= high:
            raise self.wrong(name, f"is {value}, outside {low}..{high}")
        return value

    def texts(self, name: str) -> np.ndarray:
        """A dataset of text, any shape: an array of str (dtype object)."""
        array = self._dataset(name)
        if array.dtype != object:
            raise self.wrong(name, "holds numbers; text was expected")
        return array

    def text(self, name: str) -> str:
        """A dataset of one text."""
        array = self.texts(name)
        if array.size != 1:
            raise self.wrong(name, f"has shape {list(array.shape)}; one text was expected")
        return str(array.reshape(())[()])

    def _dataset(self, name: str) -> np.ndarray:
        found = self._member(name)
        if isinstance(found, Hdf5Group):
            raise self.wrong(name, "is a group; a dataset was expected")
        if isinstance(found, Odd):
            raise self.wrong(name, found.why)
        return found

    def _member(self, name: str) -> Hdf5Group | Leaf:
        if name not in self.members:
            raise self.wrong(name, f"is missing; the group has {some(self.names)}")
        return self.members[name]


def plain(text: str) -> str:
    """A text of a stranger on one line, safe to print."""
    return text if text.isprintable() else ascii(text)[1:-1]


def some(names: list[str]) -> str:
    """A few names, safe to print."""
    shown = ", ".join(plain(n)[:40] for n in names[:8]) or "nothing"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def read_hdf5(path: str | os.PathLike[str]) -> Hdf5Group:
    """The whole of an HDF5 file. Sizes are checked before memory is taken.

    FrontendError for a file that is missing, damaged, larger than the limits of `hdf5_worker`, or points to data
    outside of itself; ToolNotFound without h5py.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ToolNotFound(f"{path}: reading HDF5 files needs h5py; get it with: pip install 'nmc[nir]'")
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise FrontendError(f"{file}: not a regular file; give an HDF5 file")
        with tempfile.TemporaryDirectory(prefix="nmc-hdf5-") as folder:
            out = Path(folder) / "tree"
            _run(file, out)
            return _tree(str(file), out)
    except OSError as error:
        raise FrontendError(f"{file}: cannot be read: {error.strerror or error}") from None


def _run(file: Path, out: Path) -> None:
    """Let the worker read the file. FrontendError with what it said, or where it came to grief."""
    seconds = hdf5_worker.SECONDS
    command = [sys.executable, "-P", hdf5_worker.__file__, str(file.absolute()), str(out), str(seconds)]
    slow = f"{file}: takes more than {seconds} s to read: it is damaged, or far larger than a network"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=WAIT * seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise FrontendError(slow) from None
    said = _last_line(done.stdout)
    if "error" in said:
        raise FrontendError(f"{file}: {plain(str(said['error']))}")
    if done.returncode == -signal.SIGXCPU:
        raise FrontendError(slow)
    if done.returncode or "done" not in said:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise FrontendError(f"{file}: damaged: the HDF5 library broke down on it ({how}); get the file again")


def _last_line(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return said if isinstance(said, dict) else {}


def _tree(file: str, out: Path) -> Hdf5Group:
    """What the worker wrote, as groups; every array is a copy of its own."""
    with out.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries, body = json.loads(stream.read(length)), stream.tell()
        groups = {"": Hdf5Group(file, "", {})}
        for kind, path, *rest in entries[1:]:  # the first is the root
            parent, _, name = path.rpartition("/")
            if kind == "group":
                leaf: Hdf5Group | Leaf = groups.setdefault(path, Hdf5Group(file, path, {}))
            elif kind == "numbers":
                dtype, shape, at = np.dtype(rest[0]), tuple(rest[1]), body + rest[2]
                stream.seek(at)
                leaf = np.fromfile(stream, dtype, math.prod(shape)).reshape(shape)
            elif kind == "texts":
                leaf = np.empty(math.prod(rest[0]), object)
                leaf[:] = rest[1]
                leaf = leaf.reshape(rest[0])
            else:
                leaf = Odd(rest[0])
            groups[parent].members[name] = leaf
    return groups[""]
