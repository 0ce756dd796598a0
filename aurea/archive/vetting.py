"""An archive, looked at before a server loads it: layout, labels, code and reference clips.

It is packed anew first, and only the copy is looked at: it is what a server may load. Nothing in
it is run.
"""

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from accent.errors import ModelFolderError
from accent.labels import read_labels
from accent.layout import LABELS_FILE, REFERENCE_FILE, US_LABEL, layout_of, layouts_text
from pydantic import ValidationError

from aurea.archive.documents import Manifest, ReferenceClip, ReferenceDocument
from aurea.archive.errors import ArchiveRefused
from aurea.archive.layout import CONFIG_FILE, CORE_FOLDER, HANDLER_FILE, MANIFEST_FILE
from aurea.archive.repacking import repack
from aurea.archive.setting_values import faulty_values
from aurea.archive.settings import (
    UnreadableSettings,
    core_settings,
    parse_settings,
    strange_settings,
)
from aurea.files import sha256_of
from aurea.names import BadName, check_name, check_version
from aurea.paths import HANDLER

_OUR_RUNTIMES: Final = (None, "python")
# What the manifest has TorchServe run, install or read; all but two of `make mar`'s are empty.
_OUR_MANIFEST: Final = {
    "handler": HANDLER_FILE,
    "configFile": CONFIG_FILE,
    "modelFile": None,
    "serializedFile": None,
    "envelope": None,
    "extensions": None,
}
# A file that Python takes code from, or that a worker could be led to.
_CODE_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyd", ".so", ".pth", ".egg", ".whl", ".zip"})
_MAX_TEXT_BYTES: Final = 1_000_000
_MAX_CLIP_BYTES: Final = 25_000_000


@dataclass(frozen=True)
class Vetted:
    """An archive that may be loaded."""

    path: Path
    """The copy that was packed here and looked at. Nothing else may be loaded."""

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    strange_code: tuple[str, ...]
    """Code and settings that this checkout does not know; empty unless they are trusted."""
    reference: ReferenceDocument | None
    """None only where the archive is trusted without one."""

    def clip(self, clip: ReferenceClip) -> bytes:
        """The bytes of a reference clip."""
        with zipfile.ZipFile(self.path) as content:
            return content.read(clip.member)


def vet(
    source: Path,
    copy: Path,
    *,
    served_name: str,
    served_labels: Sequence[str],
    trust: bool = False,
    allow_new_labels: bool = False,
) -> Vetted:
    """Pack the archive `source` anew as `copy` and check that it fits the service of `served_name`.

    `served_labels` are those of the version that answers now; `allow_new_labels` takes an
    archive with others, `trust` one with code that is not this checkout's, or without
    reference clips. `copy` must not be there yet, and is to be removed where it is refused.
    Raises `ArchiveRefused`.
    """
    if not source.is_file():
        raise ArchiveRefused(f"There is no archive {source}. To build one: make mar")
    try:
        repack(source, copy)
    except OSError as error:
        raise ArchiveRefused(
            f"{source} cannot be packed anew as {copy}: {error.strerror or error}."
        ) from None
    with zipfile.ZipFile(copy) as content:
        _check_files(content.namelist())
        manifest = read_manifest(content)
        version = _check_identity(manifest, served_name)
        labels = _labels(content)
        code = strange_code(content, manifest, HANDLER)
        strange = (*code, *_strange_settings(content))
        reference = _reference(content)
    _check_labels(labels, served_labels, allow_new_labels)
    if strange and not trust:
        raise ArchiveRefused(
            f"{source.name} brings code or settings that are not this checkout's: "
            f"{', '.join(strange)}. Build it anew here (make mar), or add --trust if you know "
            "what they do."
        )
    if reference is None and not trust:
        raise ArchiveRefused(
            f"{source.name} has no reference clips, so nobody could tell whether a worker scores "
            "as it should. Build it anew (make mar), or add --trust to go without."
        )
    return Vetted(copy, served_name, version, sha256_of(copy), labels, strange, reference)


def archive_labels(path: Path) -> tuple[str, ...]:
    """The labels of an archive, in index order. Raises `ArchiveRefused`."""
    try:
        with zipfile.ZipFile(path) as content:
            return _labels(content)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ArchiveRefused(f"The labels of {path} cannot be read: {error}") from None


def archive_reference(path: Path) -> tuple[ReferenceDocument, bytes] | None:
    """What an archive's packager measured, with its first clip; None where there is none."""
    try:
        with zipfile.ZipFile(path) as content:
            reference = _reference(content)
            if reference is None:
                return None
            return reference, content.read(reference.clips[0].member)
    except (OSError, zipfile.BadZipFile, ArchiveRefused):
        return None


def _check_files(names: Sequence[str]) -> None:
    layout = layout_of(names)
    if layout is None:
        raise ArchiveRefused(f"The archive holds no model: that is {layouts_text()}.")
    missing = {
        *layout.files,
        *(HANDLER_FILE, CONFIG_FILE, f"{CORE_FOLDER}/__init__.py", MANIFEST_FILE),
    } - set(names)
    if missing:
        raise ArchiveRefused(
            f"The archive has no {', '.join(sorted(missing))}: it was not built by `make mar`."
        )


def read_manifest(content: zipfile.ZipFile) -> Manifest:
    """What an archive tells TorchServe of itself. Raises `ArchiveRefused`."""
    try:
        manifest = Manifest.model_validate_json(_text(content, MANIFEST_FILE))
    except ValidationError:
        raise ArchiveRefused(f"{MANIFEST_FILE} cannot be read.") from None
    if manifest.model.requirements_file is not None:
        raise ArchiveRefused(
            f"{MANIFEST_FILE} has packages installed from "
            f"{manifest.model.requirements_file:.60}; no archive needs any. Build it without."
        )
    return manifest


def _check_identity(manifest: Manifest, served_name: str) -> str:
    name, version = manifest.model.model_name, manifest.model.model_version
    if name != served_name:
        raise ArchiveRefused(
            f"The archive is of model {name!r:.100}, served here is {served_name}. Build it "
            f"under that name: make mar NAME={served_name} VERSION={version:.32} MODEL=..."
        )
    try:
        check_name(name)
        check_version(version)
    except BadName as error:
        raise ArchiveRefused(
            f"The archive's name or version cannot be served: {error} Build it anew: "
            "make mar VERSION=2.0"
        ) from None
    return version


def _labels(content: zipfile.ZipFile) -> tuple[str, ...]:
    layout = layout_of(content.namelist())
    name = layout.labels if layout else LABELS_FILE
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / name
        copy.write_text(_text(content, name), encoding="utf-8")
        try:
            return read_labels(copy)
        except ModelFolderError as error:
            raise ArchiveRefused(f"{error}") from None


def _check_labels(labels: Sequence[str], served: Sequence[str], allow_new: bool) -> None:
    if US_LABEL not in labels:
        raise ArchiveRefused(
            f"The archive has no label '{US_LABEL}' (it has {', '.join(labels)}): there would "
            "be no US confidence."
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


def strange_code(content: zipfile.ZipFile, manifest: Manifest, handler: Path) -> list[str]:
    """The code of an archive, and what its manifest has run, that the folder `handler` lacks."""
    known = {
        path.relative_to(handler).as_posix(): sha256_of(path) for path in handler.rglob("*.py")
    }
    strange = [
        name
        for name in content.namelist()
        if PurePosixPath(name).suffix.lower() in _CODE_SUFFIXES
        and _digest(content, name) != known.get(name, "")
    ]
    return sorted(strange) + _strange_entries(manifest)


def _digest(content: zipfile.ZipFile, name: str) -> str | None:
    """The sha256 of a member; None for one that is larger than any of this checkout's code."""
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        return None
    return hashlib.sha256(content.read(name)).hexdigest()


def _strange_entries(manifest: Manifest) -> list[str]:
    named = manifest.model.model_dump(by_alias=True)
    strange = [
        f"{key}={named[key]:.60}"
        for key, ours in _OUR_MANIFEST.items()
        if named[key] not in (None, ours)
    ]
    if manifest.runtime not in _OUR_RUNTIMES:
        strange.append(f"runtime={manifest.runtime:.60}")
    return strange


def _strange_settings(content: zipfile.ZipFile) -> list[str]:
    # TorchServe takes numbers of workers, launchers and environments from there as well.
    try:
        settings = parse_settings(_text(content, CONFIG_FILE))
        strange = strange_settings(settings)
        faulty = faulty_values(settings, core_settings(settings))
    except UnreadableSettings as error:
        raise ArchiveRefused(f"{error}") from None
    # A section or list where a value belongs is named once.
    inside = tuple(re.split(r"[.\[]", key.removeprefix("accent."))[0] for key in strange)
    values = [words for key, words in faulty.items() if key.removeprefix("accent.") not in inside]
    return [f"{CONFIG_FILE}: {each}" for each in [*strange, *values]]


def _reference(content: zipfile.ZipFile) -> ReferenceDocument | None:
    if REFERENCE_FILE not in content.namelist():
        return None
    try:
        reference = ReferenceDocument.model_validate_json(_text(content, REFERENCE_FILE))
    except ValidationError as error:
        raise ArchiveRefused(
            f"{REFERENCE_FILE} is not what `make mar` writes ({error.error_count()} faults)."
        ) from None
    for clip in reference.clips:
        if clip.member not in content.namelist():
            raise ArchiveRefused(f"{REFERENCE_FILE} names a clip that is not there: {clip.file}")
        if content.getinfo(clip.member).file_size > _MAX_CLIP_BYTES:
            raise ArchiveRefused(f"{clip.file} is larger than {_MAX_CLIP_BYTES:,} bytes.")
    return reference


def _text(content: zipfile.ZipFile, name: str) -> str:
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise ArchiveRefused(f"{name} is larger than {_MAX_TEXT_BYTES:,} bytes.")
    return content.read(name).decode(errors="replace")
