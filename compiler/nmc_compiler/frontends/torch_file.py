"""PyTorch checkpoint files, read without PyTorch: the zip layout (since 1.6) and the legacy one.

Zip layout, as `torch.save` writes it: records `data.pkl` (the pickle), `data/<key>` (one storage each),
`byteorder`, `version`. Legacy layout: pickles of a magic number, the protocol version, `sys_info` and the
object, then a pickled list of storage keys, then for each key its element count (int64) and its bytes, always
little-endian. Source: `torch/serialization.py` of PyTorch 2.13, `_load` and `_legacy_load`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from mmap import mmap

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.stored_tensor import ITEM_BYTES
from nmc_compiler.frontends.torch_names import TorchNames
from nmc_compiler.frontends.torch_values import WAY_OUT, describe, short_text
from nmc_compiler.frontends.torch_zip import TorchZip
from nmc_compiler.frontends.unpickle import unpickle

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_VERSIONS = range(1, 11)  # kMinSupportedFileFormatVersion to kMaxSupportedFileFormatVersion


@dataclass(frozen=True)
class StoredFile:
    """The object of a checkpoint file, and where the bytes of its storages are.

    `locate(key)` gives the buffer and the first byte of the record of a storage.
    """

    root: object
    locate: Callable[[str], tuple[bytes | mmap, int]]
    big_endian: bool = False
    unchecked: list[str] = field(default_factory=list)  # records without a checksum; filled by `locate`


def read_zip(file: FileIO, data: mmap) -> StoredFile:
    """Reads the zip layout; refuses, by FrontendError, what `torch.load(weights_only=True)` refuses."""
    archive = TorchZip(file, data)
    _check_kind(archive)
    big_endian = _byte_order(archive) == b"big"
    names = TorchNames(lambda key: archive.size(f"data/{key}"), legacy=False)
    pickle, start = archive.locate("data.pkl")
    root, _ = unpickle(pickle, start, start + archive.size("data.pkl"), names)
    return StoredFile(root, lambda key: archive.locate(f"data/{key}"), big_endian, archive.unchecked)


def _check_kind(archive: TorchZip) -> None:
    if "constants.pkl" in archive.records:
        raise FrontendError(f"it is a TorchScript archive (torch.jit.save), which holds code: {WAY_OUT}")
    if "data.pkl" not in archive.records:
        raise FrontendError("it is a zip archive without data.pkl, so torch.save did not write it (an .npz file?)")
    alignment = _short_content(archive, ".storage_alignment", b"64")
    if not alignment.strip().isdigit():
        raise FrontendError(f"its storage alignment is {alignment!r}, not a number: the file is damaged")
    version = _short_content(archive, ".data/version" if ".data/version" in archive.records else "version")
    if not version.strip().isdigit() or int(version) not in _ZIP_VERSIONS:
        raise FrontendError(f"its format version is {version!r}: versions 1 to {_ZIP_VERSIONS[-1]} are read")


def _byte_order(archive: TorchZip) -> bytes:
    """PyTorch before 2.1 wrote no such record; torch.load takes such files for little-endian."""
    order = _short_content(archive, "byteorder", b"little")
    if order not in (b"little", b"big"):
        raise FrontendError(f"its byte order is {order!r}: 'little' and 'big' are known")
    return order


def _short_content(archive: TorchZip, name: str, default: bytes | None = None) -> bytes:
    if default is not None and name not in archive.records:
        return default
    if archive.size(name) > 16:
        raise FrontendError(f"record {name!r} has {archive.size(name)} bytes: it holds one word")
    return archive.content(name)


def read_legacy(data: mmap) -> StoredFile:
    """Reads the legacy layout; refuses, by FrontendError, what `torch.load(weights_only=True)` refuses."""
    size = len(data)
    names = TorchNames(lambda key: size, legacy=True)
    pos = _read_preamble(data, names)
    root, pos = unpickle(data, pos, size, names)
    keys, pos = unpickle(data, pos, size, names)
    starts = _walk_storages(data, pos, keys, names)
    return StoredFile(root, lambda key: (data, starts[key]))


def _read_preamble(data: mmap, names: TorchNames) -> int:
    magic, pos = unpickle(data, 0, len(data), names)
    if magic != _LEGACY_MAGIC:
        raise FrontendError(f"it is a pickle of {short_text(magic)}, not a checkpoint that torch.save wrote: {WAY_OUT}")
    protocol, pos = unpickle(data, pos, len(data), names)
    if protocol != _LEGACY_PROTOCOL:
        raise FrontendError(f"its protocol version is {short_text(protocol)}, only {_LEGACY_PROTOCOL} exists")
    _, pos = unpickle(data, pos, len(data), names)  # sys_info: the sizes of C types on the writer's machine
    return pos


def _walk_storages(data: mmap, pos: int, keys: object, names: TorchNames) -> dict[str, int]:
    """First byte of each storage; every one that the pickle names must be there with the size it claims."""
    if type(keys) is not list:
        raise FrontendError(f"the list of storages is {describe(keys)}: the file is damaged")
    starts: dict[str, int] = {}
    for key in keys:
        storage = names.storages.get(key) if type(key) is str else None
        if storage is None or key in starts:
            raise FrontendError(f"the list of storages has {short_text(key)} twice or unannounced: the file is damaged")
        starts[key] = pos + 8
        count = int.from_bytes(data[pos : pos + 8], "little", signed=True)
        if starts[key] + storage.nbytes > len(data) or count * ITEM_BYTES[storage.dtype] != storage.nbytes:
            raise FrontendError(
                f"storage {key!r} of {storage.nbytes} bytes, announced with {count} elements, should start "
                f"at byte {starts[key]}; the file has {len(data)} bytes: it is truncated or damaged"
            )
        pos = starts[key] + storage.nbytes
    if len(starts) != len(names.storages):
        absent = next(key for key in names.storages if key not in starts)
        raise FrontendError(f"the list of storages lacks {short_text(absent)}: the file is damaged")
    return starts
