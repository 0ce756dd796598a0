"""The names of an archive's members: what may not be unpacked, whatever is in it."""

import re
import stat
import unicodedata
from collections.abc import Sequence
from typing import Final

from aurea.archive.errors import ArchiveRefused
from aurea.archive.zip_records import Entry

_MAX_NAME_BYTES: Final = 1024
_MAX_COMPONENT_BYTES: Final = 255
# Python runs or reads these by their mere presence, or a server unpacks more from them.
_STARTS_CODE: Final = re.compile(
    r"(.*/)?((site|user)customize\.[^/]*|entry_points\.txt|[^/]*\.(pth|egg-link)"
    r"|__pycache__|[^/]*\.(dist|egg)-info)(/.*)?"
)
# What pip, conda or a build tool installs from.
_INSTALLS: Final = re.compile(
    r"(.*/)?(([^/]*[-_.])?(requirements?|constraints?)([-_.][^/]*)?\.(txt|in|lock)|requirements?|pyproject\.toml"
    r"|setup\.(py|cfg)|pipfile(\.lock)?|(poetry|uv)\.lock|(environment|conda)\.ya?ml)(/.*)?"
)


def check_names(entries: Sequence[Entry]) -> None:
    """Raise `ArchiveRefused` for members that no archive of a model needs, or that could harm.

    Which names may be there besides, and what is in the members, is judged elsewhere.
    """
    spelled: dict[str, str] = {}
    files: set[str] = set()
    for entry in entries:
        _check_path(entry)
        _check_kind(entry)
        name = entry.name.rstrip("/")
        if name in files:
            raise ArchiveRefused(f"The archive holds a file twice: {name!r}.")
        if not entry.is_folder:
            files.add(name)
        parts = name.split("/")
        for length in range(1, len(parts) + 1):
            path = "/".join(parts[:length])
            other = spelled.setdefault(_on_any_disk(path), path)
            if other != path:
                raise ArchiveRefused(
                    f"The archive holds {other!r} and {path!r}, which are one file on a disk that "
                    "tells neither upper from lower case nor the forms of a letter apart."
                )
    for entry in entries:
        parts = entry.name.rstrip("/").split("/")
        for length in range(1, len(parts) + entry.is_folder):
            if (path := "/".join(parts[:length])) in files:
                raise ArchiveRefused(f"In the archive {path!r} is a file and a folder as well.")


def _check_path(entry: Entry) -> None:
    name = entry.name
    parts = (name.removesuffix("/") if entry.is_folder else name).split("/")
    if "\\" in name or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        raise ArchiveRefused(f"The archive writes outside its folder: {name!r:.100}.")
    if any(part in ("", ".") or part.endswith((".", " ")) or ":" in part for part in parts):
        raise ArchiveRefused(
            f"The archive's member {name!r:.100} has no plain name: a part of it is empty or a "
            "dot, ends in a dot or a blank, or holds a colon."
        )
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name):
        raise ArchiveRefused(f"The archive's member {name!r:.100} has letters that do not show.")
    longest_bytes = max(len(part.encode()) for part in parts)
    if len(name.encode()) > _MAX_NAME_BYTES or longest_bytes > _MAX_COMPONENT_BYTES:
        raise ArchiveRefused(
            f"The archive's member {name!r:.100} has too long a name: {_MAX_NAME_BYTES} bytes are "
            f"taken, {_MAX_COMPONENT_BYTES} between two slashes."
        )
    for pattern, reason in (
        (_STARTS_CODE, "by which Python would run or find code"),
        (_INSTALLS, "from which packages would be installed"),
    ):
        if pattern.fullmatch(name.casefold()):
            raise ArchiveRefused(
                f"The archive holds {name!r:.100}, {reason}; no archive needs it. Build it without."
            )


def _check_kind(entry: Entry) -> None:
    kind = stat.S_IFMT(entry.mode)
    if stat.S_ISLNK(entry.mode):
        raise ArchiveRefused(
            f"The archive writes outside its folder: {entry.name!r:.100} is a link."
        )
    if kind not in (0, stat.S_IFDIR if entry.is_folder else stat.S_IFREG):
        raise ArchiveRefused(f"The archive's member {entry.name!r:.100} is no plain file.")
    if entry.is_folder and entry.size_bytes:
        raise ArchiveRefused(f"The archive's folder {entry.name!r:.100} has content.")


def _on_any_disk(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
