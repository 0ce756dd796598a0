"""The files by which workers that share cores know of each other, as others leave them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

# Linux numbers processes up to 2 ** 22, on any machine.
_NO_PROCESS: Final = 2**22


def idle_worker(folder: Path, name: str = "1", for_s: float = 60.0) -> Path:
    """Another worker's file, as it lies there while that one has had no work for a while.

    It has the number of a process that is always there.
    """
    path = folder / name
    path.touch()
    os.utime(path, (time.time() - for_s,) * 2)
    return path


def gone_worker(folder: Path, number: int = 0) -> Path:
    """What the `number`-th worker that died left behind, a moment ago."""
    path = folder / str(_NO_PROCESS + 1 + number)
    path.touch()
    return path


@contextmanager
def other_worker(folder: Path, name: str = "1") -> Iterator[TextIO]:
    """Another worker's file, with its lock held as that worker would hold it."""
    with idle_worker(folder, name).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def living(count: int) -> list[str]:
    """Different names that are all the number of a process which is always there."""
    return ["0" * zeros + "1" for zeros in range(1, count + 1)]


def numbers(folder: Path) -> set[str]:
    """The names of the files in the workers' folder."""
    return {path.name for path in folder.iterdir()}
