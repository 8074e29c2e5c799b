"""Checkpoint files: finds the state_dict in a file and gives its tensors as NumPy arrays, without PyTorch."""

import hashlib
import os
import stat
from dataclasses import dataclass
from io import FileIO
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.containers import EMA_KEYS, STATE_KEYS, choose_state, strip_wrappers
from nmc_compiler.frontends.safetensors_file import looks_like_safetensors, read_safetensors
from nmc_compiler.frontends.stored_tensor import StoredTensor, to_array
from nmc_compiler.frontends.torch_file import PICKLE_START, ZIP_START, StoredFile, read_legacy, read_zip
from nmc_compiler.frontends.torch_values import Opaque, describe, short_text
from nmc_compiler.frontends.torch_zip import expansion_limit


@dataclass(frozen=True)
class Checkpoint:
    """A state_dict read from a file.

    `tensors` has the keys of the state_dict in its order; the arrays are read-only, most are views of the
    mapped file, which must not be changed in place meanwhile (replacing it is safe). `config` is the plain
    data stored under the key `config` beside the state_dict. `notes` say what was chosen, converted or left
    aside.
    """

    tensors: dict[str, np.ndarray]
    config: dict | None
    notes: list[str]
    sha256: str
    path: Path


def read_checkpoint(path: str | os.PathLike, state: str | None = None) -> Checkpoint:
    """Reads a state_dict from a .pt or .pth file of torch.save (zip or legacy layout) or a .safetensors file.

    What `torch.load(weights_only=True)` refuses is refused (argparse.Namespace alone is let through and left
    aside), what it reads is read to the same bits; bfloat16 becomes float32, which is exact. Quantized,
    sparse and 8-bit float tensors are refused by name. ``state``: the key of the state_dict, in a file that holds
    several; else the moving average is taken where there is one. Raises FrontendError.
    """
    path = Path(path)
    try:
        with _open_regular(path) as file:
            return _read(path, file, state)
    except FrontendError as error:
        raise FrontendError(f"{path}: {error}") from None
    except OSError as error:
        raise FrontendError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open_regular(path: Path) -> FileIO:
    """A pipe or device would block or never end, so only regular files are opened."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte in the name
        raise FrontendError(f"cannot be read: {error}") from None
    if stat.S_ISDIR(mode):
        raise FrontendError("it is a directory: name the checkpoint file in it")
    if not stat.S_ISREG(mode):
        raise FrontendError("it is not a regular file")
    return FileIO(path)


def _read(path: Path, file: FileIO, wanted: str | None) -> Checkpoint:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise FrontendError("it is empty: copy or download it again")
    sha256 = _sha256(file)
    try:
        data = mmap(file.fileno(), size, access=ACCESS_READ)
    except ValueError:
        raise FrontendError("it became shorter while it was read") from None
    stored = _detect(path, file, data)
    notes: list[str] = []
    state, config = choose_state(stored.root, notes, wanted)
    state = strip_wrappers(state, notes)
    tensors = _to_arrays(state, stored, size, notes)
    return Checkpoint(tensors, config, notes, sha256, path)


def _sha256(file: FileIO) -> str:
    """Read in pieces, so that a large file does not have to fit in memory."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _detect(path: Path, file: FileIO, data: mmap) -> StoredFile:
    """The content decides, not the suffix."""
    start = data[:265]
    if start.startswith(ZIP_START):
        return read_zip(file, data)
    if looks_like_safetensors(start):  # first: a header length of 128 mod 256 starts like a pickle
        return read_safetensors(path, data)
    if start.startswith(PICKLE_START):
        return read_legacy(data)
    if path.suffix == ".safetensors":
        return read_safetensors(path, data)
    raise FrontendError(f"{_guess(start)}; a checkpoint of torch.save or a .safetensors file is needed")


def _guess(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself (`git lfs pull` gets it)"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, perhaps of a download that asks for confirmation"
    if start[257:262] == b"ustar":
        return "it is a tar archive (PyTorch before 0.1.10 wrote those; load and save it again with PyTorch)"
    return f"it is no checkpoint: it starts with the bytes {start[:8].hex(' ')}"


def _to_arrays(state: dict, stored: StoredFile, file_size: int, notes: list[str]) -> dict[str, np.ndarray]:
    _check_entries(state)
    total, limit = sum(tensor.nbytes for tensor in state.values()), expansion_limit(file_size)
    if total > limit:
        raise FrontendError(
            f"its tensors would be {total} bytes as arrays, the limit for a file of {file_size} bytes is "
            f"{limit}: save expanded tensors with .contiguous()"
        )
    tensors = {key: _array(key, tensor, stored) for key, tensor in state.items()}
    _note_conversions(state, stored, notes)
    return tensors


def _check_entries(state: dict) -> None:
    kinds = [
        isinstance(value, StoredTensor) or isinstance(value, Opaque) and value.is_tensor for value in state.values()
    ]
    if not any(kinds):
        keys = ", ".join(short_text(key) for key in list(state)[:8])
        raise FrontendError(
            f"it holds no tensors: its keys are {keys or 'none'}. A state_dict is read at the top level or "
            f"under one of {', '.join(map(repr, EMA_KEYS + STATE_KEYS))}"
        )
    for key, value in state.items():
        if not isinstance(key, str) or not _is_text(key):
            raise FrontendError(f"a key of the state_dict is {short_text(key)}, which is not text")
        if isinstance(value, Opaque) and value.is_tensor:
            raise FrontendError(f"{short_text(key)} is {value.what}: {value.advice}")
        if not isinstance(value, StoredTensor):
            raise FrontendError(f"{short_text(key)} in the state_dict is {describe(value)}, not a tensor: remove it")


def _is_text(key: str) -> bool:
    """False for lone surrogates, which pickles may hold and no output could show."""
    return key.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in key)


def _array(key: str, tensor: StoredTensor, stored: StoredFile) -> np.ndarray:
    try:
        return to_array(tensor, *stored.locate(tensor.storage.key), stored.big_endian)
    except FrontendError as error:
        raise FrontendError(f"{short_text(key)}: {error}") from None


def _note_conversions(state: dict[str, StoredTensor], stored: StoredFile, notes: list[str]) -> None:
    widened = [key for key, tensor in state.items() if tensor.dtype == "bfloat16"]
    if widened:
        notes.append(f"{len(widened)} bfloat16 tensors read as float32, exactly; the first is {short_text(widened[0])}")
    if stored.unchecked:
        notes.append(f"{len(stored.unchecked)} records have no checksum, so damage to them would go unnoticed")
    if stored.big_endian:
        notes.append("the file is big-endian: numbers were reversed")


def check_finite(tensors: dict[str, np.ndarray]) -> None:
    """Raises FrontendError for NaN or infinity: names the first such tensor, the counts, the first index."""
    for key, array in tensors.items():
        if array.dtype.kind not in "fc":
            continue
        finite = np.isfinite(array)
        if not finite.all():
            raise FrontendError(_not_finite(key, array, finite, tensors))


def _not_finite(key: str, array: np.ndarray, finite: np.ndarray, tensors: dict[str, np.ndarray]) -> str:
    first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
    nans = int(np.isnan(array).sum())
    infinities = int(finite.size - np.count_nonzero(finite)) - nans
    bad = sum(a.dtype.kind in "fc" and not np.isfinite(a).all() for a in tensors.values())
    others = f" ({bad - 1} other tensors too)" if bad > 1 else ""
    return (
        f"tensor '{key}' of shape {array.shape} has {nans} NaN and {infinities} infinite values, the first "
        f"at {first}{others}: such a network computes nothing; use a checkpoint from before training diverged"
    )
