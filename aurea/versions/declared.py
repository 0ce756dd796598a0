"""`versions.yaml`: the versions that every replica of a service is to serve, in one file.

Paths in it count from the folder that the file lies in.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from aurea.names import check_name, check_version, version_order
from aurea.versions.outcome import CommandRefused
from aurea.versions.state import Canary, State

_BLOCK_BYTES: Final = 1 << 20
_MAX_FILE_BYTES: Final = 1_000_000
_PLAIN_WORDS: Final = {
    "extra_forbidden": "there is no such key",
    "missing": "it is missing",
    "string_type": "not a text; put it in quotes",
    "string_pattern_mismatch": "not 64 hex digits",
}

_Version = Annotated[str, AfterValidator(check_version)]


class DeclarationFaulty(CommandRefused):
    """The file cannot be followed. The message says what is wrong in which field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DeclaredCanary(_Strict):
    """The version that answers a share of the requests beside the default."""

    version: _Version
    percent: float = Field(gt=0, le=100, allow_inf_nan=False)


class DeclaredVersion(_Strict):
    """A version that is to be served."""

    archive: str = Field(min_length=1)
    """Path of the archive that `make mar` has built."""
    sha256: Annotated[str, StringConstraints(pattern=re.compile(r"^[0-9a-f]{64}\Z"))]
    """Of the archive; what has another is never read."""
    workers: int | None = Field(default=None, ge=1)
    """How many it gets; None: as many as it has, or as the default."""
    source: str = ""
    """Where the archive is fetched from before the service starts, as `aurea.versions.fetching`
    reads it; empty where it lies at `archive` already."""
    trust: bool = False
    """Take code that is not this checkout's, or no reference clips."""
    allow_new_labels: bool = False
    """Take other accents than the default's."""


class Declaration(_Strict):
    """All that is to be served under one model's name."""

    model: Annotated[str, AfterValidator(check_name)]
    default: _Version
    canary: DeclaredCanary | None = None
    versions: dict[_Version, DeclaredVersion] = Field(min_length=1)

    @model_validator(mode="after")
    def _roles_are_versions(self) -> "Declaration":
        if self.default not in self.versions:
            raise ValueError(f"default: {self.default} is none of the versions")
        if self.canary is not None:
            if self.canary.version not in self.versions:
                raise ValueError(f"canary: {self.canary.version} is none of the versions")
            if self.canary.version == self.default:
                raise ValueError(f"canary: {self.default} is the default, which has it all")
        return self

    def text(self) -> str:
        """The file's content, as `read_declaration` reads it."""
        content = self.model_dump(exclude_defaults=True)
        content["versions"] = {
            each: content["versions"][each] for each in sorted(self.versions, key=version_order)
        }
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read_declaration(path: Path) -> Declaration:
    """What a `versions.yaml` declares. Raises `DeclarationFaulty`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DeclarationFaulty(f"{path} cannot be read: {error.strerror or error}.") from None
    return parse_declaration(content, path)


def parse_declaration(content: bytes, path: Path) -> Declaration:
    """What a file's content declares; `path` is named in messages. Raises `DeclarationFaulty`."""
    if len(content) > _MAX_FILE_BYTES:
        raise DeclarationFaulty(f"{path} is longer than {_MAX_FILE_BYTES} bytes.")
    try:
        found = yaml.load(content, Loader=_OnceOnly)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DeclarationFaulty(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        return Declaration.model_validate(found)
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(
                [
                    *([".".join(map(str, each["loc"]))] if each["loc"] else []),
                    _PLAIN_WORDS.get(each["type"], each["msg"].removeprefix("Value error, ")),
                ]
            )
            for each in error.errors()
        )
        raise DeclarationFaulty(f"{path} cannot be followed: {faults}") from None


def checked_copy(source: Path, target: Path, sha256: str) -> None:
    """Copy an archive and check what was copied, before anybody reads either.

    Raises `DeclarationFaulty`, and leaves no copy, where the digest is another.
    """
    try:
        with source.open("rb") as reading:
            write_checked(iter(partial(reading.read, _BLOCK_BYTES), b""), target, sha256, source)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise DeclarationFaulty(f"{source} cannot be copied: {error.strerror or error}.") from None
    except DeclarationFaulty:
        target.unlink()
        raise


def write_checked(blocks: Iterable[bytes], target: Path, sha256: str, source: object) -> None:
    """Write what comes from `source`. Raises `DeclarationFaulty` where its digest is another."""
    digest = hashlib.sha256()
    with target.open("wb") as writing:
        for block in blocks:
            digest.update(block)
            writing.write(block)
    if digest.hexdigest() != sha256:
        raise DeclarationFaulty(
            f"{source} is not the archive that is declared: its sha256 is {digest.hexdigest()}, "
            f"not {sha256}. Nothing has read it."
        )


def differences(declaration: Declaration, state: State) -> list[str]:
    """In what a service's state is not what is declared; empty where they agree."""
    found: list[str] = []
    for version, declared in declaration.versions.items():
        record = state.versions.get(version)
        if record is None:
            found.append(f"{version} is not registered")
        elif record.failed:
            found.append(f"{version} is not served: {record.failed}")
        elif declared.workers not in (None, record.workers):
            found.append(f"{version} has not its {declared.workers} workers")
    if state.default != declaration.default:
        found.append(f"{state.default or 'nothing'} answers, not {declaration.default}")
    if share_of(state.canary) != share_of(declaration.canary):
        found.append("the canary's share is another")
    found += [
        f"{each} is not declared"
        for each in _sorted(state.versions)
        if each not in declaration.versions
    ]
    return found


def exported(state: State, model: str, store: Path) -> Declaration:
    """What a running service serves, declared with its archives where they lie now."""
    versions = {
        version: DeclaredVersion(
            archive=str(store / record.archive), sha256=record.sha256, workers=record.workers
        )
        for version, record in state.versions.items()
        if not record.failed
    }
    if state.default not in versions:
        raise CommandRefused(
            f"The default {state.default} is not served, so there is nothing to declare."
        )
    canary = state.canary
    return Declaration(
        model=model,
        default=state.default,
        canary=DeclaredCanary(version=canary.version, percent=canary.percent) if canary else None,
        versions=versions,
    )


def share_of(canary: Canary | DeclaredCanary | None) -> tuple[str, float] | None:
    """A canary's version and its share in percent, to compare by; None where there is none."""
    return (canary.version, float(canary.percent)) if canary else None


def _sorted(versions: Iterable[str]) -> list[str]:
    return sorted(versions, key=version_order)


class _OnceOnly(yaml.SafeLoader):
    """Reads YAML in which a key that stands twice is a fault, and not the last one that counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key} stands there twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)
