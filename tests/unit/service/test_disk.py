"""A disk that is full or read-only, and a lack of descriptors, are told in a sentence."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aurea.paths import ROOT
from aurea.service import command
from aurea.service.disk import trouble
from aurea.service.preflight import only_one

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device. Free some space"),
        (errno.EDQUOT, "quota exceeded. Free some space"),
        (errno.EROFS, "Read-only file system. Make it writable"),
        (errno.EACCES, "by this user: Permission denied"),
        (errno.EPERM, "by this user: Operation not permitted"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
    ],
)
def test_each_trouble_is_a_sentence_with_what_where_and_what_to_do(number: int, words: str) -> None:
    sentence = trouble(OSError(number, os.strerror(number), "/run/here"), ())
    assert sentence is not None
    assert words in sentence
    assert "/run/here" in sentence or "ulimit" in sentence
    assert "RUN_DIR=" in sentence or "ulimit" in sentence


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EEXIST, errno.EADDRINUSE, errno.EIO])
def test_another_error_is_none_of_these(number: int) -> None:
    assert trouble(OSError(number, os.strerror(number), "/run/here"), ()) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_start_without_a_disk_ends_with_the_sentence_and_status_1(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(_: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "serve.pid"))

    monkeypatch.setattr(command, "serve", failing)
    monkeypatch.setattr(command, "_STOP_SIGNALS", ())
    monkeypatch.setattr(sys, "argv", ["serve", "--run-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert os.strerror(number) in str(ended.value.code)


def test_a_folder_that_turned_read_only_does_not_keep_a_service_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_: Path, __: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with only_one(tmp_path):
        monkeypatch.setattr(Path, "write_text", read_only)
    monkeypatch.undo()
    with only_one(tmp_path):
        pass


@contextmanager
def small_disk(folder: Path, *, full: bool) -> Iterator[Path]:
    """A disk of one megabyte, which is full or read-only."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        if full:
            with (folder / "filler").open("wb") as file, pytest.raises(OSError, match="No space"):
                file.write(bytes(2 << 20))
                file.flush()
        else:
            run("mount", "-o", "remount,ro", str(folder))
        yield folder
    finally:
        run("umount", "-l", str(folder))


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("option", ["--run-dir", "--model-store"])
def test_a_real_start_on_such_a_disk_says_so_and_leaves_nothing(
    option: str, full: bool, tmp_path: Path
) -> None:
    words = "No space left on device" if full else "Read-only file system"
    with small_disk(tmp_path / "disk", full=full) as disk:
        before = sorted(disk.iterdir())
        arguments = {"--run-dir": tmp_path / "run", "--model-store": tmp_path / "store"}
        arguments[option] = disk / "below"
        options = [str(each) for pair in arguments.items() for each in pair]
        ended = subprocess.run(
            [sys.executable, "-m", "scripts.serve", "--port", "0", "--model", "embedded", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        (sentence,) = [line for line in ended.stderr.splitlines() if words in line]
        assert str(disk) in sentence
        left = {path for path in disk.rglob("*") if path.is_file()} - {*before}
        assert all(path.stat().st_size == 0 for path in left)
