"""A graph on disk: ``<stem>.txt`` (the text form) and ``<stem>.safetensors`` (its arrays).

The arrays' file holds the text's SHA-256, so that two halves of different graphs are never read as one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.graph.graph import Graph
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.graph.verify import verify

MAX_TEXT_BYTES = 64 << 20
_DIGEST = "text_sha256"


def save_graph(graph: Graph, folder: str | Path, stem: str) -> tuple[Path, Path]:
    """Write a graph under ``folder`` (which must exist) and return the two paths.

    Equal graphs give equal bytes. ArtefactError where a file cannot be written; a graph that stood
    there before is then left as it was. VerifyError where the graph breaks a rule of its format.
    """
    verify(graph)
    text = to_text(graph).encode("utf-8")
    arrays = {k: np.asarray(v, order="C") for k, v in graph.tensors.items()}
    files = {
        Path(folder) / f"{stem}.safetensors": save(arrays, {_DIGEST: hashlib.sha256(text).hexdigest()}),
        Path(folder) / f"{stem}.txt": text,
    }
    _write_all(files)
    tensors_path, text_path = files
    return text_path, tensors_path


def _write_all(files: dict[Path, bytes]) -> None:
    """Write every file beside its place, then rename them all."""
    beside = {path: path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in files}
    path = next(iter(files))
    try:
        for path, data in files.items():
            with beside[path].open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        for path, temporary in beside.items():
            os.replace(temporary, path)
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)


def load_graph(folder: str | Path, stem: str) -> Graph:
    """Read what ``save_graph`` wrote, verified. ArtefactError on anything damaged, naming the file."""
    text_path, tensors_path = Path(folder) / f"{stem}.txt", Path(folder) / f"{stem}.safetensors"
    raw = _read_text(text_path)
    tensors, digest = _read_tensors(tensors_path)
    if digest != hashlib.sha256(raw).hexdigest():
        raise ArtefactError(
            f"{text_path} and {tensors_path} do not belong together: the text was changed or replaced; "
            f"write both again with nmc compile"
        )
    try:
        graph = from_text(raw.decode("utf-8"), tensors)
        verify(graph)
    except (VerifyError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{text_path}: {error}") from error
    return graph


def _read_text(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise ArtefactError(f"{path} has {size} bytes, more than the {MAX_TEXT_BYTES} a graph may have")
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata.get(_DIGEST)  # noqa: SIM118
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ArtefactError(f"{path} is not a whole safetensors file of NumPy arrays: {error}") from error
