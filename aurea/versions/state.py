"""What a restart must bring back of a model's versions, and its file `models.json`."""

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aurea.names import BadName, check_version, version_order

_Place = tuple[str | int, ...]
"""Where in the file something stands: its keys from the outermost inwards."""

_PLAIN_WORDS: Final = {
    "extra_forbidden": "there is no such key",
    "missing": "it is missing",
    "model_type": "not an object",
}


class _Strict(BaseModel):
    # A key that is spelt wrong would otherwise count as one that is not there.
    model_config = ConfigDict(extra="forbid")


class Canary(_Strict):
    """The share of requests that a candidate version answers, in percent."""

    version: str
    percent: float = Field(gt=0, le=100)


class StoredArchive(_Strict):
    """An archive in the store."""

    archive: str
    """File name in the store."""
    sha256: str
    """Of the archive."""


class VersionRecord(StoredArchive):
    """A version that is to be served."""

    workers: int | None = None
    """Workers that it was given; None: as many as `make serve` is told."""
    failed: str = ""
    """Why it could not be loaded when the service last started; empty where it was."""
    former: StoredArchive | None = None
    """The archive before this one, kept until this one has been loaded."""

    @property
    def stored(self) -> list[StoredArchive]:
        """All archives that must stay in the store for this version."""
        return [self, self.former] if self.former else [self]


class State(_Strict):
    """Everything that a restart must bring back."""

    default: str = ""
    """The version that answers; empty before the first start."""
    previous: str = ""
    """The default before it, for a rollback; empty where there is none."""
    left: str = ""
    """The version that the last rollback took away from being the default."""
    canary: Canary | None = None
    workers_setting: int = 0
    """What `make serve` was told under WORKERS at the last start; 0: one per core."""
    versions: dict[str, VersionRecord] = {}
    retired: list[str] = []
    """Versions that were taken away, so that a start does not bring them back."""
    leftovers: list[str] = []
    """Files of the store that may be deleted: archives not proven yet, replaced or retired."""

    def in_order(self) -> list[str]:
        """All versions, those first that should become the default, if they can be loaded."""
        first = [each for each in (self.default, self.previous) if each in self.versions]
        return list(dict.fromkeys([*first, *sorted(self.versions, key=version_order)]))

    def archives(self) -> dict[str, str]:
        """All archives that must stay in the store: their sha256 by their file names."""
        stored = (each for record in self.versions.values() for each in record.stored)
        return {each.archive: each.sha256 for each in stored}

    def wanted(self) -> set[str]:
        """The file names of all archives that must stay in the store."""
        return set(self.archives())

    def make_default(self, version: str) -> None:
        """Let `version` answer; the default until now is kept for a rollback."""
        if version == self.default:
            return
        self.previous, self.default, self.left = self.default, version, ""
        self._end_canary_of(version)

    def roll_back(self) -> None:
        """Let the previous default answer, and nothing else beside it."""
        self.left, self.default, self.previous = self.default, self.previous, ""
        self.canary = None

    def fall_back(self, version: str) -> None:
        """Let `version` answer because the default could not be loaded."""
        self.left, self.default = self.default, version
        if self.previous == version:
            self.previous = ""
        self._end_canary_of(version)

    def forget(self, version: str) -> None:
        """Take a version that is not the default out of everything, for good."""
        self._release(self.versions.pop(version, None))
        self.retired = [*(each for each in self.retired if each != version), version]
        if self.previous == version:
            self.previous = ""
        self._end_canary_of(version)

    def register(self, version: str, record: VersionRecord) -> None:
        """Serve `version` as `record` says; archives that it had before may be deleted."""
        old = self.versions.get(version)
        self.versions[version] = record
        self._release(old)
        self.retired = [each for each in self.retired if each != version]

    def loaded(self, version: str) -> None:
        """Note that a version's archive could be loaded; the one before it may be deleted."""
        record = self.versions[version]
        old = record.model_copy()
        record.failed, record.former = "", None
        self._release(old)

    def not_loaded(self, version: str, reason: str) -> None:
        """Note why a version could not be loaded, and keep the archive before it, if any."""
        record = self.versions[version]
        kept = record.former or record
        self.versions[version] = VersionRecord(
            archive=kept.archive, sha256=kept.sha256, workers=record.workers, failed=reason
        )
        self._release(record)

    def may_delete(self, archive: str) -> None:
        """Note a file of the store that is not needed unless a version comes to name it."""
        self.leftovers = [*(each for each in self.leftovers if each != archive), archive]

    def to_json(self) -> str:
        """The content of the file; versions in their order."""
        ordered = {each: self.versions[each] for each in sorted(self.versions, key=version_order)}
        return self.model_copy(update={"versions": ordered}).model_dump_json(indent=1)

    def _release(self, record: VersionRecord | None) -> None:
        for each in record.stored if record else []:
            self.may_delete(each.archive)
        wanted = self.wanted()
        self.leftovers = [each for each in self.leftovers if each not in wanted]

    def _end_canary_of(self, version: str) -> None:
        if self.canary is not None and self.canary.version == version:
            self.canary = None


def parse(content: bytes) -> State:
    """The state in a file's content.

    Raises `ValueError`, which says what is wrong in which field and line.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from None
    try:
        state = State.model_validate(json.loads(text, object_pairs_hook=_no_key_twice))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except _KeyTwice as error:
        line = text.count("\n", 0, text.rfind(json.dumps(error.key, ensure_ascii=False))) + 1
        raise ValueError(f"{error.key} (line {line}): this key stands there twice") from None
    except ValidationError as error:
        faults = [
            (each["loc"], _PLAIN_WORDS.get(each["type"], each["msg"])) for each in error.errors()
        ]
    else:
        faults = list(_contradictions(state))
        if not faults:
            return state
    lines = _lines(text)
    raise ValueError("; ".join(_with_line(place, words, lines) for place, words in faults))


class _KeyTwice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _KeyTwice(key)
        found[key] = value
    return found


def _contradictions(state: State) -> Iterator[tuple[_Place, str]]:
    """Values that are sound each for itself and cannot be true together."""
    for version, record in state.versions.items():
        try:
            check_version(version)
        except BadName as error:
            yield ("versions", version), str(error)
        if not _is_file_name(record.archive):
            yield ("versions", version, "archive"), "not a file name"
        if record.former and not _is_file_name(record.former.archive):
            yield ("versions", version, "former", "archive"), "not a file name"
    if not all(map(_is_file_name, state.leftovers)):
        yield ("leftovers",), "not all of it are file names"
    named: list[tuple[_Place, str]] = [
        (("default",), state.default),
        (("previous",), state.previous),
        (("canary", "version"), state.canary.version if state.canary else ""),
    ]
    for place, version in named:
        if version and version not in state.versions:
            yield place, f"{version} is none of the versions"


def _is_file_name(text: str) -> bool:
    return text not in {"", ".", ".."} and PurePath(text).name == text


def _with_line(place: _Place, words: str, lines: dict[_Place, int]) -> str:
    # What is missing has no line: the line of what it is missing in is told.
    known = place
    while known and known not in lines:
        known = known[:-1]
    line = lines.get(known)
    name = ".".join(map(str, place)) or "the whole"
    return f"{name}{f' (line {line})' if line else ''}: {words}"


def _lines(text: str) -> dict[_Place, int]:
    """The line of every key; empty where it cannot be told, which is no fault of its own."""
    lines: dict[_Place, int] = {}

    def walk(node: yaml.Node | None, place: _Place) -> None:
        inner: _Place
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, key.value)
                lines[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                inner = (*place, index)
                lines[inner] = value.start_mark.line + 1
                walk(value, inner)

    # JSON is YAML too, and YAML's parser is the one that tells lines.
    try:
        walk(yaml.compose(text, yaml.SafeLoader), ())
    except yaml.YAMLError:
        return {}
    return lines
