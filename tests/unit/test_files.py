"""Files that are there whole or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aurea.files import sha256_of, whole_file, write_whole
from aurea.paths import ROOT


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    target = tmp_path / "list.csv"
    target.write_text("old")
    with whole_file(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.suffix == ".csv"
        assert part.parent == tmp_path
    assert target.read_text() == "new"
    assert names(tmp_path) == ["list.csv"]


def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "list.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert names(tmp_path) == ["list.csv"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "list.csv"):
        pass
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from aurea.files import whole_file
with whole_file(Path(sys.argv[1])) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "list.csv"
    target.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_two_processes_write_to_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "list.csv"
    with whole_file(target) as mine:
        mine.write_text("mine")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole_file(target) as other:
            assert other != mine
            other.write_text("the other's")
        assert target.read_text() == "the other's"
    assert target.read_text() == "mine"


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_whole(tmp_path / "card.md", "é\r\nline\n")
    assert (tmp_path / "card.md").read_bytes() == "é\r\nline\n".encode()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged for long as soon as they are written."""
    monkeypatch.setattr("aurea.files._SETTLED_NS", -(1 << 62))


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_for_its_digest_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert sha256_of(tmp_path / "a") == digest_of(b"one")
    expected = digest_of(b"one")
    monkeypatch.setattr("hashlib.sha256", None)
    assert sha256_of(tmp_path / "a") == expected


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("times", ["as they come", "set back"])
@pytest.mark.parametrize("way", ["in place", "replaced", "longer"])
def test_a_file_that_was_changed_has_another_digest(tmp_path: Path, way: str, times: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert sha256_of(path) == digest_of(b"one")
    before = path.stat()
    time.sleep(0.02)
    content = b"three" if way == "longer" else b"two"
    if way == "replaced":
        write_whole(path, content.decode())
    else:
        with path.open("rb+") as file:
            file.write(content)
    if times == "set back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_of(path) == digest_of(content)


def test_a_digest_of_a_file_that_was_just_written_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"two") * 20:
        # Faster than the clock of a file's times ticks.
        with path.open("wb") as file:
            file.write(content)
        assert sha256_of(path) == digest_of(content)


@pytest.mark.usefixtures("settled")
def test_digests_are_kept_of_so_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[object, str] = {}
    monkeypatch.setattr("aurea.files._known", kept)
    monkeypatch.setattr("aurea.files._MAX_KNOWN", 3)
    for index in range(5):
        (tmp_path / str(index)).write_bytes(bytes([index]))
        sha256_of(tmp_path / str(index))
    assert list(kept.values()) == [digest_of(bytes([index])) for index in (2, 3, 4)]
