"""What gets on is written here: equal members give an equal file, and nothing else is in it."""

import errno
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from aurea.archive import repacking, zip_records
from aurea.archive.errors import ArchiveRefused
from aurea.archive.repacking import check_sound, is_repacked, repack
from aurea.archive.zip_records import Entry
from tests.unit.archive.archives import (
    Record,
    members_of,
    read_in_sequence,
    records_of,
    sound_files,
    zip_of,
)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "small.mar", zip_of(records_of(sound_files())))


def test_every_reader_sees_the_same_members_in_the_copy(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mar"
    repack(source, copy)
    assert members_of(copy) == read_in_sequence(copy.read_bytes()) == sound_files()
    assert is_repacked(copy)
    assert not is_repacked(source)


def test_a_copy_beyond_2_gb_is_one_that_readers_agree_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From there on zipfile writes offsets of 64 bits; here from the first member on."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 200)
    files = {name: data[:190] for name, data in sound_files().items()}
    copy = tmp_path / "copy.mar"
    repack(written(source, zip_of(records_of(files))), copy)
    assert b"PK\6\6" in copy.read_bytes()
    assert members_of(copy) == read_in_sequence(copy.read_bytes()) == files
    assert is_repacked(copy)
    again = tmp_path / "again.mar"
    repack(copy, again)
    assert again.read_bytes() == copy.read_bytes()


def test_the_copy_holds_nothing_but_names_and_contents(tmp_path: Path) -> None:
    clock = b"UT\x05\x00\x03" + bytes(4)
    record = Record(
        b"b", b"data", local={"extra": clock}, central={"extra": clock, "mode": 0o100777}
    )
    folder = Record(b"a/", b"", central={"mode": 0o040755})
    copy = tmp_path / "copy.mar"
    repack(written(tmp_path / "a.mar", zip_of([record, folder, Record(b"a/c", b"x")])), copy)
    with zipfile.ZipFile(copy) as content:
        members = content.infolist()
    assert [member.filename for member in members] == ["a/c", "b"]
    for member in members:
        assert (member.extra, member.comment, member.compress_type) == (
            b"",
            b"",
            zipfile.ZIP_STORED,
        )
        assert member.external_attr >> 16 == 0o100644
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert member.flag_bits == 0


def test_the_copy_is_the_same_whatever_the_order_and_the_packing(tmp_path: Path) -> None:
    files = sound_files()
    contents = set()
    for number, method in enumerate([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as content:
            for name in sorted(files, reverse=bool(number)):
                content.writestr(name, files[name])
        copy = tmp_path / f"{number}.mar"
        repack(written(tmp_path / "draft", file.getvalue()), copy)
        again = tmp_path / f"again-{number}.mar"
        repack(copy, again)
        contents |= {copy.read_bytes(), again.read_bytes()}
    assert len(contents) == 1


def test_a_member_that_the_directory_hides_never_gets_on(tmp_path: Path) -> None:
    hidden = Record(b"accent_handler.py", b"print('hidden')", hidden=True)
    source = written(tmp_path / "small.mar", zip_of([*records_of(sound_files()), hidden]))
    assert read_in_sequence(source.read_bytes())["accent_handler.py"] == b"print('hidden')"
    assert members_of(source) == sound_files()
    with pytest.raises(ArchiveRefused, match=r"small\.mar is no sound archive: it hides 'accent_h"):
        repack(source, tmp_path / "copy.mar")
    with pytest.raises(ArchiveRefused, match="hides"):
        check_sound(source)
    assert not is_repacked(source)


@pytest.mark.parametrize(
    ("limit", "value"), [("_MAX_FILES", 1), ("_MAX_UNPACKED_BYTES", 100), ("_MAX_RATIO", 1)]
)
def test_bounds_are_told(
    source: Path, tmp_path: Path, limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repacking, limit, value)
    monkeypatch.setattr(repacking, "_FREE_OF_RATIO_BYTES", 1)
    with pytest.raises(ArchiveRefused, match="would unpack to"):
        repack(source, tmp_path / "copy.mar")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = written(tmp_path / "bomb.mar", zip_of([Record(b"zeros", bytes(17_000_000))]))
    with pytest.raises(ArchiveRefused, match="zip bomb"):
        repack(bomb, tmp_path / "copy.mar")
    assert not (tmp_path / "copy.mar").exists()


def test_a_zip_bomb_that_declares_little_ends_at_what_it_declares(tmp_path: Path) -> None:
    little = {"size": 1000, "crc": 0}
    bomb = Record(b"zeros", bytes(5_000_000), local=little, central=little)
    source = written(tmp_path / "bomb.mar", zip_of([bomb]))
    with pytest.raises(ArchiveRefused, match="more than the 1,000 declared"):
        repack(source, tmp_path / "copy.mar")
    assert (tmp_path / "copy.mar").stat().st_size < 2_000


def test_members_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "a.mar", zip_of([Record(b"long", bytes(2_500_000))]))
    largest = 0
    blocks = zip_records.contents

    def watched(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
        nonlocal largest
        for block in blocks(file, entry):
            largest = max(largest, len(block))
            yield block

    monkeypatch.setattr(repacking, "contents", watched)
    repack(source, tmp_path / "copy.mar")
    assert 0 < largest <= 1 << 20


def test_a_file_that_is_there_is_never_written_over(source: Path, tmp_path: Path) -> None:
    target = written(tmp_path / "copy.mar", b"precious")
    with pytest.raises(OSError, match=os.strerror(errno.EEXIST)):
        repack(source, target)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "change",
    [
        {"method": zipfile.ZIP_DEFLATED},
        {"central": {"mode": 0o100755}},
        {"local": {"extra": b"\x99\x99\x00\x00"}},
        {"central": {"extra": b"\x99\x99\x00\x00"}},
    ],
)
def test_an_archive_that_is_not_as_ours_are_is_not_taken_for_one(
    change: dict[str, Any], tmp_path: Path
) -> None:
    plain: dict[str, Any] = {"method": zipfile.ZIP_STORED}
    ours = written(tmp_path / "a.mar", zip_of([Record(b"a", b"text", **plain)]))
    assert is_repacked(ours)
    other = Record(b"a", b"text", **(plain | change))
    assert not is_repacked(written(ours, zip_of([other])))
    unsorted = [Record(b"b", b"text", **plain), Record(b"a", b"text", **plain)]
    assert not is_repacked(written(ours, zip_of(unsorted)))
    assert not is_repacked(tmp_path / "none.mar")
