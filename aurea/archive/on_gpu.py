"""Which archives a GPU computes, where there is one. Read without torch."""

import zipfile
from pathlib import Path
from typing import Any, Final

from accent.layout import layout_of

from aurea.archive.layout import CONFIG_FILE
from aurea.archive.settings import UnreadableSettings, core_settings, parse_settings

_ENGINES: Final = ("auto", "torch")


def settings_on_gpu(archive: Path) -> dict[str, Any] | None:
    """The settings of an archive that a GPU computes, None for one that it does not.

    Also None for an archive that cannot be read: others refuse it.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            layout = layout_of(content.namelist())
            settings = parse_settings(content.read(CONFIG_FILE))
        engine = core_settings(settings).get("engine", "auto")
    except (OSError, zipfile.BadZipFile, KeyError, NotImplementedError, UnreadableSettings):
        return None
    return settings if layout is not None and layout.on_gpu and engine in _ENGINES else None
