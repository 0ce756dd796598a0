"""What a model says of its own worth: a sentence or two for people, by language."""

import json
from pathlib import Path
from typing import Final

from accent.errors import ModelFolderError
from accent.layout import WORTH_FILE

_MAX_CHARS: Final = 600
_MAX_LANGUAGES: Final = 20


def read_worth(folder: Path) -> dict[str, str]:
    """Sentences by language tag, such as `en`; empty where the folder has none.

    Raises `ModelFolderError` for a file that holds anything else.
    """
    path = folder / WORTH_FILE
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{WORTH_FILE}: not readable as JSON: {error!s:.200}") from None
    if (
        not isinstance(document, dict)
        or len(document) > _MAX_LANGUAGES
        or not all(isinstance(text, str) and len(text) <= _MAX_CHARS for text in document.values())
    ):
        raise ModelFolderError(
            f"{WORTH_FILE}: must be an object of texts, by language, of up to {_MAX_CHARS} "
            "characters."
        )
    return document
