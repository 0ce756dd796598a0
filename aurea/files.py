"""Files that are there whole or not at all, whenever their writer is killed; their digest."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_BLOCK_BYTES: Final = 1 << 20
_SETTLED_NS: Final = 1_000_000_000
_MAX_KNOWN: Final = 100


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once the block has ended well.

    It is this process's own, and ends like `path`, for some writers go by that. What a block
    that failed has written is removed.
    """
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8, its line ends as they are."""
    with whole_file(path) as part:
        part.write_bytes(text.encode())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex.

    A file that this process has read before, and that nobody has touched since, is not read
    again: a start asks several times for that of an archive, which may have 1.3 GB.
    """
    with path.open("rb") as file:
        before = _identity(file.fileno())
        if (known := _known.get(before)) is not None:
            return known
        # A change within the same tick of the clock as the one before leaves the times as they are.
        is_settled = time.time_ns() - before.changed_ns > _SETTLED_NS
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
        if is_settled and before == _identity(file.fileno()):
            while len(_known) >= _MAX_KNOWN:
                _known.pop(next(iter(_known)), None)
            _known[before] = digest.hexdigest()
    return digest.hexdigest()


class _Identity(NamedTuple):
    """What changes with a file's content: whoever writes to it can set all of it but the last."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


_known: Final[dict[_Identity, str]] = {}


def _identity(descriptor: int) -> _Identity:
    found = os.fstat(descriptor)
    return _Identity(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )
