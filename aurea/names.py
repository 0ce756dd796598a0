"""Names and versions of models: what they may be made of, and how versions are ordered."""

import re
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

_PARTS: Final = re.compile(r"\d+|[^\d.]+")


class BadName(ValueError):
    """A name or a version that cannot be served. The message says what is allowed."""


def check_name(name: str) -> str:
    """`name` as it is; raises `BadName` unless it is fit for an address, a label and a file."""
    if not NAME.fullmatch(name):
        raise BadName(
            f"{name!r:.80} is no name for a model: 1 to 128 letters, digits, '.', '_' and '-' "
            "are taken, the first a letter or a digit."
        )
    return name


def check_version(version: str) -> str:
    """`version` as it is; raises `BadName` unless it is fit for an address, a label and a file."""
    if not VERSION.fullmatch(version):
        raise BadName(
            f"{version!r:.80} is no version: 1 to 32 letters, digits, '.', '_' and '-' are taken, "
            "the first a letter or a digit."
        )
    return version


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort versions by: their numbers count as numbers, so that 2.0 precedes 10.0."""
    return tuple(
        (1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(version)
    )
