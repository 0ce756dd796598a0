"""The folder in which processes count, each in files of its own that outlive it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

_MEMORY: Final = Path("/dev/shm")  # noqa: S108
_PREFIX: Final = "aurea-proxy-"
_LOCK: Final = "lock"


def usual_place() -> Path:
    """Memory where there is such a folder: a full disk must not keep counts from being written."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def counts_folder(place: Path) -> Iterator[Path]:
    """Yields an empty folder in `place`. Removes it, and those of processes that were killed.

    Raises `OSError`.
    """
    _remove_stale(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        # A lock of another kind would outlive a process that is killed.
        with FileLock(folder / _LOCK, fallback_to_soft=False):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            # One that has no lock yet is of a process that begins.
            if not (folder / _LOCK).exists():
                continue
            with FileLock(folder / _LOCK, timeout=0, fallback_to_soft=False):
                shutil.rmtree(folder, ignore_errors=True)
