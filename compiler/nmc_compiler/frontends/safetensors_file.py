"""safetensors files. The package checks the header; the tensors are views of our own mapping.

Format: 8 bytes little-endian header length, a JSON header, then the tensors one after the other without gaps
(https://github.com/huggingface/safetensors, README, "Format").
"""

from mmap import mmap
from pathlib import Path

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.stored_tensor import Storage, StoredTensor, contiguous, stored_tensor
from nmc_compiler.frontends.torch_file import StoredFile

_DTYPES = {
    **{"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "C64": "complex64"},
}
_LENGTH_BYTES = 8


def looks_like_safetensors(start: bytes) -> bool:
    return start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"


def read_safetensors(path: Path, data: mmap) -> StoredFile:
    """Reads the header. Tensors come in the order in which they lie in the file."""
    first = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    everything = Storage("tensors", "uint8", len(data) - first)
    tensors: dict[str, StoredTensor] = {}
    offset = 0
    for name, code, shape in _header(path):
        tensors[name] = _tensor(everything, name, code, shape, offset)
        offset += tensors[name].nbytes
    return StoredFile(tensors, lambda key: (data, first))


def _header(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of each tensor, by offset; the package refuses gaps, overlaps and bad sizes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            slices = [(name, opened.get_slice(name)) for name in opened.offset_keys()]
            return [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices]
    except SafetensorError as error:
        raise FrontendError(f"it is no valid safetensors file: {error}. Copy or download it again") from None


def _tensor(everything: Storage, name: str, code: str, shape: tuple[int, ...], offset: int) -> StoredTensor:
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise FrontendError(f"{name!r} has the dtype {code}, which is not read: save it as float32")
    count = contiguous(shape)
    part = Storage(everything.key, dtype, everything.nbytes - offset, offset)
    return stored_tensor(part, dtype, 0, shape, count)
