"""The state of a run in a file that is whole or absent: named arrays, and a few words on whose they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nmc_compiler.errors import ArtefactError


def write_state(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """Write beside ``path`` and rename. ArtefactError where that cannot be done; what was there stays."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")  # one name: what a killed run left is written over
    try:
        plain = {name: np.atleast_1d(a) for name, a in arrays.items()}
        part.write_bytes(safetensors.numpy.save(plain, about))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ArtefactError(f"{path}: {error.strerror or error}; choose another place") from None


def read_about(path: str | os.PathLike[str], step: str) -> dict[str, str]:
    """What a state says of itself. ArtefactError, ending with ``step``, for a file that is none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtefactError(f"{path}: {error}; {step}") from None


def read_state(path: str | os.PathLike[str], step: str) -> dict[str, np.ndarray]:
    """The arrays of a state. ArtefactError, ending with ``step``, for a file that is none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (OSError, TypeError, AttributeError, safetensors.SafetensorError) as error:  # types NumPy lacks
        raise ArtefactError(f"{path}: {error}; {step}") from None
