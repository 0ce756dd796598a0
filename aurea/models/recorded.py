"""The XLSR model of the hub, whose hashes nobody has published: recorded at the first fetch.

Its revision pins it, as far as the hub is trusted. What the first fetch brought is written into a
file beside the cache's folders, and whatever is read or fetched later must be that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from accent.layout import (
    HYPERPARAMS_FILE,
    WAV2VEC2_FILE,
    WAV2VEC2_HEAD_FILE,
    WAV2VEC2_LABELS_FILE,
)
from pydantic import BaseModel, Field, ValidationError

from aurea.files import sha256_of, whole_file
from aurea.models.pinned import PinnedFile, Source

XLSR: Final = Source(
    "commonaccent-xlsr",
    "Jzuluaga/accent-id-commonaccent_xlsr-en-english",
    "cc5dc6a56db647149d9e52856d6e55114c1045a8",
)
XLSR_FILES: Final = (
    PinnedFile(WAV2VEC2_FILE, None, None, cap_bytes=1_400_000_000),
    PinnedFile(WAV2VEC2_HEAD_FILE, None, None, cap_bytes=1_000_000),
    PinnedFile(WAV2VEC2_LABELS_FILE, None, None, cap_bytes=100_000),
    PinnedFile(HYPERPARAMS_FILE, None, None, cap_bytes=100_000),
)


class BadHashLock(Exception):
    """A record of hashes that cannot be read. The message says what to do."""


class _Recorded(BaseModel):
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Document(BaseModel):
    repository: str
    revision: str
    files: dict[str, _Recorded]


@dataclass(frozen=True)
class HashLock:
    """The hashes of a model's first fetch, in a JSON file."""

    path: Path
    source: Source

    @classmethod
    def of(cls, source: Source, cache: Path) -> "HashLock":
        """The one of `source` in a cache, beside the model's folder and not in it."""
        return cls(cache.resolve() / f"{source.folder_name}.lock.json", source)

    def pinned(self, files: Sequence[PinnedFile]) -> tuple[PinnedFile, ...]:
        """`files` with the sizes and hashes that are recorded. Raises `BadHashLock`."""
        recorded = self._read().files
        return tuple(
            replace(pinned, **recorded[pinned.name].model_dump())
            if pinned.name in recorded
            else pinned
            for pinned in files
        )

    def record(self, paths: Mapping[str, Path]) -> None:
        """Add the hashes of files by their names; what is recorded already stays."""
        if not paths:
            return
        document = self._read()
        for name, path in paths.items():
            found = _Recorded(size_bytes=path.stat().st_size, sha256=sha256_of(path))
            document.files.setdefault(name, found)
        with whole_file(self.path) as part:
            part.write_text(document.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _read(self) -> _Document:
        empty = _Document(
            repository=self.source.repository, revision=self.source.revision, files={}
        )
        try:
            document = _Document.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return empty
        except (OSError, ValidationError) as error:
            raise BadHashLock(
                f"The record of the first fetch of {self.source.name} cannot be read: {self.path} "
                f"({type(error).__name__}). Restore it, or delete it to trust the next fetch."
            ) from None
        if (document.repository, document.revision) != (empty.repository, empty.revision):
            raise BadHashLock(
                f"{self.path} is of {document.repository} at {document.revision}, not of "
                f"{empty.repository} at {empty.revision}. Delete it to trust the next fetch."
            )
        return document
