"""The settings that an archive brings along."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

_CONFIG_FILE: Final = "model-config.yaml"
_DEFAULT_MAX_AUDIO_S: Final = 300.0
_DEFAULT_MIN_AUDIO_S: Final = 0.5


@dataclass(frozen=True)
class ArchiveLimits:
    """The longest and the shortest clip that an archive's handler takes, in seconds."""

    max_audio_s: float
    min_audio_s: float


def archive_limits(path: Path) -> ArchiveLimits:
    """The limits of an archive. Raises `ValueError` where they cannot be read."""
    try:
        with zipfile.ZipFile(path) as content:
            settings = yaml.safe_load(content.read(_CONFIG_FILE))
        accent = settings.get("accent") or {}
        return ArchiveLimits(
            max_audio_s=float(accent.get("max_audio_s", _DEFAULT_MAX_AUDIO_S)),
            min_audio_s=float(accent.get("min_audio_s", _DEFAULT_MIN_AUDIO_S)),
        )
    except (
        *(OSError, zipfile.BadZipFile, KeyError, yaml.YAMLError),
        *(AttributeError, TypeError, ValueError),
    ) as error:
        raise ValueError(f"The limits of {path} cannot be read: {error}") from error
