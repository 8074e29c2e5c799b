"""Results of a sweep: one line of JSON per point, in a file that only grows."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nmc.folders import write_file
from nmc.sweep.points import KEYS
from nmc_compiler.errors import ArtefactError, UsageError

SCHEMA: Literal["nmc.point/1"] = "nmc.point/1"
MAX_FILE, MAX_LINE = 1 << 30, 1 << 20
BEGIN = b'{"assumed":'  # of every line: its keys are sorted

Status = Literal["done", "refused", "lost"]
Plain = str | int | float | bool | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Energy(_Strict):
    """Energy per sample, or timestep of a stream, under one price profile; ``at_least``: terms are missing from it.

    kind: "mapped" where it is of what was mapped, else of what a report puts beside it.
    """

    kind: str
    pj: float
    at_least: bool


class Record(_Strict):
    """What became of one point.

    ``key``: sha256 (hex) of all that the outcome depends on, see ``key_of``.  ``status``: "done", "refused" (``error``
    has the text of ``nmc compile`` or ``nmc emulate``) or "lost": its worker died again and again, which says nothing
    about the point.  ``figures``: averages per sample, or timestep of a stream, of what is not one number per run.
    """

    format: Literal["nmc.point/1"] = Field(alias="schema")
    key: str
    nmc: str
    files: dict[str, str]
    samples: int | None
    steps: int | None
    prices: list[str]
    options: dict[str, Plain | list[Plain]]
    status: Status
    error: str | None = None
    program: str | None = None
    figures: dict[str, int | float | None] | None = None
    energy: dict[str, Energy] | None = None
    assumed: list[str] | None = None

    def line(self) -> bytes:
        """The record as its line in the file: the same bytes wherever it was made."""
        tree = self.model_dump(mode="json", by_alias=True)
        return json.dumps(tree, sort_keys=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands among others: by the options, in the order of KEYS, defaults first."""
        names = [*KEYS, *sorted(set(self.options) - set(KEYS))]
        return (*(_rank(self.options.get(name)) for name in names), self.key)


def _rank(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    number = isinstance(value, (int, float))
    return (1, float(value), "") if number else (2, 0.0, json.dumps(value))


ABOUT = ("nmc", "files", "samples", "steps", "prices", "options")


def key_of(about: dict[str, Any]) -> str:
    """sha256 (hex) that names a point: version of nmc, contents of all files, samples, timesteps, prices, options."""
    return hashlib.sha256(json.dumps({"schema": SCHEMA} | about, sort_keys=True, allow_nan=False).encode()).hexdigest()


# --- files ------------------------------------------------------------------------------------------------


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a file. UsageError where there is none, ArtefactError where it is damaged.

    A last line that was not finished, by a kill say, is left out.
    """
    try:
        with Path(path).open("rb") as file:
            return list(_whole_records(Path(path), file))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; give one that `nmc explore -o` wrote") from None
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror or error}") from None


def _whole_records(path: Path, file: IO[bytes]) -> Iterator[Record]:
    """Records up to the first line that is torn, which has to be the last; the file stands behind them then."""
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE:
        raise ArtefactError(f"{path}: is larger than {MAX_FILE} bytes; split it")
    number = at = 0
    while line := file.readline(MAX_LINE):
        number += 1
        record = _parsed(line) if line.endswith(b"\n") else None
        if record is None:
            if file.tell() < size or line.endswith(b"\n") or not (line.startswith(BEGIN) or BEGIN.startswith(line)):
                raise ArtefactError(f"{path}, line {number}: is no record of {SCHEMA}; remove the line, or the file")
            break
        at = file.tell()
        yield record
    file.seek(at)


def _parsed(line: bytes) -> Record | None:
    """A record whose key is that of what it says; None for anything else."""
    try:
        found = Record.model_validate(json.loads(line))
    except (ValueError, RecursionError, ValidationError):
        return None
    return found if found.key == key_of({name: getattr(found, name) for name in ABOUT}) else None


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """Records by key: of a point that was lost and run again, the later one. UsageError for two that contradict."""
    found: dict[str, Record] = {}
    for record in records:
        known = found.get(record.key)
        if known is None or known.status == "lost":
            found[record.key] = record
        elif record.status != "lost" and record != known:
            raise UsageError(
                f"two records of the point {_told(record)} (key {record.key[:12]}) have different results"
                f" ({known.status}, {record.status}); they were not made by the same nmc on the same libraries"
            )
    return found


def _told(record: Record) -> str:
    return " ".join(f"{k}={v}" for k, v in record.options.items()) or "of the defaults"


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[Record]:
    """Write the records of several files as one, in order: equal sets of points give equal bytes.

    UsageError for records that contradict each other, and where ``out`` is there and not among the files;
    ArtefactError for a damaged file.
    """
    if Path(out).exists() and Path(out).resolve() not in [Path(path).resolve() for path in paths]:
        raise UsageError(f"{out}: is there, and not among the files that are merged; name it too, or choose another -o")
    found = ordered(latest(record for path in paths for record in read_records(path)).values())
    write_file(out, b"".join(record.line() for record in found))
    return found


def ordered(records: Iterable[Record]) -> list[Record]:
    """Records in the order that tables and merged files have."""
    return sorted(records, key=lambda record: record.order)


class Results:
    """The file of a sweep that is under way; only one process may have it open. ``dropped``: bytes of a torn line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._failing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b")
            self._lock()
            self.file.seek(0)
            self.records = latest(_whole_records(self.path, self.file))
            at = self.file.tell()
            self.dropped = os.fstat(self.file.fileno()).st_size - at
            self.file.truncate(at)

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another sweep is writing to it; wait, or choose another -o") from None

    def add(self, record: Record) -> None:
        """Append a record, and see to it that it survives whatever comes."""
        with self._failing():
            self.file.write(record.line())
            self.file.flush()
            os.fsync(self.file.fileno())
        self.records[record.key] = record

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtefactError(f"{self.path}: {error.strerror or error}; choose another -o") from None
