"""Zip files that readers take differently: each is refused, and the reason is told."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from aurea.archive.zip_records import UnsoundZip, contents, read_entries
from tests.unit.archive.archives import Record, read_in_sequence, records_of, zip_of

FILES = {"one.txt": b"first " * 50, "two/three.bin": bytes(range(256)) * 9, "empty": b""}
EVIL = Record(b"one.txt", b"evil", hidden=True)


def read(content: bytes) -> dict[str, bytes]:
    file = io.BytesIO(content)
    return {entry.name: b"".join(contents(file, entry)) for entry in read_entries(file)}


def zip_with(**fields: Any) -> bytes:
    """A zip file whose second member differs in some field of `Record`."""
    first, second, *others = records_of(FILES)
    for name, value in fields.items():
        setattr(second, name, value)
    return zip_of([first, second, *others])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_pythons_zipfile_writes_is_read(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as content:
        for name, data in {**FILES, "größe/名.txt": b"text"}.items():
            content.writestr(name, data)
        content.writestr("folder/", b"")
    assert read(file.getvalue()) == {**FILES, "größe/名.txt": b"text", "folder/": b""}
    assert read(zip_of([])) == {}


def test_long_members_are_read_in_blocks() -> None:
    data = bytes(range(256)) * 20_000 + bytes(3_000_000)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = zip_of([Record(b"long", data, method)])
        file = io.BytesIO(content)
        (entry,) = read_entries(file)
        blocks = list(contents(file, entry))
        assert b"".join(blocks) == data
        assert max(map(len, blocks)) <= 1 << 20


def test_members_may_stand_in_any_order_in_the_directory() -> None:
    records = records_of(FILES)
    body, offsets = b"", []
    for record in records:
        offsets.append(len(body))
        body += record.local_record() + record.packed()
    directory = b"".join(
        record.central_record(offset)
        for record, offset in reversed(list(zip(records, offsets, strict=True)))
    )
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 3, 3, len(directory), len(body), 0)
    assert read(body + directory + end) == FILES


def large_zip(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What zipfile writes of members beyond 2 GB, where that begins at a hundred bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        for index in range(6):
            content.writestr(f"{index}.txt", bytes([index]) * 30)
    return file.getvalue()


def test_offsets_of_64_bits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = large_zip(monkeypatch)
    assert b"PK\6\6" in content and b"PK\6\7" in content
    assert read(content) == {f"{index}.txt": bytes([index]) * 30 for index in range(6)}


def test_offsets_of_64_bits_that_contradict_anything_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every byte of the records that zip64 adds says what something else says, too."""
    content = large_zip(monkeypatch)
    files = read(content)
    start = content.index(b"PK\6\6")
    versions = range(start + 12, start + 16)
    central = content.index(b"PK\1\2")
    fields = [
        at for at in range(central, start - 12) if content[at : at + 4] == struct.pack("<2H", 1, 8)
    ]
    assert len(fields) == 3
    added = [*range(start, start + 76), *(at + more for at in fields for more in range(12))]
    for place in added:
        other = bytearray(content)
        other[place] ^= 1
        if place in versions:
            assert read(bytes(other)) == files
        else:
            with pytest.raises(UnsoundZip):
                read(bytes(other))


HIDDEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "behind the last": (lambda: zip_of([*records_of(FILES), EVIL]), "hides 'one.txt'"),
    "in front of the first": (lambda: zip_of([EVIL, *records_of(FILES)]), "hides 'one.txt'"),
    "between two": (
        lambda: zip_of([*records_of(FILES)[:1], EVIL, *records_of(FILES)[1:]]),
        "hides 'one.txt'",
    ),
    "behind packed data": (
        lambda: zip_with(after=EVIL.local_record() + EVIL.packed()),
        "bytes lie behind its packed data",
    ),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_member_that_the_directory_hides_is_found(place: str) -> None:
    build, reason = HIDDEN[place]
    content = build()
    with zipfile.ZipFile(io.BytesIO(content)) as seen:
        assert seen.read("one.txt") == FILES["one.txt"]
    if place != "behind packed data":
        assert read_in_sequence(content)["one.txt"] in (b"evil", FILES["one.txt"])
    with pytest.raises(UnsoundZip, match=reason):
        read(content)


UNSOUND: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "too short"),
    "a text": (lambda: b"Dear server, this is no archive.", "no record of a zip file"),
    "bytes in front": (lambda: b"#!/bin/sh\n" + zip_of(records_of(FILES)), "bytes at|overlap"),
    "bytes in front that are counted": (
        lambda: zip_with(before=b"#!/bin/sh\n"),
        "10 bytes at .* belong to no member",
    ),
    "bytes in front of the directory": (
        lambda: zip_of(records_of(FILES), before_directory=b"more"),
        "4 bytes at .* belong to no member",
    ),
    "bytes at the end": (lambda: zip_of(records_of(FILES), after=b"more"), "follow the record"),
    "a comment": (lambda: zip_of(records_of(FILES), comment=b"more"), "follow the record"),
    "a second zip file behind it": (
        lambda: zip_of(records_of(FILES)) + zip_of(records_of({"other": b"x"})),
        "bytes at .* belong|overlap",
    ),
    "a second directory": (
        lambda: zip_of(records_of(FILES), before_directory=zip_of([])),
        "second directory",
    ),
    "an end record in a comment": (
        lambda: zip_of(records_of(FILES), comment=zip_of([])),
        "belong to no member|overlap",
    ),
    "several parts": (lambda: zip_of(records_of(FILES), end={"disk": 1}), "several parts"),
    "64 bit sizes": (lambda: zip_of(records_of(FILES), end={"offset": 0xFFFFFFFF}), "zip64"),
    "a count too small": (lambda: zip_of(records_of(FILES), end={"count": 2}), "bytes more than"),
    "a count too large": (lambda: zip_of(records_of(FILES), end={"count": 4}), "cannot be read"),
    "a directory that is too long": (
        lambda: zip_of([Record(b"x" * 60_000, b"") for _ in range(17)]),
        "directory is longer",
    ),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_what_is_not_one_zip_file_is_refused(what: str) -> None:
    build, reason = UNSOUND[what]
    with pytest.raises(UnsoundZip, match=reason):
        read(build())


UNICODE_NAME = struct.pack("<HHBI", 0x7075, 9, 1, 0) + b"evil"
ZIP64_SIZES = struct.pack("<HHQQ", 1, 16, 4, 4)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"local": {"name": b"two/evil_.bin"}}, "calls itself 'two/evil_.bin'"),
        ({"local": {"crc": 1}}, "contradict"),
        ({"local": {"size": 1}}, "contradict"),
        ({"local": {"packed": 1}}, "contradict"),
        ({"local": {"method": 0}}, "contradict"),
        ({"local": {"flags": 1 << 11}}, "contradict"),
        ({"central": {"flags": 1}}, "encrypted"),
        ({"central": {"flags": 1 << 3}}, "stream"),
        ({"central": {"flags": 1 << 5}}, "flags"),
        ({"central": {"offset": 0}}, "lies inside another"),
        ({"central": {"offset": 1}}, "bytes at|lies inside|overlap"),
        ({"central": {"comment": b"x"}}, "comment"),
        ({"central": {"extra": UNICODE_NAME}}, "another name or size"),
        ({"local": {"extra": ZIP64_SIZES}}, "another name or size"),
        ({"local": {"extra": b"\x99\x99\x05\x00"}}, "another name or size"),
        ({"local": {"extra": b"\x99"}}, "cannot be read"),
        ({"name": b"\xff\xfe"}, "cannot be read"),
        ({"local": {"method": 12}, "central": {"method": 12}}, "method 12"),
        ({"local": {"method": 99}, "central": {"method": 99}}, "method 99"),
        ({"local": {"size": 5}, "central": {"size": 5}}, "more than the 5 declared"),
        ({"local": {"size": 9999}, "central": {"size": 9999}}, "2,304 of 9,999 declared"),
        ({"local": {"crc": 5}, "central": {"crc": 5}}, "checksum"),
        ({"method": 0, "local": {"size": 5}, "central": {"size": 5}}, "sizes .* are none"),
        ({"after": b"!"}, "bytes lie behind its packed data"),
    ],
)
def test_records_that_contradict_each_other_or_their_data_are_refused(
    fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsoundZip, match=reason):
        read(zip_with(**fields))


def test_a_file_that_is_cut_off_anywhere_is_refused() -> None:
    content = zip_of(records_of(FILES))
    for length in range(len(content)):
        with pytest.raises(UnsoundZip):
            read(content[:length])


def test_packed_data_without_an_end_is_refused() -> None:
    class Endless(Record):
        def packed(self) -> bytes:
            return super().packed()[:-1]

    with pytest.raises(UnsoundZip, match=r"one is damaged"):
        read(zip_of([Endless(b"one", b"text" * 100)]))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.mar"
    path.write_bytes(zip_of(records_of(FILES)))
    with path.open("rb", buffering=0) as raw:
        file = cast(BinaryIO, raw)
        entries = read_entries(file)
        path.write_bytes(b"")
        with pytest.raises(UnsoundZip, match="ends in the middle"):
            list(contents(file, entries[0]))
