"""An archive's settings, `model-config.yaml`: read, changed and compared with this checkout's.

They are read as plain data, without torch.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from accent.errors import shown
from accent.limits import AudioLimits
from pydantic import BaseModel, Field, ValidationError

from aurea.archive.layout import CONFIG_FILE
from aurea.paths import HANDLER

OUR_SETTINGS_FILE: Final = HANDLER / CONFIG_FILE
# Ours has three thousand. YAML can take minutes for a number of a megabyte.
_MAX_SETTINGS_CHARS: Final = 1 << 16
CORE_SECTION: Final = "accent"
"""The entry of the settings that the handler and the core read."""


class UnreadableSettings(ValueError):
    """Settings that are none. The message says which and why."""


class ArchiveLimits(BaseModel):
    """What clips the workers of an archive take; the core's defaults where it says nothing."""

    max_audio_s: float = Field(AudioLimits.max_audio_s, gt=0, allow_inf_nan=False)
    """Longest clip, in seconds of audio."""

    min_audio_s: float = Field(AudioLimits.min_audio_s, ge=0, allow_inf_nan=False)
    """Shortest clip, in seconds of audio."""


def archive_limits(path: Path) -> ArchiveLimits:
    """The limits in the settings of the archive at `path`.

    Raises `UnreadableSettings` for an archive without readable settings.
    """
    try:
        with zipfile.ZipFile(path) as content:
            settings = parse_settings(content.read(CONFIG_FILE))
    except (OSError, zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise UnreadableSettings(f"The settings of {path} cannot be read: {error}") from None
    try:
        return ArchiveLimits.model_validate(core_settings(settings))
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UnreadableSettings(f"{CONFIG_FILE} of {path}: {faults}") from None


def parse_settings(text: str | bytes) -> dict[str, Any]:
    """The settings that a YAML text holds. Raises `UnreadableSettings` where it holds none."""
    if len(text) > _MAX_SETTINGS_CHARS:
        raise UnreadableSettings(f"{CONFIG_FILE} is larger than {_MAX_SETTINGS_CHARS:,} bytes.")
    try:
        settings = yaml.safe_load(text)
    # PyYAML's constructors fail in many ways on a value that is not of its tag's kind.
    except Exception:
        raise UnreadableSettings(f"{CONFIG_FILE} is not readable as YAML.") from None
    if not isinstance(settings, dict):
        raise UnreadableSettings(f"{CONFIG_FILE} holds no settings.")
    return settings


def core_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the handler and the core; empty where it is left out.

    Raises `UnreadableSettings` where it is no section.
    """
    section = settings.get(CORE_SECTION) or {}
    if not isinstance(section, dict):
        raise UnreadableSettings(f"{CONFIG_FILE}: {CORE_SECTION} holds no settings.")
    return section


def with_engine(text: str, *, engine: str = "", precision: str = "") -> str:
    """The text of settings with another engine or precision; an empty one stays as it is.

    Comments stay where they are. Raises `UnreadableSettings` where the text has no such entry.
    """
    for key, value in (("engine", engine), ("precision", precision)):
        if value:
            entry = re.search(rf"^  {key}:( .*)$", text, re.MULTILINE)
            if entry is None:
                raise UnreadableSettings(f"{CONFIG_FILE} has no entry {key} to put {value!r} into.")
            # JSON's strings are YAML's, so that no value can be more than one.
            text = f"{text[: entry.start(1)]} {json.dumps(value)}{text[entry.end(1) :]}"
    return text


def strange_settings(settings: Mapping[str, Any]) -> list[str]:
    """The keys that this checkout's settings do not have, nested ones as `section.key`.

    A list where this checkout has a value is strange itself, as `key[]`.
    """
    return list(_strange_keys(settings, parse_settings(OUR_SETTINGS_FILE.read_bytes()), ""))


def _strange_keys(found: Mapping[Any, Any], known: Mapping[Any, Any], place: str) -> Iterator[str]:
    # What is strange is not looked into: YAML's aliases can nest it without end.
    for key, value in found.items():
        name = f"{place}{key if isinstance(key, str) else shown(key):.60}"
        if key not in known:
            yield name
        elif isinstance(value, Mapping):
            ours = known[key]
            yield from _strange_keys(value, ours if isinstance(ours, Mapping) else {}, f"{name}.")
        elif isinstance(value, list) and not isinstance(known[key], list):
            yield f"{name}[]"
