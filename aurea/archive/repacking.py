"""Packs an archive anew: what TorchServe reads is written here, and never somebody else's bytes.

The members lie in order of their names and as they are, without times, comments or extra fields,
so that equal members give an equal file, whichever library packs them.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from aurea.archive.errors import ArchiveRefused
from aurea.archive.member_names import check_names
from aurea.archive.zip_records import Entry, UnsoundZip, contents, offset_field, read_entries

_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644
_ATTRIBUTES: Final = _MODE << 16
_MAX_FILES: Final = 500
# A wav2vec 2.0 with its graphs, 1.26 + 0.63 + 0.35 GB.
_MAX_UNPACKED_BYTES: Final = 3_000_000_000
# Of a local record without its name.
_HEAD_BYTES: Final = 30
# Weights pack to nine tenths, text to a tenth; small archives may hold what packs to nothing.
_MAX_RATIO: Final = 100
_FREE_OF_RATIO_BYTES: Final = 16_000_000


def repack(
    source: Path, target: Path, replaced: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Write the members of the archive `source` as a new archive `target`.

    Those that `replaced` names get its bytes instead of their own. Each is read once. Raises
    `ArchiveRefused` for an archive that readers could take differently, that is damaged, too large
    or a zip bomb, or that holds what could do harm by its mere name; `target` is then not whole and
    to be removed. Raises `OSError` where `target` cannot be written.
    """
    try:
        with source.open("rb") as file:
            entries = _checked_entries(file)
            with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as copy:
                for entry in sorted(entries, key=lambda each: each.name):
                    if entry.name in replaced:
                        copy.writestr(_member(entry.name), replaced[entry.name])
                    elif not entry.is_folder:
                        _copy(file, entry, copy)
    except UnsoundZip as error:
        raise ArchiveRefused(
            f"{source} is no sound archive: {error}. Copy it or build it anew: make mar"
        ) from None


def is_repacked(path: Path) -> bool:
    """Whether an archive is, but for damage within members, one that `repack` has written.

    False for what cannot be read.
    """
    try:
        with path.open("rb") as file:
            entries = _checked_entries(file)
    except (OSError, UnsoundZip, ArchiveRefused):
        return False
    with zipfile.ZipFile(path) as content:
        if not all(_is_plain(member) for member in content.infolist()):
            return False
    end = 0
    for entry in entries:
        if entry.start != end + _HEAD_BYTES + len(entry.name.encode()):
            return False
        end = entry.start + entry.packed_bytes
    names = [entry.name for entry in entries]
    return names == sorted(names)


def check_sound(path: Path) -> None:
    """Raise `ArchiveRefused` for an archive that `repack` would not take; unpacks nothing."""
    try:
        with path.open("rb") as file:
            _checked_entries(file)
    except UnsoundZip as error:
        raise ArchiveRefused(f"{path.name} is no sound archive: {error}.") from None


def _checked_entries(file: BinaryIO) -> list[Entry]:
    entries = read_entries(file)
    total_bytes = sum(entry.size_bytes for entry in entries)
    if len(entries) > _MAX_FILES or total_bytes > _MAX_UNPACKED_BYTES:
        raise ArchiveRefused(
            f"The archive would unpack to {len(entries)} files and {total_bytes:,} bytes; at "
            f"most {_MAX_FILES} and {_MAX_UNPACKED_BYTES:,} are taken."
        )
    packed_bytes = sum(entry.packed_bytes for entry in entries)
    if total_bytes > max(_FREE_OF_RATIO_BYTES, _MAX_RATIO * packed_bytes):
        raise ArchiveRefused(
            f"The archive is a zip bomb: its {packed_bytes:,} bytes would unpack to "
            f"{total_bytes:,}, more than {_MAX_RATIO} times as many."
        )
    check_names(entries)
    return entries


def _copy(file: BinaryIO, entry: Entry, target: zipfile.ZipFile) -> None:
    member = _member(entry.name)
    member.file_size = entry.size_bytes
    with target.open(member, "w") as copy:
        for block in contents(file, entry):
            copy.write(block)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system = 3
    member.external_attr = _ATTRIBUTES
    return member


def _is_plain(member: zipfile.ZipInfo) -> bool:
    return (
        member.compress_type == zipfile.ZIP_STORED
        and member.date_time == _DATE
        and member.external_attr == _ATTRIBUTES
        and member.extra == _plain_extra(member.header_offset)
        and not member.is_dir()
    )


def _plain_extra(offset: int) -> bytes:
    """The extra field of a member: none, but for where it begins from 2 GB on (zip64)."""
    if offset <= zipfile.ZIP64_LIMIT:
        return b""
    return offset_field(offset)
