"""Which files are meant: named ones, globs, and all audio in folders."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

AUDIO_SUFFIXES: Final = frozenset(
    f".{name}"
    for name in (
        *("3gp", "aac", "aif", "aiff", "amr", "au", "caf", "flac", "m4a", "m4b", "mka", "mkv"),
        *("mov", "mp2", "mp3", "mp4", "oga", "ogg", "opus", "wav", "weba", "webm", "wma"),
    )
)
"""What is looked for in folders. A file that is named, or that a glob finds, may have any name."""


class NoSuchFile(Exception):
    """Nothing is at a place that was named."""


@dataclass(frozen=True)
class Clip:
    """A file as it is now: where, how long in bytes, and last written when (ns since 1970)."""

    path: str
    size_bytes: int
    modified_ns: int

    @property
    def place(self) -> str:
        """The path from the root on."""
        return place_of(self.path)


def place_of(path: str) -> str:
    """A path from the root on, links in it as they are."""
    return str(Path(path).absolute())


def find_clips(words: Sequence[str], besides: Path | None = None) -> list[Clip]:
    """The files that `words` mean, each once, without `besides`.

    A word is a file, a folder (all audio in it and below, hidden files left out) or a glob, in
    which `**` stands for folders of any depth.

    Raises `NoSuchFile` where a word means nothing at all.
    """
    found: dict[str, Clip] = {}
    for word in words:
        for path in _meant(word):
            clip = _clip(path)
            if besides is None or clip.place != place_of(str(besides)):
                found.setdefault(clip.place, clip)
    return list(found.values())


def _meant(word: str) -> Iterator[str]:
    # A file may be called like a glob, as in `take[1].wav`.
    if word and Path(word).exists():
        yield from _files_at(word)
        return
    found = glob.glob(word, recursive=True)  # noqa: PTH207 (Path takes no absolute glob)
    # `**` also finds the folder before it where there is none.
    matches = sorted(each for each in found if Path(each).exists())
    if not matches:
        raise NoSuchFile(f"There is nothing at {word}")
    for match in matches:
        # `**` finds every folder below too, whose files it finds by themselves.
        if "**" not in word or Path(match).is_file():
            yield from _files_at(match)


def _files_at(path: str) -> Iterator[str]:
    if not Path(path).is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield str(Path(folder) / name)


def _clip(path: str) -> Clip:
    try:
        status = Path(path).stat()
    except OSError:
        # A dangling link, or gone since: sending it tells what is wrong.
        return Clip(path, 0, 0)
    return Clip(path, status.st_size, status.st_mtime_ns)
