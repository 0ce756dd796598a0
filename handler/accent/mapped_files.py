"""Memory of files that are mapped into this process, given back where it is no longer needed."""

import ctypes
import mmap
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_READ_ONLY: Final = "r--"


def forget_pages(path: Path) -> None:
    """Take a file's pages out of this process where it is mapped read-only.

    They are the file's: what is read again comes from it again. Nothing happens where the system
    does not say what is mapped, which is everywhere but on Linux.
    """
    if not _MAPS.is_file():
        return
    name = str(path.resolve())
    advise = ctypes.CDLL(None).madvise
    for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        # Address, permissions, offset, device, inode, and a path that may hold spaces.
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == name and fields[1].startswith(_READ_ONLY):
            start, end = (int(number, 16) for number in fields[0].split("-"))
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
