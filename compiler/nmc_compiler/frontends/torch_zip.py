"""The records of a PyTorch zip archive, read in place.

`torch.save` writes an ordinary zip without compression; `torch.load` reads deflated records too, and so do
we, up to a bound on the expansion. Layout: PKWARE APPNOTE.TXT 6.3.3, sections 4.3.7 (local header), 4.3.12
(central directory), 4.3.14 to 4.3.16 (end records, with 64-bit fields). A zip parser of our own because every
offset and size is checked against the file before it is used, and because records are mapped, not extracted.
"""

import struct
import zlib
from dataclasses import dataclass
from io import FileIO
from mmap import mmap

from nmc_compiler.errors import FrontendError

EXPANSION_LIMIT = 16
"""Inflated records, and tensors as arrays, may take this many times the size of the file ..."""

EXPANSION_FLOOR = 64 << 20
"""... or this many bytes, whichever is more. Weights are noise: they deflate by a tenth, not by 16."""

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_MASK16, _MASK32 = 0xFFFF, 0xFFFFFFFF
_CHUNK = 1 << 20


def expansion_limit(file_size: int) -> int:
    return max(EXPANSION_FLOOR, EXPANSION_LIMIT * file_size)


@dataclass(frozen=True, slots=True)
class _Record:
    """A central directory entry: sizes in bytes, `header` is where its local header starts."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    header: int
    raw_name: bytes


def _damaged(what: str) -> FrontendError:
    return FrontendError(f"the zip archive is truncated or damaged: {what}. Copy or download the file again")


class TorchZip:
    """Records by their name inside the archive's one folder, e.g. `data.pkl`, `data/0`."""

    def __init__(self, file: FileIO, data: mmap) -> None:
        self.file, self.data = file, data
        self.records = _read_directory(data)
        self.starts = {name: _data_start(data, record) for name, record in self.records.items()}
        self.located: dict[str, tuple[bytes | mmap, int]] = {}
        self.inflated_bytes = 0
        self.unchecked: list[str] = []  # records without a checksum

    def size(self, name: str) -> int:
        """Bytes of a record, uncompressed."""
        if name not in self.records:
            raise FrontendError(
                f"the zip archive has no record {name!r}: it is damaged, or torch.save did not write it"
            )
        return self.records[name].size

    def content(self, name: str) -> bytes:
        """A small record as bytes."""
        data, start = self.locate(name)
        return data[start : start + self.size(name)]

    def locate(self, name: str) -> tuple[bytes | mmap, int]:
        """(buffer, first byte) of a record, its checksum compared: the mapping itself, or inflated bytes."""
        self.size(name)
        if name not in self.located:
            self.located[name] = self._open(self.records[name], self.starts[name])
        return self.located[name]

    def _open(self, record: _Record, start: int) -> tuple[bytes | mmap, int]:
        if record.method == _DEFLATED:
            return self._inflate(record, start), 0
        self._check_crc(record, self._crc_of_file(start, record.size))
        return self.data, start

    def _inflate(self, record: _Record, start: int) -> bytes:
        self.inflated_bytes += record.size
        limit = expansion_limit(len(self.data))
        if self.inflated_bytes > limit:
            raise FrontendError(
                f"the compressed records of the zip archive unpack to {self.inflated_bytes} bytes or more, "
                f"the limit for this file is {limit}: save it again with torch.save, which does not compress"
            )
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacker.decompress(self.data[start : start + record.packed], record.size + 1)
        except zlib.error as error:
            raise _damaged(f"record {record.name!r}: {error}") from None
        if len(content) != record.size:
            raise _damaged(f"record {record.name!r} unpacks to other than its {record.size} bytes")
        self._check_crc(record, zlib.crc32(content))
        return content

    def _crc_of_file(self, start: int, size: int) -> int:
        """Read, not mapped, so that checking a large file does not pull it into the process."""
        self.file.seek(start)
        crc = 0
        while size > 0 and (chunk := self.file.read(min(size, _CHUNK))):
            crc = zlib.crc32(chunk, crc)
            size -= len(chunk)
        return crc

    def _check_crc(self, record: _Record, crc: int) -> None:
        if record.crc == 0 and record.size > 0:  # torch.serialization.set_crc32_options(False) writes 0
            self.unchecked.append(record.name)
        elif record.crc != crc:
            raise _damaged(f"record {record.name!r} has the checksum {crc:08x}, {record.crc:08x} was written")


def _data_start(data: mmap, record: _Record) -> int:
    raw = data[record.header : record.header + _LOCAL.size]
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        raise _damaged(f"record {record.name!r} has no header at byte {record.header}")
    *_, name_bytes, extra_bytes = _LOCAL.unpack(raw)
    names = record.header + _LOCAL.size
    start = names + name_bytes + extra_bytes
    if data[names : names + name_bytes] != record.raw_name or start + record.packed > len(data):
        raise _damaged(f"record {record.name!r} of {record.packed} bytes is not whole at byte {start}")
    return start


def _read_directory(data: mmap) -> dict[str, _Record]:
    """Records by name without the archive's folder."""
    count, pos, end = _find_directory(data)
    entries: list[_Record] = []
    while pos < end:
        entry, pos = _read_entry(data, pos, end)
        entries.append(entry)
    if len(entries) != count or not entries:
        raise _damaged(f"{len(entries)} records found, {count} announced")
    _check_overlap(entries)
    return _by_name(entries)


def _find_directory(data: mmap) -> tuple[int, int, int]:
    """(records, first byte, end byte) of the central directory."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - _MASK16))
    if at < 0 or at + _END.size > len(data):
        raise _damaged("its directory, which stands at the end, is missing")
    _, _, _, _, count, size, start, comment = _END.unpack(data[at : at + _END.size])
    if at + _END.size + comment > len(data):
        raise _damaged("its end record is cut off")
    if count == _MASK16 or _MASK32 in (size, start):
        at, count, size, start = _find_directory64(data, at)
    if start + size > at or count * _CENTRAL.size > size:
        raise _damaged(f"a directory of {count} records and {size} bytes at byte {start} does not fit")
    return count, start, start + size


def _find_directory64(data: mmap, end_record: int) -> tuple[int, int, int, int]:
    at = end_record - _END64_LOCATOR.size
    if at < 0 or data[at : at + 4] != b"PK\x06\x07":
        raise _damaged("its 64-bit end record is missing")
    _, _, at, _ = _END64_LOCATOR.unpack(data[at : at + _END64_LOCATOR.size])
    raw = data[at : at + _END64.size] if at <= end_record else b""
    if len(raw) < _END64.size or raw[:4] != b"PK\x06\x06":
        raise _damaged("its 64-bit end record is missing")
    *_, count, size, start = _END64.unpack(raw)
    return at, count, size, start


def _read_entry(data: mmap, pos: int, end: int) -> tuple[_Record, int]:
    raw = data[pos : min(pos + _CENTRAL.size, end)]
    if len(raw) < _CENTRAL.size or raw[:4] != b"PK\x01\x02":
        raise _damaged(f"no directory entry at byte {pos}")
    fields = _CENTRAL.unpack(raw)
    flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
    name_bytes, extra_bytes, comment_bytes, header = *fields[10:13], fields[16]
    pos += _CENTRAL.size
    after = pos + name_bytes + extra_bytes + comment_bytes
    if after > end:
        raise _damaged(f"the directory entry before byte {after} is cut off")
    raw_name = data[pos : pos + name_bytes]
    name = raw_name.decode("utf-8", "surrogateescape")
    extra = data[pos + name_bytes : pos + name_bytes + extra_bytes]
    size, packed, header = _wide(name, extra, (size, packed, header))
    return _checked(_Record(name, method, crc, packed, size, header, raw_name), flags), after


def _wide(name: str, extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, ...]:
    """Sizes and offset, with those that are all ones replaced by their 64-bit values (extra field 1)."""
    if _MASK32 not in narrow:
        return narrow
    wide = _extra_field(extra, 1)
    if len(wide) < 8 * narrow.count(_MASK32):
        raise _damaged(f"record {name!r} has no 64-bit sizes")
    values = (value for (value,) in struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8]))
    return tuple(next(values) if value == _MASK32 else value for value in narrow)


def _extra_field(extra: bytes, wanted: int) -> bytes:
    while len(extra) >= 4:
        tag, length = struct.unpack("<2H", extra[:4])
        if tag == wanted:
            return extra[4 : 4 + length]
        extra = extra[4 + length :]
    return b""


def _checked(record: _Record, flags: int) -> _Record:
    if flags & _ENCRYPTED:
        raise FrontendError(f"record {record.name!r} of the zip archive is encrypted: unpack it and save it again")
    if record.method not in (_STORED, _DEFLATED):
        raise FrontendError(f"record {record.name!r} is compressed by method {record.method}: save with torch.save")
    if record.method == _STORED and record.packed != record.size:
        raise _damaged(f"record {record.name!r} is stored in {record.packed} bytes and claims {record.size}")
    return record


def _check_overlap(entries: list[_Record]) -> None:
    """Records that share bytes are how a small archive claims to be a large one."""
    ordered = sorted(entries, key=lambda entry: entry.header)
    for entry, following in zip(ordered, ordered[1:], strict=False):
        if entry.header + _LOCAL.size + len(entry.raw_name) + entry.packed > following.header:
            raise FrontendError(f"records {entry.name!r} and {following.name!r} of the zip archive overlap")


def _by_name(entries: list[_Record]) -> dict[str, _Record]:
    """PyTorch puts all records in one folder, named after the file, and takes its name from the first."""
    folder = entries[0].name.partition("/")[0] + "/"
    records: dict[str, _Record] = {}
    for entry in entries:
        if not entry.name.startswith(folder):
            continue
        name = entry.name.removeprefix(folder)
        if name in records:
            raise FrontendError(f"the zip archive has two records {entry.name!r}")
        records[name] = entry
    return records
