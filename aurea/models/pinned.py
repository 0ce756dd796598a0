"""The files of the pretrained models as they must be, byte for byte."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aurea.files import sha256_of

REPOSITORY: Final = "Jzuluaga/accent-id-commonaccent_ecapa"
REVISION: Final = "14bebf44b7e7a34204d0acc2c897935945fb5c51"


@dataclass(frozen=True)
class Source:
    """Where on a hub a pretrained model is, and what it is called here."""

    name: str
    repository: str
    revision: str

    @property
    def folder_name(self) -> str:
        """Of its folder in the cache."""
        return f"{self.name}-{self.revision[:12]}"


COMMONACCENT: Final = Source("commonaccent", REPOSITORY, REVISION)


@dataclass(frozen=True)
class PinnedFile:
    """A file of a pretrained model.

    `size_bytes` is None where only the hash is known; `cap_bytes` then bounds what is
    written before the hash can tell. `sha256` is None where nobody has published it and the file
    was not fetched here yet: the revision alone pins it.
    """

    name: str
    size_bytes: int | None
    sha256: str | None
    cap_bytes: int = 100_000_000

    @property
    def max_bytes(self) -> int:
        """The most bytes of it that are ever written to disk."""
        return self.cap_bytes if self.size_bytes is None else self.size_bytes

    @property
    def expected(self) -> str:
        """Its size and hash, for people."""
        bound = "at most " if self.size_bytes is None else ""
        digest = self.sha256 or "not known before the first fetch"
        return f"{bound}{self.max_bytes:,} bytes, sha256 {digest}"

    def is_at(self, path: Path) -> bool:
        """Whether `path` holds these bytes; a file that cannot be read is as wrong as others."""
        try:
            if self.sha256 is None:
                size_bytes = path.stat().st_size
                return path.is_file() and self.size_bytes in (None, size_bytes)
            return path.is_file() and sha256_of(path) == self.sha256
        except OSError:
            return False


COMMONACCENT_FILES: Final = (
    PinnedFile(
        "embedding_model.ckpt",
        None,
        "7ffa5ac9c0ec21fd6677fa8a39b3b045f182236f5c312a8edca385dfa79e7e3c",
    ),
    PinnedFile(
        "classifier.ckpt",
        13_172,
        "146a2c6cb236e387b24972797ed9aebb3b54b09b33a072bee87eb3576bd88c01",
    ),
    PinnedFile(
        "accent_encoder.txt",
        297,
        "a74ac219335687eba66ba1a389a6e48cd83897c7efd4692f5fd36c3e04f4ef6c",
    ),
    PinnedFile(
        "hyperparams.yaml",
        1_816,
        "bc8c4171c8b9427dfbe8ab34b25f67289fdcdee94d16510833cc4869d5c4607d",
    ),
)


def description(path: Path) -> str:
    """Size and hash of what is at `path`, for people."""
    try:
        if not path.exists():
            return "nothing"
        return f"{path.stat().st_size:,} bytes, sha256 {sha256_of(path)}"
    except OSError as error:
        return one_line(error)


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def say(line: str) -> None:
    """A line for the terminal or the log, at once."""
    print(line, file=sys.stderr, flush=True)
