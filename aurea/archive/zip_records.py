"""The one reader of archives from elsewhere: a zip file is taken only if all readers agree on it.

Some readers believe the directory at a zip file's end, others the records in front of each
member. Here the local records must fill the file from its first byte to the directory, one
behind the other, each must repeat what the directory says, and the directory must be followed by
its end records alone. Python's zipfile reads the directory only, so it cannot tell.

Offsets may be of 64 bits (zip64; APPNOTE 4.3.14 to 4.3.16 and 4.5.3), which zipfile writes from
2 GB on: a wav2vec 2.0 with its graphs has 2.25 GB. Members of 4 GB and more are not taken.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

STORED: Final = 0
DEFLATED: Final = 8

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END_64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_OFFSET_64: Final = struct.Struct("<2HQ")
_LOCAL_MARK: Final = b"PK\3\4"
_CENTRAL_MARK: Final = b"PK\1\2"
_END_MARK: Final = b"PK\5\6"
_END_64_MARK: Final = b"PK\6\6"
_LOCATOR_64_MARK: Final = b"PK\6\7"
# What follows the directory of an archive with offsets of 64 bits, before its end record.
_ENDS_64_BYTES: Final = _END_64.size + _LOCATOR_64.size

_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_STREAMED: Final = 1 << 3
_UTF8: Final = 1 << 11
# How hard the packer tried; says nothing to a reader.
_EFFORT: Final = 1 << 1 | 1 << 2
_IN_64_BITS: Final = 0xFFFFFFFF
_COUNT_IN_64_BITS: Final = 0xFFFF
_ZIP64_FIELD: Final = 0x0001
_UNICODE_NAME_FIELD: Final = 0x7075

_MAX_DIRECTORY_BYTES: Final = 1_000_000
_BLOCK_BYTES: Final = 1 << 20
_SEARCHED_BYTES: Final = 1 << 20


class UnsoundZip(Exception):
    """A zip file that readers could take differently, or that is damaged. The message says how."""


@dataclass(frozen=True)
class Entry:
    """A member as directory and local record both describe it."""

    name: str
    mode: int
    """Unix mode, 0 where the packer gave none."""

    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    start: int
    """Where its packed data begins in the file."""

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder and has no content."""
        return self.name.endswith("/")


def offset_field(offset: int) -> bytes:
    """The extra field by which a directory says where a member begins from 2 GB on."""
    return _OFFSET_64.pack(_ZIP64_FIELD, 8, offset)


def read_entries(file: BinaryIO) -> list[Entry]:
    """The members of a zip file, in the order of their data.

    Raises `UnsoundZip` for what is no zip file, and wherever two readers could see different
    members.
    """
    try:
        return _entries(file)
    except (struct.error, UnicodeDecodeError) as error:
        raise UnsoundZip(f"a record in it cannot be read ({error})") from None


def contents(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The content of a member, block by block.

    Raises `UnsoundZip` where it has not the size and the checksum that its records declare.
    """
    file.seek(entry.start)
    crc = size_bytes = 0
    for block in _unpacked(file, entry):
        size_bytes += len(block)
        if size_bytes > entry.size_bytes:
            raise _damaged(
                entry, f"it unpacks to more than the {entry.size_bytes:,} declared bytes"
            )
        crc = zlib.crc32(block, crc)
        yield block
    if size_bytes != entry.size_bytes:
        raise _damaged(
            entry, f"it unpacks to {size_bytes:,} of {entry.size_bytes:,} declared bytes"
        )
    if crc != entry.crc:
        raise _damaged(entry, "its checksum is another")


def _entries(file: BinaryIO) -> list[Entry]:
    count, directory_start, directory_bytes = _end_record(file)
    directory = _read(file, directory_start, directory_bytes)
    named = []
    at = 0
    for _ in range(count):
        record = _CENTRAL.unpack_from(directory, at)
        mark, name_bytes, extra_bytes, comment_bytes = record[0], *record[10:13]
        end = at + _CENTRAL.size + name_bytes + extra_bytes + comment_bytes
        if mark != _CENTRAL_MARK or end > len(directory):
            raise UnsoundZip("its directory is damaged")
        tail = directory[at + _CENTRAL.size : end]
        named.append((*_offset_and_extra(record, tail), record, tail[:name_bytes]))
        at = end
    if at != len(directory):
        raise UnsoundZip(f"its directory holds {len(directory) - at} bytes more than its entries")
    named.sort(key=lambda each: each[0])
    entries = []
    at = 0
    for offset, extra, record, raw_name in named:
        if offset != at:
            shown = raw_name.decode(errors="replace")
            raise (
                _gap(file, at, offset)
                if offset > at
                else UnsoundZip(f"{shown!r} lies inside another")
            )
        entry = _entry(file, at, record, raw_name, extra)
        entries.append(entry)
        at = entry.start + entry.packed_bytes
    if at != directory_start:
        raise _gap(file, at, directory_start)
    return entries


def _end_record(file: BinaryIO) -> tuple[int, int, int]:
    """The number of members, where the directory begins, and its length in bytes."""
    file_bytes = file.seek(0, os.SEEK_END)
    if file_bytes < _END.size:
        raise UnsoundZip("it is too short for a zip file")
    start = file_bytes - _END.size
    tail = _read(file, start, _END.size)
    mark, disk, first_disk, here, count, length, offset, comment_bytes = _END.unpack(tail)
    if mark != _END_MARK or comment_bytes:
        searched = _read(file, max(0, file_bytes - _SEARCHED_BYTES), _SEARCHED_BYTES)
        what = (
            "bytes or a comment follow the record that should end it"
            if _END_MARK in searched
            else "there is no record of a zip file at its end; it is cut off, or something else"
        )
        raise UnsoundZip(what)
    if disk or first_disk or here != count:
        raise UnsoundZip("it is one of several parts")
    offset_64 = _directory_in_64_bits(file, start, count, length, offset)
    if offset_64 is not None:
        offset = offset_64
    elif _IN_64_BITS in (length, offset) or count == _COUNT_IN_64_BITS:
        raise UnsoundZip("its end record asks for 64 bit sizes (zip64) that are not there")
    elif offset + length != start:
        raise _gap(file, offset + length, start)
    if length > _MAX_DIRECTORY_BYTES:
        raise UnsoundZip(f"its directory is longer than {_MAX_DIRECTORY_BYTES:,} bytes")
    return count, offset, length


def _directory_in_64_bits(
    file: BinaryIO, end: int, count: int, length: int, offset: int
) -> int | None:
    """Where the directory begins by the two records of zip64 before the end record at `end`.

    None where there are none that say the same as the end record, in every field that it has.
    """
    start = end - _ENDS_64_BYTES
    if start < 0 or offset + length == end:
        return None
    records = _read(file, start, _ENDS_64_BYTES)
    directory_start = start - length
    if offset not in (directory_start, _IN_64_BITS):
        return None
    mark, size, _, _, *told = _END_64.unpack_from(records)
    locator = _LOCATOR_64.unpack_from(records, _END_64.size)
    # The record's size counts what follows the field that names it.
    sound = (mark, size) == (_END_64_MARK, _END_64.size - 12)
    sound = sound and told == [0, 0, count, count, length, directory_start]
    return directory_start if sound and locator == (_LOCATOR_64_MARK, 0, start, 1) else None


def _offset_and_extra(record: tuple[int, ...], tail: bytes) -> tuple[int, bytes]:
    """Where a member's local record begins, and its extra fields but for one that says so."""
    name_bytes, extra_bytes, offset = record[10], record[11], record[16]
    extra = tail[name_bytes : name_bytes + extra_bytes]
    if offset != _IN_64_BITS or len(extra) < _OFFSET_64.size:
        return offset, extra
    kind, length, offset_64 = _OFFSET_64.unpack_from(extra)
    if (kind, length) != (_ZIP64_FIELD, 8):
        return offset, extra
    return offset_64, extra[_OFFSET_64.size :]


def _entry(
    file: BinaryIO, at: int, record: tuple[int, ...], raw_name: bytes, extra: bytes
) -> Entry:
    """The member whose local record must begin at `at`, where the one before it ends."""
    flags, method = record[3:5]
    crc, packed_bytes, size_bytes = record[7:10]
    comment_bytes, disk, _, attributes = record[12:16]
    shown = raw_name.decode(errors="replace")
    if flags & _ENCRYPTED:
        raise UnsoundZip(f"{shown!r} is encrypted")
    if flags & _STREAMED:
        raise UnsoundZip(
            f"{shown!r} declares its size behind its data only, for it was packed into a stream"
        )
    if flags & ~(_EFFORT | _UTF8) or disk:
        raise UnsoundZip(f"the record of {shown!r} has flags that readers take differently")
    if method not in (STORED, DEFLATED):
        raise UnsoundZip(f"{shown!r} is packed by method {method}; 0 and 8 are taken")
    if _IN_64_BITS in (packed_bytes, size_bytes) or (
        method == STORED and packed_bytes != size_bytes
    ):
        raise UnsoundZip(f"the sizes of {shown!r} are none")
    if comment_bytes:
        raise UnsoundZip(f"{shown!r} carries a comment")
    head = _LOCAL.unpack(_read(file, at, _LOCAL.size))
    names = _read(file, at + _LOCAL.size, head[9] + head[10])
    if head[0] != _LOCAL_MARK:
        raise UnsoundZip(f"{shown!r} is not where the directory says")
    if names[: head[9]] != raw_name:
        other = names[: head[9]].decode(errors="replace")
        raise UnsoundZip(f"{shown!r} calls itself {other!r} where its data is")
    if head[2:4] != (flags, method) or head[6:9] != (crc, packed_bytes, size_bytes):
        raise UnsoundZip(f"directory and local record of {shown!r} contradict each other")
    for fields in (extra, names[head[9] :]):
        _check_extra(fields, shown)
    return Entry(
        name=raw_name.decode("utf-8" if flags & _UTF8 else "ascii"),
        mode=attributes >> 16,
        method=method,
        crc=crc,
        packed_bytes=packed_bytes,
        size_bytes=size_bytes,
        start=at + _LOCAL.size + len(names),
    )


def _check_extra(fields: bytes, shown: str) -> None:
    at = 0
    while at < len(fields):
        kind, length = struct.unpack_from("<HH", fields, at)
        at += 4 + length
        if kind in (_ZIP64_FIELD, _UNICODE_NAME_FIELD) or at > len(fields):
            raise UnsoundZip(f"{shown!r} carries an extra field that gives another name or size")


def _unpacked(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left_bytes = entry.packed_bytes
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    while left_bytes:
        block = file.read(min(left_bytes, _BLOCK_BYTES))
        if not block:
            raise _damaged(entry, "the file ends in the middle of it")
        left_bytes -= len(block)
        if unpacker is None:
            yield block
            continue
        try:
            while True:
                content = unpacker.decompress(block, _BLOCK_BYTES)
                yield content
                block = unpacker.unconsumed_tail
                if unpacker.eof or (not block and len(content) < _BLOCK_BYTES):
                    break
        except zlib.error as error:
            raise _damaged(entry, str(error)) from None
        if unpacker.unused_data or (unpacker.eof and left_bytes):
            # A reader that goes on where the packed data ends would take it for a record.
            raise _damaged(entry, "bytes lie behind its packed data that belong to no member")
    if unpacker is not None and not unpacker.eof:
        raise _damaged(entry, "its packed data has no end")


def _gap(file: BinaryIO, start: int, end: int) -> UnsoundZip:
    """The refusal for bytes that the directory does not name; says what hides in them."""
    if end < start:
        return UnsoundZip("its records overlap")
    hidden = _read(file, start, min(end - start, _SEARCHED_BYTES))
    what = f"{end - start:,} bytes at {start:,} belong to no member that its directory names"
    found = hidden.find(_LOCAL_MARK)
    if found >= 0 and len(hidden) >= found + _LOCAL.size:
        name_bytes = _LOCAL.unpack_from(hidden, found)[9]
        name = hidden[found + _LOCAL.size :][:name_bytes].decode(errors="replace")
        return UnsoundZip(f"it hides {name!r:.100} from its directory: {what}")
    if _END_MARK in hidden or _CENTRAL_MARK in hidden or _END_64_MARK in hidden:
        what += ", and hold a second directory"
    return UnsoundZip(what)


def _read(file: BinaryIO, start: int, size_bytes: int) -> bytes:
    file.seek(start)
    return file.read(size_bytes)


def _damaged(entry: Entry, what: str) -> UnsoundZip:
    return UnsoundZip(f"{entry.name} is damaged: {what}")
