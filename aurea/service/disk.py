"""What is wrong with a disk, or with descriptors, as a sentence with what to do about it."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_LITTLE_BYTES: Final = 1 << 20


def trouble(error: OSError, folders: Iterable[Path]) -> str | None:
    """A sentence on what could not be written, where and what helps; None for another error.

    `folders` are those that are written to, looked through where the error itself names none.
    """
    folders = tuple(folders)
    number = error.errno or _trouble_of(folders)
    if number in _NO_DESCRIPTORS:
        return (
            f"No file descriptors are left ({os.strerror(number)}). Allow more before the start: "
            "ulimit -n 4096"
        )
    if number in _FULL:
        where = error.filename or next(filter(_is_full, folders), "the disk")
        return (
            f"{where} cannot be written: {os.strerror(number)}. Free some space there, or name a "
            "folder on another disk: make serve RUN_DIR=/path"
        )
    if number == errno.EROFS:
        where = error.filename or next(filter(_is_read_only, folders), "the disk")
        return (
            f"{where} cannot be written: {os.strerror(number)}. Make it writable, or name a "
            "folder on another disk: make serve RUN_DIR=/path"
        )
    if number in _FORBIDDEN and error.filename:
        return (
            f"{error.filename} cannot be written by this user: {os.strerror(number)}. Change its "
            "owner, or name a folder of your own: make serve RUN_DIR=/path"
        )
    return None


def _trouble_of(folders: Iterable[Path]) -> int:
    """The number of what is wrong with the disks of `folders`, for errors that have none."""
    # `shutil` puts the errors of many files into one.
    for folder in folders:
        if _is_read_only(folder):
            return errno.EROFS
        if _is_full(folder):
            return errno.ENOSPC
    return 0


def _is_full(folder: Path) -> bool:
    disk = _disk_of(folder)
    return disk is not None and (
        disk.f_bavail * disk.f_frsize < _LITTLE_BYTES or (disk.f_files > 0 and not disk.f_favail)
    )


def _is_read_only(folder: Path) -> bool:
    disk = _disk_of(folder)
    return disk is not None and bool(disk.f_flag & os.ST_RDONLY)


def _disk_of(folder: Path) -> os.statvfs_result | None:
    """The disk that a folder is on, or will be on once it is made."""
    for place in (folder, *folder.parents):
        try:
            return os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            break
    return None
