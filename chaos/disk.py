"""Rows about a run folder that can no longer be written, as root can make one."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from chaos.clients import Answers
from chaos.place import Place, Result, Row, is_root

Trouble = Callable[[Path], AbstractContextManager[None]]

_CLIPS: Final = 10
_ASKED: Final = "all served, and after it without a restart"
_FOLDER_BYTES: Final = 1 << 30


def read_only(place: Place) -> Result:
    """The run folder turns read-only under a running service."""
    return _tried(place, "the run folder turns read-only", _made_read_only)


def full(place: Place) -> Result:
    """The disk of the run folder is full, not a byte is left."""
    return _tried(place, "the disk of the run folder is full", _filled)


def _tried(place: Place, row: str, trouble: Trouble) -> Result:
    if not is_root():
        return Result(row, _ASKED, "not tried: only root can mount", None)
    place.restart()
    with _own_disk(place.run_dir):
        place.settle()
        pid = place.service.process.pid
        with trouble(place.run_dir):
            during = Answers([place.ask() for _ in range(_CLIPS)])
        after = Answers([place.ask() for _ in range(_CLIPS)])
        same = place.service.process.pid == pid
        place.restart()
    return Result(
        row,
        _ASKED,
        f"{during.count(200)} of {_CLIPS} served, {after.count(200)} of {_CLIPS} after it"
        + ("" if same else ", by a service that was started anew"),
        during.share_served == 1 and after.share_served == 1 and same,
    )


@contextmanager
def _own_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={_FOLDER_BYTES},mode=0700", "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", "-l", str(folder))


@contextmanager
def _made_read_only(folder: Path) -> Iterator[None]:
    # The file system itself cannot be while logs are open in it: what is looked up anew is.
    _run("mount", "--bind", str(folder), str(folder))
    try:
        _run("mount", "-o", "remount,ro,bind", str(folder))
        yield
    finally:
        _run("umount", "-l", str(folder))


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    try:
        with filler.open("wb") as file:
            block = bytes(1 << 20)
            try:
                while file.write(block):
                    file.flush()
            except OSError:
                pass
        yield
    finally:
        filler.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


DISK: Final[tuple[Row, ...]] = (read_only, full)
