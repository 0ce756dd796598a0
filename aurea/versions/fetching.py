"""Fetches the archives that `versions.yaml` declares to where they are served from.

`python -m aurea.versions.fetching FILE` does so before a service starts. An archive's `source` is
an http(s) address, of an object store or of the model hub, or the path of a file, on a shared
volume for instance. What does not have the declared digest is removed before anything reads it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from pydantic_settings import CliPositionalArg

from aurea.command_line import CommandLine, read
from aurea.files import sha256_of, whole_file
from aurea.versions.declared import (
    DeclarationFaulty,
    DeclaredVersion,
    checked_copy,
    read_declaration,
    write_checked,
)

_MAX_BYTES: Final = 2_000_000_000
_TIMEOUT_S: Final = 60.0


class Fetching(CommandLine):
    """Fetch the archives of a versions.yaml, each checked against its digest."""

    file: CliPositionalArg[Path]
    """The file, such as versions.yaml."""


def have_archive(declared: DeclaredVersion, folder: Path) -> bool:
    """Have a declared archive lie where it is declared; paths count from `folder`.

    Returns whether it was fetched now. Raises `DeclarationFaulty` where it cannot be had.
    """
    target = folder / declared.archive
    if target.is_file() and sha256_of(target) == declared.sha256:
        return False
    if not declared.source:
        raise DeclarationFaulty(
            f"{target} is not the archive that is declared: its sha256 is another."
            if target.exists()
            else f"{target} is not there, and no source of it is declared."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            if declared.source.startswith(("http://", "https://")):
                _download(declared.source, part, declared.sha256)
            else:
                checked_copy(folder / declared.source, part, declared.sha256)
    except OSError as error:
        raise DeclarationFaulty(f"{target} cannot be written: {error.strerror or error}.") from None
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch all that is declared; ends with status 1 where the default cannot be had."""
    file = read(Fetching, arguments).file.absolute()
    failed = set()
    try:
        declaration = read_declaration(file)
        for version, declared in declaration.versions.items():
            try:
                fetched = have_archive(declared, file.parent)
            except DeclarationFaulty as error:
                failed.add(version)
                print(f"{declaration.model}/{version}: {error}", file=sys.stderr, flush=True)
            else:
                there = "fetched" if fetched else "there already"
                print(f"{declaration.model}/{version}: {there}, its sha256 as declared", flush=True)
    except DeclarationFaulty as error:
        sys.exit(f"{error}")
    if declaration.default in failed:
        sys.exit(f"The default {declaration.default} cannot be had.")


def _download(address: str, part: Path, sha256: str) -> None:
    with _answer(address) as blocks:
        write_checked(_bounded(blocks, address), part, sha256, address)


def _bounded(blocks: Iterator[bytes], address: str) -> Iterator[bytes]:
    received_bytes = 0
    for block in blocks:
        received_bytes += len(block)
        if received_bytes > _MAX_BYTES:
            raise DeclarationFaulty(f"{address} is longer than {_MAX_BYTES} bytes.")
        yield block


@contextmanager
def _answer(address: str) -> Iterator[Iterator[bytes]]:
    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            yield answer.iter_raw()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeclarationFaulty(f"{address} cannot be fetched: {error}") from None


if __name__ == "__main__":
    main()
