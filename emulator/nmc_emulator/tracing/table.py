"""Tables of whole numbers and names, written row by row as CSV or Parquet; equal rows, equal bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from nmc_compiler.errors import ToolNotFound

from ..kernels import text

SLICE = 1 << 16  # rows made into text at once
GROUP = 1 << 20  # rows of a Parquet row group
DIGITS = 20  # of the longest 64-bit number, its sign included

Names = Mapping[str, tuple[str, ...]]


class Table(Protocol):
    """Takes columns of equal length; a column in ``names`` holds indices of its names."""

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what is left."""


def _quoted(name: str) -> bytes:
    """A CSV field as RFC 4180 has it."""
    odd = any(c in name for c in ',"\r\n')
    return ('"' + name.replace('"', '""') + '"' if odd else name).encode()


class CsvTable:
    """A CSV file with a header line."""

    def __init__(self, path: str | os.PathLike[str], columns: tuple[str, ...], names: Names) -> None:
        self.columns = columns
        fields = [_quoted(name) for c in columns for name in names.get(c, ())]
        sizes = np.cumsum([0, *(len(names.get(c, ())) for c in columns)])
        self.base = np.array([sizes[i] if c in names else -1 for i, c in enumerate(columns)], np.int64)
        self.pool = np.frombuffer(b"".join(fields) or b"\0", np.uint8)
        self.start = np.cumsum([0, *map(len, fields)]).astype(np.int64)
        width = max([DIGITS, *map(len, fields)]) + 1
        self.buffer = np.empty(SLICE * len(columns) * width, np.uint8)
        self.file: IO[bytes] = Path(path).open("wb")  # noqa: SIM115  until close()
        self.file.write((",".join(columns) + "\n").encode())

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows."""
        values = np.stack([columns[c].astype(np.int64) for c in self.columns], axis=1)
        for first in range(0, len(values), SLICE):
            size = text.rows(values[first : first + SLICE], self.base, self.pool, self.start, self.buffer)
            self.file.write(self.buffer[:size].data)

    def close(self) -> None:
        """Flush and close."""
        self.file.close()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ToolNotFound("Parquet needs pyarrow: pip install 'nmc[parquet]'; CSV needs nothing more") from None
    return pyarrow


class ParquetTable:
    """A Parquet file; row groups are of equal size, however the rows came. ToolNotFound without pyarrow."""

    def __init__(self, path: str | os.PathLike[str], columns: tuple[str, ...], names: Names) -> None:
        self.arrow, self.columns, self.names = _pyarrow(), columns, names
        coded = self.arrow.dictionary(self.arrow.int32(), self.arrow.string())
        fields = [(c, coded if c in names else self.arrow.int64()) for c in columns]
        self.writer = self.arrow.parquet.ParquetWriter(str(path), self.arrow.schema(fields), compression="zstd")
        self.waiting: list[np.ndarray] = []
        self.rows = 0

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows."""
        self.waiting.append(np.stack([columns[c].astype(np.int64) for c in self.columns]))
        self.rows += self.waiting[-1].shape[1]
        while self.rows >= GROUP:
            held = np.concatenate(self.waiting, axis=1)
            self._write(held[:, :GROUP])
            self.waiting, self.rows = [held[:, GROUP:]], self.rows - GROUP

    def _write(self, values: np.ndarray) -> None:
        arrays = [self._array(c, row) for c, row in zip(self.columns, values, strict=True)]
        self.writer.write_table(self.arrow.table(arrays, schema=self.writer.schema), row_group_size=GROUP)

    def _array(self, column: str, row: np.ndarray) -> Any:
        if column not in self.names:
            return self.arrow.array(row)
        return self.arrow.DictionaryArray.from_arrays(row.astype(np.int32), list(self.names[column]))

    def close(self) -> None:
        """Write the last rows and the footer."""
        if self.rows:
            self._write(np.concatenate(self.waiting, axis=1))
        self.writer.close()


TABLES: dict[str, type[CsvTable] | type[ParquetTable]] = {"csv": CsvTable, "parquet": ParquetTable}
