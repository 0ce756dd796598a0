"""An archive, looked at before a server loads it: layout, labels, code and reference clips.

Nothing in it is run, and nothing is unpacked but its labels and its reference clips.
"""

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml
from accent.layout import LABELS_FILE, MODEL_FILES, REFERENCE_FILE, US_LABEL
from pydantic import BaseModel, Field, ValidationError

from aurea.files import sha256_of
from aurea.paths import HANDLER

MANIFEST_FILE: Final = "MAR-INF/MANIFEST.json"

_HANDLER_FILE: Final = "accent_handler.py"
_CONFIG_FILE: Final = "model-config.yaml"
_OUR_MANIFEST: Final = {"handler": _HANDLER_FILE, "configFile": _CONFIG_FILE}
_RUN_BY_MANIFEST: Final = (
    *_OUR_MANIFEST,
    *("modelFile", "serializedFile", "requirementsFile", "envelope", "extensions"),
)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
# A file that Python takes code from, or that a worker could be led to.
_CODE_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyd", ".so", ".pth", ".egg", ".whl", ".zip"})
_MAX_FILES: Final = 500
_MAX_UNPACKED_BYTES: Final = 4_000_000_000
_MAX_TEXT_BYTES: Final = 1_000_000


class ArchiveRefused(Exception):
    """An archive that could do harm. The message says what is wrong and what to do."""


class ReferenceClip(BaseModel):
    """A clip in the archive and what its packager measured on it."""

    file: str
    us_confidence: dict[str, float]
    """By precision, 0 to 100."""
    top_accent: str


class Reference(BaseModel):
    """What a running worker must reproduce."""

    clips: list[ReferenceClip] = Field(min_length=1)
    tolerance_points: dict[str, float]
    """By precision: the largest deviation of us_confidence, in points."""


@dataclass(frozen=True)
class Vetted:
    """An archive that may be loaded."""

    path: Path
    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    strange_code: tuple[str, ...]
    """Code and settings that this checkout does not know; empty unless they are trusted."""
    reference: Reference | None
    """None only where the archive is trusted without one."""

    def clip(self, clip: ReferenceClip) -> bytes:
        """The bytes of a reference clip."""
        with zipfile.ZipFile(self.path) as content:
            return content.read(_clip_name(clip))


def vet(
    path: Path,
    *,
    served_name: str,
    served_labels: Sequence[str],
    trust: bool = False,
    allow_new_labels: bool = False,
) -> Vetted:
    """Check that an archive fits the service of `served_name`.

    `served_labels` are those of the version that answers now; `allow_new_labels` takes an
    archive with others, `trust` one with code that is not this checkout's, or without
    reference clips. Raises `ArchiveRefused`.
    """
    if not path.is_file():
        raise ArchiveRefused(f"There is no archive {path}. To build one: make mar")
    try:
        with zipfile.ZipFile(path) as content:
            _check_members(content)
            manifest = _manifest(content)
            version = _check_identity(manifest, served_name)
            labels = _labels(content)
            strange = _strange_code(content, manifest)
            reference = _reference(content)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise ArchiveRefused(f"{path} is no sound archive: {error}") from None
    _check_labels(labels, served_labels, allow_new_labels)
    if strange and not trust:
        raise ArchiveRefused(
            f"{path.name} brings code or settings that are not this checkout's: "
            f"{', '.join(strange)}. Build it anew here (make mar), or add --trust if you know "
            "what they do."
        )
    if reference is None and not trust:
        raise ArchiveRefused(
            f"{path.name} has no reference clips, so nobody could tell whether a worker scores "
            "as it should. Build it anew (make mar), or add --trust to go without."
        )
    return Vetted(path, served_name, version, sha256_of(path), labels, strange, reference)


def archive_labels(path: Path) -> tuple[str, ...]:
    """The labels of an archive, in index order. Raises `ArchiveRefused`."""
    try:
        with zipfile.ZipFile(path) as content:
            return _labels(content)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ArchiveRefused(f"The labels of {path} cannot be read: {error}") from None


def archive_reference(path: Path) -> tuple[Reference, bytes] | None:
    """What an archive's packager measured, with its first clip; None where there is none."""
    try:
        with zipfile.ZipFile(path) as content:
            reference = _reference(content)
            if reference is None:
                return None
            return reference, content.read(_clip_name(reference.clips[0]))
    except (OSError, zipfile.BadZipFile, ArchiveRefused):
        return None


def _check_members(content: zipfile.ZipFile) -> None:
    members = content.infolist()
    total_bytes = sum(member.file_size for member in members)
    if len(members) > _MAX_FILES or total_bytes > _MAX_UNPACKED_BYTES:
        raise ArchiveRefused(
            f"The archive would unpack to {len(members)} files and {total_bytes:,} bytes; at "
            f"most {_MAX_FILES} and {_MAX_UNPACKED_BYTES:,} are taken."
        )
    for member in members:
        name = PurePosixPath(member.filename)
        is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or is_link:
            raise ArchiveRefused(f"The archive writes outside its folder: {member.filename!r}.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise ArchiveRefused("The archive holds a file twice.")
    missing = {
        *MODEL_FILES,
        *(_HANDLER_FILE, _CONFIG_FILE, "accent/__init__.py", MANIFEST_FILE),
    } - set(names)
    if missing:
        raise ArchiveRefused(
            f"The archive has no {', '.join(sorted(missing))}: it was not built by `make mar`."
        )
    damaged = content.testzip()
    if damaged is not None:
        raise ArchiveRefused(f"The archive is damaged: {damaged}. Copy or build it anew.")


def _manifest(content: zipfile.ZipFile) -> dict[str, Any]:
    try:
        model = json.loads(_text(content, MANIFEST_FILE))["model"]
    except (ValueError, KeyError, TypeError):
        raise ArchiveRefused(f"{MANIFEST_FILE} cannot be read.") from None
    if not isinstance(model, dict):
        raise ArchiveRefused(f"{MANIFEST_FILE} describes no model.")
    return model


def _check_identity(manifest: dict[str, Any], served_name: str) -> str:
    name, version = str(manifest.get("modelName")), str(manifest.get("modelVersion"))
    if name != served_name:
        raise ArchiveRefused(
            f"The archive is of model {name!r:.100}, served here is {served_name}. Build it "
            f"under that name: make mar NAME={served_name} VERSION={version:.32} MODEL=..."
        )
    if not _VERSION.fullmatch(version):
        raise ArchiveRefused(
            f"The archive's version {version!r:.100} is not made of up to 32 letters, digits, "
            "dots, dashes and underscores. Build it anew: make mar VERSION=2.0"
        )
    return version


def _labels(content: zipfile.ZipFile) -> tuple[str, ...]:
    # Imported late: it brings torch along, and most commands need no labels.
    from accent.errors import ModelFolderError
    from accent.specification import read_labels

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / LABELS_FILE
        copy.write_text(_text(content, LABELS_FILE))
        try:
            return read_labels(copy)
        except ModelFolderError as error:
            raise ArchiveRefused(f"{error}") from None


def _check_labels(labels: Sequence[str], served: Sequence[str], allow_new: bool) -> None:
    if US_LABEL not in labels:
        raise ArchiveRefused(
            f"The archive has no label '{US_LABEL}' (it has {', '.join(labels)}): a US "
            "confidence could not be told."
        )
    added = sorted(set(labels) - set(served))
    gone = sorted(set(served) - set(labels))
    if (added or gone) and not allow_new:
        changes = [f"new: {', '.join(added)}"] * bool(added) + [f"gone: {', '.join(gone)}"] * bool(
            gone
        )
        raise ArchiveRefused(
            f"The archive tells other accents apart than the version that answers "
            f"({'; '.join(changes)}). If that is meant, add --allow-new-labels."
        )


def _strange_code(content: zipfile.ZipFile, manifest: dict[str, Any]) -> tuple[str, ...]:
    known = {
        path.relative_to(HANDLER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in HANDLER.rglob("*.py")
    }
    strange = [
        name
        for name in content.namelist()
        if PurePosixPath(name).suffix.lower() in _CODE_SUFFIXES
        and hashlib.sha256(content.read(name)).hexdigest() != known.get(name)
    ]
    # What the manifest names beside the handler is run or installed, too.
    named = [
        f"{key}={manifest[key]!s:.60}"
        for key in _RUN_BY_MANIFEST
        if manifest.get(key) and manifest[key] != _OUR_MANIFEST.get(key)
    ]
    return tuple(sorted(strange) + named + _strange_settings(content))


def _strange_settings(content: zipfile.ZipFile) -> list[str]:
    # TorchServe takes numbers of workers, launchers and environments from there as well.
    known = yaml.safe_load((HANDLER / _CONFIG_FILE).read_text())
    try:
        settings = yaml.safe_load(_text(content, _CONFIG_FILE))
    except yaml.YAMLError:
        raise ArchiveRefused(f"{_CONFIG_FILE} is not readable as YAML.") from None
    if not isinstance(settings, dict):
        raise ArchiveRefused(f"{_CONFIG_FILE} holds no settings.")
    return [f"{_CONFIG_FILE}: {key}" for key in settings if key not in known]


def _reference(content: zipfile.ZipFile) -> Reference | None:
    if REFERENCE_FILE not in content.namelist():
        return None
    try:
        reference = Reference.model_validate_json(_text(content, REFERENCE_FILE))
    except ValidationError as error:
        raise ArchiveRefused(
            f"{REFERENCE_FILE} is not what `make mar` writes ({error.error_count()} faults)."
        ) from None
    for clip in reference.clips:
        if _clip_name(clip) not in content.namelist():
            raise ArchiveRefused(f"{REFERENCE_FILE} names a clip that is not there: {clip.file}")
    return reference


def _clip_name(clip: ReferenceClip) -> str:
    return clip.file if clip.file.startswith("reference/") else f"reference/{clip.file}"


def _text(content: zipfile.ZipFile, name: str) -> str:
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise ArchiveRefused(f"{name} is larger than {_MAX_TEXT_BYTES:,} bytes.")
    return content.read(name).decode(errors="replace")
