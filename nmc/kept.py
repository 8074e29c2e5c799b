"""Recorded events of a run that events drive: on disk while it goes on, however long it is."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from nmc_compiler.program.model import Program
from nmc_emulator.event_log import NUMBERS
from nmc_emulator.trace import Events, coded


class Kept(Mapping[str, Events]):
    """Events of populations by name; what was added lies in files without a name, and is mapped when asked for."""

    def __init__(self, program: Program, populations: list[int], folder: Path | None) -> None:
        self.names = {program.populations[i].name: i for i in populations}
        self.files: dict[int, dict[str, IO[bytes]]] = {}
        for i in populations:
            columns = NUMBERS if coded(program.populations[i]) else ("step", "soma")
            self.files[i] = {c: tempfile.TemporaryFile(dir=folder) for c in columns}  # noqa: SIM115  until it goes

    def add(self, first: int, events: Mapping[int, Events]) -> None:
        """Events whose timesteps count from ``first``."""
        for i, files in self.files.items():
            e = events[i]
            values = {"step": e.step + first, "soma": e.soma, "code": e.code}
            for column, file in files.items():
                array = np.ones(len(e)) if values[column] is None else values[column]
                file.write(np.ascontiguousarray(array, NUMBERS[column]).data)

    def __getitem__(self, name: str) -> Events:
        files = self.files[self.names[name]]
        arrays = {column: _mapped(file, NUMBERS[column]) for column, file in files.items()}
        return Events(arrays["step"], arrays["soma"], arrays.get("code"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _mapped(file: IO[bytes], dtype: np.dtype) -> np.ndarray:
    file.flush()
    size = os.fstat(file.fileno()).st_size // dtype.itemsize
    return np.memmap(file, dtype, "r", shape=(size,)) if size else np.zeros(0, dtype)


def write_events(path: str | os.PathLike[str], events: Mapping[str, Events]) -> None:
    """An .npz of NAME.step, NAME.soma and, where events carry codes, NAME.code: as inputs are given, too."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, e in events.items():
            columns = {"step": e.step, "soma": e.soma} | ({} if e.code is None else {"code": e.code})
            for column, array in columns.items():
                with file.open(f"{name}.{column}.npy", "w", force_zip64=True) as stream:
                    npy.write_array(stream, np.asarray(array, NUMBERS[column]), allow_pickle=False)
